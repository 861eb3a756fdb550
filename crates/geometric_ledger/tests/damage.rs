//! No damaged byte, and no missing, empty, cut or older file, changes what was acknowledged: the ledger
//! repairs it, or refuses with an error.

mod common;

use common::sim::SimDisk;
use common::{key, small};
use geometric_ledger::*;
use std::sync::Arc;

const ACCOUNTS: u64 = 400;
/// In every so many rounds transfers are recorded.
const RECORDED: u64 = 10;
const ROUNDS: u64 = 310;
/// Batches that are kept where old ones are pruned.
const KEPT: u64 = 150;

fn open(disk: &SimDisk, options: &Options) -> Result<GeometricLedger, Error> {
    options.clone().open_on(Arc::new(disk.clone()))
}

fn encrypted(options: Options) -> Options {
    options.key(Secret::new([3; 32]))
}

fn id(round: u64) -> TransferId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&round.to_le_bytes());
    id
}

/// Sets ten accounts and makes a transfer, and now and then some that are recorded, one of them pending.
fn write(ledger: &GeometricLedger, round: u64) {
    let batch: Vec<_> = (0..10)
        .map(|number| {
            let account = Account::with_balance(i128::from(round) + 1_000);
            (key((round * 7 + number) % ACCOUNTS), account)
        })
        .collect();
    ledger.update_batch(&batch).unwrap();
    let pay = Transfer {
        debit: batch[0].0,
        credit: batch[1].0,
        amount: 1,
    };
    let mut idempotency_key = [0; 16];
    idempotency_key[..8].copy_from_slice(&round.to_le_bytes());
    ledger.transfer_batch(&idempotency_key, &[pay]).unwrap();
    if round.is_multiple_of(RECORDED) {
        let new = |number| NewTransfer::new(id(round + number), pay.debit, pay.credit, 2);
        let transfers = [new(0), new(1).pending(None), new(2).pending(None)];
        let results = ledger.create_transfers(&transfers).unwrap();
        assert!(results.iter().all(Result::is_ok));
        let post = [NewTransfer::post(id(round + 3), id(round + 2))];
        assert!(ledger.create_transfers(&post).unwrap()[0].is_ok());
    }
}

fn statement(ledger: &GeometricLedger, account: u64) -> Result<StatementPage, Error> {
    ledger.statement(&key(account), &StatementQuery::default())
}

/// What a ledger shows.
#[derive(Debug, PartialEq)]
struct Truth {
    root: (merkle_tree::TreeSize, merkle_tree::Hash),
    accounts: Vec<Option<Account>>,
    transfers: Vec<Option<TransferRecord>>,
    statements: Vec<StatementPage>,
}

impl Truth {
    fn of(ledger: &GeometricLedger) -> Self {
        let accounts = (0..ACCOUNTS).map(|number| ledger.get(&key(number)).unwrap());
        Truth {
            accounts: accounts.collect(),
            root: ledger.root().unwrap(),
            transfers: (0..ROUNDS)
                .map(|number| ledger.transfer(&id(number)).unwrap())
                .collect(),
            statements: (0..ACCOUNTS)
                .map(|number| statement(ledger, number).unwrap())
                .collect(),
        }
    }

