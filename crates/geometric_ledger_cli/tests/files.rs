//! Accounts come from files, and go to files.

mod common;

use common::{accounts, all, hex, key, program, refuses, says, wait_for};
use geometric_ledger::{Account, Durability, Flags, GeometricLedger, Key, Options};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Stdio;

fn sample(name: &str) -> String {
    format!("{}/tests/parquet/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What the files in tests/parquet hold, which make.py there has written.
fn held() -> Vec<(Key, Account)> {
    accounts(8)
}

#[test]
fn parquet_of_pandas_polars_duckdb_and_arrow_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let whole = [
        "pandas.parquet",
        "pandas-text.parquet",
        "polars.parquet",
        "duckdb.parquet",
        "duckdb-v2.parquet",
        "arrow.parquet",
    ];
    for name in whole {
        let said = says(&["import", name, &sample(name), "--create"], at);
        assert!(said.contains("8 accounts imported: 8 created"), "{said}");
        assert!(all(&at.join(name)).into_iter().eq(held()), "{name}");
    }
    let name = "polars-two-columns.parquet";
    says(&["import", name, &sample(name), "--create"], at);
    let expected = (0..8).map(|number| {
        (
            key(number),
            Account::with_balance(i128::from(number) * 1000),
        )
    });
    assert!(all(&at.join(name)).into_iter().eq(expected));
}

#[test]
fn parquet_that_does_not_hold_whole_numbers_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let told = |name: &str| refuses(&["import", "ledger", &sample(name), "--create"], at);
    let refused = told("duckdb-hugeint.parquet");
    assert!(
        refused.contains("CAST(balance AS DECIMAL(38, 0))"),
        "{refused}"
    );
    let refused = told("pandas-floats.parquet");
    assert!(refused.contains("\"nonce\" is of Float64"), "{refused}");
    let refused = told("arrow-cents.parquet");
    assert!(refused.contains("digits after the point"), "{refused}");
    assert!(!at.join("ledger").exists());
}

#[test]
fn what_is_exported_says_of_which_ledger_batch_and_root_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = GeometricLedger::new(at.join("ledger")).unwrap();
    common::fill(&ledger);
    let (_, root) = ledger.root().unwrap();
    says(&["export", "ledger", "all.parquet"], at);
    let bytes = fs::read(at.join("all.parquet")).unwrap();
    let footer = String::from_utf8_lossy(&bytes);
    for (name, value) in [
        ("geometric_ledger.ledger", hex(&ledger.info().id)),
        ("geometric_ledger.batch", "2".to_owned()),
        ("geometric_ledger.root", hex(root.as_bytes())),
    ] {
        let after = footer.split_once(name).unwrap().1;
        let found = after.find(&value).unwrap();
        assert!(found < 8, "{name} is followed by {value}");
    }
    assert!(!at.join("all.parquet.partial").exists());
}

fn csv(lines: impl IntoIterator<Item = String>) -> String {
    lines
        .into_iter()
        .fold("key,balance\n".into(), |mut text, line| {
            writeln!(text, "{line}").unwrap();
            text
        })
}

#[test]
fn an_import_says_what_it_overwrote_and_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    says(&["create", "ledger"], at);
    let line = |number: u64, balance: i64| format!("{},{balance}", hex(&key(number)));
    fs::write(
        at.join("one.csv"),
        csv((0..10).map(|number| line(number, 1))),
    )
    .unwrap();
    fs::write(
        at.join("two.csv"),
        csv((5..20).map(|number| line(number, if number < 8 { 2 } else { 1 }))),
    )
    .unwrap();
    assert!(says(&["import", "ledger", "one.csv"], at).contains("10 created, 0 overwritten"));
    let said = says(
        &["import", "ledger", "two.csv", "--overwritten", "old.csv"],
        at,
    );
    assert!(
        said.contains("15 accounts imported: 10 created, 3 overwritten, 2 were the same"),
        "{said}"
    );
    let old = fs::read_to_string(at.join("old.csv")).unwrap();
    let kept: Vec<_> = old.lines().skip(1).map(|line| &line[..66]).collect();
    let expected: Vec<_> = (5..8).map(|number| line(number, 1)).collect();
    assert_eq!(kept, expected);
    // The same file again does nothing, and says so.
    let said = says(&["import", "ledger", "one.csv"], at);
    assert!(said.contains("imported before: nothing was done"), "{said}");
    assert!(says(&["import", "ledger", "one.csv", "--again"], at).contains("3 overwritten"));
}

