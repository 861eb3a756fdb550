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
        "SELECT ok FROM merkle_log_health() WHERE check_name = 'writer' AND object = 'audit'"
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
    // Who sits on a log that has nothing to log holds nobody up.
    run(&mut a, "INSERT INTO orders DEFAULT VALUES");
    until(
        &mut a,
        &format!(
            "SELECT waiting_for = 'pid {pid}, which is writing the log' FROM merkle_log_status WHERE log_name = 'audit'"
        ),
    );
    run(&mut b, "COMMIT");
    until(
        &mut a,
        "SELECT waiting_for IS NULL AND tree_size = 2 FROM merkle_log_status WHERE log_name = 'audit'",
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

/// `count` logs with a source each, all of them idle.
fn many_logs(client: &mut Client, count: i32) {
    run(
        client,
        &format!(
            "DO $$BEGIN FOR i IN 1..{count} LOOP
               EXECUTE format('CREATE TABLE t%s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)', i);
               PERFORM create_log('log' || i, run_interval => '50 ms');
               PERFORM add_source('log' || i, ('t' || i)::regclass, 'id');
             END LOOP; END$$"
        ),
    );
}

#[test]
fn logs_that_wait_for_one_writer_wait_together() {
    let cluster = Cluster::start();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    many_logs(&mut a, 12);
    run(&mut b, "BEGIN");
    for i in 1..=11 {
        run(&mut b, &format!("INSERT INTO t{i} DEFAULT VALUES"));
        run(&mut a, &format!("INSERT INTO t{i} DEFAULT VALUES"));
    }
    run(
        &mut a,
        "INSERT INTO t12 DEFAULT VALUES; SET merkle_log.fence_timeout = '1s'",
    );
    let all = "SELECT count(*) FILTER (WHERE entries > 0) || ' ' || count(waiting_for) FROM process_next_batch()";
    let started = Instant::now();
    assert_eq!(one::<String>(&mut a, all), "1 11");
    let took = started.elapsed();
    assert!(took > Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    // A wait that ends in time is over for all of them.
    run(&mut a, "SET merkle_log.fence_timeout = '60s'");
    let waiting = std::thread::spawn(move || one::<String>(&mut a, all));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished());
    run(&mut b, "COMMIT");
    assert_eq!(waiting.join().unwrap(), "11 0");
}

#[test]
fn the_worker_runs_a_log_at_once_however_many_others_wait() {
    let cluster = Cluster::preloaded();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    many_logs(&mut a, 20);
    run(&mut b, "BEGIN");
    for i in 1..=19 {
        run(&mut b, &format!("INSERT INTO t{i} DEFAULT VALUES"));
        run(&mut a, &format!("INSERT INTO t{i} DEFAULT VALUES"));
    }
    until(
        &mut a,
        "SELECT count(*) FILTER (WHERE waiting_for LIKE 'pid %') = 19 FROM merkle_log_status",
    );
    for size in 1..=5 {
        let started = Instant::now();
        run(&mut a, "INSERT INTO t20 DEFAULT VALUES");
        until(&mut a, &format!("SELECT merkle_size('log20') = {size}"));
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    run(&mut b, "COMMIT");
    until(
        &mut a,
        "SELECT sum(tree_size) = 43 AND count(waiting_for) = 0 FROM merkle_log_status WHERE log_name <> 'merkle_log_administration'",
    );
}

#[test]
fn the_worker_crosses_its_fences_while_writers_come_and_go() {
    let cluster = Cluster::preloaded();
    let mut a = cluster.client("postgres");
    many_logs(&mut a, 1);
    // There is always one who writes, and never for long the same.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, stop) = (cluster.client("postgres"), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    run(
                        &mut client,
                        "BEGIN; INSERT INTO t1 DEFAULT VALUES; SELECT pg_sleep(0.2); COMMIT",
                    );
                }
            })
        })
        .collect();
    until(&mut a, "SELECT merkle_size('log1') > 30");
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    writers.into_iter().for_each(|w| w.join().unwrap());
    until(
        &mut a,
        "SELECT merkle_size('log1') = (SELECT count(*) FROM t1)",
    );
    assert_eq!(findings(&mut a, "log1"), [""; 0]);
}