    /// Opening fails, or finds this truth; reads may fail, and never give anything else.
    fn check(&self, disk: &SimDisk, options: &Options, what: &str) -> Outcome {
        let ledger = match open(disk, options) {
            Ok(ledger) => ledger,
            Err(Error::Io { .. }) => panic!("{what}: the error names no damage"),
            Err(_) => return Outcome::Refused,
        };
        let mut errors = 0;
        for (number, expected) in self.accounts.iter().enumerate() {
            match ledger.get(&key(number as u64)) {
                Ok(account) => assert_eq!(account, *expected, "{what}: account {number}"),
                Err(_) => errors += 1,
            }
        }
        for (number, expected) in self.transfers.iter().enumerate() {
            match ledger.transfer(&id(number as u64)) {
                Ok(transfer) => assert_eq!(transfer, *expected, "{what}: transfer {number}"),
                Err(_) => errors += 1,
            }
        }
        for (number, expected) in self.statements.iter().enumerate() {
            match statement(&ledger, number as u64) {
                Ok(page) => assert_eq!(page, *expected, "{what}: statement {number}"),
                Err(_) => errors += 1,
            }
        }
        match ledger.root() {
            Ok(root) => assert_eq!(root, self.root, "{what}"),
            Err(_) => errors += 1,
        }
        let findings = ledger.verify().unwrap();
        assert!(
            errors == 0 || !findings.is_empty(),
            "{what}: {errors} errors, nothing found"
        );
        match errors {
            0 => Outcome::Right(ledger.recovery()),
            _ => Outcome::Errors,
        }
    }
}

#[derive(Debug)]
enum Outcome {
    Refused,
    Errors,
    Right(Recovery),
}

/// A ledger after some checkpoints, how it was some time before, and what it shows.
struct Case {
    name: String,
    options: Options,
    older: SimDisk,
    disk: SimDisk,
    truth: Truth,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (options, is_encrypted, kept) in [
        (small(), false, u64::MAX),
        (encrypted(small()), true, u64::MAX),
        (small(), false, KEPT),
    ] {
        for clean in [true, false] {
            let options = options.clone().receipts(1_000).batches(kept);
            let disk = SimDisk::new();
            let mut ledger = open(&disk, &options).unwrap();
            (0..150).for_each(|round| write(&ledger, round));
            ledger.close().unwrap();
            let older = disk.copy();
            ledger = open(&disk, &options).unwrap();
            (150..300).for_each(|round| write(&ledger, round));
            ledger.checkpoint().unwrap();
            (300..ROUNDS).for_each(|round| write(&ledger, round));
            let truth = Truth::of(&ledger);
            // The log says by itself, a moment later, that the last record is durable.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let disk = match clean {
                true => {
                    ledger.close().unwrap();
                    disk
                }
                false => disk.kill(),
            };
            let name = format!("encrypted {is_encrypted}, clean {clean}, {kept} batches kept");
            cases.push(Case {
                name,
                options,
                older,
                disk,
                truth,
            });
        }
    }
    cases
}

#[test]
fn one_damaged_copy_of_the_superblock_changes_nothing_and_is_reported() {
    let disk = SimDisk::new();
    let ledger = open(&disk, &small()).unwrap();
    write(&ledger, 0);
    ledger.close().unwrap();
    let ledger = open(&disk, &small()).unwrap();
    (1..100).for_each(|round| write(&ledger, round));
    let sequence = ledger.view().sequence();
    let killed = disk.kill();
    drop(ledger);
    for copy in 0..2 {
        for byte in [0, 33, 100, 500] {
            let disk = killed.copy();
            disk.flip("ledger", (copy * 65_536 + byte) * 8);
            let reading = open(&disk, &small().read_only()).unwrap();
            assert_eq!(
                reading.view().sequence(),
                sequence,
                "copy {copy}, byte {byte}"
            );
            assert!(reading.recovery().superblock_repaired);
            let place = Some(Location::Copy(copy as u64));
            let found = reading.verify().unwrap();
            assert!(
                found.iter().any(|finding| finding.location == place),
                "{found:?}"
            );
            drop(reading);
            let ledger = open(&disk, &small()).unwrap();
            assert!(ledger.recovery().superblock_repaired);
            assert_eq!(ledger.view().sequence(), sequence);
            assert_eq!(ledger.verify().unwrap(), []);
            write(&ledger, 101);
            assert_eq!(ledger.view().sequence(), sequence + 2);
        }
    }
}

