//! Trigger capture: each committed change once, as it was written, by whom.

use server_tests::*;
use std::io::Write;
use std::time::{Duration, Instant};

const ORDERS: &str =
    "CREATE TABLE orders (id int PRIMARY KEY, note text, at timestamptz DEFAULT now());
     SELECT create_log('audit');
     SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true);";

/// What is logged, as "operation key" in order; the log's own entries without an operation.
fn logged(client: &mut Client) -> Vec<String> {
    drain(client, "audit");
    column(
        client,
        "SELECT COALESCE(t.kind || ' ', '') || m.source_key
           FROM merkle_log m LEFT JOIN merkle_statement t
             ON t.log_id = m.log_id AND m.leaf_index >= t.from_leaf_index AND m.leaf_index < t.from_leaf_index + t.entries
          WHERE m.log_id > 0 ORDER BY m.leaf_index",
    )
}

fn intact(client: &mut Client) {
    assert_eq!(findings(client, "audit"), Vec::<String>::new());
    assert_eq!(
        column::<String>(client, "SELECT problem FROM merkle_log_coverage"),
        Vec::<String>::new()
    );
}

#[test]
fn every_kind_of_statement_is_captured() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(&mut a, "INSERT INTO orders VALUES (1, 'a'), (2, 'b')");
    run(&mut a, "UPDATE orders SET note = 'a2' WHERE id = 1");
    run(&mut a, "DELETE FROM orders WHERE id = 2");
    run(
        &mut a,
        "INSERT INTO orders VALUES (1, 'x'), (3, 'c') ON CONFLICT (id) DO UPDATE SET note = 'a3'",
    );
    run(
        &mut a,
        "INSERT INTO orders VALUES (1, 'y') ON CONFLICT DO NOTHING",
    );
    run(&mut a, "UPDATE orders SET note = 'nobody' WHERE false");
    run(&mut a, "BEGIN; DELETE FROM orders WHERE false");
    let id: Option<String> = one(&mut a, "SELECT pg_current_xact_id_if_assigned()::text");
    assert_eq!(id, None, "what changes nothing costs no transaction id");
    run(&mut a, "COMMIT");
    let mut copy = a.copy_in("COPY orders (id, note) FROM STDIN").unwrap();
    copy.write_all(b"4\td\n5\te\n").unwrap();
    copy.finish().unwrap();
    // MERGE came with version 15.
    let merge = match server_major(&mut a) {
        ..15 => {
            "WITH i AS (INSERT INTO orders VALUES (6, 'new')), u AS (UPDATE orders SET note = 'merged' WHERE id = 5)
             DELETE FROM orders WHERE id = 4"
        }
        _ => {
            "MERGE INTO orders o USING (VALUES (4), (5), (6)) v (i) ON o.id = v.i
             WHEN MATCHED AND i = 4 THEN DELETE WHEN MATCHED THEN UPDATE SET note = 'merged'
             WHEN NOT MATCHED THEN INSERT VALUES (i, 'new')"
        }
    };
    run(&mut a, merge);
    run(
        &mut a,
        "WITH gone AS (DELETE FROM orders WHERE id = 6 RETURNING *) INSERT INTO orders SELECT 7, note FROM gone",
    );
    let mut found = logged(&mut a);
    // The triggers of one statement fire in an order of their own.
    found[4..6].sort();
    found[8..11].sort();
    found[11..].sort();
    assert_eq!(
        found,
        [
            "insert 1", "insert 2", "update 1", "delete 2", "insert 3", "update 1", "insert 4",
            "insert 5", "delete 4", "insert 6", "update 5", "delete 6", "insert 7"
        ]
    );
    assert_eq!(one::<i64>(&mut a, "SELECT count(*) FROM merkle_pending"), 0);
    intact(&mut a);
}

#[test]
fn what_is_rolled_back_leaves_no_trace() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(&mut a, "BEGIN; INSERT INTO orders VALUES (1); ROLLBACK");
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (2); SAVEPOINT s; INSERT INTO orders VALUES (3); UPDATE orders SET note = 'x';
         ROLLBACK TO s; INSERT INTO orders VALUES (4); SAVEPOINT t; INSERT INTO orders VALUES (5); RELEASE t; COMMIT",
    );
    run(
        &mut a,
        "DO $$ BEGIN INSERT INTO orders VALUES (6); BEGIN INSERT INTO orders VALUES (7); RAISE EXCEPTION 'no';
           EXCEPTION WHEN OTHERS THEN NULL; END; END $$",
    );
    assert_eq!(
        logged(&mut a),
        ["insert 2", "insert 4", "insert 5", "insert 6"]
    );
    intact(&mut a);
}

#[test]
fn prepared_transactions_are_logged_when_they_commit_also_across_a_restart() {
    let cluster = Cluster::preloaded();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION 'p'",
    );
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (2); PREPARE TRANSACTION 'q'",
    );
    run(&mut a, "INSERT INTO orders VALUES (3)");
    until(&mut a, "SELECT merkle_size('audit') = 1");
    drop(a);
    cluster.stop();
    cluster.restart();
    let mut a = cluster.client("postgres");
    run(&mut a, "ROLLBACK PREPARED 'q'");
    run(&mut a, "COMMIT PREPARED 'p'");
    until(&mut a, "SELECT merkle_size('audit') = 2");
    assert_eq!(logged(&mut a), ["insert 3", "insert 1"]);
    intact(&mut a);
}

#[test]
fn what_is_logged_is_what_was_written_even_if_it_changes_before_the_batch() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    for note in ["first", "second", "third"] {
        run(
            &mut a,
            &format!(
                "INSERT INTO orders VALUES (1, '{note}', '2025-01-02 03:04:05.678901+02') ON CONFLICT (id) DO UPDATE SET note = EXCLUDED.note"
            ),
        );
    }
    run(&mut a, "DELETE FROM orders");
    drain(&mut a, "audit");
    let history: Vec<String> = column(
        &mut a,
        "SELECT concat_ws(' ', leaf_index, operation, row_data->>'note', row_data->>'at') FROM history('audit', 'orders', '1')",
    );
    assert_eq!(
        history,
        [
            "0 insert first 2025-01-02T01:04:05.678901+00:00",
            "1 update second 2025-01-02T01:04:05.678901+00:00",
            "2 update third 2025-01-02T01:04:05.678901+00:00",
            "3 delete third 2025-01-02T01:04:05.678901+00:00"
        ]
    );
    let proven: bool = one(
        &mut a,
        "SELECT bool_and(p.leaf_hash = sha256('\\x00'::bytea || leaf_data('audit', p.leaf_index))
                     AND verify_inclusion(p.leaf_hash, p.leaf_index, p.tree_size, p.path, p.root_hash))
           FROM history('audit', 'orders', '1') h, inclusion_proof('audit', h.leaf_index) p",
    );
    assert!(proven, "old versions stay verifiable");
    intact(&mut a);
    // The old versions are held against what was hashed, too.
    run(
        &mut a,
        "UPDATE merkle_leaf_data SET leaf_data = set_byte(leaf_data, 40, get_byte(leaf_data, 40) # 1) WHERE log_id > 0 AND leaf_index = 1",
    );
    assert_eq!(
        findings(&mut a, "audit"),
        ["leaf_data_altered public.orders 1 1"]
    );
}

