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
    // The second publication is stopped in the midst of its rows, at a lock that this session has.
    run(
        &mut cluster.client("postgres"),
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
         CREATE TRIGGER wait BEFORE INSERT ON batches FOR EACH ROW WHEN (NEW.sequence = 4500) EXECUTE FUNCTION wait()",
    );
    // The first shows how long one takes; those from the third on may be interrupted at any point within that time.
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
        let mut holder = cluster.client("postgres");
        std::thread::scope(|scope| {
            if round == 1 {
                run(&mut holder, "SELECT pg_advisory_lock(1)");
            }
            let publishing = scope.spawn(|| publisher.publish(&ledger));
            match round {
                1 => until(
                    &mut holder,
                    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)",
                ),
                _ => std::thread::sleep(takes * (round - 2) / 4),
            }
            cluster.kill_9();
            let published = publishing.join().unwrap();
            assert!(round > 1 || published.is_err(), "it was not interrupted");
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
