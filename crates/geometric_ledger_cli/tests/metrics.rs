//! The dashboard and the alerts speak of metrics that there are.

use geometric_ledger::{Account, Follower, Key, Options};
use metrics_exporter_prometheus::PrometheusBuilder;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn names(text: &str) -> BTreeSet<String> {
    let word = |byte: char| !(byte.is_ascii_alphanumeric() || byte == '_');
    text.split(word)
        .filter(|word| word.starts_with("geometric_ledger_"))
        .map(|word| {
            word.trim_end_matches("_bucket")
                .trim_end_matches("_sum")
                .trim_end_matches("_count")
                .to_owned()
        })
        .collect()
}

#[test]
fn the_dashboard_shows_all_metrics_and_alerts_use_those_that_exist() {
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    geometric_ledger::describe_metrics();
    let directory = tempfile::tempdir().unwrap();
    let put = |number: u8| -> (Key, Account) { ([number; 32], Account::with_balance(1)) };
    let ledger = Options::new().shards(1).open(directory.path()).unwrap();
    ledger
        .update_batch(&(0..200).map(put).collect::<Vec<_>>())
        .unwrap();
    ledger.close().unwrap();
    let file = directory.path().join("shard-00.slots");
    let mut bytes = std::fs::read(&file).unwrap();
    // The first 128 bytes are the stamp.
    bytes[228] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let often = Duration::from_millis(200);
    let ledger = Options::new()
        .scrub(often, 1 << 30)
        .audit_every(often)
        .open(directory.path())
        .unwrap();
    assert!((0..200).any(|number| ledger.get(&[number; 32]).is_err()));
    ledger.update_batch(&[put(250)]).unwrap();
    ledger.checkpoint().unwrap();
    let replica = tempfile::tempdir().unwrap();
    let follower = Follower::open(replica.path(), directory.path(), Options::new()).unwrap();
    follower.lag().unwrap();
    // Gauges are set once a second.
    let start = Instant::now();
    let told = |text: &str| text.contains("audit_failed") && text.contains("scrub_findings 1");
    while !told(&metrics.render()) {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{}",
            metrics.render()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(1_500));
    let there = names(&metrics.render());
    let described = names(include_str!(
        "../../geometric_ledger/src/engine/telemetry.rs"
    ));
    assert_eq!(there, described, "what is described, and what is told");
    let alerts = include_str!("../../../examples/monitoring/geometric_ledger-alerts.yml");
    let dashboard = include_str!("../../../examples/monitoring/geometric_ledger-dashboard.json");
    let unknown: Vec<_> = names(alerts).difference(&there).cloned().collect();
    assert!(
        unknown.is_empty(),
        "alerts of what is not told: {unknown:?}"
    );
    assert_eq!(names(dashboard), there, "what is shown, and what is told");
    // What an operator must hear of, with a rule for each.
    for needed in [
        "scrub_findings",
        "scrub_time_seconds",
        "audit_failed",
        "audit_time_seconds",
        "recovery_seconds",
        "recovery_batches",
        "disk_free_bytes",
        "commit_seconds",
        "shard_load",
        "follower_lag_seconds",
    ] {
        assert!(alerts.contains(needed), "no alert uses {needed}");
    }
}
