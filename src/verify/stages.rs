//! The stages of a verification, in their order, each of which is done in steps.

use super::finding::{Finding, Kind};
use super::{Verification, checkpoints};
use crate::error::Error;
use crate::redaction;
use crate::session::Session;
use crate::store::sealed::{self, Sealed};
use crate::store::{hash_index, set_aside};
use serde::{Deserialize, Serialize};

/// Checkpoints that one step checks: whoever checks all with one snapshot takes more at once.
const CHECKPOINTS: i64 = 500;
const CHECKPOINTS_OF_SLICE: i64 = 32;
/// Entries of one run of the hash index stand for so many rows where rows are counted.
const ROWS_OF_RUN: u64 = 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Stage {
    /// The log's settings and sources, against what is on record.
    Configuration,
    /// What is left of pruned entries: heads and tiles, from a tree size and a tile on.
    Pruned {
        heads_after: i64,
        tiles_after: (i16, i64),
    },
    Entries,
    /// What can be told only under the snapshot that showed the last entries.
    Edges,
    Redactions,
    Checkpoints {
        after: i64,
    },
    HashIndex {
        run: i64,
    },
    /// Sealed ranges that begin at a leaf index or later.
    Sealed {
        from: i64,
    },
    /// The order index, from a source on, and after which key of it.
    Marks {
        source: i32,
        after: Option<Vec<u8>>,
    },
    /// Of the sources from one on, what was not read along with the entries: from which gap on, and after which
    /// row.
    Unlogged {
        source: i32,
        gap: usize,
        after: Option<Vec<String>>,
    },
    /// All is found; how much was checked is still to be said.
    Report,
    Done,
}

impl Stage {
    /// For people, who see it in `merkle_log_status`.
    pub fn name(&self) -> &'static str {
        match self {
            Stage::Configuration => "configuration",
            Stage::Pruned { .. } => "pruned entries",
            Stage::Entries => "entries",
            Stage::Edges => "tree head and watermarks",
            Stage::Redactions => "redactions",
            Stage::Checkpoints { .. } => "checkpoints",
            Stage::HashIndex { .. } => "hash index",
            Stage::Sealed { .. } => "sealed ranges",
            Stage::Marks { .. } => "order index",
            Stage::Unlogged { .. } => "rows of the sources",
            Stage::Report | Stage::Done => "end",
        }
    }

    pub fn behind(sealed: &Sealed) -> Stage {
        match sealed.range.start.checked_add(1) {
            Some(from) => Stage::Sealed { from },
            None => MARKS,
        }
    }

    pub fn of_source(source: i32) -> Stage {
        Stage::Unlogged {
            source,
            gap: 0,
            after: None,
        }
    }
}

// What no range begins with is read too.
const SEALED: Stage = Stage::Sealed { from: i64::MIN };

pub(super) const MARKS: Stage = Stage::Marks {
    source: 0,
    after: None,
};

impl Verification {
    /// Where to go on when a step of a stage came to nothing.
    pub(super) fn without(&self, session: &Session, stage: Stage) -> Stage {
        match stage {
            Stage::Configuration => self.after_configuration(),
            Stage::Pruned { .. } => Stage::Entries,
            Stage::Entries if self.has_entries_left() => Stage::Entries,
            Stage::Entries => Stage::Edges,
            Stage::Edges => self.after_edges(),
            Stage::Redactions => Stage::Checkpoints { after: -1 },
            Stage::Checkpoints { .. } => Stage::HashIndex { run: 0 },
            Stage::HashIndex { .. } => SEALED,
            // What made a range unreadable does not keep the next from being read.
            Stage::Sealed { from } => match sealed::next(session, &self.log, from) {
                Some(sealed) => Stage::behind(&sealed),
                None => MARKS,
            },
            Stage::Marks { .. } => Stage::of_source(0),
            Stage::Unlogged { source, .. } => Stage::of_source(source.saturating_add(1)),
            Stage::Report | Stage::Done => Stage::Done,
        }
    }

