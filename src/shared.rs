//! What the processes of a server share: the background workers' places, and what each log has done
//! since the server started. Every field is an atomic, and nothing here is needed to be right: without
//! `shared_preload_libraries` there is none of it.
//!
//! The node cache lies behind it ([`crate::cache`]).

use crate::pg::latch::SharedLatch;
use crate::pg::{server, shmem};
use crate::session::Session;
use crate::settings;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

/// Workers that all databases can have together.
const WORKERS: usize = 128;
/// Sources that ended a worker, as many as its successors know of.
const ENDED_BY: usize = 16;
/// Logs that can have counters.
const LOGS: usize = 1024;

/// The number of a database's first worker, which does what is done once for all logs.
pub const FIRST: u32 = 0;

const ORDER: Ordering = Ordering::SeqCst;

/// The owner of a place that nobody has taken.
const FREE: u64 = 0;
/// No owner: a database's number in its upper half is never so high.
const TAKING: u64 = u64::MAX;

#[repr(C)]
pub struct Shared {
    launcher: SharedLatch,
    workers: [Worker; WORKERS],
    logs: [LogCounters; LOGS],
    /// A clock for the cache: counts what was put in.
    pub cache_clock: AtomicU64,
}

/// Why a database has no worker now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It stopped or failed: start it again soon.
    Stopped = 0,
    /// There is nothing for it to do: no extension, or one of another version.
    NothingToDo = 1,
}

/// A background worker of one database.
#[repr(C)]
pub struct Worker {
    /// The database in the lower half, and the worker's number among those of the database in the upper; 0 is free.
    place: AtomicU64,
    pub pid: AtomicI32,
    latch: SharedLatch,
    /// A trigger has queued changes.
    queued: AtomicBool,
    /// Someone asks for a run now.
    asked: AtomicBool,
    left: AtomicU32,
    /// When it last went round its loop: microseconds since 2000.
    pub heartbeat: AtomicI64,
    /// Of a database's first worker: the sources that ended one of them when their queries were planned; 0 where there
    /// is none.
    ended_by: [AtomicI32; ENDED_BY],
}

/// What one log has done since the server started. Times are microseconds since 2000, 0 for never.
#[repr(C)]
pub struct LogCounters {
    /// Database and extension; `FREE`, or `TAKING` while a process writes whose it is to be.
    owner: AtomicU64,
    log_id: AtomicI32,
    failures: AtomicI32,
    pub cache_hits: AtomicU64,
    pub cache_misses: AtomicU64,
    pub batches: AtomicU64,
    pub entries: AtomicU64,
    pub errors: AtomicU64,
    pub last_run_at: AtomicI64,
    pub next_run_at: AtomicI64,
    pub last_reconciled_at: AtomicI64,
    /// Duration of the last run, in microseconds.
    pub last_duration: AtomicI64,
    run_now: AtomicBool,
    /// Counts the changes of the log's tree heads; odd while one is under way.
    heads: AtomicU64,
}

/// What to ask the server for, in bytes; the cache begins there.
pub const SIZE: usize = size_of::<Shared>().next_multiple_of(64);

pub fn get() -> Option<&'static Shared> {
    // SAFETY: made of atomics, which are valid when zero; `lib.rs` asks for SIZE bytes and more.
    unsafe { shmem::part(0) }
}

/// The place of this process, if it is a background worker.
pub fn my_worker() -> Option<&'static Worker> {
    let mut workers = get()?.workers_of(server::my_database());
    workers.find(|worker| worker.pid.load(ORDER) == server::my_pid())
}

/// The worker of this database that does what is done once for all logs; its place may be empty.
pub fn first_worker() -> Option<&'static Worker> {
    get()?.worker_of(server::my_database(), FIRST)
}

/// The workers of this database that run, the one that was heard of the longest ago first; none unless all run that
/// there should be.
pub fn running_workers() -> Vec<&'static Worker> {
    let place = |number| get()?.worker_of(server::my_database(), number);
    let running = |number| place(number).filter(|w| w.pid.load(ORDER) != 0);
    let all: Option<Vec<&Worker>> = (FIRST..settings::workers()).map(running).collect();
    let mut all = all.unwrap_or_default();
    all.sort_by_key(|worker| worker.heartbeat.load(ORDER));
    all
}

/// The worker of this database that a log is run by, with the setting as it is; its place may be empty.
pub fn worker_of_log(log_id: i32) -> Option<&'static Worker> {
    let number = number_of_log(log_id, settings::workers());
    get()?.worker_of(server::my_database(), number)
}

/// The number of the worker, of so many, that runs a log.
pub fn number_of_log(log_id: i32, workers: u32) -> u32 {
    log_id.unsigned_abs() % workers
}

fn place(database: pg_sys::Oid, number: u32) -> u64 {
    u64::from(number) << 32 | u64::from(database.to_u32())
}

