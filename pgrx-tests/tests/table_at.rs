//! A table as it was: `table_at`, `changes` and `row_diff`, held against copies of the table.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::*;
use std::sync::{Arc, Mutex};

const KEPT: &str =
    "capture => 'trigger', store_leaf_data => true, salted => true, allow_truncate => true";

fn source(c: &mut Client, table: &str) {
    run(c, &format!("SELECT add_source('audit', '{table}', {KEPT})"));
}

/// Logs what waits, and keeps a copy of the table as it is then; the size of the log.
fn copied(c: &mut Client, table: &str) -> i64 {
    drain(c, "audit");
    let size = one::<i64>(c, "SELECT merkle_size('audit')");
    run(
        c,
        &format!("CREATE TABLE IF NOT EXISTS {table}_{size} AS SELECT * FROM {table}"),
    );
    size
}

/// Rows in which the table as it was at `size` differs from the copy that was made then.
fn differences(c: &mut Client, table: &str, size: i64) -> i64 {
    let copy = format!("SELECT to_jsonb(c) FROM {table}_{size} c");
    let shown = format!(
        "SELECT to_jsonb(jsonb_populate_record(NULL::{table}, row_data)) FROM table_at('audit', '{table}', {size})"
    );
    let sql = format!(
        "SELECT count(*) FROM (({copy} EXCEPT ALL {shown}) UNION ALL ({shown} EXCEPT ALL {copy})) d"
    );
    one(c, &sql)
}

/// One random statement; keys are few, so that they come again.
fn statement(rng: &mut StdRng, spellings: &[&str]) -> String {
    let key = |rng: &mut StdRng| {
        let number: i32 = rng.random_range(0..12);
        let spelling = spellings[rng.random_range(0..spellings.len())];
        spelling.replace('?', &number.to_string())
    };
    let (one, other, value) = (key(rng), key(rng), rng.random_range(0..1000));
    match rng.random_range(0..12) {
        0..4 => format!(
            "INSERT INTO t (k, v) VALUES ({one}, {value}) ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v, note = 'again'"
        ),
        4..7 => format!("UPDATE t SET v = {value}, note = NULL WHERE k = {one}"),
        7 => format!(
            "UPDATE t SET k = {other} WHERE k = {one} AND NOT EXISTS (SELECT FROM t WHERE k = {other} AND k <> {one})"
        ),
        8 => format!(
            "DELETE FROM t WHERE k = {one}; INSERT INTO t (k, v) SELECT {one}, {value} WHERE NOT EXISTS (SELECT FROM t WHERE k = {one})"
        ),
        9 => format!("SAVEPOINT a; DELETE FROM t WHERE v > {value}; ROLLBACK TO a"),
        10 => format!("DELETE FROM t WHERE v > {value}"),
        _ if value < 100 => "TRUNCATE t".to_owned(),
        _ => format!("UPDATE t SET v = v + 1 WHERE v < {value}"),
    }
}

#[test]
fn a_table_is_shown_as_it_was_at_every_size() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    );
    let kinds: [(&str, &[&str]); 5] = [
        ("integer", &["?"]),
        ("numeric", &["?", "?.0", "?.000"]),
        ("text COLLATE any_case", &["'key ?'", "'KEY ?'", "'Key ?'"]),
        ("float8", &["?", "-0.0 * ?"]),
        (
            "interval",
            &[
                "make_interval(months => ?)",
                "make_interval(days => 30 * ?)",
            ],
        ),
    ];
    for (key, spellings) in kinds {
        run(
            &mut c,
            &format!(
                "CREATE TABLE t (k {key} PRIMARY KEY, v integer, note text DEFAULT 'new'); SELECT create_log('audit')"
            ),
        );
        source(&mut c, "t");
        let mut sizes = vec![copied(&mut c, "t")];
        for _ in 0..size(25, 250) {
            let statements: Vec<String> = (0..rng.random_range(1..5))
                .map(|_| statement(&mut rng, spellings))
                .collect();
            let mut t = c.transaction().unwrap();
            t.batch_execute(&statements.join("; ")).unwrap();
            t.commit().unwrap();
            sizes.push(copied(&mut c, "t"));
        }
        sizes.dedup();
        let wrong: Vec<i64> = sizes
            .iter()
            .copied()
            .filter(|at| differences(&mut c, "t", *at) != 0)
            .collect();
        println!("seed {seed}, key {key}: {} states", sizes.len());
        assert_eq!(wrong, [0i64; 0], "seed {seed}, key {key}");
        let drop: Vec<String> = sizes
            .iter()
            .map(|at| format!("DROP TABLE t_{at}"))
            .collect();
        run(
            &mut c,
            &format!(
                "SELECT drop_log('audit', true); DROP TABLE t; {}",
                drop.join("; ")
            ),
        );
    }
}

