//! What happened to the rows of a table between two sizes of a log, in the order of the log.

use super::{Recorded, TableSources, Version, version_of};
use crate::capture::trigger::truncation_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::OF_LOG;
use crate::error::Error;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::leaves;
use leaf_format::Leaf;
use pgrx::pg_sys;
use std::collections::HashMap;

/// Entries that are read at once, and bytes of leaf data, of which there is always one entry's.
const PAGE: i64 = 1024;
const PAGE_BYTES: i64 = 4 << 20;

/// An entry of the table's.
pub struct Change {
    /// `None`: of all rows, which a TRUNCATE took away.
    pub key: Option<String>,
    pub version: Version,
}

pub struct Changes {
    log: Log,
    sources: Vec<Recorded>,
    next: i64,
    end: i64,
}

impl Changes {
    /// The entries `from .. to` of the log that are the table's.
    ///
    /// # Errors
    /// If the table is no source of the log, if the caller may not read it, or if the first of the entries were pruned.
    pub fn start(
        session: &Session,
        log: Log,
        relation: pg_sys::Oid,
        from: i64,
        to: i64,
    ) -> Result<Changes, Error> {
        let TableSources { sources, .. } = TableSources::of_table(session, &log, relation)?;
        if from < to {
            entries::check_not_pruned(&log, from)?;
        }
        Ok(Changes {
            log,
            sources,
            next: from,
            end: to,
        })
    }

    /// Some more of them; none when all have been read.
    pub fn page(&mut self, session: &Session) -> Result<Vec<Change>, Error> {
        while self.next < self.end {
            pgrx::check_for_interrupts!();
            let (from, to) = (self.next, self.end.min(self.next + PAGE));
            let to = leaves::within(session, &self.log, from, to, PAGE_BYTES);
            let entries = entries::between(session, &self.log, from, to)?;
            self.next = to;
            let of_table: Vec<(Entry, usize)> = entries
                .into_iter()
                .filter_map(|entry| self.source_of(&entry).map(|place| (entry, place)))
                .collect();
            if !of_table.is_empty() {
                return self.read(session, of_table, from, to);
            }
        }
        Ok(Vec::new())
    }

    /// The place of the source that an entry is about.
    fn source_of(&self, entry: &Entry) -> Option<usize> {
        self.sources.iter().position(|of| match entry.source_id {
            OF_LOG => entry.key == truncation_key(of.source.id),
            id => id == of.source.id,
        })
    }

    fn read(
        &self,
        session: &Session,
        entries: Vec<(Entry, usize)>,
        from: i64,
        to: i64,
    ) -> Result<Vec<Change>, Error> {
        let wanted = |index| {
            entries
                .binary_search_by_key(&index, |(e, _)| e.leaf_index)
                .is_ok()
        };
        let mut kept: HashMap<i64, Leaf> = HashMap::new();
        leaves::each_in_full(session, &self.log, from, to, wanted, |index, leaf| {
            kept.insert(index, leaf);
        })?;
        let mut annexes = leaves::annexes(session, &self.log, from, to);
        let change = |(entry, place): (Entry, usize)| {
            let index = entry.leaf_index;
            let (annex, leaf) = (
                annexes.remove(&index).unwrap_or_default(),
                kept.remove(&index),
            );
            Change {
                version: version_of(&self.log, index, leaf, &annex, &self.sources[place]),
                key: (entry.source_id != OF_LOG).then_some(entry.key),
            }
        };
        Ok(entries.into_iter().map(change).collect())
    }
}
