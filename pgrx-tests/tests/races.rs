//! What others do between two looks of ours: nobody is accused of it, and nobody's statement fails by it.

use server_tests::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Runs `f` beside `others`, each again and again until `f` has returned.
fn beside<'a, T>(others: Vec<Box<dyn FnMut() + Send + 'a>>, f: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for mut other in others {
            let done = &done;
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    other();
                    // Two processors are shared by all of them.
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        done.store(true, SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn rows_that_are_inserted_while_reconcile_looks_are_not_late() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE n (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); CREATE TABLE t (at timestamptz PRIMARY KEY DEFAULT clock_timestamp());
         SELECT create_log('n'), create_log('t'); SELECT add_source('n', 'n', 'id'), add_source('t', 't', 'at')",
    );
    let writer = |table: &'static str| {
        let mut client = cluster.client("postgres");
        let write = move || run(&mut client, &format!("INSERT INTO {table} DEFAULT VALUES"));
        Box::new(write) as Box<dyn FnMut() + Send + '_>
    };
    beside(vec![writer("n"), writer("t")], || {
        for round in 0..60 {
            run(&mut a, "SELECT process_next_batch()");
            for log in ["n", "t"] {
                let late: Vec<String> = column(
                    &mut a,
                    &format!("SELECT source_key FROM reconcile('{log}')"),
                );
                assert_eq!(late, [""; 0], "{log}");
            }
            if round % 10 > 0 {
                continue;
            }
            let missing: Vec<String> = column(
                &mut a,
                "SELECT log_name || ': ' || problem FROM merkle_log_coverage",
            );
            assert_eq!(missing, [""; 0]);
        }
    });
    assert!(drain(&mut a, "n") > 0 && drain(&mut a, "t") > 0);
}

#[test]
fn no_writer_fails_while_a_version_of_the_columns_is_put_on_record() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TYPE mood AS ENUM ('m0'); CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mood mood DEFAULT 'm0');
         SELECT create_log('l'); SELECT add_source('l', 't', capture => 'trigger')",
    );
    // Each session plans anew.
    let writer = || {
        let cluster = &cluster;
        let write = move || {
            let mut client = cluster.client("postgres");
            run(&mut client, "INSERT INTO t DEFAULT VALUES");
        };
        Box::new(write) as Box<dyn FnMut() + Send + '_>
    };
    beside(vec![writer(), writer(), writer()], || {
        for number in 1..25 {
            run(&mut a, &format!("ALTER TYPE mood ADD VALUE 'm{number}'"));
            run(&mut a, "SELECT process_next_batch('l')");
        }
    });
    drain(&mut a, "l");
    assert_eq!(findings(&mut a, "l"), [""; 0]);
}

#[test]
fn a_restored_queue_is_not_mixed_with_a_transaction_of_the_same_number() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE t (id int PRIMARY KEY, v text); SELECT create_log('l'); SELECT add_source('l', 't', capture => 'trigger');
         SET merkle_log.capture_memory = '64kB'; INSERT INTO t SELECT i, 'first' FROM generate_series(1, 6000) i",
    );
    // As in a younger cluster, in which the next transaction has the number that this one had.
    run(
        &mut a,
        "DO $$ DECLARE next xid8; BEGIN
            next := ((pg_current_xact_id()::text::bigint + 1)::text)::xid8;
            UPDATE merkle_pending SET transaction_id = next,
                   pending_id = CASE pending_id WHEN -(transaction_id::text::bigint) THEN -(next::text::bigint) ELSE pending_id END;
         END $$",
    );
    run(
        &mut a,
        "INSERT INTO t SELECT i, 'second' FROM generate_series(6001, 12000) i",
    );
    assert_eq!(
        one::<i64>(
            &mut a,
            "SELECT count(DISTINCT transaction_id::text) FROM merkle_pending"
        ),
        1
    );
    // Once each. That the leaves of the first name another transaction is of the test's own making.
    assert_eq!(drain(&mut a, "l"), 12_000);
    assert_eq!(
        one::<i64>(
            &mut a,
            "SELECT count(DISTINCT source_key) FROM merkle_log WHERE source_id > 0"
        ),
        12_000
    );
}