#[test]
fn little_memory_shows_the_same_rows() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (k bigint PRIMARY KEY, v integer); CREATE TABLE i (k interval PRIMARY KEY, v integer);
         SELECT create_log('audit', batch_size => 1000000)",
    );
    for table in ["t", "i"] {
        source(&mut c, table);
    }
    run(
        &mut c,
        "INSERT INTO t SELECT i, 0 FROM generate_series(1, 60000) i;
         INSERT INTO i SELECT make_interval(secs => i), 0 FROM generate_series(1, 10000) i;
         UPDATE t SET v = 1 WHERE k % 3 = 0; DELETE FROM t WHERE k % 7 = 0; DELETE FROM i WHERE v = 0 AND random() < 0.5;
         UPDATE i SET v = 2",
    );
    drain(&mut c, "audit");
    for table in ["t", "i"] {
        let sql = format!(
            "SELECT md5(string_agg(leaf_index || source_key || row_data, ',' ORDER BY leaf_index)) FROM table_at('audit', '{table}')"
        );
        run(&mut c, "SET maintenance_work_mem = '1GB'");
        let much = one::<String>(&mut c, &sql);
        run(&mut c, "SET maintenance_work_mem = '1MB'");
        assert_eq!(one::<String>(&mut c, &sql), much, "{table}");
        let count = one::<i64>(&mut c, &format!("SELECT count(*) FROM {table}"));
        let shown = format!("SELECT count(*) FROM table_at('audit', '{table}')");
        assert_eq!(one::<i64>(&mut c, &shown), count, "{table}");
    }
}

#[test]
fn a_size_or_a_time_is_given_as_number_time_or_text() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (k integer PRIMARY KEY); SELECT create_log('audit')",
    );
    source(&mut c, "t");
    let mut times = Vec::new();
    for k in 1..=3 {
        run(&mut c, &format!("INSERT INTO t VALUES ({k})"));
        drain(&mut c, "audit");
        until(
            &mut c,
            "SELECT clock_timestamp() > (SELECT max(created_at) FROM merkle_tree_head)",
        );
        times.push(one::<String>(
            &mut c,
            "SELECT created_at::text FROM merkle_tree_head WHERE log_id = 1 ORDER BY tree_size DESC LIMIT 1",
        ));
    }
    let count = |c: &mut Client, call: &str| one::<i64>(c, &format!("SELECT count(*) FROM {call}"));
    for (at, rows) in [
        ("2", 2),
        ("'2'", 2),
        ("tree_size => 1", 1),
        (&format!("'{}'", times[1]), 2),
        (&format!("'{}'::timestamptz", times[0]), 1),
        (
            &format!("at => '{}'::timestamptz - interval '1 us'", times[1]),
            1,
        ),
        ("'-infinity'", 0),
        ("'infinity'", 3),
        ("now()", 3),
        ("'yesterday'", 0),
        ("NULL::bigint", 3),
        ("0", 0),
    ] {
        assert_eq!(
            count(&mut c, &format!("table_at('audit', 't', {at})")),
            rows,
            "{at}"
        );
    }
    assert_eq!(count(&mut c, "table_at('audit', 't')"), 3);
    for (range, rows) in [
        ("", 3),
        (", 1", 2),
        (", 1, 2", 1),
        (", '1', '2'", 1),
        (&format!(", '{}'", times[0]), 2),
        (&format!(", '{}'::timestamptz, now()", times[1]), 1),
        (", from_size => 2", 1),
        (", 2, 1", 0),
    ] {
        assert_eq!(
            count(&mut c, &format!("changes('audit', 't'{range})")),
            rows,
            "{range}"
        );
    }
    for wrong in ["4", "-1", "'4'", "'never'"] {
        let said = error(
            &mut c,
            &format!("SELECT * FROM table_at('audit', 't', {wrong})"),
        );
        assert!(!said.contains("XX000"), "{wrong}: {said}");
    }
    let said = error(&mut c, "SELECT * FROM table_at('audit', 'pg_class')");
    assert!(said.contains("not a source"), "{said}");
}

