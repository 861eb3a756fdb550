//! Retiring rows: they may be deleted from their source, and the log is their authority from then on.
//!
//! A row is retired only if it is there, is what was logged, and the log keeps its content. So what was tampered with before
//! stays a finding: the entry of a row that differs, or is gone already, is left out.

use crate::administration::{self, Act};
use crate::batch;
use crate::capture::row_key;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{self, Source};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::heads;
use crate::store::retired::{self, Retired};
use crate::verify::lookup::{Content, Lookup};
use pgrx::pg_sys;
use std::ops::Range;

/// Entries that are looked at together.
const CHUNK: i64 = 4096;

/// How far a call came.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rows that are retired now.
    pub retired: i64,
    /// Rows before the value that are not: there, and not what was logged; gone; or not kept.
    pub left: i64,
    /// The first of them, and why.
    pub first_left: Option<(String, i64, &'static str)>,
}

/// The type of the order column of a source that can have rows retired.
///
/// # Errors
/// If it is none, or the caller does not own it.
pub fn order_type(
    session: &Session,
    name: &str,
    relation: pg_sys::Oid,
) -> Result<pg_sys::Oid, Error> {
    let log = logs::by_name(session, Snapshot::Fresh, name)?;
    let source = sources::by_relation(session, &log, relation)?;
    session.check_caller_owns(&log, &source)?;
    if source.by_trigger() {
        return Err(Error::CaptureOption {
            table: source.name,
            option: "retire_rows",
            capture: source.capture.name(),
            hint: "Delete the rows: each deletion is an entry of its own, which says who did it, and verify_log finds nothing missing.",
        });
    }
    let lookup = Lookup::open(session, &log, source.id)?;
    Ok(lookup.shape().order().base_type)
}

/// Retires the rows with an order value before `before`, in its text form.
pub fn retire(
    session: &Session,
    name: &str,
    relation: pg_sys::Oid,
    before: &str,
) -> Result<Outcome, Error> {
    batch::check_writable(Some(name))?;
    let log = logs::lock_and_wait(session, name)?;
    let source = sources::by_relation(session, &log, relation)?;
    session.check_caller_owns(&log, &source)?;
    // What other transactions have committed before the log was locked counts.
    xact::with_new_snapshot(|| Retirement::of(session, &log, &source, before)?.run(session))
}

struct Retirement<'a> {
    log: &'a Log,
    source: &'a Source,
    before: &'a str,
    known: Retired,
    lookup: Lookup,
    /// The range that is growing, and how many entries of the source it has.
    open: Option<(Range<i64>, i64)>,
    done: Vec<i64>,
    outcome: Outcome,
}

impl<'a> Retirement<'a> {
    fn of(
        session: &Session,
        log: &'a Log,
        source: &'a Source,
        before: &'a str,
    ) -> Result<Retirement<'a>, Error> {
        Ok(Retirement {
            log,
            source,
            before,
            known: Retired::load(session, Snapshot::Statement, source.id),
            lookup: Lookup::open(session, log, source.id)?,
            open: None,
            done: Vec::new(),
            outcome: Outcome::default(),
        })
    }

    fn run(mut self, session: &Session) -> Result<Outcome, Error> {
        let size = heads::latest(session, Snapshot::Statement, self.log)?.tree_size;
        let mut next = self.known.first_not(self.log.pruned_to);
        while next < size {
            pgrx::check_for_interrupts!();
            let end = size.min(next + CHUNK);
            let read = entries::between(session, self.log, next, end)?;
            let of_source = |entry: &Entry| entry.source_id == self.source.id;
            let candidates: Vec<Entry> = read.into_iter().filter(of_source).collect();
            self.look(session, candidates)?;
            next = end;
        }
        self.close(session);
        if !self.done.is_empty() {
            let act = Act::RowsRetired {
                source_id: self.source.id,
                ranges: self.done,
                entries: self.outcome.retired,
                left: self.outcome.left,
            };
            administration::record(session, act);
        }
        Ok(self.outcome)
    }

    /// Looks at the next entries of the source.
    fn look(&mut self, session: &Session, candidates: Vec<Entry>) -> Result<(), Error> {
        let shape = self.lookup.shape();
        let order = |entry: &Entry| {
            let text = entry.order.as_deref().unwrap_or(&entry.key);
            row_key::order_value(shape, text)
        };
        let bound = row_key::order_value(shape, self.before);
        let wanted: Vec<bool> = candidates
            .iter()
            .map(|entry| !self.known.contains(entry.leaf_index) && order(entry) < bound)
            .collect();
        let asked: Vec<Entry> = candidates
            .iter()
            .zip(&wanted)
            .filter(|(_, wanted)| **wanted)
            .map(|(entry, _)| entry.clone())
            .collect();
        let mut contents = self.lookup.contents(session, self.log, &asked)?.into_iter();
        for (entry, wanted) in candidates.into_iter().zip(wanted) {
            let content = wanted.then(|| contents.next()).flatten();
            match content {
                Some(Content::AsLogged) => self.add(entry.leaf_index),
                Some(Content::Redacted) | None => self.close(session),
                Some(Content::Other(why)) => {
                    self.close(session);
                    self.outcome.left += 1;
                    let first = &mut self.outcome.first_left;
                    first.get_or_insert((entry.key, entry.leaf_index, why));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, leaf_index: i64) {
        let (range, entries) = self.open.get_or_insert((leaf_index..leaf_index, 0));
        range.end = leaf_index + 1;
        *entries += 1;
        self.outcome.retired += 1;
    }

    /// Ends the range that is growing: the next entry of the source is not in it.
    fn close(&mut self, session: &Session) {
        if let Some((range, entries)) = self.open.take() {
            retired::insert(session, self.source.id, &range, entries, self.before);
            self.done.push(range.start);
        }
    }
}
