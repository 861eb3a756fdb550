//! What a session remembers is what has been committed and is so now.

use server_tests::*;

/// A log named `x` with five rows, made by another session.
fn log_of_five_rows(client: &mut Client, name: &str) -> (i64, Vec<u8>) {
    run(
        client,
        &format!(
            "CREATE TABLE rows_of_{name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); INSERT INTO rows_of_{name} SELECT FROM generate_series(1, 5);
             SELECT create_log('{name}'); SELECT add_source('{name}', 'rows_of_{name}', order_column => 'id'); SELECT process_next_batch('{name}')"
        ),
    );
    size_and_root(client, name)
}

fn size_and_root(client: &mut Client, name: &str) -> (i64, Vec<u8>) {
    let row = client
        .query_one("SELECT merkle_size($1), merkle_root($1)", &[&name])
        .unwrap_or_else(|e| panic!("{name}: {e:?}"));
    (row.get(0), row.get(1))
}

fn is_unknown(client: &mut Client, name: &str) {
    let refused = error(client, &format!("SELECT merkle_size('{name}')"));
    assert!(refused.starts_with("42704"), "{refused}");
}

#[test]
fn a_log_that_was_rolled_back_is_forgotten() {
    for cluster in [Cluster::start(), Cluster::preloaded()] {
        let (mut here, mut there) = (cluster.client("postgres"), cluster.client("postgres"));
        for (name, roll_back) in [
            (
                "a",
                "BEGIN; SELECT create_log('a'); SELECT merkle_size('a'); ROLLBACK",
            ),
            (
                "b",
                "BEGIN; SAVEPOINT s; SELECT create_log('b'); SELECT merkle_size('b'); ROLLBACK TO s; SELECT 1; COMMIT",
            ),
            (
                "c",
                "DO $$ BEGIN BEGIN PERFORM create_log('c'); PERFORM merkle_size('c'); RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN NULL; END; END $$",
            ),
            (
                "d",
                "BEGIN; SELECT create_log('d'); SELECT merkle_size('d'); SELECT merkle_root('d'); PREPARE TRANSACTION 'p'; ROLLBACK PREPARED 'p'",
            ),
            (
                "e",
                "DO $$ BEGIN BEGIN PERFORM create_log('e'); PERFORM merkle_root('e'); PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END; PERFORM pg_current_xact_id(); END $$",
            ),
        ] {
            for statement in roll_back
                .split("; ")
                .filter(|_| !roll_back.starts_with("DO"))
            {
                run(&mut here, statement);
            }
            if roll_back.starts_with("DO") {
                run(&mut here, roll_back);
            }
            is_unknown(&mut here, name);
            // Another log gets the name. (Nothing that the session knew of the first one fits it.)
            let made = log_of_five_rows(&mut there, name);
            assert_eq!(made.0, 5);
            assert_eq!(size_and_root(&mut here, name), made, "{name}");
            let proven: i64 = one(
                &mut here,
                &format!("SELECT leaf_index FROM inclusion_proof('{name}', 'rows_of_{name}', '5')"),
            );
            assert_eq!(proven, 4);
        }
    }
}

#[test]
fn a_change_that_was_rolled_back_changes_nothing() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    let five = log_of_five_rows(&mut client, "x");
    for change in [
        "SELECT alter_log('x', 'z'); SELECT merkle_size('z')",
        "SELECT drop_log('x', true); SELECT create_log('x'); SELECT merkle_size('x'); SELECT merkle_root('x')",
        "SELECT drop_log('x', true)",
        "INSERT INTO rows_of_x DEFAULT VALUES; SELECT process_next_batch('x'); SELECT merkle_size('x'), merkle_root('x')",
    ] {
        run(&mut client, &format!("BEGIN; {change}"));
        run(&mut client, "ROLLBACK");
        assert_eq!(size_and_root(&mut client, "x"), five, "{change}");
        is_unknown(&mut client, "z");
        run(&mut client, &format!("BEGIN; SAVEPOINT s; {change}"));
        run(&mut client, "ROLLBACK TO s");
        assert_eq!(size_and_root(&mut client, "x"), five, "{change}");
        run(&mut client, "COMMIT");
        assert_eq!(size_and_root(&mut client, "x"), five, "{change}");
    }
}

