//! A worker of one database: runs each of its logs when it is its turn, one transaction a batch.
//!
//! Logs are shared between the workers of a database by their numbers. While that changes, two workers may run the same
//! log: one of them finds its lock taken.
//!
//! A log that fails is put on record and tried again ever more rarely; the others go on. Logs whose turn it is are run in
//! the order in which their turns came, so that one that is behind, whose next turn comes at once, stands in line with
//! the others. Of many logs it is found out first, in one transaction, which have nothing to log.

use super::transactions::{self, reconcile, remember_signed, run_batch, sign};
use super::turn::{RECENT, Turn};
use super::verifier::Verifier;
use crate::batch::Scope;
use crate::batch::idle::{self, Work};
use crate::capture::queue;
use crate::capture::table_query;
use crate::catalog::logs::{self, Scheduled};
use crate::error::Error;
use crate::pg::subtransaction::Failure;
use crate::pg::{server, vacuum, wait, worker, xact};
use crate::session::Session;
use crate::settings;
use crate::shared::{self, FIRST, Left, Shared, Worker};
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The longest sleep: heartbeat, new settings, and those who want the database wait for no more.
const TICK: Duration = Duration::from_millis(500);
/// How soon the logs' rows are read again, if nobody says that one has changed.
const REREAD: Duration = Duration::from_millis(500);
/// How long changes are gathered after the first was queued; longer after batches that took long, so
/// that under load batches grow instead of following each other.
const GATHER: Duration = Duration::from_millis(10);
const LONGEST_GATHER: Duration = Duration::from_millis(200);
const REST: u32 = 3;
/// What reads the queue reads all of its table, so one of this size, in bytes, is vacuumed, but not
/// more often than this.
const LARGE_QUEUE: i64 = 2 << 20;
const VACUUM_EVERY: Duration = Duration::from_secs(3);
/// After a search for late rows, so many times as long without one.
const RECONCILE_REST: u32 = 9;
/// However short the interval, there is this between two checkpoints of a log.
const SHORTEST_CHECKPOINT: Duration = Duration::from_millis(50);

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn merkle_log_worker_main(argument: pg_sys::Datum) {
    let (database, number) = worker::argument(argument);
    worker::begin(Some(database));
    let Some(shared) = shared::get() else {
        return;
    };
    let Some(place) = shared.claim(database, number) else {
        return;
    };
    worker::at_exit(leave);
    place.say_why(Left::Stopped);
    if let Some(first) = shared::first_worker() {
        table_query::leave_alone(first.ended_by());
    }
    let mut runner = Runner {
        shared,
        place,
        number,
        turns: HashMap::new(),
        read_at: None,
        last_took: Duration::ZERO,
        last_ended: Instant::now(),
        queue: None,
        vacuumed: None,
        verifier: Verifier::new(),
        remembers: false,
    };
    while let Some(pause) = runner.round() {
        worker::report(None);
        wait::sleep(pause);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _arg: pg_sys::Datum) {
    if let (Some(first), Some(source)) = (shared::first_worker(), table_query::over_time()) {
        first.is_ended_by(source);
    }
    if let Some(place) = shared::my_worker() {
        place.leave();
    }
}

struct Runner {
    shared: &'static Shared,
    place: &'static Worker,
    /// Among the workers of the database.
    number: u32,
    turns: HashMap<i32, Turn>,
    /// When the logs' rows were read.
    read_at: Option<Instant>,
    /// The last round that ran anything.
    last_took: Duration,
    last_ended: Instant,
    /// The queue's table and its size.
    queue: Option<(pg_sys::Oid, i64)>,
    vacuumed: Option<Instant>,
    verifier: Verifier,
    /// What is on record as signed was put on file.
    remembers: bool,
}

impl Runner {
    /// Runs what is due; how long to sleep, or `None` if there is nothing to do here any more.
    fn round(&mut self) -> Option<Duration> {
        self.place.heartbeat.store(xact::now(), SeqCst);
        let reloaded = worker::reload();
        if worker::database_is_wanted() {
            return None;
        }
        let asked = self.place.take_asked();
        let unknown = self.note_changes(self.gather());
        let is_read = |at: Instant| at.elapsed() < REREAD;
        if asked || reloaded || unknown || !self.read_at.is_some_and(is_read) {
            self.schedule()?;
        }
        if !self.due().is_empty() {
            let began = Instant::now();
            self.run_due();
            self.last_ended = Instant::now();
            self.last_took = self.last_ended - began;
        }
        self.verify();
        Some(self.pause())
    }

    /// How long changes are gathered that were queued just now.
    fn gather(&self) -> Duration {
        let rest = (self.last_took * REST).min(LONGEST_GATHER);
        GATHER.max(rest.saturating_sub(self.last_ended.elapsed()))
    }

    /// Takes note of it if changes were queued; true if no log is known that they can be of. As long as all logs are known
    /// to have some, the writers that come need not wake the worker.
    fn note_changes(&mut self, gather: Duration) -> bool {
        let no_log = !self.turns.values().any(|turn| turn.log.arrival);
        if !no_log && !self.is_to_be_woken() || !self.place.take_queued() {
            return false;
        }
        for turn in self.turns.values_mut() {
            turn.changes_wait(gather);
        }
        no_log
    }

    /// True if changes that are queued now are news.
    fn is_to_be_woken(&self) -> bool {
        self.turns.values().any(Turn::knows_of_no_changes)
    }

    /// When something is due next.
    fn next(&self) -> Option<Instant> {
        self.turns.values().map(Turn::due).min()
    }

    /// How long there is nothing to do.
    fn pause(&self) -> Duration {
        // What has set the latch may have been waited for elsewhere meanwhile.
        if self.place.is_asked() || self.is_to_be_woken() && self.place.is_queued() {
            return Duration::ZERO;
        }
        let verifies = (self.number == FIRST).then(|| self.verifier.due());
        let next = self.next().into_iter().chain(verifies).min();
        next.map_or(TICK, |at| {
            at.saturating_duration_since(Instant::now()).min(TICK)
        })
    }

    fn verify(&mut self) {
        if self.number != FIRST {
            return;
        }
        let (place, next, woken) = (self.place, self.next(), self.is_to_be_woken());
        let is_wanted = || {
            place.is_asked()
                || woken && place.is_queued()
                || next.is_some_and(|at| at <= Instant::now())
        };
        self.verifier.run(&is_wanted);
    }

    /// Reads which logs there are. `None`: this database has none of ours.
    fn schedule(&mut self) -> Option<()> {
        let (number, workers) = (self.number, settings::workers());
        let read = || {
            let name = server::database_name();
            match settings::runs_database(&name) {
                true if number >= workers => {
                    Err("there are to be fewer workers (merkle_log.workers)".to_owned())
                }
                true => Session::enter(|session| {
                    let counters = |log: &Scheduled| self.shared.counters(session, log.id);
                    let mut logs = logs::scheduled(session);
                    logs.retain(|log| shared::number_of_log(log.id, workers) == number);
                    let counters: Vec<_> = logs.iter().map(counters).collect();
                    Ok((logs, counters, queue::table(session)))
                })
                .map_err(|report| report.message().to_owned()),
                false => Err("the database is not listed in merkle_log.databases".to_owned()),
            }
        };
        let (logs, counters, queue) = match worker::transaction(read) {
            Ok(Ok(read)) => read,
            Ok(Err(why)) => {
                pgrx::debug1!("merkle_log: nothing to do: {why}");
                self.place.say_why(Left::NothingToDo);
                return None;
            }
            Err(failure) => {
                pgrx::log!("merkle_log: the logs cannot be read: {}", failure.message);
                return None;
            }
        };
        let there: HashSet<i32> = logs.iter().map(|log| log.id).collect();
        self.turns.retain(|id, _| there.contains(id));
        for (log, counters) in logs.into_iter().zip(counters) {
            let known = self.turns.entry(log.id);
            let turn = known.or_insert_with(|| Turn::new(log.clone(), counters));
            turn.update(log);
        }
        self.queue = queue;
        self.read_at = Some(Instant::now());
        if !std::mem::replace(&mut self.remembers, true) {
            remember_signed();
        }
        Some(())
    }

    /// The logs whose turn it is, in the order in which it came.
    fn due(&self) -> Vec<i32> {
        let now = Instant::now();
        let due = |turn: &Turn| (turn.due(), turn.log.id);
        let mut due: Vec<_> = self.turns.values().map(due).collect();
        due.retain(|(at, _)| *at <= now);
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn run_due(&mut self) {
        // What is queued from here on may be news to the batches.
        if self.place.take_queued() {
            self.turns
                .values_mut()
                .for_each(|turn| turn.changes_wait(Duration::ZERO));
        }
        let (due, began) = (self.due(), Instant::now());
        let seen = self.look(&due);
        let mut any_changes = false;
        for id in due {
            // The others are first in line in the next round.
            if began.elapsed() > TICK {
                break;
            }
            let Some(turn) = self.turns.get_mut(&id) else {
                continue;
            };
            match seen.get(&id) {
                Some(Seen::Idle { recent }) => {
                    turn.was_idle();
                    if *recent {
                        turn.reconcile_recent();
                    }
                }
                Some(Seen::Changes) => {
                    turn.found_changes(Instant::now());
                    turn.run();
                    any_changes = true;
                }
                None => any_changes |= turn.run() && turn.log.arrival,
            }
        }
        self.clean_up(any_changes);
    }

    /// What is found out about the logs before batches are run. Those that are left out are run.
    fn look(&mut self, due: &[i32]) -> HashMap<i32, Seen> {
        let now = Instant::now();
        let is_looked_at = |id: &&i32| self.turns[*id].may_be_idle(now);
        let looked_at: Vec<i32> = due.iter().filter(is_looked_at).copied().collect();
        // Whoever queues changes in the only log there is need not be asked for them.
        let only_changes = |id: &i32| self.turns[id].run_at > now;
        if looked_at.is_empty() || looked_at.len() == 1 && only_changes(&looked_at[0]) {
            return HashMap::new();
        }
        worker::report(Some("looking for logs with something to log"));
        let turns = &self.turns;
        let look = || {
            let look = Session::enter(|session| {
                let work = idle::look(session, &looked_at);
                let idle = work.iter().filter(|(_, work)| **work == Work::Nothing);
                let recent = idle
                    .map(|(id, _)| *id)
                    .filter(|id| turns[id].recent_due(now));
                let recent: Vec<i32> = recent.collect();
                let written = |log, source| turns[&log].written.get(&source).copied();
                let written_to = match recent.is_empty() {
                    true => HashSet::new(),
                    false => idle::written_to(session, &recent, written),
                };
                Ok((work, recent, written_to))
            });
            look.unwrap_or_else(|report| Error::raise_report(report))
        };
        let (work, recent, written_to) = match worker::transaction(look) {
            Ok(seen) => seen,
            Err(failure) => {
                pgrx::debug1!("merkle_log: all logs are run: {}", failure.message);
                return HashMap::new();
            }
        };
        for id in recent.iter().filter(|id| !written_to.contains(id)) {
            if let Some(turn) = self.turns.get_mut(id) {
                turn.recent_at = now + RECENT;
            }
        }
        let seen = |(id, work)| match work {
            Work::Nothing => {
                let recent = written_to.contains(&id);
                Some((id, Seen::Idle { recent }))
            }
            Work::Changes => Some((id, Seen::Changes)),
            Work::Batch => None,
        };
        work.into_iter().filter_map(seen).collect()
    }

    /// Keeps the queue's table small; gives its space back when writers are quiet.
    fn clean_up(&mut self, busy: bool) {
        let Some((table, size)) = self.queue.filter(|_| self.number == FIRST) else {
            return;
        };
        if size < LARGE_QUEUE || self.vacuumed.is_some_and(|at| at.elapsed() < VACUUM_EVERY) {
            return;
        }
        self.vacuumed = Some(Instant::now());
        worker::report(Some("vacuum of the queue"));
        if let Err(failure) = vacuum::vacuum(table, !busy) {
            pgrx::log!(
                "merkle_log: the queue could not be vacuumed: {}",
                failure.message
            );
        }
    }
}

/// What was found out about a log.
enum Seen {
    /// There is nothing to log; rows near the watermarks may have come late.
    Idle { recent: bool },
    /// Changes are in the queue.
    Changes,
}

impl Turn {
    /// Runs what is due of a log; true if a batch appended entries.
    fn run(&mut self) -> bool {
        let mut appended = false;
        if self.wants_batch(Instant::now()) {
            let began = self.batch_begins();
            match run_batch(&self.log, &mut self.fence, self.busy) {
                Ok(ran) => {
                    appended = ran.appended;
                    self.batch_ended(began, ran);
                }
                Err(failure) => self.put_aside(&failure),
            }
        }
        if self.failures == 0 && self.reconcile_at.is_some_and(|at| at <= Instant::now()) {
            let began = Instant::now();
            let outcome = reconcile(&self.log, Scope::All);
            // A sweep that takes long comes more rarely: batches go first.
            let rest = began.elapsed() * RECONCILE_REST;
            let next = |every: Duration| Instant::now() + every.max(rest);
            self.reconcile_at = match outcome {
                Ok(false) => Some(Instant::now() + RECENT),
                _ => self.log.reconcile_interval.map(next),
            };
            if let Err(failure) = outcome {
                self.put_aside(&failure);
            }
        }
        let is_behind = self.run_at <= Instant::now();
        if self.failures == 0 && !is_behind && self.recent_due(Instant::now()) {
            self.reconcile_recent();
        }
        if let Some(every) = self.log.checkpoint_interval
            && self.checkpoint_at.is_some_and(|at| at <= Instant::now())
        {
            // What keeps it from being signed keeps no batch from being run.
            if let Err(failure) = sign(&self.log) {
                pgrx::log!("merkle_log: log \"{}\": {}", self.log.name, failure.message);
            }
            self.checkpoint_at = Some(Instant::now() + every.max(SHORTEST_CHECKPOINT));
        }
        self.tell();
        appended
    }

    /// True if rows near the watermarks are to be looked through.
    fn recent_due(&self, now: Instant) -> bool {
        !self.log.arrival && self.log.reconcile_interval.is_some() && self.recent_at <= now
    }

    fn reconcile_recent(&mut self) {
        let began = Instant::now();
        let outcome = reconcile(&self.log, Scope::Recent(&mut self.written));
        self.recent_at = Instant::now() + RECENT.max(began.elapsed() * RECONCILE_REST);
        // Of what was not looked through to the end nothing is known.
        if !matches!(outcome, Ok(true)) {
            self.written.clear();
        }
        if let Err(failure) = outcome {
            self.put_aside(&failure);
        }
    }

    fn put_aside(&mut self, failure: &Failure) {
        let pause = self.failed();
        pgrx::log!(
            "merkle_log: log \"{}\": {}; next try in {} s",
            self.log.name,
            failure.message,
            pause.as_secs()
        );
        transactions::record_error(&self.log, failure);
    }
}
