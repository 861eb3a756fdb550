//! Code that may fail without taking its surroundings down.

use super::{error_memory, parallel};
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

/// Why a subtransaction was rolled back.
#[derive(Clone, Debug)]
pub struct Failure {
    pub sqlstate: PgSqlErrorCode,
    pub message: String,
    pub hint: Option<String>,
}

/// Runs `f` in a subtransaction, which is committed when `f` returns and rolled back when `f`
/// raises an error or panics. As in PL/pgSQL, a cancelled or terminated query is not caught; nor is
/// anything in parallel mode, where there are no subtransactions.
pub fn run<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    run_to(f, is_caught)
}

/// As `run`, but the subtransaction is rolled back in either case: `f` only looks, and the locks that it took are let go.
pub fn look<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    run_ended(f, is_caught, || {
        // SAFETY: ends the subtransaction that `run_ended` has begun.
        unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() }
    })
}

/// As `run`, but what is caught is what `catches` says.
pub fn run_to<T>(f: impl FnOnce() -> T, catches: fn(&Failure) -> bool) -> Result<T, Failure> {
    run_ended(f, catches, || {
        // SAFETY: ends the subtransaction that `run_ended` has begun.
        unsafe { pg_sys::ReleaseCurrentSubTransaction() }
    })
}

fn is_caught(failure: &Failure) -> bool {
    !matches!(
        failure.sqlstate,
        PgSqlErrorCode::ERRCODE_QUERY_CANCELED | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN
    )
}

/// Runs `f` in a subtransaction that `end` ends where `f` returns.
fn run_ended<T>(
    f: impl FnOnce() -> T,
    catches: fn(&Failure) -> bool,
    end: impl FnOnce(),
) -> Result<T, Failure> {
    if parallel::is_parallel() {
        return Ok(f());
    }
    // SAFETY: saved here, restored on both ways out, as a subtransaction's end leaves its own.
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    let restore = move || {
        // SAFETY: both outlive the subtransaction: they were current before it.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    let body = move || {
        // SAFETY: begun and ended on every path; `f` runs in the caller's memory context.
        unsafe {
            pg_sys::BeginInternalSubTransaction(std::ptr::null());
            pg_sys::MemoryContextSwitchTo(context);
        }
        let value = f();
        end();
        restore();
        Ok(value)
    };
    PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(move |caught| {
            // SAFETY: the error is out of the error stack by now; ends the failed subtransaction.
            unsafe {
                pg_sys::MemoryContextSwitchTo(context);
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
            restore();
            // The caller goes on, and may fail again.
            error_memory::refill();
            let failure = Failure::of(&caught);
            match catches(&failure) {
                true => Err(failure),
                false => caught.rethrow(),
            }
        })
        .execute()
}

impl Failure {
    /// True if what was read made it fail, files that are not there or cannot be read included: not locks, a lack of
    /// memory or disk, or who cancelled it.
    pub fn is_about_content(&self) -> bool {
        let code = self.sqlstate as i32;
        // Five characters of six bits each; the first two are the class.
        let class = [code & 0x3f, code >> 6 & 0x3f].map(|c| (c as u8 + b'0') as char);
        !matches!(class, ['4', '0'] | ['5', '3' | '5' | '7'])
    }

    /// Raises it again.
    pub fn raise(self) -> ! {
        let report = ErrorReport::new(self.sqlstate, self.message, "merkle_log");
        let report = match self.hint {
            Some(hint) => report.set_hint(hint),
            None => report,
        };
        report.report(pgrx::PgLogLevel::ERROR);
        unreachable!("an error report does not return")
    }

    pub fn of(caught: &CaughtError) -> Failure {
        let report = match caught {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
            CaughtError::RustPanic { ereport, .. } => ereport,
        };
        Failure {
            sqlstate: report.sql_error_code(),
            message: report.message().to_owned(),
            hint: report.hint().map(str::to_owned),
        }
    }
}
