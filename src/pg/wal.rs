//! That what is committed stays committed: flushed here, and on synchronous standbys.

use super::{raw, wait};
use pgrx::pg_sys;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

/// Flushes what this transaction has written, and with it everything that was committed before it wrote: also by
/// transactions that did not wait for that. Returns up to where. Does nothing if the transaction has written nothing.
pub fn flush_written() -> u64 {
    // SAFETY: reads a global of the backend, which is the end of its last record or zero.
    unsafe {
        let written = pg_sys::XactLastRecEnd;
        if written != 0 {
            pg_sys::XLogFlush(written);
        }
        written
    }
}

/// Waits until synchronous standbys, if the server has any, have flushed up to `upto`; false if they have not within
/// `patience`. Other than the wait at a commit this one depends on no setting of the session, and a cancelled
/// statement is an error, not a warning.
pub fn wait_for_synchronous_standbys(upto: u64, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while has_synchronous_standbys() && flushed_by_standbys() < upto {
        if Instant::now() >= deadline {
            return false;
        }
        wait::sleep(POLL);
    }
    true
}

fn has_synchronous_standbys() -> bool {
    // SAFETY: reads globals of the process; the names are a C string or null.
    unsafe {
        let names = pg_sys::SyncRepStandbyNames;
        pg_sys::max_wal_senders > 0 && !names.is_null() && *names != 0
    }
}

fn flushed_by_standbys() -> u64 {
    const FLUSH: usize = pg_sys::SYNC_REP_WAIT_FLUSH as usize;
    // SAFETY: shared memory that lives as long as the server; a position is written at once, and only grows.
    unsafe { std::ptr::read_volatile(&raw const (*pg_sys::WalSndCtl).lsn[FLUSH]) }
}

/// When the configuration was last loaded.
pub fn reload_time() -> i64 {
    // SAFETY: reads a global of the process.
    unsafe { pg_sys::PgReloadTime }
}

/// The user that the server runs as.
pub fn server_user() -> u32 {
    // SAFETY: never fails.
    unsafe { raw::geteuid() }
}
