//! What differs between the majors of PostgreSQL, and what must not: `make test-all-pg` runs this on each of them.
//!
//! A test of something that came with a later major passes on an earlier one without doing anything, and says so.

use server_tests::*;

/// True if the server is of this major or a later one; otherwise says what is not tested.
fn since(client: &mut Client, major: i32) -> bool {
    let found = server_major(client);
    if found < major {
        println!("PostgreSQL {found}: nothing to test before {major}");
    }
    found >= major
}

#[test]
fn a_table_is_logged_proved_tampered_with_and_found_out() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    let version: String = one(&mut c, "SELECT version()");
    println!("{version}");
    run(
        &mut c,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
         CREATE TABLE u (id int PRIMARY KEY, v text);
         SELECT create_log('l'), create_log('c');
         SELECT add_source('l', 't', order_column => 'id'), add_source('c', 'u', capture => 'trigger');
         INSERT INTO t (v) SELECT 'row ' || i FROM generate_series(1, 3000) i;
         INSERT INTO u SELECT i, 'row ' || i FROM generate_series(1, 3000) i; UPDATE u SET v = 'changed' WHERE id % 3 = 0; DELETE FROM u WHERE id % 5 = 0",
    );
    assert_eq!(drain(&mut c, "l"), 3000);
    assert_eq!(drain(&mut c, "c"), 4600);
    for log in ["l", "c"] {
        let leaves = oracle::leaves(&mut c, log);
        let root: Vec<u8> = one(&mut c, &format!("SELECT merkle_root('{log}')"));
        assert_eq!(root, oracle::root(&leaves));
        let proven: bool = one(
            &mut c,
            &format!(
                "SELECT bool_and(verify_inclusion(p.leaf_hash, p.leaf_index, p.tree_size, p.path, p.root_hash))
                   FROM generate_series(0, merkle_size('{log}') - 1, 101) i, inclusion_proof('{log}', i) p"
            ),
        );
        assert!(proven);
        assert_eq!(findings(&mut c, log), [""; 0]);
    }
    run(
        &mut c,
        "SET session_replication_role = replica; ALTER TABLE u DISABLE TRIGGER ALL;
         UPDATE t SET v = 'forged' WHERE id = 17; UPDATE u SET v = 'forged' WHERE id = 17",
    );
    assert_eq!(findings(&mut c, "l"), ["modified public.t 17 16"]);
    let found = findings(&mut c, "c");
    assert!(
        found.iter().any(|f| f.starts_with("modified public.u 17")),
        "{found:?}"
    );
    check_indexes(&mut c);
}

/// As `leaf_data_follows_the_specification_for_every_type`, with a whole server of any major.
#[test]
fn leaf_data_are_the_same_on_every_major() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    let vectors = include_str!("../../docs/leaf-format-vectors.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let vectors = vectors["values"].as_array().unwrap();
    run(&mut c, "SELECT create_log('vectors')");
    let mut wrong = Vec::new();
    for (n, vector) in vectors.iter().enumerate() {
        let text = |name: &str| vector[name].as_str().unwrap_or_default().to_owned();
        let (setup, sql_type, value) = (text("setup"), text("type"), text("sql"));
        run(
            &mut c,
            &format!(
                "{setup}; CREATE TABLE v{n} (v {sql_type}, i int PRIMARY KEY); INSERT INTO v{n} VALUES ({value}, 1);
                 SELECT add_source('vectors', 'v{n}', order_column => 'i', columns => '{{v}}', capture => 'watermark')"
            ),
        );
        assert_eq!(drain(&mut c, "vectors"), n as i64 + 1, "{value}");
        let data: String = one(
            &mut c,
            &format!("SELECT encode(leaf_data('vectors', {n}), 'hex')"),
        );
        if !data.ends_with(&format!("a16176{}", text("cbor"))) {
            wrong.push(format!("{value} as {sql_type}: {data}"));
        }
    }
    assert!(vectors.len() > 90);
    assert_eq!(wrong, [""; 0]);
    assert_eq!(findings(&mut c, "vectors"), [""; 0]);
}

