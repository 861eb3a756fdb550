//! Changes that the running transaction has made and no other can see yet: they wait in the backend's memory,
//! and go to the queue in one piece just before the transaction commits or is prepared.
//!
//! A subtransaction's changes are dropped when it is rolled back and become its parent's when it is committed.
//! What takes more memory than `merkle_log.capture_memory` is written to the queue early, by the subtransaction
//! that made it, so that the server itself takes it away on a rollback.

use super::change_order::{Place, Rank, ranks};
use super::page::Item;
use super::queue::{Early, Pack, Writer};
use super::trigger::Plan;
use crate::pg::alloc;
use crate::pg::trigger::TupleId;
use crate::pg::xact::{self, Borders};
use crate::{settings, shared};
use leaf_format::Kind;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

/// The session's user, the application's name, and when the statement began (microseconds since 1970-01-01
/// 00:00 UTC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub user: Rc<str>,
    pub application: Rc<str>,
    pub at: i64,
}

/// A captured change. Its bytes lie in `Gathered::data`: key, leaf, salt.
struct Record {
    plan: u32,
    origin: u32,
    kind: Kind,
    place: Place,
    /// How many changes were captured before it.
    number: u32,
    start: usize,
    key: u32,
    leaf: u32,
    salt: u32,
}

/// What one subtransaction has made: the records from `first` on, and their bytes from `data` on.
struct Level {
    subtransaction: pg_sys::SubTransactionId,
    first: usize,
    data: usize,
}

#[derive(Default)]
struct Gathered {
    records: Vec<Record>,
    data: Vec<u8>,
    levels: Vec<Level>,
    plans: Vec<Rc<Plan>>,
    origins: Vec<Rc<Origin>>,
    pack: Option<Pack>,
    /// By log: what was written early.
    early: BTreeMap<i32, Early>,
    captured: u32,
    /// The highest command among all changes so far, and that as it was when the client's statement began: no
    /// command up to there is still running.
    command: u32,
    settled: u32,
    /// When the client's statement began.
    statement: i64,
    /// Sources that were truncated, and of which nothing has been captured since.
    truncated: HashSet<i32>,
    /// Logs that were dropped, and the subtransactions that did it.
    dropped: Vec<(pg_sys::SubTransactionId, i32)>,
    /// What is captured from now on is captured while the transaction commits.
    closing: bool,
}

thread_local! {
    static GATHERED: RefCell<Gathered> = RefCell::default();
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

static BORDERS: Borders = Borders {
    before_commit: finish,
    ended: forget,
    rolled_back,
    merged,
};

/// A change, as `add` takes it.
pub struct Captured<'a> {
    pub kind: Kind,
    pub place: Place,
    pub key: &'a str,
    /// The leaf data, or its hash.
    pub leaf: &'a [u8],
    pub salt: Option<&'a [u8]>,
}

fn watch() {
    if !WATCHED.replace(true) {
        xact::watch(&BORDERS);
    }
}

/// Keeps a change until the transaction commits.
pub fn add(plan: &Rc<Plan>, origin: &Rc<Origin>, change: Captured) {
    watch();
    let subtransaction = xact::subtransaction();
    GATHERED.with_borrow_mut(|gathered| {
        gathered.enter(subtransaction);
        gathered.push(plan, origin, change);
        if gathered.is_full() {
            gathered.write_early();
        }
        if gathered.closing {
            gathered.write_last();
        }
    });
}

/// What the transaction has captured for a log is not queued: the log is dropped.
pub fn drop_log(log_id: i32) {
    let subtransaction = xact::subtransaction();
    GATHERED.with_borrow_mut(|gathered| gathered.dropped.push((subtransaction, log_id)));
    watch();
}

/// True if the transaction has truncated a source, and captured nothing of it since.
pub fn is_truncated(source_id: i32) -> bool {
    GATHERED.with_borrow(|gathered| gathered.truncated.contains(&source_id))
}

/// True if the transaction has captured changes for a log, which are in no queue before it commits.
pub fn is_under_way(log_id: i32) -> bool {
    GATHERED.with_borrow(|gathered| {
        gathered.early.contains_key(&log_id)
            || gathered
                .logs(&(0..gathered.records.len()))
                .contains(&log_id)
    })
}

fn finish() {
    let queued = GATHERED.with_borrow_mut(|gathered| {
        gathered.closing = true;
        gathered.write_last()
    });
    if queued {
        xact::after_commit(shared::wake_worker);
    }
}

