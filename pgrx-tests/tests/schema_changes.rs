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