/// `ExecInsertIndexTuples` has one more argument since 16: read from wherever it was not passed, it leaves out index entries.
#[test]
fn rows_written_in_bulk_are_in_every_index() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
         CREATE TABLE u (id int PRIMARY KEY, v text);
         SELECT create_log('l', find_by_hash => true), create_log('c', find_by_hash => true);
         SELECT add_source('l', 't', order_column => 'id'), add_source('c', 'u', capture => 'trigger', salted => true, store_leaf_data => true)",
    );
    for round in 0..5 {
        run(
            &mut c,
            &format!(
                "INSERT INTO t (v) SELECT md5(i::text) FROM generate_series(1, 5000) i;
                 INSERT INTO u SELECT i + {round} * 5000, md5(i::text) FROM generate_series(1, 5000) i; UPDATE u SET v = v || '!'"
            ),
        );
        drain(&mut c, "l");
        drain(&mut c, "c");
        check_indexes(&mut c);
    }
    let sizes: (i64, i64) = (
        one(&mut c, "SELECT merkle_size('l')"),
        one(&mut c, "SELECT merkle_size('c')"),
    );
    assert_eq!(sizes, (25_000, 25_000 + 5_000 * 15));
}

/// Since 16, VACUUM without a further option succeeds, leaves a table as it is, and counts nothing.
#[test]
fn the_worker_vacuums_the_queue_and_gives_its_space_back() {
    let cluster = Cluster::with(
        "shared_preload_libraries = 'merkle_log'\nautovacuum = off\nmerkle_log.databases = '*'",
    );
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE u (id int PRIMARY KEY, v text); SELECT create_log('c');
         SELECT add_source('c', 'u', capture => 'trigger', store_leaf_data => true);
         INSERT INTO u SELECT i, (SELECT string_agg(md5((20 * i + k)::text), '') FROM generate_series(1, 20) k) FROM generate_series(1, 20000) i",
    );
    until(&mut c, "SELECT merkle_size('c') = 20000");
    // Autovacuum is off: whoever vacuums the queue is the worker.
    until(
        &mut c,
        "SELECT vacuum_count > 0 AND n_dead_tup = 0 FROM pg_stat_all_tables WHERE relid = 'merkle_pending'::regclass",
    );
    // Once writers are quiet.
    until(
        &mut c,
        "SELECT pg_relation_size('merkle_pending') < 1000000",
    );
}

#[test]
fn an_infinite_interval_is_no_interval_of_many_months() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    if !since(&mut c, 17) {
        return;
    }
    run(
        &mut c,
        "CREATE TABLE t (id int PRIMARY KEY, v interval, a interval[]);
         INSERT INTO t VALUES (1, 'infinity', '{infinity,1 day}'), (2, '-infinity', '{-infinity}'), (3, '1 mon 2 days 3 us', '{}');
         SELECT create_log('l'); SELECT add_source('l', 't', capture => 'trigger', store_leaf_data => true)",
    );
    drain(&mut c, "l");
    let leaves: Vec<String> = column(
        &mut c,
        "SELECT encode(leaf_data('l', i), 'hex') FROM generate_series(0, 2) i",
    );
    // As the leaf format has it for the infinities of every time.
    for (leaf, value) in leaves
        .iter()
        .zip(["6176f97c00", "6176f9fc00", "617683010203"])
    {
        assert!(leaf.contains(value), "{leaf} holds {value}");
    }
    let same: i64 = one(
        &mut c,
        "SELECT count(*) FROM t, table_at('l', 't') h, jsonb_populate_record(NULL::t, h.row_data) r WHERE r = t",
    );
    assert_eq!(same, 3, "history shows the rows that were logged");
    assert_eq!(findings(&mut c, "l"), [""; 0]);
}

