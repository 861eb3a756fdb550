//! Transfers, cold reads, opening after a kill and sizes, of the ledger and of other embedded stores on the same
//! disk, in turns: `make bench-ledger`.
//!
//! In each round each store has its turn at each workload, and a ratio is that of the ledger to the best other
//! store of the same round. Shown are the median of the rounds, and the least and the most.
//!
//! Sizes come from the environment: ACCOUNTS (1,000,000, in memory), LARGE (10,000,000, for what is larger than
//! memory), MEMORY_SHARE (10: a tenth of the ledger's bytes may be in memory, which only root can see to), ROUNDS
//! (5), SECONDS_EACH (2), DIRECTORY (the system's temporary one), ONLY (transfers, large: one part), STORES (names
//! with commas between).

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/group.rs"]
mod group;
mod rocksdb;
mod stores;

use common::{Random, fresh, key, median, row, setting, size_of};
use geometric_ledger::{Key, Transfer};
use group::{Group, wait_for_the_group};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stores::{Bare, Memory, NAMES, Store};

const RICH: i128 = 1_000_000_000_000;
const IN_MEMORY: Memory = Memory { bytes: 1 << 30 };

fn names() -> Vec<&'static str> {
    let wanted = std::env::var("STORES").unwrap_or_default();
    let is_wanted = |name: &&str| wanted.is_empty() || wanted.split(',').any(|it| it == *name);
    NAMES.into_iter().filter(is_wanted).collect()
}

/// Fills a new store with accounts, in the order of their keys, which suits the others best.
fn fill(store: &dyn Store, accounts: u64) {
    let mut keys: Vec<Key> = (0..accounts).map(key).collect();
    keys.sort_unstable();
    let mut batches = keys
        .chunks(50_000)
        .map(|keys| keys.iter().map(|key| (*key, RICH)).collect());
    store.load(&mut batches);
}

/// Ranks with the probabilities of Zipf's law (Gray et al., "Quickly generating billion-record synthetic
/// databases", 1994).
struct Zipf {
    items: f64,
    theta: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(items: u64, theta: f64) -> Self {
        let zeta = |items: u64| (1..=items).map(|n| (n as f64).powf(-theta)).sum::<f64>();
        let all = zeta(items);
        let items = items as f64;
        Zipf {
            items,
            theta,
            zeta: all,
            eta: (1.0 - (2.0 / items).powf(1.0 - theta)) / (1.0 - zeta(2) / all),
        }
    }

    fn rank(&self, random: &mut Random) -> u64 {
        let share = random.share();
        let scaled = share * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.items * (self.eta * share - self.eta + 1.0).powf(1.0 / (1.0 - self.theta));
        (rank as u64).min(self.items as u64 - 1)
    }
}

/// A transfer between two accounts that `pick` chooses.
fn pair(mut pick: impl FnMut() -> u64) -> Transfer {
    let debit = pick();
    let credit = std::iter::repeat_with(pick).find(|credit| *credit != debit);
    Transfer {
        debit: key(debit),
        credit: key(credit.unwrap()),
        amount: 1,
    }
}

/// Transfers a second that `callers` make in batches of so many.
fn rate(
    pool: &[Transfer],
    len: usize,
    callers: usize,
    seconds: f64,
    transfer: impl Fn(&[Transfer]) + Sync,
) -> f64 {
    let (start, done, next) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                while start.elapsed().as_secs_f64() < seconds {
                    let at = next.fetch_add(len as u64, Ordering::Relaxed) as usize;
                    transfer(&pool[at % (pool.len() - len)..][..len]);
                    done.fetch_add(len as u64, Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner() as f64 / start.elapsed().as_secs_f64()
}

/// Waits until little is done in the background: what one store still does is not the next one's.
fn rest() {
    let begun = Instant::now();
    let mut busy = 1.0;
    while busy > 0.1 && begun.elapsed() < Duration::from_secs(20) {
        let (before, start) = (processor_seconds(), Instant::now());
        std::thread::sleep(Duration::from_millis(100));
        busy = (processor_seconds() - before) / start.elapsed().as_secs_f64();
    }
}

/// What this process has used (proc(5), fields 14 and 15 of stat, of a hundredth of a second each).
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap());
    ticks.sum::<u64>() as f64 / 100.0
}

/// What was found of each store, by round.
type Found = BTreeMap<&'static str, Vec<f64>>;

/// Each round's ratio of the first store to the best other one: larger is better, or smaller.
fn ratios(found: &Found, larger: bool) -> Vec<f64> {
    let ours = &found[NAMES[0]];
    let ratio = |round: usize| {
        let others = found.iter().filter(|(name, _)| **name != NAMES[0]);
        let others = others.map(|(_, values)| values[round]);
        match larger {
            true => ours[round] / others.fold(f64::MIN_POSITIVE, f64::max),
            false => ours[round] / others.fold(f64::INFINITY, f64::min),
        }
    };
    (0..ours.len()).map(ratio).collect()
}