#[test]
fn monitoring_neither_waits_nor_fails_because_of_one_source() {
    let cluster = Cluster::start();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    many_logs(&mut a, 3);
    run(&mut a, "INSERT INTO t3 DEFAULT VALUES");
    run(
        &mut a,
        "CREATE ROLE tenant; ALTER TABLE t2 OWNER TO tenant; GRANT USAGE, CREATE ON SCHEMA public TO tenant;
         ALTER TABLE t2 ENABLE ROW LEVEL SECURITY; ALTER TABLE t2 FORCE ROW LEVEL SECURITY",
    );
    run(&mut b, "BEGIN; LOCK TABLE t1 IN ACCESS EXCLUSIVE MODE");
    run(&mut a, "SET statement_timeout = '5s'");
    let lag: Vec<Option<i64>> = column(
        &mut a,
        "SELECT lag_rows FROM merkle_log_status WHERE log_name LIKE 'log%' ORDER BY log_name",
    );
    assert_eq!(lag, [None, Some(0), Some(1)]);
    let late: Vec<String> = column(
        &mut a,
        "SELECT object FROM merkle_log_health() WHERE check_name = 'lag' AND detail LIKE 'cannot be told: %' ORDER BY 1",
    );
    assert_eq!(late, ["log1"]);
    let pid: i32 = one(&mut b, "SELECT pg_backend_pid()");
    let holes: Vec<String> = column(
        &mut a,
        "SELECT log_name || ': ' || problem FROM merkle_log_coverage ORDER BY 1",
    );
    assert_eq!(holes.len(), 2, "{holes:?}");
    assert!(holes[0].contains(&format!("pid {pid}")), "{holes:?}");
    let metrics: String = one(&mut a, "SELECT merkle_log_metrics()");
    assert!(metrics.contains("merkle_log_lag_rows{database=\"postgres\",log=\"log3\"} 1"));
}

#[test]
fn looking_at_the_status_keeps_no_lock() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, AUDIT);
    run(
        &mut a,
        "CREATE TABLE h (id int PRIMARY KEY); SELECT create_log('h'); SELECT add_source('h', 'h', capture => 'trigger');
         CREATE ROLE lurker LOGIN; GRANT pg_monitor TO lurker; INSERT INTO orders DEFAULT VALUES",
    );
    assert_eq!(batch(&mut a), (1, None));
    run(
        &mut a,
        "INSERT INTO orders DEFAULT VALUES; INSERT INTO h VALUES (1)",
    );
    let mut checked = 0;
    for (by, look) in [
        ("lurker", "SELECT * FROM merkle_log_status"),
        ("lurker", "SELECT * FROM log_lag(1)"),
        ("lurker", "SELECT * FROM merkle_log_sources"),
        ("lurker", "SELECT merkle_log_metrics()"),
        ("lurker", "SELECT * FROM merkle_log_health()"),
        ("postgres", "SELECT * FROM merkle_log_coverage"),
        ("postgres", "SELECT * FROM merkle_log_health()"),
    ] {
        let by = &mut cluster.client_as("postgres", by);
        run(by, "BEGIN");
        if by.batch_execute(look).is_ok() {
            checked += 1;
            let held: Vec<String> = column(
                by,
                "SELECT l.relation::regclass || ' ' || l.mode FROM pg_locks l
                  WHERE l.pid = pg_backend_pid() AND l.relation IN ('orders'::regclass, 'orders_id_seq'::regclass, 'h'::regclass)",
            );
            assert_eq!(held, [""; 0], "{look}");
        }
    }
    assert!(checked >= 5, "{checked}");
}

#[test]
fn who_has_written_nothing_and_does_nothing_holds_no_fence() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, AUDIT);
    run(
        &mut a,
        "CREATE ROLE lurker LOGIN; SET merkle_log.fence_timeout = '200ms'",
    );
    let mut lurker = cluster.client_as("postgres", "lurker");
    run(
        &mut lurker,
        "BEGIN; PREPARE p AS INSERT INTO orders (note) VALUES ('x')",
    );
    let mut writer = cluster.client("postgres");
    run(
        &mut writer,
        "BEGIN; PREPARE p AS INSERT INTO orders (note) VALUES ('y')",
    );
    run(
        &mut a,
        "BEGIN; SELECT count(*) FROM pg_stat_activity; COMMIT; INSERT INTO orders DEFAULT VALUES",
    );
    assert_eq!(batch(&mut a), (1, None));
    // Who has written is waited for, whatever it does.
    run(&mut writer, "EXECUTE p");
    run(&mut a, "INSERT INTO orders DEFAULT VALUES");
    let (entries, waiting_for) = batch(&mut a);
    assert_eq!(entries, 0);
    assert!(waiting_for.is_some_and(|who| who.contains("pid")));
    run(&mut writer, "COMMIT");
    assert_eq!(batch(&mut a), (2, None));
    assert_eq!(findings(&mut a, "audit"), [""; 0]);
}

