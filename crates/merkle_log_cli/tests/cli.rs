//! What the program's user sees.

#[path = "../../tlog/tests/support/mod.rs"]
mod support;

use serde_json::Value as Json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use support::log::{Log, export, label, order};
use support::{key, note, witness};
use tlog::*;

fn run(arguments: &[&str], at: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_merkle-log"));
    command.args(arguments).current_dir(at).output().unwrap()
}

/// The exit code and what was printed.
fn says(arguments: &[&str], at: &Path) -> (i32, String) {
    let output = run(arguments, at);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

fn vkey() -> String {
    key("example.com/log", 1).verifier_key().to_string()
}

fn verify(file: &str, at: &Path) -> (i32, String) {
    says(&["verify", "--key", &vkey(), file], at)
}

fn orders(size: u64) -> Log {
    Log::of_orders("example.com/log", size)
}

#[test]
fn a_stranger_sees_what_a_bundle_proves_and_what_it_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = key("example.com/log", 1);
    let mut bundle = orders(20).bundle(&[3, 7], &[&log]);
    bundle.entries[1].leaf = BundleLeaf::Hash(bundle.entries[1].leaf.hash());
    bundle.entries[1].label = label("public.orders", &[("id", "7")]);
    std::fs::write(at.join("bundle.json"), bundle.to_json()).unwrap();
    std::fs::write(at.join("bundle.cbor"), bundle.to_cbor()).unwrap();
    std::fs::write(at.join("key"), vkey() + "\n").unwrap();
    for file in ["bundle.json", "bundle.cbor"] {
        for trust in [["--key", "key"], ["--key", &vkey()]] {
            let (code, text) = says(&["verify", trust[0], trust[1], file], at);
            assert_eq!(code, 0, "{text}");
            for part in [
                "proven",
                "example.com/log, 20 entries",
                "3: insert public.orders: id = 3, note = \"order 3\"",
                "said to be public.orders (id = 7), which is NOT proven",
                "NOT proven  that the rows are still so",
                "no known witness has cosigned",
            ] {
                assert!(text.contains(part), "{part}\n{text}");
            }
        }
    }
    let (code, text) = says(&["--json", "verify", "--key", "key", "bundle.json"], at);
    let json: Json = serde_json::from_str(&text).unwrap();
    assert_eq!((code, json["verdict"].as_str()), (0, Some("good")));
    assert_eq!(json["proven"]["entries"][0]["columns"]["id"], "3");
    bundle.entries[0].leaf = BundleLeaf::Data(order(4));
    std::fs::write(at.join("false.json"), bundle.to_json()).unwrap();
    let (code, text) = verify("false.json", at);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("BAD: the entry 3 is not proven"), "{text}");
}

#[test]
fn exit_codes_say_good_bad_or_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (log, stranger) = (key("example.com/log", 1), key("example.com/log", 3));
    let good = orders(5).signed(&[&log]).to_string();
    std::fs::write(at.join("good"), &good).unwrap();
    std::fs::write(
        at.join("strange"),
        orders(5).signed(&[&stranger]).to_string(),
    )
    .unwrap();
    std::fs::write(at.join("bad"), good.replace("\n5\n", "\n6\n")).unwrap();
    std::fs::write(at.join("torn"), &good[..good.len() - 9]).unwrap();
    for (file, code) in [
        ("good", 0),
        ("bad", 1),
        ("strange", 2),
        ("torn", 2),
        ("absent", 2),
    ] {
        let (found, text) = verify(file, at);
        assert_eq!(found, code, "{file}: {text}");
    }
    let all = ["verify", "--key", &vkey(), "good", "strange", "bad"];
    assert_eq!(says(&all, at).0, 1);
    assert_eq!(says(&all[..5], at).0, 2);
    // Without anyone to trust there is no answer, and wrong arguments are none either.
    assert_eq!(says(&["verify", "good"], at).0, 2);
    assert_eq!(says(&["verify", "--key", "no key", "good"], at).0, 2);
    assert_eq!(says(&["verify", "--policy", "good", "good"], at).0, 2);
}

