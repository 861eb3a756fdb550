//! Looking for hashes that somebody kept, and listing entries.

use server_tests::*;
use std::time::Duration;

/// A run of `merkle_hash_index`, and somewhat more than two.
const RUN: i64 = 16_384;
const ROWS: i64 = 2 * RUN + 3000;

fn logged(c: &mut Client, options: &str) {
    run(
        c,
        &format!(
            "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
             SELECT create_log('audit', batch_size => 10000{options}); SELECT add_source('audit', 'orders', order_column => 'id')"
        ),
    );
    run(
        c,
        &format!("INSERT INTO orders (note) SELECT 'n' || i FROM generate_series(1, {ROWS}) i"),
    );
    assert_eq!(drain(c, "audit"), ROWS);
}

/// Entries of which the hash leads somewhere else, looked up at, before and after borders of runs.
const WRONG: &str = "SELECT count(*) FROM merkle_log m
    WHERE m.log_id = 1 AND (m.leaf_index % 997 = 0 OR m.leaf_index % 16384 IN (0, 16383) OR m.leaf_index > 35765)
      AND ARRAY(SELECT find_leaf('audit', m.leaf_hash)) <> ARRAY[m.leaf_index]";

#[test]
fn every_leaf_hash_is_found_with_the_index_and_without_it() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    logged(&mut c, ", find_by_hash => true");
    let runs = "SELECT count(*) FROM merkle_hash_index";
    assert_eq!(one::<i64>(&mut c, runs), 2);
    assert_eq!(one::<i64>(&mut c, WRONG), 0);
    let absent = "SELECT has_leaf('audit', sha256(i::text::bytea)) FROM generate_series(1, 300) i";
    assert!(column::<bool>(&mut c, absent).iter().all(|has| !has));
    assert!(findings(&mut c, "audit").is_empty());
    // Off, the index goes; on again, the next batch makes it for what is there.
    run(&mut c, "SELECT alter_log('audit', find_by_hash => false)");
    assert_eq!(one::<i64>(&mut c, runs), 0);
    let few = WRONG
        .replace("m.leaf_index % 997 = 0 OR", "m.leaf_index % 9973 = 0 OR")
        .replace("35765", "35767");
    assert_eq!(one::<i64>(&mut c, &few), 0);
    run(
        &mut c,
        "SELECT alter_log('audit', find_by_hash => true); INSERT INTO orders (note) VALUES ('x')",
    );
    drain(&mut c, "audit");
    assert_eq!(one::<i64>(&mut c, runs), 2);
    assert_eq!(one::<i64>(&mut c, WRONG), 0);
    // Of pruned entries the hashes are gone.
    run(&mut c, "SELECT prune_log('audit', 20000)");
    assert_eq!(one::<i64>(&mut c, runs), 1);
    let kept = "SELECT count(*) FROM merkle_log m WHERE m.log_id = 1 AND m.leaf_index % 97 = 0 AND ARRAY(SELECT find_leaf('audit', m.leaf_hash)) <> ARRAY[m.leaf_index]";
    assert_eq!(one::<i64>(&mut c, kept), 0);
    assert!(findings(&mut c, "audit").is_empty());
}

#[test]
fn an_index_that_leads_elsewhere_is_found() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    logged(&mut c, ", find_by_hash => true");
    for (damage, at) in [
        (
            "UPDATE merkle_hash_index SET hashes = overlay(hashes PLACING '\\x00' FROM 6000) WHERE run = 1",
            RUN,
        ),
        (
            "UPDATE merkle_hash_index SET entries = entries - 1 WHERE run = 0",
            0,
        ),
        ("DELETE FROM merkle_hash_index WHERE run = 0", 0),
    ] {
        let mut t = c.transaction().unwrap();
        t.batch_execute(damage).unwrap();
        let found = t
            .query(
                "SELECT pg_catalog.concat_ws(' ', kind, leaf_index) FROM verify_log('audit')",
                &[],
            )
            .unwrap();
        let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        assert_eq!(found, [format!("index_mismatch {at}")], "{damage}");
        t.rollback().unwrap();
    }
    // Whoever takes a row out slows searches down, and hides nothing.
    run(&mut c, "DELETE FROM merkle_hash_index WHERE run = 0");
    assert_eq!(one::<i64>(&mut c, &WRONG.replace("997", "9970")), 0);
}