#[test]
fn the_worker_goes_on_whatever_its_database_and_its_role_have_set() {
    let cluster = Cluster::preloaded();
    let mut a = cluster.client("postgres");
    run(&mut a, "CREATE ROLE nobody");
    for setting in [
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "search_path = ''",
        "row_security = on",
        "session_replication_role = replica",
        "role = nobody",
        "standard_conforming_strings = off",
        "transform_null_equals = on",
    ] {
        run(&mut a, &format!("ALTER DATABASE postgres SET {setting}"));
    }
    run(
        &mut a,
        "CREATE TABLE w (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY);
         SELECT create_log('w', run_interval => '20 ms'), create_log('c', run_interval => '20 ms');
         SELECT add_source('w', 'w', 'id'), add_source('c', 'c', capture => 'trigger');
         INSERT INTO w DEFAULT VALUES; INSERT INTO c VALUES (1)",
    );
    until(
        &mut a,
        "SELECT merkle_size('w') = 1 AND merkle_size('c') = 1",
    );
    let pid: i32 = one(
        &mut a,
        "SELECT worker_pid FROM merkle_log_status WHERE log_name = 'w'",
    );
    run(&mut a, &format!("SELECT pg_terminate_backend({pid})"));
    run(
        &mut a,
        "INSERT INTO w DEFAULT VALUES; INSERT INTO c VALUES (2)",
    );
    until(
        &mut a,
        &format!(
            "SELECT bool_and(tree_size = 2 AND worker_pid <> {pid} AND last_error IS NULL) FROM merkle_log_status WHERE log_name <> 'merkle_log_administration'"
        ),
    );
    assert_eq!(findings(&mut a, "c"), [""; 0]);
}

/// Two logs; the table of the first belongs to `eve`, who may write functions.
const EVES: &str = "CREATE ROLE eve LOGIN; GRANT CREATE ON SCHEMA public TO eve;
    SELECT create_log('eves'); SELECT create_log('others');
    CREATE TABLE others (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
    SET ROLE eve;
    CREATE TABLE eves (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int);
    RESET ROLE;
    SELECT add_source('eves', 'eves', order_column => 'id'); SELECT add_source('others', 'others', order_column => 'id');";

/// What an owner can let the planner run: it stands in the predicate of an index.
fn let_planning_run(client: &mut Client, body: &str) {
    run(
        client,
        &format!(
            "SET ROLE eve;
             CREATE FUNCTION runs() RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
             CREATE INDEX eves_v ON eves (v) WHERE runs();
             CREATE OR REPLACE FUNCTION runs() RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$ {body} $$;
             RESET ROLE;"
        ),
    );
}

/// Everything that an operator looks at, within a second or two.
fn all_is_shown_at_once(client: &mut Client) {
    let started = Instant::now();
    run(
        client,
        "SELECT * FROM merkle_log_status; SELECT * FROM merkle_log_sources; SELECT * FROM merkle_log_coverage;
         SELECT * FROM merkle_log_health(); SELECT merkle_log_metrics()",
    );
    assert!(started.elapsed() < Duration::from_secs(4));
}

fn holds_up_no_other_log(body: &str) {
    let cluster =
        Cluster::with("shared_preload_libraries = 'merkle_log'\nmerkle_log.databases = 'postgres'");
    let mut a = cluster.client("postgres");
    run(&mut a, EVES);
    run(&mut a, "INSERT INTO eves DEFAULT VALUES");
    let_planning_run(&mut a, body);
    run(&mut a, "INSERT INTO others DEFAULT VALUES");
    until(&mut a, "SELECT merkle_size('others') = 1");
    all_is_shown_at_once(&mut a);
    until(
        &mut a,
        "SELECT state = 'planning_fails' FROM merkle_log_sources WHERE log_name = 'eves'",
    );
    run(&mut a, "INSERT INTO others DEFAULT VALUES");
    until(&mut a, "SELECT merkle_size('others') = 2");
    all_is_shown_at_once(&mut a);
}

#[test]
fn an_owner_whose_functions_never_return_holds_up_no_other_log() {
    holds_up_no_other_log("BEGIN PERFORM pg_sleep(100000); RETURN true; END");
}

#[test]
fn nor_does_one_whose_functions_cannot_be_cancelled() {
    holds_up_no_other_log(
        "BEGIN LOOP BEGIN PERFORM pg_sleep(100000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END",
    );
}

#[test]
fn a_source_that_cannot_be_planned_is_passed_over_named_and_mended() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, EVES);
    run(
        &mut a,
        "SELECT add_source('eves', 'others', order_column => 'id');
         INSERT INTO eves DEFAULT VALUES; INSERT INTO others DEFAULT VALUES",
    );
    assert_eq!(drain(&mut a, "eves"), 2);
    run(
        &mut a,
        "INSERT INTO eves DEFAULT VALUES; INSERT INTO others DEFAULT VALUES",
    );
    let_planning_run(
        &mut a,
        "BEGIN RAISE EXCEPTION 'not today' USING ERRCODE = '53100'; END",
    );
    let mut b = cluster.client("postgres");
    assert_eq!(
        drain(&mut b, "eves"),
        3,
        "the other source of the log goes on"
    );
    let state = "SELECT string_agg(state, ' ' ORDER BY source_table) FROM merkle_log_sources WHERE log_name = 'eves'";
    assert_eq!(one::<String>(&mut b, state), "planning_fails ready");
    assert_eq!(findings(&mut b, "eves"), ["schema_changed public.eves"]);
    all_is_shown_at_once(&mut b);
    run(&mut b, "SET ROLE eve; DROP INDEX eves_v; RESET ROLE");
    assert_eq!(drain(&mut b, "eves"), 4);
    assert_eq!(one::<String>(&mut b, state), "ready ready");
    assert_eq!(findings(&mut b, "eves"), Vec::<String>::new());
}