#[test]
fn who_did_it_is_part_of_the_leaf() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "CREATE ROLE clerk LOGIN; GRANT ALL ON orders TO clerk",
    );
    let mut clerk = cluster.client_as("postgres", "clerk");
    run(
        &mut clerk,
        "SET application_name = 'till 3'; SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'",
    );
    let transaction: String = one(
        &mut clerk,
        "WITH w AS (INSERT INTO orders VALUES (1, 'paid') RETURNING id) SELECT pg_current_xact_id()::text FROM w",
    );
    drain(&mut a, "audit");
    let row = a
        .query_one(
            "SELECT user_name, application_name, transaction_id, statement_at BETWEEN now() - interval '1 min' AND now() FROM history('audit', 'orders', '1')",
            &[],
        )
        .unwrap();
    assert_eq!(
        (
            row.get::<_, &str>(0),
            row.get::<_, &str>(1),
            row.get::<_, String>(2),
            row.get::<_, bool>(3)
        ),
        ("clerk", "till 3", transaction, true)
    );
    // A forged record of it is found, where leaf data is kept and where it is not.
    run(
        &mut a,
        "SELECT create_log('lean'); SELECT add_source('lean', 'orders', capture => 'trigger')",
    );
    run(&mut clerk, "UPDATE orders SET note = 'refunded'");
    drain(&mut a, "audit");
    drain(&mut a, "lean");
    assert!(findings(&mut a, "lean").is_empty() && findings(&mut a, "audit").is_empty());
    run(&mut a, "UPDATE merkle_statement SET user_name = 'mallory'");
    assert_eq!(
        findings(&mut a, "lean"),
        ["metadata_altered public.orders 1 0"]
    );
    assert_eq!(
        findings(&mut a, "audit"),
        [
            "entry_altered public.orders 1 0",
            "entry_altered public.orders 1 1"
        ]
    );
    // The clerk may neither queue nor read what the log keeps.
    for sql in [
        "SELECT * FROM merkle_pending",
        "SELECT * FROM merkle_leaf_data WHERE log_id > 0",
        "INSERT INTO merkle_pending SELECT * FROM merkle_pending",
        "CREATE TEMP TABLE t (id int); CREATE TRIGGER t AFTER INSERT ON t REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION capture_change('1')",
    ] {
        let message = error(&mut clerk, sql);
        assert!(message.starts_with("42501"), "{sql}: {message}");
    }
}

#[test]
fn keys_that_change_are_deleted_and_inserted() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE orders (id int, note text, at timestamptz DEFAULT now(), PRIMARY KEY (id) DEFERRABLE);
         ALTER TABLE orders ADD CONSTRAINT now_unique UNIQUE (note); ALTER TABLE orders ALTER note SET NOT NULL;
         SELECT create_log('audit'); SELECT add_source('audit', 'orders', capture => 'trigger', key_columns => '{note}');
         INSERT INTO orders SELECT i, 'n' || i FROM generate_series(1, 3) i",
    );
    run(
        &mut a,
        "UPDATE orders SET note = CASE note WHEN 'n1' THEN 'm1' ELSE note END, id = id + 10",
    );
    run(&mut a, "UPDATE orders SET id = id WHERE note = 'none'");
    assert_eq!(
        logged(&mut a),
        [
            "insert n1",
            "insert n2",
            "insert n3",
            "delete n1",
            "update n2",
            "update n3",
            "insert m1"
        ]
    );
    intact(&mut a);
    // Keys that move from row to row within one statement.
    run(
        &mut a,
        "CREATE TABLE seats (seat int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, who text);
         CREATE UNIQUE INDEX seats_key ON seats (who); ALTER TABLE seats ALTER who SET NOT NULL;
         SELECT create_log('seating'); SELECT add_source('seating', 'seats', capture => 'trigger', key_columns => '{who}');
         INSERT INTO seats VALUES (1, 'a'), (2, 'b')",
    );
    run(
        &mut a,
        "BEGIN; UPDATE seats SET who = 'c' WHERE who = 'a'; UPDATE seats SET who = 'a' WHERE who = 'b'; COMMIT",
    );
    drain(&mut a, "seating");
    assert!(findings(&mut a, "seating").is_empty());
}

#[test]
fn partitions_are_captured_whichever_table_a_statement_names() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE orders (gone int, id int, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         ALTER TABLE orders DROP COLUMN gone;
         CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (100);
         CREATE TABLE orders_2 (note text, unused int, id int NOT NULL); ALTER TABLE orders_2 DROP COLUMN unused;
         ALTER TABLE orders ATTACH PARTITION orders_2 FOR VALUES FROM (100) TO (200);
         SELECT create_log('audit'); SELECT add_source('audit', 'orders', capture => 'trigger', allow_truncate => true);
         INSERT INTO orders VALUES (1, 'a'), (101, 'b'); INSERT INTO orders_2 (note, id) VALUES ('direct', 102)",
    );
    run(&mut a, "UPDATE orders SET id = 150 WHERE id = 1");
    run(
        &mut a,
        "UPDATE orders_2 SET note = 'changed' WHERE id = 101",
    );
    run(&mut a, "DELETE FROM orders WHERE id = 102");
    assert_eq!(
        logged(&mut a),
        [
            "insert 1",
            "insert 101",
            "insert 102",
            "delete 1",
            "insert 150",
            "update 101",
            "delete 102"
        ]
    );
    intact(&mut a);
    // A partition that comes later is captured at once; that TRUNCATE of it is not is shown, and mended.
    run(
        &mut a,
        "CREATE TABLE orders_3 PARTITION OF orders FOR VALUES FROM (200) TO (300); INSERT INTO orders_3 VALUES (201, 'later')",
    );
    drain(&mut a, "audit");
    assert_eq!(
        column::<String>(
            &mut a,
            "SELECT concat_ws(' ', relation, problem, rows) FROM merkle_log_coverage"
        ),
        ["orders_3 trigger merkle_log_1_truncate is missing",]
    );
    assert_eq!(findings(&mut a, "audit"), Vec::<String>::new());
    assert!(one::<bool>(
        &mut a,
        "SELECT NOT ok AND detail LIKE '%is missing%' FROM merkle_log_health() WHERE check_name = 'capture'"
    ));
    let mend: String = one(&mut a, "SELECT mend FROM merkle_log_coverage LIMIT 1");
    run(&mut a, &mend);
    run(&mut a, "INSERT INTO orders_3 VALUES (202, 'captured')");
    let found = logged(&mut a);
    assert_eq!(found[7..], ["insert 201", "insert 202"]);
    intact(&mut a);
    // A partition that is taken out is nobody's any more, and can be written.
    run(
        &mut a,
        "ALTER TABLE orders DETACH PARTITION orders_3; INSERT INTO orders_3 VALUES (203, 'free')",
    );
    // A partition alone is not truncated: what the log would say is true of the whole table only.
    let message = error(&mut a, "TRUNCATE orders_1");
    assert!(
        message.starts_with("23001") && message.contains("partition"),
        "{message}"
    );
    run(&mut a, "BEGIN; TRUNCATE orders; TRUNCATE orders_1; COMMIT");
    run(&mut a, "INSERT INTO orders VALUES (2, 'after')");
    assert_eq!(logged(&mut a)[9..], ["truncate truncate 1", "insert 2"]);
    intact(&mut a);
}

