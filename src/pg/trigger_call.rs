//! The C functions that triggers call, without what pgrx puts round them: that panics when such a function
//! is called as any other.

use pgrx::pg_sys;
use pgrx::trigger_support::PgTrigger;

/// What a trigger function hands back to the server.
pub enum Answer {
    /// Of a trigger whose answer nobody reads: an AFTER trigger, or one for a statement.
    Nothing,
    /// The row that an INSERT or UPDATE is about to store.
    New,
    /// The row that is there.
    Old,
}

/// Runs `f` for the trigger that called; `None` if it was no trigger.
///
/// # Safety
/// `call` must be what the server has called a function of this library with.
pub unsafe fn serve(
    call: pg_sys::FunctionCallInfo,
    f: impl FnOnce(&PgTrigger) -> Answer,
) -> Option<pg_sys::Datum> {
    // SAFETY: the call's data live as long as the call.
    let trigger = unsafe { PgTrigger::from_fcinfo(&*call) }.ok()?;
    let row = match f(&trigger) {
        Answer::Nothing => std::ptr::null_mut(),
        Answer::New => trigger.trigger_data().tg_newtuple,
        Answer::Old => trigger.trigger_data().tg_trigtuple,
    };
    Some(pg_sys::Datum::from(row))
}
