//! Waking another process.

use pgrx::pg_sys;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The latch of a process, where others can find it; null at first.
#[repr(transparent)]
pub struct SharedLatch(AtomicPtr<pg_sys::Latch>);

impl SharedLatch {
    /// Lets `wake` wake this process.
    pub fn set_to_mine(&self) {
        // SAFETY: MyLatch is this process' own, in shared memory by the time that it has a PGPROC.
        self.0.store(unsafe { pg_sys::MyLatch }, Ordering::SeqCst);
    }

    pub fn clear(&self) {
        self.0.store(std::ptr::null_mut(), Ordering::SeqCst);
    }

    /// Wakes the process, if there is one. One that has just ended may have passed its latch on: then
    /// another process wakes for nothing.
    pub fn wake(&self) {
        let latch = self.0.load(Ordering::SeqCst);
        if !latch.is_null() {
            // SAFETY: latches of processes lie in shared memory as long as the server runs.
            unsafe { pg_sys::SetLatch(latch) };
        }
    }
}