#[test]
fn truncate_is_refused_or_logged() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(&mut a, "INSERT INTO orders SELECT generate_series(1, 3)");
    let message = error(&mut a, "TRUNCATE orders");
    assert!(
        message.starts_with("23001") && message.contains("allow_truncate"),
        "{message}"
    );
    run(
        &mut a,
        "SELECT alter_source('audit', 'orders', allow_truncate => true)",
    );
    run(&mut a, "TRUNCATE orders; INSERT INTO orders VALUES (2)");
    assert_eq!(
        logged(&mut a),
        [
            "insert 1",
            "insert 2",
            "insert 3",
            "truncate truncate 1",
            "insert 2"
        ]
    );
    intact(&mut a);
    let operations: Vec<String> = column(
        &mut a,
        "SELECT operation FROM history('audit', 'orders', '1')",
    );
    assert_eq!(operations, ["insert", "truncate"]);
    // What a truncation took away must be gone.
    run(
        &mut a,
        "SET session_replication_role = replica; ALTER TABLE orders DISABLE TRIGGER ALL; INSERT INTO orders VALUES (1)",
    );
    assert_eq!(findings(&mut a, "audit"), ["unlogged public.orders 1"]);
}

#[test]
fn append_only_tables_refuse_every_change() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text) ;
         CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
         SELECT create_log('audit'); SELECT add_source('audit', 'orders', order_column => 'id', append_only => true);
         SELECT create_log('other'); SELECT add_source('other', 'events', capture => 'trigger', append_only => true);
         INSERT INTO orders (note) VALUES ('a'); INSERT INTO events VALUES (1)",
    );
    for sql in [
        "UPDATE orders SET note = 'x'",
        "DELETE FROM orders",
        "TRUNCATE orders",
        "INSERT INTO orders (id) OVERRIDING SYSTEM VALUE VALUES (1) ON CONFLICT (id) DO UPDATE SET note = 'x'",
        "DELETE FROM events",
        "DELETE FROM events_1",
        "UPDATE events_1 SET id = 2",
        "TRUNCATE events_1",
        "TRUNCATE events",
        "SET LOCAL session_replication_role = replica; DELETE FROM orders",
    ] {
        let message = error(&mut a, sql);
        assert!(
            message.starts_with("23001")
                && message.contains("append-only")
                && message.contains("alter_source"),
            "{sql}: {message}"
        );
    }
    run(&mut a, "ALTER TABLE events DETACH PARTITION events_1");
    run(&mut a, "UPDATE events_1 SET id = 3; TRUNCATE events_1");
    run(
        &mut a,
        "DELETE FROM orders WHERE false; INSERT INTO orders (note) VALUES ('b')",
    );
    assert_eq!(drain(&mut a, "audit"), 2);
    run(
        &mut a,
        "ALTER TABLE orders DISABLE TRIGGER merkle_log_1_append_only",
    );
    assert_eq!(
        column::<String>(&mut a, "SELECT problem FROM merkle_log_coverage"),
        ["trigger merkle_log_1_append_only is disabled"]
    );
    run(&mut a, "SELECT repair_capture('audit', 'orders')");
    error(&mut a, "DELETE FROM orders");
    run(
        &mut a,
        "SELECT alter_source('audit', 'orders', append_only => false); DELETE FROM orders WHERE id = 1",
    );
    assert_eq!(
        one::<i64>(
            &mut a,
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass"
        ),
        0
    );
}

#[test]
fn rows_from_before_are_backfilled_while_writers_go_on() {
    let cluster = Cluster::start();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    run(
        &mut a,
        "CREATE TABLE orders (id int PRIMARY KEY, note text, at timestamptz DEFAULT now());
         INSERT INTO orders SELECT i, 'old' FROM generate_series(1, 5000) i;
         SELECT create_log('audit', batch_size => 700); SELECT add_source('audit', 'orders', capture => 'trigger')",
    );
    let writer = std::thread::spawn(move || {
        for i in 0..200 {
            run(
                &mut b,
                &format!(
                    "UPDATE orders SET note = 'new' WHERE id = {}; DELETE FROM orders WHERE id = {}",
                    i * 13 % 5000 + 1,
                    i * 17 % 5000 + 1
                ),
            );
            run(
                &mut b,
                &format!("INSERT INTO orders VALUES ({})", 10_000 + i),
            );
        }
    });
    assert_eq!(
        column::<String>(&mut a, "SELECT problem FROM merkle_log_coverage"),
        ["rows that the backfill has not reached yet"]
    );
    while !writer.is_finished() {
        run(&mut a, "SELECT process_next_batch('audit')");
    }
    writer.join().unwrap();
    drain(&mut a, "audit");
    let left: i64 = one(
        &mut a,
        "SELECT count(*) FROM verification_sources WHERE backfill IS NOT NULL",
    );
    assert_eq!(left, 0);
    intact(&mut a);
    let inserts: i64 = one(
        &mut a,
        "SELECT count(*) FROM (SELECT source_key FROM merkle_log m WHERE m.log_id > 0 AND NOT EXISTS (SELECT FROM merkle_statement t WHERE t.from_leaf_index <= m.leaf_index AND m.leaf_index < t.from_leaf_index + t.entries) GROUP BY 1 HAVING count(*) > 1) twice",
    );
    assert_eq!(inserts, 0, "no row was backfilled twice");
    // Without backfill the old rows stay out, and are said to be out.
    run(
        &mut a,
        "SELECT create_log('other'); SELECT add_source('other', 'orders', capture => 'trigger', backfill => false)",
    );
    assert_eq!(drain(&mut a, "other"), 0);
    let rows: i64 = one(
        &mut a,
        "SELECT rows FROM merkle_log_coverage WHERE log_name = 'other'",
    );
    assert_eq!(rows, one::<i64>(&mut a, "SELECT count(*) FROM orders"));
    assert_eq!(
        column::<String>(&mut a, "SELECT source_key FROM reconcile('other')"),
        Vec::<String>::new()
    );
    assert_eq!(findings(&mut a, "other"), Vec::<String>::new());
    run(&mut a, "SELECT backfill('other', 'orders')");
    assert_eq!(drain(&mut a, "other"), rows);
    assert!(findings(&mut a, "other").is_empty());
}

