//! What the witness counts.

use super::log::{Log, checkpoint_of, time_of};
use super::state::Witness;
use crate::http::label;
use std::sync::atomic::Ordering::Relaxed;

impl Witness {
    pub fn metrics_text(&self) -> String {
        let metrics = &self.admission.metrics;
        let mut text = metrics.text();
        let name = "add_checkpoint_total";
        let help = "Requests to cosign a checkpoint, by what was answered.";
        metrics.head(&mut text, name, "counter", help);
        for (verdict, count) in self.verdicts() {
            metrics.line(&mut text, name, &format!("{{answer=\"{verdict}\"}}"), count);
        }
        let logs = self.logs();
        let of_logs = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Log) -> u64| {
            let mut text = String::new();
            metrics.head(&mut text, name, kind, help);
            for log in &logs {
                let labels = format!("{{origin=\"{}\"}}", label(&log.origin));
                metrics.line(&mut text, name, &labels, value(log));
            }
            text
        };
        text += &of_logs(
            "cosigned_entries",
            "gauge",
            "Entries of the last checkpoint that was cosigned.",
            &|log| {
                let checkpoint = log.shown().note.as_ref().and_then(checkpoint_of);
                checkpoint.map_or(0, |checkpoint| checkpoint.size().get())
            },
        );
        text += &of_logs(
            "cosigned_timestamp_seconds",
            "gauge",
            "When a checkpoint was cosigned last; 0 if never.",
            &|log| log.shown().note.map_or(0, |note| time_of(&note, &self.key)),
        );
        text += &of_logs(
            "forks",
            "gauge",
            "Checkpoints that convict the log of two histories.",
            &|log| log.shown().forks.len() as u64,
        );
        text += &of_logs(
            "unproven_checkpoints",
            "gauge",
            "Checkpoints that were not shown to continue the log.",
            &|log| log.shown().unproven as u64,
        );
        text += &of_logs(
            "evidence_lost_total",
            "counter",
            "Pieces of evidence that were not kept: there were enough, or the disk failed.",
            &|log| log.evidence_lost.load(Relaxed),
        );
        text += &of_logs(
            "failures_total",
            "counter",
            "Checkpoints that were not cosigned because they could not be kept.",
            &|log| log.failures.load(Relaxed),
        );
        text
    }
}
