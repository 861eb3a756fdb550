//! Facts about the server and the transaction.

use pgrx::pg_sys;

/// True on a standby, which can be read but not written.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// True in a transaction that may not write.
pub fn is_read_only() -> bool {
    // SAFETY: reads a global of the backend.
    unsafe { pg_sys::XactReadOnly }
}

/// The database of this process.
pub fn my_database() -> pg_sys::Oid {
    // SAFETY: reads a global of the process.
    unsafe { pg_sys::MyDatabaseId }
}

/// The name of this process' database; inside a transaction.
pub fn database_name() -> String {
    // SAFETY: a fresh C string, or null if the database is gone.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() {
            return String::new();
        }
        let owned = std::ffi::CStr::from_ptr(name)
            .to_string_lossy()
            .into_owned();
        pg_sys::pfree(name.cast());
        owned
    }
}

/// Where the server's files are.
pub fn data_directory() -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: a C string that the server sets before it starts any process and never changes.
    let path = unsafe { std::ffi::CStr::from_ptr(pg_sys::DataDir) };
    std::ffi::OsStr::from_bytes(path.to_bytes()).into()
}

/// This process' id.
pub fn my_pid() -> i32 {
    // SAFETY: reads a global of the process.
    unsafe { pg_sys::MyProcPid }
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

/// Bytes that one operation may take for what it has to remember (`maintenance_work_mem`).
pub fn maintenance_memory() -> usize {
    // SAFETY: a variable of this process, which has one thread that reads it.
    let kilobytes = unsafe { pg_sys::maintenance_work_mem };
    usize::try_from(kilobytes).unwrap_or(0) << 10
}
