//! What the ledger tells of itself, through the `metrics` facade; an application chooses where it
//! goes. `examples/monitoring` has alerts and a dashboard for these names.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use std::time::Duration;

/// Probe depths told apart; the last one is for all above.
pub const DEPTHS: usize = 8;

/// Names, units and meanings of all metrics, for exporters that show them.
pub fn describe() {
    describe_histogram!(
        "geometric_ledger_commit_seconds",
        Unit::Seconds,
        "From a batch's arrival until it is acknowledged"
    );
    describe_counter!(
        "geometric_ledger_batches_total",
        Unit::Count,
        "Batches committed"
    );
    describe_counter!(
        "geometric_ledger_updates_total",
        Unit::Count,
        "Accounts changed by committed batches"
    );
    describe_histogram!(
        "geometric_ledger_probe_depth",
        Unit::Count,
        "Index lines and other accounts' slots looked at to find an account"
    );
    describe_gauge!(
        "geometric_ledger_follower_lag_batches",
        Unit::Count,
        "Batches that the source of a follower has and the follower has not"
    );
    describe_gauge!(
        "geometric_ledger_follower_lag_seconds",
        Unit::Seconds,
        "How long ago the source made the first of these"
    );
    describe_gauge!(
        "geometric_ledger_opened_time_seconds",
        Unit::Seconds,
        "When the ledger was opened, since 1970"
    );
    describe_gauge!(
        "geometric_ledger_slots_bytes",
        Unit::Bytes,
        "Files of accounts"
    );
    describe_gauge!(
        "geometric_ledger_index_bytes",
        Unit::Bytes,
        "Files of the index"
    );
    describe_gauge!(
        "geometric_ledger_dirty_bytes",
        Unit::Bytes,
        "Memory that is written and not in the files yet"
    );
    describe_gauge!(
        "geometric_ledger_disk_free_bytes",
        Unit::Bytes,
        "What is left of the file system that the ledger is on"
    );
    describe_gauge!(
        "geometric_ledger_disk_size_bytes",
        Unit::Bytes,
        "The file system that the ledger is on"
    );
    describe_gauge!(
        "geometric_ledger_scrub_findings",
        Unit::Count,
        "What the last pass over everything stored found wrong"
    );
    describe_gauge!(
        "geometric_ledger_scrub_time_seconds",
        Unit::Seconds,
        "When the last pass over everything stored ended, since 1970"
    );
    describe_gauge!(
        "geometric_ledger_audit_failed",
        Unit::Count,
        "Whether the last sum of all balances was wrong, or could not be made"
    );
    describe_gauge!(
        "geometric_ledger_audit_time_seconds",
        Unit::Seconds,
        "When balances were last summed up, since 1970"
    );
    describe_gauge!("geometric_ledger_accounts", Unit::Count, "Accounts");
    describe_gauge!(
        "geometric_ledger_sequence",
        Unit::Count,
        "The last committed batch"
    );
    describe_gauge!(
        "geometric_ledger_shard_load",
        Unit::Count,
        "Entries per place in the index of a shard"
    );
    describe_gauge!(
        "geometric_ledger_shard_slots",
        Unit::Count,
        "Slots of a shard"
    );
    describe_gauge!(
        "geometric_ledger_wal_bytes",
        Unit::Bytes,
        "Files of the write-ahead log"
    );
    describe_gauge!(
        "geometric_ledger_since_checkpoint_bytes",
        Unit::Bytes,
        "What a crash would have to replay"
    );
    describe_counter!(
        "geometric_ledger_synced_bytes_total",
        Unit::Bytes,
        "Bytes of write-ahead log made durable"
    );
    describe_counter!(
        "geometric_ledger_syncs_total",
        Unit::Count,
        "Syncs of the write-ahead log"
    );
    describe_histogram!(
        "geometric_ledger_checkpoint_seconds",
        Unit::Seconds,
        "Duration of a checkpoint"
    );
    describe_counter!(
        "geometric_ledger_checkpoint_pages_total",
        Unit::Count,
        "Pages written by checkpoints"
    );
    describe_gauge!(
        "geometric_ledger_recovery_seconds",
        Unit::Seconds,
        "Duration of the last opening"
    );
    describe_gauge!(
        "geometric_ledger_recovery_batches",
        Unit::Count,
        "Batches done again by the last opening"
    );
    describe_counter!(
        "geometric_ledger_damage_total",
        Unit::Count,
        "Reads that found damage"
    );
    describe_counter!(
        "geometric_ledger_major_faults_total",
        Unit::Count,
        "Page faults of the process that waited for the disk"
    );
    describe_counter!(
        "geometric_ledger_minor_faults_total",
        Unit::Count,
        "Other page faults of the process"
    );
    describe_gauge!(
        "geometric_ledger_stopped",
        Unit::Count,
        "1 when the ledger stopped because its log failed"
    );
}