/// Triggers see such a column as NULL, while a query computes it: the log holds what is stored.
#[test]
fn virtual_generated_columns_are_left_out() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    if !since(&mut c, 18) {
        return;
    }
    run(
        &mut c,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL,
                         thrice int GENERATED ALWAYS AS (a * 3) STORED);
         CREATE TABLE u (LIKE t INCLUDING ALL);
         INSERT INTO t (a) SELECT generate_series(1, 100); INSERT INTO u (a) SELECT generate_series(1, 100);
         SELECT create_log('l'), create_log('c');
         SELECT add_source('l', 't', order_column => 'id'), add_source('c', 'u', capture => 'trigger')",
    );
    run(
        &mut c,
        "INSERT INTO t (a) VALUES (7); INSERT INTO u (a) VALUES (7); UPDATE u SET a = a + 1 WHERE id % 2 = 0",
    );
    drain(&mut c, "l");
    drain(&mut c, "c");
    for log in ["l", "c"] {
        assert_eq!(findings(&mut c, log), [""; 0], "{log}");
        let leaf: Vec<u8> = one(
            &mut c,
            &format!("SELECT leaf_data('{log}', merkle_size('{log}') - 1)"),
        );
        let has = |name: &str| leaf.windows(name.len()).any(|w| w == name.as_bytes());
        assert!(has("thrice") && !has("twice"), "{log}");
    }
    // What the column shows may change without a row that changes.
    run(
        &mut c,
        "ALTER TABLE u ALTER twice SET EXPRESSION AS (a * 20); ALTER TABLE u DROP COLUMN twice;
         ALTER TABLE u ADD COLUMN other int GENERATED ALWAYS AS (a + 1)",
    );
    run(&mut c, "UPDATE u SET a = 0 WHERE id = 1");
    drain(&mut c, "c");
    assert_eq!(findings(&mut c, "c"), [""; 0]);
    // Asked for by name it is refused, whatever for.
    run(
        &mut c,
        "CREATE TABLE w (id int PRIMARY KEY, a int, h text GENERATED ALWAYS AS ('x' || a) VIRTUAL, o int GENERATED ALWAYS AS (a) VIRTUAL);
         SELECT create_log('w')",
    );
    for asked in [
        "order_column => 'o', capture => 'watermark'",
        "order_column => 'id', capture => 'watermark', hash_column => 'h'",
        "capture => 'trigger', columns => '{id,h}'",
        "capture => 'trigger', key_columns => '{o}'",
    ] {
        let refused = error(&mut c, &format!("SELECT add_source('w', 'w', {asked})"));
        assert!(
            refused.starts_with("42P10")
                && refused.contains("virtual")
                && refused.contains("STORED"),
            "{asked}: {refused}"
        );
    }
}

/// The catalog says NOT NULL of such a column, which may hold NULL all the same: a watermark never reaches those rows.
#[test]
fn not_null_that_was_never_validated_is_not_trusted() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    if !since(&mut c, 18) {
        return;
    }
    run(
        &mut c,
        "CREATE TABLE t (id int PRIMARY KEY, at bigint, k int); CREATE UNIQUE INDEX ON t (k); CREATE INDEX ON t (at);
         INSERT INTO t VALUES (1, NULL, NULL), (2, 5, 5);
         ALTER TABLE t ADD CONSTRAINT at_given NOT NULL at NOT VALID, ADD CONSTRAINT k_given NOT NULL k NOT VALID;
         SELECT create_log('l')",
    );
    let add = "SELECT add_source('l', 't', order_column => 'at', capture => 'watermark')";
    let refused = error(&mut c, add);
    assert!(
        refused.starts_with("55000") && refused.contains("VALIDATE"),
        "{refused}"
    );
    let refused = error(
        &mut c,
        "SELECT add_source('l', 't', capture => 'trigger', key_columns => '{k}')",
    );
    assert!(refused.starts_with("55000"), "{refused}");
    run(
        &mut c,
        "UPDATE t SET at = 4, k = 4 WHERE id = 1; ALTER TABLE t VALIDATE CONSTRAINT at_given",
    );
    run(&mut c, add);
    assert_eq!(drain(&mut c, "l"), 2);
    assert_eq!(findings(&mut c, "l"), [""; 0]);
    // A source whose constraint is replaced by one that is not validated is not read on as if nothing had happened.
    run(
        &mut c,
        "ALTER TABLE t ALTER at DROP NOT NULL; INSERT INTO t VALUES (3, NULL, 6); ALTER TABLE t ADD CONSTRAINT again NOT NULL at NOT VALID",
    );
    let _ = c.execute("SELECT process_next_batch('l')", &[]);
    let state: String = one(
        &mut c,
        "SELECT COALESCE(string_agg(state, ','), 'ready') FROM merkle_source_state",
    );
    assert_ne!(state, "ready");
}

