//! A checker that knows nothing of how the ledger works. Processes write transfers and are killed; what they
//! were told is in files of their own, and what the accounts must hold follows from these files alone. Then every
//! file of the ledger is damaged, in every way that a disk or an operator might, and what is read must still
//! be that, or an error.
//!
//! A few seconds of it run with the other tests. `make hostile-ledger SECONDS=600` runs for longer, and
//! flips every byte of the small files.

mod common;

use common::{Random, key};
use geometric_ledger::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ACCOUNTS: u64 = 120;
const BALANCE: i128 = 1 << 40;
const WRITERS: u64 = 4;
/// Transfers that a writer made, of which it tries one again now and then.
const RETRIED: u64 = 100;
/// Batches that can be proven at least; older ones are pruned.
const KEPT: u64 = 100;

fn options(encrypted: bool) -> Options {
    let options = Options::new()
        .shards(2)
        .segment_bytes(1 << 17)
        .checkpoint_bytes(1 << 18)
        .history_bytes(4 << 20)
        .dirty_bytes(1 << 20)
        .receipts(WRITERS * RETRIED * 4)
        .batches(KEPT);
    match encrypted {
        true => options.key(Secret::new([0x5E; 32])),
        false => options,
    }
}

/// What writer `writer` transfers as its number `number`.
fn transfers(writer: u64, number: u64) -> Vec<Transfer> {
    let random = &mut Random(writer << 40 | number);
    (0..=random.below(3))
        .map(|_| {
            let (debit, other) = (random.below(ACCOUNTS), random.below(ACCOUNTS - 1) + 1);
            Transfer {
                debit: key(debit),
                credit: key((debit + other) % ACCOUNTS),
                amount: (random.below(1_000) + 1).into(),
            }
        })
        .collect()
}

/// Batches of odd numbers are recorded, all transfers of one linked.
fn is_recorded(number: u64) -> bool {
    number % 2 == 1
}

fn new_transfers(writer: u64, number: u64) -> Vec<NewTransfer> {
    let transfers = transfers(writer, number);
    let last = transfers.len() - 1;
    let new = |(at, it): (usize, &Transfer)| {
        let mut id = idempotency_key(writer, number);
        id[7] = at as u8;
        let new = NewTransfer::new(id, it.debit, it.credit, it.amount);
        if at < last { new.linked() } else { new }
    };
    transfers.iter().enumerate().map(new).collect()
}

/// Does a batch of a writer. Returns its sequence, and whether it was done before.
fn pay(ledger: &GeometricLedger, writer: u64, number: u64) -> (u64, bool) {
    if is_recorded(number) {
        let results = ledger.create_transfers(&new_transfers(writer, number));
        let results: Result<Vec<_>, _> = results.unwrap().into_iter().collect();
        let done = results.unwrap();
        assert!(done.iter().all(|it| it == &done[0]), "a part of a chain");
        return (done[0].sequence, done[0].repeated);
    }
    let key = idempotency_key(writer, number);
    let receipt = ledger
        .transfer_batch(&key, &transfers(writer, number))
        .unwrap();
    (receipt.sequence, receipt.repeated)
}

fn idempotency_key(writer: u64, number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&writer.to_le_bytes());
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// What a writer was told: the sequences of its batches by their numbers, and the one that it has tried
/// and not been told of.
#[derive(Default)]
struct Told {
    done: BTreeMap<u64, u64>,
    open: Option<u64>,
}

impl Told {
    fn read(directory: &Path, writer: u64) -> Self {
        let mut told = Told::default();
        let text = fs::read_to_string(directory.join(format!("writer-{writer}")));
        for line in text.unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let (what, number) = (words.next().unwrap(), words.next().unwrap());
            let number = number.parse().unwrap();
            match what {
                "try" => told.open = Some(number),
                _ => {
                    let sequence = words.next().unwrap().parse().unwrap();
                    assert_eq!(
                        told.done.insert(number, sequence),
                        None,
                        "acknowledged twice"
                    );
                    told.open = None;
                }
            }
        }
        told
    }
}

/// Balance and nonce of each account.
type Truth = Vec<(i128, u64)>;

