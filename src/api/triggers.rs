//! The functions that the triggers on sources call.

use crate::capture::{guard, trigger, truncation};
use crate::error::Error;
use crate::pg::trigger::{Firing, Operation};
use crate::pg::trigger_call::{self, Answer};
use crate::session::Session;
use pgrx::pg_sys;
use pgrx::prelude::*;

pgrx::extension_sql!(
    r#"
CREATE FUNCTION @extschema@."capture_change"() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'capture_change_wrapper';

CREATE FUNCTION @extschema@."refuse_change"() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'refuse_change_wrapper';
"#,
    name = "trigger_functions",
    requires = ["tables"]
);

macro_rules! trigger_function {
    ($name:literal, $symbol:ident, $finfo:ident, $answer:expr) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub extern "C-unwind" fn $symbol(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            // SAFETY: the server's call.
            match unsafe { trigger_call::serve(call, |trigger| $answer(&Firing::of(trigger))) } {
                Some(row) => row,
                None => Error::NotATrigger { function: $name }.raise(),
            }
        }

        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $finfo() -> &'static pg_sys::Pg_finfo_record {
            const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }
    };
}

trigger_function!(
    "capture_change",
    capture_change_wrapper,
    pg_finfo_capture_change_wrapper,
    capture_change
);
trigger_function!(
    "refuse_change",
    refuse_change_wrapper,
    pg_finfo_refuse_change_wrapper,
    refuse_change
);

fn capture_change(firing: &Firing) -> Answer {
    match trigger::capture(firing) {
        Ok(()) => Answer::Nothing,
        Err(report) => Error::raise_report(report),
    }
}

fn refuse_change(firing: &Firing) -> Answer {
    if let Err(report) = Session::enter(|session| guard::check(session, firing)) {
        Error::raise_report(report);
    }
    match firing.operation() {
        Operation::Update => Answer::New,
        Operation::Delete => Answer::Old,
        _ => Answer::Nothing,
    }
}

/// What the conditions of the triggers that capture TRUNCATE call, and nothing else should.
#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn capture_truncate(source_id: i32, whole: bool) -> bool {
    truncation::note(source_id, whole);
    true
}
