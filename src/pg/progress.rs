//! Progress of a running command, in the same shared slots that the server's own
//! `pg_stat_progress_*` views read.
//!
//! The commands are marked with a number of our own, which no view of the server asks for. An
//! abort clears the slot.

use pgrx::pg_sys;

/// "mlog" in ASCII: far from the server's own numbers, which count from 1.
const COMMAND: pg_sys::ProgressCommandType::Type = 0x6d6c_6f67;

/// What is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Batch = 1,
    Reconcile = 2,
    Verify = 3,
    Backfill = 4,
}

impl Command {
    pub fn name(code: i64) -> &'static str {
        match code {
            1 => "process_next_batch",
            2 => "reconcile",
            3 => "verify_log",
            4 => "backfill",
            _ => "unknown",
        }
    }
}

const PARAM_COMMAND: i32 = 0;
const PARAM_LOG: i32 = 1;
const PARAM_TOTAL: i32 = 2;
const PARAM_DONE: i32 = 3;

/// A command that reports how far it is, until it is dropped.
pub struct Progress(());

impl Progress {
    pub fn start(command: Command, log_id: i32, total: u64) -> Progress {
        // SAFETY: writes to this backend's own status slot.
        unsafe { pg_sys::pgstat_progress_start_command(COMMAND, pg_sys::InvalidOid) };
        let progress = Progress(());
        progress.set(PARAM_COMMAND, command as i64);
        progress.set(PARAM_LOG, log_id.into());
        progress.total(total);
        progress
    }

    /// Rows to do.
    pub fn total(&self, rows: u64) {
        self.set(PARAM_TOTAL, rows as i64);
    }

    /// Rows done.
    pub fn done(&self, rows: u64) {
        self.set(PARAM_DONE, rows as i64);
    }

    fn set(&self, param: i32, value: i64) {
        // SAFETY: the index is below the 20 slots; writes to this backend's own status slot.
        unsafe { pg_sys::pgstat_progress_update_param(param, value) };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: as in `start`.
            unsafe { pg_sys::pgstat_progress_end_command() };
        }
    }
}

/// A running command of any backend.
pub struct Running {
    pub pid: i32,
    pub database: pg_sys::Oid,
    pub role: pg_sys::Oid,
    pub command: &'static str,
    pub log_id: i64,
    pub done: i64,
    pub total: i64,
}

#[cfg(not(since_pg16))]
use pg_sys::pgstat_fetch_stat_local_beentry as local_entry;
#[cfg(since_pg16)]
use pg_sys::pgstat_get_local_beentry_by_index as local_entry;

/// The commands that are running now, in every database of the cluster.
pub fn running() -> Vec<Running> {
    // SAFETY: the server copies the status of every backend into local memory first; entries
    // count from 1.
    unsafe {
        (1..=pg_sys::pgstat_fetch_stat_numbackends())
            .filter_map(|i| local_entry(i).as_ref())
            .map(|entry| &entry.backendStatus)
            .filter(|status| status.st_progress_command == COMMAND)
            .map(|status| {
                let param = |i: i32| status.st_progress_param[i as usize];
                Running {
                    pid: status.st_procpid,
                    database: status.st_databaseid,
                    role: status.st_userid,
                    command: Command::name(param(PARAM_COMMAND)),
                    log_id: param(PARAM_LOG),
                    done: param(PARAM_DONE),
                    total: param(PARAM_TOTAL),
                }
            })
            .collect()
    }
}