#[test]
fn every_way_past_the_triggers_is_captured_or_shown() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(&mut a, "INSERT INTO orders SELECT generate_series(1, 5)");
    drain(&mut a, "audit");
    // session_replication_role does not get past triggers that fire always.
    run(
        &mut a,
        "SET session_replication_role = replica; INSERT INTO orders VALUES (6); UPDATE orders SET note = 'x' WHERE id = 6; RESET session_replication_role",
    );
    assert_eq!(logged(&mut a)[5..], ["insert 6", "update 6"]);
    intact(&mut a);
    for (bypass, problem) in [
        ("ALTER TABLE orders DISABLE TRIGGER ALL", "is disabled"),
        (
            "ALTER TABLE orders DISABLE TRIGGER merkle_log_1_change",
            "merkle_log_1_change is disabled",
        ),
        (
            "ALTER TABLE orders ENABLE TRIGGER merkle_log_1_change; SET session_replication_role = replica",
            "not enabled as it must be",
        ),
        (
            "DROP TRIGGER merkle_log_1_change ON orders",
            "merkle_log_1_change is missing",
        ),
    ] {
        run(&mut a, bypass);
        run(
            &mut a,
            "INSERT INTO orders SELECT max(id) + 1 FROM orders; RESET session_replication_role",
        );
        let problems: Vec<String> = column(&mut a, "SELECT problem FROM merkle_log_coverage");
        assert!(
            problems.iter().any(|p| p.contains(problem)),
            "{bypass}: {problems:?}"
        );
        assert!(
            problems.iter().any(|p| p == "rows that were never logged"),
            "{bypass}: {problems:?}"
        );
        assert_eq!(findings(&mut a, "audit").len(), 1, "{bypass}");
        let late: Vec<String> = column(&mut a, "SELECT source_key FROM reconcile('audit')");
        assert_eq!(late.len(), 1, "{bypass}: late, never lost");
        run(&mut a, "SELECT repair_capture('audit', 'orders')");
        drain(&mut a, "audit");
        intact(&mut a);
    }
    // Changes and deletions that went past are tampering, not late rows.
    run(
        &mut a,
        "ALTER TABLE orders DISABLE TRIGGER ALL; UPDATE orders SET note = 'forged' WHERE id = 2; DELETE FROM orders WHERE id = 3; SELECT repair_capture('audit', 'orders')",
    );
    drain(&mut a, "audit");
    let mut found = findings(&mut a, "audit");
    found.sort();
    assert_eq!(
        found,
        ["deleted public.orders 3 2", "modified public.orders 2 1"]
    );
}

#[test]
fn rows_applied_by_logical_replication_are_captured_once() {
    let publisher = Cluster::with("wal_level = logical");
    let cluster = Cluster::preloaded();
    let (mut p, mut a) = (publisher.client("postgres"), cluster.client("postgres"));
    let tables =
        "CREATE TABLE orders (id int PRIMARY KEY, note text, at timestamptz DEFAULT now());
         CREATE TABLE events (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
         CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100) TO (200);";
    run(&mut p, tables);
    run(
        &mut p,
        "INSERT INTO orders SELECT i, 'initial' FROM generate_series(1, 10) i; INSERT INTO events VALUES (1), (101)",
    );
    run(
        &mut p,
        "CREATE PUBLICATION pub FOR TABLE orders, events WITH (publish_via_partition_root)",
    );
    run(&mut a, tables);
    run(
        &mut a,
        "SELECT create_log('audit'); SELECT add_source('audit', 'orders', capture => 'trigger', allow_truncate => true);
         SELECT add_source('audit', 'events', capture => 'trigger')",
    );
    let from = publisher.socket().display().to_string();
    run(
        &mut a,
        &format!(
            "CREATE SUBSCRIPTION sub CONNECTION 'host={from} user=postgres dbname=postgres' PUBLICATION pub"
        ),
    );
    until(
        &mut a,
        "SELECT (SELECT count(*) FROM orders) = 10 AND (SELECT count(*) FROM events) = 2",
    );
    run(&mut p, "INSERT INTO orders SELECT i, 'applied' FROM generate_series(11, 15) i; UPDATE orders SET note = 'changed' WHERE id <= 2;
                 DELETE FROM orders WHERE id = 3; INSERT INTO events VALUES (2), (102); UPDATE events SET note = 'x' WHERE id = 101");
    run(&mut p, "INSERT INTO orders VALUES (99, 'last')");
    until(&mut a, "SELECT EXISTS (SELECT FROM orders WHERE id = 99)");
    until(&mut a, "SELECT NOT EXISTS (SELECT FROM merkle_pending)");
    // Ten and two copied at first, then 6 + 2 + 1 of orders, 2 + 1 of events.
    assert_eq!(drain(&mut a, "audit"), 24);
    intact(&mut a);
    run(
        &mut p,
        "TRUNCATE orders; INSERT INTO orders VALUES (1, 'again')",
    );
    until(&mut a, "SELECT count(*) = 1 FROM orders");
    drain(&mut a, "audit");
    until(&mut a, "SELECT merkle_size('audit') = 26");
    intact(&mut a);
    run(
        &mut a,
        "ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub",
    );
}

#[test]
fn the_shape_of_queued_changes_is_the_one_they_were_captured_in() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE orders (id int PRIMARY KEY, note text); SELECT create_log('audit'); SELECT add_source('audit', 'orders', capture => 'trigger')",
    );
    run(&mut a, "INSERT INTO orders VALUES (1, 'a')");
    run(&mut a, "ALTER TABLE orders ADD COLUMN extra int DEFAULT 7");
    run(&mut a, "INSERT INTO orders VALUES (2, 'b')");
    run(&mut a, "ALTER TABLE orders RENAME COLUMN note TO remark");
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (3, 'c'); ALTER TABLE orders ADD COLUMN more text; INSERT INTO orders VALUES (4, 'd', 8, 'm'); COMMIT",
    );
    run(&mut a, "ALTER TABLE orders DROP COLUMN extra");
    run(&mut a, "INSERT INTO orders VALUES (5, 'e', 'm')");
    run(
        &mut a,
        "SELECT alter_source('audit', 'orders', columns => '{id,remark}')",
    );
    run(&mut a, "INSERT INTO orders VALUES (6, 'f', 'm')");
    assert_eq!(logged(&mut a).len(), 6);
    let changes: Vec<String> = column(
        &mut a,
        "SELECT from_leaf_index || ': ' || change FROM verification_source_versions ORDER BY version",
    );
    assert_eq!(
        changes,
        [
            "0: first version",
            "1: column extra integer is new",
            "2: column note is now remark",
            "3: column more text is new",
            "4: column extra is gone",
            "5: column more is gone"
        ]
    );
    let found = findings(&mut a, "audit");
    assert!(
        found.iter().all(|f| f.starts_with("schema_changed")),
        "{found:?}"
    );
    assert_eq!(
        found.len(),
        3,
        "the entries that had the dropped column: {found:?}"
    );
    run(&mut a, "DROP TABLE orders");
    run(&mut a, "SELECT process_next_batch('audit')");
}