impl Shared {
    pub fn worker_of(&self, database: pg_sys::Oid, number: u32) -> Option<&Worker> {
        let place = place(database, number);
        self.workers.iter().find(|w| w.place.load(ORDER) == place)
    }

    /// The places that workers of a database have or had.
    pub fn workers_of(&self, database: pg_sys::Oid) -> impl Iterator<Item = &Worker> {
        let is_its = move |w: &&Worker| w.database() == database.to_u32();
        self.workers.iter().filter(is_its)
    }

    /// The place of a database's worker, kept from its first to its last; `None` if all are taken.
    fn place_for(&self, database: pg_sys::Oid, number: u32) -> Option<&Worker> {
        self.worker_of(database, number).or_else(|| {
            self.workers.iter().find(|w| {
                let taken = place(database, number);
                w.place.compare_exchange(0, taken, ORDER, ORDER).is_ok()
            })
        })
    }

    /// Makes this process the worker of `database` with this number; `None` if there is one, or no place.
    pub fn claim(&self, database: pg_sys::Oid, number: u32) -> Option<&Worker> {
        let worker = self.place_for(database, number)?;
        let claimed = worker
            .pid
            .compare_exchange(0, server::my_pid(), ORDER, ORDER);
        claimed.ok()?;
        worker.latch.set_to_mine();
        worker.asked.store(true, ORDER);
        Some(worker)
    }

    /// True if a worker of `database` runs, or has said that there is nothing for it to do.
    pub fn state_of(&self, database: pg_sys::Oid, number: u32) -> (bool, Left) {
        match self.worker_of(database, number) {
            Some(worker) => (
                worker.pid.load(ORDER) != 0,
                match worker.left.load(ORDER) {
                    0 => Left::Stopped,
                    _ => Left::NothingToDo,
                },
            ),
            None => (false, Left::Stopped),
        }
    }

    /// Frees the places of databases that are gone.
    pub fn forget_all_but(&self, databases: &[pg_sys::Oid]) {
        for worker in &self.workers {
            let there = databases.iter().any(|d| d.to_u32() == worker.database());
            if worker.database() != 0 && !there && worker.pid.load(ORDER) == 0 {
                worker.left.store(0, ORDER);
                worker.place.store(0, ORDER);
            }
        }
    }

    pub fn i_am_launcher(&self) {
        self.launcher.set_to_mine();
    }

    /// Lets the launcher look after this database at once.
    pub fn poke_launcher(&self) {
        for worker in self.workers_of(server::my_database()) {
            worker.say_why(Left::Stopped);
        }
        self.launcher.wake();
    }

    /// The counters of a log of this database, which must exist: it is given a place if it has none.
    /// `None` if there is no place left.
    pub fn counters(&self, session: &Session, log_id: i32) -> Option<&LogCounters> {
        let owner = owner(session);
        let taken = |place: &&LogCounters| place.take(owner, log_id);
        self.places(owner, log_id).find(taken)
    }

    /// As `counters`, for a number that need not be a log's; `None` if it has no place.
    pub fn counters_if_any(&self, session: &Session, log_id: i32) -> Option<&LogCounters> {
        let owner = owner(session);
        self.places(owner, log_id)
            .take_while(|place| place.owner.load(ORDER) != FREE)
            .find(|p| p.owner.load(ORDER) == owner && p.log_id.load(ORDER) == log_id)
    }

    /// All places, from the one on where a log is looked for first.
    fn places(&self, owner: u64, log_id: i32) -> impl Iterator<Item = &LogCounters> {
        let start = (owner ^ (log_id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) as usize % LOGS;
        self.logs[start..].iter().chain(&self.logs[..start])
    }
}

/// What a log's id is unique in: this database, and the extension as it was created in it.
pub fn owner(session: &Session) -> u64 {
    let (database, extension) = (server::my_database().to_u32(), session.extension().to_u32());
    u64::from(database) << 32 | u64::from(extension)
}

impl Worker {
    fn database(&self) -> u32 {
        self.place.load(ORDER) as u32
    }

    /// The sources that ended a worker before this one when their queries were planned.
    pub fn ended_by(&self) -> Vec<i32> {
        let sources = self.ended_by.iter().map(|slot| slot.load(ORDER));
        sources.filter(|id| *id != 0).collect()
    }

    /// Tells the next worker that planning queries on a source ends this one.
    pub fn is_ended_by(&self, source_id: i32) {
        let known = |id: i32| self.ended_by.iter().find(|slot| slot.load(ORDER) == id);
        if let Some(slot) = known(source_id).or_else(|| known(0)) {
            slot.store(source_id, ORDER);
        }
    }

    /// Queries on a source can be planned again.
    pub fn is_not_ended_by(&self, source_id: i32) {
        for slot in &self.ended_by {
            let _was = slot.compare_exchange(source_id, 0, ORDER, ORDER);
        }
    }