/// What accounts hold after these batches. The order does not matter: nobody runs out of money.
fn truth(batches: impl Iterator<Item = (u64, u64)>) -> Truth {
    let mut truth = vec![(BALANCE, 0); ACCOUNTS as usize];
    let number = |key: &Key| u64::from_le_bytes(key[..8].try_into().unwrap()) as usize;
    for (writer, batch) in batches {
        for transfer in transfers(writer, batch) {
            let amount = transfer.amount as i128;
            truth[number(&transfer.debit)].0 -= amount;
            truth[number(&transfer.debit)].1 += 1;
            truth[number(&transfer.credit)].0 += amount;
        }
    }
    truth
}

/// The process that is killed: writers that try things again, readers, views, snapshots.
#[test]
fn victim() {
    let Ok(directory) = std::env::var("LEDGER_TO_KILL") else {
        return;
    };
    let directory = Path::new(&directory);
    let encrypted = directory.join("encrypted").exists();
    let ledger = options(encrypted).open(directory.join("ledger")).unwrap();
    if ledger.view().sequence() == 0 {
        let accounts: Vec<_> = (0..ACCOUNTS)
            .map(|number| (key(number), Account::with_balance(BALANCE)))
            .collect();
        ledger.update_batch(&accounts).unwrap();
    }
    let ledger = &ledger;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || write(ledger, directory, writer));
        }
        for reader in 0..2 {
            scope.spawn(move || read(ledger, reader));
        }
        for _ in 0..2 {
            scope.spawn(move || {
                loop {
                    match ledger.snapshot_to(directory.join("snapshot"), None) {
                        Ok(_) | Err(Error::Snapshot(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                    std::thread::sleep(Duration::from_millis(7));
                }
            });
        }
    });
}

fn write(ledger: &GeometricLedger, directory: &Path, writer: u64) {
    let told = Told::read(directory, writer);
    let path = directory.join(format!("writer-{writer}"));
    let mut log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    let mut done = told.done;
    let random = &mut Random(done.len() as u64);
    let first = done.last_key_value().map_or(0, |(number, _)| number + 1);
    for number in first.. {
        if told.open != Some(number) {
            log.write_all(format!("try {number}\n").as_bytes()).unwrap();
        }
        let (sequence, _) = pay(ledger, writer, number);
        log.write_all(format!("ok {number} {sequence}\n").as_bytes())
            .unwrap();
        done.insert(number, sequence);
        if random.chance(4) {
            let old = number.saturating_sub(random.below(RETRIED));
            let (sequence, repeated) = pay(ledger, writer, old);
            assert!(repeated, "batch {old} of writer {writer} was paid twice");
            assert_eq!(sequence, done[&old]);
        }
    }
}

