//! What is monitored, by a real Prometheus: each panel of the dashboard has data, of primary and standby apart, and
//! the metrics come by both ways. What fires when is in `examples/monitoring/tests`, for `scripts/alerts.sh`.

use serde_json::Value;
use server_tests::command_line::{program, says};
use server_tests::gateway::Gateway;
use server_tests::prometheus::{NodeExporter, Prometheus, Target, examples, lint};
use server_tests::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A server whose log `audit` is signed and verified all the time.
fn primary() -> Cluster {
    let cluster =
        Cluster::with("shared_preload_libraries = 'merkle_log'\nmerkle_log.verify_rate = 1000000");
    cluster.sign_with_a_new_key("example.com/signer");
    let mut client = cluster.client("postgres");
    until(
        &mut client,
        "SELECT current_setting('merkle_log.signing_key_file') <> ''",
    );
    run(
        &mut client,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         SELECT create_log('audit', origin => 'example.com/audit', run_interval => '50 ms', verify_interval => '50 ms',
                           checkpoint_interval => '50 ms');
         SELECT add_source('audit', 'orders', order_column => 'id');
         INSERT INTO orders (note) SELECT 'note ' || i FROM generate_series(1, 600) i",
    );
    until(
        &mut client,
        "SELECT max(tree_size) = 600 FROM merkle_log_checkpoints WHERE log_name = 'audit'",
    );
    cluster
}

fn export(cluster: &Cluster, directory: &Path) {
    let mut command = program();
    command
        .env("PGHOST", cluster.socket())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres");
    let (code, text) = says(command.args(["export", "audit"]).arg(directory));
    assert_eq!(code, 0, "{text}");
}

/// Every query of a dashboard, for all instances, databases and logs.
fn queries(dashboard: &str) -> Vec<String> {
    let text = std::fs::read_to_string(examples().join(dashboard)).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| {
            let query = target["expr"].as_str().unwrap();
            ["$instance", "$database", "$log"]
                .iter()
                .fold(query.to_owned(), |query, variable| {
                    query.replace(variable, ".+")
                })
        })
        .collect()
}

fn instance(labels: &Value) -> &str {
    let instance = labels["instance"].as_str();
    instance.unwrap_or_else(|| panic!("primary and standby cannot be told apart: {labels}"))
}

/// Whom the series of an answer are of.
fn instances(series: &[(Value, f64)]) -> BTreeSet<&str> {
    series.iter().map(|(labels, _)| instance(labels)).collect()
}

/// What only the server counts that runs the logs: a standby runs none, and publishes nothing here.
const OF_THE_PRIMARY: [&str; 6] = [
    "batches_total",
    "entries_total",
    "errors_total",
    "last_run_",
    "cache_hits_total",
    "published_entries",
];

