//! What an operator does by hand, and mistakes that are made.

mod common;

use common::{hex, key, program, refuses, run, says};
use geometric_ledger::{GeometricLedger, Options};
use std::fs;
use std::process::Stdio;

#[test]
fn accounts_are_put_and_pay_each_other_and_have_a_history() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (bank, alice) = (hex(&key(1)), hex(&key(2)));
    assert!(says(&["create", "ledger", "--shards", "4"], at).contains("with 4 shards"));
    let put = says(
        &[
            "put",
            "ledger",
            &bank,
            "--flags",
            "overdraft",
            "--code",
            "7",
        ],
        at,
    );
    assert!(put.contains("created in batch 1"), "{put}");
    says(
        &[
            "put",
            "ledger",
            &alice,
            "--code",
            "7",
            "--data",
            &"ab".repeat(24),
        ],
        at,
    );
    let once = [
        "transfer",
        "ledger",
        &bank,
        &alice,
        "30",
        "--idempotency-key",
        &"01".repeat(16),
    ];
    assert!(says(&once, at).contains("30 moved in batch 3"));
    assert!(says(&once, at).contains("done before, in batch 3"));
    assert!(says(&["transfer", "ledger", &alice, &bank, "10"], at).contains("20 left"));
    let refused = refuses(&["transfer", "ledger", &alice, &bank, "21"], at);
    assert!(refused.contains("may not go below zero"), "{refused}");
    let shown = says(&["get", "ledger", &alice, &bank], at);
    for line in [
        "balance   20",
        "flags     none",
        "code      7",
        "balance   -20",
        "flags     overdraft",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    // What is not given stays.
    says(&["put", "ledger", &alice, "--flags", "frozen"], at);
    let json = says(&["get", "ledger", &alice, "--json"], at);
    let account: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(account["balance"], "20");
    assert_eq!(account["flags"], "frozen");
    assert_eq!(account["data"], "ab".repeat(24));
    let history = says(&["history", "ledger", &alice], at);
    let balances: Vec<_> = history
        .lines()
        .map(|line| line.split_whitespace().nth(4).unwrap())
        .collect();
    assert_eq!(balances, ["20", "20", "30", "0"], "{history}");
    let some = says(&["history", "ledger", &alice, "--limit", "2"], at);
    assert!(some.ends_with("or beyond --limit\n"), "{some}");
    assert!(says(&["audit", "ledger"], at).contains("2 accounts hold 0"));
    let unknown = run(&["history", "ledger", &hex(&key(9))], at);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn proofs_are_checked_without_the_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    says(&["create", "ledger"], at);
    for balance in 1..=5 {
        says(
            &[
                "put",
                "ledger",
                &hex(&key(1)),
                "--balance",
                &balance.to_string(),
            ],
            at,
        );
    }
    let ledger = Options::new().read_only().open(at.join("ledger")).unwrap();
    let root = |size| {
        hex(ledger
            .root_at(geometric_ledger::merkle_tree::TreeSize::new(size).unwrap())
            .unwrap()
            .as_bytes())
    };
    let (old, new) = (root(3), root(5));
    drop(ledger);
    let check = |file: &str, root: &str| {
        run(&["check-proof", file, "--root", root], at)
            .status
            .code()
    };
    fs::write(at.join("in"), says(&["proof", "ledger", "2"], at)).unwrap();
    assert_eq!(check("in", &new), Some(0));
    assert_eq!(check("in", &old), Some(1));
    fs::write(
        at.join("in-old"),
        says(&["proof", "ledger", "2", "--size", "3"], at),
    )
    .unwrap();
    assert_eq!(check("in-old", &old), Some(0));
    fs::write(
        at.join("grown"),
        says(&["proof", "ledger", "--from", "3"], at),
    )
    .unwrap();
    assert_eq!(check("grown", &old), Some(0));
    assert_eq!(check("grown", &new), Some(1));
    let changed = fs::read_to_string(at.join("in"))
        .unwrap()
        .replace("\"leaf_index\": 1", "\"leaf_index\": 2");
    fs::write(at.join("changed"), changed).unwrap();
    assert_eq!(check("changed", &new), Some(1));
    fs::write(at.join("nonsense"), "{}").unwrap();
    assert_eq!(check("nonsense", &new), Some(2));
    assert!(refuses(&["proof", "ledger", "6"], at).contains("not among the first 5"));
    refuses(&["proof", "ledger", "--from", "3", "--to", "6"], at);
}

