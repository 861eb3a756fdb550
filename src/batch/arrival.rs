//! Logs in order of arrival: what triggers have queued, and rows that no trigger has seen.
//!
//! Rows that were there before the triggers, or came past them, are found by a sweep over the table in
//! the order of its key. A row is late only if the queue has nothing about it, so the rows are read
//! first and the queue, with a younger snapshot, to its end after that.

use super::{Late, record_late, report};
use crate::capture::gather;
use crate::capture::page::CapturedAs;
use crate::capture::partitions::{self, Seen};
use crate::capture::queue::{self, Change, Queue};
use crate::capture::row_key;
use crate::capture::scan::{Leaf, MUCH, Scan};
use crate::capture::shape::{self, Shape};
use crate::capture::state;
use crate::capture::statement::{self, Rows};
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::catalog::versions::{self, Column, Version};
use crate::error::Error;
use crate::pg::lock;
use crate::pg::memory::Scratch;
use crate::pg::progress::{Command, Progress};
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::append::{Appended, Appender, Entry};
use crate::store::entries;
use crate::store::late::Way;
use crate::store::leaves;
use crate::store::set_aside;
use leaf_format::Kind;
use merkle_tree::Hash;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Rows of the queue that are taken on at once.
const WINDOW: i64 = 100_000;
/// Rows that a sweep looks at in one step.
const SWEEP: i64 = 10_000;

/// One batch: the queue, up to the log's batch size, and if room is left, a step of each sweep.
pub fn append(session: &Session, log: &Log) -> Result<Appended, Error> {
    let sources = sources::active(session, log);
    let command = match sources.iter().any(|s| s.backfill.is_some()) {
        true => Command::Backfill,
        false => Command::Batch,
    };
    state::look_for_changes(session, log, &sources);
    sources.iter().for_each(|s| bind(session, log, s));
    let mut batch = Batch::open(session, log, command)?;
    let mut more = false;
    let partitioned = partitions::partitioned(session, log.id, &sources);
    for source in &sources {
        let mut after = source.backfill.clone();
        while let Some(from) = after.filter(|_| !more) {
            let Some(sweep) = Sweep::read(session, log, source, from, step(log))? else {
                break;
            };
            let drained = batch.drain(log.batch_size.into())?;
            after = sweep.next.clone();
            more = !drained || batch.room() < sweep.rows.len() as i64;
            if !more {
                set_aside::record(session, log, &sweep.set_aside);
                let found = batch.log_unlogged(sweep)?;
                if source.backfilled {
                    record_late(session, log, &found);
                }
                // A step without an unlogged row is no batch yet.
                more = !found.is_empty() && after.is_some();
                sources::set_backfill(session, source.id, after.as_deref());
            }
        }
    }
    let drained = batch.drain(log.batch_size.into())?;
    more |= !drained;
    if drained {
        batch.record_versions(&sources)?;
    }
    if drained && !gather::is_under_way(log.id) {
        batch.record_partitions(&partitioned)?;
    }
    let appended = batch.appender.finish()?;
    Ok(Appended { more, ..appended })
}

/// Puts down which columns are which in a table that was restored from a dump, while the dump still tells.
fn bind(session: &Session, log: &Log, source: &Source) {
    if source.bound_to == shape::identity(session, source.relation) {
        return;
    }
    // What stands in the way is said where the columns are needed.
    if let Ok(mut shape) = Shape::load(session, log, source)
        && shape.rebind(session)
    {
        sources::update(session, &shape.source);
    }
}

/// Rows that a batch's sweep looks at in one step: the queue goes first, but leaves it some room.
fn step(log: &Log) -> i64 {
    SWEEP.min((i64::from(log.batch_size) + 1) / 2)
}

/// Logs every row of the sources that has no entry; what is queued is logged before.
pub fn reconcile(session: &Session, log: &Log) -> Result<Vec<Late>, Error> {
    let mut batch = Batch::open(session, log, Command::Reconcile)?;
    let mut late = Vec::new();
    // Where rows were left out, or entries pruned, a row without one says nothing.
    let complete = |s: &Source| s.complete && s.pruned_order.is_none();
    'sources: for source in sources::active(session, log).into_iter().filter(complete) {
        lock::access_share(source.relation);
        let mut after = Some(Vec::new());
        let mut aside = Vec::new();
        while let Some(from) = after {
            let Some(sweep) = Sweep::read(session, log, &source, from, SWEEP)? else {
                // Its rows were not all seen: whatever is to be backfilled still is.
                continue 'sources;
            };
            after = sweep.next.clone();
            batch.drain_all()?;
            set_aside::record(session, log, &sweep.set_aside);
            aside.extend(sweep.set_aside.iter().map(|row| row.key.clone()));
            let found = batch.log_unlogged(sweep)?;
            if source.backfilled {
                record_late(session, log, &found);
            }
            late.extend(found);
        }
        sources::set_backfill(session, source.id, None);
        set_aside::keep_only(session, log, source.id, &aside);
    }
    batch.drain_all()?;
    batch.appender.finish()?;
    Ok(late)
}