#[test]
fn one_proof_of_many_rows_is_proven_and_an_altered_one_is_false() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let indexes: Vec<u64> = (100..150)
        .chain([7])
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut bundle = orders(300).bundle_at_once(&indexes, &[&key("example.com/log", 1)]);
    std::fs::write(at.join("bundle.json"), bundle.to_json()).unwrap();
    std::fs::write(at.join("bundle.cbor"), bundle.to_cbor()).unwrap();
    for file in ["bundle.json", "bundle.cbor"] {
        let (code, text) = verify(file, at);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains("149: insert public.orders: id = 149") && text.contains("7: insert"),
            "{text}"
        );
    }
    bundle.entries[3].leaf = BundleLeaf::Data(order(99));
    std::fs::write(at.join("altered"), bundle.to_json()).unwrap();
    let (code, text) = verify("altered", at);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("not proven together"), "{text}");
}

#[test]
fn what_psql_prints_is_read_from_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let bundle = orders(20).bundle(&[3], &[&key("example.com/log", 1)]);
    let hex: String = bundle
        .to_cbor()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let proof = bundle.tlog_proof(&bundle.entries[0]).unwrap().to_string();
    let texts = [
        bundle.to_json(),
        format!("\\x{hex}"),
        bundle.checkpoint.to_string(),
        proof,
    ];
    for text in texts {
        let printed = at.join("printed");
        std::fs::write(&printed, text + "\n").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_merkle-log"))
            .args(["verify", "--key", &vkey(), "-"])
            .stdin(std::fs::File::open(&printed).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(verify("printed", at).0, 0);
    }
}

#[test]
fn a_policy_asks_for_witnesses() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (log, witness) = (key("example.com/log", 1), witness("w", 9));
    let policy = format!(
        "log {}\nwitness w {}\nquorum w\n",
        vkey(),
        witness.verifier_key()
    );
    std::fs::write(at.join("policy"), policy).unwrap();
    std::fs::write(at.join("plain"), orders(5).signed(&[&log]).to_string()).unwrap();
    std::fs::write(
        at.join("cosigned"),
        orders(5).signed(&[&log, &witness]).to_string(),
    )
    .unwrap();
    let (code, text) = says(&["verify", "--policy", "policy", "plain"], at);
    assert_eq!(code, 2, "{text}");
    let (code, text) = says(&["verify", "--policy", "policy", "cosigned"], at);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("cosigned by w at 2023-11-14T22:13:20Z"),
        "{text}"
    );
}

#[test]
fn consistency_is_checked_against_the_checkpoint_that_was_kept() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = key("example.com/log", 1);
    let proof = orders(20).consistency(6, &[&log]);
    std::fs::write(at.join("proof"), proof.to_cbor()).unwrap();
    std::fs::write(at.join("kept"), proof.old.to_string()).unwrap();
    let mut rewritten = orders(6);
    rewritten.entries[2] = order(99);
    std::fs::write(at.join("rewritten"), rewritten.signed(&[&log]).to_string()).unwrap();
    std::fs::write(at.join("other"), orders(7).signed(&[&log]).to_string()).unwrap();
    for (kept, code) in [("kept", 0), ("rewritten", 1), ("other", 2)] {
        let (found, text) = says(&["verify", "--key", &vkey(), "--since", kept, "proof"], at);
        assert_eq!(found, code, "{kept}: {text}");
    }
    let (code, text) = verify("proof", at);
    assert_eq!(code, 0);
    assert!(text.contains("grew from   6 entries"), "{text}");
    // Two checkpoints of one size and two roots: both are signed, and one of them is a lie.
    let (code, text) = says(
        &["verify", "--key", &vkey(), "--since", "kept", "rewritten"],
        at,
    );
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("two roots at size 6"), "{text}");
}

#[test]
fn a_tlog_proof_is_checked_with_its_entry_or_a_leaf_hash() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let bundle = orders(20).bundle(&[3], &[&key("example.com/log", 1)]);
    let entry = &bundle.entries[0];
    let mut proof = bundle.tlog_proof(entry).unwrap();
    std::fs::write(at.join("with.tlog-proof"), proof.to_string()).unwrap();
    proof.extra = None;
    std::fs::write(at.join("without.tlog-proof"), proof.to_string()).unwrap();
    let (code, text) = verify("with.tlog-proof", at);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("id = 3"), "{text}");
    assert_eq!(verify("without.tlog-proof", at).0, 2);
    // A bundle is held to the hash that was given as well, and what proves no entry cannot be.
    std::fs::write(at.join("bundle.json"), bundle.to_json()).unwrap();
    std::fs::write(at.join("checkpoint"), bundle.checkpoint.to_string()).unwrap();
    let hash = entry.leaf.hash().to_string();
    for (hash, code) in [
        (hash.as_str(), 0),
        (&"0".repeat(64), 1),
        (&hash[1..], 2),
        ("", 2),
    ] {
        let with = |file| {
            let key = vkey();
            says(&["verify", "--key", &key, "--leaf-hash", hash, file], at).0
        };
        assert_eq!(with("without.tlog-proof"), code, "{hash}");
        assert_eq!(with("bundle.json"), code, "{hash}");
        assert_eq!(with("checkpoint"), 2, "{hash}");
    }
}