#[test]
fn what_is_no_ledger_is_said_to_be_none_and_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    fs::create_dir(at.join("empty")).unwrap();
    fs::create_dir(at.join("other")).unwrap();
    fs::write(at.join("other/ledger"), "2026-11-29 my own text file\n").unwrap();
    fs::write(at.join("file"), "text").unwrap();
    let account = hex(&key(1));
    for command in [
        &["stats"][..],
        &["inspect"],
        &["verify"],
        &["audit"],
        &["compact"],
        &["get", &account],
        &["history", &account],
        &["put", &account],
        &["transfer", &account, &account, "1"],
        &["proof", "1"],
        &["snapshot", "snapshot"],
        &["export", "all.csv"],
        &["publish", "--to", "host=/nowhere"],
    ] {
        for (path, why) in [
            ("missing", "there is no ledger at missing"),
            ("empty", "is no ledger"),
            ("file", "file is no ledger"),
            ("other", "ledger"),
        ] {
            let mut arguments = vec![command[0], path];
            arguments.extend(&command[1..]);
            let said = refuses(&arguments, at);
            assert!(said.contains(why), "{arguments:?}: {said}");
        }
    }
    refuses(&["import", "missing", "file"], at);
    refuses(&["create", "other"], at);
    let names = |path: &str| {
        fs::read_dir(at.join(path))
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("empty").len(), 0);
    assert_eq!(names("other").len(), 1);
    assert_eq!(
        fs::read_to_string(at.join("other/ledger")).unwrap(),
        "2026-11-29 my own text file\n"
    );
    assert!(!at.join("missing").exists() && !at.join("snapshot").exists());
    // Nor does the library take somebody's file for the beginning of a ledger.
    assert!(GeometricLedger::new(at.join("other")).is_err());
    assert_eq!(
        fs::read_to_string(at.join("other/ledger")).unwrap(),
        "2026-11-29 my own text file\n"
    );
}

#[test]
fn zero_is_refused_or_done_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    says(&["create", "ledger"], at);
    fs::write(at.join("empty.csv"), "key,balance\n").unwrap();
    assert!(says(&["import", "ledger", "empty.csv"], at).contains("0 accounts imported"));
    refuses(&["import", "ledger", "empty.csv", "--batch", "0"], at);
    refuses(&["create", "none", "--shards", "0"], at);
    refuses(&["bench", "bench", "--accounts", "0"], at);
    refuses(&["bench", "bench", "--batch", "0"], at);
    assert!(!at.join("bench").exists());
    let bench = [
        "bench",
        "bench",
        "--accounts",
        "1",
        "--batch",
        "1",
        "--seconds",
        "0",
    ];
    assert!(says(&bench, at).contains("p99"));
    refuses(&["proof", "ledger", "0"], at);
    refuses(&["proof", "ledger", "1"], at);
    says(&["proof", "ledger", "--from", "0"], at);
    let zero = hex(&[0; 32]);
    refuses(&["transfer", "ledger", &zero, &zero, "0"], at);
    assert_eq!(
        run(&["history", "ledger", &zero, "--limit", "0"], at)
            .status
            .code(),
        Some(1)
    );
    for command in ["stats", "verify", "audit", "inspect"] {
        says(&[command, "ledger"], at);
    }
    for file in ["all.csv", "all.parquet"] {
        assert!(says(&["export", "ledger", file], at).contains("0 accounts"));
        says(&["import", "copy", file, "--create"], at);
    }
    says(&["snapshot", "ledger", "snapshot", "--since", "0"], at);
    let tight = [
        "--dirty-bytes",
        "0",
        "--checkpoint-bytes",
        "0",
        "--history-bytes",
        "0",
        "--resident-bytes",
        "0",
    ];
    let put = ["put", "ledger", &zero, "--balance", "1"];
    says(&[&put[..], &tight].concat(), at);
    says(&[&["verify", "ledger"][..], &tight].concat(), at);
}

#[test]
fn whoever_stops_reading_ends_the_program_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    says(&["create", "ledger"], at);
    says(&["put", "ledger", &hex(&key(1)), "--balance", "1"], at);
    let account = hex(&key(1));
    for arguments in [
        &["stats", "ledger"][..],
        &["inspect", "ledger"],
        &["verify", "ledger"],
        &["get", "ledger", &account],
        &["history", "ledger", &account],
        &["proof", "ledger", "1"],
        &["put", "ledger", &account, "--balance", "2"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = program(arguments, at)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{arguments:?}: {output:?}"
        );
    }
    // Nobody hears why it fails either.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = program(&["stats", "missing"], at)
        .stderr(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_log_is_lines_of_json_where_that_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let output = program(&["create", "ledger", "--log-format", "json"], at)
        .env("RUST_LOG", "info")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().count() > 1, "{said}");
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["fields"]["message"].is_string(), "{line}");
    }
}