#[test]
fn an_older_superblock_in_place_of_the_present_one_hides_no_batch() {
    let disk = SimDisk::new();
    // One checkpoint a session, so that the files are those of the older superblock.
    let options = small().checkpoint_bytes(1 << 30).segment_bytes(1 << 20);
    let ledger = open(&disk, &options).unwrap();
    write(&ledger, 0);
    ledger.close().unwrap();
    let older = disk.content("ledger");
    let ledger = open(&disk, &options).unwrap();
    (1..50).for_each(|round| write(&ledger, round));
    let truth = Truth::of(&ledger);
    let killed = disk.kill();
    drop(ledger);
    killed.replace("ledger", older.clone());
    let Outcome::Right(recovery) = truth.check(&killed, &options, "killed") else {
        panic!("what the log has is not read");
    };
    assert!(!recovery.clean);
    // After another checkpoint, the other files give it away.
    let ledger = open(&killed, &options).unwrap();
    ledger.close().unwrap();
    killed.replace("ledger", older);
    let Err(Error::Damaged { what, .. }) = open(&killed, &options) else {
        panic!("an older superblock is taken for the present one");
    };
    assert!(what.contains("checkpoint"), "{what}");
}

#[test]
fn a_file_that_is_missing_empty_cut_or_older_changes_nothing() {
    let (mut refused, mut errors, mut right) = (0, 0, 0);
    for case in cases() {
        for name in case.disk.names() {
            for how in ["missing", "empty", "cut", "older"] {
                let disk = case.disk.copy();
                let mut content = disk.content(&name);
                match how {
                    "missing" => disk.delete(&name),
                    "empty" => disk.replace(&name, Vec::new()),
                    "cut" => {
                        content.truncate(content.len() / 2);
                        disk.replace(&name, content);
                    }
                    // The log's tail alone cannot say that it was once longer: who holds a root can.
                    _ if name.starts_with("wal-") || !case.older.names().contains(&name) => {
                        continue;
                    }
                    _ => disk.replace(&name, case.older.content(&name)),
                }
                let what = format!("{}: {name} is {how}", case.name);
                match case.truth.check(&disk, &case.options, &what) {
                    Outcome::Refused => refused += 1,
                    Outcome::Errors => errors += 1,
                    Outcome::Right(_) => right += 1,
                }
            }
        }
    }
    println!("{refused} refused, {errors} with errors of reads, {right} right");
    assert!(refused > 40 && right > 40, "{refused}, {errors}, {right}");
}

#[test]
fn an_index_and_a_tree_are_made_again_where_they_are_gone() {
    for case in cases() {
        for how in ["missing", "empty", "older"] {
            for name in [
                "shard-01.index",
                "receipts.index",
                "transfers-00.index",
                "tree-1",
            ] {
                for read_only in [true, false] {
                    let disk = case.disk.copy();
                    match how {
                        "missing" => disk.delete(name),
                        "empty" => disk.replace(name, Vec::new()),
                        _ => disk.replace(name, case.older.content(name)),
                    }
                    let options = match read_only {
                        true => case.options.clone().read_only(),
                        false => case.options.clone(),
                    };
                    let what = format!("{}: {name} is {how}", case.name);
                    let Outcome::Right(recovery) = case.truth.check(&disk, &options, &what) else {
                        panic!("{what}: it is not made again");
                    };
                    assert_eq!(
                        recovery.indexes_rebuilt,
                        u64::from(name != "tree-1"),
                        "{what}"
                    );
                    assert_eq!(recovery.tree_rebuilt, name == "tree-1", "{what}");
                    if !read_only {
                        let again = case.truth.check(&disk, &case.options, &what);
                        assert!(matches!(again, Outcome::Right(it) if it.indexes_rebuilt == 0));
                    }
                }
            }
        }
    }
}