/// Logs all that is queued.
pub fn drain_queue(session: &Session, log: &Log) -> Result<(), Error> {
    let mut batch = Batch::open(session, log, Command::Batch)?;
    batch.drain_all()?;
    batch.appender.finish().map(drop)
}

/// One step of a sweep: some rows of a source, in the order of its key.
struct Sweep {
    shape: Shape,
    rows: Vec<Leaf>,
    /// Those that cannot be read or encoded.
    set_aside: Vec<set_aside::Row>,
    /// The key to go on after; `None` at the end.
    next: Option<Vec<String>>,
}

impl Sweep {
    /// `None` if the source is not ready, or someone is altering its table: then later.
    fn read(
        session: &Session,
        log: &Log,
        source: &Source,
        after: Vec<String>,
        limit: i64,
    ) -> Result<Option<Sweep>, Error> {
        if !lock::try_access_share(source.relation) {
            return Ok(None);
        }
        let ready = state::open_ready(session, log, std::slice::from_ref(source));
        let Some(mut shape) = ready.into_iter().next() else {
            return Ok(None);
        };
        let columns = shape.columns_now()?;
        let now = Version {
            columns,
            ..shape.current().clone()
        };
        let mut scan = Scan::of_version(log, &shape, &now)?;
        let after = (!after.is_empty()).then_some(after);
        let statement = statement::rows(
            &shape,
            scan.attributes(),
            after.as_deref(),
            Rows::All,
            limit,
        );
        let (rows, all) = scan.first_with_problems(Snapshot::Fresh, &statement, MUCH)?;
        let full = !all || rows.len() as i64 == limit;
        let last = rows.last().filter(|_| full);
        let next = last.map(|r| r.position(&shape)).transpose()?;
        if shape.rebind(session) {
            sources::update(session, &shape.source);
        }
        let (problems, rows): (Vec<Leaf>, Vec<Leaf>) =
            rows.into_iter().partition(|row| row.problem.is_some());
        let set_aside = problems.into_iter().map(|row| set_aside::Row {
            source_id: source.id,
            key: row.key,
            problem: row.problem.unwrap_or_default(),
        });
        Ok(Some(Sweep {
            shape,
            rows,
            set_aside: set_aside.collect(),
            next,
        }))
    }
}

struct Batch<'a> {
    session: &'a Session,
    log: &'a Log,
    appender: Appender<'a>,
    progress: Progress,
    /// The version in force of each source whose changes were seen.
    versions: HashMap<i32, Option<i32>>,
    /// By source: the columns that were chosen, while changes are logged that were captured under others.
    choices: HashMap<i32, Vec<Column>>,
    /// Partitions that changes were captured in before they were on record, by source.
    seen: HashSet<(i32, Seen)>,
}

