//! The one path of a row: capture → encode → append, for new rows and for late ones.

mod ahead;
mod arrival;
pub mod idle;

use crate::administration;
use crate::capture::ceiling;
use crate::capture::fence::{self, Blocked, Fence};
use crate::capture::order::{Domain, OrderValue};
use crate::capture::partitions;
use crate::capture::row_key;
use crate::capture::scan::Leaf;
use crate::capture::shape::Shape;
use crate::capture::state;
use crate::capture::watermark::{self, Span, Stream};
use crate::catalog::logs::{self, Log};
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::progress::{Command, Progress};
use crate::pg::spi::Snapshot;
use crate::pg::{server, subtransaction, wait, xact};
use crate::session::{self, Session, WITHHELD};
use crate::shared;
use crate::store::append::{Appended, Appender, Entry};
use crate::store::late::{self, Way};
use crate::store::{entries, heads, key_index, set_aside};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Leaves between two looks at interrupts and at the progress slot.
const REPORT: i64 = 1024;
/// Rows at or behind a watermark that are looked through for late ones soon after.
const RECENT: i64 = 10_000;

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
    pub way: Way,
}

/// Appends the next rows of all sources of a log. `None` if another is writing the log and `wait` is
/// false. A fence that was not crossed by the deadline is left in `fence`, to be tried again: new
/// writers do not count then.
pub fn run(
    session: &Session,
    name: &str,
    wait: bool,
    deadline: Instant,
    fence: &mut Option<Fence>,
) -> Result<Option<Batch>, Error> {
    let started = Instant::now();
    check_writable(Some(name))?;
    let log = logs::by_name(session, Snapshot::Fresh, name)?;
    let relations: Vec<_> = sources::active(session, &log)
        .iter()
        .map(|s| s.relation)
        .collect();
    // Inside a trigger on a source, waiting could mean waiting for one who waits for us.
    let from_trigger = fence::caller_is_writing(session, &relations);
    let deadline = if from_trigger { started } else { deadline };
    let in_line = match wait {
        true => deadline.saturating_duration_since(started),
        false => Duration::ZERO,
    };
    let log = match logs::lock(session, name, in_line)? {
        Ok(log) => log,
        Err(Blocked(by)) if wait => return nothing(session, &log, started, by).map(Some),
        Err(Blocked(_)) => return Ok(None),
    };
    key_index::refresh(session, &log);
    let (appended, waiting_for) = match capture(session, &log, deadline, fence)? {
        Ok(appended) => (appended, None),
        Err(Blocked(by)) => {
            let head = heads::latest(session, Snapshot::Fresh, &log)?;
            (Appended::nothing(head), Some(by))
        }
    };
    administration::adopt(session)?;
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

/// What a batch did that gave up waiting.
fn nothing(session: &Session, log: &Log, started: Instant, by: String) -> Result<Batch, Error> {
    let head = heads::latest(session, Snapshot::Fresh, log)?;
    Ok(Batch {
        log: log.name.clone(),
        appended: Appended::nothing(head),
        duration: started.elapsed(),
        waiting_for: Some(by),
        full: false,
    })
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
/// error put on record. Logs that must wait do so together: none of them adds to the time of another.
pub fn run_all(session: &Session, wait: bool, timeout: Duration) -> Result<Vec<Batch>, Error> {
    check_writable(None)?;
    let deadline = Instant::now() + timeout;
    let mut logs: Vec<Attempt> = logs::enabled(session)
        .into_iter()
        .map(|name| Attempt {
            name,
            fence: None,
            batch: None,
            failed: false,
        })
        .collect();
    let mut pause = fence::FIRST_PAUSE;
    loop {
        for log in logs.iter_mut().filter(|log| log.is_to_run()) {
            log.run(session, wait);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !logs.iter().any(Attempt::waits) {
            return Ok(logs.into_iter().filter_map(|log| log.batch).collect());
        }
        wait::sleep(pause.min(left));
        pause = (pause * 2).min(fence::LONGEST_PAUSE);
    }
}

/// A log whose batch is tried, again and again while it waits.
struct Attempt {
    name: String,
    fence: Option<Fence>,
    batch: Option<Batch>,
    failed: bool,
}

impl Attempt {
    fn waits(&self) -> bool {
        let waits = |batch: &Batch| batch.waiting_for.is_some();
        !self.failed && self.batch.as_ref().is_some_and(waits)
    }

    fn is_to_run(&self) -> bool {
        self.batch.is_none() && !self.failed || self.waits()
    }

    fn run(&mut self, session: &Session, wait: bool) {
        let Attempt { name, fence, .. } = self;
        let acts = session.acts().borrow().len();
        let outcome = subtransaction::run(|| {
            run(session, name, wait, Instant::now(), fence).unwrap_or_else(|error| error.raise())
        });
        match outcome {
            Ok(Some(batch)) => self.batch = Some(batch),
            // Another is writing the log, and that will do.
            Ok(None) => self.failed = true,
            Err(failure) => {
                // What the batch did to its sources was rolled back with it.
                session.acts().borrow_mut().truncate(acts);
                let name = &self.name;
                logs::record_error(session, name, &failure.message);
                let message = match logs::by_name(session, Snapshot::Fresh, name) {
                    Ok(log) => session.message_for_caller(&log, &failure.message),
                    Err(_) => WITHHELD.to_owned(),
                };
                pgrx::warning!("batch of log \"{name}\" failed: {message}");
                (self.batch, self.failed) = (None, true);
            }
        }
    }
}

fn capture(
    session: &Session,
    log: &Log,
    deadline: Instant,
    drawn: &mut Option<Fence>,
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
    partitions::record_all(session, log, &shapes, size);
    let logged_ahead = ceiling::logged_ahead(session, log);
    let upto = drawn.as_ref().map(|fence| &fence.upto);
    let ceilings = ceiling::of_all(session, log, &shapes.iter().collect::<Vec<_>>());
    state::record_ahead(session, log, &shapes, &ceilings);
    let spans = watermark::all_ahead(&shapes, &ceilings);
    let sources: Vec<(Shape, Span)> = shapes
        .into_iter()
        .zip(spans)
        .filter_map(|(shape, span)| {
            let (id, mut span) = (shape.source.id, span?);
            if let Some(upto) = upto {
                span.upto = upto.get(&id)?.clone();
            }
            let value = |text: &str| row_key::order_value(&shape, text);
            span.some_logged = logged_ahead
                .get(&id)
                .is_some_and(|least| value(least) <= value(&span.upto));
            Some((shape, span))
        })
        .collect();
    let fence = drawn.take().unwrap_or_else(|| {
        let written = sources.iter().flat_map(|(s, _)| &s.table.written_through);
        let upto = sources
            .iter()
            .map(|(s, span)| (s.source.id, span.upto.clone()));
        Fence::draw(session, written.copied().collect(), upto.collect())
    });
    if let Err(blocked) = fence.cross(session, deadline) {
        *drawn = Some(fence);
        return Ok(Err(blocked));
    }
    let appended = subtransaction::run(|| {
        let appended = ahead::append(session, log, sources.clone());
        appended.unwrap_or_else(|error| error.raise())
    });
    if let Ok(appended) = appended {
        return Ok(Ok(appended));
    }
    // A row that cannot be read must not stop the log: it is found, and set aside.
    let mut sources = sources;
    sources.iter_mut().for_each(|(_, span)| span.careful = true);
    ahead::append(session, log, sources).map(Ok)
}

/// The sources that are ready, as their tables are now. The others are put on record, and never hold up
/// these.
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
    Ok(Ok(state::open_ready(session, log, &sources)))
}

/// Logs what triggers have queued, all of it, where the log has triggers; the caller holds its lock.
pub fn drain_queue(session: &Session, log: &Log) -> Result<(), Error> {
    check_writable(Some(&log.name))?;
    match log.domain {
        Some(Domain::Arrival) => arrival::drain_queue(session, log),
        _ => Ok(()),
    }
}

/// Which rows to look for.
pub enum Scope<'a> {
    All,
    /// Those near the watermarks, and above the ceilings, of sources that were written to since they were
    /// looked at last: by source, how often they had been written to then.
    Recent(&'a mut HashMap<i32, i64>),
}

/// Logs every row that should have an entry and has none.
pub fn reconcile(
    session: &Session,
    name: &str,
    timeout: Duration,
    scope: Scope,
) -> Result<Vec<Late>, Error> {
    check_writable(Some(name))?;
    let log = logs::lock(session, name, timeout)?.map_err(|Blocked(by)| Error::Busy {
        log: name.to_owned(),
        by,
    })?;
    key_index::refresh(session, &log);
    let late = match log.domain {
        Some(Domain::Arrival) => arrival::reconcile(session, &log)?,
        _ => {
            let late = behind_watermarks(session, &log, timeout, scope)?;
            record_late(session, &log, &late);
            late
        }
    };
    if let Some(counters) = shared::get().and_then(|s| s.counters(session, log.id)) {
        counters.last_reconciled_at.store(xact::now(), SeqCst);
    }
    Ok(late)
}

fn behind_watermarks(
    session: &Session,
    log: &Log,
    timeout: Duration,
    mut scope: Scope,
) -> Result<Vec<Late>, Error> {
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
    let logged_ahead = ceiling::logged_ahead(session, log);
    let (mut late, mut seen) = (Vec::new(), 0);
    for shape in &mut shapes {
        shape.record(session, size)?;
        let shape = &*shape;
        let after = match &mut scope {
            Scope::All => None,
            Scope::Recent(written) => {
                let tables = shape.table.written_through.clone();
                let ids = vec![shape.source.id; tables.len()];
                let now = writes(session, ids, tables).first().map_or(0, |(_, n)| *n);
                if written.insert(shape.source.id, now) == Some(now) {
                    continue;
                }
                watermark::back(shape, RECENT)
            }
        };
        let ceiling = ceiling::of(session, log, shape);
        let look = |careful| {
            look_through(
                session,
                log,
                shape,
                (after.as_deref(), ceiling.text()),
                careful,
                |rows| progress.done(seen + rows),
            )
        };
        let fast = subtransaction::run(|| look(false).unwrap_or_else(|error| error.raise()));
        let (found, ahead, rows) = match fast {
            Ok(found) => found,
            Err(_) => look(true)?,
        };
        let (problems, found): (Vec<Leaf>, Vec<Leaf>) =
            found.into_iter().partition(|row| row.problem.is_some());
        let (id, name) = (shape.source.id, &shape.source.name);
        let set_aside: Vec<set_aside::Row> = problems
            .into_iter()
            .map(|row| set_aside::Row {
                source_id: id,
                key: row.key,
                problem: row.problem.unwrap_or_default(),
            })
            .collect();
        set_aside::record(session, log, &set_aside);
        if matches!(scope, Scope::All) {
            let keys: Vec<String> = set_aside.into_iter().map(|row| row.key).collect();
            set_aside::keep_only(session, log, id, &keys);
        }
        let way = |row: &Leaf| match ahead.has_passed(row) {
            true => Way::BehindWatermark,
            false => Way::AboveCeiling,
        };
        late.extend(
            found
                .into_iter()
                .map(|row| (way(&row), row, id, name.clone())),
        );
        seen += rows;
        // Rows that the ceiling has passed since may have an entry as well, until a batch has passed them.
        let known = logged_ahead
            .get(&id)
            .map(|text| (row_key::order_value(shape, text), text));
        let known = known.filter(|_| watermark::ahead(session, log, shape).is_some());
        let now = ahead
            .least
            .as_ref()
            .map(|(value, text)| (value.clone(), text));
        let least = known.into_iter().chain(now).min();
        ceiling::set_logged_ahead(session, id, least.map(|(_, text)| text.as_str()));
    }
    for shape in &shapes {
        let id = shape.source.id;
        let of_source = late.iter().filter(|(_, _, source_id, _)| *source_id == id);
        let keys = of_source.map(|(_, row, ..)| row.key.clone()).collect();
        entries::check_unlogged(session, log, id, keys)?;
    }
    late.sort_by(|(_, a, x, _), (_, b, y, _)| (&a.order, x).cmp(&(&b.order, y)));
    let mut appender = Appender::open(session, log)?;
    let late = late
        .into_iter()
        .map(|(way, leaf, source_id, source_table)| {
            let leaf_index = appender.push(&Entry::late(source_id, &leaf))?;
            Ok(Late {
                way,
                source_table,
                key: leaf.key,
                leaf_index,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    appender.finish()?;
    Ok(late)
}

fn record_late(session: &Session, log: &Log, rows: &[Late]) {
    for way in [Way::BehindWatermark, Way::AboveCeiling, Way::PastTriggers] {
        let found = rows.iter().filter(|row| row.way == way);
        let indexes: Vec<i64> = found.map(|row| row.leaf_index).collect();
        late::record(session, log, &indexes, way);
    }
}

/// The rows of a source without an entry, of those after a position and behind the watermark, and of those
/// above the ceiling.
fn look_through(
    session: &Session,
    log: &Log,
    shape: &Shape,
    (after, ceiling): (Option<&[String]>, Option<&str>),
    careful: bool,
    seen: impl Fn(u64),
) -> Result<(Vec<Leaf>, Ahead, u64), Error> {
    let (mut found, mut ahead, mut count) = (Vec::new(), Ahead::of(shape), 0);
    let mut scratch = Scratch::new();
    let mut stream = Stream::behind(log, shape, after, ceiling, careful)?;
    loop {
        let rows = stream.chunk()?;
        if rows.is_empty() {
            // A row that was above the ceiling, and is not any more, is left to the next batch: its value was given out
            // between the look at the ceiling and the snapshot.
            let ceiling = ceiling::of(session, log, shape);
            let is_taken = |row: &Leaf| !ahead.has_passed(row) && ceiling.admits(shape, &row.order);
            found.retain(|row| !is_taken(row));
            return Ok((found, ahead, count));
        }
        count += rows.len() as u64;
        seen(count);
        pgrx::check_for_interrupts!();
        rows.iter().for_each(|row| ahead.see(row));
        let source_id = shape.source.id;
        let logged =
            scratch.scope(|| entries::logged(session, Snapshot::Fresh, log, source_id, &rows))?;
        found.extend(rows.into_iter().filter(|r| !logged.contains(&r.key)));
    }
}

/// The rows of a source ahead of its watermark that were come across.
struct Ahead {
    watermark: Option<OrderValue>,
    least: Option<(OrderValue, String)>,
}

impl Ahead {
    fn of(shape: &Shape) -> Ahead {
        let watermark = shape.source.watermark.as_ref().and_then(|w| w.first());
        Ahead {
            watermark: watermark.map(|text| row_key::order_value(shape, text)),
            least: None,
        }
    }

    fn see(&mut self, row: &Leaf) {
        let on_line = !matches!(row.order, OrderValue::First | OrderValue::Last);
        if on_line
            && !self.has_passed(row)
            && self.least.as_ref().is_none_or(|(l, _)| row.order < *l)
        {
            let text = row.order_text.as_ref().unwrap_or(&row.key);
            self.least = Some((row.order.clone(), text.clone()));
        }
    }

    /// True if the watermark is at the row's order value or beyond.
    fn has_passed(&self, row: &Leaf) -> bool {
        self.watermark.as_ref().is_some_and(|w| row.order <= *w)
    }
}

/// Of each source, how many rows were ever inserted into its tables or updated, as far as the server has counted. The
/// number changes when rows may have come late. `tables[n]` is a table of the source `ids[n]`.
fn writes(session: &Session, ids: Vec<i32>, tables: Vec<pg_sys::Oid>) -> Vec<(i32, i64)> {
    session.fresh(
        "SELECT t.source_id, pg_catalog.sum(pg_catalog.pg_stat_get_tuples_inserted(t.oid)
                                          + pg_catalog.pg_stat_get_tuples_updated(t.oid))::pg_catalog.int8
           FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) t (source_id, oid) GROUP BY t.source_id",
        &[ids.into(), tables.into()],
        |row| (row.required(0), row.get(1).unwrap_or(0)),
    )
}

fn report(progress: &Progress, done: i64) {
    if done % REPORT == 0 {
        progress.done(done as u64);
        pgrx::check_for_interrupts!();
    }
}

/// What is behind the fence must be read with a snapshot taken after it, which only READ COMMITTED
/// gives. `log`: the one that is written, if it is one.
pub fn check_writable(log: Option<&str>) -> Result<(), Error> {
    session::check_may_write(log)?;
    match server::transaction_snapshot_level() {
        None => Ok(()),
        Some(level) => Err(Error::Isolation {
            what: session::written(log),
            level,
        }),
    }
}
