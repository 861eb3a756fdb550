//! The ledger against other embedded stores, on the same disk, in turns: `make bench-ledger`.
//!
//! Sizes come from the environment: ACCOUNTS (10,000,000 resident), OPEN (50,000,000 for opening),
//! GROW (100,000,000 to grow to), ROUNDS (5), SECONDS_EACH (3), DIRECTORY (the system's temporary
//! one), ONLY (update, get, open, grow: one part).

mod common;

use common::{Random, fresh, key, median, setting};
use geometric_ledger::*;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Batch = Vec<(Key, Account)>;

/// Updates of accounts anywhere.
fn batch(random: &mut Random, accounts: u64, len: u64) -> Batch {
    (0..len)
        .map(|_| {
            let nonce = random.below(1 << 40);
            (
                key(random.below(accounts)),
                Account {
                    nonce,
                    ..Account::with_balance(nonce.into())
                },
            )
        })
        .collect()
}

fn load(ledger: &GeometricLedger, accounts: u64) {
    for from in (0..accounts).step_by(50_000) {
        let batch: Batch = (from..accounts.min(from + 50_000))
            .map(|number| (key(number), Account::with_balance(1)))
            .collect();
        ledger.update_batch(&batch).unwrap();
    }
}

fn millions(rate: f64) -> String {
    format!("{:.2} M/s", rate / 1e6)
}

fn row(what: &str, found: String, bar: &str) {
    println!("| {what} | {found} | {bar} |");
}

/// Updates a second that `threads` callers make with batches from a list.
fn rate(batches: &[Batch], threads: usize, seconds: f64, update: impl Fn(&Batch) + Sync) -> f64 {
    let (start, total) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (update, total) = (&update, &total);
            scope.spawn(move || {
                let mut at = thread * batches.len() / threads;
                while start.elapsed().as_secs_f64() < seconds {
                    let batch = &batches[at % batches.len()];
                    update(batch);
                    total.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    at += 1;
                }
            });
        }
    });
    total.into_inner() as f64 / start.elapsed().as_secs_f64()
}

/// Waits until nothing is done in the background: what the one before still does is not the next one's.
fn rest() {
    let begun = Instant::now();
    let mut busy = 1.0;
    while busy > 0.05 && begun.elapsed() < Duration::from_secs(60) {
        let (before, start) = (processor_seconds(), Instant::now());
        std::thread::sleep(Duration::from_secs(3));
        busy = (processor_seconds() - before) / start.elapsed().as_secs_f64();
    }
}

/// What this process has used (proc(5), fields 14 and 15 of stat, of a hundredth of a second each).
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / 100.0
}

fn value(account: &Account) -> [u8; 56] {
    let mut value = [0; 56];
    value[..16].copy_from_slice(&account.balance.to_le_bytes());
    value[16..24].copy_from_slice(&account.nonce.to_le_bytes());
    value
}

const TABLE: redb::TableDefinition<[u8; 32], [u8; 56]> = redb::TableDefinition::new("accounts");

