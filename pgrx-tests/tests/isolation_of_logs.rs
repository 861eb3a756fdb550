//! No one holds up others: whoever waits, sleeps or fails keeps at most its own log.

use server_tests::*;
use std::time::{Duration, Instant};

const AUDIT: &str =
    "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
    SELECT create_log('audit'); SELECT add_source('audit', 'orders', order_column => 'id');";

fn batch(client: &mut Client) -> (i64, Option<String>) {
    let row = client
        .query_one(
            "SELECT entries, waiting_for FROM process_next_batch('audit')",
            &[],
        )
        .unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn no_advisory_lock_of_any_role_stops_a_log() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, AUDIT);
    run(&mut a, "CREATE ROLE intruder LOGIN");
    let mut intruder = cluster.client_as("postgres", "intruder");
    run(
        &mut intruder,
        "SELECT pg_advisory_lock(c.oid::int, log_id) FROM pg_class c, generate_series(1, 20) log_id
          WHERE c.relname ~ '^(verification|merkle)_';
         SELECT pg_advisory_lock((c.oid::bigint << 32) + log_id) FROM pg_class c, generate_series(1, 20) log_id
          WHERE c.relname ~ '^(verification|merkle)_'",
    );
    run(
        &mut a,
        "INSERT INTO orders DEFAULT VALUES; SET merkle_log.fence_timeout = '200ms'",
    );
    assert_eq!(batch(&mut a), (1, None));
}

#[test]
fn who_may_not_write_a_log_cannot_take_its_lock() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, AUDIT);
    run(&mut a, "CREATE ROLE intruder LOGIN");
    let mut intruder = cluster.client_as("postgres", "intruder");
    for sql in [
        "SELECT * FROM process_next_batch('audit')",
        "SELECT * FROM reconcile('audit')",
        "SELECT remove_source('audit', 'orders')",
        "SELECT alter_log('audit', batch_size => 1)",
        "SELECT drop_log('audit', true)",
        "SELECT redact('audit', 0, 'why')",
        "SELECT prune_log('audit', 256)",
        "BEGIN; LOCK TABLE verification_logs IN ACCESS EXCLUSIVE MODE",
        "SELECT log_id FROM verification_logs FOR UPDATE",
    ] {
        assert!(error(&mut intruder, sql).starts_with("42501"), "{sql}");
        run(&mut intruder, "ROLLBACK");
    }
}

#[test]
fn who_waits_for_a_logs_lock_waits_a_bounded_time_and_is_told_for_whom() {
    let cluster = Cluster::start();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    run(&mut a, AUDIT);
    run(&mut a, "INSERT INTO orders DEFAULT VALUES");
    run(&mut a, "BEGIN; SELECT process_next_batch('audit')");
    let pid: i32 = one(&mut a, "SELECT pg_backend_pid()");
    run(&mut b, "SET merkle_log.fence_timeout = '200ms'");
    let started = Instant::now();
    let holder = format!("pid {pid}, which is writing the log");
    assert_eq!(batch(&mut b), (0, Some(holder.clone())));
    let refused = error(&mut b, "SELECT alter_log('audit', batch_size => 7)");
    assert!(refused.starts_with("55P03"), "{refused}");
    assert!(refused.contains(&holder), "{refused}");
    assert!(started.elapsed() < Duration::from_secs(3));
    // Without waiting there is no row, and that at once.
    let rows = b
        .query(
            "SELECT * FROM process_next_batch('audit', wait => false)",
            &[],
        )
        .unwrap();
    assert!(rows.is_empty());
    // Readers do not wait.
    run(
        &mut b,
        "SELECT merkle_root('audit'); SELECT * FROM verify_log('audit')",
    );
    // A wait that ends in time goes on.
    run(&mut b, "SET merkle_log.fence_timeout = '60s'");
    let waiting = std::thread::spawn(move || batch(&mut b));
    let mut c = cluster.client("postgres");
    until(
        &mut c,
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'object' AND NOT granted)",
    );
    run(&mut a, "COMMIT");
    assert_eq!(waiting.join().unwrap(), (0, None));
}