#[test]
fn a_file_with_a_fault_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    says(&["create", "ledger"], at);
    let good = format!("{},5", hex(&key(1)));
    let faults = [
        (csv([good.clone(), "xy,5".into()]), "line 3: a key is 64"),
        (
            csv([good.clone(), format!("{},", hex(&key(2)))]),
            "line 3: there is no balance",
        ),
        (
            csv([good.clone(), format!("{},5.0", hex(&key(2)))]),
            "line 3: balance is \"5.0\"",
        ),
        (
            csv([good.clone(), format!("{},{}", hex(&key(2)), 1i128 << 108)]),
            "above 2^107",
        ),
        (format!("key,balance,note\n{good},x\n"), "a column \"note\""),
        ("key,nonce\n".into(), "no column \"balance\""),
        (String::new(), "no column \"key\""),
    ];
    for (text, why) in faults {
        fs::write(at.join("bad.csv"), text).unwrap();
        let said = refuses(&["import", "ledger", "bad.csv"], at);
        assert!(said.contains(why), "{said}");
        assert!(all(&at.join("ledger")).is_empty());
    }
    fs::write(at.join("bad.parquet"), "PAR1 and nothing else").unwrap();
    refuses(&["import", "ledger", "bad.parquet"], at);
    refuses(&["import", "ledger", "missing.csv"], at);
}

/// Begins an import, and ends it by a signal when some of it is done.
fn interrupt(signal: &str, at: &Path, batches: u64) -> bool {
    let mut import = program(&["import", "ledger", "big.csv", "--batch", "100"], at)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("a part of the import", || {
        let mut reader = geometric_ledger::Reader::open(at.join("ledger"), Options::new()).ok()?;
        let some = reader.stats().ok()?.sequence >= batches;
        (some || import.try_wait().unwrap().is_some()).then_some(())
    });
    let id = import.id().to_string();
    let _ = std::process::Command::new("kill")
        .args([signal, &id])
        .status();
    let output = import.wait_with_output().unwrap();
    if signal == "-TERM" && !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("run the same command again"), "{said}");
        assert!(says(&["inspect", "ledger"], at).contains("closed       cleanly"));
    }
    !output.status.success()
}

#[test]
fn an_import_that_was_interrupted_goes_on_and_leaves_later_changes_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    says(&["create", "ledger"], at);
    let line = |number: u64| format!("{},7", hex(&key(number)));
    fs::write(at.join("big.csv"), csv((0..20_000).map(line))).unwrap();
    assert!(interrupt("-TERM", at, 5), "it ended before it was stopped");
    // Somebody changes what was imported, and the import is killed once more, harder.
    says(&["put", "ledger", &hex(&key(0)), "--balance", "1"], at);
    assert!(interrupt("-KILL", at, 20), "it ended before it was killed");
    let said = says(&["import", "ledger", "big.csv", "--batch", "100"], at);
    assert!(
        said.contains("were imported before, and left as they are"),
        "{said}"
    );
    let found = all(&at.join("ledger"));
    assert_eq!(found.len(), 20_000);
    assert_eq!(found[&key(0)].balance, 1);
    assert!(
        found
            .iter()
            .filter(|(it, _)| **it != key(0))
            .all(|(_, it)| it.balance == 7)
    );
    // Each of its 200 batches happened once, and the change beside.
    let ledger = Options::new().read_only().open(at.join("ledger")).unwrap();
    assert_eq!(ledger.view().sequence(), 201);
}

#[test]
fn an_export_that_is_stopped_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let ledger = Options::new()
        .durability(Durability::None)
        .open(at.join("ledger"))
        .unwrap();
    for from in (0..1_000_000).step_by(50_000) {
        let batch: Vec<_> = (from..from + 50_000)
            .map(|number| {
                (
                    key(number),
                    Account {
                        flags: Flags::NONE,
                        ..Account::with_balance(1)
                    },
                )
            })
            .collect();
        ledger.update_batch(&batch).unwrap();
    }
    let export = program(&["export", "ledger", "all.csv"], at)
        .spawn()
        .unwrap();
    wait_for("the file", || {
        fs::metadata(at.join("all.csv.partial"))
            .ok()
            .filter(|file| file.len() > 1 << 20)
    });
    let id = export.id().to_string();
    std::process::Command::new("kill").arg(id).status().unwrap();
    let output = export.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!at.join("all.csv").exists() && !at.join("all.csv.partial").exists());
}
