//! Relation locks.

use pgrx::pg_sys;

/// Takes the lock of a reader on `relation` until the end of the transaction, waiting for whoever alters
/// it. The relation need not exist.
pub fn access_share(relation: pg_sys::Oid) {
    // SAFETY: locks by number only.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
}

/// Takes the lock of a reader on `relation` until the end of the transaction, if it can be had
/// without waiting. The relation need not exist.
pub fn try_access_share(relation: pg_sys::Oid) -> bool {
    // SAFETY: locks by number only, and raises no error but for lack of shared memory.
    unsafe {
        pg_sys::ConditionalLockRelationOid(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
    }
}