#[test]
fn every_panel_has_data_of_primary_and_standby_apart() {
    let primary = primary();
    let standby = Cluster::standby_of(&primary);
    let exported = tempfile::tempdir().unwrap();
    export(&primary, exported.path());
    let tiles = format!("[tiles]\naudit = {:?}", exported.path().to_str().unwrap());
    let (of_primary, of_standby) = (
        Gateway::start(&primary, &tiles),
        Gateway::start(&standby, ""),
    );
    let targets = [("primary", &of_primary), ("standby", &of_standby)];
    let targets = targets.map(|(instance, gateway)| Target {
        job: "merkle_log",
        instance,
        address: &gateway.address,
    });
    let mut client = primary.client("postgres");
    let prometheus = Prometheus::start(&targets, &["merkle_log-alerts.yml"]);
    prometheus.until("merkle_log_standby", |s| instances(s).len() == 2);
    // Somebody edits a row behind the log's back, which is an alert at once, and not twice.
    run(
        &mut client,
        "UPDATE orders SET note = 'forged' WHERE id = 42",
    );
    prometheus.until(
        "ALERTS{alertname='MerkleLogFinding', alertstate='firing'}",
        |s| s.len() == 1 && s[0].0["instance"] == "primary" && s[0].0["kind"] == "modified",
    );
    prometheus.until("merkle_log_findings", |s| instances(s).len() == 2);
    let queries = queries("merkle_log-dashboard.json");
    assert!(queries.len() > 20);
    for query in queries {
        let is_of_primary = OF_THE_PRIMARY.iter().any(|name| query.contains(name));
        let expected: &[&str] = match is_of_primary {
            true => &["primary"],
            false => &["primary", "standby"],
        };
        // A rate has a value when there are two samples.
        prometheus.until(&query, |s| instances(s).iter().eq(expected));
    }
    let roles = prometheus.query("sort(merkle_log_standby{database='postgres'})");
    let roles: Vec<_> = roles
        .iter()
        .map(|(l, value)| (instance(l), *value))
        .collect();
    assert_eq!(roles, [("primary", 0.0), ("standby", 1.0)]);
    let systems = prometheus.query("count by (system_identifier) (merkle_log_info)");
    assert!(systems.len() == 1 && systems[0].1 == 2.0, "{systems:?}");
    for rule in prometheus.rules() {
        assert_eq!(rule["health"], "ok", "{rule}");
        let query = rule["query"].as_str().unwrap();
        let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for metric in words.filter(|word| word.starts_with("merkle_log_")) {
            let series = prometheus.query(metric);
            assert!(!series.is_empty(), "{metric} of {query} is no metric");
        }
    }
    // None is pending either: a standby has no worker, and that is as it should be.
    let fired: BTreeSet<String> = prometheus
        .query("ALERTS")
        .iter()
        .map(|(labels, _)| labels["alertname"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(fired, BTreeSet::from(["MerkleLogFinding".to_owned()]));
    for gateway in [&of_primary, &of_standby] {
        let text = String::from_utf8(gateway.get("/metrics").body).unwrap();
        assert_eq!(lint(&text), "", "{text}");
    }
}

#[test]
fn an_exporter_or_a_database_that_is_down_is_noticed() {
    let cluster = primary();
    let mut gateway = Gateway::start(&cluster, "");
    let address = gateway.address.clone();
    let target = Target {
        job: "merkle_log",
        instance: "primary",
        address: &address,
    };
    let prometheus = Prometheus::start(&[target], &["merkle_log-alerts.yml"]);
    // What has to last for minutes is pending here; `scripts/alerts.sh` lets time pass.
    let alerts = |names: &'static [&'static str]| {
        prometheus.until("ALERTS", |s| {
            let seen: BTreeSet<_> = s
                .iter()
                .map(|(l, _)| l["alertname"].as_str().unwrap())
                .collect();
            seen == names.iter().copied().collect()
        });
    };
    prometheus.until("merkle_log_standby", |s| s.len() == 1);
    alerts(&[]);
    cluster.stop();
    alerts(&[
        "MerkleLogDatabaseDown",
        "MerkleLogNoPrimary",
        "MerkleLogNotMonitored",
    ]);
    cluster.restart();
    alerts(&[]);
    signal("TERM", &[&gateway.pid()]);
    gateway.ends();
    alerts(&[
        "MerkleLogExporterDown",
        "MerkleLogNoPrimary",
        "MerkleLogNotMonitored",
    ]);
}

/// The program of the unit, as the unit calls it.
fn textfile(cluster: &Cluster, database: &str, directory: &Path) -> Command {
    let unit = std::fs::read_to_string(examples().join("merkle-log-metrics@.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/local/bin/merkle-log-metrics %I\n"));
    let psql = cluster.bin().display().to_string();
    let mut command = Command::new(examples().join("merkle-log-metrics"));
    command
        .arg(database)
        .arg(directory)
        .env("PATH", format!("{psql}:{}", std::env::var("PATH").unwrap()))
        .env("PGHOST", cluster.socket())
        .env("PGUSER", "watcher");
    command
}

#[test]
fn the_node_exporter_serves_a_file_that_is_whole_at_any_moment() {
    let cluster = primary();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher",
    );
    run(&mut client, "CREATE DATABASE \"other shop\"");
    run(
        &mut cluster.client("other shop"),
        "CREATE SCHEMA logs; CREATE EXTENSION merkle_log SCHEMA logs; GRANT USAGE ON SCHEMA logs TO watcher",
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("merkle_log-postgres.prom");
    for database in ["postgres", "other shop"] {
        let (code, text) = says(&mut textfile(&cluster, database, directory.path()));
        assert_eq!((code, text.as_str()), (0, ""), "{database}");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lint(&text), "", "{text}");
    let exporter = NodeExporter::start(directory.path());
    let target = Target {
        job: "node",
        instance: "primary",
        address: &exporter.address,
    };
    let prometheus = Prometheus::start(&[target], &["merkle_log-alerts.yml"]);
    prometheus.until(
        "merkle_log_tree_size{log='audit',database='postgres'}",
        |s| s.len() == 1 && s[0].1 == 600.0,
    );
    prometheus.until("merkle_log_standby{database='other shop'}", |s| {
        s.len() == 1
    });
    // Whoever reads while it is written sees one or the other.
    let end = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < end {
                let (code, text) = says(&mut textfile(&cluster, "postgres", directory.path()));
                assert_eq!(code, 0, "{text}");
            }
        });
        while Instant::now() < end {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("# HELP ") && text.ends_with('\n'),
                "{text}"
            );
            assert!(text.contains("\nmerkle_log_cache_misses_total{"), "{text}");
        }
    });
    // Without an answer the file of before stays, and grows old.
    let before = std::fs::read_to_string(&file).unwrap();
    run(&mut client, "REVOKE pg_monitor FROM watcher");
    let (code, text) = says(&mut textfile(&cluster, "postgres", directory.path()));
    assert!(
        code != 0 && text.contains("permission denied"),
        "{code} {text}"
    );
    cluster.stop();
    let (code, text) = says(&mut textfile(&cluster, "postgres", directory.path()));
    assert!(
        code != 0 && text.contains("connection to server"),
        "{code} {text}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
