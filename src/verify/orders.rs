//! The order of entries: each entry's order value against its row, entries without one against the order of
//! their keys, the marks of the order index both ways, and watermarks against the last entries.

use super::Verification;
use super::finding::{Finding, Kind};
use super::rows::Row;
use super::twice::Suspects;
use super::walk::Facts;
use crate::capture::order::{OrderValue, SortKey};
use crate::capture::row_key;
use crate::capture::scan::{self, Scan};
use crate::capture::shape::Shape;
use crate::capture::statement;
use crate::capture::table::Attribute;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, OF_LOG, Source};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::session::Session;
use crate::store::entries::{self, Entry};
use crate::store::{key_index, late, order_index};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

/// Entries with the greatest order value of a source that are remembered: the last of them.
const TIES: usize = 1_000;

/// What the entries checked so far say about the order of their sources.
#[derive(Default)]
pub struct Orders {
    /// By source: the entries with the greatest order value, in order of leaf index.
    tops: HashMap<i32, Vec<Top>>,
    /// By source: the key of the last entry in the order of keys whose row is what was logged.
    last: HashMap<i32, (SortKey, String)>,
    /// By source: the least order value ahead of the watermark whose row has an entry, and its text.
    ahead: HashMap<i32, (OrderValue, String)>,
}

#[derive(Clone)]
struct Top {
    value: OrderValue,
    entry: TopEntry,
}

/// An entry that may be the one a watermark stands at.
#[derive(Clone, Serialize, Deserialize)]
struct TopEntry {
    key: String,
    order: Option<String>,
}

/// What one part of a verification leaves for the whole.
#[derive(Default, Serialize, Deserialize)]
pub struct OrderNotes {
    tops: Vec<(i32, Vec<TopEntry>)>,
    ahead: Vec<(i32, String)>,
    last: Vec<(i32, String)>,
}

impl OrderNotes {
    /// Takes out what is about some sources.
    pub fn take(&mut self, sources: &[i32]) -> OrderNotes {
        fn taken<T>(notes: &mut Vec<(i32, T)>, sources: &[i32]) -> Vec<(i32, T)> {
            let (taken, left) = std::mem::take(notes)
                .into_iter()
                .partition(|(id, _)| sources.contains(id));
            *notes = left;
            taken
        }
        OrderNotes {
            tops: taken(&mut self.tops, sources),
            ahead: taken(&mut self.ahead, sources),
            last: taken(&mut self.last, sources),
        }
    }

    pub fn append(&mut self, other: OrderNotes) {
        self.tops.extend(other.tops);
        self.ahead.extend(other.ahead);
        self.last.extend(other.last);
    }
}

impl Orders {
    pub fn notes(self) -> OrderNotes {
        fn texts<T>(values: HashMap<i32, (T, String)>) -> Vec<(i32, String)> {
            let text = |(id, (_, text))| (id, text);
            values.into_iter().map(text).collect()
        }
        let entries = |tops: Vec<Top>| tops.into_iter().map(|top| top.entry).collect();
        let tops = self.tops.into_iter();
        OrderNotes {
            tops: tops.map(|(id, tops)| (id, entries(tops))).collect(),
            ahead: texts(self.ahead),
            last: texts(self.last),
        }
    }

    /// Takes over what was found out about the entries behind these.
    pub fn absorb(&mut self, notes: OrderNotes, shapes: &[&Shape]) {
        let value = |source_id: i32, text: &str| {
            let shape = shapes.iter().find(|s| s.source.id == source_id)?;
            value_of(shape, text)
        };
        for (source_id, text) in notes.ahead {
            if let Some(value) = value(source_id, &text) {
                self.note_ahead(source_id, value, &text);
            }
        }
        for (source_id, text) in notes.last {
            let key = value(source_id, &text).and_then(|value| value.sort_key());
            if let Some(key) = key {
                self.last.insert(source_id, (key, text));
            }
        }
        for (source_id, entries) in notes.tops {
            let Some(shape) = shapes.iter().find(|s| s.source.id == source_id) else {
                continue;
            };
            for entry in entries {
                if let Some(value) = value_of(shape, entry.order.as_ref().unwrap_or(&entry.key)) {
                    self.push(source_id, Top { value, entry });
                }
            }
        }
    }

