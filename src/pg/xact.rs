//! The running transaction: who and when, and what is to be done once it has committed.

use super::raw;
use pgrx::pg_sys;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_void};
use std::rc::Rc;

type Action = Box<dyn FnOnce()>;

thread_local! {
    /// What waits for the commit, with the subtransaction that asked for it.
    static ACTIONS: RefCell<Vec<(pg_sys::SubTransactionId, Action)>> = const { RefCell::new(Vec::new()) };
    /// What waits for the end, whichever it is.
    static AT_END: RefCell<Vec<Action>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// What a module does at the borders of transactions.
pub struct Borders {
    /// All that the transaction does is done, its deferred triggers included, and it is about to be
    /// committed or prepared. It may fail and write.
    pub before_commit: fn(),
    /// The transaction was committed, rolled back or prepared. It must not fail.
    pub ended: fn(),
    /// A subtransaction was rolled back. It must not fail.
    pub rolled_back: fn(pg_sys::SubTransactionId),
    /// A subtransaction was committed: what it did is its parent's, the second one. It must not fail.
    pub merged: fn(pg_sys::SubTransactionId, pg_sys::SubTransactionId),
}

thread_local! {
    static WATCHERS: RefCell<Vec<&'static Borders>> = const { RefCell::new(Vec::new()) };
}

/// Calls `watcher` at the borders of this and all later transactions.
pub fn watch(watcher: &'static Borders) {
    register();
    WATCHERS.with_borrow_mut(|watchers| watchers.push(watcher));
}

fn watchers() -> Vec<&'static Borders> {
    WATCHERS.with_borrow(Clone::clone)
}

/// The innermost subtransaction that is running.
pub fn subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: reads a global of the backend.
    unsafe { raw::GetCurrentSubTransactionId() }
}

/// The number of the running command; the next that writes has it or a later one.
pub fn command() -> pg_sys::CommandId {
    // SAFETY: reads a global of the backend.
    unsafe { pg_sys::GetCurrentCommandId(false) }
}

/// Runs `action` once the transaction has committed; never if it, or the subtransaction that asks
/// now, is rolled back, or if it is prepared. The action must not fail: there is nothing left to undo.
pub fn after_commit(action: impl FnOnce() + 'static) {
    register();
    let asked_by = subtransaction();
    ACTIONS.with_borrow_mut(|actions| actions.push((asked_by, Box::new(action))));
}

/// Runs `action` once the transaction has committed or been rolled back; never if it is prepared. It
/// must not fail.
pub fn at_end(action: impl FnOnce() + 'static) {
    register();
    AT_END.with_borrow_mut(|actions| actions.push(Box::new(action)));
}

/// True if what `writer` wrote and committed is seen by the calling statement.
pub fn sees(writer: pg_sys::TransactionId) -> bool {
    // SAFETY: a statement has an active snapshot, of the kind that knows what was in progress.
    unsafe { !pg_sys::XidInMVCCSnapshot(writer, pg_sys::GetActiveSnapshot()) }
}

fn register() {
    if !REGISTERED.replace(true) {
        // SAFETY: the callbacks live as long as the process.
        unsafe {
            pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(subtransaction_ended), std::ptr::null_mut());
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent as Event;
    match event {
        Event::XACT_EVENT_PRE_COMMIT | Event::XACT_EVENT_PRE_PREPARE => {
            watchers().iter().for_each(|w| (w.before_commit)());
        }
        Event::XACT_EVENT_COMMIT | Event::XACT_EVENT_ABORT | Event::XACT_EVENT_PREPARE => {
            watchers().iter().for_each(|w| (w.ended)());
        }
        _ => {}
    }
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            let actions = ACTIONS.take();
            actions.into_iter().for_each(|(_, action)| action());
            AT_END.take().into_iter().for_each(|action| action());
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT => {
            ACTIONS.take();
            AT_END.take().into_iter().for_each(|action| action());
        }
        pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            ACTIONS.take();
            AT_END.take();
        }
        _ => {}
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn subtransaction_ended(
    event: pg_sys::SubXactEvent::Type,
    ended: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    for watcher in watchers() {
        match event {
            pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => (watcher.rolled_back)(ended),
            pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => (watcher.merged)(ended, parent),
            _ => {}
        }
    }
    ACTIONS.with_borrow_mut(|actions| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => actions.retain(|(by, _)| *by != ended),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => actions
            .iter_mut()
            .filter(|(by, _)| *by == ended)
            .for_each(|(by, _)| *by = parent),
        _ => {}
    });
}

