//! Many writers, several batch callers, random aborts: the log has every committed row, once.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::*;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WRITERS: u64 = 8;
const ROWS: usize = 50_000;

/// One transaction: some rows, in one of the ways rows are written; true if it committed.
fn write(client: &mut Client, rng: &mut StdRng) -> bool {
    let table = if rng.random_bool(0.5) {
        "orders"
    } else {
        "payments"
    };
    let rows = rng.random_range(1..60);
    run(client, "BEGIN");
    match rng.random_range(0..4) {
        0 => run(client, &format!("INSERT INTO {table} (note) SELECT g::text FROM generate_series(1, {rows}) g")),
        1 => (0..rows.min(5)).for_each(|i| run(client, &format!("INSERT INTO {table} (note) VALUES ('{i}')"))),
        2 => {
            let mut copy = client.copy_in(&format!("COPY {table} (note) FROM STDIN")).unwrap();
            (0..rows).for_each(|i| copy.write_all(format!("{i}\n").as_bytes()).unwrap());
            copy.finish().unwrap();
        }
        _ => run(
            client,
            &format!(
                "INSERT INTO {table} (note) VALUES ('kept'); SAVEPOINT s;
                 INSERT INTO {table} (note) SELECT 'undone' FROM generate_series(1, 3); ROLLBACK TO s;
                 INSERT INTO {table} (note) VALUES ('kept too')"
            ),
        ),
    }
    if rng.random_bool(0.3) {
        std::thread::sleep(Duration::from_millis(rng.random_range(0..30)));
    }
    let commit = rng.random_bool(0.8);
    run(client, if commit { "COMMIT" } else { "ROLLBACK" });
    commit
}

#[test]
fn every_committed_row_is_logged_exactly_once() {
    let seed = seed();
    let cluster = Cluster::start();
    let mut main = cluster.client("postgres");
    run(
        &mut main,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, at timestamptz DEFAULT now());
         CREATE TABLE payments (id serial PRIMARY KEY, note text);
         SELECT create_log('audit', batch_size => 3000);
         SELECT add_source('audit', t, order_column => 'id') FROM (VALUES ('orders'), ('payments')) v (t)",
    );
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let (mut client, stop) = (cluster.client("postgres"), stop.clone());
            let mut rng = StdRng::seed_from_u64(seed + n);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    write(&mut client, &mut rng);
                }
            })
        })
        .collect();
    let heads = Arc::new(Mutex::new(BTreeSet::new()));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (mut client, stop, heads) =
                (cluster.client("postgres"), stop.clone(), heads.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for row in client
                        .query("SELECT tree_size, root_hash FROM process_next_batch()", &[])
                        .unwrap()
                    {
                        heads
                            .lock()
                            .unwrap()
                            .insert((row.get::<_, i64>(0), row.get::<_, Vec<u8>>(1)));
                    }
                }
            })
        })
        .collect();
    while one::<i64>(&mut main, "SELECT merkle_size('audit')") < ROWS as i64 {
        assert!(
            writers.iter().chain(&callers).all(|t| !t.is_finished()),
            "a thread failed"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    stop.store(true, Ordering::Relaxed);
    writers
        .into_iter()
        .chain(callers)
        .for_each(|t| t.join().unwrap());

    let size = drain(&mut main, "audit");
    for (table, source) in [("orders", 1), ("payments", 2)] {
        let committed: Vec<String> = column(
            &mut main,
            &format!("SELECT id::text FROM {table} ORDER BY 1"),
        );
        let logged: Vec<String> = column(
            &mut main,
            &format!(
                "SELECT source_key FROM merkle_log WHERE source_id = {source} ORDER BY source_key::text"
            ),
        );
        let sorted = |mut v: Vec<String>| {
            v.sort();
            v
        };
        assert_eq!(sorted(logged), sorted(committed), "{table}");
    }
    let indexes: Vec<i64> = column(
        &mut main,
        "SELECT leaf_index FROM merkle_log WHERE log_id > 0 ORDER BY leaf_index",
    );
    assert!(indexes.iter().copied().eq(0..size) && size >= ROWS as i64);
    let root: Vec<u8> = one(&mut main, "SELECT merkle_root('audit')");
    assert_eq!(oracle::root(&oracle::leaves(&mut main, "audit")), root);
    assert!(findings(&mut main, "audit").is_empty());

    let heads: Vec<_> = heads.lock().unwrap().iter().cloned().collect();
    assert!(heads.len() > 10, "batches ran while the writers did");
    for pair in heads.windows(2) {
        assert_ne!(pair[0].0, pair[1].0, "one root a size");
        assert!(oracle::consistent(
            &mut main,
            "audit",
            pair[0].clone(),
            pair[1].clone()
        ));
    }
}