#[test]
fn a_captured_table_and_its_queue_survive_dump_and_restore() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, "CREATE TABLE filler (a int); DROP TABLE filler; CREATE TABLE orders (gone int, id int PRIMARY KEY, note text, at timestamptz DEFAULT now());
        ALTER TABLE orders DROP COLUMN gone; SELECT create_log('audit');
        SELECT add_source('audit', 'orders', capture => 'trigger', salted => true, store_leaf_data => true)");
    run(
        &mut a,
        "INSERT INTO orders SELECT i, 'n' FROM generate_series(1, 600) i",
    );
    drain(&mut a, "audit");
    run(
        &mut a,
        "UPDATE orders SET note = 'queued' WHERE id < 10; DELETE FROM orders WHERE id = 600",
    );
    let root: Vec<u8> = one(&mut a, "SELECT merkle_root('audit')");
    for restore in [
        "pg_dump postgres | psql -q -v ON_ERROR_STOP=1 copy",
        "pg_dump -Fc -f dump.tmp postgres && pg_restore -e -j 2 -d copy dump.tmp",
    ] {
        cluster.shell("createdb copy");
        cluster.shell(&format!("cd \"$PGHOST\" && {restore}"));
        let mut b = cluster.client("copy");
        assert_eq!(one::<Vec<u8>>(&mut b, "SELECT merkle_root('audit')"), root);
        assert_eq!(
            one::<i64>(
                &mut b,
                "SELECT lag_rows FROM merkle_log_status WHERE log_name <> 'merkle_log_administration'"
            ),
            10
        );
        run(&mut b, "SELECT adopt_database('continue')");
        run(&mut b, "INSERT INTO orders VALUES (1000, 'after')");
        assert_eq!(drain(&mut b, "audit"), 611);
        intact(&mut b);
        assert_eq!(
            one::<i64>(&mut b, "SELECT count(*) FROM verification_source_versions"),
            1
        );
        drop(b);
        cluster.shell("dropdb copy");
    }
}

#[test]
fn options_that_contradict_are_refused_with_a_hint() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, h bytea); SELECT create_log('audit'); SELECT create_log('byid'); SELECT add_source('byid', 'orders', 'id')",
    );
    for (call, words) in [
        (
            "add_source('audit', 'orders', 'id', capture => 'trigger')",
            "Leave order_column out",
        ),
        (
            "add_source('audit', 'orders', hash_column => 'h', capture => 'trigger')",
            "columns =>",
        ),
        (
            "add_source('audit', 'orders')",
            "Give a value for order_column",
        ),
        (
            "add_source('audit', 'orders', 'id', allow_truncate => true)",
            "capture => 'trigger'",
        ),
        (
            "remove_source('byid', 'orders'); SELECT add_source('byid', 'orders', capture => 'trigger')",
            "Create another log",
        ),
        ("backfill('byid', 'orders')", "by itself"),
        ("create_log('x', run_interval => '1 ms')", "run_interval"),
        (
            "create_log('x', reconcile_interval => '-1 s')",
            "reconcile_interval",
        ),
    ] {
        let message = error(&mut a, &format!("SELECT {call}"));
        assert!(message.contains(words), "{call}: {message}");
    }
}

#[test]
fn a_table_that_leaves_its_log_has_no_triggers_left() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "SELECT create_log('it''s'); SELECT add_source('it''s', 'orders', capture => 'trigger', append_only => true)",
    );
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass";
    assert_eq!(one::<i64>(&mut a, triggers), 6);
    run(&mut a, "INSERT INTO orders VALUES (1)");
    run(&mut a, "SELECT remove_source('it''s', 'orders')");
    assert_eq!(one::<i64>(&mut a, triggers), 2);
    run(&mut a, "UPDATE orders SET note = 'x'");
    assert_eq!(drain(&mut a, "it's"), 1, "what was queued before is logged");
    assert_eq!(drain(&mut a, "audit"), 2);
    run(&mut a, "SELECT drop_log('audit', confirm => true)");
    assert_eq!(one::<i64>(&mut a, triggers), 0);
    assert_eq!(one::<i64>(&mut a, "SELECT count(*) FROM merkle_pending"), 0);
    run(&mut a, "UPDATE orders SET note = 'free'; TRUNCATE orders");
    // Rows of heirs would be captured as this table's.
    run(
        &mut a,
        "CREATE TABLE heirs () INHERITS (orders); SELECT create_log('audit')",
    );
    let message = error(
        &mut a,
        "SELECT add_source('audit', 'orders', capture => 'trigger')",
    );
    assert!(
        message.starts_with("42809") && message.contains("inherit"),
        "{message}"
    );
}

#[test]
fn a_deletion_cannot_be_passed_off_as_captured_where_leaf_data_is_kept() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "SELECT alter_source('audit', 'orders', allow_truncate => true); INSERT INTO orders VALUES (1), (2)",
    );
    drain(&mut a, "audit");
    let behind = "ALTER TABLE orders DISABLE TRIGGER ALL; DELETE FROM orders WHERE id = 1; ALTER TABLE orders ENABLE TRIGGER ALL;";
    for cover in [
        "UPDATE merkle_statement SET kind = 'delete'",
        "DELETE FROM merkle_statement",
        "UPDATE merkle_log SET source_id = 0, source_key = 'truncate 1' WHERE leaf_index = 1",
    ] {
        run(&mut a, "BEGIN");
        run(&mut a, behind);
        run(&mut a, cover);
        let found = findings(&mut a, "audit");
        assert!(
            found.iter().any(|f| f.starts_with("entry_altered")),
            "{cover}: {found:?}"
        );
        run(&mut a, "ROLLBACK");
    }
    intact(&mut a);
}

#[test]
fn rows_of_any_length_are_captured() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "SELECT create_log('lean'); SELECT add_source('lean', 'orders', capture => 'trigger')",
    );
    let long = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, n) g)";
    run(
        &mut a,
        &format!(
            "INSERT INTO orders SELECT n, {long} FROM unnest('{{1, 200, 210, 1500, 2040, 2060, 30000}}'::int[]) n"
        ),
    );
    run(
        &mut a,
        "UPDATE orders SET note = note || 'x'; INSERT INTO orders SELECT i + 100000, repeat('y', i % 3000) FROM generate_series(1, 2000) i",
    );
    for log in ["audit", "lean"] {
        assert_eq!(drain(&mut a, log), 2014);
        assert_eq!(findings(&mut a, log), Vec::<String>::new());
    }
    let lengths: Vec<i32> = column(
        &mut a,
        "SELECT length(row_data->>'note') FROM history('audit', 'orders', '1500')",
    );
    assert_eq!(lengths, [48_000, 48_001]);
    // What is too long for a leaf is hashed by its digest, and kept all the same.
    let kept: Vec<Option<i32>> = column(
        &mut a,
        "SELECT length(row_data->>'note') FROM history('audit', 'orders', '30000')",
    );
    assert_eq!(kept, [Some(960_000), Some(960_001)]);
}

