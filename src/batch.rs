//! The one path of a row: capture → encode → append, for new rows and for late ones.

mod ahead;
mod arrival;

use crate::capture::fence::{self, Blocked};
use crate::capture::order::Domain;
use crate::capture::shape::Shape;
use crate::capture::watermark::{self, Span, Stream};
use crate::catalog::logs::{self, Log};
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::progress::{Command, Progress};
use crate::pg::spi::Snapshot;
use crate::pg::{server, subtransaction, xact};
use crate::session::Session;
use crate::shared;
use crate::store::append::{Appended, Appender, Entry};
use crate::store::{entries, heads};
use pgrx::pg_sys;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Leaves between two looks at interrupts and at the progress slot.
const REPORT: i64 = 1024;

/// What one batch of one log did.
pub struct Batch {
    pub log: String,
    pub appended: Appended,
    pub duration: Duration,
    /// Who held the fence when time was up, and nothing was appended.
    pub waiting_for: Option<String>,
    /// As many entries as a batch may have: there may be more to log.
    pub full: bool,
}

/// A row that was logged after rows that sort behind it.
pub struct Late {
    pub source_table: String,
    pub key: String,
    pub leaf_index: i64,
}

/// Appends the next rows of all sources of a log. `None` if another batch of the log is running and
/// `wait` is false.
pub fn run(
    session: &Session,
    name: &str,
    wait: bool,
    timeout: Duration,
) -> Result<Option<Batch>, Error> {
    let started = Instant::now();
    check_writable(name)?;
    let log = logs::by_name(session, Snapshot::Fresh, name)?;
    let relations: Vec<_> = sources::active(session, &log)
        .iter()
        .map(|s| s.relation)
        .collect();
    // Inside a trigger on a source, waiting could mean waiting for one who waits for us.
    let from_trigger = fence::caller_is_writing(session, &relations);
    let Some(log) = logs::lock(session, name, wait && !from_trigger)? else {
        return Ok(None);
    };
    let deadline = started
        + if from_trigger {
            Duration::ZERO
        } else {
            timeout
        };
    let (appended, waiting_for) = match capture(session, &log, deadline)? {
        Ok(appended) => (appended, None),
        Err(Blocked(by)) => {
            let head = heads::latest(session, Snapshot::Fresh, &log)?;
            (Appended::nothing(head), Some(by))
        }
    };
    logs::record_state(session, &log, waiting_for.as_deref());
    let duration = started.elapsed();
    count(session, &log, &appended, duration);
    Ok(Some(Batch {
        full: appended.more || appended.entries >= log.batch_size.into(),
        log: log.name,
        appended,
        duration,
        waiting_for,
    }))
}

/// Counts the batch, once it has committed.
fn count(session: &Session, log: &Log, appended: &Appended, duration: Duration) {
    let Some(counters) = shared::get().and_then(|s| s.counters(session, log.id)) else {
        return;
    };
    let (entries, micros) = (appended.entries, duration.as_micros() as i64);
    xact::after_commit(move || {
        counters.last_run_at.store(xact::now(), SeqCst);
        counters.last_duration.store(micros, SeqCst);
        if entries > 0 {
            counters.batches.fetch_add(1, SeqCst);
            counters.entries.fetch_add(entries as u64, SeqCst);
        }
    });
}

/// Runs a batch of every enabled log. A log that fails is rolled back alone, warned about, and its
/// error put on record.
pub fn run_all(session: &Session, wait: bool, timeout: Duration) -> Result<Vec<Batch>, Error> {
    check_writable("*")?;
    let attempt = |name: String| {
        let outcome = subtransaction::run(|| match run(session, &name, wait, timeout) {
            Ok(batch) => batch,
            Err(error) => error.raise(),
        });
        outcome.unwrap_or_else(|failure| {
            logs::record_error(session, &name, &failure.message);
            pgrx::warning!("batch of log \"{name}\" failed: {}", failure.message);
            None
        })
    };
    Ok(logs::enabled(session)
        .into_iter()
        .filter_map(attempt)
        .collect())
}

