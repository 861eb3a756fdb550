//! Whatever happens to an administrative function while it runs, all of what it does is there afterwards or nothing
//! of it, the record agrees, its source's writers go on, and the next call works.
//!
//! Some tens of faults; with LONG=1 some thousands.

mod world;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tlog::{KeyName, SignatureType, SigningKey};
use world::{CALLS, Call, OTHERS, Trial};

struct Faults {
    cluster: Cluster,
    admin: Client,
    rng: StdRng,
    trials: usize,
    /// By fault: how often the call was done all the same, and how often it was not.
    outcomes: BTreeMap<String, (usize, usize)>,
}

impl Faults {
    fn new(settings: &str) -> Faults {
        Faults::on(Cluster::with(settings))
    }

    fn on(cluster: Cluster) -> Faults {
        let name = KeyName::new("example.com").unwrap();
        let key = SigningKey::from_seed(name, SignatureType::Ed25519, &[7; 32]).unwrap();
        let file = cluster.secret_file("key", &format!("{}\n", key.to_text().as_str()));
        cluster.reload_with(&format!(
            "merkle_log.signing_key_file = '{file}'\nmerkle_log.origin_prefix = 'example.com'"
        ));
        let has_key = "SELECT current_setting('merkle_log.signing_key_file', true) <> ''";
        until(&mut cluster.client("postgres"), has_key);
        Faults {
            admin: cluster.client("postgres"),
            rng: StdRng::seed_from_u64(seed()),
            cluster,
            trials: 0,
            outcomes: BTreeMap::new(),
        }
    }