#[test]
fn a_batch_cannot_be_called_by_what_its_own_planning_runs() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, EVES);
    run(
        &mut a,
        "GRANT EXECUTE ON FUNCTION process_next_batch TO eve; INSERT INTO eves DEFAULT VALUES",
    );
    let_planning_run(
        &mut a,
        "BEGIN PERFORM public.process_next_batch('eves'); RETURN true; END",
    );
    let mut b = cluster.client("postgres");
    assert_eq!(drain(&mut b, "eves"), 0);
    let detail: String = one(
        &mut b,
        "SELECT state_detail FROM merkle_log_sources WHERE log_name = 'eves'",
    );
    assert!(detail.contains("while it reads a source"), "{detail}");
    run(&mut b, "DROP INDEX eves_v");
    assert_eq!(drain(&mut b, "eves"), 1);
    assert_eq!(findings(&mut b, "eves"), Vec::<String>::new());
}

#[test]
fn monitoring_runs_no_code_of_a_tables_owner() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE ROLE tenant LOGIN; GRANT USAGE, CREATE ON SCHEMA public TO tenant;
         CREATE TABLE ran (n int); GRANT ALL ON ran TO tenant",
    );
    let mut tenant = cluster.client_as("postgres", "tenant");
    run(
        &mut tenant,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (id));
         CREATE INDEX ON t (at);
         CREATE FUNCTION slow(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'the owner''s code ran'; PERFORM pg_sleep(3); RETURN true; END $$",
    );
    run(
        &mut a,
        "SELECT create_log('audit'); SELECT add_source('audit', 't', 'at'); SELECT process_next_batch('audit')",
    );
    run(&mut tenant, "CREATE INDEX ON t (id) WHERE slow(1)");
    run(&mut tenant, "INSERT INTO t DEFAULT VALUES");
    let mut fresh = cluster.client("postgres");
    run(&mut fresh, "SET statement_timeout = '2s'");
    let lag: Option<i64> = one(
        &mut fresh,
        "SELECT lag_rows FROM merkle_log_status WHERE log_name = 'audit'",
    );
    assert_eq!(lag, None);
    let why: String = one(
        &mut fresh,
        "SELECT detail FROM merkle_log_health() WHERE check_name = 'lag' AND object = 'audit'",
    );
    assert!(why.contains("only looked at"), "{why}");
    let holes: Vec<String> = column(&mut fresh, "SELECT problem FROM merkle_log_coverage");
    assert!(holes[0].contains("only looked at"), "{holes:?}");
    run(&mut fresh, "SELECT merkle_log_metrics()");
    // Batches are the owner's business, and no function of others is refused after monitoring.
    run(&mut fresh, "SET statement_timeout = 0; SELECT slow(1)");
}