    pub(super) fn advance(&mut self, session: &Session) -> Result<Option<Vec<Finding>>, Error> {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        let (findings, next) = match stage {
            Stage::Configuration => (self.configuration(session)?, self.after_configuration()),
            Stage::Pruned {
                heads_after,
                tiles_after,
            } => self.pruned(session, heads_after, tiles_after)?,
            Stage::Entries if self.has_entries_left() => {
                let findings = self.entries(session)?;
                self.batches.note(&findings);
                self.progress.done(match &self.pass {
                    Some(_) => self.next as u64,
                    None => self.checked.entries,
                });
                (findings, Stage::Entries)
            }
            Stage::Entries | Stage::Edges => (self.edges_of_all(session)?, self.after_edges()),
            Stage::Redactions => (self.redactions(session), Stage::Checkpoints { after: -1 }),
            Stage::Checkpoints { after } => self.checkpoints(session, after)?,
            Stage::HashIndex { run } => self.hash_index(session, run)?,
            Stage::Sealed { from } => self.sealed(session, from)?,
            Stage::Marks { source, after } => self.marks(session, source, after)?,
            Stage::Unlogged { source, gap, after } => self.unlogged(session, source, gap, after)?,
            Stage::Report => {
                self.report(session);
                (Vec::new(), Stage::Done)
            }
            Stage::Done => return Ok(None),
        };
        self.stage = next;
        Ok(Some(findings))
    }

    fn after_configuration(&self) -> Stage {
        match self.log.pruned_to {
            0 => Stage::Entries,
            _ => Stage::Pruned {
                heads_after: 0,
                tiles_after: (-1, 0),
            },
        }
    }

    fn after_edges(&self) -> Stage {
        match self.whole {
            true => Stage::Redactions,
            false => Stage::Report,
        }
    }

    fn edges_of_all(&mut self, session: &Session) -> Result<Vec<Finding>, Error> {
        let mut findings = std::mem::take(&mut self.found);
        self.batches.note(&findings);
        findings.extend(self.rows.summary());
        if self.whole {
            findings.extend(self.edges(session)?);
            findings.extend(self.watermarks(session)?);
            for stray in std::mem::take(&mut self.strays) {
                findings.extend(self.unlogged_row(stray, false));
            }
            self.checked.scanned += self.rows.walked();
        } else {
            findings.extend(self.give_up_pending());
        }
        Ok(findings)
    }

    fn redactions(&self, session: &Session) -> Vec<Finding> {
        let of_key = |kind, source_id, key, detail: &str| Finding {
            source_table: self.rows.name_of(source_id),
            source_key: Some(key),
            ..Finding::of_log(kind, None, detail.to_owned())
        };
        let contradictions = redaction::contradictions(session, &self.log).into_iter();
        let altered =
            contradictions.map(|(id, key, detail)| of_key(Kind::EntryAltered, id, key, detail));
        let misplaced = set_aside::misplaced(session, &self.log).into_iter();
        let detail = "the hash of a key that is set aside is another";
        let misplaced = misplaced.map(|(id, key)| of_key(Kind::IndexMismatch, id, key, detail));
        let mut findings: Vec<Finding> = self.pruned_redactions(session).into_iter().collect();
        findings.extend(altered);
        findings.extend(misplaced);
        findings
    }

    fn checkpoints(
        &mut self,
        session: &Session,
        after: i64,
    ) -> Result<(Vec<Finding>, Stage), Error> {
        let limit = match self.pass {
            Some(_) => CHECKPOINTS_OF_SLICE,
            None => CHECKPOINTS,
        };
        let page = checkpoints::page(session, &self.log, after, limit);
        if let Some((findings, after)) = page {
            return Ok((findings, Stage::Checkpoints { after }));
        }
        let findings = checkpoints::accepted(session, &self.log, &self.head)?;
        Ok((findings, Stage::HashIndex { run: 0 }))
    }

    fn hash_index(&mut self, session: &Session, run: i64) -> Result<(Vec<Finding>, Stage), Error> {
        let runs = hash_index::runs(session, &self.log);
        let run = run.max(runs.start);
        if run >= runs.end {
            return Ok((Vec::new(), SEALED));
        }
        self.checked.marks += ROWS_OF_RUN;
        let mismatch = hash_index::mismatch(session, &self.log, run, self.head.tree_size)?;
        let finding = mismatch.map(|at| {
            let detail = "merkle_hash_index does not lead to the entries from here on".to_owned();
            Finding::of_log(Kind::IndexMismatch, Some(at), detail)
        });
        Ok((
            finding.into_iter().collect(),
            Stage::HashIndex { run: run + 1 },
        ))
    }
}