/// True if this transaction, or a subtransaction of it, is `writer`.
pub fn is_own(writer: pg_sys::TransactionId) -> bool {
    // SAFETY: looks at the state of this process.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(writer) }
}

/// True if the transaction has written nothing so far, so that all it can see is committed.
pub fn has_written_nothing() -> bool {
    // SAFETY: reads a global of the backend.
    unsafe { pg_sys::GetTopTransactionIdIfAny() == pg_sys::InvalidTransactionId }
}

/// Runs `f` as a statement of its own would be run in READ COMMITTED: what commits until now is seen by what it reads
/// with the snapshot of the statement.
pub fn with_new_snapshot<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: called inside a transaction; an error unwinds past the end, and the abort pops all snapshots.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let value = f();
    // SAFETY: pops what was pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    value
}

/// The transaction's 64-bit id; assigns one if it has none yet.
pub fn id() -> u64 {
    // SAFETY: called inside a transaction; the first reads a global of the backend.
    unsafe {
        match raw::GetTopFullTransactionIdIfAny().value {
            0 => pg_sys::GetTopFullTransactionId().value,
            id => id,
        }
    }
}

/// When the statement began: microseconds since 2000-01-01 00:00 UTC.
pub fn statement_start() -> pg_sys::TimestampTz {
    // SAFETY: reads a global of the backend.
    unsafe { raw::GetCurrentStatementStartTimestamp() }
}

/// The clock: microseconds since 2000-01-01 00:00 UTC.
pub fn now() -> pg_sys::TimestampTz {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

thread_local! {
    /// The names of roles that were asked for, until any role changes.
    static ROLE_NAMES: RefCell<Vec<(pg_sys::Oid, Rc<str>)>> = const { RefCell::new(Vec::new()) };
    static ROLES_WATCHED: Cell<bool> = const { Cell::new(false) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn role_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    ROLE_NAMES.take();
}

/// Names that are remembered; a session hardly uses more roles.
const ROLES: usize = 16;

/// The name of the session's user.
pub fn session_user() -> Rc<str> {
    // SAFETY: reads a global of the backend.
    role_called(unsafe { raw::GetSessionUserId() })
}

/// The name of a role, which is empty where it was dropped.
pub fn role_called(role: pg_sys::Oid) -> Rc<str> {
    if !ROLES_WATCHED.replace(true) {
        let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
        // SAFETY: the callback lives as long as the process.
        unsafe { pg_sys::CacheRegisterSyscacheCallback(cache, Some(role_changed), 0.into()) };
    }
    let known = ROLE_NAMES.with_borrow(|names| {
        let known = names.iter().find(|(oid, _)| *oid == role);
        known.map(|(_, name)| name.clone())
    });
    known.unwrap_or_else(|| {
        let name: Rc<str> = role_name(role).into();
        ROLE_NAMES.with_borrow_mut(|names| {
            names.truncate(ROLES - 1);
            names.insert(0, (role, name.clone()));
        });
        name
    })
}

fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: the name is a fresh C string, freed after it is copied; a role that was dropped
    // meanwhile gives null.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() {
            return String::new();
        }
        let owned = CStr::from_ptr(name).to_string_lossy().into_owned();
        pg_sys::pfree(name.cast());
        owned
    }
}

/// Hands the session's `application_name` to `f`.
pub fn application_name<T>(f: impl FnOnce(Cow<str>) -> T) -> T {
    // SAFETY: a C string, or null before settings are loaded; it stays as it is while `f` runs.
    let name = unsafe {
        let name = pg_sys::application_name;
        (!name.is_null()).then(|| CStr::from_ptr(name))
    };
    f(name.map_or(Cow::Borrowed(""), CStr::to_string_lossy))
}