#[test]
fn an_exported_directory_is_hashed_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let signer = key("example.com/log", 1);
    for size in [0, 1, 255, 256, 257, 70_000] {
        let log = orders(size);
        let name = format!("log-{size}");
        export(&log, &log.signed(&[&signer]), &at.join(&name));
        let (code, text) = verify(&name, at);
        assert_eq!(code, 0, "{size}: {text}");
        assert!(
            text.contains(&format!("hashed      {size} entries")),
            "{text}"
        );
        for kept in [0, 1, 255, 256, 300, 69_999, 70_000]
            .into_iter()
            .filter(|kept| *kept <= size)
        {
            let checkpoint = log.checkpoint_at(merkle_tree::TreeSize::new(kept).unwrap());
            std::fs::write(
                at.join("kept"),
                note(&checkpoint, &[&signer], 0).to_string(),
            )
            .unwrap();
            let (code, text) = says(&["verify", "--key", &vkey(), "--since", "kept", &name], at);
            assert_eq!(code, 0, "{size} since {kept}: {text}");
        }
    }
    let rewritten = Log {
        entries: (1..301).map(order).collect(),
        ..orders(0)
    };
    std::fs::write(at.join("kept"), rewritten.signed(&[&signer]).to_string()).unwrap();
    let (code, text) = says(
        &["verify", "--key", &vkey(), "--since", "kept", "log-70000"],
        at,
    );
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("history was rewritten"), "{text}");
}