    fn note_ahead(&mut self, source_id: i32, value: OrderValue, text: &str) {
        let least = self.ahead.get(&source_id);
        if least.is_none_or(|(least, _)| value < *least) {
            self.ahead.insert(source_id, (value, text.to_owned()));
        }
    }

    /// The greatest order value of a source so far.
    fn top(&self, source_id: i32) -> Option<&OrderValue> {
        self.tops.get(&source_id)?.first().map(|top| &top.value)
    }

    fn push(&mut self, source_id: i32, top: Top) {
        let tops = self.tops.entry(source_id).or_default();
        match tops.first().map(|best| top.value.cmp(&best.value)) {
            Some(Ordering::Less) => return,
            Some(Ordering::Greater) => tops.clear(),
            _ => {}
        }
        if tops.len() == TIES {
            tops.remove(0);
        }
        tops.push(top);
    }
}

/// An order value from its text; `None` where the text is no value of the order column's type.
fn value_of(shape: &Shape, text: &str) -> Option<OrderValue> {
    subtransaction::run(|| row_key::order_value(shape, text)).ok()
}

impl Source {
    /// True if entries are ordered by their keys alone.
    fn orders_by_key(&self) -> bool {
        let order = self.order_column.as_ref();
        order.is_some_and(|order| self.key_columns.as_slice() == std::slice::from_ref(order))
    }
}

impl Verification {
    /// Checks the order values of entries, and that those without one can be found.
    pub(super) fn orders(
        &mut self,
        session: &Session,
        entries: &[Entry],
        rows: &[Row],
    ) -> Result<Vec<Finding>, Error> {
        let facts = self.rows.take_facts();
        let late = match (entries.first(), entries.last()) {
            (Some(first), Some(last)) => {
                late::between(session, &self.log, first.leaf_index, last.leaf_index + 1)
            }
            _ => HashSet::new(),
        };
        let mut findings = Vec::new();
        let mut marked: HashMap<i32, i64> = HashMap::new();
        let mut wanted = Vec::new();
        let mut suspects = Suspects::default();
        for (entry, row) in entries.iter().zip(rows) {
            let logged =
                matches!(row, Row::Is(hash) if hash.as_bytes().as_slice() == entry.leaf_hash);
            let known = facts.get(&entry.leaf_index).filter(|_| logged);
            let problem = match self.rows.source(entry.source_id) {
                _ if entry.source_id == OF_LOG => unordered(entry),
                Some(source) if source.by_trigger() => unordered(entry),
                Some(source) => {
                    let by_key = source.orders_by_key();
                    let shape = self.rows.shape(entry.source_id);
                    let is_late = late.contains(&entry.leaf_index);
                    let before = self.orders.top(entry.source_id).cloned();
                    let problem =
                        order_problem(entry, by_key, shape, known, is_late, &mut self.orders);
                    let after = self.orders.top(entry.source_id);
                    suspects.note(entry, by_key, is_late, before.as_ref(), after);
                    problem
                }
                None => None,
            };
            if entry.order.is_none() && problem.is_none() && entry.source_id != OF_LOG {
                let tile = order_index::tile_of(entry.leaf_index);
                if marked.insert(entry.source_id, tile) != Some(tile) {
                    wanted.push(entry);
                }
            }
            if let Some(problem) = problem {
                findings.push(self.of_entry(Kind::EntryAltered, entry, problem));
            }
        }
        findings.extend(self.logged_twice(session, suspects)?);
        self.checked.marks += wanted.len() as u64;
        for entry in self.rows.unmarked(session, wanted)? {
            let detail = "the order index does not lead to the entry".to_owned();
            findings.push(self.of_entry(Kind::IndexMismatch, entry, detail));
        }
        let said: HashSet<Option<i64>> = findings.iter().map(|f| f.leaf_index).collect();
        for entry in key_index::misplaced(session, &self.log, entries) {
            if said.contains(&Some(entry.leaf_index)) {
                continue;
            }
            let detail =
                "the entry is not found by its key: the key or its hash was altered".to_owned();
            findings.push(self.of_entry(Kind::IndexMismatch, entry, detail));
        }
        findings.retain(|f| f.leaf_index.is_some_and(|at| self.asked_for(at)));
        Ok(findings)
    }

