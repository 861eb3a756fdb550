//! `verify_row`: whether a row, as it is now, is what was logged.
//!
//! A proof of inclusion is about an entry. It stays true when the row is changed or deleted afterwards, so
//! here the row is read, hashed and held against its latest entry, and the entry against the tree.

use super::configuration::Record;
use super::rows::{Row, Rows};
use super::unlogged::NOT_TAKEN;
use crate::capture::gather;
use crate::capture::given_key::GivenKey;
use crate::capture::row_key::{self, Finder, RowKey};
use crate::capture::scan::{Leaf, Scan};
use crate::capture::shape::Shape;
use crate::capture::statement::{self, Rows as Which};
use crate::capture::table;
use crate::capture::table_query::TableQuery;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{self, Source};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::prove::{self, Inclusion};
use crate::session::Session;
use crate::store::{entries, heads};
use merkle_tree::{Hash, LeafIndex, TreeSize};
use pgrx::pg_sys;

/// What is to be said about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The row is what was logged, and its entry is in the tree.
    Logged,
    /// The row is not what was logged.
    Modified,
    /// The row was logged and is not there.
    Deleted,
    /// The row is there and should have an entry.
    Unlogged,
    /// The row, or its last change, will be logged by a later batch.
    Waiting,
    /// What was logged of the row was erased on purpose.
    Redacted,
    /// The entry was altered: it is not what the tree says, or cannot be of this row.
    EntryAltered,
    /// The row went with a partition that left its table.
    Detached,
    /// The row was retired, and is gone: the log has what it was.
    Retired,
    /// The row cannot be compared: its table cannot be read, or its columns have changed too much.
    Unknown,
    /// There is no such row, and never was one in the log.
    Absent,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Logged => "logged",
            Status::Modified => "modified",
            Status::Deleted => "deleted",
            Status::Unlogged => "unlogged",
            Status::Waiting => "waiting",
            Status::Redacted => "redacted",
            Status::EntryAltered => "entry_altered",
            Status::Detached => "detached",
            Status::Retired => "retired",
            Status::Unknown => "unknown",
            Status::Absent => "absent",
        }
    }
}

pub struct Verified {
    pub status: Status,
    /// The proof of the row's latest entry, where it has one.
    pub entry: Option<Inclusion>,
    /// The leaf hash that the row would have now, as that entry.
    pub row: Option<Hash>,
    pub detail: String,
}