    fn begin<'a>(&mut self, call: &'a Call) -> Trial<'a> {
        self.trials += 1;
        Trial::begin(&mut self.admin, call, self.trials)
    }

    /// A session that has called functions before, and its process.
    fn session(&self) -> (Client, i32) {
        let mut client = self.cluster.client("postgres");
        run(
            &mut client,
            "SET lock_timeout = '150 ms'; SET merkle_log.fence_timeout = '150 ms'; SELECT merkle_size('merkle_log_administration')",
        );
        let pid = one(&mut client, "SELECT pg_backend_pid()");
        (client, pid)
    }

    fn judge(&mut self, trial: Trial, told: Option<bool>, fault: &str) {
        let done = trial.judge(&mut self.admin, told, fault);
        let outcome = self.outcomes.entry(fault.to_owned()).or_default();
        match done {
            true => outcome.0 += 1,
            false => outcome.1 += 1,
        }
    }

    /// How long a call takes when nothing happens to it, in microseconds.
    fn duration(&mut self, call: &Call) -> u64 {
        let trial = self.begin(call);
        let (mut client, _) = self.session();
        let started = Instant::now();
        run(&mut client, &trial.sql());
        let taken = started.elapsed().as_micros() as u64;
        self.judge(trial, Some(true), "nothing");
        taken
    }

    /// Runs a call while something happens to its process at a random moment.
    fn interrupted(&mut self, call: &Call, takes: u64, fault: &str) {
        let trial = self.begin(call);
        let (mut client, pid) = self.session();
        let after = Duration::from_micros(self.rng.random_range(0..takes + takes / 4 + 1));
        let mut other = self.cluster.client("postgres");
        let sql = trial.sql();
        let outcome = std::thread::scope(|scope| {
            let called = scope.spawn(move || client.batch_execute(&sql));
            std::thread::sleep(after);
            match fault {
                "cancel" => run(&mut other, &format!("SELECT pg_cancel_backend({pid})")),
                "terminate" => run(&mut other, &format!("SELECT pg_terminate_backend({pid})")),
                _ => signal("KILL", &[&pid.to_string()]),
            }
            called.join().unwrap()
        });
        if fault == "kill" {
            self.reconnect();
        }
        let told = match outcome {
            Ok(()) => Some(true),
            Err(error) => match error.as_db_error() {
                Some(db) if matches!(db.code().code(), "57014" | "57P01" | "57P02") => None,
                None if fault != "cancel" => None,
                _ => panic!("{} after {fault}: {error:?}", trial.sql()),
            },
        };
        self.judge(trial, told, fault);
    }

    /// After a crash.
    fn reconnect(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // The postmaster may not have noticed yet: then the connection goes away again.
            let client = self.cluster.try_client("postgres");
            if let Some(mut client) = client
                && client.batch_execute("SELECT pg_sleep(0.05)").is_ok()
            {
                self.admin = client;
                return;
            }
            assert!(Instant::now() < deadline, "{}", self.cluster.log());
        }
    }

    /// Runs a call that something stands in the way of; it is refused with one of these states, or done.
    fn refused(
        &mut self,
        call: &Call,
        fault: &str,
        states: &[&str],
        hinder: impl FnOnce(&mut Faults, &Trial, &mut Client, i32) -> Option<Client>,
    ) {
        let trial = self.begin(call);
        let (mut client, pid) = self.session();
        let holder = hinder(self, &trial, &mut client, pid);
        let outcome = client.batch_execute(&trial.sql());
        drop(holder);
        let told = match outcome {
            // A batch that must wait says so and has done nothing.
            Ok(()) => None,
            Err(error) => {
                let db = error.as_db_error();
                let db = db.unwrap_or_else(|| {
                    panic!(
                        "{} after {fault}: {error:?}\n{}",
                        trial.sql(),
                        self.cluster.log()
                    )
                });
                let known = states.contains(&db.code().code());
                assert!(known, "{} after {fault}: {db:?}", trial.sql());
                Some(false)
            }
        };
        drop(client);
        self.judge(trial, told, fault);
    }

    /// Runs a call on a disk that is full from the beginning, or from a moment on.
    fn on_full_disk(&mut self, call: &Call, after: Duration) {
        let trial = self.begin(call);
        let (mut client, _) = self.session();
        let disk = self.cluster.disk();
        if after.is_zero() {
            disk.fill();
        }
        let sql = trial.sql();
        let outcome = std::thread::scope(|scope| {
            let called = scope.spawn(move || client.batch_execute(&sql));
            if !after.is_zero() {
                std::thread::sleep(after);
                disk.fill();
            }
            called.join().unwrap()
        });
        disk.empty();
        let told = match outcome {
            Ok(()) => true,
            Err(error) => {
                let state = error.as_db_error().map(|db| db.code().code().to_owned());
                assert_eq!(
                    state.as_deref(),
                    Some("53100"),
                    "{}: {error:?}",
                    trial.sql()
                );
                false
            }
        };
        self.judge(trial, Some(told), "disk full");
    }

    /// What is locked by another session, each of these at a time.
    fn locked(&mut self, call: &Call, lock: &str) {
        let fault = format!("locked: {lock}");
        self.refused(call, &fault, &["55P03"], |faults, trial, _, _| {
            let mut holder = faults.cluster.client("postgres");
            run(&mut holder, "BEGIN");
            run(&mut holder, &trial.numbered(lock));
            Some(holder)
        });
    }

    fn report(&self) {
        println!("{} trials; done and not done, by fault:", self.trials);
        for (fault, (done, not)) in &self.outcomes {
            println!("{done:6} {not:6}  {fault}");
        }
    }
}

const LOCKS: &[&str] = &[
    "LOCK TABLE c#, w#, x# IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE c#, w#, x# IN ROW EXCLUSIVE MODE",
    "SELECT FROM verification_logs WHERE log_name IN ('c#', 'w#') FOR UPDATE",
    "SELECT FROM verification_logs WHERE log_id = 0 FOR UPDATE",
    "SELECT disable_log('c#'), process_next_batch('c#'), process_next_batch('w#')",
    "LOCK TABLE verification_sources, verification_source_versions IN SHARE MODE",
    "LOCK TABLE merkle_log IN SHARE MODE",
    "LOCK TABLE merkle_tree_head, merkle_tile IN SHARE MODE",
    "LOCK TABLE merkle_leaf_data, merkle_pending IN SHARE MODE",
    "LOCK TABLE pg_catalog.pg_trigger IN SHARE MODE",
];

#[test]
fn every_writing_function_is_tried() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    let volatile: Vec<String> = column(
        &mut client,
        "SELECT DISTINCT p.proname::text FROM pg_depend d
           JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'merkle_log'
           JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
          WHERE d.deptype = 'e' AND p.provolatile = 'v'",
    );
    let tried: BTreeSet<&str> = CALLS.iter().map(|c| c.function).collect();
    let others: BTreeSet<&str> = OTHERS.iter().map(|(name, _)| *name).collect();
    let known: BTreeSet<&str> = tried.union(&others).copied().collect();
    let there: BTreeSet<&str> = volatile.iter().map(String::as_str).collect();
    assert_eq!(
        there, known,
        "a function that is new is tried, or said why not"
    );
}

