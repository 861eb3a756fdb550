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

/// The process that is killed: says each batch that was acknowledged, and goes on until it is killed.
#[test]
fn leader() {
    let Ok(path) = std::env::var("LEDGER_TO_LEAD") else {
        return;
    };
    let ledger = small().history_bytes(1 << 22).open(path).unwrap();
    for round in 0.. {
        put(&ledger, round, round + 10, i128::from(round));
        println!("acknowledged {}", ledger.view().sequence());
    }
}

/// Kills a leader, and says what it had acknowledged last.
fn kill_leader(path: &std::path::Path, batches: u64) -> u64 {
    use std::io::BufRead;
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leader", "--nocapture"])
        .env("LEDGER_TO_LEAD", path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = 0;
    for line in lines.map_while(Result::ok) {
        if let Some(sequence) = line.split("acknowledged ").nth(1) {
            acknowledged = acknowledged.max(sequence.parse().unwrap_or(0));
            if acknowledged == batches {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    acknowledged
}

#[test]
fn a_follower_has_all_that_its_dead_leader_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let options = small().history_bytes(1 << 22);
    let acknowledged = kill_leader(&at("leader"), 20);
    let mut follower = Follower::open(at("follower"), at("leader"), options.clone()).unwrap();
    follower.catch_up().unwrap();
    let taken = follower.ledger().view().sequence();
    assert!(taken >= acknowledged, "{taken} of {acknowledged}");
    let promoted = follower.promote().unwrap();
    assert!(promoted.missing.is_none(), "{:?}", promoted.missing);
    assert_eq!(promoted.sequence, taken);
    // A copy may be of a ledger that is open somewhere else: what no later record vouches for is taken
    // when it is known to be the last.
    let follower = Follower::open(at("other"), at("leader"), options.clone()).unwrap();
    let mut follower = follower.of_copy();
    follower.catch_up().unwrap();
    assert!(follower.ledger().view().sequence() <= taken);
    let promoted = follower.promote().unwrap();
    assert_eq!(
        (promoted.sequence, promoted.missing.is_none()),
        (taken, true)
    );
}

#[test]
fn promotion_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let options = small().history_bytes(1 << 22).segment_bytes(1 << 20);
    let leader = options.clone().open(at("leader")).unwrap();
    (0..10).for_each(|round| put(&leader, round, round + 5, 1));
    let mut follower = Follower::open(at("follower"), at("leader"), options.clone()).unwrap();
    until(|| {
        follower.catch_up().unwrap();
        follower.ledger().view().sequence() == 10
    });
    (10..20).for_each(|round| put(&leader, round, round + 5, 1));
    leader.close().unwrap();
    // What came last cannot be read any more.
    let segment = at("leader").join("wal-0000000000000000");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, vec![0; bytes.len()]).unwrap();
    let promoted = follower.promote().unwrap();
    assert_eq!(promoted.sequence, 10);
    let missing = promoted.missing.unwrap().to_string();
    assert!(missing.contains("11 to 20"), "{missing}");
    put(&promoted.ledger, 0, 5, 3);
}
