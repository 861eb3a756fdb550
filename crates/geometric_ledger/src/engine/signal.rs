//! How the ledger's threads are woken.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Wakes the threads of maintenance.
#[derive(Default)]
pub struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    checkpoint: bool,
    stop: bool,
}

impl Signal {
    /// Asks for a checkpoint.
    pub fn raise(&self) {
        let mut state = self.state.lock().unwrap();
        if !state.checkpoint {
            state.checkpoint = true;
            self.changed.notify_all();
        }
    }

    pub fn stop(&self) {
        self.state.lock().unwrap().stop = true;
        self.changed.notify_all();
    }

    /// Waits until the ledger closes, which it says, or a checkpoint is asked for, or some time.
    pub fn wait(&self, longest: Duration, checkpoint: bool) -> bool {
        let state = self.state.lock().unwrap();
        let idle = |state: &mut State| !(state.stop || checkpoint && state.checkpoint);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, longest, idle)
            .unwrap();
        state.checkpoint &= !checkpoint;
        state.stop
    }
}