/// Runs `f` on what is gathered. Where the process is ending in the middle of `add`, what it was at is in use, and
/// nothing is left to do.
fn unless_ending(f: impl FnOnce(&mut Gathered)) {
    GATHERED.with(|gathered| {
        if let Ok(mut gathered) = gathered.try_borrow_mut() {
            f(&mut gathered);
        }
    });
}

fn forget() {
    unless_ending(|gathered| {
        // The memory of an ordinary transaction is kept for the next.
        let small = gathered.data.capacity() <= KEPT && gathered.records.capacity() <= KEPT / SIZE;
        match small {
            true => gathered.clear(),
            false => *gathered = Gathered::default(),
        }
    });
}

fn rolled_back(subtransaction: pg_sys::SubTransactionId) {
    unless_ending(|gathered| {
        gathered.truncated.clear();
        gathered.dropped.retain(|(by, _)| *by != subtransaction);
        if let Some(level) = gathered
            .levels
            .pop_if(|l| l.subtransaction >= subtransaction)
        {
            gathered.records.truncate(level.first);
            gathered.data.truncate(level.data);
        }
    });
}

fn merged(subtransaction: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    unless_ending(|gathered| {
        for (by, _) in &mut gathered.dropped {
            if *by == subtransaction {
                *by = parent;
            }
        }
        let Some(level) = gathered
            .levels
            .pop_if(|l| l.subtransaction == subtransaction)
        else {
            return;
        };
        if gathered
            .levels
            .last()
            .is_none_or(|l| l.subtransaction != parent)
        {
            gathered.levels.push(Level {
                subtransaction: parent,
                ..level
            });
        }
    });
}

/// Bytes of memory that stay with the backend between transactions.
const KEPT: usize = 1 << 16;
const SIZE: usize = size_of::<Record>();

impl Gathered {
    fn clear(&mut self) {
        self.records.clear();
        self.data.clear();
        self.levels.clear();
        self.plans.clear();
        self.origins.clear();
        self.early.clear();
        self.truncated.clear();
        self.dropped.clear();
        (self.captured, self.command, self.settled, self.statement) = (0, 0, 0, 0);
        self.closing = false;
    }

    fn enter(&mut self, subtransaction: pg_sys::SubTransactionId) {
        if self
            .levels
            .last()
            .is_none_or(|l| l.subtransaction != subtransaction)
        {
            self.levels.push(Level {
                subtransaction,
                first: self.records.len(),
                data: self.data.len(),
            });
        }
    }

    fn push(&mut self, plan: &Rc<Plan>, origin: &Rc<Origin>, change: Captured) {
        if self.plans.last().is_none_or(|last| !Rc::ptr_eq(last, plan)) {
            self.plans.push(plan.clone());
            self.pack = Some(plan.pack());
        }
        if self
            .origins
            .last()
            .is_none_or(|last| !Rc::ptr_eq(last, origin))
        {
            if self.statement != origin.at {
                self.statement = origin.at;
                self.settled = self.command;
            }
            self.origins.push(origin.clone());
        }
        match change.kind {
            Kind::Truncate => {
                self.truncated.insert(plan.source_id());
            }
            _ if self.truncated.is_empty() => {}
            _ => {
                self.truncated.remove(&plan.source_id());
            }
        }
        self.command = self.command.max(change.place.command());
        self.captured += 1;
        let start = self.data.len();
        let salt = change.salt.map_or(0, <[u8]>::len);
        let more = change.key.len() + change.leaf.len() + salt;
        if more > KEPT {
            alloc::reserve_exact(&mut self.data, more);
        }
        self.data.extend_from_slice(change.key.as_bytes());
        self.data.extend_from_slice(change.leaf);
        self.data.extend_from_slice(change.salt.unwrap_or_default());
        self.records.push(Record {
            plan: self.plans.len() as u32 - 1,
            origin: self.origins.len() as u32 - 1,
            kind: change.kind,
            place: change.place,
            number: self.captured,
            start,
            key: change.key.len() as u32,
            leaf: change.leaf.len() as u32,
            salt: salt as u32,
        });
    }

    /// True if the innermost subtransaction has taken half of the memory that those around it have left; so
    /// all together stay within the bound, apart from very many that are nested.
    fn is_full(&self) -> bool {
        let Some(level) = self.levels.last() else {
            return false;
        };
        let before = level.data + level.first * SIZE;
        let own = self.data.len() - level.data + (self.records.len() - level.first) * SIZE;
        let room = settings::capture_memory().saturating_sub(before);
        own > (room / 2).max(KEPT.min(settings::capture_memory()))
    }

