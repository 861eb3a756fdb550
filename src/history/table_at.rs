//! The rows of a table as a log had them at one of its sizes, from what it keeps of its entries.

use super::latest::Latest;
use super::{TableSources, row_json};
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
    /// `None`: the table was no source then.
    latest: Option<Latest>,
    partitions: Option<Partitions>,
    /// Entries that were found and are not read yet.
    found: Vec<Entry>,
}

impl TableAt {
    /// # Errors
    /// If the table is no source of the log, if the caller may not read it, or if all entries up to `size` were pruned.
    pub fn start(
        session: &Session,
        log: Log,
        relation: pg_sys::Oid,
        size: i64,
    ) -> Result<TableAt, Error> {
        let TableSources { sources, .. } = TableSources::of_table(session, &log, relation)?;
        let source = sources
            .into_iter()
            .rev()
            .find(|(_, versions)| versions.first().is_some_and(|v| v.from_leaf_index <= size))
            .map(|(source, _)| source);
        let mut at = TableAt {
            log,
            latest: None,
            partitions: None,
            found: Vec::new(),
        };
        if let Some(source) = source.filter(|_| size > 0) {
            at.open(session, &source, size)?;
        }
        Ok(at)
    }

    fn open(&mut self, session: &Session, source: &Source, size: i64) -> Result<(), Error> {
        let truncations = key_index::find(
            session,
            Snapshot::Statement,
            &self.log,
            OF_LOG,
            &[truncation_key(source.id)],
        );
        let before = truncations.into_iter().map(|(_, index)| index);
        let truncated = before.filter(|index| *index < size).max();
        let first = truncated.map_or(0, |index| index + 1);
        self.check_not_pruned(source, first, size)?;
        let shape = Shape::load(session, &self.log, source)?;
        self.partitions = Partitions::that_left_by(session, &shape, size);
        let entries = first.max(self.log.pruned_to)..size;
        let memory = server::maintenance_memory();
        self.latest = Some(Latest::new(self.log.clone(), shape, entries, memory));
        Ok(())
    }

    fn check_not_pruned(&self, source: &Source, first: i64, size: i64) -> Result<(), Error> {
        let (log, pruned_to) = (self.log.name.clone(), self.log.pruned_to);
        if size <= pruned_to {
            let index = size - 1;
            return Err(Error::Pruned {
                log,
                index,
                pruned_to,
            });
        }
        if first < pruned_to {
            pgrx::warning!(
                "entries of log \"{log}\" before {pruned_to} were pruned: rows of table \"{}\" that have no later entry are not shown",
                source.name
            );
        }
        Ok(())
    }

    /// Some more of the rows; none when all have been read.
    pub fn page(&mut self, session: &Session) -> Result<Vec<Row>, Error> {
        loop {
            if self.found.is_empty() {
                let latest = self.latest.as_mut();
                match latest.map(|latest| latest.page(session)).transpose()? {
                    Some(Some(found)) => self.found = self.without_detached(found),
                    _ => return Ok(Vec::new()),
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
        let (Some(partitions), Some(latest)) = (&self.partitions, &self.latest) else {
            return found;
        };
        let shape = latest.shape();
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
        let Some(shape) = self.latest.as_ref().map(Latest::shape) else {
            return Ok(Vec::new());
        };
        let wanted = |index| {
            entries
                .binary_search_by_key(&index, |e| e.leaf_index)
                .is_ok()
        };
        let mut kept: HashMap<i64, Option<Option<String>>> = HashMap::with_capacity(entries.len());
        leaves::each_in_full(session, &self.log, from, to, wanted, |index, leaf| {
            let is_there = !matches!(leaf.kind, Kind::Delete | Kind::Truncate);
            let columns = &shape.version_of(index).columns;
            let row = is_there.then(|| row_json(&self.log, index, &leaf, columns));
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
                    let was_redacted = shape.source.salted && annex.salt.is_none();
                    if is_there && !was_redacted {
                        return Err(self.not_kept(shape));
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

    fn not_kept(&self, shape: &Shape) -> Error {
        Error::NoHistory {
            log: self.log.name.clone(),
            table: shape.source.name.clone(),
        }
    }
}