#[test]
fn redacted_rows_are_shown_without_content_and_rows_of_detached_partitions_not() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (k integer, part integer, v text, PRIMARY KEY (k, part)) PARTITION BY LIST (part);
         CREATE TABLE t_a PARTITION OF t FOR VALUES IN (1); CREATE TABLE t_b PARTITION OF t FOR VALUES IN (2);
         SELECT create_log('audit')",
    );
    source(&mut c, "t");
    run(
        &mut c,
        "INSERT INTO t SELECT i, 1 + i % 2, 'row ' || i FROM generate_series(1, 10) i",
    );
    let before = copied(&mut c, "t");
    // A partition that leaves between two entries was there before, and is not there after.
    let count = |c: &mut Client, at: &str| {
        one::<i64>(
            c,
            &format!("SELECT count(*) FROM table_at('audit', 't'{at})"),
        )
    };
    let still = format!(
        ", '{}'::timestamptz",
        one::<String>(&mut c, "SELECT clock_timestamp()::text")
    );
    run(&mut c, "ALTER TABLE t DETACH PARTITION t_a");
    drain(&mut c, "audit");
    let shown = ["", &still, &format!(", {before}"), ", 'infinity'"].map(|at| count(&mut c, at));
    assert_eq!(shown, [5, 10, 10, 5]);
    run(
        &mut c,
        "SELECT redact_row_of('audit', 't', 'asked for', 3, 2); INSERT INTO t VALUES (99, 2, 'x')",
    );
    drain(&mut c, "audit");
    let keys =
        "SELECT array_agg(source_key ORDER BY leaf_index) FILTER (WHERE row_data IS NOT NULL),
                       array_agg(source_key) FILTER (WHERE row_data IS NULL)
                  FROM table_at('audit', 't')";
    let row = c.query_one(keys, &[]).unwrap();
    assert_eq!(
        row.get::<_, Vec<String>>(0),
        ["{1,2}", "{5,2}", "{7,2}", "{9,2}", "{99,2}"]
    );
    assert_eq!(row.get::<_, Vec<String>>(1), ["{3,2}"]);
    // Then they were there, but for what is destroyed since.
    let then = format!("SELECT count(*), count(row_data) FROM table_at('audit', 't', {before})");
    let row = c.query_one(&then, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (10, 9));
    // A partition that comes back brings its rows.
    run(
        &mut c,
        "ALTER TABLE t ATTACH PARTITION t_a FOR VALUES IN (1); INSERT INTO t VALUES (100, 2, 'y')",
    );
    drain(&mut c, "audit");
    let all = "SELECT count(*) FROM table_at('audit', 't')";
    assert_eq!(one::<i64>(&mut c, all), 12);
}