impl<'a> Batch<'a> {
    fn open(session: &'a Session, log: &'a Log, command: Command) -> Result<Batch<'a>, Error> {
        Ok(Batch {
            session,
            log,
            progress: Progress::start(command, log.id, log.batch_size as u64),
            appender: Appender::open(session, log)?,
            versions: HashMap::new(),
            choices: HashMap::new(),
            seen: HashSet::new(),
        })
    }

    fn room(&self) -> i64 {
        i64::from(self.log.batch_size) - self.appender.entries()
    }

    /// Puts on record how columns and labels are called now, although no change was captured under these names.
    fn record_versions(&mut self, sources: &[Source]) -> Result<(), Error> {
        for source in sources {
            if lock::try_access_share(source.relation)
                && let Ok(mut shape) = state::open_locked(self.session, self.log, source)
            {
                shape.record(self.session, self.appender.size())?;
                let number = shape.current().number;
                self.versions.insert(source.id, Some(number));
            }
        }
        Ok(())
    }

    /// Puts on record which partitions came and which left. Whoever takes one away waits for its writers, so
    /// what is captured of it is in the queue by then: nothing that is logged later is of its rows. Only what the
    /// calling transaction itself has captured may be; then a later batch does it.
    fn record_partitions(&mut self, partitioned: &[Source]) -> Result<(), Error> {
        for source in partitioned {
            if lock::try_access_share(source.relation)
                && let Ok(shape) = state::open_locked(self.session, self.log, source)
            {
                partitions::record(self.session, &shape, self.appender.size());
            }
        }
        Ok(())
    }

    /// Logs all that is queued.
    fn drain_all(&mut self) -> Result<(), Error> {
        while !self.drain(i64::MAX)? {}
        Ok(())
    }

    /// Logs what is queued, `limit` entries of this batch at most; false if something may be left.
    fn drain(&mut self, limit: i64) -> Result<bool, Error> {
        // Most rows of the queue are an entry at least.
        let rows = limit.clamp(1, WINDOW);
        let mut queue = Queue::open(self.session, self.log, rows);
        let mut done = Vec::new();
        let mut taken = None;
        let mut empty = true;
        while let Some(piece) = queue.next()? {
            let room = usize::try_from(limit - self.appender.entries()).unwrap_or(0);
            let whole = piece.changes.len() <= room;
            if !whole && room == 0 {
                empty = false;
                break;
            }
            let mut changes = piece.changes;
            if whole {
                taken = piece.rest.map(|rest| (piece.at, rest));
                done.extend(piece.places);
            } else {
                changes.truncate(room);
                taken = Some((piece.at, piece.taken + room as i32));
            }
            self.log_changes(piece.id, &changes)?;
            if !whole {
                empty = false;
                break;
            }
        }
        drop(queue);
        if let Some((place, taken)) = taken {
            queue::set_taken(self.session, &place, taken);
        }
        queue::forget(self.session, &done);
        self.restore_choices();
        self.appender.write_tiles();
        Ok(empty && (done.len() as i64) < rows)
    }

    /// Lets the columns that were chosen last be in force again.
    fn restore_choices(&mut self) {
        for (source_id, columns) in std::mem::take(&mut self.choices) {
            let Some(source) = sources::by_id(self.session, source_id) else {
                continue;
            };
            let mut versions = versions::load(self.session, source_id);
            let size = self.appender.size();
            shape::record_columns(self.session, &source, &mut versions, size, columns);
            let number = versions.last().map(|v| v.number);
            self.versions.insert(source_id, number);
        }
    }

    fn log_changes(&mut self, id: i64, changes: &[Change]) -> Result<(), Error> {
        let order = id.to_string();
        let same = |a: &Change, b: &Change| Rc::ptr_eq(&a.statement, &b.statement);
        for run in changes.chunk_by(same) {
            let (table, of_log) = (&run[0].table, run[0].kind == Kind::Truncate);
            if !of_log {
                self.follow_version(id, table)?;
                self.see_partition(table);
            }
            let first = self.appender.size();
            for change in run {
                let leaf = change.leaf(self.session, self.log)?;
                let (hash, leaf_data) = match change.is_whole() {
                    true => (leaves::hash(&leaf), Some(&*leaf)),
                    false => match Hash::try_from(&*leaf) {
                        Ok(hash) => (hash, None),
                        Err(e) => return Err(self.damaged(id, &e.to_string())),
                    },
                };
                self.appender.push(&Entry {
                    source_id: if of_log {
                        sources::OF_LOG
                    } else {
                        table.source_id
                    },
                    key: &change.key,
                    order: Some(&order),
                    place: None,
                    hash,
                    salt: change.salt.as_deref(),
                    leaf_data,
                })?;
                report(&self.progress, self.appender.entries());
            }
            self.appender.made_by(first, run[0].statement.clone());
        }
        Ok(())
    }

    fn damaged(&self, id: i64, problem: &str) -> Error {
        Error::Damaged {
            log: self.log.name.clone(),
            problem: format!("queue row {id} {problem}"),
        }
    }

    /// Puts on record a partition that changes were captured in before any batch saw it.
    fn see_partition(&mut self, changes: &CapturedAs) {
        let Some(seen) = &changes.partition else {
            return;
        };
        let new = self.seen.insert((changes.source_id, Seen::clone(seen)));
        if new && let Some(source) = sources::by_id(self.session, changes.source_id) {
            partitions::record_seen(self.session, &source, seen, self.appender.size());
        }
    }

    /// Sees to it that the version in force has the columns that the changes were captured with.
    fn follow_version(&mut self, id: i64, changes: &CapturedAs) -> Result<(), Error> {
        let (session, source_id) = (self.session, changes.source_id);
        let known = *self
            .versions
            .entry(source_id)
            .or_insert_with(|| versions::current_number(session, source_id));
        if changes.version.is_some() && changes.version == known {
            return Ok(());
        }
        let Some(source) = sources::by_id(session, source_id) else {
            return Err(self.damaged(
                id,
                &format!("is of source {source_id}, which does not exist"),
            ));
        };
        let mut shape = Shape::load(session, self.log, &source).ok();
        if let Some(shape) = &mut shape
            && shape.rebind(session)
        {
            sources::update(session, &shape.source);
        }
        let mut versions = match &shape {
            Some(shape) => shape.versions.clone(),
            // The table is gone; what it said before still counts.
            None => versions::load(session, source_id),
        };
        let columns = match (&changes.columns, changes.version) {
            (Some(columns), _) => captured_columns(shape.as_ref(), columns, changes),
            (None, number) => versions
                .iter()
                .find(|v| Some(v.number) == number)
                .map(|v| v.columns.clone())
                .ok_or_else(|| self.damaged(id, "is of a version that does not exist"))?,
        };
        // What was captured under columns that were chosen before is logged under these once more.
        let chosen = versions.last().map(|v| &v.columns);
        let chosen = chosen.filter(|now| source.columns.is_some() && !log_the_same(now, &columns));
        if let Some(chosen) = chosen {
            let entry = self.choices.entry(source_id);
            entry.or_insert_with(|| chosen.clone());
        }
        shape::record_columns(
            session,
            &source,
            &mut versions,
            self.appender.size(),
            columns,
        );
        let number = versions.last().map(|v| v.number);
        self.versions.insert(source_id, number);
        if let Some(mut shape) = shape
            && !self.choices.contains_key(&source_id)
        {
            shape.versions = versions;
            if shape.follow_names() {
                sources::update(session, &shape.source);
            }
        }
        Ok(())
    }

    /// Logs those rows of a sweep that have no entry. The queue has been drained since they were read.
    fn log_unlogged(&mut self, sweep: Sweep) -> Result<Vec<Late>, Error> {
        let (session, log) = (self.session, self.log);
        self.appender.flush();
        let source = &sweep.shape.source;
        let keys = sweep.rows.iter().map(|r| r.key.clone()).collect();
        let mut scratch = Scratch::new();
        let live = scratch.scope(|| entries::live(session, Snapshot::Fresh, log, source.id, keys));
        let unlogged = |row: &Leaf| {
            let earlier = || {
                let keys = row_key::earlier(&sweep.shape, &row.key);
                !keys.is_empty()
                    && !entries::live(session, Snapshot::Fresh, log, source.id, keys).is_empty()
            };
            !live.contains_key(&row.key) && !earlier()
        };
        let mut rows: Vec<Leaf> = sweep.rows.into_iter().filter(unlogged).collect();
        // What this transaction has captured itself is queued when it commits.
        let keys = rows.iter().map(|row| row.key.clone()).collect();
        let waiting = gather::waiting_here(session, &sweep.shape, keys);
        rows.retain(|row| !waiting.contains(&row.key));
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let keys = rows.iter().map(|row| row.key.clone()).collect();
        entries::check_unlogged(session, log, source.id, keys)?;
        let mut versions = versions::load(session, source.id);
        let columns = sweep.shape.columns_now()?;
        shape::record_columns(
            session,
            source,
            &mut versions,
            self.appender.size(),
            columns,
        );
        self.versions
            .insert(source.id, versions.last().map(|v| v.number));
        rows.into_iter()
            .map(|leaf| {
                let leaf_index = self.appender.push(&Entry::unordered(source.id, &leaf))?;
                report(&self.progress, self.appender.entries());
                Ok(Late {
                    way: Way::PastTriggers,
                    source_table: source.name.clone(),
                    key: leaf.key,
                    leaf_index,
                })
            })
            .collect()
    }
}