#[test]
fn proofs_by_hash_and_by_root_are_those_by_number() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE t (id int PRIMARY KEY, note text); SELECT create_log('audit'), create_log('other');
         SELECT add_source('audit', 't', capture => 'trigger')",
    );
    for id in 1..=5 {
        run(&mut c, &format!("INSERT INTO t VALUES ({id}, 'a')"));
        drain(&mut c, "audit");
    }
    let same: bool = one(
        &mut c,
        "SELECT bool_and(p::text = q::text) FROM merkle_log m, LATERAL inclusion_proof('audit', m.leaf_index) p,
                LATERAL inclusion_proof_by_hash('audit', m.leaf_hash) q WHERE m.log_id = 1",
    );
    assert!(same);
    let same: bool = one(
        &mut c,
        "SELECT bool_and(p::text = q::text AND find_root('audit', h.root_hash) = h.tree_size AND has_root('audit', h.root_hash)
                     AND NOT has_root('other', h.root_hash))
           FROM tree_heads('audit', 1) h, LATERAL consistency_proof('audit', h.tree_size) p, LATERAL consistency_proof_by_root('audit', h.root_hash) q",
    );
    assert!(same);
    assert_eq!(
        one::<i64>(&mut c, "SELECT find_root('other', sha256(''))"),
        0
    );
    assert_eq!(
        one::<Option<i64>>(&mut c, "SELECT find_root('audit', sha256('x'))"),
        None
    );
    for (call, state, says) in [
        (
            "inclusion_proof_by_hash('audit', sha256('x'))",
            "P0002",
            "no entry with leaf hash",
        ),
        (
            "consistency_proof_by_root('audit', sha256('x'))",
            "P0002",
            "no tree head with root",
        ),
        ("find_leaf('audit', 'abc')", "22023", "32 bytes"),
        ("has_root('audit', NULL)", "22004", "root_hash"),
        ("find_leaf('nix', sha256('x'))", "42704", "nix"),
    ] {
        let said = error(&mut c, &format!("SELECT {call}"));
        assert!(
            said.starts_with(state) && said.contains(says),
            "{call}: {said}"
        );
    }
    // Equal rows without a salt have one hash: all are found, and the first is proven.
    run(&mut c, "DELETE FROM t WHERE id = 1");
    run(&mut c, "INSERT INTO t VALUES (1, 'a')");
    drain(&mut c, "audit");
    let hash = "(SELECT leaf_hash FROM merkle_log WHERE log_id = 1 AND leaf_index = 0)";
    let all: Vec<i64> = column(&mut c, &format!("SELECT find_leaf('audit', {hash})"));
    assert_eq!(all[0], 0);
    assert_eq!(
        one::<i64>(
            &mut c,
            &format!("SELECT leaf_index FROM inclusion_proof_by_hash('audit', {hash})")
        ),
        0
    );
}

