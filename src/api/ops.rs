//! What an operator sees: the functions that the views are made of, health, and metrics.

use super::log_name;
use crate::cache;
use crate::catalog::logs;
use crate::catalog::sources;
use crate::monitor::{self, coverage, health};
use crate::pg::progress;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::shared::{self, LogCounters};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::sync::atomic::Ordering::SeqCst;

#[pg_extern(volatile, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn running_commands() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(datid, pg_sys::Oid),
        name!(usesysid, pg_sys::Oid),
        name!(command, String),
        name!(log_id, i64),
        name!(rows_done, i64),
        name!(rows_total, i64),
    ),
> {
    TableIterator::new(progress::running().into_iter().map(|r| {
        (
            r.pid,
            r.database,
            r.role,
            r.command.to_owned(),
            r.log_id,
            r.done,
            r.total,
        )
    }))
}

/// A time in shared memory; 0 stands for never.
fn time(micros: i64) -> Option<TimestampWithTimeZone> {
    (micros != 0)
        .then(|| TimestampWithTimeZone::try_from(micros).ok())
        .flatten()
}

#[pg_extern(volatile, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn log_counters(
    log_id: i32,
) -> Result<
    TableIterator<
        'static,
        (
            name!(batches, i64),
            name!(entries, i64),
            name!(errors, i64),
            name!(failures, i32),
            name!(last_run_at, Option<TimestampWithTimeZone>),
            name!(last_duration, Interval),
            name!(next_run_at, Option<TimestampWithTimeZone>),
            name!(last_reconciled_at, Option<TimestampWithTimeZone>),
            name!(cache_hits, i64),
            name!(cache_misses, i64),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let counters = shared::get().and_then(|s| s.counters_if_any(session, log_id));
        let row = |c: &LogCounters| {
            (
                c.batches.load(SeqCst) as i64,
                c.entries.load(SeqCst) as i64,
                c.errors.load(SeqCst) as i64,
                c.failures(),
                time(c.last_run_at.load(SeqCst)),
                Interval::from_micros(c.last_duration.load(SeqCst)),
                time(c.next_run_at.load(SeqCst)),
                time(c.last_reconciled_at.load(SeqCst)),
                c.cache_hits.load(SeqCst) as i64,
                c.cache_misses.load(SeqCst) as i64,
            )
        };
        Ok(TableIterator::new(counters.map(row)))
    })
}

#[pg_extern(volatile, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn background_worker() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(heartbeat, Option<TimestampWithTimeZone>),
    ),
> {
    let running = shared::running_workers().into_iter().next();
    TableIterator::new(running.map(|w| (w.pid.load(SeqCst), time(w.heartbeat.load(SeqCst)))))
}

#[pg_extern(volatile, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn node_cache() -> TableIterator<'static, (name!(hashes, i64), name!(room, i64))> {
    let occupancy = cache::occupancy();
    TableIterator::new(occupancy.map(|(hashes, room)| (hashes as i64, room as i64)))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn log_lag(
    log_id: i32,
) -> Result<
    TableIterator<'static, (name!(rows, Option<i64>), name!(seconds, Option<f64>))>,
    ErrorReport,
> {
    Session::enter(|session| {
        let log = logs::by_id(session, log_id);
        let lag = log.map(|log| monitor::lag(session, &log));
        Ok(TableIterator::new(lag.map(|lag| match lag {
            Ok(lag) => (Some(lag.rows), Some(lag.seconds)),
            Err(_) => (None, None),
        })))
    })
}

#[pg_extern(stable, strict, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
pub fn may_read_log(log_id: i32) -> Result<bool, ErrorReport> {
    Session::enter(|session| match logs::by_id(session, log_id) {
        Some(log) => session.caller_may_read_log(&log),
        None => session.caller_may_read_entries(),
    })
}

#[pg_extern(stable, strict, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
pub fn may_read_source(source_id: i32) -> Result<bool, ErrorReport> {
    Session::enter(|session| match sources::by_id(session, source_id) {
        Some(source) => session.caller_may_read(&source),
        None => session.caller_may_read_entries(),
    })
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn coverage_holes(
    source_id: i32,
) -> Result<
    TableIterator<
        'static,
        (
            name!(relation, pg_sys::Oid),
            name!(problem, String),
            name!(rows, Option<i64>),
            name!(mend, String),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let source = sources::by_id(session, source_id).filter(|s| !s.removed);
        let log = source.as_ref().and_then(|s| logs::by_id(session, s.log_id));
        let holes = match source.zip(log) {
            Some((source, log)) => coverage::holes(session, &log, &source),
            None => Vec::new(),
        };
        Ok(TableIterator::new(
            holes
                .into_iter()
                .map(|h| (h.relation, h.problem, h.rows, h.mend)),
        ))
    })
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn merkle_log_health() -> Result<
    TableIterator<
        'static,
        (
            name!(check_name, String),
            name!(object, Option<String>),
            name!(ok, bool),
            name!(detail, String),
            name!(mend, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let checks = health::checks(session);
        Ok(TableIterator::new(checks.into_iter().map(|c| {
            (c.name.to_owned(), c.object, c.ok, c.detail, c.mend)
        })))
    })
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn merkle_log_metrics() -> Result<String, ErrorReport> {
    Session::enter(|session| Ok(monitor::metrics::text(session)))
}

#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn merkle_log_warm(log: Option<&str>) -> Result<i64, ErrorReport> {
    Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
        crate::store::tree::warm(session, &log)
    })
}
