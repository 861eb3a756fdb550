//! Running batches, and waiting for one.

use super::{given_key, log_name, required};
use crate::batch::{self, Batch, Scope};
use crate::capture::given_key::GivenKey;
use crate::catalog::logs;
use crate::error::Error;
use crate::pg::hashes::Path;
use crate::pg::regclass::RegClass;
use crate::pg::server;
use crate::pg::spi::Snapshot;
use crate::pg::wait;
use crate::prove::{self, Inclusion};
use crate::session::Session;
use crate::settings;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the columns of the SQL function
fn process_next_batch(
    log: default!(Option<&str>, "NULL"),
    wait: default!(Option<bool>, true),
) -> Result<
    TableIterator<
        'static,
        (
            name!(log_name, String),
            name!(entries, i64),
            name!(tree_size, i64),
            name!(root_hash, Vec<u8>),
            name!(duration, Interval),
            name!(waiting_for, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Session::write(log, |session| {
        let (wait, timeout) = (wait.unwrap_or(true), settings::fence_timeout());
        let batches = match log {
            Some(name) => {
                let deadline = Instant::now() + timeout;
                let batch = batch::run(session, name, wait, deadline, &mut None)?;
                batch.into_iter().collect()
            }
            None => batch::run_all(session, wait, timeout)?,
        };
        for batch in &batches {
            if let Some(blocker) = &batch.waiting_for {
                pgrx::notice!("log \"{}\" waits for {blocker}", batch.log);
            }
        }
        Ok(TableIterator::new(batches.into_iter().map(row)))
    })
}

fn row(batch: Batch) -> (String, i64, i64, Vec<u8>, Interval, Option<String>) {
    let head = batch.appended.head;
    (
        batch.log,
        batch.appended.entries,
        head.tree_size,
        head.root.as_bytes().to_vec(),
        Interval::from_micros(batch.duration.as_micros() as i64),
        batch.waiting_for,
    )
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn reconcile(
    log: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(source_table, String),
            name!(source_key, Option<String>),
            name!(leaf_index, i64),
        ),
    >,
    ErrorReport,
> {
    Session::write(log, |session| {
        let log = log_name("log", log)?;
        let late = batch::reconcile(session, log, settings::fence_timeout(), Scope::All)?;
        let log = logs::by_name(session, Snapshot::Fresh, log)?;
        let shown = session.caller_may_read_log(&log)?;
        let rows = late.into_iter().map(move |l| {
            let key = shown.then_some(l.key);
            (l.source_table, key, l.leaf_index)
        });
        Ok(TableIterator::new(rows))
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn wait_for_inclusion(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Option<&str>,
    timeout: default!(Option<Interval>, "'10 s'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(tree_size, i64),
            name!(leaf_hash, Vec<u8>),
            name!(root_hash, Vec<u8>),
            name!(path, Path),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let log = log_name("log", log)?;
        let relation = required("source_table", source_table)?.0;
        let key = given_key(key)?;
        let timeout = required("timeout", timeout)?;
        let micros = timeout.as_micros().clamp(0, i64::MAX.into()) as u64;
        let timeout = Duration::from_micros(micros.min(u64::MAX / 4));
        let proof = self::wait(session, log, relation, key, timeout)?;
        Ok(TableIterator::once(proof.into()))
    })
}

/// The proof of a row, as soon as it is in the log.
pub fn wait(
    session: &Session,
    log: &str,
    relation: pg_sys::Oid,
    key: GivenKey,
    timeout: Duration,
) -> Result<Inclusion, Error> {
    if let Some(level) = server::transaction_snapshot_level() {
        let log = log.to_owned();
        return Err(Error::WaitIsolation { log, level });
    }
    let deadline = Instant::now() + timeout;
    loop {
        match prove::row(session, Snapshot::Fresh, log, relation, key, None) {
            Err(Error::RowNotLogged { log, table, key }) if Instant::now() >= deadline => {
                let timeout = format!("{} s", timeout.as_secs_f64());
                return Err(Error::InclusionTimeout {
                    log,
                    table,
                    key,
                    timeout,
                });
            }
            Err(Error::RowNotLogged { .. }) => {
                wait::sleep(POLL.min(deadline.saturating_duration_since(Instant::now())));
            }
            proof => return proof,
        }
    }
}
