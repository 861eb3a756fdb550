//! Heavyweight locks, held until the end of the transaction: on relations, and on the extension's own
//! objects.

use super::settings;
use super::subtransaction::{self, Failure};
use pgrx::pg_sys;
use std::time::Duration;

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

/// A row of one of the extension's tables, as something to be locked: `pg_locks` shows it with locktype
/// `object`, the table as `classid` and the row's number as `objid`.
///
/// No SQL statement takes such a lock. Statements lock objects whose class is a system catalog, and
/// advisory locks are of another type; so only code that has the table's number and calls this can.
#[derive(Clone, Copy)]
pub struct Object {
    pub table: pg_sys::Oid,
    pub number: i32,
}

impl Object {
    /// Takes the lock alone, if that can be had without waiting.
    pub fn try_exclusive(self) -> bool {
        self.acquire(false)
    }

    /// Takes the lock alone, in turn with others who wait for it. The wait ends after `timeout`, or
    /// after the session's own `lock_timeout` where that is shorter.
    pub fn exclusive_within(self, timeout: Duration) -> Result<(), Failure> {
        if timeout.is_zero() {
            return self.try_exclusive().then_some(()).ok_or_else(not_available);
        }
        settings::lock_timeout(timeout, || subtransaction::run(|| self.acquire(true))).map(drop)
    }

    fn acquire(self, wait: bool) -> bool {
        let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
        // SAFETY: a lock by number, in this database, until the end of the transaction.
        unsafe {
            let tag = pg_sys::LOCKTAG {
                locktag_field1: pg_sys::MyDatabaseId.to_u32(),
                locktag_field2: self.table.to_u32(),
                locktag_field3: self.number as u32,
                locktag_field4: 0,
                locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
                locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
            };
            pg_sys::LockAcquire(&tag, mode, false, !wait)
                != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
        }
    }
}

fn not_available() -> Failure {
    Failure {
        sqlstate: pgrx::PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        message: "the lock is not available".to_owned(),
        hint: None,
    }
}
