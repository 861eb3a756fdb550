//! The gateway's own metrics.

use super::exported;
use super::gateway::Gateway;
use crate::http::label;
use tlog::{Checkpoint, SignedNote};

impl Gateway {
    pub async fn metrics_text(&self, database_up: bool) -> String {
        let metrics = &self.admission.metrics;
        let mut text = metrics.text();
        let (open, used) = self.sessions();
        let values = [
            (
                "database_up",
                "1 if the database answers.",
                usize::from(database_up),
            ),
            ("database_sessions", "Sessions with the database.", open),
            (
                "database_sessions_used",
                "Sessions that answer a request.",
                used,
            ),
        ];
        for (name, help, value) in values {
            metrics.one(&mut text, name, "gauge", help, value);
        }
        let name = "published_entries";
        let help = "Entries of the checkpoint that an exported log has; 0 if it cannot be read.";
        metrics.head(&mut text, name, "gauge", help);
        for (log, directory) in &self.live().tiles {
            let note = exported::file(directory, "checkpoint").await;
            let size = note.ok().and_then(|note| size_of(&note)).unwrap_or(0);
            let labels = format!("{{log=\"{}\"}}", label(log));
            metrics.line(&mut text, name, &labels, size);
        }
        text
    }
}

fn size_of(note: &[u8]) -> Option<u64> {
    let note = SignedNote::from_bytes(note).ok()?;
    let checkpoint: Checkpoint = note.text().parse().ok()?;
    Some(checkpoint.size().get())
}
