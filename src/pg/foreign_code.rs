//! Refusing to run functions that are neither the server's nor the extension's own.
//!
//! Planning a statement evaluates what is constant in the predicates and expressions of a table's indexes, in its
//! constraints and in its statistics. Whoever owns the table wrote these, and can let them take any time. The server
//! asks a hook before it runs a function that an expression calls, at planning as well as later.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

thread_local! {
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// What was in the hook's place before.
static NEXT: OnceLock<pg_sys::object_access_hook_type> = OnceLock::new();

/// Runs `f`; a function that anybody created, if it were to run in an expression meanwhile, is an error instead.
pub fn refused<T>(f: impl FnOnce() -> T) -> T {
    NEXT.get_or_init(|| {
        // SAFETY: a variable of this process, which has one thread; what was there before is called after ours.
        unsafe { std::mem::replace(&mut *(&raw mut pg_sys::object_access_hook), Some(on_access)) }
    });
    let _restore = Refusal(REFUSED.replace(true));
    f()
}

struct Refusal(bool);

impl Drop for Refusal {
    /// Also while an error unwinds.
    fn drop(&mut self) {
        REFUSED.set(self.0);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    let runs = access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE
        && class == pg_sys::ProcedureRelationId
        && object.to_u32() >= pg_sys::FirstNormalObjectId;
    if runs && REFUSED.get() {
        pgrx::error!(
            "function {} would have to run, which an index, a constraint or statistics of the table call",
            object.to_u32()
        );
    }
    if let Some(next) = NEXT.get().copied().flatten() {
        // SAFETY: the hook that was there before, with what the server gave.
        unsafe { next(access, class, object, part, argument) };
    }
}
