//! The gateway's own metrics.

use super::gateway::Gateway;

impl Gateway {
    pub fn metrics_text(&self, database_up: bool) -> String {
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
        text
    }
}
