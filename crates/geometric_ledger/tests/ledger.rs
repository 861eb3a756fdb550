//! What a user of the library can rely on.

use geometric_ledger::*;

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

fn small() -> Options {
    Options::new()
        .shards(4)
        .segment_bytes(1 << 18)
        .checkpoint_bytes(1 << 20)
        .history_bytes(1 << 20)
}

#[test]
fn what_was_put_is_there_after_closing_and_opening() {
    let directory = tempfile::tempdir().unwrap();
    let count = 20_000;
    let ledger = small().open(directory.path()).unwrap();
    for from in (0..count).step_by(1_000) {
        let batch: Vec<_> = (from..from + 1_000)
            .map(|number| (key(number), Account::with_balance(number.into())))
            .collect();
        let batch = ledger.update_batch(&batch).unwrap();
        assert_eq!(batch.sequence, from / 1_000 + 1);
    }
    let check = |ledger: &GeometricLedger| {
        for number in 0..count {
            assert_eq!(ledger.get(&key(number)), Some(Account::with_balance(number.into())), "{number}");
        }
        assert_eq!(ledger.get(&key(count)), None);
        assert_eq!(ledger.audit().unwrap().accounts, count);
        assert_eq!(ledger.verify().unwrap(), []);
    };
    check(&ledger);
    let root = ledger.root().unwrap();
    ledger.close().unwrap();
    let ledger = small().open(directory.path()).unwrap();
    assert!(ledger.recovery().clean);
    check(&ledger);
    assert_eq!(ledger.root().unwrap(), root);
    // Forgotten, as if the process had been killed: the log has everything.
    ledger.apply(&[Update::Delete(key(7))]).unwrap();
    std::mem::forget(ledger);
}
