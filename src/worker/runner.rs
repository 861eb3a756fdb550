//! The worker of one database: runs each log when it is due, one transaction a batch.
//!
//! A log that fails is put on record and tried again ever more rarely; the others go on. A log that is
//! behind is run again without a pause, in turn with the others.

use super::verifier::Verifier;
use crate::batch::{self, Scope};
use crate::capture::fence::Fence;
use crate::capture::queue;
use crate::capture::table_query;
use crate::catalog::logs::{self, Scheduled};
use crate::checkpoint;
use crate::error::Error;
use crate::pg::subtransaction::Failure;
use crate::pg::{server, vacuum, wait, worker, xact};
use crate::session::Session;
use crate::settings;
use crate::shared::{self, Left, LogCounters, Shared, Worker};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The longest sleep: heartbeat, new settings, and those who want the database wait for no more.
const TICK: Duration = Duration::from_millis(500);
/// How long changes are gathered after the first was queued; longer after batches that took long, so
/// that under load batches grow instead of following each other.
const GATHER: Duration = Duration::from_millis(10);
const LONGEST_GATHER: Duration = Duration::from_millis(200);
const REST: u32 = 3;
/// What reads the queue reads all of its table, so one of this size, in bytes, is vacuumed, but not
/// more often than this.
const LARGE_QUEUE: i64 = 2 << 20;
const VACUUM_EVERY: Duration = Duration::from_secs(3);
/// After so many failures in a row the pause grows no more: about five minutes.
const PATIENCE: u32 = 9;
const FIRST_PAUSE: Duration = Duration::from_millis(600);
/// After a search for late rows, so many times as long without one.
const RECONCILE_REST: u32 = 9;
/// How soon rows that came late, or were set aside, are looked for near the watermarks.
const RECENT: Duration = Duration::from_secs(5);
/// How soon a fence that was not crossed is tried again at first; each time doubles it, up to the last.
const RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// However short the interval, there is this between two checkpoints of a log.
const SHORTEST_CHECKPOINT: Duration = Duration::from_millis(50);

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn merkle_log_worker_main(database: pg_sys::Datum) {
    let database = pg_sys::Oid::from(database.value() as u32);
    worker::begin(Some(database));
    let Some(place) = shared::get().and_then(|shared| shared.claim(database)) else {
        return;
    };
    worker::at_exit(leave);
    place.say_why(Left::Stopped);
    table_query::leave_alone(place.ended_by());
    let mut runner = Runner {
        shared: shared::get().expect("there is a place in it"),
        place,
        logs: HashMap::new(),
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
    let shared = shared::get();
    if let Some(worker) = shared.and_then(|s| s.worker_of(server::my_database())) {
        if let Some(source) = table_query::over_time() {
            worker.is_ended_by(source);
        }
        worker.leave();
    }
}

struct Runner {
    shared: &'static Shared,
    place: &'static Worker,
    logs: HashMap<i32, State>,
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

/// When a log is due, and how it went so far.
struct State {
    run_at: Instant,
    reconcile_at: Option<Instant>,
    reconcile_every: Option<Duration>,
    failures: u32,
    /// When the rows near the watermarks are looked through again, and how often each source had been
    /// written to when they were.
    recent_at: Instant,
    written: HashMap<i32, i64>,
    /// Another held the log's lock when the log was run last.
    busy: bool,
    /// A fence that was drawn and not crossed yet: the worker waits for none in place.
    fence: Option<Fence>,
    retry: Duration,
    /// When the next checkpoint is signed, if the log has any.
    checkpoint_at: Option<Instant>,
    checkpoint_every: Option<Duration>,
    counters: Option<&'static LogCounters>,
}

impl Runner {
    /// Runs what is due; how long to sleep, or `None` if there is nothing to do here any more.
    fn round(&mut self) -> Option<Duration> {
        self.place.heartbeat.store(xact::now(), SeqCst);
        worker::reload();
        if worker::database_is_wanted() {
            return None;
        }
        let (queued, asked) = self.place.take_wishes();
        if queued {
            let rest = (self.last_took * REST).min(LONGEST_GATHER);
            let rested = self.last_ended.elapsed();
            let until = Instant::now() + GATHER.max(rest.saturating_sub(rested));
            // Each commit sets the latch, so one sleep may be short.
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                if left.is_zero() {
                    break;
                }
                wait::sleep(left);
            }
            self.place.take_wishes();
        }
        let next = self.logs.values().map(State::due).min();
        let now = Instant::now();
        if !queued && !asked && next.is_some_and(|at| at > now) {
            self.verifier.run(self.place);
            return Some(self.pause());
        }
        let logs = self.schedule()?;
        if !std::mem::replace(&mut self.remembers, true) {
            remember_signed();
        }
        let mut behind = false;
        let began = Instant::now();
        for log in &logs {
            behind |= self.run(log, queued);
        }
        self.last_took = began.elapsed();
        self.clean_up(queued);
        self.last_ended = Instant::now();
        self.verifier.run(self.place);
        match behind {
            true => Some(Duration::ZERO),
            false => Some(self.pause()),
        }
    }

    /// How long there is nothing to do.
    fn pause(&self) -> Duration {
        let next = self.logs.values().map(State::due).min();
        let next = next.map_or(self.verifier.due(), |at| at.min(self.verifier.due()));
        next.saturating_duration_since(Instant::now()).min(TICK)
    }

    /// The logs to run, as they are now. `None`: this database has none of ours.
    fn schedule(&mut self) -> Option<Vec<Scheduled>> {
        let read = || {
            let name = server::database_name();
            match settings::runs_database(&name) {
                true => Session::enter(|session| {
                    let counters = |log: &Scheduled| self.shared.counters(session, log.id);
                    let logs = logs::scheduled(session);
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
        self.logs
            .retain(|id, _| logs.iter().any(|log| log.id == *id));
        let now = Instant::now();
        for (log, counters) in logs.iter().zip(counters) {
            let state = self.logs.entry(log.id).or_insert_with(|| State {
                run_at: now,
                reconcile_at: None,
                reconcile_every: None,
                failures: 0,
                busy: false,
                recent_at: now + RECENT,
                written: HashMap::new(),
                fence: None,
                retry: RETRY,
                checkpoint_at: None,
                checkpoint_every: None,
                counters,
            });
            if counters.is_some_and(LogCounters::take_wish) {
                state.run_at = now;
            }
            // Settings may have changed: nothing is later than they say now.
            if state.failures == 0 {
                state.run_at = state.run_at.min(now + log.run_interval);
            }
            if state.checkpoint_every != log.checkpoint_interval {
                state.checkpoint_every = log.checkpoint_interval;
                state.checkpoint_at = log.checkpoint_interval.map(|_| now);
            }
            if state.reconcile_every != log.reconcile_interval {
                state.reconcile_every = log.reconcile_interval;
                state.reconcile_at = log.reconcile_interval.map(|every| now + every);
            }
        }
        self.queue = queue;
        Some(logs)
    }

    /// Keeps the queue's table small; gives its space back when writers are quiet.
    fn clean_up(&mut self, busy: bool) {
        let Some((table, size)) = self.queue else {
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

    /// Runs a log that is due, or has changes waiting; true if there is more to do at once.
    fn run(&mut self, log: &Scheduled, queued: bool) -> bool {
        let Some(state) = self.logs.get_mut(&log.id) else {
            return false;
        };
        let now = Instant::now();
        let healthy = state.failures == 0;
        let mut behind = false;
        if state.run_at <= now || queued && log.arrival && healthy {
            let outcome = run_batch(log, &mut state.fence, state.busy);
            let state = self.logs.get_mut(&log.id).expect("not removed meanwhile");
            behind = matches!(outcome, Ok(Ran { full: true, .. }));
            match outcome {
                Ok(ran) => {
                    state.failures = 0;
                    state.busy = ran.busy;
                    let pause = match (behind, ran.blocked) {
                        (true, _) => Duration::ZERO,
                        (_, true) => state.retry.min(log.run_interval),
                        _ => log.run_interval,
                    };
                    state.retry = match ran.blocked {
                        true => (state.retry * 2).min(LAST_RETRY),
                        false => RETRY,
                    };
                    state.run_at = Instant::now() + pause;
                }
                Err(failure) => state.failed(log, &failure),
            }
        }
        let state = self.logs.get_mut(&log.id).expect("not removed meanwhile");
        if state.failures == 0 && state.reconcile_at.is_some_and(|at| at <= Instant::now()) {
            let began = Instant::now();
            let outcome = reconcile(log, Scope::All);
            // A sweep that takes long comes more rarely: batches go first.
            let rest = began.elapsed() * RECONCILE_REST;
            let next = |every: Duration| Instant::now() + every.max(rest);
            state.reconcile_at = match outcome {
                Ok(false) => Some(Instant::now() + RECENT),
                _ => log.reconcile_interval.map(next),
            };
            if let Err(failure) = outcome {
                state.failed(log, &failure);
            }
        }
        let state = self.logs.get_mut(&log.id).expect("not removed meanwhile");
        let recent = !log.arrival && log.reconcile_interval.is_some();
        if recent && state.failures == 0 && !behind && state.recent_at <= Instant::now() {
            let began = Instant::now();
            let outcome = reconcile(log, Scope::Recent(&mut state.written));
            state.recent_at = Instant::now() + RECENT.max(began.elapsed() * RECONCILE_REST);
            // Of what was not looked through to the end nothing is known.
            if !matches!(outcome, Ok(true)) {
                state.written.clear();
            }
            if let Err(failure) = outcome {
                state.failed(log, &failure);
            }
        }
        if let Some(every) = log.checkpoint_interval
            && state.checkpoint_at.is_some_and(|at| at <= Instant::now())
        {
            // What keeps it from being signed keeps no batch from being run.
            if let Err(failure) = sign(log) {
                pgrx::log!("merkle_log: log \"{}\": {}", log.name, failure.message);
            }
            state.checkpoint_at = Some(Instant::now() + every.max(SHORTEST_CHECKPOINT));
        }
        state.tell();
        behind
    }
}

impl State {
    fn due(&self) -> Instant {
        let reconcile_at = self.reconcile_at.filter(|_| self.failures == 0);
        let others = [reconcile_at, self.checkpoint_at];
        others.into_iter().flatten().fold(self.run_at, Instant::min)
    }

    /// Shows others how the log stands.
    fn tell(&self) {
        if let Some(counters) = self.counters {
            let pause = self.run_at.saturating_duration_since(Instant::now());
            counters.set_failures(self.failures as i32);
            counters
                .next_run_at
                .store(xact::now() + pause.as_micros() as i64, SeqCst);
        }
    }

    fn failed(&mut self, log: &Scheduled, failure: &Failure) {
        self.failures = self.failures.saturating_add(1);
        self.fence = None;
        if let Some(counters) = self.counters {
            counters.errors.fetch_add(1, SeqCst);
        }
        let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(PATIENCE));
        let pause = pause.max(log.run_interval);
        self.run_at = Instant::now() + pause;
        pgrx::log!(
            "merkle_log: log \"{}\": {}; next try in {} s",
            log.name,
            failure.message,
            pause.as_secs()
        );
        let record = || {
            Session::enter(|session| {
                logs::record_error(session, &log.name, &failure.message);
                Ok(())
            })
            .map_err(|report| report.message().to_owned())
        };
        match worker::transaction(record) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => pgrx::log!("merkle_log: the error could not be recorded: {why}"),
            Err(failure) => {
                pgrx::log!(
                    "merkle_log: the error could not be recorded: {}",
                    failure.message
                );
            }
        }
    }
}

/// What a batch of the worker's did.
#[derive(Default)]
struct Ran {
    full: bool,
    /// It gave up waiting at the fence.
    blocked: bool,
    /// Another held the log's lock.
    busy: bool,
}

/// `busy`: another held the log's lock the last time too, so it is no batch that has just begun.
fn run_batch(log: &Scheduled, fence: &mut Option<Fence>, busy: bool) -> Result<Ran, Failure> {
    worker::report(Some(&format!("batch of log \"{}\"", log.name)));
    worker::transaction(|| {
        let outcome = Session::enter(|session| {
            let batch = batch::run(session, &log.name, false, Instant::now(), fence)?;
            if batch.is_none()
                && busy
                && let Some(by) = logs::writer(session, log.id)?
            {
                logs::record_writer(session, &log.name, &by);
            }
            Ok(batch)
        });
        match outcome {
            Ok(None) => Ran {
                busy: true,
                ..Ran::default()
            },
            Ok(Some(batch)) => Ran {
                full: batch.full,
                blocked: batch.waiting_for.is_some(),
                busy: false,
            },
            Err(report) => Error::raise_report(report),
        }
    })
}

/// A server that took over has not signed itself what it has on record.
fn remember_signed() {
    let remembered = worker::transaction(|| {
        if let Err(report) = Session::enter(checkpoint::remember_all) {
            Error::raise_report(report);
        }
    });
    if let Err(failure) = remembered {
        pgrx::log!("merkle_log: {}", failure.message);
    }
}

/// Signs a checkpoint of what is new.
fn sign(log: &Scheduled) -> Result<(), Failure> {
    worker::report(Some(&format!("checkpoint of log \"{}\"", log.name)));
    worker::transaction(|| {
        let signed = Session::enter(|session| checkpoint::sign(session, &log.name));
        if let Err(report) = signed {
            Error::raise_report(report);
        }
    })
}

/// False if another was writing the log, or keeps a source locked: then later.
fn reconcile(log: &Scheduled, scope: Scope) -> Result<bool, Failure> {
    worker::report(Some(&format!("reconcile of log \"{}\"", log.name)));
    worker::transaction(|| {
        let late = Session::enter(|session| {
            match batch::reconcile(session, &log.name, Duration::ZERO, scope) {
                Err(Error::Busy { .. } | Error::Blocked { .. }) => Ok(None),
                late => late.map(Some),
            }
        });
        match late {
            Ok(Some(late)) => {
                if let Some(first) = late.first() {
                    pgrx::log!(
                        "merkle_log: log \"{}\": {} late rows were logged, the first of them row {} of {}",
                        log.name,
                        late.len(),
                        first.key,
                        first.source_table
                    );
                }
                true
            }
            Ok(None) => false,
            Err(report) => Error::raise_report(report),
        }
    })
}
