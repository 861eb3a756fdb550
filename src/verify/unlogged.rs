//! Rows that should have an entry and have none: slipped in behind the watermark; and entries that
//! cannot be found by their keys.

use super::finding::{Finding, Kind};
use super::walk::Stray;
use super::{CHUNK, Stage, Verification};
use crate::capture::gather;
use crate::capture::row_key;
use crate::capture::scan::{Leaf, Scan};
use crate::capture::statement::{self, Rows};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::{entries, key_index};
use merkle_tree::Hash;
use std::collections::HashSet;

/// What is said of a row that no batch of a source with a watermark has taken, and none will.
pub(super) const NOT_TAKEN: &str = "the row is not in the log: it lies behind the watermark, or its order value is one that no batch takes (infinity, NaN)";

impl Verification {
    /// Looks up the next rows at or behind the watermark of the `source`-th readable source, of those
    /// that were not read along with the entries.
    pub(super) fn unlogged(
        &mut self,
        session: &Session,
        source: usize,
        gap: usize,
        after: Option<Vec<String>>,
    ) -> Result<Vec<Finding>, Error> {
        let shapes = self.rows.shapes();
        let Some(shape) = shapes.get(source) else {
            return Ok(self.give_up_pending());
        };
        let by_trigger = shape.source.by_trigger();
        let id = shape.source.id;
        let gaps = self.rows.gaps(id);
        let Some(range) = gaps
            .get(gap)
            .filter(|_| !by_trigger || shape.source.every_row_is_logged())
        else {
            self.stage = Stage::Unlogged {
                source: source + 1,
                gap: 0,
                after: None,
            };
            return Ok(Vec::new());
        };
        let mut scan = Scan::new(&self.log, shape, shape.current())?;
        let which = match by_trigger {
            true => Rows::All,
            false => Rows::Behind {
                watermark: shape.source.watermark.as_deref(),
                pruned: shape.source.pruned_order.as_deref(),
                upto: range.upto.as_deref(),
                ceiling: None,
            },
        };
        let after = after.or_else(|| range.after.clone());
        let statement = statement::rows(shape, scan.attributes(), after.as_deref(), which, CHUNK);
        let rows = scan.all_with_problems(Snapshot::Statement, &statement)?;
        self.stage = match rows.last() {
            Some(last) => Stage::Unlogged {
                source,
                gap,
                after: Some(last.position(shape)?),
            },
            None => Stage::Unlogged {
                source,
                gap: gap + 1,
                after: None,
            },
        };
        let logged = match by_trigger {
            false => entries::logged(session, Snapshot::Statement, &self.log, id, &rows)?,
            true => {
                let keys: Vec<String> = rows.iter().map(|r| r.key.clone()).collect();
                let live = entries::live(session, Snapshot::Statement, &self.log, id, keys.clone());
                let mut logged: HashSet<String> = live.into_keys().collect();
                let others: Vec<String> = keys
                    .into_iter()
                    .filter(|key| !logged.contains(key))
                    .collect();
                if !others.is_empty() {
                    logged.extend(gather::waiting(session, Snapshot::Statement, shape, others));
                }
                logged
            }
        };
        let name = shape.source.name.clone();
        self.checked.scanned += rows.len() as u64;
        let by_earlier_key = |row: &Leaf| {
            let keys = row_key::earlier(shape, &row.key);
            !keys.is_empty()
                && !entries::live(session, Snapshot::Statement, &self.log, id, keys).is_empty()
        };
        let strays: Vec<Leaf> = rows
            .into_iter()
            .filter(|r| !logged.contains(&r.key) && !by_earlier_key(r))
            .collect();
        if !strays.is_empty() && key_index::is_outdated(session, &self.log, id) {
            let rows = strays.len();
            let detail = format!(
                "its keys are compared otherwise than when the hashes of its entries were computed (the type or the collation of the key was changed), and the next batch computes them anew; until then the entries of {rows} rows are not found"
            );
            return Ok(vec![Finding {
                source_table: Some(name),
                ..Finding::of_log(Kind::SchemaChanged, None, detail)
            }]);
        }
        Ok(strays
            .into_iter()
            .flat_map(|row| {
                let stray = Stray {
                    source_table: name.clone(),
                    hash: row.hash.as_bytes().to_vec(),
                    key: row.key,
                };
                self.unlogged_row(stray, by_trigger)
            })
            .collect())
    }

    /// What is to be said about a row without an entry: that, or that an entry's key was altered.
    pub(super) fn unlogged_row(&mut self, row: Stray, by_trigger: bool) -> Vec<Finding> {
        let hash = Hash::try_from(row.hash.as_slice()).ok();
        if let Some(mut explained) = hash.and_then(|hash| self.pending.remove(&hash)) {
            self.pending_count -= explained.len();
            for finding in &mut explained {
                finding.kind = Kind::EntryAltered;
                finding.detail = format!(
                    "the entry's key was altered; its leaf hash is that of row {}",
                    row.key
                );
            }
            self.batches.note(&explained);
            return explained;
        }
        let (kind, detail) = match by_trigger {
            _ if self.batches.entries_damaged() => (
                Kind::EntryMissing,
                "no entry of the row can be found, and entries were altered or are missing",
            ),
            true => (
                Kind::Unlogged,
                "the row is not in the log: it came past the triggers",
            ),
            false => (Kind::Unlogged, NOT_TAKEN),
        };
        vec![Finding {
            source_table: Some(row.source_table),
            source_key: Some(row.key),
            actual: Some(row.hash),
            ..Finding::of_log(kind, None, detail.into())
        }]
    }
}
