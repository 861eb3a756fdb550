//! A process that writes flat out is killed, again and again; another one knows what it had been told.

mod common;

use common::{Model, Random, key, small};
use geometric_ledger::*;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What batch `sequence` does.
fn batch(sequence: u64) -> Vec<Update> {
    let random = &mut Random(sequence);
    (0..random.below(200) + 1)
        .map(|_| {
            let key = key(random.below(3_000));
            match random.chance(6) {
                true => Update::Delete(key),
                false => Update::Put(key, Account::with_balance(random.below(1 << 30).into())),
            }
        })
        .collect()
}

fn options() -> Options {
    small().segment_bytes(1 << 18).checkpoint_bytes(1 << 19)
}

/// The process that is killed: says each batch that was acknowledged.
#[test]
fn writer() {
    let Ok(path) = std::env::var("LEDGER_TO_WRITE") else {
        return;
    };
    let ledger = options().open(path).unwrap();
    let mut out = std::io::stderr();
    let mut sequence = ledger.view().sequence();
    loop {
        sequence += 1;
        assert_eq!(ledger.apply(&batch(sequence)).unwrap().sequence, sequence);
        writeln!(out, "acknowledged {sequence}").unwrap();
    }
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env("LEDGER_TO_WRITE", path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn five_hundred_kills_lose_nothing_acknowledged() {
    if std::env::var("LEDGER_TO_WRITE").is_ok() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let random = &mut Random(7);
    let mut model = Model::new();
    let (mut replayed, mut committed) = (0, 0);
    for round in 0..500 {
        let mut child = start(&path);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // Killed at once, in between, or while it recovers; or after some batches, however long these
        // take.
        let life = Duration::from_micros(random.below(40_000));
        let mut batches = random.below(24);
        let by_time = round % 2 == 0;
        let (kill, killed) = std::sync::mpsc::channel::<()>();
        let killer = std::thread::spawn(move || {
            match by_time {
                true => std::thread::sleep(life),
                false => killed.recv().unwrap_or_default(),
            }
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let mut acknowledged = model.sequence();
        for line in lines.map_while(Result::ok) {
            if let Some(sequence) = line.strip_prefix("acknowledged ") {
                // A line cut short by the kill was not said.
                acknowledged = acknowledged.max(sequence.parse().unwrap_or(0));
                batches = batches.saturating_sub(1);
                if batches == 0 {
                    let _ = kill.send(());
                }
            }
            assert!(!line.contains("panicked"), "round {round}: {line}");
        }
        killer.join().unwrap();
        let last = round % 20 == 19;
        let ledger = match last {
            true => options().open(&path).unwrap(),
            false => options()
                .read_only()
                .open(&path)
                .unwrap_or_else(|error| match error {
                    // Killed before there was a ledger.
                    Error::Io { .. } | Error::Format(_) if acknowledged == 0 => {
                        options().open(&path).unwrap()
                    }
                    error => panic!("round {round}: {error}"),
                }),
        };
        let sequence = ledger.view().sequence();
        assert!(
            sequence >= acknowledged,
            "round {round}: {sequence} of {acknowledged}"
        );
        committed = sequence;
        replayed += u64::from(ledger.recovery().batches > 0);
        while model.sequence() < sequence {
            let next = model.sequence() + 1;
            model.apply(&batch(next));
            // Only the newest state is compared.
            let states = model.states.len();
            if states > 2 {
                model.states[states - 3].clear();
            }
        }
        model.check(&ledger);
    }
    assert!(
        replayed > 200,
        "only {replayed} openings had something to recover"
    );
    assert!(committed > 2_000, "only {committed} batches were written");
}