fn redb_write(database: &redb::Database, batch: &Batch, durability: redb::Durability) {
    let mut transaction = database.begin_write().unwrap();
    let _ = transaction.set_durability(durability);
    {
        let mut table = transaction.open_table(TABLE).unwrap();
        for (key, account) in batch {
            table.insert(*key, value(account)).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn fjall_write(
    keyspace: &fjall::Keyspace,
    partition: &fjall::Partition,
    batch: &Batch,
    sync: bool,
) {
    let mut writes = keyspace.batch();
    for (key, account) in batch {
        writes.insert(partition, key, value(account));
    }
    writes.commit().unwrap();
    if sync {
        keyspace.persist(fjall::PersistMode::SyncData).unwrap();
    }
}

/// Bytes a second of appending as much as a batch's record and syncing it, into written blocks.
fn disk(file: &File, bytes: &[u8], seconds: f64) -> f64 {
    let (start, mut written) = (Instant::now(), 0u64);
    while start.elapsed().as_secs_f64() < seconds {
        file.write_all_at(bytes, written % (1 << 28)).unwrap();
        file.sync_data().unwrap();
        written += bytes.len() as u64;
    }
    written as f64 / start.elapsed().as_secs_f64()
}

fn update(directory: &Path) {
    let accounts = setting("ACCOUNTS", 10_000_000);
    let (rounds, seconds) = (setting("ROUNDS", 5), setting("SECONDS_EACH", 3) as f64);
    let batches: Vec<Batch> = (0..200)
        .map(|seed| batch(&mut Random(seed + 1), accounts, 10_000))
        .collect();

    let path = fresh(&directory.join("redb"));
    std::fs::create_dir_all(&path).unwrap();
    let redb = redb::Database::create(path.join("accounts")).unwrap();
    let path = fresh(&directory.join("fjall"));
    let fjall = fjall::Config::new(path).open().unwrap();
    let partition = fjall
        .open_partition("accounts", Default::default())
        .unwrap();
    for from in (0..accounts).step_by(100_000) {
        let batch: Batch = (from..accounts.min(from + 100_000))
            .map(|number| (key(number), Account::with_balance(1)))
            .collect();
        redb_write(&redb, &batch, redb::Durability::None);
        fjall_write(&fjall, &partition, &batch, false);
    }
    redb_write(&redb, &batches[0], redb::Durability::Immediate);
    fjall.persist(fjall::PersistMode::SyncAll).unwrap();

    let open = |name: &str, options: Options| {
        let ledger = options.open(fresh(&directory.join(name))).unwrap();
        load(&ledger, accounts);
        ledger.checkpoint().unwrap();
        ledger
    };
    let sync = open("sync", Options::new());
    let before = sync.stats();
    sync.update_batch(&batches[0]).unwrap();
    let record = sync.stats().since_checkpoint_bytes - before.since_checkpoint_bytes;
    let sequential = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(directory.join("disk"))
        .unwrap();
    let bytes = vec![7; record as usize];
    for offset in (0..(1u64 << 28) + record).step_by(bytes.len()) {
        sequential.write_all_at(&bytes, offset).unwrap();
    }
    sequential.sync_all().unwrap();
    let none = open("none", Options::new().durability(Durability::None));
    let secret = Secret::new([1; 32]);
    let sealed = open(
        "sealed",
        Options::new().durability(Durability::None).key(secret),
    );

    let mut found: [Vec<f64>; 7] = Default::default();
    for _ in 0..rounds {
        let measure = |threads, update: &(dyn Fn(&Batch) + Sync)| {
            rest();
            rate(&batches, threads, seconds, update)
        };
        let ours = |ledger: &GeometricLedger, threads| {
            measure(threads, &|batch| {
                ledger.update_batch(batch).unwrap();
            })
        };
        found[0].push(ours(&sync, 2));
        found[1].push(disk(&sequential, &bytes, seconds / 2.0));
        found[2].push(measure(2, &|batch| {
            redb_write(&redb, batch, redb::Durability::Immediate);
        }));
        found[3].push(measure(2, &|batch| {
            fjall_write(&fjall, &partition, batch, true)
        }));
        found[4].push(ours(&none, 2));
        found[5].push(ours(&sealed, 2));
        found[6].push(ours(&sync, 1));
    }
    let [sync, disk, redb, fjall, none, sealed, alone] = found.map(median);
    let peer = redb.max(fjall);
    row("update, `Sync`, 2 callers", millions(sync), "≥ 1.5 M/s");
    row("… 1 caller", millions(alone), "");
    row(
        "… against redb, fjall",
        format!(
            "{:.1} × ({}, {})",
            sync / peer,
            millions(redb),
            millions(fjall)
        ),
        "≥ 10 ×",
    );
    let ours = sync * record as f64 / 10_000.0;
    row(
        "… log, of the disk's own rate of writing and syncing as much",
        format!(
            "{:.0} of {:.0} MB/s, {:.0} %",
            ours / 1e6,
            disk / 1e6,
            100.0 * ours / disk
        ),
        "stated",
    );
    row("update, `None`", millions(none), "≥ 4 M/s");
    row(
        "… encrypted",
        format!("{}, {:.2} of plain", millions(sealed), sealed / none),
        "stated",
    );
}

fn get(directory: &Path) {
    let accounts = setting("ACCOUNTS", 10_000_000);
    let (rounds, seconds) = (setting("ROUNDS", 5), setting("SECONDS_EACH", 3) as f64);
    let mut random = Random(5);
    let keys: Vec<Key> = (0..2_000_000)
        .map(|_| key(random.below(accounts)))
        .collect();
    let batches: Vec<Batch> = (0..100)
        .map(|_| batch(&mut random, accounts, 10_000))
        .collect();
    let options = Options::new().durability(Durability::None);
    let ledger = options.open(fresh(&directory.join("get"))).unwrap();
    load(&ledger, accounts);
    ledger.checkpoint().unwrap();
    let read = |threads: usize, many: bool| {
        let (start, total) = (Instant::now(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (ledger, keys, total) = (&ledger, &keys, &total);
                scope.spawn(move || {
                    let mut at = thread * 1_000;
                    while start.elapsed().as_secs_f64() < seconds {
                        let some = &keys[at % keys.len()..][..1_000];
                        match many {
                            true => {
                                black_box(ledger.get_many(some).unwrap());
                            }
                            false => some.iter().for_each(|key| {
                                black_box(ledger.get(key).unwrap());
                            }),
                        }
                        at += 2_000;
                        total.fetch_add(1_000, Ordering::Relaxed);
                    }
                });
            }
        });
        total.into_inner() as f64 / start.elapsed().as_secs_f64()
    };
    // A writer on one processor, so that one reader has the other to itself.
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let mut found: [Vec<f64>; 6] = Default::default();
    for _ in 0..rounds {
        found[0].push(read(2, false));
        found[1].push(read(2, true));
        found[2].push(read(1, false));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                one.install(|| {
                    for batch in batches
                        .iter()
                        .cycle()
                        .take_while(|_| !stop.load(Ordering::Relaxed))
                    {
                        ledger.update_batch(batch).unwrap();
                    }
                });
            });
            found[3].push(read(1, false));
            found[4].push(read(2, false));
            found[5].push(read(2, true));
            stop.store(true, Ordering::Relaxed);
        });
    }
    let [two, many, one, one_busy, two_busy, many_busy] = found.map(median);
    row("get, 2 threads", millions(two), "≥ 8 M/s");
    row("… by `get_many` of 1,000", millions(many), "≥ 8 M/s");
    row(
        "get, 1 thread, while a writer runs on the other core",
        format!(
            "{} of {}, {:.2} ×",
            millions(one_busy),
            millions(one),
            one_busy / one
        ),
        "≥ 0.9 ×",
    );
    row(
        "get, get_many, 2 threads, while a writer runs on the same 2 cores",
        format!(
            "{:.2} × ({}), {:.2} × ({})",
            two_busy / two,
            millions(two_busy),
            many_busy / many,
            millions(many_busy)
        ),
        "≥ 0.9 ×",
    );
    let stats = ledger.stats();
    ledger.close().unwrap();
    let bytes = stats.slots_bytes + stats.index_bytes;
    row(
        "bytes on disk per account; with the log",
        format!(
            "{}; {}",
            bytes / accounts,
            (bytes + stats.wal_bytes) / accounts
        ),
        "≤ 200",
    );
}