#[test]
fn entries_are_listed_in_order_and_shown_to_those_who_may_read() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE ROLE nobody LOGIN; CREATE ROLE reader LOGIN;
         CREATE TABLE a (id int PRIMARY KEY, note text); CREATE TABLE b (id int PRIMARY KEY); GRANT SELECT ON a TO reader;
         SELECT create_log('audit'); SELECT add_source('audit', 'a', capture => 'trigger', store_leaf_data => true);
         SELECT add_source('audit', 'b', capture => 'trigger')",
    );
    run(
        &mut c,
        "INSERT INTO a SELECT i, repeat('x', 3000) FROM generate_series(1, 2500) i",
    );
    run(
        &mut c,
        "INSERT INTO b SELECT i FROM generate_series(1, 10) i",
    );
    drain(&mut c, "audit");
    let right: bool = one(
        &mut c,
        "SELECT count(*) = 2510 AND bool_and(e.leaf_index = n - 1 AND e.leaf_hash = m.leaf_hash AND e.source_key = m.source_key
                    AND (e.source_table = 'public.b' AND e.leaf_data IS NULL OR sha256('\\x00' || e.leaf_data) = e.leaf_hash))
           FROM (SELECT l.*, row_number() OVER () AS n FROM log_entries('audit') l) e
           JOIN merkle_log m ON m.log_id = 1 AND m.leaf_index = e.leaf_index",
    );
    assert!(right);
    let some: Vec<i64> = column(&mut c, "SELECT leaf_index FROM log_entries('audit', 2, 5)");
    assert_eq!(some, [2, 3, 4]);
    assert_eq!(
        one::<i64>(&mut c, "SELECT count(*) FROM log_entries('audit', 2510)"),
        0
    );
    for call in [
        "log_entries('audit', -1)",
        "log_entries('audit', 2511)",
        "log_entries('audit', 0, 2511)",
        "entry_bundles('audit', 2511)",
    ] {
        assert!(
            error(&mut c, &format!("SELECT {call}")).starts_with("22003"),
            "{call}"
        );
    }
    for (role, keys, data) in [("nobody", 0, 0), ("reader", 2500, 2500)] {
        let mut r = cluster.client_as("postgres", role);
        let shown: bool = one(
            &mut r,
            &format!(
                "SELECT count(*) = 2510 AND count(leaf_hash) = 2510 AND count(source_key) = {keys} AND count(leaf_data) = {data} FROM log_entries('audit')"
            ),
        );
        assert!(shown, "{role}");
        bundles_are_the_entries(&mut r, 0, 2510);
    }
    for (from, to) in [
        (0, 0),
        (0, 2510),
        (3, 4),
        (255, 258),
        (2509, 2510),
        (256, 2510),
    ] {
        bundles_are_the_entries(&mut c, from, to);
    }
    run(&mut c, "SELECT prune_log('audit', 600)");
    for function in ["log_entries", "entry_bundles"] {
        assert!(error(&mut c, &format!("SELECT {function}('audit')")).contains("pruned"));
    }
    bundles_are_the_entries(&mut c, 512, 2510);
    assert_eq!(
        one::<i64>(&mut c, "SELECT count(*) FROM log_entries('audit', 512)"),
        1998
    );
    // What is done to logs names other people's rows: it is the extension's owner's to read.
    let mut r = cluster.client_as("postgres", "reader");
    let nothing: i64 = one(
        &mut r,
        "SELECT count(leaf_data) + count(source_key) FROM log_entries('merkle_log_administration')",
    );
    assert_eq!(nothing, 0);
}

/// That `entry_bundles` says of a range what `log_entries` does.
fn bundles_are_the_entries(c: &mut Client, from: i64, to: i64) {
    let listed = c
        .query(
            "SELECT leaf_index, leaf_hash, COALESCE(leaf_data, '') FROM log_entries('audit', $1, $2)",
            &[&from, &to],
        )
        .unwrap();
    let rows = c
        .query(
            "SELECT * FROM entry_bundles('audit', $1, $2)",
            &[&from, &to],
        )
        .unwrap();
    let mut entries = listed.iter();
    for row in &rows {
        let first: i64 = row.get(0);
        let hashes: &[u8] = row.get(1);
        let width = hashes.len() / 32;
        assert!(width > 0 && (first + width as i64 - 1) / 256 == first / 256);
        let data = tlog::entry_bundle::entries(row.get(2), width as u16).unwrap();
        for ((index, hash), data) in (first..).zip(hashes.chunks(32)).zip(data) {
            let entry = entries.next().unwrap();
            let said: (i64, &[u8], &[u8]) = (entry.get(0), entry.get(1), entry.get(2));
            assert_eq!((index, hash, data), said);
        }
    }
    assert!(entries.next().is_none(), "{from} to {to}");
}

#[test]
fn listing_a_hundred_megabytes_of_leaf_data_needs_little_memory() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "CREATE TABLE a (id int PRIMARY KEY, note text); SELECT create_log('audit');
         SELECT add_source('audit', 'a', capture => 'trigger', store_leaf_data => true)",
    );
    for part in 0..4 {
        run(
            &mut client,
            &format!(
                "INSERT INTO a SELECT i, repeat(md5(i::text), 300) FROM generate_series({} + 1, {}) i",
                part * 3000,
                (part + 1) * 3000
            ),
        );
        drain(&mut client, "audit");
    }
    run(
        &mut client,
        "SELECT sum(length(leaf_data)) FROM log_entries('audit', 0, 100)",
    );
    let pid = one(&mut client, "SELECT pg_backend_pid()");
    let base = private_memory(pid);
    let work = std::thread::spawn(move || {
        one::<i64>(
            &mut client,
            "SELECT sum(length(leaf_data)) FROM (SELECT (log_entries('audit')).*) e",
        )
    });
    let mut peak = base;
    while !work.is_finished() {
        peak = peak.max(private_memory(pid));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(work.join().unwrap() > 100_000_000);
    let growth = peak - base;
    println!("log_entries: {growth} kB above the backend's base");
    assert!(growth < 48 * 1024, "{growth} kB");
}
