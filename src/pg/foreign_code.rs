//! Keeps the server from running functions of its users while others only look at their tables.
//!
//! The planner runs functions that a table's owner wrote: it computes what is constant in predicates of
//! indexes, partition keys and extended statistics. The server asks `object_access_hook` before it runs any
//! function (`OAT_FUNCTION_EXECUTE`), and what the hook refuses does not run.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

thread_local! {
    static REFUSED: Cell<bool> = const { Cell::new(false) };
    static NEXT: Cell<pg_sys::object_access_hook_type> = const { Cell::new(None) };
}

/// Called once, when the library is loaded.
pub fn install_hook() {
    // SAFETY: set before any other thread or statement of this process runs.
    unsafe {
        NEXT.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_accessed);
    }
}

/// Runs `f`; a function that is not the server's own raises an error instead of running.
pub fn refused<T>(f: impl FnOnce() -> T) -> T {
    let _restore = Restore(REFUSED.replace(true));
    f()
}

pub fn is_refused() -> bool {
    REFUSED.get()
}

struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        REFUSED.set(self.0);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn object_accessed(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub: c_int,
    argument: *mut c_void,
) {
    if let Some(next) = NEXT.get() {
        // SAFETY: handed on as it came.
        unsafe { next(access, class, object, sub, argument) };
    }
    let runs = access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE;
    if runs && REFUSED.get() && object.to_u32() >= pg_sys::FirstNormalObjectId {
        // SAFETY: a catalog look-up, whose text is the server's until the statement ends.
        let name = unsafe { CStr::from_ptr(pg_sys::format_procedure(object)) };
        let problem = format!(
            "function {} would run while the table is only looked at",
            name.to_string_lossy()
        );
        ErrorReport::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, problem, "merkle_log")
            .set_hint("Write what the function returns, instead of a call of it, where an index, a partition key or statistics of the table use it.")
            .report(pgrx::PgLogLevel::ERROR);
    }
}