/// The process that is killed: loads, then updates until it is.
fn child(path: &Path) {
    let accounts = setting("OPEN", 50_000_000);
    let ledger = Options::new().open(path).unwrap();
    if ledger.stats().accounts < accounts {
        load(&ledger, accounts);
        ledger.close().unwrap();
        return;
    }
    let mut random = Random(9);
    loop {
        ledger
            .update_batch(&batch(&mut random, accounts, 10_000))
            .unwrap();
    }
}

fn open(directory: &Path) {
    let path = fresh(&directory.join("open"));
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env("CHILD", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    assert!(start().wait().unwrap().success());
    let timed = || {
        let begun = Instant::now();
        let ledger = Options::new().open(&path).unwrap();
        (begun.elapsed(), ledger)
    };
    let mut clean = Vec::new();
    for _ in 0..5 {
        let (took, ledger) = timed();
        assert!(ledger.recovery().clean);
        clean.push(took.as_secs_f64());
        ledger.close().unwrap();
    }
    row(
        "open after a clean stop",
        format!("{:.0} ms", 1e3 * median(clean)),
        "< 1 s",
    );
    let (mut crashed, mut bytes) = (0f64, 0);
    for round in 0..3 {
        let mut killed = start();
        std::thread::sleep(Duration::from_secs(15 + 5 * round));
        killed.kill().unwrap();
        killed.wait().unwrap();
        let (took, ledger) = timed();
        assert!(!ledger.recovery().clean);
        if took.as_secs_f64() > crashed {
            (crashed, bytes) = (took.as_secs_f64(), ledger.recovery().bytes);
        }
        ledger.close().unwrap();
    }
    row(
        "open after kill -9 under load, longest of 3",
        format!("{crashed:.1} s, {} MB of log", bytes >> 20),
        "< 10 s",
    );
}

fn grow(directory: &Path) {
    let accounts = setting("GROW", 100_000_000);
    let ledger = Options::new().open(fresh(&directory.join("grow"))).unwrap();
    load(&ledger, 1_000);
    let mut times = Vec::new();
    for from in (1_000..accounts).step_by(1_000) {
        let batch: Batch = (from..from + 1_000)
            .map(|number| (key(number), Account::with_balance(1)))
            .collect();
        let begun = Instant::now();
        ledger.update_batch(&batch).unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let found = format!(
        "{:.1} ms (median {:.1}, p99 {:.1}, worst {:.0})",
        at(0.999),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    row(
        &format!("p99.9 of a 1,000-update batch, `Sync`, from 1,000 to {accounts} accounts"),
        found,
        "< 20 ms",
    );
    ledger.close().unwrap();
}

fn main() {
    if let Some(path) = std::env::var_os("CHILD") {
        return child(Path::new(&path));
    }
    // `cargo test --benches` asks for nothing to be measured.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let parent = std::env::var_os("DIRECTORY").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent).unwrap();
    let only = std::env::var("ONLY").unwrap_or_default();
    println!("| what | found | bar |\n| --- | --- | --- |");
    for (name, part) in [
        ("update", update as fn(&Path)),
        ("get", get),
        ("open", open),
        ("grow", grow),
    ] {
        if only.is_empty() || only == name {
            let directory = directory.path().join(name);
            std::fs::create_dir_all(&directory).unwrap();
            part(&directory);
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
}