#[test]
fn a_row_is_one_row_whatever_its_labels_and_columns_are_called() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TYPE state AS ENUM ('new', 'old'); CREATE TABLE t (k state PRIMARY KEY, v integer); SELECT create_log('audit')",
    );
    source(&mut c, "t");
    run(&mut c, "INSERT INTO t VALUES ('new', 1), ('old', 1)");
    drain(&mut c, "audit");
    run(
        &mut c,
        "ALTER TYPE state RENAME VALUE 'new' TO 'fresh'; ALTER TABLE t RENAME v TO w; UPDATE t SET w = 2 WHERE k = 'fresh'",
    );
    drain(&mut c, "audit");
    let rows = column::<String>(
        &mut c,
        "SELECT source_key || ' ' || row_data FROM table_at('audit', 't') ORDER BY leaf_index",
    );
    assert_eq!(
        rows,
        [
            r#"old {"k": "old", "v": 1}"#,
            r#"fresh {"k": "fresh", "w": 2}"#
        ]
    );
    let then = column::<String>(
        &mut c,
        "SELECT source_key || ' ' || row_data FROM table_at('audit', 't', 2) ORDER BY leaf_index",
    );
    assert_eq!(
        then,
        [r#"new {"k": "new", "v": 1}"#, r#"old {"k": "old", "v": 1}"#]
    );
}

#[test]
fn changes_are_what_the_histories_of_all_rows_say_and_row_diff_tells_the_columns() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (k integer PRIMARY KEY, v integer, note text); CREATE TABLE other (k integer PRIMARY KEY);
         SELECT create_log('audit')",
    );
    source(&mut c, "t");
    source(&mut c, "other");
    run(
        &mut c,
        "INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b'); INSERT INTO other VALUES (1)",
    );
    run(
        &mut c,
        "UPDATE t SET v = 10, note = NULL WHERE k = 1; DELETE FROM t WHERE k = 2",
    );
    drain(&mut c, "audit");
    let histories = "SELECT string_agg(h::text, E'\\n' ORDER BY h.leaf_index)
        FROM generate_series(1, 2) k, LATERAL history_of('audit', 't', k) h";
    let changes = "SELECT string_agg(h::text, E'\\n' ORDER BY h.leaf_index) FROM
        (SELECT leaf_index, operation, row_data, transaction_id, user_name, application_name, statement_at,
                role_name, context, statement, statement_bytes
           FROM changes('audit', 't')) h";
    assert_eq!(
        one::<String>(&mut c, changes),
        one::<String>(&mut c, histories)
    );
    run(&mut c, "TRUNCATE t");
    drain(&mut c, "audit");
    let operations = column::<String>(
        &mut c,
        "SELECT operation || ' ' || COALESCE(source_key, 'all') FROM changes('audit', 't')",
    );
    assert_eq!(
        operations,
        [
            "insert 1",
            "insert 2",
            "update 1",
            "delete 2",
            "truncate all"
        ]
    );
    let differences = column::<String>(
        &mut c,
        "SELECT format('%s: %s -> %s', d.column_name, d.old_value, d.new_value)
           FROM (SELECT row_data, lag(row_data) OVER (ORDER BY leaf_index) AS before FROM history_of('audit', 't', 1)) h,
                LATERAL row_diff(h.before, h.row_data) d
          WHERE h.before IS NOT NULL AND h.row_data IS NOT NULL",
    );
    assert_eq!(differences, ["note: \"a\" -> ", "v: 1 -> 10"]);
}

#[test]
fn a_table_is_brought_back_to_an_earlier_state() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (k integer PRIMARY KEY, v numeric(10, 2), at timestamptz, tags text[], doc jsonb, raw bytea);
         SELECT create_log('audit')",
    );
    source(&mut c, "t");
    run(
        &mut c,
        "INSERT INTO t SELECT i, i / 3.0, timestamptz '2026-01-01 00:00:00.123456+01' + i * interval '1 day',
                ARRAY['a', NULL, 'c\"' || i], jsonb_build_object('i', i), decode(md5(i::text), 'hex')
           FROM generate_series(1, 200) i",
    );
    let before = copied(&mut c, "t");
    run(
        &mut c,
        "UPDATE t SET v = 0, doc = NULL WHERE k % 2 = 0; DELETE FROM t WHERE k % 5 = 0; INSERT INTO t (k) VALUES (1000)",
    );
    drain(&mut c, "audit");
    let recipe = include_str!("../../docs/operations.md");
    let recipe = recipe
        .split("\n\n")
        .find(|block| block.contains("CREATE TEMPORARY TABLE earlier"))
        .expect("docs/operations.md has the recipe");
    let recipe = recipe
        .replace("orders", "t")
        .replace(":size", &before.to_string());
    c.batch_execute(&recipe).unwrap();
    let wrong = format!(
        "SELECT count(*) FROM ((TABLE t EXCEPT ALL TABLE t_{before}) UNION ALL (TABLE t_{before} EXCEPT ALL TABLE t)) d"
    );
    assert_eq!(one::<i64>(&mut c, &wrong), 0);
    drain(&mut c, "audit");
    assert!(findings(&mut c, "audit").is_empty());
}

