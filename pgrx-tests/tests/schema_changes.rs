//! ALTER TABLE between batches: an old entry verifies, or it is said which version stands in the way.

use server_tests::*;

fn start(columns: &str) -> (Cluster, Client) {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        &format!(
            "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns});
             SELECT create_log('audit'); SELECT add_source('audit', 'orders', order_column => 'id')"
        ),
    );
    (cluster, client)
}

fn add(client: &mut Client, insert: &str) {
    run(client, insert);
    run(client, "SELECT process_next_batch('audit')");
}

fn versions(client: &mut Client) -> Vec<String> {
    column(
        client,
        "SELECT version || '@' || from_leaf_index || ': ' || change FROM verification_source_versions ORDER BY version",
    )
}

#[test]
fn added_columns_change_no_old_entry() {
    let (_cluster, mut client) = start("a text");
    add(&mut client, "INSERT INTO orders (a) VALUES ('x')");
    run(
        &mut client,
        "ALTER TABLE orders ADD COLUMN b int, ADD COLUMN c int DEFAULT 7",
    );
    assert!(findings(&mut client, "audit").is_empty());
    add(&mut client, "INSERT INTO orders (a, b) VALUES ('y', 1)");
    assert!(findings(&mut client, "audit").is_empty());
    assert_eq!(
        versions(&mut client),
        [
            "1@0: first version",
            "2@1: column b integer is new; column c integer is new"
        ]
    );
    run(&mut client, "UPDATE orders SET c = 8");
    assert_eq!(
        findings(&mut client, "audit"),
        ["modified public.orders 2 1"],
        "of the old row, c was never logged"
    );
}

#[test]
fn renamed_columns_and_tables_change_no_old_entry() {
    let (_cluster, mut client) = start("a text");
    add(&mut client, "INSERT INTO orders (a) VALUES ('x')");
    run(
        &mut client,
        "ALTER TABLE orders RENAME COLUMN a TO b; ALTER TABLE orders RENAME COLUMN id TO nr; ALTER TABLE orders RENAME TO sales; CREATE SCHEMA s; ALTER TABLE sales SET SCHEMA s",
    );
    assert!(findings(&mut client, "audit").is_empty());
    add(&mut client, "INSERT INTO s.sales (b) VALUES ('y')");
    run(&mut client, "ALTER TABLE s.sales RENAME COLUMN b TO a");
    add(&mut client, "INSERT INTO s.sales (a) VALUES ('z')");
    assert!(findings(&mut client, "audit").is_empty());
    assert_eq!(versions(&mut client).len(), 3);
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT leaf_index FROM inclusion_proof('audit', 's.sales', '2')"
        ),
        1
    );
    let names: Vec<String> = column(
        &mut client,
        "SELECT DISTINCT source_table FROM merkle_log_sources",
    );
    assert_eq!(
        names,
        ["public.orders"],
        "a source keeps the name it was registered under"
    );
    let swapped = "ALTER TABLE s.sales ADD COLUMN x text; ALTER TABLE s.sales RENAME COLUMN a TO t; ALTER TABLE s.sales RENAME COLUMN x TO a";
    run(&mut client, swapped);
    assert_eq!(
        findings(&mut client, "audit"),
        ["renamed public.orders 0", "renamed public.orders 2"],
        "columns are followed by identity, not by name, and a name that changed hands is told of"
    );
}

/// A row trigger fires when its statement ends, and so after what the statement's own functions have renamed.
#[test]
fn columns_that_a_statement_renames_while_it_changes_rows_accuse_no_row() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text);
         CREATE FUNCTION swap() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             ALTER TABLE t RENAME COLUMN a TO c; ALTER TABLE t RENAME COLUMN b TO a; ALTER TABLE t RENAME COLUMN c TO b;
             RETURN 1;
         END $$;
         SELECT create_log('audit');
         SELECT add_source('audit', 't', capture => 'trigger', store_leaf_data => true);
         INSERT INTO t VALUES (1, 'of a', 'of b'), (2, 'of a', 'of b'), (3, 'of a', 'of b');
         UPDATE t SET b = 'new' WHERE id = 1 RETURNING swap();
         DELETE FROM t WHERE id = 2 RETURNING swap();
         INSERT INTO t VALUES (4, 'of a', 'of b') RETURNING swap()",
    );
    drain(&mut client, "audit");
    let found = findings(&mut client, "audit");
    assert!(
        found.iter().all(|f| f.starts_with("renamed ")),
        "no row is said to be another: {found:#?}"
    );
    let logged: Vec<String> = column(
        &mut client,
        "SELECT h.operation || ' ' || concat_ws(', ', h.row_data->>'a', h.row_data->>'b')
           FROM generate_series(1, 4) k, history('audit', 't', k::text) h ORDER BY h.leaf_index",
    );
    let expected = [
        "insert of a, of b",
        "insert of a, of b",
        "insert of a, of b",
        "update new, of a",
        "delete of a, of b",
        "insert of b, of a",
    ];
    assert_eq!(logged, expected);
}

