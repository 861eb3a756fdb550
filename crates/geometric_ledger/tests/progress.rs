//! What takes long tells how far it is, and can be stopped.

use geometric_ledger::{Account, Error, GeometricLedger, Key, Options, Update};
use std::path::Path;

fn fill(path: &Path) -> GeometricLedger {
    let ledger = Options::new().shards(4).open(path).unwrap();
    let key = |number: u32| -> Key { *blake3::hash(&number.to_le_bytes()).as_bytes() };
    for from in (0..40_000).step_by(10_000) {
        let accounts: Vec<_> = (from..from + 10_000)
            .map(|number| (key(number), Account::with_balance(1)))
            .collect();
        ledger.update_batch(&accounts).unwrap();
    }
    let gone: Vec<_> = (0..1_000)
        .map(|number| Update::Delete(key(number)))
        .collect();
    ledger.apply(&gone).unwrap();
    ledger
}

/// Steps that were told: they rise, and so does no total change.
fn check(steps: &[(u64, u64)], what: &str) {
    assert!(steps.len() > 2, "{what}: {steps:?}");
    let total = steps[0].1;
    for pair in steps.windows(2) {
        assert!(
            pair[0].0 <= pair[1].0 && pair[1].1 == total,
            "{what}: {pair:?}"
        );
    }
    let (last, _) = steps[steps.len() - 1];
    assert!(
        last <= total && 10 * last > 8 * total,
        "{what}: {last} of {total}"
    );
}

#[test]
fn restoring_tells_how_far_it_is_and_leaves_nothing_where_it_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let ledger = fill(&at("ledger"));
    ledger.snapshot_to(at("snapshot"), None).unwrap();
    let snapshots = [at("snapshot")];
    let stopped = |_, _| false;
    let result = GeometricLedger::restore_with(at("restored"), &snapshots, Options::new(), stopped);
    assert!(matches!(result.err(), Some(Error::Interrupted)));
    let mut left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["ledger", "snapshot"]);

    let mut steps = Vec::new();
    let restored =
        GeometricLedger::restore_with(at("restored"), &snapshots, Options::new(), |done, total| {
            steps.push((done, total));
            true
        });
    assert_eq!(restored.unwrap().stats().accounts, 39_000);
    check(&steps, "restore");
}

#[test]
fn compaction_tells_how_far_it_is_and_keeps_what_it_did_where_it_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let ledger = fill(&path);
    let result = ledger.compact_with(|done, _| done < 3);
    assert!(matches!(result, Err(Error::Interrupted)));
    let mut steps = Vec::new();
    let reclaimed = ledger.compact_with(|done, total| {
        steps.push((done, total));
        true
    });
    reclaimed.unwrap();
    check(&steps, "compact");
    ledger.audit().unwrap();
    assert!(ledger.verify().unwrap().is_empty());
    ledger.close().unwrap();
}
