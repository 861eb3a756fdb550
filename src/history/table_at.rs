//! The rows of a table as a log had them at one of its sizes, from what it keeps of its entries.

use super::latest::Latest;
use super::{Recorded, TableSources, row_json};
use crate::capture::partitions::Partitions;
use crate::capture::row_key;
use crate::capture::shape::Shape;
use crate::capture::trigger::truncation_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::{OF_LOG, Source};
use crate::error::Error;
use crate::pg::server;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries::Entry;
use crate::store::{key_index, leaves};
use leaf_format::Kind;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use std::collections::HashMap;

/// Bytes of leaf data that are read at once.
const PAGE_BYTES: i64 = 4 << 20;

/// A row that was there.
pub struct Row {
    /// Of the entry that says so.
    pub leaf_index: i64,
    pub key: String,
    /// As JSON; `None` where the log has nothing of it any more but its hash.
    pub row: Option<String>,
}

pub struct TableAt {
    log: Log,
    source: Recorded,
    latest: Latest,
    partitions: Option<Partitions>,
    /// Entries that were found and are not read yet.
    found: Vec<Entry>,
}

impl TableAt {
    /// `None` if the table was no source of the log when it had `size` entries. `time`: between two entries partitions may
    /// leave; without it, none has left since the last one.
    ///
    /// # Errors
    /// If the table never was one, if the caller may not read it, or if all entries up to `size` were pruned.
    pub fn start(
        session: &Session,
        log: Log,
        relation: pg_sys::Oid,
        size: i64,
        time: Option<TimestampWithTimeZone>,
    ) -> Result<Option<TableAt>, Error> {
        let TableSources { sources, .. } = TableSources::of_table(session, &log, relation)?;
        let had_begun = |of: &Recorded| {
            let first = of.versions.first();
            first.is_some_and(|v| v.from_leaf_index <= size)
        };
        let Some(source) = sources.into_iter().rfind(had_begun).filter(|_| size > 0) else {
            return Ok(None);
        };
        let key = truncation_key(source.source.id);
        let truncations = key_index::find(session, Snapshot::Statement, &log, OF_LOG, &[key]);
        let before = truncations.into_iter().map(|(_, index)| index);
        let truncated = before.filter(|index| *index < size).max();
        let first = truncated.map_or(0, |index| index + 1);
        check_not_pruned(&log, &source.source, first, size)?;
        let shape = Shape::load(session, &log, &source.source)?;
        let partitions = Partitions::that_left_by(session, &shape, size, time);
        let entries = first.max(log.pruned_to)..size;
        let memory = server::maintenance_memory();
        Ok(Some(TableAt {
            latest: Latest::new(log.clone(), shape, entries, memory),
            log,
            source,
            partitions,
            found: Vec::new(),
        }))
    }

    /// Some more of the rows; none when all have been read.
    pub fn page(&mut self, session: &Session) -> Result<Vec<Row>, Error> {
        loop {
            if self.found.is_empty() {
                match self.latest.page(session)? {
                    Some(found) => self.found = self.without_detached(found),
                    None => return Ok(Vec::new()),
                }
            }
            let (Some(first), Some(last)) = (self.found.first(), self.found.last()) else {
                continue;
            };
            let (from, to) = (first.leaf_index, last.leaf_index + 1);
            let to = leaves::within(session, &self.log, from, to, PAGE_BYTES);
            let count = self.found.partition_point(|e| e.leaf_index < to);
            let entries: Vec<Entry> = self.found.drain(..count).collect();
            let rows = self.rows(session, entries, from, to)?;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
    }

    /// Without the rows that left the table with a partition.
    fn without_detached(&self, mut found: Vec<Entry>) -> Vec<Entry> {
        let Some(partitions) = &self.partitions else {
            return found;
        };
        let shape = self.latest.shape();
        let parts = |e: &Entry| Some((e.leaf_index, row_key::parts(shape, &e.key).ok()?));
        let keys: Vec<(i64, Vec<String>)> = found.iter().filter_map(parts).collect();
        let left = partitions.left_with(shape, &keys);
        let left: Vec<i64> = left.keys().map(|place| keys[*place].0).collect();
        found.retain(|entry| !left.contains(&entry.leaf_index));
        found
    }

    /// The rows that are there according to `entries`, which are some of the entries `from .. to`.
    fn rows(
        &self,
        session: &Session,
        entries: Vec<Entry>,
        from: i64,
        to: i64,
    ) -> Result<Vec<Row>, Error> {
        let wanted = |index| {
            entries
                .binary_search_by_key(&index, |e| e.leaf_index)
                .is_ok()
        };
        let mut kept: HashMap<i64, Option<Option<String>>> = HashMap::with_capacity(entries.len());
        leaves::each_in_full(session, &self.log, from, to, wanted, |index, leaf| {
            let is_there = !matches!(leaf.kind, Kind::Delete | Kind::Truncate);
            let row = is_there.then(|| row_json(&self.log, index, &leaf, &self.source));
            kept.insert(index, row);
        })?;
        let annexes = match kept.len() == entries.len() {
            true => HashMap::new(),
            false => leaves::annexes(session, &self.log, from, to),
        };
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let row = match kept.remove(&entry.leaf_index) {
                Some(row) => row,
                None => {
                    let annex = annexes.get(&entry.leaf_index).cloned().unwrap_or_default();
                    let is_there = annex.kind() != Some(Kind::Delete);
                    let was_redacted = self.source.source.salted && annex.salt.is_none();
                    if is_there && !was_redacted {
                        return Err(self.not_kept());
                    }
                    is_there.then_some(None)
                }
            };
            let leaf_index = entry.leaf_index;
            let key = entry.key;
            rows.extend(row.map(|row| Row {
                leaf_index,
                key,
                row,
            }));
        }
        Ok(rows)
    }

    fn not_kept(&self) -> Error {
        Error::NoHistory {
            log: self.log.name.clone(),
            table: self.source.source.name.clone(),
        }
    }
}

/// That the log still has the entries `first .. size`; of those that are missing, a warning.
fn check_not_pruned(log: &Log, source: &Source, first: i64, size: i64) -> Result<(), Error> {
    let pruned_to = log.pruned_to;
    if size <= pruned_to {
        return Err(Error::Pruned {
            log: log.name.clone(),
            index: size - 1,
            pruned_to,
        });
    }
    if first < pruned_to {
        pgrx::warning!(
            "entries of log \"{}\" before {pruned_to} were pruned: rows of table \"{}\" that have no later entry are not shown",
            log.name,
            source.name
        );
    }
    Ok(())
}
