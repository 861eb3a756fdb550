//! `verify_log`: everything computed again, from the source rows up.
//!
//! Three witnesses are compared for every tile of 256 entries: the source rows as they are now, the
//! entries' leaf hashes, and the tree above them (tiles and heads). What two of them agree on tells
//! which one was altered. The work is cut into chunks that keep nothing but findings, so memory
//! does not grow with the log; everything is read with the snapshot of the calling statement.

mod acknowledged;
mod batches;
mod checkpoints;
mod conclusion;
mod configuration;
pub mod finding;
pub mod lookup;
mod marks;
mod orders;
mod parts;
pub mod passes;
mod pruned;
pub mod recorded;
pub mod row;
mod rows;
mod sealed;
pub mod slices;
mod stages;
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
use crate::session::Session;
use crate::store::entries;
use crate::store::heads::{self, Head};
use crate::store::tree::{TreeReader, tree_error, tree_size};
use batches::Batches;
use configuration::Record;
use finding::{Finding, Kind};
use merkle_tree::{EMPTY_ROOT, Frontier, Hash};
use orders::Orders;
use parts::Part;
use rows::Rows;
use serde::{Deserialize, Serialize};
use slices::Pass;
use stages::Stage;
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
    /// Entries that one step checks at most: a multiple of 256.
    span: i64,
    rows: Rows,
    record: Record,
    batches: Batches,
    orders: Orders,
    stage: Stage,
    /// What only a pass in slices has; `None` if all is read with one snapshot.
    pass: Option<Pass>,
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
        let frontier = stored_frontier(session, &log, next);
        found.extend(frontier.as_ref().err().map(|e| unreadable(&e.to_string())));
        let mut verification = Verification::new(session, log, record, head, &part, frontier.ok())?;
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
        let frontier = stored_frontier(session, &log, part.next);
        let found = frontier.as_ref().err().map(|e| unreadable(&e.to_string()));
        let verification = Verification::new(session, log, record, head, &part, frontier.ok())?;
        Ok(Verification {
            found: found.into_iter().collect(),
            ..verification
        })
    }

    fn new(
        session: &Session,
        log: Log,
        record: Record,
        head: Head,
        part: &Part,
        frontier: Option<Frontier>,
    ) -> Result<Verification, Error> {
        let next = part.next;
        let mut rows = Rows::of(session, &log, &record, next == 0);
        rows.open(session, &log, &record, |_| true);
        Ok(Verification::with(log, record, head, part, rows, frontier))
    }

    /// Of rows that are open as far as they are needed.
    fn with(
        log: Log,
        record: Record,
        head: Head,
        part: &Part,
        rows: Rows,
        frontier: Option<Frontier>,
    ) -> Verification {
        let next = part.next;
        let since = match log.id {
            logs::ADMINISTRATION => Some(0),
            id => record.replay.as_ref().and_then(|r| r.first(id)),
        };
        Verification {
            rows,
            record,
            span: CHUNK,
            pass: None,
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
            found: Vec::new(),
            reached: None,
            pending: HashMap::new(),
            pending_count: 0,
            strays: Vec::new(),
            checked: Checked::default(),
            log,
            head,
        }
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
        if next < self.next {
            // The entries in between are unknown, and so is the tree from there on.
            self.frontier = None;
        }
        if self.begin_source_again(&stage) {
            return Ok(Some(Vec::new()));
        }
        self.stage = self.without(session, stage);
        if let Some(pass) = &mut self.pass {
            pass.unread = true;
        }
        Ok(Some(vec![unreadable(&why)]))
    }
}

fn unreadable(why: &str) -> Finding {
    Finding::of_log(Kind::Unreadable, None, why.to_owned())
}

/// The right edge of the tree of the first `size` entries, as it is stored.
fn stored_frontier(session: &Session, log: &Log, size: i64) -> Result<Frontier, Error> {
    let mut reader = TreeReader::new(session, log, Snapshot::Statement);
    Frontier::load(&mut reader, tree_size(log, size)?).map_err(|e| tree_error(log, e))
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