fn capture(
    session: &Session,
    log: &Log,
    deadline: Instant,
) -> Result<Result<Appended, Blocked>, Error> {
    if log.domain == Some(Domain::Arrival) {
        return arrival::append(session, log).map(Ok);
    }
    let mut shapes = match load_shapes(session, log, deadline)? {
        Ok(shapes) => shapes,
        Err(blocked) => return Ok(Err(blocked)),
    };
    let size = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
    for shape in &mut shapes {
        shape.record(session, size)?;
    }
    let sources: Vec<(Shape, Span)> = shapes
        .into_iter()
        .filter_map(|s| watermark::ahead(log, &s).map(|span| (s, span)))
        .collect();
    let relations: Vec<pg_sys::Oid> = sources
        .iter()
        .flat_map(|(s, _)| s.table.written_through.iter().copied())
        .collect();
    if let Err(blocked) = fence::wait_for_writers(session, &relations, deadline) {
        return Ok(Err(blocked));
    }
    ahead::append(session, log, sources).map(Ok)
}

/// The sources as their tables are now, all of them checked before anything is written.
fn load_shapes(
    session: &Session,
    log: &Log,
    deadline: Instant,
) -> Result<Result<Vec<Shape>, Blocked>, Error> {
    let sources = sources::active(session, log);
    let relations: Vec<_> = sources.iter().map(|s| s.relation).collect();
    if let Err(blocked) = fence::hold_tables(session, &relations, deadline) {
        return Ok(Err(blocked));
    }
    let shapes = sources
        .iter()
        .map(|s| Shape::load(session, log, s))
        .collect::<Result<Vec<_>, _>>()?;
    for shape in &shapes {
        shape.check(session, log)?;
    }
    Ok(Ok(shapes))
}

/// Logs what is queued of a log whose changes triggers capture; the caller holds its lock.
pub fn drain(session: &Session, log: &Log) -> Result<(), Error> {
    check_writable(&log.name)?;
    arrival::drain(session, log)
}

/// Logs every row that should have an entry and has none.
pub fn reconcile(session: &Session, name: &str, timeout: Duration) -> Result<Vec<Late>, Error> {
    check_writable(name)?;
    let log = logs::lock_and_wait(session, name)?;
    let late = match log.domain {
        Some(Domain::Arrival) => arrival::reconcile(session, &log)?,
        _ => behind_watermarks(session, &log, timeout)?,
    };
    if let Some(counters) = shared::get().and_then(|s| s.counters(session, log.id)) {
        counters.last_reconciled_at.store(xact::now(), SeqCst);
    }
    Ok(late)
}

fn behind_watermarks(session: &Session, log: &Log, timeout: Duration) -> Result<Vec<Late>, Error> {
    let mut shapes = match load_shapes(session, log, Instant::now() + timeout)? {
        Ok(shapes) => shapes,
        Err(Blocked(by)) => {
            return Err(Error::Blocked {
                log: log.name.clone(),
                by,
            });
        }
    };
    let size = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
    let progress = Progress::start(Command::Reconcile, log.id, size as u64);
    let (mut late, mut seen) = (Vec::new(), 0);
    let mut scratch = Scratch::new();
    for shape in &mut shapes {
        shape.record(session, size)?;
        let mut stream = Stream::behind(log, shape)?;
        loop {
            let rows = stream.chunk()?;
            if rows.is_empty() {
                break;
            }
            seen += rows.len() as u64;
            progress.done(seen);
            pgrx::check_for_interrupts!();
            let source_id = shape.source.id;
            let logged = scratch
                .scope(|| entries::logged(session, Snapshot::Fresh, log, source_id, &rows))?;
            late.extend(
                rows.into_iter()
                    .filter(|r| !logged.contains(&r.key))
                    .map(|r| (r, shape.source.id, shape.source.name.clone())),
            );
        }
    }
    late.sort_by(|(a, x, _), (b, y, _)| (&a.order, x).cmp(&(&b.order, y)));
    let mut appender = Appender::open(session, log)?;
    let late = late
        .into_iter()
        .map(|(leaf, source_id, source_table)| {
            let leaf_index = appender.push(&Entry::late(source_id, &leaf))?;
            Ok(Late {
                source_table,
                key: leaf.key,
                leaf_index,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    appender.finish()?;
    Ok(late)
}

fn report(progress: &Progress, done: i64) {
    if done % REPORT == 0 {
        progress.done(done as u64);
        pgrx::check_for_interrupts!();
    }
}

pub fn check_writable(log: &str) -> Result<(), Error> {
    if server::in_recovery() {
        return Err(Error::ReadOnly {
            log: log.to_owned(),
        });
    }
    check_read_committed(log)
}

/// What is behind the fence must be read with a snapshot taken after it, which only READ COMMITTED
/// gives.
pub fn check_read_committed(log: &str) -> Result<(), Error> {
    match server::transaction_snapshot_level() {
        None => Ok(()),
        Some(level) => Err(Error::Isolation {
            log: log.to_owned(),
            level,
        }),
    }
}
