//! Event triggers that note DDL on sources.

use super::required;
use crate::capture::ddl;
use crate::error::Error;
use crate::pg::event_trigger;
use crate::session::Session;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

pgrx::extension_sql_file!("../../sql/ddl.sql", name = "ddl", requires = ["tables"]);

#[doc(hidden)]
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn note_ddl_command_wrapper(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call.
    match unsafe { event_trigger::serve(call, ddl::note) } {
        Some(()) => pg_sys::Datum::from(0),
        None => Error::NotAnEventTrigger.raise(),
    }
}

#[doc(hidden)]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_finfo_note_ddl_command_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// Whether DDL on sources is noted when it is run; true if that was changed.
#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn record_ddl(enable: default!(Option<bool>, true)) -> Result<bool, ErrorReport> {
    Session::write(None, |session| {
        let enable = required("enable", enable)?;
        session.check_caller_is_owner()?;
        Ok(ddl::switch(session, enable))
    })
}