pub(crate) fn committed(updates: u64, duration: Duration) {
    histogram!("geometric_ledger_commit_seconds").record(duration);
    counter!("geometric_ledger_batches_total").increment(1);
    counter!("geometric_ledger_updates_total").increment(updates);
}

pub(crate) fn probed(depths: &[usize; DEPTHS]) {
    let histogram = histogram!("geometric_ledger_probe_depth");
    for (depth, count) in depths.iter().enumerate().filter(|(_, count)| **count > 0) {
        histogram.record_many((depth + 1) as f64, *count);
    }
}

pub(crate) fn opened(batches: u64, duration: Duration, now: i64) {
    gauge!("geometric_ledger_opened_time_seconds").set(now as f64 / 1e6);
    gauge!("geometric_ledger_recovery_seconds").set(duration.as_secs_f64());
    gauge!("geometric_ledger_recovery_batches").set(batches as f64);
}

pub(crate) fn lagging(batches: u64, age: Duration) {
    gauge!("geometric_ledger_follower_lag_batches").set(batches as f64);
    gauge!("geometric_ledger_follower_lag_seconds").set(age.as_secs_f64());
}

/// A pass over everything stored has ended, at a time in microseconds since 1970.
pub(crate) fn scrubbed(findings: u64, now: i64) {
    gauge!("geometric_ledger_scrub_findings").set(findings as f64);
    gauge!("geometric_ledger_scrub_time_seconds").set(now as f64 / 1e6);
}

/// Balances were summed up, at a time in microseconds since 1970.
pub(crate) fn audited(right: bool, now: i64) {
    gauge!("geometric_ledger_audit_failed").set(f64::from(u8::from(!right)));
    gauge!("geometric_ledger_audit_time_seconds").set(now as f64 / 1e6);
}

pub(crate) fn damaged() {
    counter!("geometric_ledger_damage_total").increment(1);
}

pub(crate) fn checkpointed(pages: u64, duration: Duration) {
    histogram!("geometric_ledger_checkpoint_seconds").record(duration);
    counter!("geometric_ledger_checkpoint_pages_total").increment(pages);
}

/// What the gauges show.
pub(crate) struct Sample {
    pub accounts: u64,
    pub sequence: u64,
    pub wal_bytes: u64,
    pub slots_bytes: u64,
    pub index_bytes: u64,
    pub dirty_bytes: u64,
    /// Bytes of the file system: what is left, and all.
    pub disk: Option<(u64, u64)>,
    pub since_checkpoint_bytes: u64,
    pub stopped: bool,
    pub synced_bytes: u64,
    pub syncs: u64,
}

/// Sets the gauges, at regular times.
pub(crate) fn sample(sample: &Sample) {
    gauge!("geometric_ledger_accounts").set(sample.accounts as f64);
    gauge!("geometric_ledger_sequence").set(sample.sequence as f64);
    gauge!("geometric_ledger_wal_bytes").set(sample.wal_bytes as f64);
    gauge!("geometric_ledger_slots_bytes").set(sample.slots_bytes as f64);
    gauge!("geometric_ledger_index_bytes").set(sample.index_bytes as f64);
    gauge!("geometric_ledger_dirty_bytes").set(sample.dirty_bytes as f64);
    if let Some((free, size)) = sample.disk {
        gauge!("geometric_ledger_disk_free_bytes").set(free as f64);
        gauge!("geometric_ledger_disk_size_bytes").set(size as f64);
    }
    gauge!("geometric_ledger_since_checkpoint_bytes").set(sample.since_checkpoint_bytes as f64);
    gauge!("geometric_ledger_stopped").set(f64::from(u8::from(sample.stopped)));
    counter!("geometric_ledger_synced_bytes_total").absolute(sample.synced_bytes);
    counter!("geometric_ledger_syncs_total").absolute(sample.syncs);
    if let Some((minor, major)) = page_faults() {
        counter!("geometric_ledger_minor_faults_total").absolute(minor);
        counter!("geometric_ledger_major_faults_total").absolute(major);
    }
}

/// Sets the gauges of a shard, by its number.
pub(crate) fn sample_shard(number: u16, slots: u64, load: f64) {
    let label = number.to_string();
    gauge!("geometric_ledger_shard_load", "shard" => label.clone()).set(load);
    gauge!("geometric_ledger_shard_slots", "shard" => label).set(slots as f64);
}

/// Minor and major page faults of this process (proc(5), fields 10 and 12 of stat).
fn page_faults() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let minor = fields.nth(7)?.parse().ok()?;
    Some((minor, fields.nth(1)?.parse().ok()?))
}
