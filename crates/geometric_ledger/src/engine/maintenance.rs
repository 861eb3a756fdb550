//! The ledger's own threads: they make segments ready, sync at intervals, checkpoint, reclaim slots.

use crate::engine::state::{Core, Writer};
use crate::engine::telemetry;
use crate::error::Error;
use crate::options::Durability;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// The threads; dropping it ends them.
pub struct Maintenance {
    core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
}

/// How often the log is looked after, at the least.
const INTERVAL: Duration = Duration::from_millis(20);
const SAMPLE: Duration = Duration::from_secs(1);
/// Blocks brought into huge pages at a time, each in less than a millisecond.
const PROMOTE: usize = 128;

impl Maintenance {
    pub fn start(core: &Arc<Core>) -> Result<Self, Error> {
        let run = |name: &str, work: fn(&Core)| {
            let core = core.clone();
            Builder::new()
                .name(name.to_owned())
                .spawn(move || work(&core))
                .map_err(Error::io("a thread"))
        };
        let threads = vec![
            run("ledger-log", log)?,
            run("ledger-checkpoint", checkpoint)?,
            run("ledger-sync", sync_submissions)?,
        ];
        Ok(Maintenance {
            core: core.clone(),
            threads,
        })
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.core.signal.stop();
        self.core.submissions.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn log(core: &Core) {
    let interval = match core.durability() {
        Durability::Group(interval) => interval.min(INTERVAL),
        _ => INTERVAL,
    };
    let (mut synced, mut sampled) = (Instant::now(), Instant::now());
    let mut logged = 0;
    while !core.signal.wait(interval, false) && core.wal.check().is_ok() {
        let ready = core.wal.prepare_next();
        let sync = match core.durability() {
            Durability::Group(interval) if synced.elapsed() >= interval => {
                synced = Instant::now();
                core.wal.sync_to(core.wal.appended())
            }
            _ => Ok(()),
        };
        let said = core.log_durable_position(&mut logged);
        if let Err(error) = ready.and(sync).and(said) {
            tracing::warn!(%error, "the write-ahead log");
        }
        if sampled.elapsed() >= SAMPLE {
            sampled = Instant::now();
            sample(core);
            core.promote(PROMOTE);
        }
    }
}

/// Makes submitted batches durable, as many as there are at once.
fn sync_submissions(core: &Core) {
    while let Some((sequence, end)) = core.submissions.next() {
        let last = match core.wait(sequence, end) {
            Ok(()) => core.visible.load(Ordering::Acquire),
            Err(_) => u64::MAX,
        };
        core.submissions.wake(last);
    }
}

fn sample(core: &Core) {
    let stats = core.stats();
    telemetry::sample(&telemetry::Sample {
        accounts: stats.accounts,
        sequence: stats.sequence,
        wal_bytes: stats.wal_bytes,
        slots_bytes: stats.slots_bytes,
        index_bytes: stats.index_bytes,
        dirty_bytes: stats.dirty_bytes,
        disk: core.disk.space(),
        since_checkpoint_bytes: stats.since_checkpoint_bytes,
        stopped: core.wal.check().is_err(),
        synced_bytes: core.wal.synced_bytes.load(Ordering::Relaxed),
        syncs: core.wal.syncs.load(Ordering::Relaxed),
    });
    for shard in &stats.shards {
        telemetry::sample_shard(shard.number, shard.slots, shard.load);
    }
}

/// Gives back what pending transfers have taken whose time is over.
fn expire(core: &Core) {
    if core.following.load(Ordering::Acquire) {
        return;
    }
    if let Err(error) = core.expire_transfers() {
        tracing::warn!(%error, "expired transfers could not be ended");
    }
}

fn checkpoint(core: &Core) {
    let due = |writer: &Writer| {
        let since = core.wal.appended() - writer.checkpoint_position;
        since > core.options.checkpoint_bytes || core.dirty() > core.options.dirty_bytes / 2
    };
    while !core.signal.wait(SAMPLE, true) && core.wal.check().is_ok() {
        let writer = core.writer.lock().unwrap();
        let due_now = due(&writer);
        drop(writer);
        if due_now && let Err(error) = core.checkpoint(false) {
            core.wal.stop(&format!("a checkpoint failed: {error}"));
        }
        if !due_now {
            expire(core);
        }
        // Reclaiming writes to the log: what waits for a checkpoint of this thread comes first.
        let mut writer = core.writer.lock().unwrap();
        if !due(&writer)
            && let Err(error) = core.reclaim_some(&mut writer, 1_024)
        {
            tracing::warn!(%error, "slots could not be reclaimed");
        }
    }
}