#[test]
fn a_dropped_column_is_a_schema_change_never_a_modification() {
    let (_cluster, mut client) = start("a text, b text");
    add(
        &mut client,
        "INSERT INTO orders (a, b) VALUES ('x', 'y'), ('x', NULL), ('x', 'z')",
    );
    run(&mut client, "ALTER TABLE orders DROP COLUMN b");
    let check = |client: &mut Client| {
        // The second row had nothing in b, so it still verifies.
        assert_eq!(
            findings(client, "audit"),
            ["schema_changed public.orders 0"]
        );
        let detail: String = one(client, "SELECT detail FROM verify_log('audit')");
        assert!(
            detail.contains("2 entries of version 1") && detail.contains("column b is gone"),
            "{detail}"
        );
    };
    check(&mut client);
    add(&mut client, "INSERT INTO orders (a) VALUES ('new')");
    check(&mut client);
    run(&mut client, "ALTER TABLE orders ADD COLUMN b text");
    check(&mut client);
    let refused = error(&mut client, "SELECT leaf_data('audit', 0)");
    assert!(
        refused.contains('b') && refused.contains("provable"),
        "{refused}"
    );
    run(&mut client, "DELETE FROM orders WHERE id = 1");
    let mut found = findings(&mut client, "audit");
    found.sort();
    assert_eq!(
        found,
        [
            "deleted public.orders 1 0",
            "schema_changed public.orders 2"
        ]
    );
}

#[test]
fn a_changed_type_verifies_where_the_value_is_the_same() {
    let (_cluster, mut client) = start("a integer, b integer");
    add(&mut client, "INSERT INTO orders (a, b) VALUES (1, 1)");
    run(&mut client, "ALTER TABLE orders ALTER COLUMN a TYPE bigint");
    assert!(findings(&mut client, "audit").is_empty());
    run(&mut client, "ALTER TABLE orders ALTER COLUMN b TYPE text");
    assert_eq!(
        findings(&mut client, "audit"),
        ["schema_changed public.orders 0"]
    );
    let detail: String = one(&mut client, "SELECT detail FROM verify_log('audit')");
    assert!(detail.contains("b was integer and is text"), "{detail}");
    add(&mut client, "INSERT INTO orders (a, b) VALUES (2, 'two')");
    assert_eq!(
        findings(&mut client, "audit"),
        ["schema_changed public.orders 0"]
    );
}

#[test]
fn a_key_or_a_table_that_is_gone_is_named_with_a_way_out() {
    let (_cluster, mut client) = start("a text");
    add(&mut client, "INSERT INTO orders (a) VALUES ('x')");
    let mut named = |spoil: &str, finding: &str, words: &[&str]| {
        run(&mut client, &format!("BEGIN; {spoil}"));
        assert!(findings(&mut client, "audit")[0].starts_with(finding));
        assert_eq!(
            one::<i64>(
                &mut client,
                "SELECT entries FROM process_next_batch('audit')"
            ),
            0
        );
        let said: String = one(
            &mut client,
            "SELECT state_detail || ' ' || state_mend FROM merkle_log_sources",
        );
        for word in words {
            assert!(said.contains(word), "{said}");
        }
        run(&mut client, "ROLLBACK");
    };
    let gone = "schema_changed public.orders";
    named(
        "ALTER TABLE orders DROP CONSTRAINT orders_pkey",
        gone,
        &["btree index", "CREATE INDEX ON public.orders (id)"],
    );
    named(
        "ALTER TABLE orders DROP COLUMN id",
        gone,
        &["\"id\"", "dropped"],
    );
    named(
        "DROP TABLE orders",
        "deleted public.orders",
        &["public.orders", "remove_source"],
    );
    run(&mut client, "DROP TABLE orders");
    run(
        &mut client,
        "SELECT remove_source('audit', relation) FROM verification_sources; SELECT process_next_batch('audit')",
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT tree_size FROM inclusion_proof('audit', 0)"
        ),
        1
    );
}

/// Findings that are not that columns have changed.
fn others(client: &mut Client, log: &str) -> Vec<String> {
    let mut found = findings(client, log);
    found.retain(|f| !f.starts_with("schema_changed ") && !f.starts_with("order_changed "));
    found
}

