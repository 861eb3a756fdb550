//! Rows that should have an entry and have none: slipped in behind the watermark.

use super::{CHUNK, Finding, Kind, Stage, Verification};
use crate::capture::queue;
use crate::capture::scan::Scan;
use crate::capture::statement::{self, Rows};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries;
use std::collections::HashSet;

impl Verification {
    /// Looks up the next rows at or behind the watermark of the `source`-th readable source.
    pub(super) fn unlogged(
        &mut self,
        session: &Session,
        source: usize,
        after: Option<Vec<String>>,
    ) -> Result<Vec<Finding>, Error> {
        let shapes = self.rows.shapes();
        let Some(shape) = shapes.get(source) else {
            return Ok(self.give_up_pending());
        };
        let by_trigger = shape.source.by_trigger();
        if by_trigger && !shape.source.every_row_is_logged() {
            self.stage = Stage::Unlogged {
                source: source + 1,
                after: None,
            };
            return Ok(Vec::new());
        }
        let mut scan = Scan::new(&self.log, shape, shape.current())?;
        let which = match by_trigger {
            true => Rows::All,
            false => Rows::behind(&shape.source),
        };
        let statement = statement::rows(shape, scan.attributes(), after.as_deref(), which, CHUNK);
        let rows = scan.all(Snapshot::Statement, &statement)?;
        self.stage = match rows.last() {
            Some(last) => Stage::Unlogged {
                source,
                after: Some(last.position.clone()),
            },
            None => Stage::Unlogged {
                source: source + 1,
                after: None,
            },
        };
        let keys: Vec<String> = rows.iter().map(|r| r.key.clone()).collect();
        let id = shape.source.id;
        let logged = match by_trigger {
            false => entries::logged(session, Snapshot::Statement, id, keys),
            true => {
                let live = entries::live(session, Snapshot::Statement, &self.log, id, keys.clone());
                let mut logged: HashSet<String> = live.into_keys().collect();
                let others: Vec<String> = keys
                    .into_iter()
                    .filter(|key| !logged.contains(key))
                    .collect();
                if !others.is_empty() {
                    let source = &shape.source;
                    logged.extend(queue::waiting(session, Snapshot::Statement, source, others));
                }
                logged
            }
        };
        let name = shape.source.name.clone();
        self.checked.scanned += rows.len() as u64;
        let mut findings = Vec::new();
        for row in rows.into_iter().filter(|r| !logged.contains(&r.key)) {
            if let Some(mut explained) = self.pending.remove(&row.hash) {
                self.pending_count -= explained.len();
                for finding in &mut explained {
                    finding.kind = Kind::EntryAltered;
                    finding.detail = format!(
                        "the entry's key was altered; its leaf hash is that of row {}",
                        row.key
                    );
                }
                findings.extend(explained);
                continue;
            }
            findings.push(
                Finding {
                    source_table: Some(name.clone()),
                    source_key: Some(row.key),
                    ..Finding::of_log(
                        Kind::Unlogged,
                        None,
                        match by_trigger {
                            true => "the row is not in the log: it came past the triggers".into(),
                            false => {
                                "the row lies behind the watermark and is not in the log".into()
                            }
                        },
                    )
                }
                .hashes(None, Some(&row.hash)),
            );
        }
        Ok(findings)
    }
}
