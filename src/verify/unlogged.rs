//! Rows that should have an entry and have none: slipped in behind the watermark; and entries that
//! cannot be found by their keys.

use super::Verification;
use super::finding::{Finding, Kind};
use super::stages::Stage;
use super::walk::{Covered, Stray};
use crate::capture::gather;
use crate::capture::row_key;
use crate::capture::scan::{Leaf, Scan};
use crate::capture::shape::Shape;
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
    /// Looks up the next rows at or behind the watermark of the first readable source from `source` on, of those
    /// that were not read along with the entries; also says how to go on.
    pub(super) fn unlogged(
        &mut self,
        session: &Session,
        source: i32,
        gap: usize,
        after: Option<Vec<String>>,
    ) -> Result<(Vec<Finding>, Stage), Error> {
        let shapes = self.rows.shapes();
        let Some(shape) = shapes.into_iter().find(|s| s.source.id >= source) else {
            return Ok((self.give_up_pending(), Stage::Report));
        };
        let id = shape.source.id;
        // What was read along with the entries, another slice has read under another snapshot.
        let gaps = match self.pass {
            Some(_) => Covered::default().gaps(),
            None => self.rows.gaps(id),
        };
        let is_asked = !shape.source.by_trigger() || shape.source.every_row_is_logged();
        let Some(range) = gaps.get(gap).filter(|_| is_asked) else {
            let next = Stage::Unlogged {
                source: id.saturating_add(1),
                gap: 0,
                after: None,
            };
            return Ok((Vec::new(), next));
        };
        let after = after.or_else(|| range.after.clone());
        let rows = self.rows_of(shape, after, range.upto.as_deref())?;
        let next = match rows.last() {
            Some(last) => Stage::Unlogged {
                source: id,
                gap,
                after: Some(last.position(shape)?),
            },
            None => Stage::Unlogged {
                source: id,
                gap: gap + 1,
                after: None,
            },
        };
        let scanned = rows.len() as u64;
        let strays = self.without_entry(session, shape, rows)?;
        let findings = self.strays_of(session, id, strays);
        self.checked.scanned += scanned;
        Ok((findings, next))
    }

    /// The next rows of a source that should have an entry.
    fn rows_of(
        &self,
        shape: &Shape,
        after: Option<Vec<String>>,
        upto: Option<&[String]>,
    ) -> Result<Vec<Leaf>, Error> {
        let mut scan = Scan::new(&self.log, shape, shape.current())?;
        let which = match shape.source.by_trigger() {
            true => Rows::All,
            false => Rows::Behind {
                watermark: shape.source.watermark.as_deref(),
                pruned: shape.source.pruned_order.as_deref(),
                upto,
                ceiling: None,
            },
        };
        let statement =
            statement::rows(shape, scan.attributes(), after.as_deref(), which, self.span);
        scan.all_with_problems(Snapshot::Statement, &statement)
    }

    /// Those of `rows` that have none, and none is on its way.
    fn without_entry(
        &self,
        session: &Session,
        shape: &Shape,
        rows: Vec<Leaf>,
    ) -> Result<Vec<Leaf>, Error> {
        let (id, snapshot) = (shape.source.id, Snapshot::Statement);
        let logged = match shape.source.by_trigger() {
            false => entries::logged(session, snapshot, &self.log, id, &rows)?,
            true => {
                let keys: Vec<String> = rows.iter().map(|r| r.key.clone()).collect();
                let live = entries::live(session, snapshot, &self.log, id, keys.clone());
                let mut logged: HashSet<String> = live.into_keys().collect();
                let others: Vec<String> = keys
                    .into_iter()
                    .filter(|key| !logged.contains(key))
                    .collect();
                if !others.is_empty() {
                    logged.extend(gather::waiting(session, snapshot, shape, others));
                }
                logged
            }
        };
        let by_earlier_key = |row: &Leaf| {
            let keys = row_key::earlier(shape, &row.key);
            !keys.is_empty() && !entries::live(session, snapshot, &self.log, id, keys).is_empty()
        };
        Ok(rows
            .into_iter()
            .filter(|r| !logged.contains(&r.key) && !by_earlier_key(r))
            .collect())
    }

    /// What is to be said about rows of a source without an entry.
    fn strays_of(&mut self, session: &Session, id: i32, strays: Vec<Leaf>) -> Vec<Finding> {
        let Some(source) = self.rows.source(id) else {
            return Vec::new();
        };
        let (name, by_trigger) = (source.name.clone(), source.by_trigger());
        // It was said that its rows may come late, or they may have come with a partition: then reconcile has to log
        // them first.
        let late_accepted = !by_trigger && source.late_accepted;
        let is_partitioned = |shape: &Shape| shape.table.partitioned;
        let may_come_late = late_accepted || self.rows.shape(id).is_some_and(is_partitioned);
        if !strays.is_empty() && key_index::is_outdated(session, &self.log, id) {
            // A later pass reads them again.
            if self.pass.is_some() {
                return Vec::new();
            }
            let rows = strays.len();
            let detail = format!(
                "its keys are compared otherwise than when the hashes of its entries were computed (the type or the collation of the key was changed), and the next batch computes them anew; until then the entries of {rows} rows are not found"
            );
            return vec![Finding {
                source_table: Some(name),
                ..Finding::of_log(Kind::SchemaChanged, None, detail)
            }];
        }
        strays
            .into_iter()
            .flat_map(|row| {
                let stray = Stray {
                    source_table: name.clone(),
                    hash: row.hash.as_bytes().to_vec(),
                    key: row.key,
                };
                self.unlogged_row(stray, by_trigger)
            })
            .map(|finding| Finding {
                is_tentative: may_come_late && finding.kind == Kind::Unlogged,
                ..finding
            })
            .collect()
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
            self.note_explained(&explained);
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