#[test]
fn a_temporal_key_is_refused_clearly() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    if !since(&mut c, 18) {
        return;
    }
    run(
        &mut c,
        "CREATE EXTENSION btree_gist; CREATE TABLE t (id int, valid daterange, v text, PRIMARY KEY (id, valid WITHOUT OVERLAPS));
         INSERT INTO t VALUES (1, '[2026-01-01,2026-02-01)', 'a'); SELECT create_log('l')",
    );
    for asked in [
        "capture => 'trigger'",
        "capture => 'trigger', key_columns => '{id,valid}'",
    ] {
        let refused = error(&mut c, &format!("SELECT add_source('l', 't', {asked})"));
        assert!(
            refused.starts_with("55000")
                && refused.contains("temporal")
                && refused.contains("key_columns"),
            "{asked}: {refused}"
        );
    }
    // With a key as the hint has it, the same table is a source.
    run(
        &mut c,
        "ALTER TABLE t ADD COLUMN version_id bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
         SELECT add_source('l', 't', capture => 'trigger', key_columns => '{version_id}');
         UPDATE t SET v = 'b'; INSERT INTO t (id, valid, v) VALUES (1, '[2026-02-01,2026-03-01)', 'c')",
    );
    drain(&mut c, "l");
    assert_eq!(findings(&mut c, "l"), [""; 0]);
}