#[test]
fn a_function_that_is_interrupted_has_done_all_or_nothing() {
    let mut faults = Faults::new("");
    for call in CALLS {
        let takes = faults.duration(call);
        for _ in 0..size(1, 120) {
            let fault = ["cancel", "terminate", "statement_timeout"][faults.rng.random_range(0..3)];
            match fault {
                "statement_timeout" => {
                    let after = faults.rng.random_range(1..=takes / 1000 + 1);
                    faults.refused(call, fault, &["57014"], |_, _, client, _| {
                        run(client, &format!("SET statement_timeout = {after}"));
                        None
                    });
                }
                fault => faults.interrupted(call, takes, fault),
            }
        }
        if size(faults.rng.random_bool(0.15), true) {
            (0..size(1, 5)).for_each(|_| faults.interrupted(call, takes, "kill"));
        }
    }
    faults.report();
}

#[test]
fn a_function_that_meets_locks_of_others_has_done_all_or_nothing() {
    let mut faults = Faults::new("");
    for call in CALLS {
        for lock in LOCKS {
            if size(faults.rng.random_bool(0.1), true) {
                faults.locked(call, lock);
            }
        }
    }
    faults.report();
}

/// kB of address space that a process has.
fn address_space(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmSize:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The second is the server's own, where it cannot load a time zone.
const OUT_OF_MEMORY: &[&str] = &["53200", "22023"];

#[test]
fn a_function_without_memory_has_done_all_or_nothing() {
    let mut faults =
        Faults::new("work_mem = '1MB'\nmax_parallel_maintenance_workers = 0\njit = off");
    let started: String = one(&mut faults.admin, "SELECT pg_postmaster_start_time()::text");
    for call in CALLS {
        for _ in 0..size(1, 60) {
            let room = faults.rng.random_range(0..3_000);
            faults.refused(call, "out of memory", OUT_OF_MEMORY, |faults, _, _, pid| {
                let limit = (address_space(pid) + room) * 1024;
                faults.cluster.limit(pid, &format!("--as={limit}"));
                None
            });
        }
    }
    let still: String = one(&mut faults.admin, "SELECT pg_postmaster_start_time()::text");
    assert_eq!(started, still, "the server stayed up");
    faults.report();
}

#[test]
fn a_function_on_a_full_disk_has_done_all_or_nothing() {
    let mut faults = Faults::on(Cluster::on_a_disk_that_fills(""));
    let started: String = one(&mut faults.admin, "SELECT pg_postmaster_start_time()::text");
    for call in CALLS {
        faults.on_full_disk(call, Duration::ZERO);
        let takes = faults.duration(call);
        for _ in 0..size(faults.rng.random_range(0..2), 60) {
            let after = Duration::from_micros(faults.rng.random_range(1..takes + 2));
            faults.on_full_disk(call, after);
        }
    }
    let still: String = one(&mut faults.admin, "SELECT pg_postmaster_start_time()::text");
    assert_eq!(started, still, "the server stayed up");
    faults.report();
    assert!(
        faults.outcomes["disk full"].1 > 0,
        "the disk was full for none"
    );
}

#[test]
fn a_function_whose_transaction_fails_at_its_end_has_done_nothing() {
    let mut faults = Faults::new("max_prepared_transactions = 5");
    run(
        &mut faults.admin,
        "CREATE TABLE later (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    );
    for call in CALLS {
        let trial = faults.begin(call);
        let (mut client, _) = faults.session();
        let sql = format!("BEGIN; {}; INSERT INTO later VALUES (1), (1)", trial.sql());
        run(&mut client, &sql);
        let end = ["COMMIT", "PREPARE TRANSACTION 'p'"][faults.trials % 2];
        assert!(error(&mut client, end).starts_with("23505"));
        faults.judge(trial, Some(false), "deferred failure");
        let trial = faults.begin(call);
        run(
            &mut client,
            &format!("BEGIN; SAVEPOINT s; {}; ROLLBACK TO s; COMMIT", trial.sql()),
        );
        faults.judge(trial, Some(false), "savepoint");
    }
    faults.report();
    assert_eq!(
        faults.outcomes["deferred failure"].0 + faults.outcomes["savepoint"].0,
        0
    );
}