#[test]
fn a_long_queue_is_logged_in_its_order_batch_by_batch() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "SELECT alter_log('audit', batch_size => 70);
         DO $$ BEGIN FOR i IN 1..400 LOOP INSERT INTO orders VALUES (i); UPDATE orders SET note = 'x' WHERE id = i; END LOOP; END $$;
         INSERT INTO orders SELECT generate_series(1001, 1500)",
    );
    assert_eq!(drain(&mut a, "audit"), 1300);
    let expected = (1..=400)
        .flat_map(|i| [i.to_string(), i.to_string()])
        .chain((1001..=1500).map(|i| i.to_string()));
    let keys: Vec<String> = column(
        &mut a,
        "SELECT source_key FROM merkle_log WHERE log_id > 0 ORDER BY leaf_index",
    );
    assert!(keys.into_iter().eq(expected));
    let heads: Vec<i64> = column(&mut a, "SELECT tree_size FROM tree_heads('audit')");
    assert_eq!(
        heads[..11],
        [70, 140, 210, 280, 350, 420, 490, 560, 630, 700, 770]
    );
    intact(&mut a);
    // More at once than a batch takes on: a search for late rows logs all of it first.
    run(
        &mut a,
        "UPDATE orders SET note = 'y'; INSERT INTO orders SELECT generate_series(2001, 2200)",
    );
    assert_eq!(
        column::<String>(&mut a, "SELECT source_key FROM reconcile('audit')"),
        Vec::<String>::new()
    );
    assert_eq!(
        one::<i64>(&mut a, "SELECT merkle_size('audit')"),
        1300 + 900 + 200
    );
    intact(&mut a);
}

#[test]
fn a_commit_wakes_the_worker() {
    let cluster = Cluster::preloaded();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "SELECT alter_log('audit', run_interval => '1 hour')",
    );
    until(
        &mut a,
        "SELECT worker_pid IS NOT NULL AND last_run_at IS NOT NULL FROM merkle_log_status WHERE log_name <> 'merkle_log_administration'",
    );
    let mut log_one = |i: i32| {
        let started = Instant::now();
        run(&mut a, &format!("INSERT INTO orders VALUES ({i})"));
        until(&mut a, &format!("SELECT merkle_size('audit') = {}", i + 1));
        if i == 0 {
            // The first was logged without waiting for the interval; those that follow would have to.
            run(&mut a, "SELECT alter_log('audit', run_interval => '10 ms')");
        }
        started.elapsed()
    };
    let mut taken: Vec<Duration> = (0..40).map(&mut log_one).collect();
    taken.sort();
    // How fast is measured by `make bench-capture`.
    assert!(taken[39] < Duration::from_secs(10), "{taken:?}");
    println!("commit to logged: median {:?}", taken[20]);
}

/// The history of a row as "operation note", oldest first.
fn history(client: &mut Client, table: &str, key: &str) -> Vec<String> {
    column(
        client,
        &format!(
            "SELECT concat_ws(' ', operation, row_data->>'note') FROM history('audit', '{table}', '{key}')"
        ),
    )
}

#[test]
fn a_statement_inside_another_is_logged_where_its_changes_were_made() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "CREATE FUNCTION touch(int) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN UPDATE orders SET note = note || '!' WHERE id = $1; RETURN 'touched'; END $$;
         CREATE FUNCTION give_way() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN DELETE FROM orders WHERE id = NEW.id; RETURN NEW; END $$;
         CREATE FUNCTION finish() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN UPDATE orders SET note = 'finished' WHERE id = NEW.id; RETURN NULL; END $$;
         CREATE FUNCTION swap(int) RETURNS int LANGUAGE plpgsql AS $$
         BEGIN DELETE FROM orders WHERE id = $1; INSERT INTO orders VALUES ($1, 'swapped'); RETURN $1; END $$",
    );
    // In all of them the nested statement has the later command, and its triggers fire first.
    for (memory, first) in [("8MB", 0), ("1kB", 1000)] {
        run(
            &mut a,
            &format!("SET merkle_log.capture_memory = '{memory}'"),
        );
        let id = |n: i32| (first + n).to_string();
        // It changes what the outer statement has made.
        run(
            &mut a,
            &format!(
                "INSERT INTO orders VALUES ({}, 'a') RETURNING touch(id)",
                id(1)
            ),
        );
        // It makes room for what the outer statement is about to make.
        run(
            &mut a,
            "CREATE TRIGGER before BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION give_way()",
        );
        run(
            &mut a,
            &format!(
                "INSERT INTO orders VALUES ({0}, 'a'); INSERT INTO orders VALUES ({0}, 'b')",
                id(2)
            ),
        );
        // Both at once: the row is made and taken away by one statement, again and again.
        run(
            &mut a,
            &format!(
                "INSERT INTO orders VALUES ({0}, 'a'), ({0}, 'b'), ({0}, 'c') RETURNING touch(id)",
                id(3)
            ),
        );
        run(&mut a, "DROP TRIGGER before ON orders");
        // Many rows, each changed before any of them is captured as inserted.
        run(
            &mut a,
            &format!(
                "INSERT INTO orders SELECT i, 'many' FROM generate_series({0}, {0} + 44) i RETURNING touch(id)",
                first + 300
            ),
        );
        run(
            &mut a,
            &format!(
                "DELETE FROM orders WHERE id >= {} RETURNING swap(id)",
                first + 330
            ),
        );
        // After each row, with a name before and behind that of the capturing trigger.
        for name in ["a_first", "zz_last"] {
            run(
                &mut a,
                &format!(
                    "CREATE TRIGGER {name} AFTER INSERT ON orders FOR EACH ROW WHEN (NEW.note = '{name}') EXECUTE FUNCTION finish()"
                ),
            );
            run(
                &mut a,
                &format!(
                    "INSERT INTO orders SELECT i, '{name}' FROM generate_series({0}, {0} + 40) i",
                    first + if name == "a_first" { 100 } else { 200 }
                ),
            );
        }
        // It takes away what the outer statement has made, and makes it again.
        run(
            &mut a,
            &format!(
                "INSERT INTO orders VALUES ({}, 'a') RETURNING swap(id)",
                id(4)
            ),
        );
        run(
            &mut a,
            &format!(
                "UPDATE orders SET note = 'b' WHERE id = {} RETURNING swap(id)",
                id(4)
            ),
        );
        drain(&mut a, "audit");
        assert_eq!(history(&mut a, "orders", &id(1)), ["insert a", "update a!"]);
        assert_eq!(
            history(&mut a, "orders", &id(2)),
            ["insert a", "delete a", "insert b"]
        );
        assert_eq!(
            history(&mut a, "orders", &id(3)),
            [
                "insert a",
                "update a!",
                "delete a!",
                "insert b",
                "update b!",
                "delete b!",
                "insert c",
                "update c!"
            ]
        );
        for n in 300..330 {
            assert_eq!(
                history(&mut a, "orders", &id(n)),
                ["insert many", "update many!"]
            );
        }
        for n in 330..345 {
            assert_eq!(
                history(&mut a, "orders", &id(n)),
                [
                    "insert many",
                    "update many!",
                    "delete many!",
                    "insert swapped"
                ]
            );
        }
        for n in [100, 120, 140] {
            assert_eq!(
                history(&mut a, "orders", &id(n)),
                ["insert a_first", "update finished"]
            );
            assert_eq!(
                history(&mut a, "orders", &id(n + 100)),
                ["insert zz_last", "update finished"]
            );
        }
        assert_eq!(
            history(&mut a, "orders", &id(4)),
            [
                "insert a",
                "delete a",
                "insert swapped",
                "update b",
                "delete b",
                "insert swapped"
            ]
        );
        intact(&mut a);
        run(
            &mut a,
            "DROP TRIGGER a_first ON orders; DROP TRIGGER zz_last ON orders",
        );
    }
}