#[test]
fn wrong_hashes_of_the_tree_prove_nothing_and_are_made_again() {
    let disk = SimDisk::new();
    let ledger = open(&disk, &small()).unwrap();
    (0..400).for_each(|round| write(&ledger, round));
    let size = ledger.root().unwrap().0;
    let old = merkle_tree::TreeSize::new(700).unwrap();
    let expected = ledger.prove_consistency(old, size).unwrap();
    // Opening would find it, since there are few batches: all hashes of the first tile are read then.
    disk.flip("tree-1", (32 + 5) * 8);
    let found = ledger.verify().unwrap();
    assert!(
        found.iter().any(|finding| finding.file == "tree-1"),
        "{found:?}"
    );
    assert_eq!(ledger.prove_consistency(old, size).unwrap(), expected);
    ledger.prove_batch(300).unwrap().verify().unwrap();
    assert_eq!(ledger.verify().unwrap(), []);
}

#[test]
fn a_segment_of_the_log_that_is_gone_is_missed() {
    for options in [small(), encrypted(small())] {
        let disk = SimDisk::new();
        // No checkpoint comes between.
        let options = options.checkpoint_bytes(1 << 30);
        let ledger = open(&disk, &options).unwrap();
        (0..100).for_each(|round| write(&ledger, round));
        let killed = disk.kill();
        drop(ledger);
        let mut segments: Vec<_> = killed
            .names()
            .into_iter()
            .filter(|name| name.starts_with("wal-0"))
            // One may be there that was never used.
            .filter(|name| killed.content(name).starts_with(b"GLR1"))
            .collect();
        segments.sort();
        assert!(segments.len() > 1, "{segments:?}");
        for name in &segments {
            for empty in [false, true] {
                let disk = killed.copy();
                match empty {
                    true => disk.replace(name, Vec::new()),
                    false => disk.delete(name),
                }
                let refused = open(&disk, &options).err();
                assert!(
                    matches!(&refused, Some(Error::Damaged { .. })),
                    "{name} of {segments:?}: {refused:?}"
                );
            }
        }
    }
}

#[test]
fn a_ledger_without_its_superblock_is_not_begun_anew() {
    for (options, other) in [(small(), encrypted(small())), (encrypted(small()), small())] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let ledger = options.clone().open(path).unwrap();
        (0..20).for_each(|round| write(&ledger, round));
        let sequence = ledger.view().sequence();
        ledger.close().unwrap();
        let kept = std::fs::read(path.join("ledger")).unwrap();
        for empty in [false, true] {
            match empty {
                true => std::fs::write(path.join("ledger"), []).unwrap(),
                false => std::fs::remove_file(path.join("ledger")).unwrap(),
            }
            for options in [&options, &other] {
                let refused = options.clone().open(path).err();
                assert!(
                    matches!(&refused, Some(Error::Damaged { .. })),
                    "{refused:?}"
                );
                let refused = options.clone().read_only().open(path).err();
                assert!(refused.is_some());
            }
        }
        std::fs::write(path.join("ledger"), kept).unwrap();
        let ledger = options.open(path).unwrap();
        assert_eq!(ledger.view().sequence(), sequence);
    }
}

#[test]
fn files_of_another_format_are_refused_with_the_way_out() {
    let disk = SimDisk::new();
    let ledger = open(&disk, &small()).unwrap();
    write(&ledger, 0);
    ledger.close().unwrap();
    let mut content = disk.content("ledger");
    for copy in content.chunks_exact_mut(65_536) {
        let len = u32::from_le_bytes(copy[32..36].try_into().unwrap()) as usize;
        let at = copy.windows(7).position(|it| it == b"format\x04").unwrap();
        copy[at + 6] = 1;
        let hash = blake3::hash(&copy[32..36 + len]);
        copy[..32].copy_from_slice(hash.as_bytes());
    }
    disk.replace("ledger", content);
    let Err(Error::Format(what)) = open(&disk, &small()) else {
        panic!("another format is opened");
    };
    assert!(
        what.contains("format 1") && what.contains("export"),
        "{what}"
    );
}
