//! Recorded transfers by hand: made, looked up, listed.

mod common;

use common::{hex, key, program, refuses, run, says};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn id(number: u8) -> String {
    hex(&[number; 16])
}

/// A ledger where `bank` may pay and `alice` has nothing.
fn begin(at: &Path) -> (String, String) {
    let (bank, alice) = (hex(&key(1)), hex(&key(2)));
    says(&["create", "ledger", "--shards", "2"], at);
    says(
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
    says(&["put", "ledger", &alice, "--code", "7"], at);
    (bank, alice)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The objects of a command that ends with exit code 1.
fn partly(arguments: &[&str], at: &Path) -> Vec<Value> {
    let output = run(arguments, at);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    lines(&String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_transfer_is_recorded_once_looked_up_and_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (bank, alice) = begin(at);
    let reference = "ab".repeat(24);
    let first = id(1);
    let pay = |amount: &str| {
        let pay = ["record", "ledger", &bank, &alice, amount, "--code", "7"];
        let more = ["--id", &first, "--reference", &reference];
        run(&[&pay[..], &more[..]].concat(), at)
    };
    let text = |output: std::process::Output| String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text(pay("30")),
        format!("transfer {first} done in batch 3\n")
    );
    assert!(text(pay("30")).contains("was done before, in batch 3"));
    let other = pay("31");
    assert_eq!(other.status.code(), Some(1));
    assert!(text(other).contains("refused: the id was used for another transfer"));
    assert!(says(&["get", "ledger", &alice], at).contains("balance   30"));

    let shown = says(&["lookup", "ledger", &first], at);
    for line in [
        format!("debit     {bank}"),
        "amount    30".into(),
        "code      7".into(),
        format!("reference {reference}"),
        "kind      direct".into(),
        "done      batch 3, ".into(),
    ] {
        assert!(shown.contains(&line), "{line} in {shown}");
    }
    let found = partly(&["lookup", "ledger", &first, &id(9), "--json"], at);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["id"], first);
    assert_eq!(found[0]["amount"], "30");
    assert_eq!(found[0]["kind"], "direct");

    // Without an id each is a new one.
    let again = [
        "record", "ledger", &bank, &alice, "1", "--code", "7", "--json",
    ];
    let (one, two) = (says(&again, at), says(&again, at));
    assert_eq!(lines(&one)[0]["outcome"], "done");
    assert_ne!(lines(&one)[0]["id"], lines(&two)[0]["id"]);
    let poor = [
        "record", "ledger", &alice, &bank, "33", "--code", "7", "--json",
    ];
    let refused = &partly(&poor, at)[0];
    assert_eq!(refused["outcome"], "refused");
    assert!(
        refused["reason"]
            .as_str()
            .unwrap()
            .contains("may not go below zero")
    );
}

#[test]
fn what_is_pending_is_posted_voided_or_expires_and_the_audit_says_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (bank, alice) = begin(at);
    let pend = |number: u8, more: &[&str]| {
        let id = id(number);
        let pend = ["record", "ledger", &bank, &alice, "10", "--code", "7"];
        says(&[&pend[..], &["--pending", "--id", &id], more].concat(), at)
    };
    pend(1, &[]);
    pend(2, &["--timeout", "1000000"]);
    pend(3, &[]);
    for command in ["audit", "verify"] {
        let said = says(&[command, "ledger"], at);
        assert!(
            said.contains("2 accounts hold -30, and 30 are pending"),
            "{said}"
        );
    }
    let statement = says(&["statement", "ledger", &bank], at);
    assert!(statement.contains("30 are pending"), "{statement}");
    let open = lines(&says(&["lookup", "ledger", &id(2), "--json"], at));
    assert_eq!(open[0]["state"], "open");
    assert!(open[0]["expires"].as_str().unwrap().ends_with('Z'));

    says(
        &["post", "ledger", &id(1), "--amount", "4", "--id", &id(11)],
        at,
    );
    says(&["post", "ledger", &id(2), "--id", &id(12)], at);
    says(&["void", "ledger", &id(3), "--id", &id(13)], at);
    let twice = run(&["void", "ledger", &id(3)], at);
    assert_eq!(twice.status.code(), Some(1), "{twice:?}");
    assert!(refuses(&["post", "ledger", &id(3), "--amount", "0"], at).contains("void"));
    let shown = says(&["lookup", "ledger", &id(1), &id(3), &id(13)], at);
    assert!(
        shown.contains(&format!("pending, posted by {}", id(11))),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("pending, voided by {}", id(13))),
        "{shown}"
    );
    assert!(shown.contains(&format!("voids {}", id(3))), "{shown}");
    let said = says(&["audit", "ledger"], at);
    assert!(
        said.contains("2 accounts hold 0: what was minted"),
        "{said}"
    );

    pend(4, &["--timeout", "0"]);
    let late = run(&["post", "ledger", &id(4)], at);
    assert_eq!(late.status.code(), Some(1));
    let said = String::from_utf8(late.stdout).unwrap();
    assert!(said.contains("time is over"), "{said}");
}