#[test]
fn rows_that_move_to_another_partition_are_captured() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE p (id int, r int, note text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2) PARTITION BY RANGE (id);
         CREATE TABLE p2a PARTITION OF p2 FOR VALUES FROM (0) TO (10); CREATE TABLE p2b PARTITION OF p2 FOR VALUES FROM (10) TO (20);
         SELECT create_log('audit'); SELECT add_source('audit', 'p', capture => 'trigger', store_leaf_data => true);
         INSERT INTO p VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
    );
    let merge = match server_major(&mut a) {
        ..15 => "UPDATE p SET r = 2, note = 'merged' WHERE id = 1",
        _ => {
            "MERGE INTO p USING (VALUES (1)) m (i) ON p.id = m.i WHEN MATCHED THEN UPDATE SET r = 2, note = 'merged'"
        }
    };
    run(&mut a, merge);
    run(&mut a, "UPDATE p SET r = 2 WHERE id = 2");
    run(&mut a, "UPDATE p SET id = 13 WHERE id = 3");
    drain(&mut a, "audit");
    for (key, expected) in [
        ("{1,1}", vec!["insert a", "delete a"]),
        ("{1,2}", vec!["insert merged"]),
        ("{2,1}", vec!["insert b", "delete b"]),
        ("{2,2}", vec!["insert b"]),
        ("{3,2}", vec!["insert c", "delete c"]),
        ("{13,2}", vec!["insert c"]),
    ] {
        assert_eq!(history(&mut a, "p", key), expected, "{key}");
    }
    intact(&mut a);
}

#[test]
fn a_large_transaction_is_queued_early_and_logged_whole_or_not_at_all() {
    let cluster = Cluster::start();
    let (mut a, mut b) = (cluster.client("postgres"), cluster.client("postgres"));
    run(&mut a, ORDERS);
    run(&mut a, "SET merkle_log.capture_memory = '1MB'");
    run(
        &mut a,
        "BEGIN; INSERT INTO orders SELECT i, 'kept' FROM generate_series(1, 20000) i; SAVEPOINT s;
         INSERT INTO orders SELECT i, 'dropped' FROM generate_series(20001, 50000) i; UPDATE orders SET note = 'dropped'; ROLLBACK TO s;
         UPDATE orders SET note = 'changed' WHERE id % 2 = 0",
    );
    // Another transaction commits in between, and is logged before.
    run(&mut b, "INSERT INTO orders VALUES (100001, 'beside')");
    assert_eq!(drain(&mut b, "audit"), 1);
    assert!(
        one::<i64>(&mut a, "SELECT count(*) FROM merkle_pending") > 0,
        "some of it is queued early"
    );
    run(&mut a, "COMMIT");
    run(&mut b, "UPDATE orders SET note = 'after' WHERE id = 2");
    assert_eq!(
        one::<i64>(&mut b, "SELECT sum(changes - taken) FROM merkle_pending"),
        30_001
    );
    run(&mut b, "SELECT alter_log('audit', batch_size => 7000)");
    assert_eq!(drain(&mut b, "audit"), 30_002);
    assert_eq!(
        history(&mut b, "orders", "2"),
        ["insert kept", "update changed", "update after"]
    );
    assert_eq!(history(&mut b, "orders", "19999"), ["insert kept"]);
    intact(&mut b);
    // Rolled back, it leaves nothing.
    run(&mut a, "BEGIN; UPDATE orders SET note = 'never'; ROLLBACK");
    assert_eq!(one::<i64>(&mut a, "SELECT count(*) FROM merkle_pending"), 0);
    // Prepared and committed by another session.
    run(
        &mut a,
        "BEGIN; UPDATE orders SET note = 'prepared' WHERE id <= 10000; PREPARE TRANSACTION 'large'",
    );
    assert_eq!(drain(&mut b, "audit"), 30_002);
    run(&mut b, "COMMIT PREPARED 'large'");
    assert_eq!(drain(&mut b, "audit"), 40_002);
    intact(&mut b);
}

#[test]
fn what_a_subtransaction_queues_early_stands_behind_what_came_before_it() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "SELECT alter_source('audit', 'orders', allow_truncate => true); SET merkle_log.capture_memory = '1kB'",
    );
    let updates = "UPDATE orders SET note = note || '+' WHERE id = 2;".repeat(40);
    run(
        &mut a,
        &format!(
            "BEGIN; INSERT INTO orders VALUES (1, 'gone'); TRUNCATE orders; INSERT INTO orders VALUES (2, 'a'); SAVEPOINT s; {updates} RELEASE s;
             INSERT INTO orders VALUES (1, 'back'); COMMIT"
        ),
    );
    assert_eq!(drain(&mut a, "audit"), 44);
    assert_eq!(
        history(&mut a, "orders", "1"),
        ["insert gone", "truncate", "insert back"]
    );
    let of_2 = history(&mut a, "orders", "2");
    assert_eq!(
        of_2[..4],
        ["truncate", "insert a", "update a+", "update a++"]
    );
    assert_eq!(of_2[41], format!("update a{}", "+".repeat(40)));
    intact(&mut a);
}

#[test]
fn a_transaction_that_was_queued_out_of_order_is_logged_batch_by_batch() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "SELECT alter_log('audit', batch_size => 10); SET merkle_log.capture_memory = '1kB'",
    );
    let outer = |mark| format!("UPDATE orders SET note = note || '{mark}' WHERE id IN (1, 2)");
    let inner = "UPDATE orders SET note = note || '+' WHERE id = 1;".repeat(60);
    run(
        &mut a,
        &format!(
            "BEGIN; INSERT INTO orders SELECT g, '' FROM generate_series(1, 2) g; {}; SAVEPOINT s; {inner} RELEASE s; {}; SAVEPOINT s; {inner} RELEASE s; COMMIT;
             UPDATE orders SET note = 'after'",
            outer("a"),
            outer("b")
        ),
    );
    assert!(one::<bool>(
        &mut a,
        "SELECT NOT bool_and(ordered) FROM merkle_pending"
    ));
    let mut left: i64 = 2 + 2 + 60 + 2 + 60 + 2;
    while left > 0 {
        assert_eq!(
            one::<i64>(
                &mut a,
                "SELECT lag_rows FROM merkle_log_status WHERE log_name = 'audit'"
            ),
            left
        );
        let entries: i64 = one(&mut a, "SELECT entries FROM process_next_batch('audit')");
        assert_eq!(entries, left.min(10));
        left -= entries;
    }
    let of_1 = history(&mut a, "orders", "1");
    let plus = |n: usize| "+".repeat(n);
    assert_eq!(of_1.len(), 124);
    assert_eq!(of_1[1], "update a");
    assert_eq!(of_1[61], format!("update a{}", plus(60)));
    assert_eq!(of_1[62], format!("update a{}b", plus(60)));
    assert_eq!(of_1[122], format!("update a{}b{}", plus(60), plus(60)));
    assert_eq!(of_1[123], "update after");
    assert_eq!(
        history(&mut a, "orders", "2"),
        ["insert ", "update a", "update ab", "update after"]
    );
    assert_eq!(one::<i64>(&mut a, "SELECT count(*) FROM merkle_pending"), 0);
    intact(&mut a);
}