fn report(what: &str, found: &Found, larger: bool, bar: &str) {
    let figure = |value: f64| match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.3}"),
    };
    let mut cells = vec![what.to_owned()];
    for name in NAMES {
        let values = found.get(name);
        cells.push(values.map_or("–".into(), |values| figure(median(values.clone()))));
    }
    cells.push(match found.len() > 1 && found.contains_key(NAMES[0]) {
        true => {
            let ratios = ratios(found, larger);
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let most = ratios.iter().copied().fold(0.0, f64::max);
            format!("{:.2} ({least:.2} to {most:.2})", median(ratios))
        }
        false => "–".into(),
    });
    cells.push(bar.into());
    row(&cells);
}

fn heading(what: &str) {
    let mut cells = vec![what.to_owned()];
    cells.extend(NAMES.map(str::to_owned));
    cells.extend(["to the best other".to_owned(), "bar".to_owned()]);
    let line = cells.iter().map(|_| "---".to_owned()).collect::<Vec<_>>();
    println!();
    row(&cells);
    row(&line);
}

/// A batch's size, how many callers, whether some accounts are used more than others, and the bar.
const WORKLOADS: [(usize, usize, bool, &str); 8] = [
    (1, 1, false, "≥ 1"),
    (1, 16, false, "≥ 3"),
    (10, 1, false, "≥ 2"),
    (100, 1, false, "≥ 2"),
    (1_000, 1, false, "≥ 5"),
    (1_000, 1, true, "≥ 5"),
    (10_000, 1, false, "≥ 5"),
    (10_000, 1, true, "≥ 5"),
];

/// What the disk does by itself.
const BARE: &str = "the disk";
/// Turns of each store at each workload in a round.
const TURNS: usize = 7;

fn transfers(directory: &Path) {
    let accounts = setting("ACCOUNTS", 1_000_000);
    let (rounds, seconds) = (setting("ROUNDS", 5), setting("SECONDS_EACH", 2) as f64);
    let (zipf, mut random) = (Zipf::new(accounts, 0.99), Random(7));
    let pool = |pick: &mut dyn FnMut() -> u64| -> Vec<_> {
        (0..500_000).map(|_| pair(&mut *pick)).collect()
    };
    let uniform = pool(&mut || random.below(accounts));
    let skewed = pool(&mut || zipf.rank(&mut random));
    let mut stores = Vec::new();
    for name in names() {
        let Some(store) = stores::open(name, &fresh(&directory.join(name)), IN_MEMORY) else {
            println!("{name} is not installed, and is left out");
            continue;
        };
        fill(&*store, accounts);
        stores.push((name, store));
    }
    let bare = Bare::new(&directory.join("bare"));
    let mut found: Vec<Found> = WORKLOADS.iter().map(|_| Found::new()).collect();
    for _ in 0..rounds {
        for ((len, callers, is_skewed, _), found) in WORKLOADS.iter().zip(&mut found) {
            let pool = if *is_skewed { &skewed } else { &uniform };
            // Short turns, so that all have their share of what else the machine does.
            let mut rates: BTreeMap<_, Vec<f64>> = BTreeMap::new();
            for _ in 0..TURNS {
                for (name, store) in &stores {
                    rest();
                    let seconds = seconds / TURNS as f64;
                    let rate = rate(pool, *len, *callers, seconds, |batch| store.transfer(batch));
                    rates.entry(*name).or_default().push(rate);
                }
                let seconds = seconds / TURNS as f64;
                let rate = rate(pool, *len, 1, seconds, |batch| bare.transfer(batch));
                rates.entry(BARE).or_default().push(rate);
                // Whoever was first is last the next time.
                stores.rotate_left(1);
            }
            for (name, rates) in rates {
                found.entry(name).or_default().push(median(rates));
            }
        }
    }
    heading("transfers a second");
    let mut shares = Vec::new();
    for ((len, callers, is_skewed, bar), found) in WORKLOADS.iter().zip(&mut found) {
        let bare = found.remove(BARE).unwrap();
        let how = if *is_skewed { ", zipf 0.99" } else { "" };
        let who = if *callers == 1 { "caller" } else { "callers" };
        let what = format!("{len} a batch, {callers} {who}{how}");
        report(&what, found, true, bar);
        shares.push((what, bare, found.get(NAMES[0]).cloned().unwrap_or_default()));
    }
    println!(
        "\n| of the disk's own rate of writing and syncing a batch's bytes | the ledger does |"
    );
    println!("| --- | --- |");
    for (what, bare, ours) in shares.iter().filter(|(_, _, ours)| !ours.is_empty()) {
        let share = ours.iter().zip(bare).map(|(ours, bare)| ours / bare);
        let share = median(share.collect());
        row(&[
            what.clone(),
            format!("{share:.2} of {:.0}", median(bare.clone())),
        ]);
    }
}

/// This program as a process that does something with a store.
fn process(role: &str, name: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env("PEER_ROLE", role)
        .env("PEER_STORE", name)
        .env("PEER_PATH", path)
        .stdout(Stdio::piped());
    command
}

