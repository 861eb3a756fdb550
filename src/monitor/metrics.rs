//! `merkle_log_metrics`: the text format of Prometheus.

use super::health::{self, Check};
use crate::cache;
use crate::catalog::{identity, logs};
use crate::pg::{server, xact};
use crate::session::Session;
use crate::settings;
use crate::shared;
use crate::verify::recorded;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering::SeqCst;

/// A metric: name, kind, what it says, and its values by their labels. Each has the label `database` as well.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: Vec<(Labels, f64)>,
}

const FINDINGS: &str = "merkle_log_findings";

type Labels = Vec<(&'static str, String)>;

pub fn text(session: &Session) -> String {
    let mut metrics = server_metrics(session);
    metrics.extend(log_metrics(session));
    metrics.push(findings(session));
    metrics.extend(health_metrics(&health::checks(session)));
    let database = server::database_name();
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
            let _ = write!(text, "{name}{{database=\"{}\"", escape(&database));
            for (label, of) in labels {
                let _ = write!(text, ",{label}=\"{}\"", escape(of));
            }
            let _ = writeln!(text, "}} {value}");
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

/// A gauge of the database as a whole.
fn gauge(name: &'static str, help: &'static str, value: f64) -> Metric {
    Metric {
        name,
        kind: "gauge",
        help,
        values: vec![(Labels::new(), value)],
    }
}

/// Seconds since 1970, of microseconds since 2000.
fn unix_seconds(micros: i64) -> f64 {
    const BETWEEN: f64 = 946_684_800.0;
    micros as f64 / 1e6 + BETWEEN
}

fn server_metrics(session: &Session) -> Vec<Metric> {
    let workers = shared::running_workers();
    let worker = workers.first();
    let identifier = identity::here(session).system_identifier.to_string();
    let mut metrics = vec![
        Metric {
            name: "merkle_log_info",
            kind: "gauge",
            help: "Always 1. A primary and its standbys have one system identifier.",
            values: vec![(
                vec![
                    ("system_identifier", identifier),
                    ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ],
                1.0,
            )],
        },
        gauge(
            "merkle_log_standby",
            "1 on a standby, 0 on a primary.",
            f64::from(u8::from(server::in_recovery())),
        ),
        gauge(
            "merkle_log_collected_timestamp_seconds",
            "When these metrics were collected.",
            unix_seconds(xact::now()),
        ),
        gauge(
            "merkle_log_worker_up",
            "1 if all background workers run that this database should have; never on a standby.",
            f64::from(u8::from(worker.is_some())),
        ),
    ];
    if let Some(worker) = worker {
        metrics.push(gauge(
            "merkle_log_worker_heartbeat_timestamp_seconds",
            "When the background worker last went round its loop; of several, the one that did so the longest ago.",
            unix_seconds(worker.heartbeat.load(SeqCst)),
        ));
    }
    if let Some((hashes, room)) = cache::occupancy() {
        metrics.push(gauge(
            "merkle_log_cache_hashes",
            "Hashes in the node cache, of all databases.",
            hashes as f64,
        ));
        metrics.push(gauge(
            "merkle_log_cache_room",
            "Hashes that the node cache has room for.",
            room as f64,
        ));
    }
    metrics
}

/// What `merkle_log_health()` says.
fn health_metrics(checks: &[Check]) -> [Metric; 2] {
    let mut failed: BTreeMap<&str, f64> = BTreeMap::new();
    for check in checks {
        *failed.entry(check.name).or_default() += f64::from(u8::from(!check.ok));
    }
    let by_check = |(name, count): (&str, f64)| (vec![("check", name.to_owned())], count);
    let signing = checks.iter().filter(|c| c.name == health::CHECKPOINT);
    let by_log = |check: &Check| {
        let log = check.object.clone().unwrap_or_default();
        (vec![("log", log)], f64::from(u8::from(!check.ok)))
    };
    [
        Metric {
            name: "merkle_log_health_failed",
            kind: "gauge",
            help: "Checks of merkle_log_health() that are not ok, by the name of the check.",
            values: failed.into_iter().map(by_check).collect(),
        },
        Metric {
            name: "merkle_log_signing_failed",
            kind: "gauge",
            help: "1 if what is new in a log with a checkpoint_interval is not signed in time, or cannot be.",
            values: signing.map(by_log).collect(),
        },
    ]
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
            "merkle_log_lag_limit_seconds",
            "gauge",
            "How long rows may wait before merkle_log_health() calls the log late.",
            super::LAG_LIMIT,
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
            "merkle_log_verify_stopped",
            "gauge",
            "1 if something stands in the way of continuous verification.",
            "(verify_problem IS NOT NULL)::pg_catalog.int4",
        ),
        (
            "merkle_log_findings_left_out",
            "gauge",
            "Findings that continuous verification did not record because there were too many.",
            "COALESCE(findings_left_out, 0)",
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
    let run_interval = settings::run_interval().as_secs_f64();
    let rows: Vec<(String, Vec<Option<f64>>)> =
        session.fresh(&sql, &[run_interval.into()], |row| {
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
