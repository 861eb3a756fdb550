//! What the worker does to one log, each in a transaction of its own.

use super::turn::Ran;
use crate::batch::{self, Scope};
use crate::capture::fence::Fence;
use crate::catalog::logs::{self, Scheduled};
use crate::checkpoint;
use crate::error::Error;
use crate::pg::subtransaction::Failure;
use crate::pg::worker;
use crate::session::Session;
use std::time::{Duration, Instant};

/// `busy`: another held the log's lock the last time too, so it is no batch that has just begun.
pub fn run_batch(log: &Scheduled, fence: &mut Option<Fence>, busy: bool) -> Result<Ran, Failure> {
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
                appended: batch.appended.entries > 0,
                blocked: batch.waiting_for.is_some(),
                busy: false,
            },
            Err(report) => Error::raise_report(report),
        }
    })
}

/// A server that took over has not signed itself what it has on record.
pub fn remember_signed() {
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
pub fn sign(log: &Scheduled) -> Result<(), Failure> {
    worker::report(Some(&format!("checkpoint of log \"{}\"", log.name)));
    worker::transaction(|| {
        let signed = Session::enter(|session| checkpoint::sign(session, &log.name));
        if let Err(report) = signed {
            Error::raise_report(report);
        }
    })
}

/// False if another was writing the log, or keeps a source locked: then later.
pub fn reconcile(log: &Scheduled, scope: Scope) -> Result<bool, Failure> {
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

/// Puts on record why a log failed.
pub fn record_error(log: &Scheduled, failure: &Failure) {
    let record = || {
        Session::enter(|session| {
            logs::record_error(session, &log.name, &failure.message);
            Ok(())
        })
        .map_err(|report| report.message().to_owned())
    };
    let why = match worker::transaction(record) {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(failure) => failure.message,
    };
    pgrx::log!("merkle_log: the error could not be recorded: {why}");
}
