//! What a backend needs does not grow with the batch.

use server_tests::*;
use std::time::Duration;

const ROWS: i64 = 1_000_000;
const BOUND_KB: u64 = 64 * 1024;

/// The most private memory that the backend of `client` reaches above what it has, in kB.
fn growth(mut client: Client, sql: &'static str) -> (u64, Client) {
    let pid = one(&mut client, "SELECT pg_backend_pid()");
    let base = private_memory(pid);
    let work = std::thread::spawn(move || {
        run(&mut client, sql);
        client
    });
    let mut peak = base;
    while !work.is_finished() {
        peak = peak.max(private_memory(pid));
        std::thread::sleep(Duration::from_millis(5));
    }
    (peak - base, work.join().unwrap())
}

#[test]
fn a_batch_of_a_million_rows_and_its_checks_stay_small() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        &format!(
            "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, at timestamptz DEFAULT now());
             INSERT INTO orders (note) SELECT 'note ' || i FROM generate_series(1, {ROWS}) i;
             SELECT create_log('audit', batch_size => 2000000); SELECT add_source('audit', 'orders', order_column => 'id')"
        ),
    );
    let (batch, mut client) = growth(client, "SELECT process_next_batch('audit')");
    assert_eq!(one::<i64>(&mut client, "SELECT merkle_size('audit')"), ROWS);
    let (verify, client) = growth(client, "SELECT count(*) FROM verify_log('audit')");
    println!("batch: {batch} kB, verify_log: {verify} kB above the backend's base");
    assert!(batch < BOUND_KB, "a batch of {ROWS} rows took {batch} kB");
    assert!(
        verify < BOUND_KB,
        "verify_log of {ROWS} rows took {verify} kB"
    );
    let (reconcile, mut client) = growth(client, "SELECT reconcile('audit')");
    assert!(
        reconcile < BOUND_KB,
        "reconcile of {ROWS} rows took {reconcile} kB"
    );
    assert!(findings(&mut client, "audit").is_empty());
}
