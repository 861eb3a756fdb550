//! What an open ledger checks by itself, now and then: everything it has stored, and that the balances
//! sum up to what was minted and not burned. At a bounded rate, and with a low priority.

use crate::engine::scrub::{Audit, Finding};
use crate::engine::state::{Core, now};
use crate::engine::telemetry;
use crate::error::Error;
use crate::ledger::GeometricLedger;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// The first check is made so long after opening, or sooner if checks are asked for more often.
const FIRST: Duration = Duration::from_secs(600);
/// Findings that are told one by one.
const TOLD: usize = 100;
/// What an account counts as for the rate.
const ACCOUNT_BYTES: u64 = 128;

/// The thread that checks; dropping it ends it.
pub(crate) struct Checks {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl Checks {
    /// Takes a handle of the ledger.
    pub fn start(ledger: GeometricLedger) -> Result<Self, Error> {
        let core = ledger.core.clone();
        let thread = Builder::new()
            .name("ledger-checks".into())
            .spawn(move || {
                // Linux gives each thread a priority of its own.
                let _ = rustix::process::setpriority_process(None, 10);
                run(&ledger);
            })
            .map_err(Error::io("a thread"))?;
        Ok(Checks {
            core,
            thread: Some(thread),
        })
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.core.signal.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(ledger: &GeometricLedger) {
    let core = &ledger.core;
    let every = [core.options.scrub_every, core.options.audit_every];
    let start = Instant::now();
    let mut due = every.map(|every| start + every.min(FIRST));
    loop {
        let next = due.iter().min().expect("there are two");
        let wait = next.saturating_duration_since(Instant::now());
        if core.signal.wait(wait, false) || core.wal.check().is_err() {
            return;
        }
        if due[0] <= Instant::now() {
            scrub(ledger);
            due[0] = Instant::now() + every[0];
        }
        if due[1] <= Instant::now() {
            audit(ledger);
            due[1] = Instant::now() + every[1];
        }
    }
}

/// Keeps what is read within `scrub_rate`. Fails when the ledger closes.
fn pace(ledger: &GeometricLedger) -> impl FnMut(u64, u64) -> Result<(), Error> {
    let start = Instant::now();
    move |done, _| {
        let due = done as f64 / ledger.core.options.scrub_rate.max(1) as f64;
        let ahead = Duration::try_from_secs_f64(due).unwrap_or(Duration::MAX);
        let ahead = ahead.saturating_sub(start.elapsed());
        match ledger.core.signal.wait(ahead, false) {
            true => Err(Error::Stopped("it is being closed".into())),
            false => Ok(()),
        }
    }
}

fn scrub(ledger: &GeometricLedger) {
    let start = Instant::now();
    let found: Result<Vec<Finding>, Error> = ledger.verify_with(pace(ledger));
    match found {
        Ok(findings) => {
            for finding in findings.iter().take(TOLD) {
                tracing::error!(%finding, "damage was found");
            }
            telemetry::scrubbed(findings.len() as u64, now());
            let (findings, took) = (findings.len(), start.elapsed());
            tracing::info!(findings, ?took, "everything stored was read");
        }
        Err(Error::Stopped(_)) => {}
        Err(error) => tracing::error!(%error, "what is stored could not be read"),
    }
}

fn audit(ledger: &GeometricLedger) {
    let core = &ledger.core;
    let (start, log) = (Instant::now(), core.wal.appended());
    let mut pace = pace(ledger);
    let audited: Result<Audit, Error> = ledger.audit_with(|accounts, total| {
        if core.wal.appended() - log > core.options.reader_log_bytes {
            let what = "so much was written meanwhile that it would keep too much of the log";
            return Err(Error::Reader(what.into()));
        }
        pace(accounts * ACCOUNT_BYTES, total * ACCOUNT_BYTES)
    });
    match audited {
        Ok(audit) => {
            telemetry::audited(true, now());
            let took = start.elapsed();
            tracing::info!(
                audit.sequence,
                audit.accounts,
                audit.balances,
                ?took,
                "balances add up"
            );
        }
        Err(Error::Stopped(_)) => {}
        Err(error @ Error::Reader(_)) => tracing::warn!(%error, "balances were not added up"),
        Err(error) => {
            telemetry::audited(false, now());
            tracing::error!(%error, "balances do not add up");
        }
    }
}
