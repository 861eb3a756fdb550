"""Checks or makes a directory as main.rs describes it, with the package aics-tlog."""

import json
import pathlib
import random
import sys

from aics_tlog import (
    Checkpoint,
    DirectoryTileStore,
    FileSystemTileReader,
    IncrementalTileWriter,
    MerkleTree,
    audit_tiles,
    cosignature_vkey,
    format_vkey,
    leaf_hash,
    parse_checkpoint,
    parse_note,
    parse_vkey,
    sign_checkpoint,
    sign_cosignature,
    verify_consistency,
    verify_cosignature,
    verify_inclusion,
    verify_note,
    vkey_from_ed25519,
)
from aics_tlog.note import Note
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PROOFS = 1000


def path(texts):
    return [bytes.fromhex(text) for text in texts]


def check(at):
    note = parse_note((at / "log/checkpoint").read_bytes())
    assert verify_note(note, [parse_vkey((at / "vkey").read_text().strip())])
    head = parse_checkpoint(note.text)
    witness = parse_vkey((at / "witness").read_text().strip())
    by_witness = [line for line in note.signatures if (line.name, line.key_id) == (witness.name, witness.key_id)]
    assert len(by_witness) == 1
    cosigned = (witness.name, witness.public_key, head.origin, head.size, head.root)
    assert verify_cosignature(by_witness[0].signature, *cosigned)
    report = audit_tiles(FileSystemTileReader(at / "log"), head.size, head.root)
    assert (report.size, report.bundles) == (head.size, -(-head.size // 256))
    proofs = json.loads((at / "proofs.json").read_text())
    assert len(proofs["inclusion"]) == len(proofs["consistency"]) == PROOFS
    for p in proofs["inclusion"]:
        leaf, root = bytes.fromhex(p["leaf"]), bytes.fromhex(p["root"])
        assert verify_inclusion(leaf, p["index"], p["size"], path(p["path"]), root)
    for p in proofs["consistency"]:
        old, new = bytes.fromhex(p["old_root"]), bytes.fromhex(p["new_root"])
        assert verify_consistency(p["old"], p["new"], old, new, path(p["path"]))


def make(at):
    size, origin = 1500, "python.example.com/log"
    rng = random.Random(1)
    entries = [rng.randbytes(rng.randrange(50)) for _ in range(size)]
    writer = IncrementalTileWriter(DirectoryTileStore(at / "log", fsync=False))
    for start in range(0, size, 333):
        writer.append(entries[start : start + 333])
    tree = MerkleTree(entries)
    assert tree.root() == writer.root()
    key, witness = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    note = sign_checkpoint(Checkpoint(origin=origin, size=size, root=tree.root()), key, origin)
    _, line = sign_cosignature(witness, "witness.example.com", 1700000000, origin, size, tree.root())
    note = Note(text=note.text, signatures=(*note.signatures, line))
    (at / "log/checkpoint").write_bytes(note.to_bytes())
    (at / "vkey").write_text(format_vkey(vkey_from_ed25519(origin, key.public_key())) + "\n")
    (at / "witness").write_text(format_vkey(cosignature_vkey("witness.example.com", witness.public_key())) + "\n")
    inclusion, consistency = [], []
    for _ in range(PROOFS):
        new = rng.randrange(1, size + 1)
        index, old = rng.randrange(new), rng.randrange(1, new + 1)
        shown = lambda hashes: [each.hex() for each in hashes]
        inclusion.append({
            "index": index, "size": new, "root": tree.root(new).hex(), "leaf": leaf_hash(entries[index]).hex(),
            "path": shown(tree.inclusion_proof(index, new)),
        })
        consistency.append({
            "old": old, "new": new, "old_root": tree.root(old).hex(), "new_root": tree.root(new).hex(),
            "path": shown(tree.consistency_proof(old, new)),
        })
    proofs = {"size": size, "inclusion": inclusion, "consistency": consistency}
    (at / "proofs.json").write_text(json.dumps(proofs))


if __name__ == "__main__":
    {"check": check, "make": make}[sys.argv[1]](pathlib.Path(sys.argv[2]))
