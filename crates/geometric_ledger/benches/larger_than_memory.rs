//! A ledger that is larger than the memory it may use: filled, updated everywhere for some minutes, killed, and
//! opened again within the same memory (`make larger-than-memory`). The limit is a memory cgroup (Linux's
//! cgroups(7), version 1 or 2), which only root can make. That memory for written pages is bounded is tested in
//! `make test` by the ledger's own figures.
//!
//! ACCOUNTS (default 100,000,000), MINUTES (10) and MEGABYTES (2,048) are read from the environment.

#[path = "common/mod.rs"]
mod bench;
#[path = "../tests/common/mod.rs"]
mod common;
#[path = "common/group.rs"]
mod group;

use bench::{setting, size_of};
use common::{Random, key};
use geometric_ledger::*;
use group::{Group, wait_for_the_group};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

const BATCH: u64 = 10_000;

/// The accounts that batch `sequence` writes, the batches that fill the ledger first.
fn written(sequence: u64, accounts: u64) -> impl Iterator<Item = u64> {
    let fills = sequence <= accounts / BATCH;
    let mut random = Random(sequence);
    (0..BATCH).map(move |n| match fills {
        true => (sequence - 1) * BATCH + n,
        false => random.below(accounts),
    })
}

/// What may be in memory, in bytes.
fn limit() -> u64 {
    setting("MEGABYTES", 2_048) << 20
}

/// Pages of the ledger's own take three eighths of the memory; the rest is for the page cache and the program.
fn options() -> Options {
    Options::new()
        .dirty_bytes(limit() / 4)
        .resident_bytes(limit() / 8)
        .checkpoint_bytes(512 << 20)
}

/// This program as a process of the group that does `role`.
fn start(group: &Group, role: &str, ledger: &Path) -> (Child, BufReader<ChildStderr>) {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .env("LEDGER_ROLE", role)
        .env("LEDGER", ledger)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = group.start(&mut program);
    let said = BufReader::new(child.stderr.take().unwrap());
    (child, said)
}

/// What a process of the group does.
fn process_within_the_limit(role: &str) {
    wait_for_the_group();
    let began = Instant::now();
    let ledger = options().open(std::env::var("LEDGER").unwrap()).unwrap();
    if role == "open" {
        eprintln!("open {}", began.elapsed().as_millis());
        return;
    }
    let accounts = setting("ACCOUNTS", 100_000_000);
    for sequence in 1.. {
        let account = Account::with_balance(sequence.into());
        let batch: Vec<_> = written(sequence, accounts)
            .map(|number| (key(number), account))
            .collect();
        assert_eq!(ledger.update_batch(&batch).unwrap().sequence, sequence);
        eprintln!("acknowledged {sequence}");
    }
}

fn number_after(line: &str, word: &str) -> Option<u64> {
    line.strip_prefix(word)?.trim().parse().ok()
}

fn main() {
    match std::env::var("LEDGER_ROLE") {
        Ok(role) => process_within_the_limit(&role),
        Err(_) => a_ledger_larger_than_memory_is_updated_killed_and_opened_within_it(),
    }
}

fn a_ledger_larger_than_memory_is_updated_killed_and_opened_within_it() {
    let accounts = setting("ACCOUNTS", 100_000_000) / BATCH * BATCH;
    let minutes = setting("MINUTES", 10);
    let group = Group::new(limit());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("ledger");

    let (mut child, mut said) = start(&group, "write", &path);
    let (began, mut full) = (Instant::now(), None);
    let (mut acknowledged, mut filled) = (0, 0);
    let mut line = String::new();
    while full.is_none_or(|at: Instant| at.elapsed() < Duration::from_secs(60 * minutes)) {
        line.clear();
        assert_ne!(
            said.read_line(&mut line).unwrap(),
            0,
            "the writer has ended"
        );
        let Some(sequence) = number_after(&line, "acknowledged ") else {
            panic!("the writer says: {line}");
        };
        acknowledged = sequence;
        if full.is_none() && sequence == accounts / BATCH {
            println!("{accounts} accounts in {:.0?}", began.elapsed());
            (full, filled) = (Some(Instant::now()), sequence);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in said.lines() {
        acknowledged = number_after(&line.unwrap(), "acknowledged ").unwrap_or(acknowledged);
    }
    let updates = (acknowledged - filled) * BATCH;
    println!("{updates} updates in {minutes} minutes; killed at batch {acknowledged}");

    let (mut child, mut said) = start(&group, "open", &path);
    line.clear();
    said.read_line(&mut line).unwrap();
    assert!(child.wait().unwrap().success(), "not opened: {line}");
    println!(
        "opened in {} ms within the limit",
        number_after(&line, "open ").unwrap()
    );

    // Outside of the limit: every account is as the last batch left it that wrote it.
    let ledger = options().open(&path).unwrap();
    let last = ledger.view().sequence();
    assert!(
        (acknowledged..=acknowledged + 1).contains(&last),
        "{last} after {acknowledged}"
    );
    let mut expected = vec![0u64; usize::try_from(accounts).unwrap()];
    for sequence in 1..=last {
        for number in written(sequence, accounts) {
            expected[usize::try_from(number).unwrap()] = sequence;
        }
    }
    let numbers: Vec<u64> = (0..accounts).collect();
    for chunk in numbers.chunks(100_000) {
        let keys: Vec<_> = chunk.iter().map(|number| key(*number)).collect();
        for (number, found) in chunk.iter().zip(ledger.get_many(&keys).unwrap()) {
            let sequence = expected[usize::try_from(*number).unwrap()];
            let right = Account::with_balance(sequence.into());
            assert_eq!(found, Some(right), "account {number}");
        }
    }
    println!(
        "all {accounts} accounts are as acknowledged; {} MB on disk",
        size_of(&path) >> 20
    );
}
