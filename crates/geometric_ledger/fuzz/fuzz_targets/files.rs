//! Any bytes in place of any part of any file of a ledger: opening and reading it gives what was
//! written or an error, and never panics.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::sim::SimDisk;
use common::{Random, key, small};
use geometric_ledger::{Account, Update};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

/// A ledger that crashed, so that there is a log to replay.
static DISK: LazyLock<SimDisk> = LazyLock::new(|| {
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk.clone())).unwrap();
    for round in 0..40 {
        let batch: Vec<_> = (0..30).map(|number| (key(number * 7 + round), Account::with_balance(1))).collect();
        ledger.update_batch(&batch).unwrap();
        ledger.apply(&[Update::Delete(key(round))]).unwrap();
        if round == 20 {
            ledger.checkpoint().unwrap();
        }
    }
    disk.crash(&mut Random(1))
});

fuzz_target!(|input: (u8, u32, &[u8])| {
    let (file, offset, bytes) = input;
    let disk = DISK.copy();
    let names = disk.names();
    let name = &names[usize::from(file) % names.len()];
    disk.overwrite(name, offset as usize, bytes);
    let Ok(ledger) = small().read_only().open_on(Arc::new(disk)) else {
        return;
    };
    let _ = ledger.verify();
    let _ = ledger.audit();
    let _ = ledger.root();
    for number in 0..300 {
        if let Ok(Some(account)) = ledger.get(&key(number)) {
            assert_eq!(account, Account::with_balance(1));
        }
        let _ = ledger.get_at(&key(number), 30);
    }
    for sequence in 1..80 {
        let _ = ledger.prove_batch(sequence);
    }
});
