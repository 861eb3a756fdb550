"""The package aics-witness: its witness, which serves until standard input ends, or its client, as witness.rs has it."""

import json
import pathlib
import sys
import threading

from aics_tlog import Checkpoint, MerkleTree, parse_note, parse_vkey, sign_checkpoint, verify_cosignature
from aics_witness import (
    WitnessAhead,
    WitnessClient,
    WitnessRejected,
    load_config,
    load_or_create_key,
    make_server,
    merge_cosignatures,
)
from aics_witness import Witness, WitnessStore
from aics_witness.cli import main
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN = "example.com/log"


def serve(at, vkey):
    config = str(at / "witness.json")
    assert main(["init", "--config", config, "--name", "w.example/aics"]) == 0
    assert main(["add-log", "--config", config, "--origin", ORIGIN, "--vkey", vkey]) == 0
    config = load_config(config)
    key, _, _ = load_or_create_key(config.key_path, create=False)
    witness = Witness(config.name, key, WitnessStore(config.db_path), config.logs)
    server = make_server(witness, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"address": server.url.removeprefix("http://"), "key": witness.vkey_text}), flush=True)
    sys.stdin.read()


def submit(url, vkey):
    key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    witness, tree = parse_vkey(vkey), MerkleTree([b"%d" % i for i in range(300)])
    fork = MerkleTree([b"x" if i == 7 else b"%d" % i for i in range(300)])
    note = lambda of, size: sign_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=of.root(size)), key, ORIGIN).to_bytes()
    client = WitnessClient(url, vkey)
    for size in [1, 2, 3, 8, 9, 64, 65, 100, 100, 250]:
        lines = client.submit(note(tree, size), tree.consistency_proof)
        merged = parse_note(merge_cosignatures(note(tree, size), lines))
        by_witness = [line for line in merged.signatures if (line.name, line.key_id) == (witness.name, witness.key_id)]
        assert len(by_witness) == 1
        cosigned = (witness.name, witness.public_key, ORIGIN, size, tree.root(size))
        assert verify_cosignature(by_witness[0].signature, *cosigned)
    # A client that has forgotten what the witness has.
    WitnessClient(url, vkey).submit(note(tree, 260), tree.consistency_proof)
    for refused, size, why in [(fork, 300, WitnessRejected), (fork, 260, WitnessRejected), (tree, 200, WitnessAhead)]:
        try:
            WitnessClient(url, vkey).submit(note(refused, size), refused.consistency_proof)
        except why as error:
            assert why is WitnessAhead or error.status == 422, error
        else:
            raise AssertionError(f"{size} entries were cosigned")


if __name__ == "__main__":
    match sys.argv[1]:
        case "serve":
            serve(pathlib.Path(sys.argv[2]), sys.argv[3])
        case "submit":
            submit(sys.argv[2], sys.argv[3])
