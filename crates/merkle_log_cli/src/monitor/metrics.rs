//! What the monitor says of itself and of its logs.

use super::check::Watched;
use super::event::Trouble;
use crate::follow::heartbeat::{Heartbeat, Page, of_log};
use crate::follow::now;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub const PREFIX: &str = "merkle_log_monitor";

pub struct Program {
    logs: Vec<Arc<Watched>>,
    heartbeat: AtomicU64,
}

/// What is said of each log: a name, a type, a meaning, and a value.
type PerLog = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Watched) -> u64,
);

const PER_LOG: [PerLog; 7] = [
    (
        "last_complete_check_timestamp_seconds",
        "gauge",
        "When a check of the log last came to a result, good or bad; 0: never.",
        |log| log.state().recorded.checked,
    ),
    (
        "check_age_seconds",
        "gauge",
        "How long ago that was, or the log was first looked at.",
        |log| {
            let state = log.state();
            now().saturating_sub(state.recorded.checked.max(state.recorded.since))
        },
    ),
    (
        "last_reread_timestamp_seconds",
        "gauge",
        "When everything was last read again, or the log was first looked at.",
        |log| log.state().recorded.reread,
    ),
    (
        "size_entries",
        "gauge",
        "Entries of the newest checkpoint that was taken.",
        |log| log.state().recorded.size,
    ),
    (
        "hashed_entries",
        "gauge",
        "Entries that were served and hashed.",
        |log| log.state().recorded.entries,
    ),
    (
        "events_waiting",
        "gauge",
        "Events that someone has not been told yet.",
        |log| log.state().recorded.pending.len() as u64,
    ),
    (
        "events_lost_total",
        "counter",
        "Events that gave way to later ones before everyone was told.",
        |log| log.state().recorded.lost,
    ),
];

impl Program {
    pub fn new(logs: Vec<Arc<Watched>>) -> Program {
        Program {
            logs,
            heartbeat: AtomicU64::new(now()),
        }
    }

    pub fn beat(&self) {
        self.heartbeat.store(now(), Relaxed);
    }
}

impl Heartbeat for Program {
    fn metrics(&self, page: &mut Page) {
        page.add(
            "heartbeat_timestamp_seconds",
            "gauge",
            "When the monitor last looked after itself.",
            [(String::new(), self.heartbeat.load(Relaxed))],
        );
        for (name, kind, help, value) in PER_LOG {
            let logs = self.logs.iter();
            let values = logs.map(|log| (of_log(&log.followed.name), value(log)));
            page.add(name, kind, help, values);
        }
        let conditions = self.logs.iter().flat_map(|log| {
            let conditions = log.state().recorded.conditions.clone();
            Trouble::ALL.map(|kind| {
                let labels = format!("{{log=\"{}\",kind=\"{kind}\"}}", log.followed.name);
                (labels, u8::from(conditions.contains_key(&kind)))
            })
        });
        let help = "1 if this is wrong with the log.";
        page.add("condition", "gauge", help, conditions);
    }

    fn health(&self) -> (bool, Value) {
        let mut all_good = true;
        let logs: Vec<_> = self
            .logs
            .iter()
            .map(|log| {
                let state = log.state();
                let recorded = &state.recorded;
                let good = recorded.conditions.is_empty() && state.undone.is_none();
                all_good &= good && recorded.checked > 0;
                json!({
                    "log": state.log, "origin": state.origin, "ok": good,
                    "size": recorded.size, "entries": recorded.entries,
                    "checked": recorded.checked, "conditions": recorded.conditions,
                    "last_error": state.undone,
                })
            })
            .collect();
        (all_good, json!({"ok": all_good, "logs": logs}))
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
            .filter(|word| word.starts_with("merkle_log_monitor_"))
            .collect();
        assert!(used.len() > 3);
        for name in used {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
