//! Being a background worker: signals, connections, transactions, the end.

use super::raw::{SignalHandlerForConfigReload, die};
use super::subtransaction::Failure;
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::{PgTryBuilder, pg_sys};
use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

#[cfg(not(since_pg18))]
use pg_sys::pqsignal;
#[cfg(since_pg18)]
use pg_sys::pqsignal_be as pqsignal;

const LIBRARY: &str = "merkle_log";

/// Registers the launcher: started when the server takes writes, so never on a standby before its
/// promotion, and again a second after it ended.
pub fn register_launcher(name: &str, function: &str) {
    BackgroundWorkerBuilder::new(name)
        .set_type(name)
        .set_library(LIBRARY)
        .set_function(function)
        .enable_spi_access()
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// Starts a worker for one database, which finds database and number in its argument ([`argument`]); false if the
/// server has no room for another process.
pub fn start(name: &str, kind: &str, function: &str, database: pg_sys::Oid, number: u32) -> bool {
    // SAFETY: reads a global of the process.
    let me = unsafe { pg_sys::MyProcPid };
    let argument = u64::from(number) << 32 | u64::from(database.to_u32());
    let argument = pg_sys::Datum::from(argument);
    BackgroundWorkerBuilder::new(name)
        .set_type(kind)
        .set_library(LIBRARY)
        .set_function(function)
        .enable_spi_access()
        .set_restart_time(None)
        .set_argument(Some(argument))
        .set_notify_pid(me)
        .load_dynamic()
        .is_ok()
}

/// The database and the number that a worker was started with.
pub fn argument(argument: pg_sys::Datum) -> (pg_sys::Oid, u32) {
    let argument = argument.value() as u64;
    (pg_sys::Oid::from(argument as u32), (argument >> 32) as u32)
}

/// Starts `function` of this library once, with an argument; its handle, or `None` if the server has no room for
/// another process.
pub(super) fn start_once(
    title: &str,
    function: &CStr,
    argument: pg_sys::Datum,
) -> Option<*mut pg_sys::BackgroundWorkerHandle> {
    // What is too long is cut; the rest of each field stays zero.
    fn put(field: &mut [std::ffi::c_char], text: &[u8]) {
        let most = field.len() - 1;
        for (place, byte) in field[..most].iter_mut().zip(text) {
            *place = *byte as std::ffi::c_char;
        }
    }
    let mut process = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION)
            as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        bgw_main_arg: argument,
        // SAFETY: reads a global of the process.
        bgw_notify_pid: unsafe { pg_sys::MyProcPid },
        ..Default::default()
    };
    put(&mut process.bgw_name, title.as_bytes());
    put(&mut process.bgw_type, title.as_bytes());
    put(&mut process.bgw_library_name, LIBRARY.as_bytes());
    put(&mut process.bgw_function_name, function.to_bytes());
    let mut handle = std::ptr::null_mut();
    // SAFETY: the description is copied; the handle is the transaction's memory.
    let started = unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut process, &mut handle) };
    started.then_some(handle)
}

/// What ALTER DATABASE and ALTER ROLE may not change for a worker.
const OWN_SETTINGS: &[(&CStr, &CStr)] = &[
    (c"role", c"none"),
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"row_security", c"off"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_deferrable", c"off"),
    (c"session_replication_role", c"origin"),
    (c"statement_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    // Who locks a table of the extension's stops the log that is run, for so long, and not the worker.
    (c"lock_timeout", c"10s"),
    (c"standard_conforming_strings", c"on"),
    (c"transform_null_equals", c"off"),
    (c"array_nulls", c"on"),
    (c"xmloption", c"content"),
    (c"jit", c"off"),
];

/// Takes signals as a session does: a shutdown is heard wherever interrupts are looked for, a running
/// statement or a wait for a lock included. Connects to `database`, or to none, as the server itself.
pub fn begin(database: Option<pg_sys::Oid>) {
    // SAFETY: called once, first thing in a new process.
    unsafe {
        pqsignal(pg_sys::SIGHUP as i32, Some(SignalHandlerForConfigReload));
        pqsignal(pg_sys::SIGTERM as i32, Some(die));
        pg_sys::BackgroundWorkerUnblockSignals();
        match database {
            Some(oid) => {
                pg_sys::BackgroundWorkerInitializeConnectionByOid(oid, pg_sys::InvalidOid, 0)
            }
            None => {
                pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0)
            }
        }
    }
    // Some settings are checked against the catalogs.
    if let Err(failure) = transaction(own_settings) {
        pgrx::log!("merkle_log: a setting of the worker's: {}", failure.message);
    }
}