    fn of_entry(&self, kind: Kind, entry: &Entry, detail: String) -> Finding {
        Finding {
            source_table: self.rows.name_of(entry.source_id),
            source_key: Some(entry.key.clone()),
            ..Finding::of_log(kind, Some(entry.leaf_index), detail)
        }
    }

    /// Compares the watermarks with the last entries of their sources, and goes on with what they should be.
    pub(super) fn watermarks(&mut self, session: &Session) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        // Where entries were altered or are not covered by a head, they do not tell.
        let end = entries::end(session, &self.log);
        // Nor where a pass could not follow the log.
        if self.batches.entries_damaged() || end > self.head.tree_size || !self.is_at_the_end() {
            return Ok(findings);
        }
        let mut right = Vec::new();
        for shape in self.rows.shapes() {
            let source = &shape.source;
            let expected = match self.orders.tops.get(&source.id) {
                _ if source.by_trigger() => None,
                Some(tops) => expected(session, &self.log, shape, tops)?,
                None if self.record.replay.is_none() => continue,
                None if has_passed(session, &self.log, shape, None) => source.watermark.clone(),
                None => {
                    let replay = self.record.replay.as_ref();
                    replay.and_then(|r| r.watermark(source.id))
                }
            };
            if expected != source.watermark {
                findings.push(Finding {
                    source_table: Some(source.name.clone()),
                    ..Finding::of_log(
                        Kind::WatermarkAltered,
                        None,
                        "the watermark is not at the source's last entry".to_owned(),
                    )
                });
                right.push((source.id, expected));
            }
        }
        // Of a source that cannot be read now it is known all the same that triggers capture it.
        let shown: HashSet<i32> = self.rows.shapes().iter().map(|s| s.source.id).collect();
        let stored = sources::all(session, &self.log).into_iter();
        let captured = stored.filter(|s| !s.removed && s.by_trigger() && !shown.contains(&s.id));
        findings.extend(
            captured
                .filter(|s| s.watermark.is_some())
                .map(|source| Finding {
                    source_table: Some(source.name),
                    ..Finding::of_log(
                        Kind::WatermarkAltered,
                        None,
                        "a source that triggers capture has no watermark".to_owned(),
                    )
                }),
        );
        findings.extend(self.logged_ahead(session));
        for (source_id, watermark) in right {
            self.correct_watermark(source_id, watermark);
        }
        Ok(findings)
    }
}

impl Verification {
    /// Rows ahead of a watermark that have an entry would be logged again where the source does not say so.
    fn logged_ahead(&self, session: &Session) -> Vec<Finding> {
        let recorded: HashMap<i32, String> = session
            .read(
                "SELECT s.source_id, s.logged_ahead FROM @extschema@.verification_sources s
                  WHERE s.log_id = $1 AND s.logged_ahead IS NOT NULL",
                &[self.log.id.into()],
                |row| (row.required(0), row.required(1)),
            )
            .into_iter()
            .collect();
        let mut findings = Vec::new();
        for shape in self.rows.shapes() {
            let source = &shape.source;
            let Some((least, text)) = self.orders.ahead.get(&source.id) else {
                continue;
            };
            let said = recorded
                .get(&source.id)
                .and_then(|text| value_of(shape, text));
            if said.is_none_or(|said| said > *least) {
                let detail = format!(
                    "rows ahead of the watermark have entries, from order value {text} on, and logged_ahead does not say so"
                );
                findings.push(Finding {
                    source_table: Some(source.name.clone()),
                    ..Finding::of_log(Kind::WatermarkAltered, None, detail)
                });
            }
        }
        findings
    }
}

/// Entries in the order of arrival are found by their keys, and have an order value for that.
fn unordered(entry: &Entry) -> Option<String> {
    let unfindable = "it has no order value, and so is not found by its key";
    entry.order.is_none().then(|| unfindable.to_owned())
}

