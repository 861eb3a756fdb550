//! A limit of time for what may run code of others, such as the planner on a table that is not ours.
//!
//! The server's own timers count it (`utils/timeout.h`), so that it holds inside a single call as well. When
//! time is up the call is cancelled, as by `statement_timeout`. A function can catch that and go on; after
//! [`CANCELS`] more times the limit the process is ended, which nothing can catch.

use super::raw;
use super::subtransaction;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::Cell;
use std::ffi::c_int;
#[cfg(not(since_pg15))]
use std::sync::atomic::AtomicI32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// How often what is over its limit is cancelled before the process is ended.
const CANCELS: u32 = 3;

/// The call was cancelled because its time was up.
#[derive(Debug)]
pub struct TimeIsUp;

static TIMES_UP: AtomicU32 = AtomicU32::new(0);
static RUNNING: AtomicBool = AtomicBool::new(false);

/// What the handler starts again, where the server has no timers that go off repeatedly.
#[cfg(not(since_pg15))]
static AGAIN: Again = Again {
    timer: AtomicI32::new(0),
    milliseconds: AtomicI32::new(0),
};

#[cfg(not(since_pg15))]
struct Again {
    timer: AtomicI32,
    milliseconds: AtomicI32,
}

#[cfg(not(since_pg15))]
impl Again {
    fn store(&self, timer: c_int, milliseconds: c_int) {
        self.timer.store(timer, Relaxed);
        self.milliseconds.store(milliseconds, Relaxed);
    }
}

thread_local! {
    static TIMER: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// Runs `f` in a subtransaction, and rolls that back if it takes longer than `limit`. Other errors pass. Inside
/// of another call of this, that one's limit holds.
pub fn within<T>(limit: Duration, f: impl FnOnce() -> T) -> Result<T, TimeIsUp> {
    if RUNNING.swap(true, Relaxed) {
        return Ok(f());
    }
    let running = Running::start(limit);
    let outcome = subtransaction::run_to(f, |failure| {
        let cancelled = failure.sqlstate == PgSqlErrorCode::ERRCODE_QUERY_CANCELED;
        cancelled && TIMES_UP.load(Relaxed) > 0
    });
    drop(running);
    outcome.map_err(|_| TimeIsUp)
}

/// True while what is over its limit goes on.
pub fn is_up() -> bool {
    RUNNING.load(Relaxed) && TIMES_UP.load(Relaxed) > 0
}

struct Running {
    timer: c_int,
}

impl Running {
    fn start(limit: Duration) -> Running {
        let timer = TIMER.get().unwrap_or_else(|| {
            // SAFETY: timers are set up in every process that runs SQL; the handler only sets flags.
            let timer = unsafe { raw::RegisterTimeout(raw::ANY_TIMER, time_is_up) };
            TIMER.set(Some(timer));
            timer
        });
        TIMES_UP.store(0, Relaxed);
        let milliseconds = limit.as_millis() as i32;
        // SAFETY: a timer that was registered; it is taken back in `drop`.
        #[cfg(since_pg15)]
        unsafe {
            let first = pg_sys::GetCurrentTimestamp() + limit.as_micros() as i64;
            raw::enable_timeout_every(timer, first, milliseconds);
        }
        // SAFETY: as above. The handler starts the timer again, since this one goes off once.
        #[cfg(not(since_pg15))]
        unsafe {
            AGAIN.store(timer, milliseconds);
            raw::enable_timeout_after(timer, milliseconds);
        }
        Running { timer }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: plain calls that cannot raise an error; a cancel that came too late is taken back.
        unsafe {
            raw::disable_timeout(self.timer, false);
            if TIMES_UP.load(Relaxed) > 0 {
                pg_sys::QueryCancelPending = 0;
            }
        }
        RUNNING.store(false, Relaxed);
    }
}

/// Called by the server's signal handler: it sets flags, and what runs looks at them when it can.
unsafe extern "C-unwind" fn time_is_up() {
    let times = TIMES_UP.fetch_add(1, Relaxed);
    // SAFETY: flags that signal handlers set.
    unsafe {
        match times < CANCELS {
            true => pg_sys::QueryCancelPending = 1,
            false => pg_sys::ProcDiePending = 1,
        }
        pg_sys::InterruptPending = 1;
    }
    #[cfg(not(since_pg15))]
    if RUNNING.load(Relaxed) {
        // SAFETY: the server takes a timer out of its list before it calls the handler, which may start it again.
        unsafe {
            raw::enable_timeout_after(AGAIN.timer.load(Relaxed), AGAIN.milliseconds.load(Relaxed));
        }
    }
}
