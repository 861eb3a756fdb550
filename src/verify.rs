//! `verify_log`: everything computed again, from the source rows up.
//!
//! Three witnesses are compared for every tile of 256 entries: the source rows as they are now, the
//! entries' leaf hashes, and the tree above them (tiles and heads). What two of them agree on tells
//! which one was altered. The work is cut into chunks that keep nothing but findings, so memory
//! does not grow with the log; everything is read with the snapshot of the calling statement.

mod parts;
mod pruned;
pub mod row;
mod rows;
mod tiles;
mod unlogged;
mod walk;

use crate::catalog::logs::{self, Log};
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::progress::{Command, Progress};
use crate::pg::spi::Snapshot;
use crate::redaction;
use crate::session::Session;
use crate::store::heads::{self, Head};
use crate::store::late;
use crate::store::tree::{TreeReader, tree_error, tree_size};
use merkle_tree::{Frontier, Hash};
use parts::Part;
use rows::Rows;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use walk::Stray;

/// Entries that are checked at once: 16 tiles.
const CHUNK: i64 = 4096;
/// Findings that wait for an explanation at most.
const PENDING: usize = 10_000;

/// What is wrong, as `verify_log` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Modified,
    Deleted,
    Unlogged,
    EntryAltered,
    EntryMissing,
    TileMismatch,
    HeadMismatch,
    SchemaChanged,
    /// Not a fault: it says what was erased on purpose.
    Redacted,
    /// Not tampering: the row went with a partition that left the table, which is on record.
    Detached,
    /// Not a fault: what cannot be said any more about entries of a source that was removed.
    SourceRemoved,
    /// The key was redacted, and the entry was not.
    Unredacted,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Modified => "modified",
            Kind::Deleted => "deleted",
            Kind::Unlogged => "unlogged",
            Kind::EntryAltered => "entry_altered",
            Kind::EntryMissing => "entry_missing",
            Kind::TileMismatch => "tile_mismatch",
            Kind::HeadMismatch => "head_mismatch",
            Kind::SchemaChanged => "schema_changed",
            Kind::Redacted => "redacted",
            Kind::Detached => "detached",
            Kind::SourceRemoved => "source_removed",
            Kind::Unredacted => "unredacted",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub kind: Kind,
    pub source_table: Option<String>,
    pub source_key: Option<String>,
    pub leaf_index: Option<i64>,
    pub expected: Option<Vec<u8>>,
    pub actual: Option<Vec<u8>>,
    pub detail: String,
}

impl Finding {
    fn of_log(kind: Kind, leaf_index: Option<i64>, detail: String) -> Finding {
        Finding {
            kind,
            source_table: None,
            source_key: None,
            leaf_index,
            expected: None,
            actual: None,
            detail,
        }
    }

    fn hashes(mut self, expected: Option<&Hash>, actual: Option<&Hash>) -> Finding {
        self.expected = expected.map(|h| h.as_bytes().to_vec());
        self.actual = actual.map(|h| h.as_bytes().to_vec());
        self
    }
}

/// How much was checked: nothing found means nothing if nothing was looked at.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Checked {
    entries: u64,
    rows: u64,
    tiles: u64,
    heads: u64,
    marks: u64,
    scanned: u64,
}

impl Checked {
    fn add(&mut self, other: &Checked) {
        self.entries += other.entries;
        self.rows += other.rows;
        self.tiles += other.tiles;
        self.heads += other.heads;
        self.marks += other.marks;
        self.scanned += other.scanned;
    }
}

enum Stage {
    /// What is left of pruned entries: heads and tiles, from a tree size and a tile on.
    Pruned {
        heads_after: i64,
        tiles_after: (i16, i64),
    },
    Entries,
    /// Of a source, what was not read along with the entries: from which gap on, and after which row.
    Unlogged {
        source: usize,
        gap: usize,
        after: Option<Vec<String>>,
    },
    Done,
}

/// A verification under way.
pub struct Verification {
    log: Log,
    head: Head,
    /// The next leaf index, and the end; both at tile borders, or the end at the log's.
    next: i64,
    end: i64,
    /// The leaf indexes that were asked for.
    from: i64,
    to: i64,
    whole: bool,
    /// The tree of the entries before `next`; `None` once a gap makes it unknowable.
    frontier: Option<Frontier>,
    rows: Rows,
    stage: Stage,
    /// Rows that differ from an entry, by that entry's leaf hash: if another row has that hash, it
    /// is the entry's key that was altered.
    pending: HashMap<Hash, Vec<Finding>>,
    pending_count: usize,
    /// Rows without an entry that may explain some of these.
    strays: Vec<Stray>,
    /// What helpers have found, and the root of the tree as far as they have come.
    found: Vec<Finding>,
    reached: Option<Vec<u8>>,
    checked: Checked,
    progress: Progress,
}

