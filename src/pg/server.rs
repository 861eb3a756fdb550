//! Facts about the server and the transaction.

use pgrx::pg_sys;

/// True on a standby, which can be read but not written.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// The isolation level, where one snapshot serves the whole transaction; `None` where every
/// statement takes its own.
pub fn transaction_snapshot_level() -> Option<&'static str> {
    // SAFETY: reads a global of the backend.
    match unsafe { pg_sys::XactIsoLevel } as u32 {
        pg_sys::XACT_SERIALIZABLE => Some("SERIALIZABLE"),
        pg_sys::XACT_REPEATABLE_READ => Some("REPEATABLE READ"),
        _ => None,
    }
}
