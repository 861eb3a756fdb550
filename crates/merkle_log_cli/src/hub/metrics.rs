//! What the hub says of itself and of the logs that it pulls.

use super::pull::Outcome;
use crate::follow::heartbeat::{Heartbeat, Page, of_log};
use crate::follow::{Followed, now};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const PREFIX: &str = "merkle_log_hub";

/// How a log stands.
pub struct Standing {
    name: String,
    origin: String,
    since: u64,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    outcome: Option<Outcome>,
    /// When a pull last came to a result, good or bad.
    pulled: u64,
    size: u64,
}

impl Standing {
    pub fn of(log: &Followed) -> Standing {
        Standing {
            name: log.name.clone(),
            origin: log.origin.clone(),
            since: now(),
            last: Mutex::default(),
        }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is another outcome than before.
    pub fn set(&self, outcome: &Outcome) -> bool {
        let mut last = self.last();
        if let Outcome::Kept { size, .. } = outcome {
            last.size = *size;
        }
        if !matches!(outcome, Outcome::Undone(_)) {
            last.pulled = now();
        }
        let settled = match outcome {
            Outcome::Kept {
                size, unbelieved, ..
            } => Outcome::Kept {
                size: *size,
                new: false,
                unbelieved: *unbelieved,
            },
            Outcome::Bad(what) => Outcome::Bad(what.clone()),
            Outcome::Undone(what) => Outcome::Undone(what.clone()),
        };
        let changed = last.outcome.as_ref() != Some(&settled);
        last.outcome = Some(settled);
        changed
    }
}

pub struct Program {
    logs: Vec<Arc<Standing>>,
    /// What came of the last batch and signature, and when one last succeeded.
    appended: Mutex<(Option<Result<(), String>>, u64)>,
}

impl Program {
    pub fn new(logs: Vec<Arc<Standing>>) -> Program {
        Program {
            logs,
            appended: Mutex::default(),
        }
    }

    /// Whether this is another outcome than before.
    pub fn appended(&self, outcome: &Result<(), String>) -> bool {
        let mut appended = self.appended.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.is_ok() {
            appended.1 = now();
        }
        let changed = appended.0.as_ref() != Some(outcome);
        appended.0 = Some(outcome.clone());
        changed
    }
}

impl Heartbeat for Program {
    fn metrics(&self, page: &mut Page) {
        let appended = self
            .appended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1;
        page.add(
            "heartbeat_timestamp_seconds",
            "gauge",
            "When the hub last answered this.",
            [(String::new(), now())],
        );
        page.add(
            "last_append_timestamp_seconds",
            "gauge",
            "When what was pulled last became part of the hub's log, and was signed; 0: never.",
            [(String::new(), appended)],
        );
        let of_each = |value: fn(&Standing) -> u64| {
            let logs = self.logs.iter();
            logs.map(move |log| (of_log(&log.name), value(log)))
                .collect::<Vec<_>>()
        };
        page.add(
            "last_pull_timestamp_seconds",
            "gauge",
            "When a pull of the log last came to a result, good or bad; 0: never.",
            of_each(|log| log.last().pulled),
        );
        page.add(
            "pull_age_seconds",
            "gauge",
            "How long ago that was, or the hub was started.",
            of_each(|log| now().saturating_sub(log.last().pulled.max(log.since))),
        );
        page.add(
            "size_entries",
            "gauge",
            "Entries of the newest checkpoint that was taken.",
            of_each(|log| log.last().size),
        );
        page.add(
            "proven_bad",
            "gauge",
            "1 if the log is proven bad.",
            of_each(|log| u64::from(matches!(log.last().outcome, Some(Outcome::Bad(_))))),
        );
    }

    fn health(&self) -> (bool, Value) {
        let appended = self.appended.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ok = matches!(appended.0, Some(Ok(())));
        let error = match &appended.0 {
            Some(Err(why)) => Some(why.clone()),
            _ => None,
        };
        let logs: Vec<_> = self
            .logs
            .iter()
            .map(|log| {
                let last = log.last();
                let good = matches!(last.outcome, Some(Outcome::Kept { .. }));
                ok &= good;
                json!({
                    "log": log.name, "origin": log.origin, "ok": good, "size": last.size,
                    "pulled": last.pulled, "outcome": last.outcome.as_ref().map(Outcome::to_string),
                })
            })
            .collect();
        (ok, json!({"ok": ok, "last_error": error, "logs": logs}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alerts_use_metrics_that_there_are() {
        let text = crate::follow::heartbeat::text(PREFIX, &Program::new(Vec::new()));
        let alerts =
            include_str!("../../../../examples/monitoring/merkle_log-followers-alerts.yml");
        let mut words = alerts.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let used: Vec<_> = words
            .by_ref()
            .filter(|word| word.starts_with("merkle_log_hub_"))
            .collect();
        assert!(used.len() > 3);
        for name in used {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
