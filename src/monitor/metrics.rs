//! `merkle_log_metrics`: the text format of Prometheus.

use super::health;
use crate::cache;
use crate::catalog::logs;
use crate::pg::server;
use crate::session::Session;
use crate::shared;
use crate::verify::recorded;
use std::fmt::Write;
use std::sync::atomic::Ordering::SeqCst;

/// A metric: name, kind, what it says, and its values by log, or by log and kind of finding.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: Vec<(Labels, f64)>,
}

const FINDINGS: &str = "merkle_log_findings";

type Labels = Vec<(&'static str, String)>;

pub fn text(session: &Session) -> String {
    let mut metrics = server_metrics();
    metrics.extend(log_metrics(session));
    metrics.push(findings(session));
    let failed = health::checks(session).iter().filter(|c| !c.ok).count();
    metrics.push(Metric {
        name: "merkle_log_health_failed",
        kind: "gauge",
        help: "Checks of merkle_log_health() that are not ok.",
        values: vec![(Labels::new(), failed as f64)],
    });
    let mut text = String::new();
    // Of findings it is said as well that there are none.
    let is_said = |m: &&Metric| !m.values.is_empty() || m.name == FINDINGS;
    for metric in metrics.iter().filter(is_said) {
        let Metric {
            name, kind, help, ..
        } = metric;
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in &metric.values {
            let label = |(name, of): &(_, String)| format!("{name}=\"{}\"", escape(of));
            let labels: Vec<String> = labels.iter().map(label).collect();
            let _ = match labels.is_empty() {
                true => writeln!(text, "{name} {value}"),
                false => writeln!(text, "{name}{{{}}} {value}", labels.join(",")),
            };
        }
    }
    text
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn server_metrics() -> Vec<Metric> {
    let worker = shared::get().and_then(|s| s.worker_of(server::my_database()));
    let running = worker.is_some_and(|w| w.pid.load(SeqCst) != 0);
    let one = |name, help, value: f64| Metric {
        name,
        kind: "gauge",
        help,
        values: vec![(Labels::new(), value)],
    };
    let mut metrics = vec![one(
        "merkle_log_worker_up",
        "1 if a background worker runs for this database.",
        f64::from(u8::from(running)),
    )];
    if let Some((hashes, room)) = cache::occupancy() {
        metrics.push(one(
            "merkle_log_cache_hashes",
            "Hashes in the node cache, of all databases.",
            hashes as f64,
        ));
        metrics.push(one(
            "merkle_log_cache_room",
            "Hashes that the node cache has room for.",
            room as f64,
        ));
    }
    metrics
}

/// The findings that are open, by kind.
fn findings(session: &Session) -> Metric {
    let mut values = Vec::new();
    for id in logs::ids(session) {
        let Some(log) = logs::by_id(session, id) else {
            continue;
        };
        for (kind, count) in recorded::open_by_kind(session, id) {
            values.push((
                vec![("log", log.name.clone()), ("kind", kind)],
                count as f64,
            ));
        }
    }
    Metric {
        name: FINDINGS,
        kind: "gauge",
        help: "Findings of continuous verification that are open, by kind.",
        values,
    }
}

fn log_metrics(session: &Session) -> Vec<Metric> {
    type Column = (&'static str, &'static str, &'static str, &'static str);
    const COLUMNS: &[Column] = &[
        (
            "merkle_log_tree_size",
            "gauge",
            "Entries of the log.",
            "tree_size",
        ),
        (
            "merkle_log_lag_rows",
            "gauge",
            "Rows that wait to be logged; 10000 stands for as many or more.",
            "lag_rows",
        ),
        (
            "merkle_log_lag_seconds",
            "gauge",
            "How long the oldest of them has waited.",
            "lag_seconds",
        ),
        (
            "merkle_log_last_batch_timestamp_seconds",
            "gauge",
            "When the last batch that appended entries committed.",
            "EXTRACT(epoch FROM last_batch_at)",
        ),
        (
            "merkle_log_last_run_timestamp_seconds",
            "gauge",
            "When the log was run last, since the server started.",
            "EXTRACT(epoch FROM last_run_at)",
        ),
        (
            "merkle_log_last_run_duration_seconds",
            "gauge",
            "How long that took.",
            "EXTRACT(epoch FROM last_duration)",
        ),
        (
            "merkle_log_batches_total",
            "counter",
            "Batches that appended entries, since the server started.",
            "batches",
        ),
        (
            "merkle_log_entries_total",
            "counter",
            "Entries appended since the server started.",
            "entries",
        ),
        (
            "merkle_log_errors_total",
            "counter",
            "Runs of the background worker that failed, since the server started.",
            "errors",
        ),
        (
            "merkle_log_failing",
            "gauge",
            "1 if the last batch failed.",
            "(last_error IS NOT NULL)::pg_catalog.int4",
        ),
        (
            "merkle_log_waiting",
            "gauge",
            "1 if the last batch gave up waiting for a writer.",
            "(waiting_for IS NOT NULL)::pg_catalog.int4",
        ),
        (
            "merkle_log_enabled",
            "gauge",
            "1 if the log is enabled and not paused.",
            "(enabled AND NOT paused)::pg_catalog.int4",
        ),
        (
            "merkle_log_pruned_entries",
            "gauge",
            "Entries that were pruned.",
            "pruned_to",
        ),
        (
            "merkle_log_signed_entries",
            "gauge",
            "Entries of the newest checkpoint, of a log that has one.",
            "(SELECT c.tree_size FROM @extschema@.merkle_checkpoint c
               WHERE c.log_id = (SELECT l.log_id FROM @extschema@.verification_logs l WHERE l.log_name = s.log_name)
               ORDER BY c.tree_size DESC LIMIT 1)",
        ),
        (
            "merkle_log_last_checkpoint_timestamp_seconds",
            "gauge",
            "When that was signed.",
            "(SELECT EXTRACT(epoch FROM c.signed_at) FROM @extschema@.merkle_checkpoint c
               WHERE c.log_id = (SELECT l.log_id FROM @extschema@.verification_logs l WHERE l.log_name = s.log_name)
               ORDER BY c.tree_size DESC LIMIT 1)",
        ),
        (
            "merkle_log_open_findings",
            "gauge",
            "Findings of continuous verification that are open.",
            "open_findings",
        ),
        (
            "merkle_log_verified_rows_total",
            "counter",
            "Rows and entries that continuous verification has read.",
            "COALESCE(verified_rows, 0)",
        ),
        (
            "merkle_log_verify_interval_seconds",
            "gauge",
            "How often the log is to be verified, of a log that is.",
            "EXTRACT(epoch FROM verify_interval)",
        ),
        (
            "merkle_log_verify_age_seconds",
            "gauge",
            "How long ago the last full pass of continuous verification ended, or else the log was made.",
            "(SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - COALESCE(s.last_verified_at, l.created_at))
                FROM @extschema@.verification_logs l WHERE l.log_name = s.log_name)",
        ),
        (
            "merkle_log_cache_hits_total",
            "counter",
            "Hashes found in the node cache.",
            "cache_hits",
        ),
        (
            "merkle_log_cache_misses_total",
            "counter",
            "Hashes not found in the node cache.",
            "cache_misses",
        ),
    ];
    let list: Vec<String> = COLUMNS
        .iter()
        .map(|(.., expression)| format!("({expression})::pg_catalog.float8"))
        .collect();
    let sql = format!(
        "SELECT log_name, {} FROM @extschema@.merkle_log_status s ORDER BY log_name",
        list.join(", ")
    );
    let rows: Vec<(String, Vec<Option<f64>>)> = session.fresh(&sql, &[], |row| {
        let values = (1..=COLUMNS.len()).map(|column| row.get(column)).collect();
        (row.required(0), values)
    });
    let metric = |(place, (name, kind, help, _)): (usize, &Column)| Metric {
        name,
        kind,
        help,
        values: rows
            .iter()
            .filter_map(|(log, values)| Some((vec![("log", log.clone())], values[place]?)))
            .collect(),
    };
    COLUMNS.iter().enumerate().map(metric).collect()
}