    /// Writes what the innermost subtransaction has made.
    fn write_early(&mut self) {
        let Some(level) = self.levels.last() else {
            return;
        };
        let (first, data) = (level.first, level.data);
        let range = first..self.records.len();
        let open = self.has_open_end(&range);
        for log_id in self.logs(&range) {
            let (order, ends) = self.in_order(log_id, &range);
            let mut early = self.early.get(&log_id).copied().unwrap_or_default();
            early.add(ends, open);
            self.write(log_id, &order, &mut early, true);
            self.early.insert(log_id, early);
        }
        self.records.truncate(first);
        self.data.truncate(data);
        self.data.shrink_to(settings::capture_memory());
        if first == 0 {
            self.plans.clear();
            self.origins.clear();
        }
    }

    /// Writes all that is left, under the place in the queue that the transaction then has. True if there was
    /// anything.
    fn write_last(&mut self) -> bool {
        let range = 0..self.records.len();
        let mut logs = self.logs(&range);
        logs.extend(self.early.keys());
        logs.sort_unstable();
        logs.dedup();
        logs.retain(|log_id| self.dropped.iter().all(|(_, dropped)| dropped != log_id));
        for log_id in &logs {
            let (order, ends) = self.in_order(*log_id, &range);
            let mut early = self.early.get(log_id).copied().unwrap_or_default();
            early.add(ends, false);
            self.write(*log_id, &order, &mut early, false);
        }
        self.early.clear();
        self.records.clear();
        self.data.clear();
        self.levels.clear();
        !logs.is_empty()
    }

    fn logs(&self, range: &Range<usize>) -> Vec<i32> {
        let mut logs: Vec<i32> = Vec::new();
        let mut last = u32::MAX;
        for record in &self.records[range.clone()] {
            if std::mem::replace(&mut last, record.plan) != record.plan {
                let log_id = self.plans[record.plan as usize].log_id();
                if !logs.contains(&log_id) {
                    logs.push(log_id);
                }
            }
        }
        logs
    }

    /// The records of a log in the order in which their changes were made, and the first and last of their
    /// ranks.
    fn in_order(&self, log_id: i32, range: &Range<usize>) -> (Vec<usize>, Option<(Rank, Rank)>) {
        let of_log = |at: &usize| self.plans[self.records[*at].plan as usize].log_id() == log_id;
        let places: Vec<usize> = range.clone().filter(of_log).collect();
        let ranks = ranks(places.iter().map(|at| &self.records[*at].place));
        let mut order: Vec<usize> = (0..places.len()).collect();
        if !ranks.is_sorted() {
            order.sort_by_key(|at| ranks[*at]);
        }
        let ends = order.first().zip(order.last());
        let ends = ends.map(|(first, last)| (ranks[*first], ranks[*last]));
        (order.into_iter().map(|at| places[at]).collect(), ends)
    }

    /// True if a version was ended whose making is not among `range` and may be captured later, by a command
    /// that is still running.
    fn has_open_end(&self, range: &Range<usize>) -> bool {
        let places = || self.records[range.clone()].iter().map(|r| &r.place);
        let made: HashSet<TupleId> = places().filter_map(Place::made).collect();
        let open = |tuple: TupleId| tuple.command() > self.settled && !made.contains(&tuple);
        places().filter_map(Place::ended).any(open)
    }

    /// Writes records of a log to its queue, in the order given.
    fn write(&self, log_id: i32, order: &[usize], early: &mut Early, is_early: bool) {
        let Some(pack) = self.pack.filter(Pack::exists) else {
            return;
        };
        let mut writer = Writer::new(pack, log_id, xact::id(), early, is_early);
        for at in order {
            let record = &self.records[*at];
            let (key, rest) = self.data[record.start..].split_at(record.key as usize);
            let (leaf, rest) = rest.split_at(record.leaf as usize);
            writer.add(Item {
                table: self.plans[record.plan as usize].captured_as(),
                origin: &self.origins[record.origin as usize],
                kind: record.kind,
                key: std::str::from_utf8(key).expect("a key is text"),
                leaf,
                salt: &rest[..record.salt as usize],
                place: writer
                    .keeps_places()
                    .then_some((record.number, record.place)),
            });
        }
        writer.finish();
    }
}