#[test]
fn a_log_or_the_extension_can_be_dropped_by_a_transaction_that_was_captured() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (1); SAVEPOINT s; SELECT drop_log('audit', confirm => true); ROLLBACK TO s; COMMIT",
    );
    assert_eq!(logged(&mut a), ["insert 1"], "it was not dropped after all");
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (2); SELECT drop_log('audit', confirm => true); INSERT INTO orders VALUES (3); COMMIT",
    );
    assert_eq!(one::<i64>(&mut a, "SELECT count(*) FROM merkle_pending"), 0);
    run(
        &mut a,
        "SELECT create_log('audit'); SELECT add_source('audit', 'orders', capture => 'trigger');
         BEGIN; INSERT INTO orders VALUES (4); DROP EXTENSION merkle_log CASCADE; COMMIT",
    );
    assert_eq!(one::<i64>(&mut a, "SELECT count(*) FROM orders"), 4);
}

#[test]
fn procedures_that_commit_queue_each_of_their_transactions() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
         BEGIN
            FOR i IN 1..6 LOOP
                INSERT INTO orders VALUES (i, 'x');
                IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
            END LOOP;
         END $$",
    );
    run(&mut a, "CALL fill()");
    run(
        &mut a,
        "DO $$ BEGIN INSERT INTO orders VALUES (7); COMMIT; INSERT INTO orders VALUES (8); ROLLBACK; INSERT INTO orders VALUES (9); END $$",
    );
    assert_eq!(
        logged(&mut a),
        [
            "insert 1", "insert 2", "insert 4", "insert 5", "insert 7", "insert 9"
        ]
    );
    let transactions: i64 = one(
        &mut a,
        "SELECT count(DISTINCT transaction_id) FROM merkle_statement",
    );
    assert_eq!(transactions, 6);
    intact(&mut a);
}

#[test]
fn triggers_that_wait_for_the_commit_are_captured_with_it() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE orders SET note = 'at the end' WHERE id = NEW.id; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER later AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later()",
    );
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (1, 'a'); UPDATE orders SET note = 'b'; COMMIT",
    );
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (2, 'a'); SET CONSTRAINTS ALL IMMEDIATE; UPDATE orders SET note = 'b' WHERE id = 2; COMMIT",
    );
    run(
        &mut a,
        "BEGIN; INSERT INTO orders VALUES (3, 'a'); PREPARE TRANSACTION 'p'",
    );
    run(&mut a, "COMMIT PREPARED 'p'");
    drain(&mut a, "audit");
    assert_eq!(
        history(&mut a, "orders", "1"),
        ["insert a", "update b", "update at the end"]
    );
    assert_eq!(
        history(&mut a, "orders", "2"),
        ["insert a", "update at the end", "update b"]
    );
    assert_eq!(
        history(&mut a, "orders", "3"),
        ["insert a", "update at the end"]
    );
    intact(&mut a);
    assert_eq!(
        one::<i64>(
            &mut a,
            "SELECT count(DISTINCT transaction_id) FROM merkle_statement"
        ),
        3
    );
}

#[test]
fn one_log_s_queue_is_read_without_that_of_another() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    run(
        &mut a,
        "CREATE TABLE busy (id int PRIMARY KEY); SELECT create_log('busy'); SELECT add_source('busy', 'busy', capture => 'trigger');
         INSERT INTO busy SELECT generate_series(1, 100000)",
    );
    run(&mut a, "INSERT INTO orders VALUES (1)");
    // As the batch asks for it.
    run(
        &mut a,
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off",
    );
    let plan: Vec<String> = column(
        &mut a,
        "EXPLAIN SELECT * FROM merkle_pending p WHERE p.log_id = 1 AND p.pending_id > 0 ORDER BY p.pending_id, p.part LIMIT 100000",
    );
    assert!(
        plan.iter()
            .any(|l| l.contains("Index Scan using merkle_pending_pkey")),
        "{plan:?}"
    );
    let rows: i64 = one(
        &mut a,
        "SELECT count(*) FROM merkle_pending WHERE log_id = 1",
    );
    assert_eq!(rows, 1, "a transaction writes one row a log");
    assert_eq!(drain(&mut a, "audit"), 1);
    assert_eq!(drain(&mut a, "busy"), 100_000);
}

#[test]
fn a_trigger_that_captures_what_another_captures_is_named_whatever_its_condition() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, ORDERS);
    for trigger in [
        "AFTER INSERT ON orders FOR EACH ROW WHEN (true) EXECUTE FUNCTION capture_change('1')",
        "AFTER UPDATE OF note ON orders FOR EACH ROW EXECUTE FUNCTION capture_change('1')",
        "AFTER UPDATE ON orders FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION capture_change('1')",
        "AFTER TRUNCATE ON orders EXECUTE FUNCTION capture_change('1')",
    ] {
        run(&mut a, &format!("CREATE TRIGGER zz {trigger}"));
        let states: Vec<String> = column(&mut a, "SELECT c::text FROM merkle_log_coverage c");
        assert!(
            states
                .iter()
                .any(|s| s.contains("trigger zz captures what another captures too")),
            "{trigger}: {states:?}"
        );
        run(&mut a, "SELECT repair_capture('audit', 'orders')");
        assert_eq!(
            one::<i64>(
                &mut a,
                "SELECT count(*) FROM pg_trigger WHERE tgname = 'zz'"
            ),
            0,
            "{trigger}"
        );
    }
    // Only one way of writing the source's number counts.
    run(
        &mut a,
        "CREATE TRIGGER zz AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION capture_change('01')",
    );
    let message = error(&mut a, "INSERT INTO orders VALUES (1)");
    assert!(message.contains("does not exist"), "{message}");
}

#[test]
fn keys_are_written_alike_by_triggers_and_by_everything_else() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, "SELECT create_log('audit')");
    for (type_name, value) in [
        ("smallint", "-7"),
        ("int", "-7"),
        ("bigint", "-7"),
        ("money", "1.05"),
        ("oid", "4000000000"),
        ("date", "2020-01-02"),
        ("timestamptz", "2020-01-02 03:04:05+00"),
        ("boolean", "true"),
        ("\"char\"", "x"),
        ("bytea", "\\\\x01"),
        ("interval", "1 day"),
        ("float8", "0.1"),
    ] {
        run(
            &mut a,
            &format!(
                "DROP TABLE IF EXISTS k CASCADE; CREATE TABLE k (id {type_name} PRIMARY KEY, v text);
                 SELECT add_source('audit', 'k', capture => 'trigger'); INSERT INTO k VALUES ('{value}', 'a'); UPDATE k SET v = 'b'"
            ),
        );
        drain(&mut a, "audit");
        let mut found = findings(&mut a, "audit");
        // The tables of the types before are gone.
        found.retain(|f| !f.starts_with("source_removed"));
        assert_eq!(found, Vec::<String>::new(), "{type_name}");
        assert_eq!(
            one::<String>(
                &mut a,
                "SELECT status FROM verify_row('audit', 'k', (SELECT id::text FROM k))"
            ),
            "logged",
            "{type_name}"
        );
        run(&mut a, "SELECT remove_source('audit', 'k')");
    }
}