    fn changes_are_queued(&self) {
        if !self.queued.swap(true, ORDER) {
            self.latch.wake();
        }
    }

    /// True once for each time that changes were queued since the last call.
    pub fn take_queued(&self) -> bool {
        self.queued.swap(false, ORDER)
    }

    /// True if changes were queued since the last call of `take_queued`.
    pub fn is_queued(&self) -> bool {
        self.queued.load(ORDER)
    }

    /// True once for each time that a run was asked for since the last call.
    pub fn take_asked(&self) -> bool {
        self.asked.swap(false, ORDER)
    }

    /// True if a run was asked for since the last call of `take_asked`.
    pub fn is_asked(&self) -> bool {
        self.asked.load(ORDER)
    }

    pub fn ask(&self) {
        self.asked.store(true, ORDER);
        self.latch.wake();
    }

    /// Gives the place up, when the process ends.
    pub fn leave(&self) {
        self.latch.clear();
        self.pid.store(0, ORDER);
    }

    pub fn say_why(&self, left: Left) {
        self.left.store(left as u32, ORDER);
    }
}

impl LogCounters {
    /// True if the place is the log's, or was free and is now.
    ///
    /// A place that another process is taking may be about to become this log's, so the process waits until
    /// it says whose it is: if it passed on, the log would have two places, and a change that one process
    /// counts in one of them would be missed by those that look at the other. Between the two stores of the
    /// process that takes it nothing can fail or be interrupted.
    fn take(&self, owner: u64, log_id: i32) -> bool {
        let mut taken = self.owner.load(ORDER);
        if taken == FREE {
            match self.owner.compare_exchange(FREE, TAKING, ORDER, ORDER) {
                Ok(_) => {
                    self.log_id.store(log_id, ORDER);
                    self.owner.store(owner, ORDER);
                    return true;
                }
                Err(faster) => taken = faster,
            }
        }
        while taken == TAKING {
            std::thread::yield_now();
            taken = self.owner.load(ORDER);
        }
        taken == owner && self.log_id.load(ORDER) == log_id
    }

    /// Says that a tree head is being written, before anyone can see it.
    pub fn head_changes(&self) {
        self.heads.fetch_or(1, ORDER);
    }

    /// Says that the transaction that was writing one is over.
    pub fn head_changed(&self) {
        self.heads
            .store((self.heads.load(ORDER) | 1).wrapping_add(1), ORDER);
    }

    /// How often the tree heads have changed; `None` while they may be changing.
    pub fn head_changes_so_far(&self) -> Option<u64> {
        Some(self.heads.load(ORDER)).filter(|n| n % 2 == 0)
    }

    pub fn ask_to_run(&self) {
        self.run_now.store(true, ORDER);
    }

    pub fn take_wish(&self) -> bool {
        self.run_now.swap(false, ORDER)
    }

    pub fn failures(&self) -> i32 {
        self.failures.load(ORDER)
    }

    pub fn set_failures(&self, failures: i32) {
        self.failures.store(failures, ORDER);
    }
}

/// Wakes the workers of these logs: changes of them were queued and have committed.
pub fn wake_workers_of(logs: &[i32]) {
    logs.iter()
        .filter_map(|log_id| worker_of_log(*log_id))
        .for_each(Worker::changes_are_queued);
}

/// Wakes all workers of this database: changes were queued, of whichever log.
pub fn wake_workers() {
    let shared = get().into_iter();
    shared
        .flat_map(|s| s.workers_of(server::my_database()))
        .for_each(Worker::changes_are_queued);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESSES: u32 = 2;

    fn free() -> LogCounters {
        // SAFETY: made of atomics, which are valid when zero.
        unsafe { std::mem::zeroed() }
    }

    /// Processes ask for the place of a log at the same moment, each log for the first time.
    #[test]
    fn a_log_has_one_place_whoever_asks_for_it_first() {
        let places: Vec<LogCounters> = (0..LOGS).map(|_| free()).collect();
        let arrived = AtomicU32::new(0);
        let ask = || {
            let place_of = |log_id: u32| {
                // All go at once: the moment that counts is a few instructions long.
                arrived.fetch_add(1, ORDER);
                while arrived.load(ORDER) < log_id * PROCESSES {
                    std::hint::spin_loop();
                }
                let candidates = places.iter().skip(log_id as usize - 1);
                candidates
                    .take(PROCESSES as usize)
                    .position(|p| p.take(7, log_id as i32))
            };
            (1..=LOGS as u32).map(place_of).collect::<Vec<_>>()
        };
        let found: Vec<_> = std::thread::scope(|scope| {
            let processes: Vec<_> = (0..PROCESSES).map(|_| scope.spawn(ask)).collect();
            processes.into_iter().map(|p| p.join().unwrap()).collect()
        });
        assert_eq!(found, [vec![Some(0); LOGS], vec![Some(0); LOGS]]);
    }
}