#[test]
fn a_row_of_any_type_is_shown_as_to_jsonb_shows_it_and_can_be_made_again() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    let vectors = include_str!("../../docs/leaf-format-vectors.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    run(
        &mut c,
        "CREATE TYPE pair AS (at timestamptz, span interval, \"a b\" money[]);
         CREATE TYPE textrange AS RANGE (subtype = text);
         CREATE DOMAIN moment AS timestamptz; SELECT create_log('audit')",
    );
    let text = |vector: &serde_json::Value, name: &str| {
        vector[name].as_str().unwrap_or_default().to_owned()
    };
    let of_vectors = vectors["values"].as_array().unwrap().iter();
    let of_vectors = of_vectors.map(|v| (text(v, "setup"), text(v, "type"), text(v, "sql")));
    let ours = [
        "'2026-01-02 03:04:05.678901+02'::moment",
        "'0044-03-15 BC'::date",
        "'0044-03-15 12:00 BC'::timestamp",
        "'1 year -2 days 03:04:05.6'::interval",
        "ARRAY['1 month', NULL, '-1 us']::interval[]",
        "'[0:1][2:3]={{1,2},{3,4}}'::integer[]",
        "ROW('infinity', '1 day', '{$1.50,-$0.07}')::pair",
        "ARRAY[ROW('2026-01-01', NULL, '{}')]::pair[]",
        "tstzrange('2026-01-01', 'infinity', '[]')",
        "'{[1,3),(5,7.25]}'::nummultirange",
        "'[\"a b\",\"c\"\"d\")'::textrange",
        "'12:34:56.789-03:30'::timetz",
        "'-$12,345.67'::money",
        "0.1::real",
        "1e-7::numeric(20, 10)",
        "12345678901234567890123456789e60::numeric",
        "'{\"b\": [1, \"x\\u0001\"], \"a\": null}'::json",
    ];
    let ours = ours.into_iter().map(|value| {
        let sql_type = one::<String>(
            &mut cluster.client("postgres"),
            &format!("SELECT pg_typeof({value})::text"),
        );
        (String::new(), sql_type, value.to_owned())
    });
    let values: Vec<(String, String, String)> = of_vectors.chain(ours).collect();
    for (place, (setup, sql_type, value)) in values.iter().enumerate() {
        run(
            &mut c,
            &format!(
                "{setup}; CREATE TABLE v{place} (id integer PRIMARY KEY, v {sql_type}); INSERT INTO v{place} VALUES (1, {value})"
            ),
        );
        source(&mut c, &format!("v{place}"));
    }
    drain(&mut c, "audit");
    let mut wrong = Vec::new();
    for (place, (_, _, value)) in values.iter().enumerate() {
        let sql = format!(
            "SELECT jsonb_strip_nulls(t.row_data) = jsonb_strip_nulls(to_jsonb(w)) AND to_jsonb(r) = to_jsonb(w),
                    format('%s shown as %s, is %s', $1::text, t.row_data, to_jsonb(w))
               FROM v{place} w, table_at('audit', 'v{place}') t, jsonb_populate_record(NULL::v{place}, t.row_data) r"
        );
        let row = c
            .query_one(&sql, &[value])
            .unwrap_or_else(|e| panic!("{value}: {e:?}"));
        // Zeros at the end of a fraction are not in leaf data, and show in the text of a range.
        if !row.get::<_, bool>(0) && value != "'[1.50,)'" {
            wrong.push(row.get::<_, String>(1));
        }
    }
    println!("{} values", values.len());
    assert_eq!(wrong, [""; 0], "{}", wrong.join("\n"));
}