#[test]
fn the_lag_is_counted_up_to_a_bound() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, AUDIT);
    run(
        &mut a,
        "CREATE TABLE q (id int PRIMARY KEY); SELECT create_log('r'); SELECT add_source('r', 'q', capture => 'trigger');
         INSERT INTO orders (note) SELECT 'x' FROM generate_series(1, 12000); INSERT INTO q SELECT generate_series(1, 12000)",
    );
    let lag: Vec<i64> = column(
        &mut a,
        "SELECT lag_rows FROM merkle_log_status WHERE log_name <> 'merkle_log_administration' ORDER BY log_name",
    );
    assert_eq!(lag, [10_000, 10_000]);
    let words: Vec<String> = column(
        &mut a,
        "SELECT split_part(detail, ',', 1) FROM merkle_log_health() WHERE check_name = 'lag' AND object <> 'merkle_log_administration'",
    );
    assert_eq!(words, ["at least 10000 rows wait"; 2]);
    run(&mut a, "SELECT process_next_batch(), process_next_batch()");
    let lag: Vec<i64> = column(&mut a, "SELECT lag_rows FROM merkle_log_status");
    assert_eq!(lag, [0, 0, 0]);
}

/// How many rows of the server's catalogs and of the extension's tables a statement reads.
fn tuples_read(client: &mut Client, sql: &str) -> i64 {
    let read = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int8 FROM (
                    SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_sys_tables
                    UNION ALL SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables) s";
    // What earlier transactions read may still be among the counts.
    run(client, "BEGIN");
    let before: i64 = one(client, read);
    run(client, sql);
    let after: i64 = one(client, read);
    run(client, "COMMIT");
    after - before
}

#[test]
fn what_an_idle_source_costs_does_not_grow_with_the_others() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, "SELECT create_log('few'), create_log('many')");
    let add = |client: &mut Client, log: &str, from: i32, to: i32| {
        run(
            client,
            &format!(
                "DO $$BEGIN FOR i IN {from}..{to} LOOP
                   EXECUTE format('CREATE TABLE t%s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)', i);
                   PERFORM add_source('{log}', ('t' || i)::regclass, 'id', append_only => true);
                 END LOOP; END$$"
            ),
        );
    };
    add(&mut a, "few", 1, 10);
    let batch = "SELECT process_next_batch('few')";
    let coverage = "SELECT count(*) FROM merkle_log_coverage WHERE log_name = 'few'";
    let costs = |a: &mut Client| {
        run(a, batch);
        run(a, coverage);
        [tuples_read(a, batch), tuples_read(a, coverage)]
    };
    let alone = costs(&mut a);
    add(&mut a, "many", 11, 110);
    let beside = costs(&mut a);
    for (alone, beside) in alone.into_iter().zip(beside) {
        assert!(
            beside < alone * 2 + 400,
            "{alone} rows read alone, {beside} beside 100 sources of another log"
        );
    }
    // A batch of the large log looks up nothing but what is in its own lists.
    run(&mut a, "SELECT process_next_batch('many')");
    let idle = tuples_read(&mut a, "SELECT process_next_batch('many')");
    assert!(
        idle < 100 * 50,
        "an idle batch of 100 sources reads {idle} rows"
    );
}

#[test]
fn a_publication_of_all_tables_stops_no_log() {
    let cluster = Cluster::with("wal_level = logical");
    let mut a = cluster.client("postgres");
    run(&mut a, AUDIT);
    run(
        &mut a,
        "CREATE TABLE h (id int PRIMARY KEY, v text); SELECT create_log('h'); SELECT add_source('h', 'h', capture => 'trigger', salted => true);
         CREATE PUBLICATION everything FOR ALL TABLES; INSERT INTO orders DEFAULT VALUES; INSERT INTO h SELECT g FROM generate_series(1, 600) g;
         SELECT alter_log('h', batch_size => 100)",
    );
    // Every kind of row that is altered or deleted.
    for sql in [
        "SELECT process_next_batch()",
        "SELECT process_next_batch()",
        "SELECT redact_row('h', 'h', '1', 'why')",
        "SELECT reconcile('audit'), reconcile('h')",
        "SELECT alter_source('h', 'h', allow_truncate => true); TRUNCATE h",
        "ALTER TABLE orders RENAME note TO remark; SELECT process_next_batch()",
    ] {
        run(&mut a, sql);
    }
    assert_eq!(drain(&mut a, "h"), 603);
    for sql in [
        "SELECT prune_log('h', 512)",
        "SELECT remove_source('audit', 'orders')",
        "SELECT drop_log('h', true)",
    ] {
        run(&mut a, sql);
    }
    let errors =
        "SELECT log_name || last_error FROM merkle_log_status WHERE last_error IS NOT NULL";
    assert_eq!(column::<String>(&mut a, errors), [""; 0]);
}

#[test]
fn every_table_of_the_extension_has_a_replica_identity() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    let without: Vec<String> = column(
        &mut a,
        "SELECT c.relname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
           JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
          WHERE e.extname = 'merkle_log' AND d.deptype = 'e' AND c.relkind = 'r'
            AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)",
    );
    assert_eq!(without, Vec::<String>::new());
}