#[test]
fn linked_transfers_of_a_file_are_done_together_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (bank, alice) = begin(at);
    let line = |number: u8, debit: &str, credit: &str, amount: u32, linked: bool| {
        format!(
            "{{\"id\":\"{}\",\"debit\":\"{debit}\",\"credit\":\"{credit}\",\"amount\":\"{amount}\",\"code\":7,\
             \"linked\":{linked}}}\n",
            id(number)
        )
    };
    let file = [
        line(1, &bank, &alice, 5, false),
        // Alice has not so much, so neither is done.
        line(2, &bank, &alice, 5, true),
        line(3, &alice, &bank, 50, false),
        line(4, &bank, &alice, 1, true),
        format!("\n{{\"id\":\"{}\",\"debit\":\"{bank}\",\"credit\":\"{alice}\",\"amount\":2,\"code\":7,\"pending\":true}}\n", id(5)),
        format!("{{\"id\":\"{}\",\"post\":\"{}\"}}\n", id(6), id(5)),
    ]
    .concat();
    fs::write(at.join("file"), &file).unwrap();
    let results = partly(&["submit", "ledger", "file", "--json"], at);
    let outcomes: Vec<_> = results
        .iter()
        .map(|it| it["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(
        outcomes,
        ["done", "refused", "refused", "done", "done", "done"]
    );
    assert!(
        results
            .iter()
            .flat_map(|it| it["batch"].as_u64())
            .all(|batch| batch == 3)
    );
    assert!(says(&["get", "ledger", &alice], at).contains("balance   8"));
    // From standard input, once more: nothing is paid twice.
    let mut again = program(&["submit", "ledger", "-"], at);
    again.stdin(fs::File::open(at.join("file")).unwrap());
    let said = String::from_utf8(again.output().unwrap().stdout).unwrap();
    assert_eq!(
        said.matches("was done before, in batch 3").count(),
        4,
        "{said}"
    );
    assert!(says(&["get", "ledger", &alice], at).contains("balance   8"));

    for (wrong, why) in [
        ("{\"amount\":1}", "line 1: missing field `id`"),
        ("{\"id\":\"00\"}", "line 1: a transfer's id is"),
        (
            &*format!("\n{{\"id\":\"{}\"}}", id(1)),
            "line 2: there is no debit",
        ),
        (
            &*format!(
                "{{\"id\":\"{}\",\"void\":\"{}\",\"amount\":1}}",
                id(1),
                id(2)
            ),
            "has its amount from it",
        ),
        (
            &*format!("{{\"id\":\"{}\",\"ammount\":1}}", id(1)),
            "unknown field `ammount`",
        ),
        ("nonsense", "line 1: expected"),
    ] {
        fs::write(at.join("wrong"), wrong).unwrap();
        let refused = refuses(&["submit", "ledger", "wrong"], at);
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn a_statement_is_read_by_pages_and_by_time_and_beside_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (bank, alice) = begin(at);
    let mut file = String::new();
    for number in 1..=7u8 {
        file += &format!(
            "{{\"id\":\"{}\",\"debit\":\"{bank}\",\"credit\":\"{alice}\",\"amount\":{number},\"code\":7}}\n",
            id(number)
        );
    }
    fs::write(at.join("file"), file).unwrap();
    says(&["submit", "ledger", "file"], at);
    let asked = ["statement", "ledger", &alice, "--limit", "3"];
    let page = says(&asked, at);
    assert!(page.starts_with("1  20"), "{page}");
    assert!(
        page.contains("change +1  balance 1  transfer 0101"),
        "{page}"
    );
    assert!(page.ends_with("there is more: --after 3\n"), "{page}");
    let numbers = |more: &[&str]| -> Vec<u64> {
        let asked = [&["statement", "ledger", &alice, "--json"], more].concat();
        let entries = lines(&says(&asked, at));
        entries
            .iter()
            .map(|it| it["number"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(&["--limit", "3", "--after", "3"]), [4, 5, 6]);
    assert_eq!(numbers(&["--newest-first", "--limit", "2"]), [7, 6]);
    assert_eq!(
        numbers(&["--newest-first", "--limit", "2", "--after", "6"]),
        [5, 4]
    );
    let when = &lines(&says(&["statement", "ledger", &alice, "--json"], at))[0]["time"];
    let when = when.as_str().unwrap();
    assert_eq!(numbers(&["--from", when]).len(), 7);
    assert!(numbers(&["--until", when]).is_empty());
    assert!(numbers(&["--until", "2020-01-01"]).is_empty());
    let none = says(&["statement", "ledger", &bank, "--until", "2020-01-01"], at);
    assert!(none.contains("no recorded transfer"), "{none}");

    let _writer = geometric_ledger::GeometricLedger::new(at.join("ledger")).unwrap();
    assert_eq!(numbers(&[]).len(), 7);
    assert!(says(&["lookup", "ledger", &id(7)], at).contains("amount    7"));
}
