//! When it is a log's turn, and how its last ones went.
//!
//! A log is looked at once an interval. Changes that a trigger has queued give it a turn before that, but no two of its
//! batches begin within one interval, unless there is more to log than a batch holds, or somebody asks.

use crate::capture::fence::Fence;
use crate::catalog::logs::Scheduled;
use crate::pg::xact;
use crate::shared::LogCounters;
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// After so many failures in a row the pause grows no more: about five minutes.
const PATIENCE: u32 = 9;
const FIRST_PAUSE: Duration = Duration::from_millis(600);
/// How soon rows that came late, or were set aside, are looked for near the watermarks.
pub const RECENT: Duration = Duration::from_secs(5);
/// How soon a fence that was not crossed is tried again at first; each time doubles it, up to the last.
const RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// However idle a log seems, a batch of it is run so often: what a look does not see is seen then.
const BATCH_ANYWAY: Duration = Duration::from_secs(300);
/// Logs that are due within this part of an interval are looked at together.
const TOGETHER: u32 = 10;
/// The part of an interval by which it is shortened at random, at most, so that logs that were made together do not stay
/// together.
const JITTER: f64 = 0.1;

pub struct Turn {
    pub log: Scheduled,
    /// When the log is looked at.
    pub run_at: Instant,
    /// Changes are in the queue, and are logged then.
    changes_at: Option<Instant>,
    /// When the next batch for changes may begin.
    not_before: Instant,
    /// A batch is run then, even if there seems to be nothing to log.
    batch_at: Instant,
    pub reconcile_at: Option<Instant>,
    pub failures: u32,
    /// When the rows near the watermarks are looked through again, and how often each source had been
    /// written to when they were.
    pub recent_at: Instant,
    pub written: HashMap<i32, i64>,
    /// Another held the log's lock when the log was run last.
    pub busy: bool,
    /// A fence that was drawn and not crossed yet: the worker waits for none in place.
    pub fence: Option<Fence>,
    retry: Duration,
    /// When the next checkpoint is signed, if the log has any.
    pub checkpoint_at: Option<Instant>,
    counters: Option<&'static LogCounters>,
    turns: u64,
}

/// What a batch of the worker's did.
#[derive(Clone, Copy, Default)]
pub struct Ran {
    /// As many entries as a batch may have.
    pub full: bool,
    /// It appended entries.
    pub appended: bool,
    /// It gave up waiting at the fence.
    pub blocked: bool,
    /// Another held the log's lock.
    pub busy: bool,
}

impl Turn {
    /// A log that the worker did not know: its first turn is at once.
    pub fn new(log: Scheduled, counters: Option<&'static LogCounters>) -> Turn {
        let now = Instant::now();
        Turn {
            run_at: now,
            changes_at: None,
            not_before: now,
            batch_at: now,
            reconcile_at: log.reconcile_interval.map(|every| now + every),
            failures: 0,
            recent_at: now + RECENT,
            written: HashMap::new(),
            busy: false,
            fence: None,
            retry: RETRY,
            checkpoint_at: log.checkpoint_interval.map(|_| now),
            counters,
            turns: 0,
            log,
        }
    }

    /// Takes over what the log's row says now: nothing is later than that.
    pub fn update(&mut self, log: Scheduled) {
        let now = Instant::now();
        if self.failures == 0 {
            self.run_at = self.run_at.min(now + log.run_interval);
            self.not_before = self.not_before.min(now + log.run_interval);
        }
        if self.log.checkpoint_interval != log.checkpoint_interval {
            self.checkpoint_at = log.checkpoint_interval.map(|_| now);
        }
        if self.log.reconcile_interval != log.reconcile_interval {
            self.reconcile_at = log.reconcile_interval.map(|every| now + every);
        }
        if self.log.written_by != log.written_by {
            self.batch_at = now;
        }
        self.log = log;
        if self.counters.is_some_and(LogCounters::take_wish) {
            self.run_at = now;
            self.batch_at = now;
        }
    }

    /// True if changes in the queue are not known of.
    pub fn knows_of_no_changes(&self) -> bool {
        self.log.arrival && self.changes_at.is_none()
    }

    /// Changes were queued; more are gathered for so long.
    pub fn changes_wait(&mut self, gather: Duration) {
        if self.knows_of_no_changes() {
            self.changes_at = Some(self.not_before.max(Instant::now() + gather));
        }
    }

    /// Changes were found in the queue: they are logged as soon as a batch may begin.
    pub fn found_changes(&mut self, now: Instant) {
        self.changes_wait(Duration::ZERO);
        if self.changes_at.is_some_and(|at| at > now) {
            self.run_at = self.next_look(Instant::now());
        }
    }

    /// When there is something to do.
    pub fn due(&self) -> Instant {
        let healthy = self.failures == 0;
        let changes = self.changes_at.filter(|_| healthy);
        let reconcile = self.reconcile_at.filter(|_| healthy);
        let others = [changes, reconcile, self.checkpoint_at];
        others.into_iter().flatten().fold(self.run_at, Instant::min)
    }

    /// True if a batch is to be run.
    pub fn wants_batch(&self, now: Instant) -> bool {
        let changes = self.changes_at.filter(|_| self.failures == 0);
        self.run_at <= now || changes.is_some_and(|at| at <= now)
    }

