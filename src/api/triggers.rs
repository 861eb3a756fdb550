//! The functions that the triggers on sources call.

use crate::capture::{guard, trigger};
use crate::error::Error;
use crate::pg::trigger::{Firing, Operation};
use crate::session::Session;

use pgrx::prelude::*;

#[pg_trigger]
pub fn capture_change<'a>(
    call: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>, Error> {
    match trigger::capture(&Firing::of(call)) {
        Ok(()) => Ok(None),
        Err(report) => Error::raise_report(report),
    }
}

#[pg_trigger]
pub fn refuse_change<'a>(
    call: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>, Error> {
    let firing = Firing::of(call);
    if let Err(report) = Session::enter(|session| guard::check(session, &firing)) {
        Error::raise_report(report);
    }
    Ok(match firing.operation() {
        Operation::Update => call.new(),
        Operation::Delete => call.old(),
        _ => None,
    })
}
