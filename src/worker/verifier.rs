//! Continuous verification by the worker of a database: slices, between batches, at a bounded rate.
//!
//! A slice is a transaction of some milliseconds, and it ends early when there is something to be logged. A log that
//! cannot be read is tried again ever more rarely; the others go on.

use crate::error::Error;
use crate::pg::settings::lock_timeout;
use crate::pg::subtransaction::Failure;
use crate::pg::worker;
use crate::session::Session;
use crate::settings;
use crate::verify::passes::{self, Limits, Slice};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How soon it is looked again whether a log is due.
const IDLE: Duration = Duration::from_secs(2);
/// What a slice takes: a step more at most.
const LONGEST: Duration = Duration::from_millis(50);
/// What a step should take: its rows are as many as take so long.
const STEP: Duration = Duration::from_millis(20);
const FEWEST: i64 = 256;
const MOST: i64 = 4096;
/// Between two slices, whatever the rate.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// How long a slice waits for a lock that somebody holds on a table or a finding.
const LOCK_WAIT: Duration = Duration::from_millis(100);
/// How soon a log that cannot be read is tried again at first; each time doubles it, up to about a minute.
const RETRY: Duration = Duration::from_secs(1);
const PATIENCE: u32 = 6;

pub struct Verifier {
    /// When the next slice may begin.
    next_at: Instant,
    /// Rows of a step.
    step: i64,
    failing: HashMap<i32, Failing>,
}

/// A log that could not be read.
struct Failing {
    times: u32,
    again_at: Instant,
}

impl Verifier {
    pub fn new() -> Verifier {
        Verifier {
            next_at: Instant::now(),
            step: FEWEST,
            failing: HashMap::new(),
        }
    }

    pub fn due(&self) -> Instant {
        self.next_at
    }

    /// Verifies a slice of the log whose turn it is, if it is time. `is_wanted` says when the process has other things
    /// to do.
    pub fn run(&mut self, is_wanted: &dyn Fn() -> bool) {
        let began = Instant::now();
        if self.next_at > began {
            return;
        }
        let rate = settings::verify_rate();
        let next = match rate {
            0 => None,
            _ => self.next_log(began),
        };
        let Some((log_id, name)) = next else {
            self.next_at = began + IDLE;
            return;
        };
        worker::report(Some(&format!("verification of log \"{name}\"")));
        let limits = Limits {
            rows: rate.clamp(1, MOST as u64 * 4),
            time: LONGEST,
            step: self.step.min(rate as i64),
            is_wanted,
        };
        let rows = match slice(log_id, &limits) {
            Ok(slice) => {
                match slice.blocked {
                    Some(_) => self.failed(log_id, began),
                    None => drop(self.failing.remove(&log_id)),
                }
                slice.rows
            }
            Err(failure) => {
                pgrx::log!(
                    "merkle_log: log \"{name}\" cannot be verified: {}",
                    failure.message
                );
                self.failed(log_id, began);
                record(log_id, &failure);
                0
            }
        };
        let took = began.elapsed();
        self.adapt(rows, took);
        let pace = Duration::from_secs_f64(rows as f64 / rate as f64);
        self.next_at = began + pace.max(took + SHORTEST_PAUSE);
    }

    fn next_log(&self, now: Instant) -> Option<(i32, String)> {
        let failing = self.failing.iter().filter(|(_, f)| f.again_at > now);
        let except: Vec<i32> = failing.map(|(id, _)| *id).collect();
        let next = || Session::enter(|session| Ok(passes::next(session, &except)));
        match worker::transaction(next) {
            Ok(Ok(next)) => next,
            Ok(Err(report)) => {
                pgrx::log!("merkle_log: nothing is verified: {}", report.message());
                None
            }
            Err(failure) => {
                pgrx::log!("merkle_log: nothing is verified: {}", failure.message);
                None
            }
        }
    }

    fn failed(&mut self, log_id: i32, now: Instant) {
        let failing = self.failing.entry(log_id).or_insert(Failing {
            times: 0,
            again_at: now,
        });
        failing.again_at = now + RETRY * 2u32.pow(failing.times.min(PATIENCE));
        failing.times = failing.times.saturating_add(1);
    }

    /// Lets a step have as many rows as take `STEP`.
    fn adapt(&mut self, rows: u64, took: Duration) {
        if rows >= FEWEST as u64 {
            let fitting = rows as f64 * STEP.as_secs_f64() / took.as_secs_f64().max(1e-6);
            self.step = (fitting as i64).clamp(FEWEST, (self.step * 2).min(MOST));
        }
    }
}

fn slice(log_id: i32, limits: &Limits) -> Result<Slice, Failure> {
    worker::transaction(|| {
        let run = || Session::enter(|session| passes::slice(session, log_id, limits));
        let slice = lock_timeout(LOCK_WAIT, run);
        slice.unwrap_or_else(|report| Error::raise_report(report))
    })
}

/// Shows why a log is not verified.
fn record(log_id: i32, failure: &Failure) {
    let record = || {
        Session::enter(|session| {
            passes::set_problem(session, log_id, &failure.message);
            Ok(())
        })
        .map_err(|report| report.message().to_owned())
    };
    let why = match worker::transaction(record) {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(failure) => failure.message,
    };
    pgrx::log!("merkle_log: that a log cannot be verified could not be recorded: {why}");
}
