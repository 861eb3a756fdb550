//! Publications of all tables, as tools for change data capture make them: the extension's own tables are then among
//! the published ones, and a DELETE or UPDATE of a published table without a replica identity fails.

use server_tests::*;

#[test]
fn a_publication_of_all_tables_stops_nothing_that_logs_do() {
    let cluster = Cluster::with("wal_level = logical");
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "SELECT create_log('audit'), create_log('events');
         CREATE TABLE orders (id int PRIMARY KEY, note text);
         CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true, salted => true,
                           allow_truncate => true);
         SELECT add_source('events', 'events', order_column => 'id', store_leaf_data => true, salted => true)",
    );
    run(&mut a, "CREATE PUBLICATION everything FOR ALL TABLES");
    run(
        &mut a,
        "INSERT INTO orders SELECT i, 'new' FROM generate_series(1, 600) i;
         INSERT INTO events (note) SELECT 'new' FROM generate_series(1, 600)",
    );
    assert_eq!(drain(&mut a, "audit"), 600);
    assert_eq!(drain(&mut a, "events"), 600);
    // A batch that takes part of a transaction's changes leaves a mark in the queue.
    run(
        &mut a,
        "UPDATE orders SET note = 'changed'; SELECT alter_log('audit', batch_size => 100)",
    );
    assert_eq!(drain(&mut a, "audit"), 1200);
    for step in [
        "SELECT redact_row('audit', 'orders', '7', 'asked for')",
        "SELECT redact_row('events', 'events', '7', 'asked for')",
        "INSERT INTO events (id, note) OVERRIDING SYSTEM VALUE VALUES (-1, 'late'); SELECT reconcile('events')",
        "ALTER TABLE orders ADD COLUMN more text; INSERT INTO orders VALUES (1001, 'wide', 'more');
         SELECT process_next_batch('audit')",
        "SELECT prune_log('events', 256)",
        "TRUNCATE orders; SELECT process_next_batch('audit')",
        "SELECT alter_log('events', new_name => 'happenings'), pause_log('audit'), resume_log('audit')",
    ] {
        run(&mut a, step);
    }
    assert_eq!(
        findings(&mut a, "audit")
            .iter()
            .filter(|f| !f.starts_with("redacted"))
            .count(),
        0
    );
    run(
        &mut a,
        "SELECT remove_source('audit', 'orders'); SELECT drop_log('audit', confirm => true);
         SELECT drop_log('happenings', confirm => true)",
    );
    assert_eq!(
        one::<i64>(&mut a, "SELECT count(*) FROM verification_logs"),
        1
    );
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
