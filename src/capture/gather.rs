//! Changes that the running transaction has made and no other can see yet: they wait in the backend's memory,
//! and go to the queue in one piece just before the transaction commits or is prepared.
//!
//! A subtransaction's changes are dropped when it is rolled back and become its parent's when it is committed.
//! What takes more memory than `merkle_log.capture_memory` is written to the queue early, by the subtransaction
//! that made it, so that the server itself takes it away on a rollback.

use super::change_order::{Order, Place, Rank};
use super::key_equality::{KeyEquality, Wanted};
use super::page::Item;
use super::queue::{self, Early, Pack, Writer};
use super::shape::Shape;
use super::trigger::Plan;
use crate::catalog::sources::Source;
use crate::pg::alloc;
use crate::pg::spi::Snapshot;
use crate::pg::xact::{self, Borders};
use crate::session::Session;
use crate::{settings, shared};
use leaf_format::Kind;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

/// The session's user, the role in force, the application's name, and when the statement began (microseconds since
/// 1970-01-01 00:00 UTC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub user: Rc<str>,
    pub role: Rc<str>,
    pub application: Rc<str>,
    pub at: i64,
}

/// A captured change. Its bytes lie in `Gathered::data`: key, leaf, salt.
struct Record {
    plan: u32,
    origin: u32,
    kind: Kind,
    rank: Rank,
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
    order: Order,
    /// Sources that were truncated, if nothing of theirs has been captured since and nothing was rolled back.
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

/// True if the transaction has truncated a source, and certainly captured nothing of it since.
pub fn is_truncated(source_id: i32) -> bool {
    GATHERED.with_borrow(|gathered| gathered.truncated.contains(&source_id))
}

/// True if the transaction has captured nothing that is not queued.
pub fn is_empty() -> bool {
    GATHERED.with_borrow(|gathered| gathered.records.is_empty() && gathered.early.is_empty())
}

/// True if the transaction has captured changes for a log, which are in no queue before it commits.
pub fn is_under_way(log_id: i32) -> bool {
    GATHERED.with_borrow(|gathered| {
        let all = 0..gathered.records.len();
        gathered.early.contains_key(&log_id) || gathered.logs(&all).contains(&log_id)
    })
}

/// Those of `keys` that have changes which no batch has logged: in the queue, or made by the transaction itself.
/// All of them, if the source was truncated.
pub fn waiting(
    session: &Session,
    snapshot: Snapshot,
    shape: &Shape,
    keys: Vec<String>,
) -> HashSet<String> {
    let wanted = Wanted::new(KeyEquality::of(shape), &keys);
    let mut found = captured(&shape.source, &wanted);
    if found.len() < keys.len() {
        found.extend(queue::waiting(session, snapshot, &shape.source, &wanted));
    }
    found
}

/// Those of `keys` that have changes which the transaction itself has made: batches do not see them yet.
pub fn waiting_here(session: &Session, shape: &Shape, keys: Vec<String>) -> HashSet<String> {
    let source = &shape.source;
    // What was written early is found where the queue is.
    match GATHERED.with_borrow(|gathered| gathered.early.contains_key(&source.log_id)) {
        true => waiting(session, Snapshot::Fresh, shape, keys),
        false => captured(source, &Wanted::new(KeyEquality::of(shape), &keys)),
    }
}

fn captured(source: &Source, wanted: &Wanted) -> HashSet<String> {
    let here: Option<HashSet<String>> = GATHERED.with_borrow(|gathered| {
        let of_source = |r: &&Record| gathered.plans[r.plan as usize].source_id() == source.id;
        let mut here = HashSet::new();
        for record in gathered.records.iter().filter(of_source) {
            if record.kind == Kind::Truncate {
                return None;
            }
            let key = &gathered.data[record.start..record.start + record.key as usize];
            here.insert(String::from_utf8_lossy(key).into_owned());
        }
        Some(here)
    });
    match here {
        None => wanted.all().cloned().collect(),
        Some(here) => {
            let same = here.iter().flat_map(|key| wanted.of(key));
            same.cloned().collect()
        }
    }
}

fn finish() {
    let queued = GATHERED.with_borrow_mut(|gathered| {
        gathered.closing = true;
        gathered.write_last()
    });
    if !queued.is_empty() {
        xact::after_commit(move || shared::wake_workers_of(&queued));
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
        (self.captured, self.order) = (0, Order::default());
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
        self.pack = Some(plan.pack());
        match change.kind {
            Kind::Truncate => {
                self.truncated.insert(plan.source_id());
            }
            _ if self.truncated.is_empty() => {}
            _ => {
                self.truncated.remove(&plan.source_id());
            }
        }
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
            plan: last_place(&mut self.plans, plan),
            origin: last_place(&mut self.origins, origin),
            kind: change.kind,
            rank: self.order.rank(change.place),
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

    /// Writes most of what the innermost subtransaction has made. The last of it in order waits, since what is
    /// captured next may belong among it.
    fn write_early(&mut self) {
        let Some(level) = self.levels.last() else {
            return;
        };
        let (first, data) = (level.first, level.data);
        let range = first..self.records.len();
        let mut written = vec![false; range.len()];
        for log_id in self.logs(&range) {
            let mut order = self.in_order(log_id, &range);
            order.truncate((order.len() * 3).div_ceil(4));
            let mut early = self.early.get(&log_id).copied().unwrap_or_default();
            early.add(self.ends(&order));
            self.write(log_id, &order, &mut early, true);
            self.early.insert(log_id, early);
            order.iter().for_each(|at| written[at - first] = true);
        }
        self.forget_written(first, data, &written);
    }

    /// Drops those of the records from `first` on, and of their bytes from `data` on, that were written.
    fn forget_written(&mut self, first: usize, data: usize, written: &[bool]) {
        let (mut next, mut end) = (first, data);
        for (at, written) in (first..).zip(written) {
            if !written {
                let record = &mut self.records[at];
                let length = (record.key + record.leaf + record.salt) as usize;
                self.data
                    .copy_within(record.start..record.start + length, end);
                record.start = end;
                end += length;
                self.records.swap(next, at);
                next += 1;
            }
        }
        self.records.truncate(next);
        self.data.truncate(end);
        self.data.shrink_to(settings::capture_memory());
        if first == 0 {
            let plans = std::mem::take(&mut self.plans);
            let origins = std::mem::take(&mut self.origins);
            for record in &mut self.records {
                record.plan = last_place(&mut self.plans, &plans[record.plan as usize]);
                record.origin = last_place(&mut self.origins, &origins[record.origin as usize]);
            }
        }
    }

    /// Writes all that is left, under the place in the queue that the transaction then has. The logs of which there was
    /// anything.
    fn write_last(&mut self) -> Vec<i32> {
        let range = 0..self.records.len();
        let mut logs = self.logs(&range);
        logs.extend(self.early.keys());
        logs.sort_unstable();
        logs.dedup();
        logs.retain(|log_id| self.dropped.iter().all(|(_, dropped)| dropped != log_id));
        for log_id in &logs {
            let order = self.in_order(*log_id, &range);
            let mut early = self.early.get(log_id).copied().unwrap_or_default();
            early.add(self.ends(&order));
            self.write(*log_id, &order, &mut early, false);
        }
        self.early.clear();
        self.records.clear();
        self.data.clear();
        self.levels.clear();
        logs
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

    /// The records of a log in the order in which their changes were made.
    fn in_order(&self, log_id: i32, range: &Range<usize>) -> Vec<usize> {
        let of_log = |at: &usize| self.plans[self.records[*at].plan as usize].log_id() == log_id;
        let mut order: Vec<usize> = range.clone().filter(of_log).collect();
        let rank = |at: &usize| self.records[*at].rank;
        if !order.is_sorted_by_key(rank) {
            order.sort_by_key(rank);
        }
        order
    }

    /// The first and the last rank of records that are in order.
    fn ends(&self, order: &[usize]) -> Option<(Rank, Rank)> {
        let rank = |at: &usize| self.records[*at].rank;
        Some((rank(order.first()?), rank(order.last()?)))
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
                    .then_some((record.number, record.rank)),
            });
        }
        writer.finish();
    }
}

/// The place of `item` at the end of `list`, to which it is added if something else stands there.
fn last_place<T>(list: &mut Vec<Rc<T>>, item: &Rc<T>) -> u32 {
    if list.last().is_none_or(|last| !Rc::ptr_eq(last, item)) {
        list.push(item.clone());
    }
    list.len() as u32 - 1
}
