//! The launcher: keeps workers running in each database that has some to have.
//!
//! Workers are never restarted by the server itself but by the launcher, which looks round once a
//! second: so one that was killed comes back, and one that had nothing to do is tried again later.

use crate::pg::{wait, worker};
use crate::shared::{self, FIRST, Left, Shared};
use crate::{pg, settings};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::time::{Duration, Instant};

pub const NAME: &str = "merkle_log launcher";
const KIND: &str = "merkle_log worker";

const ROUND: Duration = Duration::from_secs(1);
/// How soon a database without the extension is looked at again.
const NOTHING_TO_DO: Duration = Duration::from_secs(10);
const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);

/// Called while the library is preloaded.
pub fn register() {
    worker::register_launcher(NAME, "merkle_log_launcher_main");
}

#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn merkle_log_launcher_main(_arg: pg_sys::Datum) {
    worker::begin(None);
    let Some(shared) = shared::get() else {
        return;
    };
    shared.i_am_launcher();
    let mut launcher = Launcher {
        shared,
        started: HashMap::new(),
        complained: None,
    };
    loop {
        worker::reload();
        launcher.round();
        wait::sleep(ROUND);
    }
}

struct Launcher {
    shared: &'static Shared,
    /// When each database's workers were last started, by their numbers.
    started: HashMap<(pg_sys::Oid, u32), Instant>,
    complained: Option<Instant>,
}

impl Launcher {
    fn round(&mut self) {
        let Ok(databases) = worker::transaction(worker::databases) else {
            return;
        };
        let numbers: Vec<_> = databases.iter().map(|(oid, _)| *oid).collect();
        self.shared.forget_all_but(&numbers);
        self.started.retain(|(oid, _), _| numbers.contains(oid));
        for (oid, name) in databases {
            if !settings::runs_database(&name) {
                continue;
            }
            self.start(oid, FIRST, &name);
            // Where the first finds nothing to do, the others would not either.
            if self.shared.state_of(oid, FIRST).0 {
                (FIRST + 1..settings::workers()).for_each(|number| self.start(oid, number, &name));
            }
        }
    }

    /// Starts a worker, if it does not run and it is time to try.
    fn start(&mut self, database: pg_sys::Oid, number: u32, name: &str) {
        let (running, left) = self.shared.state_of(database, number);
        let pause = match left {
            Left::Stopped => ROUND,
            Left::NothingToDo => NOTHING_TO_DO,
        };
        let last = self.started.get(&(database, number));
        if running || last.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.started.insert((database, number), Instant::now());
        let title = match number {
            FIRST => format!("merkle_log worker of {name}"),
            _ => format!("merkle_log worker {} of {name}", number + 1),
        };
        if !pg::worker::start(&title, KIND, "merkle_log_worker_main", database, number) {
            self.complain(name);
        }
    }

    fn complain(&mut self, database: &str) {
        if self
            .complained
            .is_some_and(|at| at.elapsed() < COMPLAIN_AGAIN)
        {
            return;
        }
        self.complained = Some(Instant::now());
        pgrx::log!(
            "merkle_log: no worker could be started for database \"{database}\": raise max_worker_processes, lower merkle_log.workers, or list fewer databases in merkle_log.databases"
        );
    }
}
