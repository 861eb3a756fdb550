//! Being told when a table's definition changes.

use pgrx::pg_sys;
use std::cell::Cell;

/// Told of one table, or of any with `None`.
type Listener = fn(Option<pg_sys::Oid>);

thread_local! {
    static LISTENER: Cell<Option<Listener>> = const { Cell::new(None) };
}

/// Calls `listener` with each table whose definition changed, or with `None` when any may have.
/// One listener a backend; it must not fail or run SQL.
pub fn listen(listener: Listener) {
    if LISTENER.replace(Some(listener)).is_none() {
        // SAFETY: the callback lives as long as the process.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(changed), 0.into()) };
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    if let Some(listener) = LISTENER.get() {
        listener((relation != pg_sys::InvalidOid).then_some(relation));
    }
}

/// Tells every backend, once the transaction commits, that what is kept about the table is stale.
pub fn invalidate(relation: pg_sys::Oid) {
    // SAFETY: a catalog look-up first, since the call refuses a relation that is gone.
    unsafe {
        if pg_sys::get_rel_relkind(relation) != 0 {
            pg_sys::CacheInvalidateRelcacheByRelid(relation);
        }
    }
}