fn own_settings() {
    for (name, value) in OWN_SETTINGS {
        // SAFETY: both strings are NUL-terminated; the setting is the session's from now on.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
            );
        }
    }
}

/// Calls `leave` when the process ends, however it does, while shared memory is still there.
pub fn at_exit(leave: unsafe extern "C-unwind" fn(i32, pg_sys::Datum)) {
    // SAFETY: the callback is static.
    unsafe { pg_sys::before_shmem_exit(Some(leave), 0.into()) };
}

/// Reads the configuration again if the server was told to; true if so.
pub fn reload() -> bool {
    // SAFETY: the flag is set by the handler that `begin` installed.
    unsafe {
        if std::ptr::replace(&raw mut pg_sys::ConfigReloadPending, 0) == 0 {
            return false;
        }
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        true
    }
}

/// Says in `pg_stat_activity` what the process does; `None`: it waits.
pub fn report(activity: Option<&str>) {
    let text = CString::new(activity.unwrap_or_default()).unwrap_or_default();
    // SAFETY: the text is copied into shared memory.
    unsafe {
        match activity {
            Some(_) => {
                pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr())
            }
            None => {
                pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null())
            }
        }
    }
}

/// Runs `f` in a transaction of its own, which is committed if `f` returns and rolled back if it
/// raises an error. A shutdown ends the process instead.
pub fn transaction<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    let body = || {
        // SAFETY: the process is outside any transaction.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let value = f();
        // SAFETY: ends what was begun above; sends what the statistics have gathered.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            pg_sys::pgstat_report_stat(true);
        }
        Ok(value)
    };
    PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(|caught| {
            let failure = Failure::of(&caught);
            // SAFETY: the error is out of the error stack by now.
            unsafe {
                pg_sys::AbortCurrentTransaction();
                pg_sys::pgstat_report_stat(true);
            }
            Err(failure)
        })
        .execute()
}

/// True if someone wants this database for himself: to drop it, rename it, or copy it. Nobody can
/// while the process is connected.
pub fn database_is_wanted() -> bool {
    // SAFETY: reads a global of the process; the lock is a session's, outside any transaction, and
    // given back at once.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: 0,
            locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
            locktag_field3: pg_sys::MyDatabaseId.to_u32(),
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        let mode = pg_sys::RowExclusiveLock as i32;
        match pg_sys::LockAcquire(&tag, mode, true, true) {
            pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL => true,
            _ => {
                pg_sys::LockRelease(&tag, mode, true);
                false
            }
        }
    }
}

/// The databases that can be connected to and are no templates: number and name.
pub fn databases() -> Vec<(pg_sys::Oid, String)> {
    let mut found = Vec::new();
    // SAFETY: a scan of a shared catalog, inside the caller's transaction; a tuple of it begins with
    // the fixed part of its row type.
    unsafe {
        let relation =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            let Some(tuple) = tuple.as_ref() else {
                break;
            };
            let data = tuple.t_data;
            let row = data
                .cast::<u8>()
                .add((*data).t_hoff.into())
                .cast::<pg_sys::FormData_pg_database>();
            if (*row).datallowconn && !(*row).datistemplate {
                let name = CStr::from_ptr((*row).datname.data.as_ptr());
                found.push(((*row).oid, name.to_string_lossy().into_owned()));
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}