impl Verification {
    /// Begins to verify the leaf indexes `from .. to` (the whole log if `from` is 0 and `to` none), with
    /// helpers if `workers` is more than one.
    pub fn start(
        session: &Session,
        name: &str,
        from: i64,
        to: Option<i64>,
        workers: i32,
    ) -> Result<Verification, Error> {
        let log = logs::by_name(session, Snapshot::Statement, name)?;
        for source in sources::all(session, &log) {
            session.check_caller_reads(&log, &source)?;
        }
        let head = heads::latest(session, Snapshot::Statement, &log)?;
        let size = head.tree_size;
        let last = to.unwrap_or(size);
        if from < 0 || from > size {
            return Err(Error::IndexOutOfRange {
                log: log.name,
                index: from,
                size,
            });
        }
        if last < from || last > size {
            return Err(Error::SizeOutOfRange {
                log: log.name,
                wanted: last,
                size,
            });
        }
        let next = (from - from % CHUNK).max(log.pruned_to);
        let part = Part {
            next,
            end: size.min((last + 255) / 256 * 256).max(next),
            from,
            to: last,
            whole: from == 0 && to.is_none(),
            log: log.name.clone(),
        };
        let mut verification = Verification::new(session, log, head, &part)?;
        if part.whole && verification.log.pruned_to > 0 {
            verification.stage = Stage::Pruned {
                heads_after: 0,
                tiles_after: (-1, 0),
            };
        }
        verification.by_parts(workers);
        Ok(verification)
    }

    /// Begins to verify a part, as a helper.
    fn of_part(session: &Session, part: Part) -> Result<Verification, Error> {
        let log = logs::by_name(session, Snapshot::Statement, &part.log)?;
        let head = heads::latest(session, Snapshot::Statement, &log)?;
        Verification::new(session, log, head, &part)
    }

    fn new(session: &Session, log: Log, head: Head, part: &Part) -> Result<Verification, Error> {
        let next = part.next;
        let frontier = Frontier::load(
            &mut TreeReader::new(session, &log, Snapshot::Statement),
            tree_size(&log, next)?,
        )
        .map_err(|e| tree_error(&log, e))?;
        Ok(Verification {
            rows: Rows::load(session, &log, next == 0, |_| true)?,
            progress: Progress::start(Command::Verify, log.id, (part.end - next) as u64),
            whole: part.whole,
            next,
            end: part.end,
            from: part.from,
            to: part.to,
            frontier: Some(frontier),
            stage: Stage::Entries,
            found: Vec::new(),
            reached: None,
            pending: HashMap::new(),
            pending_count: 0,
            strays: Vec::new(),
            checked: Checked::default(),
            log,
            head,
        })
    }

    /// The findings of the next chunk; `None` when all is done.
    pub fn step(&mut self, session: &Session) -> Result<Option<Vec<Finding>>, Error> {
        pgrx::check_for_interrupts!();
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        match stage {
            Stage::Pruned {
                heads_after,
                tiles_after,
            } => {
                let (findings, next) = self.pruned(session, heads_after, tiles_after)?;
                self.stage = next;
                Ok(Some(findings))
            }
            Stage::Entries if self.next < self.end => {
                let findings = self.entries(session)?;
                self.stage = Stage::Entries;
                self.progress.done(self.checked.entries);
                Ok(Some(findings))
            }
            Stage::Entries => {
                let mut findings = std::mem::take(&mut self.found);
                findings.extend(self.rows.summary());
                if self.whole {
                    for (source_id, key, detail) in redaction::contradictions(session, &self.log) {
                        findings.push(Finding {
                            source_table: self.rows.name_of(source_id),
                            source_key: Some(key),
                            ..Finding::of_log(Kind::EntryAltered, None, detail.into())
                        });
                    }
                    findings.extend(self.edges(session)?);
                    for stray in std::mem::take(&mut self.strays) {
                        findings.extend(self.unlogged_row(stray, false));
                    }
                    self.checked.scanned += self.rows.walked();
                    self.stage = Stage::Unlogged {
                        source: 0,
                        gap: 0,
                        after: None,
                    };
                } else {
                    findings.extend(self.give_up_pending());
                    self.report(session);
                }
                Ok(Some(findings))
            }
            Stage::Unlogged { source, gap, after } => {
                let findings = self.unlogged(session, source, gap, after)?;
                if matches!(self.stage, Stage::Done) {
                    self.report(session);
                }
                Ok(Some(findings))
            }
            Stage::Done => Ok(None),
        }
    }

    /// Findings about leaf indexes that were not asked for are not told.
    fn asked_for(&self, leaf_index: i64) -> bool {
        (self.from..self.to).contains(&leaf_index)
    }

    fn give_up_pending(&mut self) -> Vec<Finding> {
        self.pending_count = 0;
        let mut findings: Vec<_> = self.pending.drain().flat_map(|(_, f)| f).collect();
        findings.sort_by_key(|f| f.leaf_index);
        findings
    }

    fn report(&self, session: &Session) {
        let Checked {
            entries,
            rows,
            tiles,
            heads,
            scanned,
            ..
        } = self.checked;
        let scan = match self.whole {
            true => format!(", {scanned} rows behind the watermark looked up"),
            false => String::new(),
        };
        let pruned = match self.log.pruned_to {
            0 => String::new(),
            before => format!("; entries before {before} were pruned and cannot be checked"),
        };
        let late = match late::count(session, &self.log) {
            0 => String::new(),
            count => format!("; {count} entries came late: see late_entries"),
        };
        pgrx::notice!(
            "log \"{}\": {entries} entries, {rows} source rows, {tiles} tile hashes and {heads} tree heads checked{scan}{pruned}{late}",
            self.log.name
        );
    }
}
