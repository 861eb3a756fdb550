//! `verify_log`: everything computed again, from the source rows up.
//!
//! Three witnesses are compared for every tile of 256 entries: the source rows as they are now, the
//! entries' leaf hashes, and the tree above them (tiles and heads). What two of them agree on tells
//! which one was altered. The work is cut into chunks that keep nothing but findings, so memory
//! does not grow with the log; everything is read with the snapshot of the calling statement.

mod batches;
mod checkpoints;
mod configuration;
pub mod finding;
mod orders;
mod parts;
mod pruned;
pub mod row;
mod rows;
mod tiles;
mod twice;
mod unlogged;
mod walk;

use crate::catalog::logs::{self, Log};
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::parallel;
use crate::pg::progress::{Command, Progress};
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::redaction;
use crate::session::Session;
use crate::store::entries;
use crate::store::hash_index;
use crate::store::heads::{self, Head};
use crate::store::late;
use crate::store::set_aside;
use crate::store::tree::{TreeReader, tree_error, tree_size};
use batches::Batches;
use configuration::Record;
use finding::{Finding, Kind};
use merkle_tree::{EMPTY_ROOT, Frontier, Hash};
use orders::Orders;
use parts::Part;
use rows::Rows;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use walk::Stray;

/// Entries that are checked at once: 16 tiles.
const CHUNK: i64 = 4096;
/// Findings that wait for an explanation at most.
const PENDING: usize = 10_000;

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

#[derive(Clone)]
enum Stage {
    /// The log's settings and sources, against what is on record.
    Configuration,
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
    /// All is found; how much was checked is still to be said.
    Report,
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
    record: Record,
    batches: Batches,
    orders: Orders,
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
    /// helpers if `workers` is more than one. Where the tables do not even allow that, says why.
    pub fn start(
        session: &Session,
        name: &str,
        from: i64,
        to: Option<i64>,
        workers: i32,
    ) -> Result<(Option<Verification>, Vec<Finding>), Error> {
        match subtransaction::run(|| Verification::begin(session, name, from, to, workers)) {
            Ok(begun) => begun.map(|verification| (Some(verification), Vec::new())),
            Err(failure) if !failure.is_about_content() => failure.raise(),
            Err(failure) => Ok((None, vec![unreadable(&failure.message)])),
        }
    }

    fn begin(
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
        let record = Record::load(session);
        let log = recorded(&record, log);
        let (head, mut found) = last_head(session, &log)?;
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
        let mut verification = Verification::new(session, log, record, head, &part)?;
        if part.whole {
            verification.stage = Stage::Configuration;
        }
        verification.by_parts(workers);
        found.append(&mut verification.found);
        verification.found = found;
        Ok(verification)
    }

    /// Begins to verify a part, as a helper.
    fn of_part(session: &Session, part: Part) -> Result<Verification, Error> {
        let log = logs::by_name(session, Snapshot::Statement, &part.log)?;
        let record = Record::load(session);
        let log = recorded(&record, log);
        let (head, _) = last_head(session, &log)?;
        Verification::new(session, log, record, head, &part)
    }

    fn new(
        session: &Session,
        log: Log,
        record: Record,
        head: Head,
        part: &Part,
    ) -> Result<Verification, Error> {
        let next = part.next;
        let mut found = Vec::new();
        let frontier = Frontier::load(
            &mut TreeReader::new(session, &log, Snapshot::Statement),
            tree_size(&log, next)?,
        )
        .map_err(|e| tree_error(&log, e));
        let frontier = frontier
            .map_err(|e| found.push(unreadable(&e.to_string())))
            .ok();
        let since = match log.id {
            logs::ADMINISTRATION => Some(0),
            id => record.replay.as_ref().and_then(|r| r.first(id)),
        };
        Ok(Verification {
            rows: Rows::load(session, &log, &record, next == 0, |_| true)?,
            record,
            batches: Batches::since(since),
            orders: Orders::default(),
            progress: Progress::start(Command::Verify, log.id, (part.end - next) as u64),
            whole: part.whole,
            next,
            end: part.end,
            from: part.from,
            to: part.to,
            frontier,
            stage: Stage::Entries,
            found,
            reached: None,
            pending: HashMap::new(),
            pending_count: 0,
            strays: Vec::new(),
            checked: Checked::default(),
            log,
            head,
        })
    }

    /// The findings of the next chunk; `None` when all is done. What the tables hold never makes it fail: it
    /// says so, and goes on behind it.
    pub fn step(&mut self, session: &Session) -> Result<Option<Vec<Finding>>, Error> {
        pgrx::check_for_interrupts!();
        if parallel::is_parallel() {
            return self.advance(session);
        }
        let (stage, next) = (self.stage.clone(), self.next);
        let why = match subtransaction::run(|| self.advance(session)) {
            Ok(Ok(findings)) => return Ok(findings),
            Ok(Err(error)) if !error.is_about_content() => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(failure) if !failure.is_about_content() => failure.raise(),
            Err(failure) => failure.message,
        };
        self.stage = match stage {
            Stage::Configuration => self.after_configuration(),
            Stage::Pruned { .. } => Stage::Entries,
            Stage::Entries if next < self.end => Stage::Entries,
            Stage::Entries => self.after_entries(),
            Stage::Unlogged { source, .. } => Stage::Unlogged {
                source: source + 1,
                gap: 0,
                after: None,
            },
            Stage::Report | Stage::Done => Stage::Done,
        };
        if next < self.next {
            // The entries in between are unknown, and so is the tree from there on.
            self.frontier = None;
        }
        Ok(Some(vec![unreadable(&why)]))
    }