/// Verifies the row of a table with this key.
pub fn verify(
    session: &Session,
    name: &str,
    relation: pg_sys::Oid,
    key: GivenKey,
) -> Result<Verified, Error> {
    let snapshot = Snapshot::Statement;
    let log = logs::by_name(session, snapshot, name)?;
    let finder = Finder::of(session, &log, relation)?;
    let mut was_another = false;
    for source in sources::all(session, &log) {
        if source.relation == relation {
            session.check_caller_reads(&log, &source)?;
        }
        let of_name = source.relation == relation
            || sources::table_name(&source.name) == sources::table_name(&finder.name);
        was_another |= of_name && !finder.sources.contains(&source.id);
    }
    let key = finder.key(session, key)?;
    let record = Record::none();
    let mut rows = Rows::of(session, &log, &record, false);
    rows.open(session, &log, &record, |s| s.relation == relation);
    let mut index = None;
    for source in &finder.sources {
        index = index.max(entries::latest_of(session, snapshot, &log, *source, &key)?);
    }
    let latest = finder.sources.last().copied().unwrap_or_default();
    let mut source_id = latest;
    let (entry, row) = match index {
        None => (None, None),
        Some(index) => {
            let size = heads::latest(session, snapshot, &log)?.tree_size;
            let entry = entries::at(session, snapshot, &log, index, size)?;
            source_id = entry.source_id;
            let row = rows
                .look_up(session, &log, &record, std::slice::from_ref(&entry))?
                .pop();
            (
                Some(prove::entry(session, snapshot, &log, index, None)?),
                row,
            )
        }
    };
    let now = match &row {
        Some(Row::Is(hash)) => Some(*hash),
        _ => None,
    };
    let (status, detail) = match (&entry, row) {
        (Some(entry), _) if !proves(entry) => (
            Status::EntryAltered,
            "the entry is not what the tree says: run verify_log".to_owned(),
        ),
        (Some(entry), Some(Row::Is(hash))) if hash == entry.leaf => {
            match logged_otherwise(session, &log, &mut rows, source_id, &key, entry.index)? {
                Some(why) => (Status::Modified, why),
                None => {
                    let shape = rows.shape(source_id);
                    (Status::Logged, logged(shape, entry.index, was_another))
                }
            }
        }
        (_, Some(Row::Is(_))) => (
            Status::Modified,
            "the row is not what was logged".to_owned(),
        ),
        (_, Some(Row::Gone)) => (
            Status::Deleted,
            "the row was logged and does not exist".to_owned(),
        ),
        (_, Some(Row::Redacted(reason))) => (
            Status::Redacted,
            format!("what was logged was erased: {reason}"),
        ),
        (_, Some(Row::Detached(partition))) => (
            Status::Detached,
            format!("the row went with partition {partition}, which left the table"),
        ),
        (_, Some(Row::Retired)) => (
            Status::Retired,
            "the row was retired and is gone; the log has what it was".to_owned(),
        ),
        (_, Some(Row::Unredacted)) => (
            Status::EntryAltered,
            "the row's key was redacted, and its latest entry was not".to_owned(),
        ),
        (_, Some(Row::Impossible(why))) => (Status::EntryAltered, why),
        (entry, _) => unheld(session, &log, &rows, latest, &key.text, entry.is_some())?,
    };
    Ok(Verified {
        status,
        entry,
        row: now,
        detail,
    })
}

/// Why a row that is as its latest entry says was changed all the same: a source with a watermark logs each row once,
/// so a row that has an earlier entry was changed, or deleted and inserted again, behind the log's back.
fn logged_otherwise(
    session: &Session,
    log: &Log,
    rows: &mut Rows,
    source_id: i32,
    key: &RowKey,
    latest: i64,
) -> Result<Option<String>, Error> {
    if rows.source(source_id).is_none_or(Source::by_trigger) {
        return Ok(None);
    }
    let snapshot = Snapshot::Statement;
    let size = heads::latest(session, snapshot, log)?.tree_size;
    for index in entries::of_row(session, snapshot, log, source_id, key)? {
        pgrx::check_for_interrupts!();
        if index >= latest {
            break;
        }
        let entry = entries::at(session, snapshot, log, index, size)?;
        let row = rows
            .look_up(session, log, &Record::none(), std::slice::from_ref(&entry))?
            .pop();
        if matches!(row, Some(Row::Is(hash)) if hash.as_bytes().as_slice() != entry.leaf_hash) {
            return Ok(Some(format!(
                "the row is what entry {latest} says, and was logged as something else before, as entry {index}"
            )));
        }
    }
    Ok(None)
}

/// A row is what was logged whatever its columns and labels are called since, and whatever another source of the
/// table's name has logged; both are said.
fn logged(shape: Option<&Shape>, leaf_index: i64, was_another: bool) -> String {
    let mut said = "the row is what was logged".to_owned();
    if let Some(changes) = shape.and_then(|shape| shape.changes_since(leaf_index)) {
        said.push_str("; since then, ");
        said.push_str(&changes);
    }
    if was_another {
        said.push_str(
            "; the log also has an earlier source of this name, which verify_log speaks of",
        );
    }
    said
}

/// True if the proof holds: the entry's leaf hash leads to the root.
fn proves(entry: &Inclusion) -> bool {
    let index = LeafIndex::new(entry.index as u64).ok();
    let size = TreeSize::new(entry.size as u64).ok();
    index.zip(size).is_some_and(|(index, size)| {
        merkle_tree::verify_inclusion(&entry.leaf, index, size, &entry.path, &entry.root).is_ok()
    })
}

