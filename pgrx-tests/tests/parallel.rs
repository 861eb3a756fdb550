//! Helper processes: they change how long a command takes, and nothing else.

use server_tests::*;

/// Enough rows for helpers to be asked for: batches begin to be large at 16,384 rows, and a verifier has
/// 131,072 entries at least.
const SOURCES: &str = "CREATE TABLE a (id bigint PRIMARY KEY, note text, doc jsonb);
    CREATE TABLE b (at timestamptz NOT NULL UNIQUE, id uuid PRIMARY KEY, n numeric);
    INSERT INTO a SELECT i, 'note ' || i, jsonb_build_object('i', i) FROM generate_series(1, 290000) i;
    INSERT INTO b SELECT timestamptz '2020-01-01 00:00+00' + i * interval '1 second', md5(i::text)::uuid, i / 7.0 FROM generate_series(1, 40000) i;";

fn setting(client: &mut Client, workers: u32) {
    run(
        client,
        &format!("SET max_parallel_maintenance_workers = {workers}"),
    );
}

/// What went on while `sql` ran: how many helpers there were at most.
fn helpers_during(cluster: &Cluster, client: &mut Client, sql: &str) -> i64 {
    let pid: i32 = one(client, "SELECT pg_backend_pid()");
    let mut watcher = cluster.client("postgres");
    std::thread::scope(|scope| {
        let work = scope.spawn(|| run(client, sql));
        let mut most = 0;
        while !work.is_finished() {
            most = most.max(one(
                &mut watcher,
                &format!("SELECT count(*) FROM pg_stat_activity WHERE leader_pid = {pid}"),
            ));
        }
        work.join().unwrap();
        most
    })
}

#[test]
fn a_batch_is_the_same_with_a_helper_and_without() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    let mut roots: Vec<Vec<u8>> = Vec::new();
    for (name, workers) in [("alone", 0), ("helped", 2)] {
        setting(&mut a, workers);
        for (log, table, order) in [("numbers", "a", "id"), ("times", "b", "at")] {
            let log = format!("{log} {name}");
            run(
                &mut a,
                &format!(
                    "SELECT create_log('{log}', batch_size => 250000); SELECT add_source('{log}', '{table}', order_column => '{order}', capture => 'watermark')"
                ),
            );
            let sql = format!("SELECT process_next_batch('{log}')");
            let helpers = helpers_during(&cluster, &mut a, &sql);
            assert_eq!(helpers, i64::from(workers.min(1)), "{log}");
            // The watermark is where the batch ended.
            let rest = drain(&mut a, &log);
            let all: i64 = one(&mut a, &format!("SELECT count(*) FROM {table}"));
            assert_eq!(rest, all);
            assert_eq!(findings(&mut a, &log), Vec::<String>::new());
            roots.push(one(&mut a, &format!("SELECT merkle_root('{log}')")));
        }
    }
    assert_eq!(roots[..2], roots[2..]);
}

#[test]
fn salts_and_leaf_data_come_through_a_helper() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "SELECT create_log('log', batch_size => 1000000);
         SELECT add_source('log', 'a', order_column => 'id', capture => 'watermark', salted => true, store_leaf_data => true)",
    );
    let helpers = helpers_during(&cluster, &mut a, "SELECT process_next_batch('log')");
    assert_eq!(helpers, 1);
    assert_eq!(findings(&mut a, "log"), Vec::<String>::new());
    let kept: (i64, i64) = {
        let row = a
            .query_one(
                "SELECT count(DISTINCT salt), count(leaf_data) FROM merkle_leaf_data WHERE log_id > 0",
                &[],
            )
            .unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!(kept, (290_000, 290_000));
}

#[test]
fn a_helper_that_is_lost_or_a_cancel_leaves_nothing_behind() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "SELECT create_log('log', batch_size => 1000000); SELECT add_source('log', 'a', order_column => 'id', capture => 'watermark')",
    );
    let pid: i32 = one(&mut a, "SELECT pg_backend_pid()");
    let mut b = cluster.client("postgres");
    let message = std::thread::scope(|scope| {
        let work = scope.spawn(|| error(&mut a, "SELECT process_next_batch('log')"));
        until(
            &mut b,
            &format!(
                "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE leader_pid = {pid}"
            ),
        );
        work.join().unwrap()
    });
    assert!(message.starts_with("57P01"), "{message}");
    assert_eq!(
        one::<i64>(&mut a, "SELECT count(*) FROM merkle_log WHERE log_id > 0"),
        0
    );
    run(&mut a, "SET statement_timeout = '200ms'");
    let message = error(&mut a, "SELECT process_next_batch('log')");
    assert!(message.starts_with("57014"), "{message}");
    run(&mut a, "RESET statement_timeout");
    assert_eq!(
        one::<i64>(&mut a, "SELECT count(*) FROM merkle_log WHERE log_id > 0"),
        0
    );
    assert_eq!(drain(&mut a, "log"), 290_000);
    assert_eq!(findings(&mut a, "log"), Vec::<String>::new());
}

#[test]
fn several_verifiers_find_what_one_finds() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "SELECT create_log('log', batch_size => 100000); SELECT add_source('log', 'a', order_column => 'id', capture => 'watermark')",
    );
    drain(&mut a, "log");
    let found = |client: &mut Client, workers: u32| -> Vec<String> {
        let mut found: Vec<String> = column(
            client,
            &format!("SELECT concat_ws(' ', v.*) FROM verify_log('log', workers => {workers}) v"),
        );
        found.sort();
        found
    };
    assert_eq!(
        helpers_during(
            &cluster,
            &mut a,
            "SELECT * FROM verify_log('log', workers => 2)"
        ),
        2
    );
    assert_eq!(found(&mut a, 2), Vec::<String>::new());
    run(
        &mut a,
        "UPDATE a SET note = 'x' WHERE id IN (7, 150000, 289999); DELETE FROM a WHERE id IN (100, 144000, 144001);
         UPDATE merkle_log SET source_key = '999999999' WHERE leaf_index IN (5000, 200000);
         UPDATE merkle_log SET leaf_hash = sha256('x') WHERE leaf_index IN (300, 250000);
         DELETE FROM merkle_log WHERE leaf_index IN (60000, 220000);
         DELETE FROM merkle_order_index WHERE leaf_index IN (256000, 512);
         UPDATE merkle_tile SET hashes = set_byte(hashes, 100, get_byte(hashes, 100) # 1) WHERE level = 1 AND tile_index = 3;
         INSERT INTO a VALUES (-5, 'slipped in', NULL)",
    );
    let alone = found(&mut a, 1);
    assert!(alone.len() > 15, "{alone:?}");
    assert_eq!(found(&mut a, 2), alone);
    // A key that is no number stops a helper: then one process does it all.
    run(
        &mut a,
        "UPDATE merkle_log SET source_key = 'none' WHERE leaf_index = 230000",
    );
    let alone = found(&mut a, 1);
    assert_eq!(found(&mut a, 2), alone);
}

#[test]
fn verifiers_work_on_a_standby() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, SOURCES);
    run(
        &mut a,
        "SELECT create_log('log', batch_size => 1000000); SELECT add_source('log', 'a', order_column => 'id', capture => 'watermark'); SELECT process_next_batch('log')",
    );
    let standby = Cluster::standby_of(&cluster);
    let mut b = standby.client("postgres");
    assert_eq!(
        column::<String>(&mut b, "SELECT kind FROM verify_log('log', workers => 2)"),
        Vec::<String>::new()
    );
}
