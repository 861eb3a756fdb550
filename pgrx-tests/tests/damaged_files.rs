//! Whatever happened to the files of the extension's tables, `verify_log` says so and does not fail.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use server_tests::*;
use std::fs;

const WORLD: &str = "
    CREATE TABLE c (id int PRIMARY KEY, note text); CREATE TABLE w (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
    SELECT create_log('c', find_by_hash => true), create_log('w');
    SELECT add_source('c', 'c', capture => 'trigger', salted => true, store_leaf_data => true), add_source('w', 'w', order_column => 'id');
    INSERT INTO c SELECT g, repeat('note', 2000) || g FROM generate_series(1, 600) g; INSERT INTO w (note) SELECT 'w' FROM generate_series(1, 600)";

/// Tables of the extension and of the test, with what belongs to them, by the names of their files.
const FILES: &str = "
    WITH tables AS (SELECT c.oid, c.reltoastrelid FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace),
    heaps AS (SELECT oid FROM tables UNION SELECT reltoastrelid FROM tables WHERE reltoastrelid <> 0)
    SELECT pg_relation_filepath(f.oid) || ' ' || f.oid::regclass
      FROM (SELECT oid FROM heaps UNION SELECT i.indexrelid FROM pg_index i JOIN heaps h ON h.oid = i.indrelid) f (oid)
     WHERE pg_relation_size(f.oid) > 0 ORDER BY 1";

#[test]
fn verify_log_reports_files_that_are_gone_cut_off_or_full_of_garbage() {
    let mut rng = StdRng::seed_from_u64(seed());
    let cluster = Cluster::start();
    let mut a = cluster.client("postgres");
    run(&mut a, WORLD);
    drain(&mut a, "c");
    drain(&mut a, "w");
    run(
        &mut a,
        "SELECT redact_row('c', 'c', '5', 'asked for'), prune_log('w', 256)",
    );
    let files: Vec<String> = column(&mut a, FILES);
    assert!(files.len() > 40, "{}", files.len());
    let mut cases: Vec<(&String, &str)> = Vec::new();
    for damage in ["gone", "cut", "garbage"] {
        cases.extend(files.iter().map(|file| (file, damage)));
    }
    cases.shuffle(&mut rng);
    // What is read last of all, to say how much was checked, is always tried.
    cases.sort_by_key(|(file, _)| !file.contains("merkle_late_entry"));
    cases.truncate(size(24, usize::MAX));
    drop(a);
    let mut found = 0;
    for (file, damage) in cases {
        let (path, name) = file.split_once(' ').unwrap();
        let path = cluster.socket().join("data").join(path);
        cluster.stop();
        let before = fs::read(&path).unwrap();
        let mut after = before.clone();
        match damage {
            "cut" => after.truncate(before.len() - before.len() % 16384 / 2 - 4096),
            _ => after[..24.min(before.len())].fill(0x5a),
        }
        match damage {
            "gone" => fs::remove_file(&path).unwrap(),
            _ => fs::write(&path, &after).unwrap(),
        }
        cluster.restart();
        let mut a = cluster.client("postgres");
        for log in ["c", "w", "merkle_log_administration"] {
            let rows = a.query("SELECT kind, detail FROM verify_log($1)", &[&log]);
            let rows = rows.unwrap_or_else(|e| panic!("{name} {damage}, {log}: {e:?}"));
            found += rows
                .iter()
                .filter(|row| row.get::<_, &str>(0) != "redacted")
                .count();
        }
        drop(a);
        cluster.stop();
        fs::write(&path, &before).unwrap();
        cluster.hand_over(&path);
        cluster.restart();
    }
    assert!(found > 0);
    let mut a = cluster.client("postgres");
    assert_eq!(findings(&mut a, "w"), [""; 0]);
}