/// What is to be said about a row whose latest entry cannot be held against it, since there is none, it says
/// that the row is gone, or the queue has more about it.
fn unheld(
    session: &Session,
    log: &Log,
    rows: &Rows,
    source_id: i32,
    key: &str,
    has_entry: bool,
) -> Result<(Status, String), Error> {
    let shapes = rows.shapes();
    let Some(shape) = shapes.into_iter().find(|s| s.source.id == source_id) else {
        let detail = "the table is no source of the log any more, or cannot be read".to_owned();
        return Ok((Status::Unknown, detail));
    };
    if let Some(why) = rows.obstacles(source_id) {
        return Ok((Status::Unknown, why));
    }
    let said = |status, words: &str| Ok((status, words.to_owned()));
    let source = &shape.source;
    if source.by_trigger() {
        let keys = vec![key.to_owned()];
        if !gather::waiting(session, Snapshot::Statement, shape, keys).is_empty() {
            return said(
                Status::Waiting,
                "its last change is captured and not yet logged",
            );
        }
    }
    let row = row_now(session, log, shape, key)?;
    if row.is_none() && table::is_replaced(session, source.relation) {
        return said(
            Status::Unknown,
            "the table was emptied or rewritten after the statement's snapshot was taken",
        );
    }
    match (row, has_entry) {
        (None, true) => said(
            Status::Deleted,
            "the log says that the row was deleted, and it is not there",
        ),
        (None, false) => said(
            Status::Absent,
            "neither the table nor the log has such a row",
        ),
        (Some(_), _) if source.by_trigger() => match source.backfill {
            Some(_) => said(Status::Waiting, "the backfill has not reached it yet"),
            None if !source.every_row_is_logged() => said(
                Status::Unknown,
                "rows from before the triggers were left out, or their entries were pruned",
            ),
            None => said(
                Status::Unlogged,
                "the row is not in the log: it came past the triggers",
            ),
        },
        (Some(row), _) => {
            let (status, words) = not_logged(shape, &row, key)?;
            said(status, words)
        }
    }
}

/// What is to be said about a row without an entry in a source with a watermark.
fn not_logged(shape: &Shape, row: &Leaf, key: &str) -> Result<(Status, &'static str), Error> {
    let off_the_line = statement::row_off_the_line(shape, row_key::parts(shape, key)?)
        .and_then(|s| TableQuery::on(shape).first(Snapshot::Statement, &s, |_| ()));
    if is_pruned(shape, row) {
        return Ok((
            Status::Unknown,
            "entries of rows as old as this one were pruned",
        ));
    }
    if off_the_line.is_some() {
        return Ok((Status::Unlogged, NOT_TAKEN));
    }
    Ok(match is_ahead(shape, row)? {
        true => (Status::Waiting, "the row lies ahead of the watermark"),
        false => (Status::Unlogged, NOT_TAKEN),
    })
}

/// True if the row's entry may have been pruned.
fn is_pruned(shape: &Shape, row: &Leaf) -> bool {
    let pruned = shape.source.pruned_order.as_ref();
    pruned.is_some_and(|text| row.order <= row_key::order_value(shape, text))
}

fn row_now(session: &Session, log: &Log, shape: &Shape, key: &str) -> Result<Option<Leaf>, Error> {
    session.pinned(|| {
        let mut scan = Scan::new(log, shape, shape.current())?;
        let key = row_key::parts(shape, key)?;
        let statement = statement::rows_by_key(shape, scan.attributes(), &[key]);
        Ok(scan.all(Snapshot::Statement, &statement)?.pop())
    })
}

/// True if the next batches come to the row.
fn is_ahead(shape: &Shape, row: &Leaf) -> Result<bool, Error> {
    let Some(watermark) = &shape.source.watermark else {
        return Ok(true);
    };
    let position = row.position(shape)?;
    let upto = Which::UpTo(&position);
    // The row itself is among those up to it, unless the watermark is at it or beyond.
    let statement = statement::rows(shape, &shape.sort, Some(watermark), upto, 1);
    let found = TableQuery::on(shape).first(Snapshot::Statement, &statement, |_| ());
    Ok(found.is_some())
}