#[test]
fn every_altered_file_of_a_directory_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = orders(66_000);
    export(
        &log,
        &log.signed(&[&key("example.com/log", 1)]),
        &at.join("log"),
    );
    let files = [
        "tile/entries/000",
        "tile/entries/257.p/208",
        "tile/0/000",
        "tile/0/257.p/208",
        "tile/1/000",
        "tile/1/001.p/1",
        "tile/2/000.p/1",
        "checkpoint",
    ];
    for file in files {
        let path = at.join("log").join(file);
        let bytes = std::fs::read(&path).unwrap();
        let mut altered = bytes.clone();
        altered[20] ^= 4;
        std::fs::write(&path, &altered).unwrap();
        let (code, text) = verify("log", at);
        assert_eq!(code, 1, "{file}: {text}");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(verify("log", at).0, 2, "{file}");
        std::fs::write(&path, &bytes).unwrap();
    }
    for file in [
        "tile/1/000",
        "tile/1/001.p/1",
        "tile/2/000.p/1",
        "checkpoint",
        "tile/entries/003",
    ] {
        let (path, aside) = (at.join("log").join(file), at.join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        let (code, text) = verify("log", at);
        assert_eq!(code, 2, "{file}: {text}");
        std::fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(verify("log", at).0, 0);
}

#[test]
fn a_tile_that_is_missing_is_told_though_the_entries_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = orders(1_000);
    export(
        &log,
        &log.signed(&[&key("example.com/log", 1)]),
        &at.join("log"),
    );
    for tile in ["tile/0/001", "tile/0/003.p/232", "tile/1/000.p/3"] {
        let path = at.join("log").join(tile);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (code, text) = verify("log", at);
        assert!(code == 2 && text.contains(tile), "{tile}: {code} {text}");
        std::fs::write(&path, &bytes[1..]).unwrap();
        let (code, text) = verify("log", at);
        assert!(code == 2 && text.contains(tile), "{tile}: {code} {text}");
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(verify("log", at).0, 0);
}

#[test]
fn a_pruned_directory_is_proven_by_its_hashes() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = orders(66_000);
    export(
        &log,
        &log.signed(&[&key("example.com/log", 1)]),
        &at.join("log"),
    );
    for index in ["000", "001"] {
        std::fs::remove_file(at.join("log/tile/entries").join(index)).unwrap();
    }
    std::fs::remove_file(at.join("log/tile/0/000")).unwrap();
    let (code, text) = verify("log", at);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("hashed      65488 entries"), "{text}");
    for part in [
        "pruned      of the first 256 entries only the hashes of whole tiles are there",
        "no entries  256 entries from 256 on: there are their hashes, and no bundles",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_full_tile_stands_for_the_partial_one_that_it_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let signer = key("example.com/log", 1);
    export(
        &orders(512),
        &orders(300).signed(&[&signer]),
        &at.join("log"),
    );
    std::fs::write(at.join("log/tile/1/000.p").join("1"), {
        let tile = std::fs::read(at.join("log/tile/1/000.p/2")).unwrap();
        tile[..32].to_vec()
    })
    .unwrap();
    let (code, text) = verify("log", at);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn keys_are_made_for_their_owner_only_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (code, vkey) = says(&["keygen", "--name", "example.com/new", "--out", "key"], at);
    assert_eq!(code, 0);
    let verifier_key: VerifierKey = vkey.trim_end().parse().unwrap();
    let file = std::fs::read(at.join("key")).unwrap();
    let signing_key = SigningKey::from_file(&file).unwrap();
    assert_eq!(signing_key.verifier_key(), verifier_key);
    let mode = std::fs::metadata(at.join("key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, text) = says(&["keygen", "--name", "example.com/new", "--out", "key"], at);
    assert_eq!(code, 2, "{text}");
    assert_eq!(std::fs::read(at.join("key")).unwrap(), file);
    std::os::unix::fs::symlink(at.join("elsewhere"), at.join("link")).unwrap();
    assert_eq!(says(&["keygen", "--name", "n", "--out", "link"], at).0, 2);
    assert_eq!(says(&["keygen", "--name", "a b", "--out", "new"], at).0, 2);
    let (_, json) = says(
        &[
            "--json",
            "keygen",
            "--cosigner",
            "--name",
            "w",
            "--out",
            "w",
        ],
        at,
    );
    let json: Json = serde_json::from_str(&json).unwrap();
    let witness: VerifierKey = json["verifier_key"].as_str().unwrap().parse().unwrap();
    assert_eq!(witness.signature_type(), SignatureType::Ed25519Cosignature);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    assert_eq!(says(&["man", "pages"], at).0, 0);
    for command in [
        "verify",
        "keygen",
        "export",
        "status",
        "top",
        "log",
        "source",
        "apply",
        "completions",
        "man",
    ] {
        let page =
            std::fs::read_to_string(at.join(format!("pages/merkle-log-{command}.1"))).unwrap();
        assert!(page.contains(".SH"));
        for shell in ["bash", "zsh", "fish"] {
            assert!(says(&["completions", shell], at).1.contains(command));
        }
    }
}

#[test]
fn nothing_that_a_row_contains_reaches_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut log = orders(3);
    let evil = leaf_format::Value::Text("\x1b]0;owned\x07\u{9b}2J\u{202e}".into());
    log.entries[1] = support::log::row(
        "public.\x1b[1m",
        leaf_format::Kind::Insert,
        &[("a\x1b[2J", evil)],
    );
    log.entries[2] = b"\x1b[2J plain".to_vec();
    let bundle = log.bundle(&[1, 2], &[&key("example.com/log", 1)]);
    std::fs::write(at.join("bundle"), bundle.to_json()).unwrap();
    let (code, text) = verify("bundle", at);
    assert_eq!(code, 0, "{text}");
    assert!(
        !text
            .chars()
            .any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'),
        "{text:?}"
    );
}

#[test]
fn two_files_that_show_a_fork_are_bad_together() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = key("example.com/log", 1);
    let bundle = orders(20).bundle(&[3], &[&log]);
    let forked = Checkpoint::new(
        "example.com/log",
        merkle_tree::TreeSize::new(20).unwrap(),
        merkle_tree::leaf_hash(b"another history"),
    );
    std::fs::write(at.join("bundle"), bundle.to_json()).unwrap();
    let forked = note(&forked.unwrap(), &[&log], 1);
    std::fs::write(at.join("forked"), forked.to_string()).unwrap();
    for file in ["bundle", "forked"] {
        assert_eq!(verify(file, at).0, 0, "{file}");
    }
    for files in [["bundle", "forked"], ["forked", "bundle"]] {
        let (code, text) = says(&["verify", "--key", &vkey(), files[0], files[1]], at);
        assert_eq!(code, 1, "{text}");
        assert!(
            text.contains(&format!("{} shows the other one", files[0])),
            "{text}"
        );
    }
}
