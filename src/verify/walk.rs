//! Entries against their source, both in order.
//!
//! A batch logs rows in the order of the source, so the rows of a run of entries are a range of it, and
//! reading that range costs a fraction of looking up each row. What does not fit is not judged here: an
//! entry without its row in the range is looked up by its key, and a row without its entry in the run by
//! whatever finds entries. So it does not matter for any finding whether a range was read, or which.

use crate::capture::key_equality::KeyEquality;
use crate::capture::order::OrderValue;
use crate::capture::scan::{self, Leaf, Scan};
use crate::capture::shape::Shape;
use crate::capture::statement::{self, Rows};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use merkle_tree::Hash;
use serde::{Deserialize, Serialize};

/// Fewer entries than this are looked up by key.
const WORTH: usize = 32;
/// Rows that are read at once.
const FETCH: i64 = 1024;
/// Entries that are passed over at most to find a row's.
const WINDOW: usize = 64;
/// With more rows than this that nobody has logged, the range is left to who looks for those.
const STRAYS: usize = 10_000;

/// Rows from after a position, or the source's beginning, up to another, or its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub after: Option<Vec<String>>,
    pub upto: Option<Vec<String>>,
}

/// How far a source has been walked.
#[derive(Default, Serialize, Deserialize)]
pub struct Covered {
    /// First to last.
    ranges: Vec<Range>,
    pub rows: u64,
}

impl Covered {
    /// What is left of the source.
    pub fn gaps(&self) -> Vec<Range> {
        let mut gaps = Vec::new();
        let mut after = None;
        for range in &self.ranges {
            if let Some(upto) = &range.after {
                gaps.push(Range {
                    after,
                    upto: Some(upto.clone()),
                });
            }
            after = range.upto.clone();
        }
        gaps.push(Range { after, upto: None });
        gaps
    }

    /// Goes on with what another has walked of the rows behind these.
    pub fn append(&mut self, other: Covered) {
        self.rows += other.rows;
        other
            .ranges
            .into_iter()
            .for_each(|range| self.extend(range));
    }

    fn extend(&mut self, range: Range) {
        match self.ranges.last_mut() {
            Some(last) if range.after == last.upto => last.upto = range.upto,
            _ => self.ranges.push(range),
        }
    }
}

/// A row without an entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stray {
    pub source_table: String,
    pub key: String,
    /// Its leaf hash.
    pub hash: Vec<u8>,
}

/// What a row says about its order.
#[derive(Clone)]
pub struct Facts {
    pub order: OrderValue,
    /// `None` where the key is the order value.
    pub order_text: Option<String>,
}

impl Facts {
    pub fn of(leaf: &Leaf) -> Facts {
        Facts {
            order: leaf.order.clone(),
            order_text: leaf.order_text.clone(),
        }
    }
}

/// What a walk has found out.
#[derive(Default)]
pub struct Walked {
    /// By place among the entries, what the row says about its order.
    pub facts: Vec<(usize, Facts)>,
    /// By place among the entries, where it was found: the leaf hash of the row that the entry is about.
    pub hashes: Vec<Option<Hash>>,
    /// Rows without an entry anywhere.
    pub unlogged: Vec<Leaf>,
}

/// Reads the rows from where the source was left to the last of `entries`, which are of one version;
/// from its beginning if these may be its first. `None` if there is no range to read.
pub fn walk(
    session: &Session,
    log: &Log,
    shape: &Shape,
    scan: &mut Scan,
    entries: &[&Entry],
    covered: &mut Covered,
    from_start: bool,
) -> Option<Walked> {
    let [first, .., last] = entries else {
        return None;
    };
    if entries.len() < WORTH {
        return None;
    }
    let position = |e: &Entry| scan::position(shape, &e.key, e.order.as_deref()).ok();
    let after = match covered.ranges.last() {
        Some(range) => range.upto.clone(),
        None if from_start => None,
        None => Some(position(first)?),
    };
    let upto = position(last)?;
    // Texts that are no values make it fail; the look-up by key tells which.
    let (walked, rows) = subtransaction::run(|| {
        let read = read(session, log, shape, scan, entries, after.as_deref(), &upto);
        read.unwrap_or_else(|error| error.raise())
    })
    .ok()??;
    covered.rows += rows;
    covered.extend(Range {
        after,
        upto: Some(upto),
    });
    Some(walked)
}

fn read(
    session: &Session,
    log: &Log,
    shape: &Shape,
    scan: &mut Scan,
    entries: &[&Entry],
    after: Option<&[String]>,
    upto: &[String],
) -> Result<Option<(Walked, u64)>, Error> {
    let rows = Rows::UpTo(upto);
    let statement = statement::rows(shape, scan.attributes(), after, rows, i64::MAX);
    let mut cursor = scan.open(Snapshot::Statement, &statement);
    let mut walked = Walked {
        hashes: vec![None; entries.len()],
        facts: Vec::new(),
        unlogged: Vec::new(),
    };
    let (mut next, mut rows) = (0, 0);
    let equality = KeyEquality::of(shape);
    loop {
        pgrx::check_for_interrupts!();
        let leaves = scan.fetch(&mut cursor, FETCH)?;
        if leaves.is_empty() {
            return Ok(Some((walked, rows)));
        }
        rows += leaves.len() as u64;
        let mut strays = Vec::new();
        for leaf in leaves {
            let window = &entries[next..entries.len().min(next + WINDOW)];
            match window.iter().position(|e| equality.same(&e.key, &leaf.key)) {
                Some(passed) => {
                    walked.hashes[next + passed] = Some(leaf.hash);
                    walked.facts.push((next + passed, Facts::of(&leaf)));
                    next += passed + 1;
                }
                None => strays.push(leaf),
            }
        }
        if !strays.is_empty() {
            let logged =
                entries::logged(session, Snapshot::Statement, log, shape.source.id, &strays)?;
            strays.retain(|leaf| !logged.contains(&leaf.key));
            walked.unlogged.extend(strays);
            if walked.unlogged.len() > STRAYS {
                return Ok(None);
            }
        }
    }
}