/// A statement under an older snapshot still sees a log under its old name; what it sees is not what later
/// statements see.
#[test]
fn what_an_old_snapshot_shows_is_not_remembered() {
    let cluster = Cluster::start();
    let (mut here, mut there) = (cluster.client("postgres"), cluster.client("postgres"));
    let five = log_of_five_rows(&mut there, "y");
    run(&mut here, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    run(&mut there, "SELECT alter_log('y', 'renamed')");
    assert_eq!(size_and_root(&mut here, "y"), five);
    run(&mut here, "COMMIT");
    is_unknown(&mut here, "y");
    assert_eq!(size_and_root(&mut here, "renamed"), five);
    run(&mut here, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    run(&mut there, "SELECT drop_log('renamed', true)");
    assert_eq!(size_and_root(&mut here, "renamed").0, 5);
    run(&mut here, "COMMIT");
    is_unknown(&mut here, "renamed");
}

/// An error while a captured change is encoded leaves nothing in the session's memory.
#[test]
fn errors_in_captured_writes_leave_no_memory_behind() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    // A type whose values cannot be turned into text.
    run(
        &mut client,
        "CREATE TYPE broken;
         CREATE FUNCTION broken_in(cstring) RETURNS broken LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
         CREATE FUNCTION broken_out(broken) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'shell_out';
         CREATE TYPE broken (INPUT = broken_in, OUTPUT = broken_out, INTERNALLENGTH = 4, PASSEDBYVALUE, ALIGNMENT = int4);
         CREATE TABLE t (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, b broken);
         SELECT create_log('x'); SELECT add_source('x', 't', capture => 'trigger')",
    );
    let contexts = "SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'merkle_log%'";
    run(&mut client, "INSERT INTO t DEFAULT VALUES");
    let before: i64 = one(&mut client, contexts);
    for _ in 0..100 {
        let refused = error(&mut client, "INSERT INTO t (b) VALUES ('1')");
        assert!(refused.contains("shell type"), "{refused}");
        error(&mut client, "SELECT inclusion_proof('x', 't', 'no number')");
        error(&mut client, "SELECT leaf_data('x', 100)");
    }
    run(&mut client, "INSERT INTO t DEFAULT VALUES");
    let after: i64 = one(&mut client, contexts);
    assert!(
        after <= before + 1,
        "{before} contexts before, {after} after"
    );
}

#[test]
fn calls_that_fail_leave_no_memory_behind() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    log_of_five_rows(&mut a, "x");
    run(
        &mut a,
        "CREATE TABLE c (id int PRIMARY KEY, v text); SELECT create_log('c');
         SELECT add_source('c', 'c', capture => 'trigger', store_leaf_data => true); INSERT INTO c SELECT g, 'v' FROM generate_series(1, 3000) g;
         CREATE FUNCTION fail(text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'x'; END$$",
    );
    drain(&mut a, "c");
    let contexts =
        "SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'merkle_log scratch'";
    let calls = [
        "SELECT fail(operation) FROM history('c', 'c', '1')",
        "SELECT fail(kind) FROM verify_log('c', 0, 5) UNION ALL SELECT fail('x')",
        "SELECT fail(leaf_index::text) FROM log_entries('c', 0, 3000)",
        "SELECT fail(act) FROM administration()",
        "SELECT fail(tree_size::text) FROM tree_heads('c')",
        "SELECT leaf_index FROM log_entries('c', 0, 3000) WHERE leaf_index / 0 > 1",
        "SELECT history('c', 'c', 'no number')",
        "INSERT INTO c SELECT g, (1 / (5000 - g))::text FROM generate_series(4000, 5000) g",
        "SELECT process_next_batch('c'), 1 / 0",
        "DECLARE d CURSOR FOR SELECT * FROM log_entries('c', 0, 3000); FETCH 2 FROM d; SELECT 1 / 0",
    ];
    let fail = |a: &mut Client| calls.iter().for_each(|call| drop(error(a, call)));
    fail(&mut a);
    let before: i64 = one(&mut a, contexts);
    (0..5).for_each(|_| fail(&mut a));
    assert_eq!(one::<i64>(&mut a, contexts), before);
    assert!(before <= 1, "{before}");
}
