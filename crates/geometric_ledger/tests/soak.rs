//! Full load for some minutes: memory stays flat, and the ledger right. `make soak-ledger MINUTES=10`;
//! a few seconds of it run with the other tests.

mod common;

use common::{Random, key};
use geometric_ledger::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Private memory of this process, in MiB (proc(5), smaps_rollup).
fn memory() -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let private = smaps
        .lines()
        .filter(|line| line.starts_with("Private_Dirty:"));
    private
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum::<u64>()
        >> 10
}

#[test]
fn memory_stays_flat_and_nothing_is_lost_under_full_load() {
    let seconds =
        std::env::var("MINUTES").map_or(8.0, |minutes| 60.0 * minutes.parse::<f64>().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new()
        .checkpoint_bytes(32 << 20)
        .history_bytes(8 << 20)
        .segment_bytes(4 << 20)
        .resident_bytes(16 << 20);
    let ledger = options
        .clone()
        .open(directory.path().join("ledger"))
        .unwrap();
    let accounts: u64 = 200_000;
    for from in (0..accounts).step_by(10_000) {
        let batch: Vec<_> = (from..from + 10_000)
            .map(|number| (key(number), Account::with_balance(100)))
            .collect();
        ledger.update_batch(&batch).unwrap();
    }
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (ledger, stop) = (&ledger, &stop);
            scope.spawn(move || {
                let random = &mut Random(writer);
                while !stop.load(Ordering::Relaxed) {
                    let pay: Vec<_> = (0..500)
                        .map(|_| Transfer {
                            debit: key(random.below(accounts)),
                            credit: key(random.below(accounts)),
                            amount: 1,
                        })
                        .collect();
                    let mut idempotency_key = [writer as u8; 16];
                    idempotency_key[8..].copy_from_slice(&random.below(u64::MAX).to_le_bytes());
                    match ledger.transfer_batch(&idempotency_key, &pay) {
                        Ok(_) | Err(Error::Item { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    // Accounts that come and go.
                    let first = accounts + random.below(50_000);
                    let some: Vec<_> = (first..first + 300)
                        .map(|number| match random.chance(2) {
                            true => Update::Delete(key(number)),
                            false => Update::Put(key(number), Account::with_balance(1)),
                        })
                        .collect();
                    ledger.apply(&some).unwrap();
                }
            });
        }
        let (ledger, stop, samples) = (&ledger, &stop, &mut samples);
        scope.spawn(move || {
            let random = &mut Random(9);
            let mut sampled = Instant::now();
            while start.elapsed().as_secs_f64() < seconds {
                ledger.get(&key(random.below(accounts))).unwrap();
                if sampled.elapsed() > Duration::from_millis(500) {
                    sampled = Instant::now();
                    samples.push(memory());
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
    let stats = ledger.stats();
    println!("{} batches; memory in MiB: {samples:?}", stats.sequence);
    let half = samples.len() / 2;
    let most = |samples: &[u64]| samples.iter().max().copied().unwrap_or(0);
    let (first, second) = (most(&samples[..half]), most(&samples[half..]));
    assert!(
        second <= first + first / 4 + 32,
        "memory grew from {first} to {second} MiB"
    );
    assert_eq!(ledger.verify().unwrap(), []);
    assert!(ledger.audit().unwrap().balances >= 100 * i128::from(accounts));
    drop(ledger);
    let ledger = options.open(directory.path().join("ledger")).unwrap();
    assert_eq!(ledger.audit().unwrap().sequence, stats.sequence);
}
