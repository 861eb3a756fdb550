//! Roots and proofs as an outsider checks them.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::*;

#[test]
fn outside_root_and_proofs_agree() {
    let mut rng = StdRng::seed_from_u64(seed());
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         INSERT INTO orders (note) SELECT i::text FROM generate_series(1, 70000) i;
         SELECT create_log('audit', batch_size => 7321); SELECT add_source('audit', 'orders', order_column => 'id')",
    );
    let size = drain(&mut client, "audit") as usize;
    assert_eq!(size, 70_000);
    let leaves = oracle::leaves(&mut client, "audit");
    let inclusion = client
        .prepare(
            "SELECT p.*, verify_inclusion(p.leaf_hash, p.leaf_index, p.tree_size, p.path, p.root_hash),
                    verify_inclusion(p.leaf_hash, p.leaf_index + 1, p.tree_size, p.path, p.root_hash)
               FROM inclusion_proof('audit', $1::bigint, $2) p",
        )
        .unwrap();
    for _ in 0..1000 {
        let n = rng.random_range(2..=size);
        let i = rng.random_range(0..n);
        let row = client
            .query_one(&inclusion, &[&(i as i64), &(n as i64)])
            .unwrap();
        let (leaf, root, path): (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) =
            (row.get(2), row.get(3), row.get(4));
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, i64>(1)),
            (i as i64, n as i64)
        );
        assert_eq!(leaf, leaves[i]);
        assert_eq!(
            oracle::root_from_path(&leaf, i, n, &path),
            Some(root),
            "leaf {i} of {n}"
        );
        assert_eq!(
            (row.get::<_, bool>(5), row.get::<_, bool>(6)),
            (true, false)
        );
    }
    for _ in 0..40 {
        let n = rng.random_range(1..=size);
        let root: Vec<u8> = client
            .query_one("SELECT merkle_root('audit', $1)", &[&(n as i64)])
            .unwrap()
            .get(0);
        assert_eq!(root, oracle::root(&leaves[..n]), "size {n}");
    }
    for _ in 0..200 {
        let n = rng.random_range(1..=size);
        let m = rng.random_range(0..=n);
        let sql = "SELECT c.*, verify_consistency(old_size, new_size, old_root, new_root, path) FROM consistency_proof('audit', $1, $2) c";
        let row = client.query_one(sql, &[&(m as i64), &(n as i64)]).unwrap();
        assert!(row.get::<_, bool>(5));
        let (old, new) = (row.get::<_, Vec<u8>>(2), row.get::<_, Vec<u8>>(3));
        assert!(
            oracle::consistent(&mut client, "audit", (m as i64, old), (n as i64, new)),
            "{m} to {n}"
        );
    }
}

#[test]
fn a_standby_answers_with_the_same_bytes_and_refuses_to_write() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         INSERT INTO orders (note) SELECT i::text FROM generate_series(1, 3000) i;
         SELECT create_log('audit', batch_size => 1000); SELECT add_source('audit', 'orders', order_column => 'id')",
    );
    drain(&mut client, "audit");
    let standby = Cluster::standby_of(&cluster);
    run(&mut client, "INSERT INTO orders (note) VALUES ('late')");
    drain(&mut client, "audit");
    let lsn: String = one(&mut client, "SELECT pg_current_wal_lsn()::text");
    let mut there = standby.client("postgres");
    while one::<bool>(
        &mut there,
        &format!("SELECT pg_last_wal_replay_lsn() < '{lsn}'"),
    ) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let answers = "SELECT merkle_root('audit')::text || merkle_root('audit', 777)
        || (SELECT string_agg(p::text, '') FROM generate_series(0, 3000, 100) i, LATERAL inclusion_proof('audit', i) p)
        || (SELECT c::text FROM consistency_proof('audit', 1234) c) || leaf_data('audit', 17)::text";
    assert_eq!(
        one::<String>(&mut there, answers),
        one::<String>(&mut client, answers)
    );
    assert_eq!(findings(&mut there, "audit"), Vec::<String>::new());
    let refused = error(&mut there, "SELECT process_next_batch('audit')");
    assert!(
        refused.contains("recovery") && refused.contains("primary"),
        "{refused}"
    );
}
