//! Group commit: callers that wait for the disk at the same time share one sync.
//!
//! One caller syncs for all that came before it began; who comes meanwhile waits for the next one. Callers who
//! were served usually come back at once with their next batch. So the next sync waits for them, for a fraction of
//! the time that a sync takes: else half of them would always wait for the sync that the other half is in. Where
//! they do not come back in time, that is tried less and less often.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct GroupSync {
    state: Mutex<State>,
    done: Condvar,
    /// Callers that have come, ever.
    came: AtomicU64,
}

#[derive(Default)]
struct State {
    syncing: bool,
    /// How many callers had come when the last sync began; and how many will have when all are back that came
    /// by its end and had to wait.
    began: u64,
    all_back: u64,
    took: Duration,
    /// So many syncs wait for nobody, and so many did when it failed the last time.
    skip: u32,
    skipped: u32,
}

/// A sync waits for others for a fraction of the time that the one before took.
const FRACTION: u32 = 4;
/// After failures a sync in so many is waited with.
const RAREST: u32 = 256;

impl GroupSync {
    /// Returns when `is_done`; until then `sync`s, or waits for another caller that does.
    pub fn wait<E>(
        &self,
        is_done: impl Fn() -> bool,
        check: impl Fn() -> Result<(), E>,
        sync: impl Fn() -> Result<(), E>,
    ) -> Result<(), E> {
        if is_done() {
            return Ok(());
        }
        self.came.fetch_add(1, Ordering::AcqRel);
        let mut state = self.state.lock().unwrap();
        while !is_done() {
            check()?;
            if state.syncing {
                state = self.done.wait(state).unwrap();
                continue;
            }
            state.syncing = true;
            let longest = state.patience(self.came.load(Ordering::Acquire));
            let all_back = state.all_back;
            drop(state);
            let gathered = longest.map(|longest| self.gather(all_back, longest));
            let (came, start) = (self.came.load(Ordering::Acquire), Instant::now());
            let synced = sync();
            let (meanwhile, took) = (self.came.load(Ordering::Acquire), start.elapsed());
            state = self.state.lock().unwrap();
            state.learn(gathered);
            state.all_back = meanwhile + (came - state.began);
            (state.began, state.took) = (came, took);
            state.syncing = false;
            self.done.notify_all();
            synced?;
        }
        Ok(())
    }

    /// Waits until all are back. Whether they came in time.
    fn gather(&self, all_back: u64, longest: Duration) -> bool {
        let start = Instant::now();
        while self.came.load(Ordering::Acquire) < all_back {
            if start.elapsed() > longest {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }
}

impl State {
    /// How long the sync that begins now waits, if at all, of whose callers so many have come.
    fn patience(&mut self, came: u64) -> Option<Duration> {
        if came >= self.all_back {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(self.took / FRACTION)
    }

    fn learn(&mut self, gathered: Option<bool>) {
        match gathered {
            Some(true) => self.skipped = 0,
            Some(false) => {
                self.skipped = (2 * self.skipped).clamp(1, RAREST);
                self.skip = self.skipped;
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `callers` have of a disk whose syncs take some time, each coming back at once or after `pause`.
    struct Disk {
        appended: AtomicU64,
        durable: AtomicU64,
        syncs: AtomicU64,
        group: GroupSync,
    }

    const SYNC: Duration = Duration::from_millis(40);

    impl Disk {
        fn commit(&self) {
            let position = self.appended.fetch_add(1, Ordering::AcqRel) + 1;
            let is_done = || self.durable.load(Ordering::Acquire) >= position;
            let sync = || {
                let to = self.appended.load(Ordering::Acquire);
                std::thread::sleep(SYNC);
                self.durable.fetch_max(to, Ordering::AcqRel);
                self.syncs.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            self.group.wait::<()>(is_done, || Ok(()), sync).unwrap();
            assert!(is_done());
        }
    }

    fn commits_a_sync(callers: u64, each: u64) -> f64 {
        let disk = Disk {
            appended: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            group: GroupSync::default(),
        };
        std::thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| (0..each).for_each(|_| disk.commit()));
            }
        });
        (callers * each) as f64 / disk.syncs.into_inner() as f64
    }

    #[test]
    fn callers_at_the_same_time_share_one_sync() {
        assert_eq!(commits_a_sync(1, 5), 1.0);
        let shared = commits_a_sync(16, 25);
        assert!(shared > 10.0, "{shared} of 16 commits a sync");
    }

    #[test]
    fn nobody_waits_behind_a_sync_that_he_does_not_need() {
        let group = GroupSync::default();
        let (first, second) = (AtomicU64::new(0), AtomicU64::new(0));
        let is = |flag: &AtomicU64| flag.load(Ordering::Acquire) == 1;
        let until = |flag: &AtomicU64| {
            while !is(flag) {
                std::thread::yield_now()
            }
        };
        let served = AtomicU64::new(0);
        std::thread::scope(|scope| {
            // The first sync serves two. The second one does not end before both have returned.
            for _ in 0..2 {
                scope.spawn(|| {
                    let sync = || {
                        // Both have come, and so has the third.
                        while group.came.load(Ordering::Acquire) < 3 {
                            std::thread::yield_now();
                        }
                        first.store(1, Ordering::Release);
                        Ok(())
                    };
                    group.wait::<()>(|| is(&first), || Ok(()), sync).unwrap();
                    served.fetch_add(1, Ordering::AcqRel);
                });
            }
            while !group.state.lock().unwrap().syncing {
                std::thread::yield_now();
            }
            let sync = || {
                until(&first);
                while served.load(Ordering::Acquire) < 2 {
                    std::thread::yield_now();
                }
                second.store(1, Ordering::Release);
                Ok(())
            };
            group.wait::<()>(|| is(&second), || Ok(()), sync).unwrap();
        });
    }

    #[test]
    fn an_error_of_the_disk_is_told_to_all_who_wait() {
        let group = GroupSync::default();
        let failed = AtomicU64::new(0);
        let check = || match failed.load(Ordering::Acquire) {
            0 => Ok(()),
            _ => Err(()),
        };
        let sync = || {
            failed.store(1, Ordering::Release);
            Err(())
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(group.wait(|| false, check, sync).is_err()));
            }
        });
    }
}
