//! Batches that were submitted and are not known to be durable, and the tasks that wait for them. One
//! thread of the ledger makes them durable, and wakes the tasks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::task::Waker;

#[derive(Default)]
pub struct Submissions {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The newest batch that is to be made durable, and the position after it.
    newest: Option<(u64, u64)>,
    /// Who waits for which batch.
    wakers: BTreeMap<u64, Vec<Waker>>,
    stop: bool,
}

impl Submissions {
    /// Asks for a batch to be made durable.
    pub fn add(&self, sequence: u64, end: u64) {
        let mut state = self.state.lock().unwrap();
        state.newest = state.newest.max(Some((sequence, end)));
        self.changed.notify_one();
    }

    /// Ends the thread when it has done all that was asked for.
    pub fn stop(&self) {
        self.state.lock().unwrap().stop = true;
        self.changed.notify_one();
    }

    /// The next batch to be made durable, and the position after it; `None` when there will be none.
    pub fn next(&self) -> Option<(u64, u64)> {
        let state = self.state.lock().unwrap();
        let idle = |state: &mut State| state.newest.is_none() && !state.stop;
        let mut state = self.changed.wait_while(state, idle).unwrap();
        state.newest.take()
    }

    /// Wakes who waits for batches up to one.
    pub fn wake(&self, last: u64) {
        let woken = {
            let mut state = self.state.lock().unwrap();
            let later = state.wakers.split_off(&last.saturating_add(1));
            std::mem::replace(&mut state.wakers, later)
        };
        woken.into_values().flatten().for_each(Waker::wake);
    }

    /// Whether a batch is among the visible ones; if not, the waker is called when that may have
    /// changed.
    pub fn is_done(&self, visible: &AtomicU64, sequence: u64, waker: &Waker) -> bool {
        let mut state = self.state.lock().unwrap();
        // Who makes it visible after this look has yet to wait for the lock, to wake everybody.
        if visible.load(Ordering::Acquire) >= sequence {
            return true;
        }
        let wakers = state.wakers.entry(sequence).or_default();
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        false
    }
}
