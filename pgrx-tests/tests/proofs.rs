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
    standby.catches_up_with(&cluster);
    let mut there = standby.client("postgres");
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

/// A row is found by its key, whatever the key is, and however its entry came to be where it is.
#[test]
fn rows_are_found_by_their_keys() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, "SET TimeZone = 'Asia/Kathmandu'");
    let sources = [
        ("numbers", "n bigint PRIMARY KEY", "n", "n - 700"),
        ("numbers", "n int PRIMARY KEY", "n", "n * 1000"),
        ("numbers", "n numeric PRIMARY KEY", "n", "n / 4.0"),
        (
            "numbers",
            "n bigint NOT NULL UNIQUE, k text COLLATE \"C\" PRIMARY KEY",
            "n",
            "n, md5(n::text)",
        ),
        (
            "numbers",
            "n smallint, k text, PRIMARY KEY (n, k)",
            "n",
            "n, 'a,b ' || n",
        ),
        (
            "times",
            "n timestamptz PRIMARY KEY",
            "n",
            "'2020-01-01 00:00+00'::timestamptz + n * interval '1 hour'",
        ),
        ("times", "n date PRIMARY KEY", "n", "'1999-12-31'::date + n"),
        (
            "uuids",
            "n uuid PRIMARY KEY",
            "n",
            "lpad(to_hex(n * 7), 32, '0')::uuid",
        ),
    ];
    for (place, (log, columns, order, values)) in sources.iter().enumerate() {
        run(
            &mut a,
            &format!(
                "CREATE TABLE t{place} ({columns}); SELECT create_log('{log}') WHERE NOT EXISTS (SELECT FROM merkle_log_status WHERE log_name = '{log}');
                 SELECT add_source('{log}', 't{place}', order_column => '{order}', capture => 'watermark');
                 INSERT INTO t{place} SELECT {values} FROM generate_series(1, 1500) n WHERE n % 10 <> 0"
            ),
        );
    }
    // Batches that end within tiles, and rows that come late.
    for log in ["numbers", "times", "uuids"] {
        run(
            &mut a,
            &format!("SELECT alter_log('{log}', batch_size => 333)"),
        );
        drain(&mut a, log);
    }
    for (place, (_, _, _, values)) in sources.iter().enumerate() {
        run(
            &mut a,
            &format!(
                "INSERT INTO t{place} SELECT {values} FROM generate_series(1, 1500) n WHERE n % 10 = 0"
            ),
        );
    }
    for log in ["numbers", "times", "uuids"] {
        run(&mut a, &format!("SELECT count(*) FROM reconcile('{log}')"));
        drain(&mut a, log);
        assert_eq!(findings(&mut a, log), Vec::<String>::new());
    }
    let marks: i64 = one(&mut a, "SELECT count(*) FROM merkle_order_index");
    assert!(marks > 30, "{marks}");
    for (place, (log, columns, ..)) in sources.iter().enumerate() {
        let key = match columns {
            c if c.contains("(n, k)") => "ARRAY[n::text, k]::text",
            c if c.contains("k text") => "k",
            _ => "n::text",
        };
        let wrong: i64 = one(
            &mut a,
            &format!(
                "SELECT count(*) FROM t{place} t CROSS JOIN LATERAL inclusion_proof('{log}', 't{place}', {key}) p
                   JOIN merkle_log m ON m.leaf_index = p.leaf_index AND m.log_id = (SELECT l.log_id FROM verification_logs l WHERE l.log_name = '{log}')
                   JOIN verification_sources s USING (source_id)
                  WHERE s.source_table <> 'public.t{place}' OR NOT verify_inclusion(sha256('\\x00'::bytea || leaf_data('{log}', p.leaf_index)), p.leaf_index, p.tree_size, p.path, p.root_hash)"
            ),
        );
        assert_eq!(wrong, 0, "t{place}");
        let found: i64 = one(
            &mut a,
            &format!(
                "SELECT count(DISTINCT p.leaf_index) FROM t{place} t CROSS JOIN LATERAL inclusion_proof('{log}', 't{place}', {key}) p"
            ),
        );
        assert_eq!(found, 1500, "t{place}");
    }
    let message = error(
        &mut a,
        "SELECT * FROM inclusion_proof('numbers', 't0', '12345678')",
    );
    assert!(message.starts_with("P0002"), "{message}");
}

#[test]
fn many_proofs_are_those_made_one_by_one() {
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(
        &mut a,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text); SELECT create_log('log'); SELECT add_source('log', 't', order_column => 'id');
         INSERT INTO t (note) SELECT i FROM generate_series(1, 70123) i; SELECT process_next_batch('log')",
    );
    for (indexes, size) in [
        ("generate_series(0, 70122, 97)", "NULL"),
        ("generate_series(500, 800)", "801"),
        ("generate_series(70000, 70122)", "NULL"),
        ("unnest('{5, 70122, 5, 0}'::int[])", "NULL"),
        ("generate_series(0, 2)", "3"),
    ] {
        let list = format!("(SELECT array_agg(i::bigint) FROM {indexes} i)");
        let differing: i64 = one(
            &mut a,
            &format!(
                "SELECT count(*) FROM (SELECT p::text, row_number() OVER () AS at FROM inclusion_proofs('log', {list}, {size}) p) many
                   FULL JOIN (SELECT p::text, row_number() OVER () AS at FROM (SELECT i FROM unnest({list}) i ORDER BY i) i, LATERAL inclusion_proof('log', i, {size}) p) one USING (at)
                  WHERE many.p IS DISTINCT FROM one.p"
            ),
        );
        assert_eq!(differing, 0, "{indexes} of {size}");
    }
    assert_eq!(
        one::<i64>(&mut a, "SELECT count(*) FROM inclusion_proofs('log', '{}')"),
        0
    );
    for (call, code) in [
        ("inclusion_proofs('log', '{1, 70123}')", "22003"),
        ("inclusion_proofs('log', '{1, -1}')", "22003"),
        ("inclusion_proofs('log', '{1, NULL}')", "22004"),
        ("inclusion_proofs('log', '{1}', 1)", "22003"),
        ("inclusion_proofs('log', NULL)", "22004"),
        ("inclusion_proofs('none', '{1}')", "42704"),
    ] {
        let message = error(&mut a, &format!("SELECT * FROM {call}"));
        assert!(message.starts_with(code), "{call}: {message}");
    }
}
