//! Whose turn it is: how often the worker logs what triggers capture, that no log holds up another, and that idle logs
//! cost no batches.

use server_tests::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn heads(client: &mut Client, log: &str) -> i64 {
    one(client, &format!("SELECT count(*) FROM tree_heads('{log}')"))
}

fn size_is(client: &mut Client, log: &str, size: i64) {
    until(client, &format!("SELECT merkle_size('{log}') = {size}"));
}

const CAPTURED: &str = "CREATE TABLE seats (n int PRIMARY KEY);
    SELECT create_log('captured', run_interval => '1 hour'); SELECT add_source('captured', 'seats', capture => 'trigger')";

#[test]
fn a_change_after_a_quiet_time_is_logged_at_once_and_the_next_after_an_interval() {
    let cluster = Cluster::preloaded();
    let mut a = cluster.client("postgres");
    run(&mut a, CAPTURED);
    run(&mut a, "INSERT INTO seats VALUES (1)");
    size_is(&mut a, "captured", 1);
    run(&mut a, "INSERT INTO seats VALUES (2)");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(one::<i64>(&mut a, "SELECT merkle_size('captured')"), 1);
    // Whoever asks need not wait.
    run(&mut a, "SELECT run_now('captured')");
    size_is(&mut a, "captured", 2);
    // Nor need a log whose interval was shortened.
    run(&mut a, "INSERT INTO seats VALUES (3); SELECT pg_sleep(0.2)");
    assert_eq!(one::<i64>(&mut a, "SELECT merkle_size('captured')"), 2);
    run(
        &mut a,
        "SELECT alter_log('captured', run_interval => '50 ms')",
    );
    size_is(&mut a, "captured", 3);
}

#[test]
fn steady_changes_are_logged_once_an_interval() {
    let cluster = Cluster::preloaded();
    let mut a = cluster.client("postgres");
    run(&mut a, CAPTURED);
    run(
        &mut a,
        "SELECT alter_log('captured', run_interval => '1 s')",
    );
    let started = Instant::now();
    let mut n = 0;
    while started.elapsed() < Duration::from_secs(10) {
        n += 1;
        run(&mut a, &format!("INSERT INTO seats VALUES ({n})"));
        std::thread::sleep(Duration::from_millis(5));
    }
    size_is(&mut a, "captured", n);
    let batches = heads(&mut a, "captured");
    let most = started.elapsed().as_secs() as i64 + 2;
    assert!(
        (4..=most).contains(&batches),
        "{batches} batches of {n} changes in {:?}",
        started.elapsed()
    );
}

#[test]
fn a_prepared_change_that_commits_elsewhere_is_logged_without_anyone_asking() {
    let cluster = Cluster::preloaded();
    let mut a = cluster.client("postgres");
    run(&mut a, CAPTURED);
    run(
        &mut a,
        "SELECT alter_log('captured', run_interval => '200 ms')",
    );
    run(
        &mut a,
        "BEGIN; INSERT INTO seats VALUES (1); PREPARE TRANSACTION 'one'",
    );
    let mut b = cluster.client("postgres");
    std::thread::sleep(Duration::from_secs(1));
    run(&mut b, "COMMIT PREPARED 'one'");
    size_is(&mut b, "captured", 1);
}

/// Logs `log1` and so on, each with an empty source `t1` and so on.
fn many_logs(client: &mut Client, count: i32, interval: &str) {
    run(
        client,
        &format!(
            "DO $$BEGIN FOR i IN 1..{count} LOOP
               EXECUTE format('CREATE TABLE t%s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)', i);
               PERFORM create_log('log' || i, run_interval => '{interval}');
               PERFORM add_source('log' || i, ('t' || i)::regclass, 'id');
             END LOOP; END$$"
        ),
    );
}

#[test]
fn a_fence_that_is_not_crossed_costs_another_log_no_batches() {
    let cluster = Cluster::preloaded();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    many_logs(&mut a, 2, "100 ms");
    run(&mut b, "BEGIN; INSERT INTO t1 DEFAULT VALUES");
    run(&mut a, "INSERT INTO t1 DEFAULT VALUES");
    until(
        &mut a,
        "SELECT waiting_for LIKE 'pid %' FROM merkle_log_status WHERE log_name = 'log1'",
    );
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        run(&mut a, "INSERT INTO t2 DEFAULT VALUES");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Forty, if the machine had nothing else to do.
    let batches = heads(&mut a, "log2");
    assert!(batches >= 10, "{batches}");
    assert_eq!(heads(&mut a, "log1"), 0);
    run(&mut b, "COMMIT");
    size_is(&mut a, "log1", 2);
}

