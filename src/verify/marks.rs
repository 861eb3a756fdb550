//! The order index against the entries: each mark must be the first entry in order of its source in its tile.
//!
//! That each such entry has its mark is checked along with the entries.

use super::finding::{Finding, Kind};
use super::stages::Stage;
use super::{CHUNK, Verification};
use crate::capture::row_key;
use crate::error::Error;
use crate::pg::subtransaction;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::order_index::{self, Mark, Stored};
use merkle_tree::TILE_WIDTH;

const TILE: i64 = TILE_WIDTH as i64;
/// Marks that are checked at once, while a chunk has as many entries as it may.
const MARKS: i64 = CHUNK / 8;

impl Verification {
    /// Checks the next marks of the first source from `source` on; also says how to go on.
    pub(super) fn marks(
        &mut self,
        session: &Session,
        source: i32,
        after: Option<Vec<u8>>,
    ) -> Result<(Vec<Finding>, Stage), Error> {
        let Some(source) = self.rows.ids().into_iter().find(|id| *id >= source) else {
            let first = Stage::Unlogged {
                source: 0,
                gap: 0,
                after: None,
            };
            return Ok((Vec::new(), first));
        };
        let limit = MARKS * self.span / CHUNK;
        let marks = order_index::page(session, source, after.as_deref(), limit);
        let next = match marks.last() {
            Some(last) => Stage::Marks {
                source,
                after: Some(last.key.clone()),
            },
            None => Stage::Marks {
                source: source.saturating_add(1),
                after: None,
            },
        };
        self.checked.marks += marks.len() as u64;
        let mut findings = Vec::new();
        for mark in &marks {
            pgrx::check_for_interrupts!();
            if let Some(detail) = self.mark(session, source, mark)? {
                findings.push(Finding {
                    source_table: self.rows.name_of(source),
                    ..Finding::of_log(
                        Kind::IndexMismatch,
                        Some(mark.leaf_index),
                        detail.to_owned(),
                    )
                });
            }
        }
        Ok((findings, next))
    }

    /// What is wrong with a mark.
    fn mark(
        &self,
        session: &Session,
        source_id: i32,
        mark: &Stored,
    ) -> Result<Option<&'static str>, Error> {
        // Entries beyond the last head are a finding of their own.
        if (self.head.tree_size..entries::end(session, &self.log)).contains(&mark.leaf_index) {
            return Ok(None);
        }
        let surplus = Some(
            "the order index has a mark at an entry that is not the first of its source in a tile, or is of another source",
        );
        if !(self.log.pruned_to..self.head.tree_size).contains(&mark.leaf_index) {
            return Ok(surplus);
        }
        let tile = order_index::tile_of(mark.leaf_index) * TILE;
        let read = entries::between(session, &self.log, tile, mark.leaf_index + 1)?;
        let in_order = |e: &&Entry| e.source_id == source_id && e.order.is_none();
        let first = read.iter().find(in_order);
        let Some(entry) = first.filter(|e| e.leaf_index == mark.leaf_index) else {
            return Ok(surplus);
        };
        // Of two marks of one entry one has another key than the entry's. Where the right one is missing, that is
        // said of the entry.
        let shape = self.rows.shape(source_id);
        let key = subtransaction::run(|| row_key::sort_key(shape?, &entry.key, entry.leaf_index));
        let Some(key) = key.ok().flatten().filter(|k| k.as_slice() != mark.key) else {
            return Ok(None);
        };
        let right = Mark {
            source_id,
            key,
            leaf_index: mark.leaf_index,
        };
        let missing = order_index::missing(session, std::iter::once(right))?;
        let twice = "the order index has two marks of one entry";
        Ok(missing.is_empty().then_some(twice))
    }
}