#[test]
fn a_key_of_another_type_accuses_nobody_and_is_logged_once() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    for (number, (key, first, second, retyped, now)) in [
        ("numeric", "1.0", "2", "int", "1"),
        ("numeric", "1.04", "2", "numeric(10,1)", "1.0"),
        (
            "date",
            "2020-01-01",
            "2020-01-02",
            "timestamp",
            "2020-01-01",
        ),
        (
            "date",
            "2020-01-01",
            "2020-01-02",
            "timestamptz",
            "2020-01-01",
        ),
        (
            "timestamptz",
            "2020-01-01 00:00:00.123456+00",
            "2020-01-02",
            "timestamptz(3)",
            "2020-01-01 00:00:00.123+00",
        ),
        (
            "timestamp",
            "2020-01-01 10:00",
            "2020-01-02",
            "date",
            "2020-01-01",
        ),
        ("float8", "1.5", "4", "int", "2"),
        ("varchar(10)", "a", "b", "char(10)", "a"),
        ("int", "1", "2", "bigint", "1"),
        ("int", "1", "2", "text", "1"),
        ("interval", "24:00", "48:00", "text", "24:00:00"),
    ]
    .into_iter()
    .enumerate()
    {
        let case = format!("{key} to {retyped}");
        let (h, w, o) = (
            format!("h{number}"),
            format!("w{number}"),
            format!("o{number}"),
        );
        // Where the key orders the log, and nothing of it is cut off.
        let orders = matches!(
            (first, retyped),
            ("1.0" | "1", "int" | "bigint") | ("2020-01-01", "timestamp" | "timestamptz")
        );
        run(
            &mut c,
            &format!(
                "DROP TABLE IF EXISTS h, w, o;
                 CREATE TABLE h (k {key} PRIMARY KEY, v text); CREATE TABLE w (k {key} PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY UNIQUE);
                 CREATE TABLE o (k {key} PRIMARY KEY);
                 SELECT create_log('{h}'), create_log('{w}'), create_log('{o}');
                 SELECT add_source('{h}', 'h', capture => 'trigger', store_leaf_data => true), add_source('{w}', 'w', 'n', key_columns => '{{k}}');
                 INSERT INTO h VALUES ('{first}', 'x'), ('{second}', 'y'); INSERT INTO w (k) VALUES ('{first}'), ('{second}');
                 INSERT INTO o VALUES ('{first}'), ('{second}')"
            ),
        );
        if orders {
            run(
                &mut c,
                &format!("SELECT add_source('{o}', 'o', 'k', capture => 'watermark')"),
            );
        }
        for log in [&h, &w, &o] {
            drain(&mut c, log);
        }
        run(
            &mut c,
            &format!("UPDATE h SET v = 'z' WHERE k = '{second}'"),
        );
        for table in ["h", "w", "o"] {
            run(
                &mut c,
                &format!("ALTER TABLE {table} ALTER k TYPE {retyped}"),
            );
        }
        for log in [&h, &w, &o] {
            assert_eq!(
                others(&mut c, log),
                [""; 0],
                "{case}: {log} before the next batch"
            );
        }
        assert_eq!(drain(&mut c, &h), 3, "{case}");
        for (log, size) in [(&h, 3), (&w, 2), (&o, if orders { 2 } else { 0 })] {
            assert_eq!(drain(&mut c, log), size, "{case}: {log}");
            assert_eq!(others(&mut c, log), [""; 0], "{case}: {log}");
            let late: Vec<String> = column(
                &mut c,
                &format!("SELECT source_key FROM reconcile('{log}')"),
            );
            assert_eq!(late, [""; 0], "{case}: {log}");
        }
        run(
            &mut c,
            &format!("UPDATE h SET v = 'again' WHERE k = '{now}'"),
        );
        assert_eq!(drain(&mut c, &h), 4, "{case}");
        assert_eq!(
            column::<i64>(
                &mut c,
                &format!("SELECT leaf_index FROM history('{h}', 'h', '{now}')")
            ),
            [0, 3],
            "{case}"
        );
        let status: String = one(
            &mut c,
            &format!("SELECT status FROM verify_row('{h}', 'h', '{now}')"),
        );
        assert_eq!(status, "logged", "{case}");
        assert_eq!(others(&mut c, &h), [""; 0], "{case}");
    }
}

#[test]
fn a_change_waits_whatever_the_spelling_of_its_key() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE n (k numeric PRIMARY KEY, v text); CREATE TABLE p (k char(5) PRIMARY KEY); SELECT create_log('l');
         SELECT add_source('l', 'n', capture => 'trigger'), add_source('l', 'p', capture => 'trigger')",
    );
    let statuses = |c: &mut Client| -> Vec<String> {
        column(
            c,
            "SELECT status FROM verify_row('l', 'n', '1') UNION ALL SELECT status FROM verify_row('l', 'n', '1.00')
             UNION ALL SELECT status FROM verify_row('l', 'p', 'ab')",
        )
    };
    run(
        &mut c,
        "BEGIN; INSERT INTO n VALUES (1.0); INSERT INTO p VALUES ('ab')",
    );
    assert_eq!(statuses(&mut c), ["waiting"; 3]);
    run(&mut c, "COMMIT");
    assert_eq!(statuses(&mut c), ["waiting"; 3]);
    run(&mut c, "ALTER TABLE n ALTER k TYPE numeric(10,3)");
    assert_eq!(others(&mut c, "l"), [""; 0]);
    assert_eq!(
        column::<String>(&mut c, "SELECT problem FROM merkle_log_coverage"),
        [""; 0]
    );
    drain(&mut c, "l");
    run(&mut c, "UPDATE n SET v = 'x'");
    assert_eq!(statuses(&mut c)[..2], ["waiting"; 2]);
}
