//! The batches of a geometric_ledger in a table, and in a log over it: each once, whatever crashes.

use geometric_ledger::{Account, Durability, Options, Publisher};
use server_tests::*;
use std::time::{Duration, Instant};

fn put(ledger: &geometric_ledger::GeometricLedger, count: u64) {
    for number in 0..count {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(number % 50).to_le_bytes());
        ledger
            .update_batch(&[(key, Account::with_balance(number.into()))])
            .unwrap();
    }
}

#[test]
fn published_batches_are_there_once_whichever_side_crashes() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let options = || {
        Options::new()
            .durability(Durability::None)
            .shards(2)
            .segment_bytes(1 << 20)
    };
    Publisher::new(cluster.client("postgres"), "public.batches").unwrap();
    run(
        &mut cluster.client("postgres"),
        "SELECT create_log('ledger');
         SELECT add_source('ledger', 'public.batches', order_column => 'sequence', capture => 'watermark')",
    );
    let mut interrupted = 0;
    // The first publication shows how long one takes; the others are interrupted within that time.
    let mut takes = Duration::ZERO;
    for round in 0..6u32 {
        let ledger = options().open(&path).unwrap();
        put(&ledger, 3_000);
        let mut publisher = Publisher::new(cluster.client("postgres"), "public.batches").unwrap();
        if round == 0 {
            let began = Instant::now();
            publisher.publish(&ledger).unwrap();
            takes = began.elapsed();
            continue;
        }
        std::thread::scope(|scope| {
            let publishing = scope.spawn(|| publisher.publish(&ledger));
            std::thread::sleep(takes * round / 8);
            cluster.kill_9();
            interrupted += usize::from(publishing.join().unwrap().is_err());
        });
        cluster.restart();
    }
    let ledger = options().open(&path).unwrap();
    let mut publisher = Publisher::new(cluster.client("postgres"), "public.batches").unwrap();
    publisher.publish(&ledger).unwrap();
    assert_eq!(publisher.publish(&ledger).unwrap(), 0);
    let mut client = cluster.client("postgres");
    let (count, last): (i64, i64) = {
        let row = client
            .query_one("SELECT count(*), max(sequence) FROM batches", &[])
            .unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!(
        (count as u64, last as u64),
        (18_000, ledger.view().sequence())
    );
    assert!(interrupted > 0, "no publication was interrupted");
    drain(&mut client, "ledger");
    assert_eq!(
        one::<i64>(&mut client, "SELECT merkle_size('ledger')"),
        count
    );
    assert_eq!(findings(&mut client, "ledger"), Vec::<String>::new());
    // The leaf that the ledger proves is the row that the log has.
    let proof = ledger.prove_batch(777).unwrap();
    proof.verify().unwrap();
    let published: Vec<u8> = one(
        &mut client,
        "SELECT leaf_data FROM batches WHERE sequence = 777",
    );
    assert_eq!(published, proof.leaf_data);
    run(
        &mut client,
        "UPDATE batches SET minted = minted + 1 WHERE sequence = 777",
    );
    assert_eq!(findings(&mut client, "ledger").len(), 1);
}
