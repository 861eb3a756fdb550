//! Random programs of DDL, administration and DML against a model that says what must be so.
//!
//! After each few programs the model says which entries stand in each log, of what kind and content, in which order
//! for each row; what `verify_log` finds, which is nothing where history is honest; which state each source
//! is in; and which acts are on record. Roots are computed anew, and each must be consistent with all before.
//! A statement that is refused must be one that the model refuses, for its reason, with a hint where it is ours.
//!
//!     cargo test -p server-tests state_machine::              # some hundred programs
//!     LONG=1 cargo test -p server-tests state_machine::       # thousands; PROGRAMS=n for another number

mod administration;
mod check;
mod ddl;
mod dml;
mod expect;
mod machine;
mod model;

use machine::Machine;
use rand::Rng;
use server_tests::*;

/// Programs that share a database.
const EPOCH: usize = 25;
/// Programs between two checks.
const STEP: usize = 3;

impl Machine {
    /// A few statements and transactions.
    fn program(&mut self) {
        self.counts.programs += 1;
        for _ in 0..self.rng.random_range(3..=9) {
            if self.held.is_some() {
                self.beside();
            } else if self.chance(0.4) {
                self.transaction();
            } else if self.chance(0.12) {
                self.hold();
            } else {
                self.anything();
            }
        }
    }

    /// What may be done while another transaction holds rows.
    fn beside(&mut self) {
        match self.rng.random_range(0..9) {
            0..=3 => self.change_rows(),
            4 | 5 => self.batch(),
            6 => self.reconcile(),
            7 if self.held.as_ref().is_some_and(|h| h.prepared) && self.chance(0.3) => {
                self.restart()
            }
            _ => self.release(),
        }
    }

    fn anything(&mut self) {
        match self.rng.random_range(0..46) {
            0..=21 => self.change_rows(),
            22..=27 => self.alter_table(),
            28 | 29 => self.mend(),
            30 => self.create_table(),
            31..=36 => self.administer(),
            37..=39 => self.batch(),
            40 | 41 => self.reconcile(),
            42..=44 => self.verify(),
            _ => self.mistake(),
        }
    }

    fn transaction(&mut self) {
        self.begin();
        for _ in 0..self.rng.random_range(1..=7) {
            match self.rng.random_range(0..8) {
                0 => self.savepoint(),
                1 => self.end_savepoint(),
                _ => self.anything(),
            }
        }
        let commit = self.chance(0.8);
        self.end(commit);
    }

    /// Stops the server, or kills it, and starts it again.
    fn restart(&mut self) {
        self.counts.restarts += 1;
        let empties = self.state.tables.iter().any(|t| !t.logged);
        let kill = !empties && self.chance(0.5);
        self.script.push(format!(
            "-- restart, {}",
            if kill { "killed" } else { "stopped" }
        ));
        match kill {
            true => self.cluster.kill_9(),
            false => self.cluster.stop(),
        }
        self.cluster.restart();
        self.connect();
    }

    /// Dumps the database and goes on in what is restored from that, where every source is ready.
    fn restore(&mut self) {
        let sources = self.state.logs.iter().flat_map(|l| &l.sources);
        // What was renamed and is not on record, a dump does not tell.
        let ready = |s: &model::Source| {
            let table = &self.state.tables[s.table];
            let told = s.removed || !s.captures() || s.recorded == s.version(table);
            s.problem(table).is_none() && told
        };
        let heirs = self.state.tables.iter().any(|t| t.heir);
        if self.state.logs.is_empty() || heirs || !sources.clone().all(ready) {
            return;
        }
        self.counts.restores += 1;
        let restored = self.fresh_name("restored");
        let from = std::mem::replace(&mut self.database, restored);
        let to = &self.database;
        self.script
            .push(format!("-- dump {from} and restore it as {to}"));
        self.cluster.shell(&format!(
            "createdb -T template0 {to}; pg_dump -Fc {from} | pg_restore -d {to} --exit-on-error"
        ));
        self.connect();
        run(&mut self.a, "SELECT adopt_database('continue')");
        for source in self.state.logs.iter_mut().flat_map(|l| &mut l.sources) {
            source.restore(&self.state.tables[source.table]);
        }
        self.check();
    }

    fn epoch(&mut self, programs: usize) {
        self.begin_again();
        (0..3).for_each(|_| self.create_table());
        (0..3).for_each(|_| self.create_log());
        (0..6).for_each(|_| self.add_source());
        for n in 1..=programs {
            self.program();
            if n % STEP == 0 || n == programs {
                self.check();
                if self.chance(0.1) {
                    self.restart();
                }
                if self.chance(0.1) {
                    self.restore();
                }
            }
        }
        self.counts.entries += self.state.logs.iter().map(|l| l.size()).sum::<usize>();
        if std::env::var_os("SHOW").is_some() {
            println!("{};", self.script.join(";\n"));
        }
    }
}

#[test]
fn whatever_is_done_the_logs_are_what_the_model_says() {
    let programs = std::env::var("PROGRAMS").ok().and_then(|n| n.parse().ok());
    let programs: usize = programs.unwrap_or(size(100, 5_000));
    let cluster = Cluster::with("autovacuum = off");
    run(&mut cluster.client("postgres"), "CREATE ROLE plain");
    let mut machine = Machine::new(seed(), cluster);
    while machine.counts.programs < programs {
        machine.epoch(EPOCH.min(programs - machine.counts.programs));
    }
    println!("{:?}", machine.counts);
    let counts = &machine.counts;
    assert!(
        counts.entries > programs * 3 && !counts.refused.is_empty(),
        "programs that change nothing try nothing"
    );
}