#[test]
fn what_was_pruned_or_not_kept_is_said_and_not_left_out_in_silence() {
    let cluster = Cluster::start();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut c = cluster.client_hearing("postgres", heard.clone());
    run(
        &mut c,
        "CREATE TABLE t (k integer PRIMARY KEY); CREATE TABLE bare (k integer PRIMARY KEY); SELECT create_log('audit')",
    );
    source(&mut c, "t");
    run(
        &mut c,
        "SELECT add_source('audit', 'bare', capture => 'trigger'); INSERT INTO bare VALUES (1);
         INSERT INTO t SELECT generate_series(1, 1000)",
    );
    drain(&mut c, "audit");
    let said = error(&mut c, "SELECT * FROM table_at('audit', 'bare')");
    assert!(said.contains("does not keep"), "{said}");
    run(&mut c, "SELECT prune_log('audit', 512)");
    let said = error(&mut c, "SELECT * FROM table_at('audit', 't', 100)");
    assert!(said.contains("pruned"), "{said}");
    assert_eq!(
        one::<i64>(&mut c, "SELECT count(*) FROM table_at('audit', 't')"),
        489
    );
    let heard = heard.lock().unwrap().join("\n");
    assert!(heard.contains("before 512 were pruned"), "{heard}");
    run(&mut c, "CREATE ROLE stranger LOGIN");
    let mut stranger = cluster.client_as("postgres", "stranger");
    for call in ["table_at('audit', 't')", "changes('audit', 't', 600)"] {
        let said = error(&mut stranger, &format!("SELECT * FROM {call}"));
        assert!(said.contains("permission denied"), "{said}");
    }
}

/// A column of type json holds what jsonb cannot: one such row keeps no other from being shown.
#[test]
fn json_that_jsonb_cannot_hold_is_null_with_a_notice() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        r#"CREATE TYPE pair AS (name text, doc json);
         CREATE TABLE docs (id int PRIMARY KEY, doc json, docs json[], pair pair, deep jsonb);
         SELECT create_log('audit'); SELECT add_source('audit', 'docs', capture => 'trigger', store_leaf_data => true);
         INSERT INTO docs (id, doc) VALUES (1, '{"a": "\u0000"}'), (2, '[1e-20000]'), (3, '1e999999'), (4, '"\ud800"'), (5, '"\ud83d\ude00"'),
             (6, '[1e20, 0.000, "\\u0000", "e"]');
         INSERT INTO docs (id, docs) VALUES (7, ARRAY['1', '"\u0000"']::json[]);
         INSERT INTO docs (id, pair) VALUES (8, ROW('n', '"\udc00"'));
         INSERT INTO docs (id, deep) VALUES (9, (repeat('[', 3000) || repeat(']', 3000))::jsonb)"#,
    );
    drain(&mut a, "audit");
    let shown = "SELECT string_agg(row_data->>'id' || ':' || (row_data - 'id')::text, ' ' ORDER BY leaf_index) FROM";
    let expected = r#"1:{"doc": null} 2:{"doc": null} 3:{"doc": null} 4:{"doc": null} 5:{"doc": "😀"} 6:{"doc": [100000000000000000000, 0.000, "\\u0000", "e"]} 7:{"docs": null} 8:{"pair": null} 9:{"deep": null}"#;
    for rows in [
        "table_at('audit', 'docs')",
        "changes('audit', 'docs', 0, 9)",
    ] {
        assert_eq!(one::<String>(&mut a, &format!("{shown} {rows}")), expected);
    }
    for (index, text) in [(0, r#"{"a": "\u0000"}"#), (3, r#""\ud800""#)] {
        assert_eq!(
            one::<String>(
                &mut a,
                &format!("SELECT kept_value('audit', {index}, 'doc')")
            ),
            text
        );
    }
    assert_eq!(findings(&mut a, "audit"), Vec::<String>::new());
}
