//! C symbols that the SQL objects of earlier versions name and this version does not use.
//!
//! A server that loads this library before ALTER EXTENSION … UPDATE was run finds them here, and gets a
//! clear error where it would otherwise call a function with other arguments than it expects.

use crate::error::Error;
use crate::session::Session;
use pgrx::pg_sys;

macro_rules! retired {
    ($($symbol:ident, $finfo:ident;)*) => {$(
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub extern "C-unwind" fn $symbol(_fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            refuse()
        }

        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $finfo() -> &'static pg_sys::Pg_finfo_record {
            const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }
    )*};
}

// 0.1.0
retired! {
    create_log_wrapper, pg_finfo_create_log_wrapper;
    alter_log_wrapper, pg_finfo_alter_log_wrapper;
    add_source_wrapper, pg_finfo_add_source_wrapper;
    alter_source_wrapper, pg_finfo_alter_source_wrapper;
}

// 0.2.0
retired! {
    verify_log_wrapper, pg_finfo_verify_log_wrapper;
}

// 0.3.0
retired! {
    create_log_v2_wrapper, pg_finfo_create_log_v2_wrapper;
    alter_log_v2_wrapper, pg_finfo_alter_log_v2_wrapper;
    add_source_v2_wrapper, pg_finfo_add_source_v2_wrapper;
    alter_source_v2_wrapper, pg_finfo_alter_source_v2_wrapper;
}

fn refuse() -> pg_sys::Datum {
    // The version is looked at before anything else is done.
    match Session::enter(|_| Ok(())) {
        Err(report) => Error::raise_report(report),
        Ok(()) => Error::NotInstalled.raise(),
    }
}