    fn advance(&mut self, session: &Session) -> Result<Option<Vec<Finding>>, Error> {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        match stage {
            Stage::Configuration => {
                let findings = self.configuration(session)?;
                self.stage = self.after_configuration();
                Ok(Some(findings))
            }
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
                self.batches.note(&findings);
                self.stage = Stage::Entries;
                self.progress.done(self.checked.entries);
                Ok(Some(findings))
            }
            Stage::Entries => {
                let mut findings = std::mem::take(&mut self.found);
                self.batches.note(&findings);
                findings.extend(self.rows.summary());
                if self.whole {
                    findings.extend(self.pruned_redactions(session));
                    for (source_id, key, detail) in redaction::contradictions(session, &self.log) {
                        findings.push(Finding {
                            source_table: self.rows.name_of(source_id),
                            source_key: Some(key),
                            ..Finding::of_log(Kind::EntryAltered, None, detail.into())
                        });
                    }
                    findings.extend(checkpoints::mismatches(session, &self.log, &self.head)?);
                    for at in hash_index::mismatches(session, &self.log, self.head.tree_size)? {
                        let detail = "merkle_hash_index does not lead to the entries from here on"
                            .to_owned();
                        findings.push(Finding::of_log(Kind::IndexMismatch, Some(at), detail));
                    }
                    for (source_id, key) in set_aside::misplaced(session, &self.log) {
                        let detail = "the hash of a key that is set aside is another".to_owned();
                        findings.push(Finding {
                            source_table: self.rows.name_of(source_id),
                            source_key: Some(key),
                            ..Finding::of_log(Kind::IndexMismatch, None, detail)
                        });
                    }
                    findings.extend(self.edges(session)?);
                    findings.extend(self.watermarks(session)?);
                    for stray in std::mem::take(&mut self.strays) {
                        findings.extend(self.unlogged_row(stray, false));
                    }
                    self.checked.scanned += self.rows.walked();
                }
                self.stage = self.after_entries();
                if matches!(self.stage, Stage::Report) {
                    findings.extend(self.give_up_pending());
                }
                Ok(Some(findings))
            }
            Stage::Unlogged { source, gap, after } => {
                self.stage = Stage::Report;
                self.unlogged(session, source, gap, after).map(Some)
            }
            Stage::Report => {
                self.report(session);
                Ok(Some(Vec::new()))
            }
            Stage::Done => Ok(None),
        }
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

    fn after_entries(&self) -> Stage {
        match self.whole {
            true => Stage::Unlogged {
                source: 0,
                gap: 0,
                after: None,
            },
            false => Stage::Report,
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
        let captured: Vec<&str> = self
            .rows
            .shapes()
            .into_iter()
            .filter(|shape| shape.source.by_trigger())
            .map(|shape| shape.source.name.as_str())
            .collect();
        // A row is not to blame where what its batch recorded about it was altered, nor a captured one whose last
        // entry may be one that is missing.
        for finding in &mut findings {
            let blames_captured = matches!(finding.kind, Kind::Modified | Kind::Deleted)
                && finding
                    .source_table
                    .as_deref()
                    .is_some_and(|t| captured.contains(&t));
            if blames_captured && self.batches.is_unfound(finding) {
                finding.kind = Kind::IndexMismatch;
                finding.detail = format!(
                    "{}; but a later entry of the row is not found by its key",
                    finding.detail
                );
                continue;
            }
            let has_lost = blames_captured && self.batches.entries_missing();
            if has_lost || finding.leaf_index.is_some_and(|at| self.batches.doubts(at)) {
                finding.kind = Kind::MetadataAltered;
                finding.detail = format!(
                    "{}; and what its batch recorded beside the hashes was altered",
                    finding.detail
                );
                self.batches.note_place(finding.leaf_index);
            }
        }
        findings.extend(self.batches.findings());
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

fn unreadable(why: &str) -> Finding {
    Finding::of_log(Kind::Unreadable, None, why.to_owned())
}

/// The log as it was put on record.
fn recorded(record: &Record, log: Log) -> Log {
    match &record.replay {
        Some(replay) => replay.log(log),
        None => log,
    }
}

/// The last tree head, and what is wrong with it. A head far beyond the last entry is not believed.
fn last_head(session: &Session, log: &Log) -> Result<(Head, Vec<Finding>), Error> {
    let stored = heads::last_stored(session, log);
    let mut findings = Vec::new();
    let Some((size, root)) = stored else {
        return Ok((Head::EMPTY, findings));
    };
    let root = Hash::try_from(root.as_slice()).unwrap_or_else(|_| {
        let detail = format!("the root recorded at tree size {size} is no hash");
        findings.push(Finding::of_log(Kind::HeadMismatch, Some(size - 1), detail));
        EMPTY_ROOT
    });
    let entries = entries::end(session, log).max(log.pruned_to);
    let believed = size.clamp(0, entries + CHUNK);
    let tree_size = match believed == size {
        true => size,
        false => {
            let detail = format!(
                "the last tree head is of size {size}, and there are entries up to {entries}"
            );
            findings.push(Finding::of_log(Kind::HeadMismatch, Some(entries), detail));
            entries
        }
    };
    let head = Head {
        tree_size,
        root,
        created_at: None,
    };
    Ok((head, findings))
}
