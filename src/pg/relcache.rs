//! Being told when a definition changes: of a table, a type, a function, a schema, or a role.

use pgrx::pg_sys;
use pgrx::pg_sys::SysCacheIdentifier as Cache;
use std::cell::RefCell;

/// What may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Changed {
    /// A table, or a composite type by the relation of its attributes.
    Relation(pg_sys::Oid),
    /// The types whose `type_hash` this is.
    Type(u32),
    /// A function, a schema, a role, an enum's labels, or anything.
    Any,
}

type Listener = fn(Changed);

thread_local! {
    static LISTENERS: RefCell<Vec<Listener>> = const { RefCell::new(Vec::new()) };
}

/// Calls `listener` with each definition that changed. It must not fail or run SQL.
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
            for (cache, callback) in [
                (Cache::PROCOID, anything_changed as Callback),
                (Cache::NAMESPACEOID, anything_changed),
                (Cache::ENUMOID, anything_changed),
                (Cache::AUTHOID, anything_changed),
                (Cache::AUTHMEMROLEMEM, anything_changed),
                (Cache::TYPEOID, type_changed),
            ] {
                pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(callback), 0.into());
            }
        }
    }
}

type Callback = unsafe extern "C-unwind" fn(pg_sys::Datum, i32, u32);

/// What stands for a type in `Changed::Type`.
pub fn type_hash(type_oid: pg_sys::Oid) -> u32 {
    let none = pg_sys::Datum::from(0);
    // SAFETY: computes a hash of the key.
    unsafe {
        pg_sys::GetSysCacheHashValue(Cache::TYPEOID as i32, type_oid.into(), none, none, none)
    }
}

fn tell(changed: Changed) {
    LISTENERS.with_borrow(|listeners| listeners.iter().for_each(|listener| listener(changed)));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    tell(match relation {
        pg_sys::InvalidOid => Changed::Any,
        relation => Changed::Relation(relation),
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn anything_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    tell(Changed::Any);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn type_changed(_arg: pg_sys::Datum, _cache: i32, hash: u32) {
    tell(match hash {
        0 => Changed::Any,
        hash => Changed::Type(hash),
    });
}

pub fn exists(relation: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::get_rel_relkind(relation) != 0 }
}

/// Tells every backend, once the transaction commits, that what is kept about the table is stale.
pub fn invalidate(relation: pg_sys::Oid) {
    if exists(relation) {
        // SAFETY: the call refuses only a relation that is gone.
        unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
    }
}
