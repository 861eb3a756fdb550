//! Batches that are submitted first and waited for later.

mod common;

use common::sim::{Fault, SimDisk};
use common::{Random, key, small};
use geometric_ledger::*;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor there can be: it sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn put(number: u64) -> [(Key, Account); 1] {
    [(key(number), Account::with_balance(1))]
}

#[test]
fn what_a_task_has_waited_for_survives_a_crash_and_batches_keep_their_order() {
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk.clone())).unwrap();
    let submitted: Vec<_> = (0..50)
        .map(|number| ledger.submit_update_batch(&put(number)).unwrap())
        .collect();
    for (before, handle) in submitted.into_iter().enumerate() {
        let batch = block_on(handle).unwrap();
        assert_eq!(batch.sequence, before as u64 + 1);
        assert!(ledger.get(&key(before as u64)).unwrap().is_some());
    }
    let after = disk.crash(&mut Random(1));
    let ledger = small().open_on(Arc::new(after)).unwrap();
    assert_eq!(ledger.stats().accounts, 50);
}

#[test]
fn a_thread_may_wait_for_what_was_submitted() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = GeometricLedger::new(directory.path().join("ledger")).unwrap();
    ledger.update_batch(&put(1)).unwrap();
    ledger.update_batch(&put(2)).unwrap();
    let pay = Transfer {
        debit: key(1),
        credit: key(2),
        amount: 1,
    };
    let submit = || ledger.submit_transfer_batch(&[7; 16], &[pay]).unwrap();
    let (first, again) = (submit(), submit());
    assert_eq!(first.sequence(), again.sequence());
    assert!(block_on(again).unwrap().repeated);
    assert!(!first.wait().unwrap().repeated);
    assert_eq!(ledger.get(&key(2)).unwrap().unwrap().balance, 2);
}

#[test]
fn what_nobody_waits_for_becomes_durable_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = GeometricLedger::new(directory.path().join("ledger")).unwrap();
    drop(ledger.submit(&[Update::Put(key(1), Account::default())]));
    let start = Instant::now();
    while ledger.get(&key(1)).unwrap().is_none() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it is never seen"
        );
        thread::yield_now();
    }
}

#[test]
fn a_task_is_woken_when_the_ledger_closes_and_when_its_log_fails() {
    let disk = SimDisk::new();
    let ledger = small().open_on(Arc::new(disk.clone())).unwrap();
    let waiting = ledger.submit_update_batch(&put(1)).unwrap();
    let task = thread::spawn(move || block_on(waiting));
    ledger.close().unwrap();
    assert!(task.join().unwrap().is_ok());

    let ledger = small().open_on(Arc::new(disk.clone())).unwrap();
    disk.plan(Fault::Sync, 0);
    let waiting = ledger.submit_update_batch(&put(2)).unwrap();
    let failed = block_on(waiting);
    assert!(matches!(failed, Err(Error::Stopped(_))), "{failed:?}");
}
