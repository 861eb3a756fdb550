//! What an operator relies on: checks beside writers, histories of accounts, imports that happen once.

use geometric_ledger::{
    Account, Durability, Error, GeometricLedger, Key, Options, Refusal, Update,
};
use std::sync::atomic::{AtomicBool, Ordering};

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

#[test]
fn verifying_raises_no_false_alarm_while_accounts_come_move_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Options::new()
        .durability(Durability::None)
        .shards(2)
        .history_bytes(0)
        .checkpoint_bytes(1 << 18)
        .segment_bytes(1 << 16)
        .open(directory.path())
        .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 0;
            while !stop.load(Ordering::Relaxed) {
                // More come than go, so tables grow, and slots of those that went are given to others.
                let come = (next..next + 300)
                    .map(|number| Update::Put(key(number), Account::with_balance(1)));
                let go = (next / 2..next / 2 + 150).map(|number| Update::Delete(key(number)));
                ledger.apply(&come.chain(go).collect::<Vec<_>>()).unwrap();
                next += 300;
            }
        });
        let mut verified = 0;
        while verified < 20 || ledger.stats().accounts < 10_000 {
            assert_eq!(ledger.verify().unwrap(), []);
            verified += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(ledger.verify().unwrap(), []);
}

#[test]
fn an_account_has_a_history_as_far_back_as_the_log_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options::new().history_bytes(0).segment_bytes(1 << 16);
    let ledger = options().open(directory.path()).unwrap();
    for balance in [3, 5] {
        ledger
            .update_batch(&[(key(1), Account::with_balance(balance))])
            .unwrap();
    }
    ledger.apply(&[Update::Delete(key(1))]).unwrap();
    let balances = |ledger: &GeometricLedger, limit| {
        let history = ledger.account_history(&key(1), limit).unwrap();
        let states = history.states.iter();
        let found: Vec<_> = states
            .map(|state| (state.sequence, state.account.map(|account| account.balance)))
            .collect();
        (found, history.whole)
    };
    let all = vec![(3, None), (2, Some(5)), (1, Some(3))];
    assert_eq!(balances(&ledger, 10), (all.clone(), true));
    assert_eq!(balances(&ledger, 2), (all[..2].to_vec(), false));
    assert!(
        ledger
            .account_history(&key(2), 10)
            .unwrap()
            .states
            .is_empty()
    );
    let times = ledger.account_history(&key(1), 10).unwrap().states;
    assert!(times.is_sorted_by_key(|state| std::cmp::Reverse(state.time)));
    // Much is written, and the log with the account's past is let go.
    for round in 0..5 {
        let others: Vec<_> = (100..2_100)
            .map(|number| (key(number), Account::with_balance(round)))
            .collect();
        ledger.update_batch(&others).unwrap();
        ledger.checkpoint().unwrap();
    }
    ledger
        .update_batch(&[(key(1), Account::with_balance(9))])
        .unwrap();
    let (found, whole) = balances(&ledger, 10);
    assert_eq!(found, [(9, Some(9)), (3, None)]);
    assert!(!whole);
}

#[test]
fn an_import_happens_once_for_each_idempotency_key() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = GeometricLedger::new(directory.path()).unwrap();
    let put = |balance| [Update::Put(key(1), Account::with_balance(balance))];
    let first = ledger.import_once(&[7; 16], &put(-5)).unwrap();
    assert!(!first.repeated);
    ledger.import(&put(9)).unwrap();
    let again = ledger.import_once(&[7; 16], &put(-5)).unwrap();
    assert!(again.repeated && again.sequence == first.sequence);
    let other = ledger.import_once(&[7; 16], &put(6));
    assert!(matches!(
        other,
        Err(Error::Item {
            reason: Refusal::OtherBatch,
            ..
        })
    ));
    assert_eq!(ledger.get(&key(1)).unwrap().unwrap().balance, 9);
    ledger.close().unwrap();
    // Also after opening again, and after a batch that had to be refused.
    let ledger = GeometricLedger::new(directory.path()).unwrap();
    assert!(ledger.import_once(&[7; 16], &put(-5)).unwrap().repeated);
    assert!(ledger.import_once(&[8; 16], &put(i128::MAX)).is_err());
    assert!(!ledger.import_once(&[8; 16], &put(1)).unwrap().repeated);
    assert_eq!(ledger.audit().unwrap().balances, 1);
}