/// The columns that changes were captured with: in another database maybe, from which they were restored, or by
/// version 0.3.0.
fn captured_columns(
    shape: Option<&Shape>,
    columns: &[Column],
    changes: &CapturedAs,
) -> Vec<Column> {
    let mut columns = columns.to_vec();
    let Some(shape) = shape else {
        return columns;
    };
    let moved = |bound_to: &Cow<str>| **bound_to != *shape.source.bound_to;
    if changes.bound_to.as_ref().is_some_and(moved) {
        let mut version = [Version {
            columns,
            ..shape.current().clone()
        }];
        shape::renumber(&mut version, &shape.source, &shape.table);
        let [version] = version;
        columns = version.columns;
    }
    if columns.iter().all(|c| c.key.is_none()) {
        for column in &mut columns {
            let known = shape.current().columns.iter();
            let mut known = known.filter(|c| c.attnum == column.attnum && c.attnum.is_some());
            column.key = known.next().and_then(|c| c.key);
        }
    }
    columns
}

/// True if leaves are made up of the same columns, whatever these are called.
fn log_the_same(a: &[Column], b: &[Column]) -> bool {
    let logged = |columns: &[Column]| -> HashSet<Option<i16>> {
        let logged = columns.iter().filter(|c| c.logged);
        logged.map(|c| c.attnum).collect()
    };
    logged(a) == logged(b)
}