#[test]
fn a_prepared_transaction_that_holds_a_log_is_named_across_a_restart() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, AUDIT);
    run(&mut a, "INSERT INTO orders DEFAULT VALUES");
    run(
        &mut a,
        "SET merkle_log.notify = off; BEGIN; SELECT process_next_batch('audit'); PREPARE TRANSACTION 'parked'",
    );
    drop(a);
    cluster.stop();
    cluster.restart();
    let mut b = cluster.client("postgres");
    run(&mut b, "SET merkle_log.fence_timeout = '100ms'");
    let holder = "prepared transaction 'parked'";
    assert_eq!(
        batch(&mut b),
        (0, Some(format!("{holder}, which is writing the log")))
    );
    let health: String = one(
        &mut b,
        "SELECT detail FROM merkle_log_health() WHERE check_name = 'writer' AND object = 'audit' AND NOT ok",
    );
    assert!(health.contains(holder), "{health}");
    run(&mut b, "COMMIT PREPARED 'parked'");
    assert_eq!(batch(&mut b), (0, None));
    assert_eq!(one::<i64>(&mut b, "SELECT merkle_size('audit')"), 1);
    assert!(one::<bool>(
        &mut b,
        "SELECT ok FROM merkle_log_health() WHERE check_name = 'writer'"
    ));
}

#[test]
fn a_session_that_sits_on_a_log_is_named_in_the_status_and_other_logs_go_on() {
    let cluster = Cluster::preloaded();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    run(
        &mut a,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
         CREATE TABLE other (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
         SELECT create_log('audit', run_interval => '50 ms'), create_log('other', run_interval => '50 ms');
         SELECT add_source('audit', 'orders', 'id'), add_source('other', 'other', 'id')",
    );
    run(&mut b, "BEGIN; SELECT alter_log('audit', batch_size => 77)");
    let pid: i32 = one(&mut b, "SELECT pg_backend_pid()");
    // The session holds the log's row too, so nothing may wait for that.
    run(
        &mut a,
        "INSERT INTO orders DEFAULT VALUES; INSERT INTO other DEFAULT VALUES",
    );
    until(&mut a, "SELECT merkle_size('other') = 1");
    run(
        &mut b,
        "ROLLBACK; BEGIN; SELECT process_next_batch('audit')",
    );
    until(
        &mut a,
        &format!(
            "SELECT waiting_for = 'pid {pid}, which is writing the log' FROM merkle_log_status WHERE log_name = 'audit'"
        ),
    );
    run(&mut b, "COMMIT");
    until(
        &mut a,
        "SELECT waiting_for IS NULL AND tree_size = 1 FROM merkle_log_status WHERE log_name = 'audit'",
    );
}

#[test]
fn a_trigger_on_a_source_never_waits_for_the_logs_lock() {
    let cluster = Cluster::start();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    run(&mut a, AUDIT);
    run(
        &mut a,
        "CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM process_next_batch('audit'); RETURN NULL; END$$;
         CREATE TRIGGER log_it AFTER INSERT ON orders EXECUTE FUNCTION log_it()",
    );
    run(&mut b, "BEGIN; SELECT alter_log('audit', batch_size => 77)");
    let started = Instant::now();
    run(
        &mut a,
        "SET merkle_log.fence_timeout = '60s'; INSERT INTO orders DEFAULT VALUES",
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    run(&mut b, "ROLLBACK");
}

#[test]
fn a_log_that_was_dropped_and_made_anew_while_one_waited_is_locked_as_the_new_one() {
    let cluster = Cluster::start();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    run(&mut a, AUDIT);
    run(
        &mut a,
        "BEGIN; SELECT drop_log('audit'); SELECT create_log('audit')",
    );
    run(
        &mut a,
        "SELECT add_source('audit', 'orders', order_column => 'id')",
    );
    let waiting = std::thread::spawn(move || {
        let outcome = batch(&mut b);
        (outcome, b)
    });
    let mut c = cluster.client("postgres");
    until(
        &mut c,
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'object' AND NOT granted)",
    );
    run(&mut a, "INSERT INTO orders DEFAULT VALUES; COMMIT");
    let (outcome, mut b) = waiting.join().unwrap();
    assert_eq!(outcome.1, None);
    assert_eq!(outcome.0 + batch(&mut b).0, 1);
    assert_eq!(findings(&mut b, "audit"), [""; 0]);
}
