//! Batches that pg_cron runs.

use super::{log_name, required};
use crate::batch;
use crate::catalog::logs;
use crate::catalog::schedule::{self, check_may_schedule};
use crate::error::Error;
use crate::pg::spi::{self, Snapshot};
use crate::session::Session;
use crate::settings;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::Instant;

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn schedule_log(
    log: Option<&str>,
    schedule: default!(Option<&str>, "'* * * * *'"),
) -> Result<i64, ErrorReport> {
    let (name, command) = Session::write(log, |session| {
        required("schedule", schedule)?;
        job(session, log)
    })?;
    // As the caller: the job runs with the caller's rights.
    let id = spi::query_one(
        Snapshot::Fresh,
        "SELECT cron.schedule($1::pg_catalog.name, $2, $3)",
        &[name.as_str().into(), schedule.into(), command.into()],
        |row| row.required(0),
    );
    Ok(id.expect("cron.schedule returns the job's id"))
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn unschedule_log(log: Option<&str>) -> Result<bool, ErrorReport> {
    let (name, _) = Session::write(log, |session| job(session, log))?;
    let found = spi::query_one(
        Snapshot::Fresh,
        "SELECT cron.unschedule(j.jobid) FROM cron.job j
          WHERE j.jobname OPERATOR(pg_catalog.=) $1 AND j.username OPERATOR(pg_catalog.=) CURRENT_USER",
        &[name.as_str().into()],
        |row| row.required(0),
    );
    Ok(found.unwrap_or(false))
}

/// The name and the command of a log's job.
fn job(session: &Session, log: Option<&str>) -> Result<(String, String), Error> {
    let log = logs::by_name(session, Snapshot::Fresh, log_name("log", log)?)?;
    check_may_schedule(session)?;
    Ok((
        schedule::job_name(log.id),
        schedule::command(session, log.id),
    ))
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn run_scheduled_batch(log_id: i32) -> Result<i64, ErrorReport> {
    Session::write(None, |session| {
        let log = logs::by_id(session, log_id).ok_or(Error::ScheduledLogGone { log_id })?;
        logs::check_not_administration(&log)?;
        if !logs::enabled(session).contains(&log.name) {
            pgrx::notice!("log \"{}\" is disabled", log.name);
            return Ok(0);
        }
        let deadline = Instant::now() + settings::fence_timeout();
        let batch = batch::run(session, &log.name, false, deadline, &mut None)?;
        Ok(batch.map_or(0, |batch| batch.appended.entries))
    })
}
