//! Any bytes as a snapshot, or in place of a part of one: an error or the ledger that was, never a panic,
//! never half a ledger.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::{key, small};
use geometric_ledger::{Account, GeometricLedger, Update};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const ACCOUNTS: u64 = 300;

static SNAPSHOT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let ledger = small().open(directory.path().join("ledger")).unwrap();
    let accounts: Vec<_> = (0..=ACCOUNTS).map(|number| (key(number), Account::with_balance(1))).collect();
    ledger.update_batch(&accounts).unwrap();
    ledger.apply(&[Update::Delete(key(ACCOUNTS))]).unwrap();
    ledger.snapshot_to(&file, None).unwrap();
    std::fs::read(file).unwrap()
});

fuzz_target!(|input: (Option<u16>, &[u8])| {
    let bytes = match input {
        (None, bytes) => bytes.to_vec(),
        (Some(offset), bytes) => {
            let mut snapshot = SNAPSHOT.clone();
            let from = usize::from(offset) % snapshot.len();
            let to = snapshot.len().min(from + bytes.len());
            snapshot[from..to].copy_from_slice(&bytes[..to - from]);
            snapshot
        }
    };
    let directory = tempfile::tempdir().unwrap();
    let (file, path) = (directory.path().join("snapshot"), directory.path().join("ledger"));
    std::fs::write(&file, bytes).unwrap();
    let _ = GeometricLedger::snapshot_info(&file);
    let restored = GeometricLedger::restore(&path, &[file], small());
    assert_eq!(restored.is_ok(), path.exists());
    if let Ok(ledger) = restored {
        assert_eq!(ledger.stats().accounts, ACCOUNTS);
        assert_eq!(ledger.get(&key(0)).unwrap(), Some(Account::with_balance(1)));
        assert_eq!(ledger.verify().unwrap(), []);
    }
});
