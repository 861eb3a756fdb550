//! Waiting that a cancel or a shutdown ends at once.

use pgrx::pg_sys;
use std::time::Duration;

/// Sleeps for `duration` or until the backend's latch is set.
pub fn sleep(duration: Duration) {
    // SAFETY: MyLatch belongs to this backend for its whole life; WL_EXIT_ON_PM_DEATH means that
    // the call does not return when the postmaster is gone.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            duration.as_millis().max(1) as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
