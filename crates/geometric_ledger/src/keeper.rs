//! The ledger's own thread: it makes segments ready, syncs at intervals, checkpoints, reclaims slots.

use crate::commit::Writer;
use crate::error::Error;
use crate::ledger::Core;
use crate::options::Durability;
use crate::telemetry;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Wakes the keeper's threads.
#[derive(Default)]
pub struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    checkpoint: bool,
    stop: bool,
}

impl Signal {
    /// Asks for a checkpoint.
    pub fn raise(&self) {
        let mut state = self.state.lock().unwrap();
        if !state.checkpoint {
            state.checkpoint = true;
            self.changed.notify_all();
        }
    }

    fn stop(&self) {
        self.state.lock().unwrap().stop = true;
        self.changed.notify_all();
    }

    /// Waits until the ledger closes, which it says, or a checkpoint is asked for, or some time.
    fn wait(&self, longest: Duration, checkpoint: bool) -> bool {
        let state = self.state.lock().unwrap();
        let idle = |state: &mut State| !(state.stop || checkpoint && state.checkpoint);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, longest, idle)
            .unwrap();
        state.checkpoint &= !checkpoint;
        state.stop
    }
}

/// The threads; dropping it ends them.
pub struct Keeper {
    core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
}

/// How often the log is looked after, at the least.
const INTERVAL: Duration = Duration::from_millis(20);
const SAMPLE: Duration = Duration::from_secs(1);
/// Blocks brought into huge pages at a time, each in less than a millisecond.
const PROMOTE: usize = 128;

impl Keeper {
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
        ];
        Ok(Keeper {
            core: core.clone(),
            threads,
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.core.signal.stop();
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
    let mut marked = 0;
    while !core.signal.wait(interval, false) && core.wal.check().is_ok() {
        let ready = core.wal.prepare_next();
        let sync = match core.durability() {
            Durability::Group(interval) if synced.elapsed() >= interval => {
                synced = Instant::now();
                core.wal.sync_to(core.wal.appended())
            }
            _ => Ok(()),
        };
        let mark = core.mark(&mut marked);
        if let Err(error) = ready.and(sync).and(mark) {
            tracing::warn!(%error, "the write-ahead log");
        }
        if sampled.elapsed() >= SAMPLE {
            sampled = Instant::now();
            telemetry::sample(core);
            core.promote(PROMOTE);
        }
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
        // Reclaiming writes to the log: what waits for a checkpoint of this thread comes first.
        let mut writer = core.writer.lock().unwrap();
        if !due(&writer)
            && let Err(error) = core.reclaim_some(&mut writer, 1_024)
        {
            tracing::warn!(%error, "slots could not be reclaimed");
        }
    }
}
