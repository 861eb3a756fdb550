//! Being told when a definition changes: of a table, a function or a schema.

use pgrx::pg_sys;
use std::cell::RefCell;

/// Told of one table, or of any with `None`.
type Listener = fn(Option<pg_sys::Oid>);

thread_local! {
    static LISTENERS: RefCell<Vec<Listener>> = const { RefCell::new(Vec::new()) };
}

/// Calls `listener` with each table whose definition changed, or with `None` when any may have, or when
/// a function or a schema has. It must not fail or run SQL.
pub fn listen(listener: Listener) {
    let first = LISTENERS.with_borrow_mut(|listeners| {
        let known = listeners.iter().any(|l| std::ptr::fn_addr_eq(*l, listener));
        if !known {
            listeners.push(listener);
        }
        !known && listeners.len() == 1
    });
    if first {
        // SAFETY: the callbacks live as long as the process.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(changed), 0.into());
            let functions = pg_sys::SysCacheIdentifier::PROCOID as i32;
            pg_sys::CacheRegisterSyscacheCallback(functions, Some(catalog_changed), 0.into());
            let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as i32;
            pg_sys::CacheRegisterSyscacheCallback(schemas, Some(catalog_changed), 0.into());
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    let relation = (relation != pg_sys::InvalidOid).then_some(relation);
    LISTENERS.with_borrow(|listeners| listeners.iter().for_each(|listener| listener(relation)));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn catalog_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    LISTENERS.with_borrow(|listeners| listeners.iter().for_each(|listener| listener(None)));
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