/// What such a process says.
fn said(child: std::process::Child) -> Option<f64> {
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .ok()
}

/// Writes everything to disk, and takes it out of the page cache.
fn forget(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            forget(&path);
        } else if let Ok(file) = std::fs::File::open(&path) {
            let _ = file.sync_all();
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}

fn role(role: &str) {
    let accounts = setting("LARGE", 10_000_000);
    let (name, path) = (std::env::var("PEER_STORE"), std::env::var("PEER_PATH"));
    let (name, path) = (name.unwrap(), PathBuf::from(path.unwrap()));
    let bytes = setting("PEER_MEMORY", IN_MEMORY.bytes);
    if role == "read" {
        wait_for_the_group();
    }
    let begun = Instant::now();
    let Some(store) = stores::open(&name, &path, Memory { bytes }) else {
        return;
    };
    match role {
        "fill" => fill(&*store, accounts),
        "open" => {
            assert!(store.balance(&key(0)).is_some());
            println!("{}", begun.elapsed().as_secs_f64() * 1e3);
        }
        "write" => {
            let mut random = Random(u64::from(std::process::id()));
            loop {
                let batch: Vec<_> = (0..10_000)
                    .map(|_| pair(|| random.below(accounts)))
                    .collect();
                store.transfer(&batch);
            }
        }
        "read" => println!("{}", reads(&*store, accounts)),
        _ => panic!("there is no role {role}"),
    }
}

/// Reads a second, by several threads, of accounts anywhere.
fn reads(store: &dyn Store, accounts: u64) -> f64 {
    let seconds = 2.0 * setting("SECONDS_EACH", 2) as f64;
    let (start, done) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..setting("PEER_THREADS", 2) {
            let done = &done;
            scope.spawn(move || {
                let mut random = Random(0x9E37_79B9 * (thread + 1) + std::process::id() as u64);
                while start.elapsed().as_secs_f64() < seconds {
                    let key = key(random.below(accounts));
                    assert!(store.balance(&key).is_some());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner() as f64 / start.elapsed().as_secs_f64()
}

fn large(directory: &Path) {
    let accounts = setting("LARGE", 10_000_000);
    let rounds = setting("ROUNDS", 5);
    let seconds = setting("SECONDS_EACH", 2);
    let mut stores = Vec::new();
    for name in names() {
        let path = fresh(&directory.join(name));
        let filled = process("fill", name, &path).status().unwrap();
        assert!(filled.success(), "{name}");
        if size_of(&path) > 1 << 20 {
            stores.push((name, path));
        }
    }
    let mut found: [Found; 5] = Default::default();
    let [filled, opened, written, few, many] = &mut found;
    for (name, path) in &stores {
        filled.insert(name, vec![size_of(path) as f64 / accounts as f64]);
    }
    for _ in 0..rounds {
        for (name, path) in &stores {
            let mut killed = process("write", name, path).spawn().unwrap();
            std::thread::sleep(Duration::from_secs(4 * seconds));
            killed.kill().unwrap();
            killed.wait().unwrap();
            written.insert(name, vec![size_of(path) as f64 / accounts as f64]);
            let took = said(process("open", name, path).spawn().unwrap()).unwrap();
            opened.entry(name).or_default().push(took);
        }
        stores.rotate_left(1);
    }
    // 152 bytes of the ledger's files an account.
    let memory = 152 * accounts / setting("MEMORY_SHARE", 10);
    let group = Group::new(memory);
    for _ in 0..rounds {
        for (threads, found) in [("2", &mut *few), ("16", &mut *many)] {
            for (name, path) in &stores {
                forget(path);
                let mut program = process("read", name, path);
                program.env("PEER_THREADS", threads);
                program.env("PEER_MEMORY", (memory / 4).to_string());
                // A store that cannot do with so little is killed for it.
                let rate = said(group.start(&mut program)).unwrap_or(0.0);
                found.entry(name).or_default().push(rate);
            }
            stores.rotate_left(1);
        }
    }
    heading(&format!("{accounts} accounts"));
    report("bytes on disk an account, filled", filled, false, "");
    report("… after updates, killed", written, false, "≤ 200 bytes");
    report("ms to open after kill -9", opened, false, "≤ 1,000 ms");
    let within = format!("reads a second within {} MB", memory >> 20);
    report(&format!("{within}, 2 threads"), few, true, "≥ 1");
    report("… 16 threads", many, true, "≥ 1");
}

fn main() {
    if let Ok(wanted) = std::env::var("PEER_ROLE") {
        return role(&wanted);
    }
    // `cargo test --benches` asks for nothing to be measured.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let parent = std::env::var_os("DIRECTORY").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent).unwrap();
    let only = std::env::var("ONLY").unwrap_or_default();
    let parts = [("transfers", transfers as fn(&Path)), ("large", large)];
    for (name, part) in parts {
        if only.is_empty() || only == name {
            let directory = directory.path().join(name);
            std::fs::create_dir_all(&directory).unwrap();
            part(&directory);
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
}
