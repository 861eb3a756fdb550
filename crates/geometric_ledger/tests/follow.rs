//! A follower has what the ledger it follows has, and nothing that a crash could take back.

mod common;

use common::{key, small};
use geometric_ledger::*;
use std::time::{Duration, Instant};

fn put(ledger: &GeometricLedger, from: u64, to: u64, balance: i128) {
    let batch: Vec<_> = (from..to)
        .map(|number| (key(number), Account::with_balance(balance)))
        .collect();
    ledger.update_batch(&batch).unwrap();
}

fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not happen"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_follower_catches_up_and_can_be_promoted() {
    for options in [small(), small().key(Secret::new([3; 32]))] {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // A log long enough that what the follower needs is not trimmed before it comes.
        let options = options.history_bytes(1 << 22);
        let leader = options.clone().open(at("leader")).unwrap();
        put(&leader, 0, 500, 10);
        let mut follower = Follower::open(at("follower"), at("leader"), options.clone()).unwrap();
        for round in 0..30 {
            put(&leader, round * 7, round * 7 + 100, i128::from(round));
            leader.apply(&[Update::Delete(key(round))]).unwrap();
            let pay = Transfer {
                debit: key(round + 1),
                credit: key(400),
                amount: 1,
            };
            let _ = leader.transfer_batch(&[round as u8; 16], &[pay]);
            if round % 5 == 0 {
                follower.catch_up().unwrap();
            }
            if round == 17 {
                leader.compact().unwrap();
                drop(follower);
                follower = Follower::open(at("follower"), at("leader"), options.clone()).unwrap();
            }
        }
        until(|| {
            follower.catch_up().unwrap();
            follower.ledger().root().unwrap() == leader.root().unwrap()
        });
        let refused = follower
            .ledger()
            .update_batch(&[(key(1), Account::default())]);
        assert!(matches!(refused, Err(Error::ReadOnly)));
        assert_eq!(follower.ledger().audit().unwrap(), leader.audit().unwrap());
        let root = leader.root().unwrap();
        let refused = follower.promote().err().expect("the leader is open");
        assert!(refused.to_string().contains("still open"), "{refused}");
        leader.close().unwrap();
        let follower = Follower::open(at("follower"), at("leader"), options.clone()).unwrap();
        let promoted = follower.promote().unwrap();
        assert!(promoted.missing.is_none(), "{:?}", promoted.missing);
        assert_eq!(promoted.sequence, root.0.get());
        let new = promoted.ledger;
        put(&new, 0, 10, 1);
        assert_eq!(new.verify().unwrap(), []);
        // The two have parted: following again is refused.
        let leader = options.clone().open(at("leader")).unwrap();
        put(&leader, 0, 10, 2);
        drop(new);
        let mut parted = Follower::open(at("follower"), at("leader"), options.clone()).unwrap();
        until(|| match parted.catch_up() {
            Ok(_) => false,
            Err(Error::Follow(_)) => true,
            Err(error) => panic!("{error}"),
        });
    }
}

#[test]
fn a_follower_that_comes_too_late_is_told_to_take_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let leader = small().open(at("leader")).unwrap();
    put(&leader, 0, 50, 1);
    let mut slow = Follower::open(at("slow"), at("leader"), small()).unwrap();
    until(|| {
        slow.catch_up().unwrap();
        slow.ledger().view().sequence() == 1
    });
    for round in 1..200 {
        put(&leader, round, round + 50, 1);
    }
    leader.compact().unwrap();
    put(&leader, 0, 10, 7);
    let mut late = Follower::open(at("late"), at("leader"), small()).unwrap();
    let told = |error: Error| {
        assert!(error.to_string().contains("restore a snapshot"), "{error}");
    };
    told(late.catch_up().unwrap_err());
    // Also one that had kept up until then.
    told(slow.catch_up().unwrap_err());
    leader.snapshot_to(at("snapshot"), None).unwrap();
    GeometricLedger::restore(at("follower"), &[at("snapshot")], small())
        .unwrap()
        .close()
        .unwrap();
    put(&leader, 0, 10, 8);
    let mut follower = Follower::open(at("follower"), at("leader"), small()).unwrap();
    until(|| {
        follower.catch_up().unwrap();
        follower.ledger().root().unwrap() == leader.root().unwrap()
    });
    assert_eq!(
        follower.ledger().get(&key(3)).unwrap(),
        leader.get(&key(3)).unwrap()
    );
}