fn read(ledger: &GeometricLedger, reader: u64) {
    let random = &mut Random(reader);
    let keys: Vec<_> = (0..ACCOUNTS).map(key).collect();
    let total = BALANCE * i128::from(ACCOUNTS);
    let mut newest = 0;
    loop {
        let account = ledger.get(&key(random.below(ACCOUNTS))).unwrap();
        assert!(account.is_some(), "an account is gone");
        assert_eq!(
            ledger.get(&key(ACCOUNTS + random.below(1_000))).unwrap(),
            None
        );
        let view = ledger.view();
        assert!(view.sequence() >= newest, "batches are gone");
        newest = view.sequence();
        let balances = view.get_many(&keys).unwrap().into_iter();
        let sum: i128 = balances.map(|account| account.unwrap().balance).sum();
        assert_eq!(sum, total, "a view of half a batch");
        if random.chance(8) {
            let all: i128 = view.iter().map(|item| item.unwrap().1.balance).sum();
            assert_eq!(all, total);
            let history = ledger.history();
            let length = history.end() - history.start() + 1;
            let sequence = history.start() + random.below(length);
            match ledger.view_at(sequence) {
                Ok(old) => {
                    let sum: i128 = old.iter().map(|item| item.unwrap().1.balance).sum();
                    assert!(sum == total || sequence == 0);
                }
                Err(Error::History { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// What was seen, to be printed.
#[derive(Default)]
struct Counts {
    kills: u64,
    acknowledged: u64,
    followed: u64,
    restored: u64,
    damages: u64,
    refused: u64,
    errors: u64,
    repaired: u64,
    unharmed: u64,
    pruned: u64,
}

fn start(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env("LEDGER_TO_KILL", directory)
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("stderr")).unwrap())
        .spawn()
        .unwrap()
}

/// Finds which of the batches that nobody was told of were done, so that all balances and nonces are
/// right. Returns the truth.
fn check_accounts(ledger: &GeometricLedger, directory: &Path) -> Truth {
    let told: Vec<_> = (0..WRITERS)
        .map(|writer| Told::read(directory, writer))
        .collect();
    for (writer, told) in told.iter().enumerate() {
        for (number, sequence) in told.done.iter().filter(|(it, _)| is_recorded(**it)) {
            for new in new_transfers(writer as u64, *number) {
                let record = ledger.transfer(&new.id).unwrap();
                let record = record.expect("what was acknowledged is on record");
                assert_eq!((record.debit, record.credit), (new.debit, new.credit));
                assert_eq!((record.amount, record.sequence), (new.amount, *sequence));
            }
        }
    }
    let found: Truth = (0..ACCOUNTS)
        .map(|number| {
            let account = ledger.get(&key(number)).unwrap();
            account.map_or((BALANCE, 0), |account| (account.balance, account.nonce))
        })
        .collect();
    for open in 0..1 << WRITERS {
        let batches = (0..WRITERS).flat_map(|writer| {
            let told = &told[writer as usize];
            let unsure = told.open.filter(|_| open >> writer & 1 == 1);
            told.done
                .keys()
                .copied()
                .chain(unsure)
                .map(move |batch| (writer, batch))
        });
        let truth = truth(batches);
        if truth == found {
            return truth;
        }
    }
    panic!("the accounts are not what was acknowledged");
}

fn kills(directory: &Path, encrypted: bool, until: Instant, counts: &mut Counts) {
    let random = &mut Random(11);
    let ledger_path = directory.join("ledger");
    let mut follower = None;
    let mut rounds = 0;
    while Instant::now() < until || rounds < 4 {
        rounds += 1;
        let mut child = start(directory);
        let life = Instant::now() + Duration::from_millis(150 + random.below(600));
        while Instant::now() < life {
            if ledger_path.join("ledger").exists() {
                let follower = follower.get_or_insert_with(|| {
                    let options = options(encrypted);
                    Follower::open(directory.join("follower"), &ledger_path, options).unwrap()
                });
                counts.followed += catch_up(follower);
                let sum: i128 = follower
                    .ledger()
                    .view()
                    .iter()
                    .map(|item| item.unwrap().1.balance)
                    .sum();
                assert!(sum == 0 || sum == BALANCE * i128::from(ACCOUNTS));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        counts.kills += 1;
        let said = fs::read_to_string(directory.join("stderr")).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        if !ledger_path.join("ledger").exists() {
            continue;
        }
        // The dead leader's batches are all there, before anybody has opened it again.
        if let Some(follower) = &mut follower {
            counts.followed += catch_up(follower);
            check_accounts(follower.ledger(), directory);
        }
        let ledger = options(encrypted).open(&ledger_path).unwrap();
        check_accounts(&ledger, directory);
        assert_eq!(ledger.verify().unwrap(), []);
        ledger.audit().unwrap();
        if directory.join("snapshot").exists() {
            restore(&ledger, directory, encrypted);
            counts.restored += 1;
        }
        if random.chance(3) {
            ledger.compact().unwrap();
        }
        if random.chance(2) {
            ledger.close().unwrap();
        }
    }
    counts.acknowledged += (0..WRITERS)
        .map(|writer| Told::read(directory, writer).done.len() as u64)
        .sum::<u64>();
}

/// Catches up with a source that is being written, of which a file may be let go while it is looked for.
fn catch_up(follower: &mut Follower) -> u64 {
    match follower.catch_up() {
        Ok(batches) => batches,
        Err(Error::Io { .. }) => 0,
        Err(error) => panic!("{error}"),
    }
}

/// A snapshot makes a ledger that was, and knows what was paid by then.
fn restore(ledger: &GeometricLedger, directory: &Path, encrypted: bool) {
    let path = directory.join("restored");
    let _ = fs::remove_dir_all(&path);
    let snapshot = directory.join("snapshot");
    let restored = GeometricLedger::restore(&path, &[snapshot], options(encrypted)).unwrap();
    let sequence = restored.view().sequence();
    assert!(sequence <= ledger.view().sequence());
    let sum = restored.audit().unwrap().balances;
    assert!(sum == 0 || sum == BALANCE * i128::from(ACCOUNTS));
    let leaf = |batch: Option<Batch>| batch.map(|batch| batch.leaf_data());
    let restored_leaf = leaf(restored.batch(sequence).unwrap());
    match ledger.batch(sequence) {
        Ok(batch) => assert_eq!(restored_leaf, leaf(batch)),
        Err(error) => assert_pruned(&error, sequence, ledger.view().sequence()),
    }
    for writer in 0..WRITERS {
        let told = Told::read(directory, writer);
        let last = told.done.iter().rev().find(|(_, done)| **done <= sequence);
        if let Some((number, done)) = last
            && sequence - done < RETRIED
        {
            let (_, repeated) = pay(&restored, writer, *number);
            assert!(repeated, "a restored ledger pays twice");
        }
    }
}

/// Only what is older than was promised may be gone.
fn assert_pruned(error: &Error, sequence: u64, newest: u64) {
    assert!(matches!(error, Error::Pruned { .. }), "{error}");
    assert!(sequence + KEPT <= newest, "batch {sequence} of {newest}");
}

/// What a ledger must show however its files are damaged.
struct Expected {
    truth: Truth,
    size: u64,
    root: merkle_tree::Hash,
}

impl Expected {
    /// Opens a damaged ledger and reads everything.
    fn check(&self, path: &Path, options: Options, what: &str, counts: &mut Counts) {
        counts.damages += 1;
        let ledger = match options.open(path) {
            Ok(ledger) => ledger,
            Err(_) => {
                counts.refused += 1;
                return;
            }
        };
        let mut errors = 0;
        for (number, expected) in self.truth.iter().enumerate() {
            match ledger.get(&key(number as u64)) {
                Ok(account) => {
                    let found = account.map(|account| (account.balance, account.nonce));
                    assert_eq!(found, Some(*expected), "{what}: account {number}");
                }
                Err(_) => errors += 1,
            }
        }
        match ledger.root() {
            Ok((size, root)) => assert_eq!((size.get(), root), (self.size, self.root), "{what}"),
            Err(_) => errors += 1,
        }
        let random = &mut Random(counts.damages);
        for sequence in [
            1 + random.below(self.size),
            self.size - random.below(KEPT.min(self.size)),
        ] {
            match ledger.prove_batch(sequence) {
                Ok(proof) => {
                    assert_eq!(proof.root, self.root, "{what}");
                    proof.verify().unwrap();
                }
                Err(error @ Error::Pruned { .. }) => {
                    assert_pruned(&error, sequence, self.size);
                    counts.pruned += 1;
                }
                Err(_) => errors += 1,
            }
        }
        match ledger.audit() {
            Err(error @ Error::Unbalanced { .. }) => panic!("{what}: {error}"),
            audit => errors += u64::from(audit.is_err()),
        }
        if errors > 0 {
            let found = ledger.verify();
            assert!(
                !matches!(&found, Ok(found) if found.is_empty()),
                "{what}: verify finds nothing"
            );
        }
        let recovery = ledger.recovery();
        let repaired =
            recovery.superblock_repaired || recovery.tree_rebuilt || recovery.indexes_rebuilt > 0;
        match () {
            () if errors > 0 => counts.errors += 1,
            () if repaired => counts.repaired += 1,
            () => counts.unharmed += 1,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for (name, content) in files(from) {
        fs::write(to.join(name), content).unwrap();
    }
}

fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.metadata().unwrap().is_file());
    files
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn damages(directory: &Path, encrypted: bool, long: bool, until: Instant, counts: &mut Counts) {
    let path = directory.join("ledger");
    // With little history, so that old batches may be pruned.
    let open = || {
        let options = options(encrypted).history_bytes(1 << 16);
        options.open(&path).unwrap()
    };
    open().close().unwrap();
    let older = files(&path);
    // More of the same, then some that no checkpoint has brought to the files.
    let ledger = open();
    let writer = WRITERS;
    for number in 0..400 {
        let key = idempotency_key(writer, number);
        ledger
            .transfer_batch(&key, &transfers(writer, number))
            .unwrap();
        if number == 380 {
            ledger.checkpoint().unwrap();
        }
    }
    // A moment later the log itself says that all of it is durable.
    std::thread::sleep(Duration::from_millis(200));
    let accounts = (0..ACCOUNTS).map(|number| ledger.get(&key(number)).unwrap().unwrap());
    let truth = accounts
        .map(|account| (account.balance, account.nonce))
        .collect();
    let (size, root) = ledger.root().unwrap();
    let expected = Expected {
        truth,
        size: size.get(),
        root,
    };
    let killed = directory.join("killed");
    copy(&path, &killed);
    ledger.close().unwrap();
    let work = directory.join("work");
    for (state, from) in [("killed", &killed), ("closed", &path)] {
        let whole = files(from);
        for name in whole.keys() {
            for how in ["missing", "empty", "cut", "older"] {
                copy(from, &work);
                let file = work.join(name);
                match how {
                    "missing" => fs::remove_file(&file).unwrap(),
                    "empty" => fs::write(&file, []).unwrap(),
                    "cut" => fs::write(&file, &whole[name][..whole[name].len() / 2]).unwrap(),
                    // The log's tail alone cannot say that it was once longer: who holds a root can.
                    _ if name.starts_with("wal-") => continue,
                    _ => match older.get(name) {
                        Some(content) => fs::write(&file, content).unwrap(),
                        None => continue,
                    },
                }
                let what = format!("{state}, encrypted {encrypted}: {name} is {how}");
                expected.check(&work, options(encrypted), &what, counts);
            }
        }
        flips(&expected, from, encrypted, (long, until), state, counts);
    }
}

/// Flips bytes, one at a time: each one of small files in the long form, some of the others.
fn flips(
    expected: &Expected,
    from: &Path,
    encrypted: bool,
    (long, until): (bool, Instant),
    state: &str,
    counts: &mut Counts,
) {
    let work: PathBuf = from.with_file_name("work");
    copy(from, &work);
    let random = &mut Random(5);
    for (name, content) in files(from) {
        let small = ["ledger", "batches"].contains(&name.as_str())
            || ["tree-", "frontier-"].iter().any(|it| name.starts_with(it));
        // Behind what is in use there are zeros, which mean nothing.
        let used = content
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let offsets: Vec<usize> = match (small && long, used) {
            (_, 0) => Vec::new(),
            (true, _) => (0..used)
                .filter(|at| content[*at] != 0 || at % 64 == 0)
                .collect(),
            (false, _) => {
                let count = if long { 2_000 } else { 12 };
                (0..count)
                    .map(|_| random.below(used as u64) as usize)
                    .collect()
            }
        };
        let file = work.join(&name);
        for at in offsets {
            if long && Instant::now() > until {
                break;
            }
            let mut damaged = content.clone();
            damaged[at] ^= 1 << random.below(8);
            fs::write(&file, &damaged).unwrap();
            let what = format!("{state}, encrypted {encrypted}: byte {at} of {name}");
            // Nothing is written, so the other files stay as they are.
            expected.check(&work, options(encrypted).read_only(), &what, counts);
            fs::write(&file, &content).unwrap();
        }
    }
}

#[test]
fn nothing_acknowledged_is_changed_by_kills_or_damage() {
    if std::env::var("LEDGER_TO_KILL").is_ok() {
        return;
    }
    let long = std::env::var("HOSTILE_SECONDS").ok();
    let seconds = long
        .as_ref()
        .map_or(4.0, |seconds| seconds.parse().unwrap());
    for encrypted in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        if encrypted {
            fs::write(directory.join("encrypted"), []).unwrap();
        }
        let mut counts = Counts::default();
        let half = Duration::from_secs_f64(seconds / 4.0);
        kills(directory, encrypted, Instant::now() + half, &mut counts);
        let until = Instant::now() + half;
        damages(directory, encrypted, long.is_some(), until, &mut counts);
        println!(
            "encrypted {encrypted}: {} kills, {} transfers acknowledged, {} batches followed, {} snapshots \
             restored; {} damages: {} refused, {} errors of reads, {} repaired, {} without harm, 0 silent; {} proofs \
             asked for of pruned batches",
            counts.kills,
            counts.acknowledged,
            counts.followed,
            counts.restored,
            counts.damages,
            counts.refused,
            counts.errors,
            counts.repaired,
            counts.unharmed,
            counts.pruned
        );
        assert!(counts.acknowledged > 10 && counts.followed > 10 && counts.damages > 100);
        assert!(counts.pruned > 10);
    }
}