fn order_problem(
    entry: &Entry,
    by_key: bool,
    shape: Option<&Shape>,
    known: Option<&Facts>,
    is_late: bool,
    orders: &mut Orders,
) -> Option<String> {
    match &entry.order {
        None if !by_key => return unordered(entry),
        Some(order) if by_key && *order != entry.key => {
            return Some("its order value is not its key".to_owned());
        }
        _ => {}
    }
    let shape = shape?;
    let text = entry.order.as_ref().unwrap_or(&entry.key);
    let right = known.filter(|facts| by_key || facts.order_text.as_ref() == Some(text));
    let value = match right {
        Some(facts) => Some(facts.order.clone()),
        None => value_of(shape, text),
    };
    let Some(value) = value else {
        return (!by_key).then(|| "its order value is no value of the order column".to_owned());
    };
    if known.is_some_and(|facts| facts.order != value) && shape.retyped(shape.order()).is_none() {
        return Some("its order value is not that of its row".to_owned());
    }
    if entry.order.is_none() {
        let key = value.sort_key();
        let last = orders.last.get(&entry.source_id);
        match key {
            // What an altered entry says is not held against the others.
            Some(key) if last.is_none_or(|(last, _)| *last < key) => {
                if known.is_some() {
                    let text = entry.key.clone();
                    orders.last.insert(entry.source_id, (key, text));
                }
            }
            _ => {
                return Some(
                    "it is not in the order of keys, and so is not found by its own".to_owned(),
                );
            }
        }
    }
    // A watermark stands at an entry that a batch appended, not at one that was logged late.
    if is_late {
        let watermark = shape.source.watermark.as_ref().and_then(|w| w.first());
        let watermark = watermark.and_then(|text| value_of(shape, text));
        let on_line = !matches!(value, OrderValue::First | OrderValue::Last);
        if known.is_some() && on_line && watermark.is_none_or(|w| value > w) {
            orders.note_ahead(entry.source_id, value, text);
        }
        return None;
    }
    let entry_of = TopEntry {
        key: entry.key.clone(),
        order: entry.order.clone(),
    };
    orders.push(
        entry.source_id,
        Top {
            value,
            entry: entry_of,
        },
    );
    None
}

/// What a watermark should be. Of entries with one order value, batches log the one with the greatest key last;
/// `reconcile` may have logged others after it, or rows ahead of it, which batches then pass.
fn expected(
    session: &Session,
    log: &Log,
    shape: &Shape,
    tops: &[Top],
) -> Result<Option<Vec<String>>, Error> {
    let position = |top: &Top| scan::position(shape, &top.entry.key, top.entry.order.as_deref());
    let Some(top) = tops.last() else {
        return Ok(None);
    };
    let last = position(top)?;
    let stored = shape.source.watermark.as_ref();
    let among = |stored: &Vec<String>| tops.iter().any(|t| position(t).is_ok_and(|p| p == *stored));
    match stored {
        Some(stored) if *stored == last => Ok(Some(last)),
        Some(stored) if among(stored) || has_passed(session, log, shape, Some(top)) => {
            // A row after it that has an entry would be logged again.
            let mut scan = Scan::new(log, shape, shape.current())?;
            let after = statement::Rows::UpTo(&last);
            let sql = statement::rows(shape, scan.attributes(), Some(stored), after, TIES as i64);
            let rows = scan.all(Snapshot::Statement, &sql)?;
            let keys: HashSet<&String> = tops.iter().map(|t| &t.entry.key).collect();
            match rows.iter().any(|row| keys.contains(&row.key)) {
                true => Ok(Some(last)),
                false => Ok(Some(stored.clone())),
            }
        }
        _ => Ok(Some(last)),
    }
}

/// True if the watermark stands behind the last entry that a batch appended, at a row that `reconcile` had logged
/// before the batch came to it. A row without an entry that it may have been moved past is a finding of its own.
fn has_passed(session: &Session, log: &Log, shape: &Shape, last: Option<&Top>) -> bool {
    let Some(stored) = &shape.source.watermark else {
        return false;
    };
    let value = stored.first().and_then(|text| value_of(shape, text));
    if value.is_none_or(|value| last.is_some_and(|last| value < last.value)) {
        return false;
    }
    let part = |key: &Attribute| {
        let place = shape.sort.iter().position(|s| s.attnum == key.attnum)?;
        stored.get(place).cloned()
    };
    let Some(parts) = shape.key.iter().map(part).collect() else {
        return false;
    };
    let key = row_key::text(parts);
    let found = key_index::find(session, Snapshot::Statement, log, shape.source.id, &[key]);
    let is_late = |index: i64| !late::between(session, log, index, index + 1).is_empty();
    found.into_iter().any(|(_, index)| is_late(index))
}