#[test]
fn uuidv7_orders_a_log_and_what_commits_late_is_logged_once() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    if !since(&mut c, 18) {
        return;
    }
    run(
        &mut c,
        "CREATE TABLE t (id uuid PRIMARY KEY DEFAULT uuidv7(), n int); CREATE TABLE r (id uuid PRIMARY KEY DEFAULT gen_random_uuid());
         CREATE TABLE s (id uuid PRIMARY KEY DEFAULT uuidv7('-1 day')); SELECT create_log('l')",
    );
    for table in ["r", "s"] {
        let refused = error(
            &mut c,
            &format!("SELECT add_source('l', '{table}', order_column => 'id')"),
        );
        assert!(refused.starts_with("55000"), "{table}: {refused}");
    }
    run(&mut c, "SELECT add_source('l', 't', order_column => 'id')");
    run(&mut c, "INSERT INTO t (n) SELECT generate_series(1, 1000)");
    assert_eq!(drain(&mut c, "l"), 1000);
    // Rows that were given their values before others, and are committed after these.
    let mut others: Vec<Client> = (0..3).map(|_| cluster.client("postgres")).collect();
    for (n, other) in others.iter_mut().enumerate() {
        run(
            other,
            &format!("BEGIN; INSERT INTO t (n) VALUES ({})", 2000 + n),
        );
    }
    run(
        &mut c,
        "INSERT INTO t (n) SELECT generate_series(3000, 3099)",
    );
    let mut batch = cluster.client("postgres");
    let batch = std::thread::spawn(move || drain(&mut batch, "l"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    others.iter_mut().for_each(|other| run(other, "COMMIT"));
    batch.join().unwrap();
    assert_eq!(drain(&mut c, "l"), 1103);
    // A value that lies ahead of the clock does not take the watermark with it.
    run(
        &mut c,
        "INSERT INTO t VALUES ('ffffffff-ffff-7fff-bfff-ffffffffffff', 4000)",
    );
    drain(&mut c, "l");
    run(
        &mut c,
        "INSERT INTO t (n) SELECT generate_series(5000, 5009)",
    );
    drain(&mut c, "l");
    run(&mut c, "SELECT reconcile('l')");
    assert_eq!(drain(&mut c, "l"), 1114);
    assert_eq!(findings(&mut c, "l"), [""; 0]);
    // A default that draws no such values any more is noticed.
    run(
        &mut c,
        "ALTER TABLE t ALTER id SET DEFAULT gen_random_uuid()",
    );
    drain(&mut c, "l");
    let mend: String = one(
        &mut c,
        "SELECT mend FROM merkle_source_state WHERE state = 'order_incomplete'",
    );
    assert!(mend.contains("SET DEFAULT uuidv7()"), "{mend}");
}

/// MERGE since 15; its RETURNING and NOT MATCHED BY SOURCE since 17; RETURNING of old and new rows since 18.
#[test]
fn rows_changed_by_later_forms_of_statements_are_captured() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE p (id int, r int, v text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
         SELECT create_log('l'); SELECT add_source('l', 't', capture => 'trigger'), add_source('l', 'p', capture => 'trigger');
         INSERT INTO t SELECT i, 'v' FROM generate_series(1, 10) i; INSERT INTO p SELECT i, 1, 'v' FROM generate_series(1, 10) i",
    );
    let mut logged = drain(&mut c, "l");
    assert_eq!(logged, 20);
    let major = server_major(&mut c);
    let merge = "WITH s (id, v) AS (VALUES (1, 'x'), (2, NULL), (11, 'new'))";
    let when = "WHEN MATCHED AND s.v IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES";
    let statements = [
        (15, format!("{merge} MERGE INTO t USING s ON t.id = s.id {when} (s.id, s.v)"), 3),
        (15, "MERGE INTO p USING (VALUES (3)) s (id) ON p.id = s.id WHEN MATCHED THEN UPDATE SET r = 2".to_owned(), 2),
        (17, "MERGE INTO t USING (SELECT generate_series(4, 20)) s (id) ON t.id = s.id WHEN NOT MATCHED BY SOURCE THEN DELETE
              WHEN MATCHED THEN UPDATE SET v = 'm' WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'n') RETURNING merge_action(), t.*".to_owned(), 2 + 8 + 9),
        (17, "WITH m AS (MERGE INTO p USING (VALUES (5)) s (id) ON p.id = s.id WHEN MATCHED THEN UPDATE SET r = 2 RETURNING p.*)
              INSERT INTO t SELECT id + 100, v FROM m".to_owned(), 3),
        (18, "UPDATE t SET v = v || '!' WHERE id < 8 RETURNING old.v, new.v".to_owned(), 4),
        (18, "INSERT INTO t VALUES (7, 'c') ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v RETURNING old.*, new.*".to_owned(), 1),
        (18, "DELETE FROM t WHERE id = 7 RETURNING old.*, new.*".to_owned(), 1),
    ];
    for (first, sql, changes) in statements {
        if major >= first {
            c.batch_execute(&sql)
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            let size = drain(&mut c, "l");
            assert_eq!(size - logged, changes, "{sql}");
            logged = size;
            assert_eq!(findings(&mut c, "l"), [""; 0], "{sql}");
        }
    }
}

/// What each major starts with by itself, such as checksums and processes for reading since 18, and what it can be set to.
#[test]
fn capture_and_worker_run_under_every_way_to_read() {
    let methods: &[&str] = {
        let cluster = Cluster::start();
        match server_major(&mut cluster.client("postgres")) {
            18.. => &["io_method = sync", "io_method = worker\nio_workers = 4"],
            _ => &[""],
        }
    };
    for method in methods {
        let cluster = Cluster::with(&format!(
            "shared_preload_libraries = 'merkle_log'\nmerkle_log.databases = '*'\n{method}"
        ));
        let mut c = cluster.client("postgres");
        run(
            &mut c,
            "CREATE TABLE u (id int PRIMARY KEY, v text); SELECT create_log('c'); SELECT add_source('c', 'u', capture => 'trigger');
             INSERT INTO u SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 20000) i",
        );
        until(&mut c, "SELECT merkle_size('c') = 20000");
        run(&mut c, "UPDATE u SET v = 'small' WHERE id % 2 = 0");
        until(&mut c, "SELECT merkle_size('c') = 30000");
        cluster.kill_9();
        cluster.restart();
        let mut c = cluster.client("postgres");
        assert_eq!(findings(&mut c, "c"), [""; 0], "{method}");
        check_indexes(&mut c);
    }
}