    /// True if it is to be found out first whether there is anything to log: nothing else is to be done, and the last
    /// batch left nothing undone.
    pub fn may_be_idle(&self, now: Instant) -> bool {
        let left = self.failures > 0 || self.busy || self.fence.is_some();
        let others = [self.reconcile_at, self.checkpoint_at];
        !left && self.batch_at > now && !others.into_iter().flatten().any(|at| at <= now)
    }

    /// There was nothing to log.
    pub fn was_idle(&mut self) {
        if let Some(counters) = self.counters {
            counters.last_run_at.store(xact::now(), SeqCst);
        }
        self.changes_at = None;
        self.run_at = self.next_look(Instant::now());
        self.tell();
    }

    /// Before a batch is run: what is queued from now on, it may not see.
    pub fn batch_begins(&mut self) -> Instant {
        self.changes_at = None;
        Instant::now()
    }

    /// After a batch that began at `began`.
    pub fn batch_ended(&mut self, began: Instant, ran: Ran) {
        let now = Instant::now();
        self.failures = 0;
        self.busy = ran.busy;
        self.batch_at = now + BATCH_ANYWAY;
        self.run_at = match (ran.full, ran.blocked) {
            (true, _) => now,
            (_, true) => now + self.retry.min(self.log.run_interval),
            _ => self.next_look(Instant::now()),
        };
        self.retry = match ran.blocked {
            true => (self.retry * 2).min(LAST_RETRY),
            false => RETRY,
        };
        if ran.full {
            self.batch_at = now;
        }
        if ran.appended {
            self.not_before = began + self.log.run_interval;
        }
    }

    /// After a failure; how long the log is left alone.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.fence = None;
        if let Some(counters) = self.counters {
            counters.errors.fetch_add(1, SeqCst);
        }
        let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(PATIENCE));
        let pause = pause.max(self.log.run_interval);
        self.run_at = Instant::now() + pause;
        pause
    }

    /// Shows others how the log stands.
    pub fn tell(&self) {
        if let Some(counters) = self.counters {
            let pause = self.due().saturating_duration_since(Instant::now());
            counters.set_failures(self.failures as i32);
            counters
                .next_run_at
                .store(xact::now() + pause.as_micros() as i64, SeqCst);
        }
    }

    /// An interval from now at most: a little less, and together with others.
    fn next_look(&mut self, now: Instant) -> Instant {
        self.turns += 1;
        let interval = self.log.run_interval;
        let shortened = interval.mul_f64(1.0 - JITTER * random(self.log.id, self.turns));
        together(now + shortened, interval / TOGETHER)
    }
}

/// The latest moment up to `at` that is a whole number of steps away from one that all logs share.
fn together(at: Instant, step: Duration) -> Instant {
    static BEGINNING: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let beginning = *BEGINNING.get_or_init(Instant::now);
    let since = at.saturating_duration_since(beginning).as_nanos();
    let over = since % step.as_nanos().max(1);
    at - Duration::from_nanos(over as u64)
}

/// A number from 0 to 1 that is another for each log and turn (splitmix64).
fn random(log_id: i32, turn: u64) -> f64 {
    let mut x = (log_id as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(turn.wrapping_mul(0xd1b5_4a32_d192_ed03));
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ x >> 31) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(arrival: bool) -> Turn {
        let log = Scheduled {
            id: 1,
            name: "audit".to_owned(),
            arrival,
            run_interval: Duration::from_secs(10),
            reconcile_interval: None,
            checkpoint_interval: None,
            written_by: 3,
        };
        Turn::new(log, None)
    }

    const APPENDED: Ran = Ran {
        full: false,
        appended: true,
        blocked: false,
        busy: false,
    };

    #[test]
    fn changes_after_a_quiet_time_are_logged_at_once_and_then_once_an_interval() {
        let mut turn = turn(true);
        let began = turn.batch_begins();
        turn.batch_ended(began, Ran::default());
        turn.changes_wait(Duration::ZERO);
        assert!(turn.wants_batch(Instant::now()));
        let began = turn.batch_begins();
        turn.batch_ended(began, APPENDED);
        turn.changes_wait(Duration::ZERO);
        assert!(!turn.wants_batch(began + Duration::from_secs(8)));
        assert!(turn.wants_batch(began + Duration::from_secs(10)));
    }

    #[test]
    fn a_backlog_waits_for_no_interval() {
        let mut turn = turn(true);
        let began = turn.batch_begins();
        let full = Ran {
            full: true,
            ..APPENDED
        };
        turn.batch_ended(began, full);
        assert!(turn.wants_batch(Instant::now()) && !turn.may_be_idle(Instant::now()));
    }

    #[test]
    fn looks_are_spread_within_the_interval_and_never_later() {
        let mut turn = turn(false);
        // At any moment between two of those at which all logs are looked at.
        let begun = Instant::now();
        let looks: Vec<Duration> = (0..200)
            .map(|n| {
                let now = begun + n * Duration::from_millis(100);
                turn.next_look(now).duration_since(now)
            })
            .collect();
        let (least, most) = (looks.iter().min().unwrap(), looks.iter().max().unwrap());
        assert!(*most <= Duration::from_secs(10) && *least >= Duration::from_millis(7_900));
        assert!(*most - *least >= Duration::from_millis(500), "{looks:?}");
    }
}
