//! `kill -9`: what was acknowledged is there, what was not leaves no trace.

use server_tests::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn kill_9_in_the_middle_of_batches_loses_nothing() {
    let cluster = Cluster::start();
    run(
        &mut cluster.client("postgres"),
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         SELECT create_log('audit', batch_size => 5000); SELECT add_source('audit', 'orders', order_column => 'id')",
    );
    let heads = Arc::new(Mutex::new(Vec::<(i64, Vec<u8>)>::new()));
    let acknowledged: Arc<Mutex<Vec<i64>>> = Arc::default();
    let rounds = size(8, 100);
    for round in 0..rounds {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (mut client, acknowledged) = (cluster.client("postgres"), acknowledged.clone());
                std::thread::spawn(move || {
                    // Until the server is gone.
                    let insert = "INSERT INTO orders (note) SELECT 'x' FROM generate_series(1, 200) RETURNING id";
                    loop {
                        match client.query(insert, &[]) {
                            Ok(rows) => acknowledged.lock().unwrap().extend(rows.iter().map(|r| r.get::<_, i64>(0))),
                            Err(e) => break assert!(went_away(&e), "{e:?}"),
                        }
                    }
                })
            })
            .collect();
        let (mut client, seen) = (cluster.client("postgres"), heads.clone());
        let batches = std::thread::spawn(move || {
            let batch = "SELECT tree_size, root_hash FROM process_next_batch('audit')";
            loop {
                match client.query_one(batch, &[]) {
                    Ok(row) => seen.lock().unwrap().push((row.get(0), row.get(1))),
                    Err(e) => break assert!(went_away(&e), "{e:?}"),
                }
            }
        });
        std::thread::sleep(Duration::from_millis(150 + round * 37 % 400));
        cluster.kill_9();
        writers.into_iter().for_each(|w| w.join().unwrap());
        batches.join().unwrap();
        cluster.restart();

        let mut client = cluster.client("postgres");
        assert_eq!(
            findings(&mut client, "audit"),
            Vec::<String>::new(),
            "after kill {round}"
        );
        let size: i64 = one(&mut client, "SELECT merkle_size('audit')");
        let root: Vec<u8> = one(&mut client, "SELECT merkle_root('audit')");
        for head in heads.lock().unwrap().iter().rev().take(20) {
            assert!(
                oracle::consistent(&mut client, "audit", head.clone(), (size, root.clone())),
                "kill {round}, {head:?}"
            );
        }
    }
    let mut client = cluster.client("postgres");
    let size = drain(&mut client, "audit");
    let rows: Vec<i64> = column(&mut client, "SELECT id FROM orders ORDER BY id");
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.iter().all(|id| rows.binary_search(id).is_ok()));
    assert_eq!(size, rows.len() as i64);
    let root: Vec<u8> = one(&mut client, "SELECT merkle_root('audit')");
    let heads = heads.lock().unwrap();
    assert!(
        heads.len() as u64 > rounds,
        "each kill was in the middle of batches"
    );
    for head in heads.iter() {
        assert!(oracle::consistent(
            &mut client,
            "audit",
            head.clone(),
            (size, root.clone())
        ));
    }
}