#[test]
fn a_log_that_is_behind_stands_in_line_with_the_others() {
    let cluster = Cluster::preloaded();
    let mut a = cluster.client("postgres");
    many_logs(&mut a, 3, "100 ms");
    run(
        &mut a,
        "SELECT pause_log('log1'), pause_log('log2');
         SELECT alter_log('log1', batch_size => 200), alter_log('log2', batch_size => 200);
         INSERT INTO t1 (note) SELECT 'x' FROM generate_series(1, 40000);
         INSERT INTO t2 (note) SELECT 'x' FROM generate_series(1, 40000);
         SELECT resume_log('log1'), resume_log('log2')",
    );
    until(&mut a, "SELECT merkle_size('log1') > 0");
    for size in 1..=5 {
        run(&mut a, "INSERT INTO t3 DEFAULT VALUES");
        size_is(&mut a, "log3", size);
    }
    // Both of them were behind meanwhile, and neither went first.
    let (first, second): (i64, i64) = (
        one(&mut a, "SELECT merkle_size('log1')"),
        one(&mut a, "SELECT merkle_size('log2')"),
    );
    assert!(first < 40_000 && second < 40_000, "{first} {second}");
    assert!((first - second).abs() <= 1_000, "{first} {second}");
    size_is(&mut a, "log1", 40_000);
    size_is(&mut a, "log2", 40_000);
}

#[test]
fn idle_logs_cost_few_transactions_and_miss_nothing() {
    // Verification of so many new logs would take transactions of its own.
    let cluster =
        Cluster::with("shared_preload_libraries = 'merkle_log'\nmerkle_log.verify_rate = 0");
    let mut a = cluster.client("postgres");
    let logs = 120;
    many_logs(&mut a, logs, "1 s");
    run(
        &mut a,
        "DO $$BEGIN FOR i IN 1..120 LOOP EXECUTE format('INSERT INTO t%s DEFAULT VALUES', i); END LOOP; END$$",
    );
    until(
        &mut a,
        "SELECT count(DISTINCT log_id) = 120 FROM merkle_tree_head WHERE log_id > 0",
    );
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'";
    std::thread::sleep(Duration::from_secs(3));
    let before: i64 = one(&mut a, commits);
    let seconds = 8;
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = one::<i64>(&mut a, commits) - before;
    assert!(
        spent < logs as i64 * seconds as i64 / 3,
        "{spent} transactions"
    );
    // All of them are looked at meanwhile.
    assert!(one::<bool>(
        &mut a,
        "SELECT min(last_run_at) > now() - interval '10 s' FROM merkle_log_status WHERE log_name <> 'merkle_log_administration'"
    ));
    // A row is logged, also one whose predecessor was rolled back; and a new column is on record before any row is.
    run(&mut a, "BEGIN; INSERT INTO t7 DEFAULT VALUES; ROLLBACK");
    run(
        &mut a,
        "INSERT INTO t7 DEFAULT VALUES; ALTER TABLE t9 ADD COLUMN more int",
    );
    size_is(&mut a, "log7", 2);
    until(
        &mut a,
        "SELECT version = 2 FROM merkle_log_sources WHERE log_name = 'log9'",
    );
    // Nor does a session that alters a sequence, or keeps a table locked, keep the others from their turns.
    let (mut b, stop) = (cluster.client("postgres"), AtomicBool::new(false));
    run(
        &mut b,
        "BEGIN; ALTER SEQUENCE t1_id_seq INCREMENT 1; LOCK TABLE t2",
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for size in 2..=4 {
                run(&mut a, "INSERT INTO t3 DEFAULT VALUES");
                size_is(&mut a, "log3", size);
            }
            stop.store(true, SeqCst);
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        while !stop.load(SeqCst) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        run(&mut b, "ROLLBACK");
    });
    assert!(stop.load(SeqCst));
}
