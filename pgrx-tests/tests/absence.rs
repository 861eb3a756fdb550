//! Sealed ranges and absence proofs: which entries a key has, and that it has no others, proven to whoever has the log's
//! key; and that verification finds every index that is not that of the entries.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::*;
use std::collections::BTreeMap;
use tlog::{
    AbsenceProof, BundleLeaf, Content, KeyName, Policy, ProvenKey, SignatureType, SigningKey,
};

fn key() -> SigningKey {
    let name = KeyName::new("example.com/audit").unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519, &[7; 32]).unwrap()
}

fn policy() -> Policy {
    Policy::of_log(key().verifier_key())
}

/// Two sources in one log: orders with a watermark, and lines, whose keys are two columns, by triggers.
fn served() -> (Cluster, Client) {
    let cluster = Cluster::start();
    let file = cluster.secret_file("key", key().to_text().as_str());
    cluster.reload_with(&format!(
        "merkle_log.signing_key_file = '{file}'\nmerkle_log.origin_prefix = 'example.com'"
    ));
    let mut c = cluster.client("postgres");
    until(
        &mut c,
        "SELECT current_setting('merkle_log.signing_key_file', true) <> ''",
    );
    run(
        &mut c,
        "CREATE ROLE reader LOGIN; CREATE ROLE of_keys LOGIN; CREATE ROLE nobody LOGIN;
         CREATE TABLE orders (id bigint PRIMARY KEY, note text);
         CREATE TABLE lines (name text, line int, note text, PRIMARY KEY (name, line));
         GRANT SELECT ON orders TO reader; GRANT SELECT (id) ON orders TO of_keys; SELECT create_log('audit');
         SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true);
         SELECT add_source('audit', 'lines', capture => 'trigger');
         INSERT INTO orders SELECT i, 'n' || i FROM generate_series(1, 600) i;
         INSERT INTO lines VALUES ('a', 1, 'x'), ('a', 2, 'x'), ('b', 1, 'x'), ('7', 1, 'x');
         UPDATE orders SET note = 'changed' WHERE id IN (7, 42); UPDATE orders SET note = 'again' WHERE id = 7; DELETE FROM orders WHERE id = 9;
         UPDATE lines SET note = 'y' WHERE name = 'a' AND line = 1",
    );
    drain(&mut c, "audit");
    (cluster, c)
}

fn sealed(c: &mut Client, call: &str) -> Vec<String> {
    column(
        c,
        &format!(
            "SELECT from_leaf_index || ' ' || to_leaf_index || ' ' || leaf_index || ' ' || keys FROM {call}"
        ),
    )
}

fn proof(c: &mut Client, call: &str) -> AbsenceProof {
    let row = c.query_one(&format!("SELECT json, cbor FROM {call}"), &[]);
    let row = row.unwrap_or_else(|e| panic!("{call}: {e:?}"));
    let json = AbsenceProof::from_bytes(row.get::<_, &str>(0).as_bytes()).unwrap();
    assert_eq!(
        json,
        AbsenceProof::from_bytes(row.get::<_, &[u8]>(1)).unwrap(),
        "{call}"
    );
    json
}

fn proven(c: &mut Client, call: &str) -> ProvenKey {
    proof(c, call).verify(&policy()).unwrap()
}

fn indexes(proven: &ProvenKey) -> Vec<i64> {
    proven
        .entries
        .iter()
        .map(|e| e.index.get() as i64)
        .collect()
}

#[test]
fn a_key_has_these_entries_and_no_others() {
    let (_cluster, mut c) = served();
    let size: i64 = one(&mut c, "SELECT merkle_size('audit')");
    let keys: i64 = one(
        &mut c,
        "SELECT count(DISTINCT (source_id, source_key)) FROM merkle_log WHERE log_id = 1",
    );
    assert_eq!(
        sealed(&mut c, "seal_range('audit')"),
        [format!("0 {size} {size} {keys}")]
    );
    // What is sealed is sealed: the seal alone is not worth another.
    assert_eq!(sealed(&mut c, "seal_range('audit')"), Vec::<String>::new());
    let early = error(&mut c, "SELECT absence_proof_of('audit', 'orders', 7)");
    assert!(early.contains(&format!("entry {size}")), "{early}");
    run(&mut c, "SELECT checkpoint('audit')");
    for (id, count) in [
        (7, 3),
        (42, 2),
        (9, 2),
        (600, 1),
        (1, 1),
        (0, 0),
        (601, 0),
        (-5, 0),
    ] {
        let expected: Vec<i64> = column(
            &mut c,
            &format!(
                "SELECT leaf_index FROM merkle_log WHERE source_id = 1 AND source_key = '{id}' ORDER BY 1"
            ),
        );
        assert_eq!(expected.len(), count, "{id}");
        let found = proven(
            &mut c,
            &format!("absence_proof_of('audit', 'orders', {id})"),
        );
        assert_eq!(indexes(&found), expected, "{id}");
        assert_eq!(
            (found.source.as_str(), found.range.clone()),
            ("public.orders", 0..size as u64)
        );
        assert_eq!(found.key, [id.to_string()]);
        let as_text = proof(
            &mut c,
            &format!("absence_proof('audit', 'orders', '{id}', 5, 8)"),
        );
        assert_eq!(
            indexes(&as_text.verify(&policy()).unwrap()),
            expected,
            "{id}"
        );
        let in_sql: Vec<String> = column(
            &mut c,
            &format!(
                "SELECT concat_ws(' ', v.valid, v.origin, v.source_table, v.key::text, v.from_leaf_index, v.to_leaf_index, v.leaf_indexes = '{{{}}}', v.problem)
                   FROM absence_proof_of('audit', 'orders', {id}) p, verify_absence(p.cbor, '{}') v",
                expected.iter().map(i64::to_string).collect::<Vec<_>>().join(","),
                key().verifier_key()
            ),
        );
        assert_eq!(
            in_sql,
            [format!(
                "t example.com/audit public.orders {{{id}}} 0 {size} t"
            )]
        );
    }
    // Kept leaf data are shown, and say which row it is.
    let seven = proven(&mut c, "absence_proof_of('audit', 'orders', 7)");
    assert!(
        seven
            .entries
            .iter()
            .all(|e| matches!(&e.content, Content::Row(leaf) if leaf.source == "public.orders"))
    );
    // A key of two columns; the key 7 of another table is another key.
    for (key, count) in [
        ("'a', 1", 2),
        ("'a', 2", 1),
        ("'7', 1", 1),
        ("'a', 3", 0),
        ("'c', 1", 0),
    ] {
        let found = proven(
            &mut c,
            &format!("absence_proof_of('audit', 'lines', {key})"),
        );
        assert_eq!(found.entries.len(), count, "{key}");
        assert_eq!(found.key.len(), 2);
    }
    assert_eq!(findings(&mut c, "audit"), Vec::<String>::new());
    // Another key convinces nobody.
    let other = key_of_another();
    let refused: String = one(
        &mut c,
        &format!(
            "SELECT v.valid || ' ' || v.problem FROM absence_proof_of('audit', 'orders', 0) p, verify_absence(p.json, '{other}') v"
        ),
    );
    assert!(refused.starts_with("false "), "{refused}");
}

fn key_of_another() -> String {
    let name = KeyName::new("example.com/audit").unwrap();
    let other = SigningKey::from_seed(name, SignatureType::Ed25519, &[8; 32]).unwrap();
    other.verifier_key().to_string()
}

#[test]
fn ranges_lie_one_behind_the_other_and_a_proof_is_about_those_that_are_asked_for() {
    let (_cluster, mut c) = served();
    let size: i64 = one(&mut c, "SELECT merkle_size('audit')");
    for (call, state) in [
        (format!("seal_range('audit', {})", size + 1), "22003"),
        ("seal_range('audit', -1)".to_owned(), "22003"),
        (
            "seal_range('merkle_log_administration')".to_owned(),
            "42939",
        ),
        ("absence_proof_of('audit', 'orders', 7)".to_owned(), "55000"),
    ] {
        let message = error(&mut c, &format!("SELECT {call}"));
        assert!(message.starts_with(state), "{call}: {message}");
    }
    assert_eq!(
        sealed(&mut c, "seal_range('audit', 0)"),
        Vec::<String>::new()
    );
    assert_eq!(
        sealed(&mut c, "seal_range('audit', 1)"),
        [format!("0 1 {size} 1")]
    );
    assert_eq!(
        sealed(&mut c, "seal_range('audit', 100)"),
        [format!("1 100 {} 99", size + 1)]
    );
    assert_eq!(
        sealed(&mut c, "seal_range('audit', 50)"),
        Vec::<String>::new()
    );
    let rest = sealed(&mut c, "seal_range('audit')");
    assert!(
        rest[0].starts_with(&format!("100 {}", size + 2)),
        "{rest:?}"
    );
    run(&mut c, "SELECT checkpoint('audit')");
    // The only key of an index, and its two sides.
    assert_eq!(
        indexes(&proven(
            &mut c,
            "absence_proof('audit', 'orders', '1', 0, 1)"
        )),
        [0]
    );
    for absent in 1000..1020 {
        assert!(
            proven(
                &mut c,
                &format!("absence_proof('audit', 'orders', '{absent}', 0, 1)")
            )
            .entries
            .is_empty()
        );
    }
    for (between, range) in [
        ("0, 1", 0..1),
        ("0, 2", 0..100),
        ("1, 2", 1..100),
        ("99, 100", 1..100),
        ("99, 101", 1..size as u64 + 2),
        ("NULL, 100", 0..100),
        ("100, NULL", 100..size as u64 + 2),
        ("NULL, NULL", 0..size as u64 + 2),
    ] {
        let found = proven(
            &mut c,
            &format!("absence_proof('audit', 'orders', '7', {between})"),
        );
        assert_eq!(found.range, range, "{between}");
        let within: Vec<i64> = column(
            &mut c,
            &format!(
                "SELECT leaf_index FROM merkle_log WHERE source_id = 1 AND source_key = '7' AND leaf_index >= {} AND leaf_index < {} ORDER BY 1",
                range.start, range.end
            ),
        );
        assert_eq!(indexes(&found), within, "{between}");
    }
    for (between, state) in [
        ("5, 5", "22023"),
        ("9, 8", "22023"),
        ("-1, 8", "22023"),
        (&*format!("0, {}", size + 3), "55000"),
        ("0, 9223372036854775807", "55000"),
        ("9223372036854775807, NULL", "22023"),
        ("NULL, 0", "22023"),
        ("NULL, -9223372036854775808", "22023"),
    ] {
        let message = error(
            &mut c,
            &format!("SELECT absence_proof('audit', 'orders', '7', {between})"),
        );
        assert!(message.starts_with(state), "{between}: {message}");
    }
    // What comes later is in the next range, the seals of the ones before included.
    run(&mut c, "INSERT INTO orders VALUES (1001, 'new')");
    drain(&mut c, "audit");
    assert_eq!(sealed(&mut c, "seal_range('audit')").len(), 1);
    assert!(
        error(
            &mut c,
            &format!(
                "SELECT absence_proof('audit', 'orders', '7', 0, {})",
                size + 4
            )
        )
        .contains("entry")
    );
    // Without an end, a proof is of what a checkpoint has.
    assert_eq!(
        proven(&mut c, "absence_proof_of('audit', 'orders', 1001)")
            .range
            .end,
        size as u64 + 2
    );
    run(&mut c, "SELECT checkpoint('audit')");
    assert_eq!(
        indexes(&proven(&mut c, "absence_proof_of('audit', 'orders', 1001)")).len(),
        1
    );
    assert_eq!(findings(&mut c, "audit"), Vec::<String>::new());
    run(&mut c, "SELECT drop_log('audit', confirm => true)");
    assert_eq!(
        one::<i64>(
            &mut c,
            "SELECT (SELECT count(*) FROM merkle_sealed_range) + (SELECT count(*) FROM merkle_sealed_key)"
        ),
        0
    );
}

#[test]
fn a_log_of_random_changes_proves_what_a_map_says() {
    let (_cluster, mut c) = served();
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..12 {
        for _ in 0..rng.random_range(0..40) {
            let id = rng.random_range(590..640);
            let sql = match rng.random_range(0..4) {
                0 => format!("DELETE FROM orders WHERE id = {id}"),
                1 => format!("DELETE FROM lines WHERE line = {}", rng.random_range(0..9)),
                2 => format!(
                    "INSERT INTO lines VALUES ('k{}', {}, 'r') ON CONFLICT (name, line) DO UPDATE SET note = lines.note || 'r'",
                    id % 5,
                    rng.random_range(0..9)
                ),
                _ => format!(
                    "INSERT INTO orders VALUES ({id}, 'r') ON CONFLICT (id) DO UPDATE SET note = orders.note || 'r'"
                ),
            };
            run(&mut c, &sql);
        }
        drain(&mut c, "audit");
        let size: i64 = one(&mut c, "SELECT merkle_size('audit')");
        match rng.random_range(0..3) {
            0 => run(
                &mut c,
                &format!("SELECT seal_range('audit', {})", rng.random_range(0..=size)),
            ),
            1 => run(&mut c, "SELECT seal_range('audit')"),
            _ => {}
        }
    }
    run(&mut c, "SELECT seal_range('audit')");
    run(&mut c, "SELECT checkpoint('audit')");
    let rows = c.query("SELECT source_id, source_key, leaf_index FROM merkle_log WHERE log_id = 1 AND leaf_index < (SELECT max(to_leaf_index) FROM sealed_ranges('audit')) ORDER BY leaf_index", &[]).unwrap();
    let mut model: BTreeMap<(i32, String), Vec<i64>> = BTreeMap::new();
    for row in &rows {
        model
            .entry((row.get(0), row.get(1)))
            .or_default()
            .push(row.get(2));
    }
    let mut asked: Vec<(i32, String)> = model
        .keys()
        .filter(|(source, _)| *source > 0)
        .cloned()
        .collect();
    asked.retain(|_| rng.random_bool(0.2));
    asked.extend((0..20).map(|n| (1, (10_000 + n).to_string())));
    asked.extend((0..9).map(|n| (2, format!("{{absent,{n}}}"))));
    for (source, key) in asked {
        let table = ["orders", "lines"][source as usize - 1];
        let found = proven(
            &mut c,
            &format!("absence_proof('audit', '{table}', '{key}')"),
        );
        let expected = model
            .get(&(source, key.clone()))
            .cloned()
            .unwrap_or_default();
        assert_eq!(indexes(&found), expected, "{table} {key}, seed {seed}");
    }
    assert_eq!(
        findings(&mut c, "audit"),
        Vec::<String>::new(),
        "seed {seed}"
    );
}

#[test]
fn an_index_that_was_altered_is_a_finding_and_makes_no_proof() {
    let (_cluster, mut c) = served();
    run(
        &mut c,
        "SELECT seal_range('audit', 300); SELECT seal_range('audit')",
    );
    run(&mut c, "SELECT checkpoint('audit')");
    assert_eq!(findings(&mut c, "audit"), Vec::<String>::new());
    let truth: Vec<(i64, Vec<i64>)> = [7, 77, 1000]
        .map(|id| {
            let sql = format!("SELECT leaf_index FROM merkle_log WHERE source_id = 1 AND source_key = '{id}' ORDER BY 1");
            (id, column(&mut c, &sql))
        })
        .to_vec();
    let altered = [
        "UPDATE merkle_sealed_range SET to_leaf_index = to_leaf_index - 1 WHERE from_leaf_index = 0",
        "UPDATE merkle_sealed_range SET to_leaf_index = to_leaf_index + 1 WHERE from_leaf_index = 0",
        "UPDATE merkle_sealed_range SET to_leaf_index = 9223372036854775807 WHERE from_leaf_index = 0",
        "UPDATE merkle_sealed_range SET from_leaf_index = -9223372036854775808 WHERE from_leaf_index = 0",
        "UPDATE merkle_sealed_range SET leaf_index = leaf_index - 1 WHERE from_leaf_index = 300",
        "UPDATE merkle_sealed_range SET leaf_index = -1 WHERE from_leaf_index = 300",
        "UPDATE merkle_sealed_range SET keys = keys - 1",
        "UPDATE merkle_sealed_range SET keys = -1",
        "UPDATE merkle_sealed_range SET root_hash = sha256('')",
        "UPDATE merkle_sealed_range SET root_hash = ''",
        "UPDATE merkle_sealed_range SET index_root = sha256('')",
        "UPDATE merkle_sealed_range SET secret = sha256('')",
        "UPDATE merkle_sealed_range SET secret = ''",
        "UPDATE merkle_sealed_range SET log_id = 77",
        "DELETE FROM merkle_sealed_range WHERE from_leaf_index = 300",
        "DELETE FROM merkle_sealed_range",
        "INSERT INTO merkle_sealed_range SELECT log_id, 500, 501, leaf_index, keys, root_hash, index_root, secret FROM merkle_sealed_range WHERE from_leaf_index = 0",
        "DELETE FROM merkle_sealed_key WHERE from_leaf_index = 300 AND run = 1",
        "DELETE FROM merkle_sealed_key",
        "UPDATE merkle_sealed_key SET run = run + 10 WHERE run = 1",
        "UPDATE merkle_sealed_key SET from_leaf_index = 5 WHERE from_leaf_index = 0",
        "UPDATE merkle_sealed_key SET log_id = 77",
        "UPDATE merkle_sealed_key SET first_key = sha256('') WHERE run = 0",
        "UPDATE merkle_sealed_key SET root_hash = sha256('') WHERE run = 0",
        "UPDATE merkle_sealed_key SET keys = set_byte(keys, 40, get_byte(keys, 40) # 1) WHERE run = 0",
        "UPDATE merkle_sealed_key SET keys = substring(keys FROM 45) WHERE run = 0",
        "UPDATE merkle_sealed_key SET keys = '' WHERE run = 0",
        "UPDATE merkle_sealed_key SET keys = keys || keys WHERE run = 0",
        "UPDATE merkle_log SET source_key = '100000' WHERE source_key = '77'",
        "UPDATE merkle_leaf_data SET leaf_data = NULL WHERE leaf_index = (SELECT max(leaf_index) FROM merkle_sealed_range)",
        "DELETE FROM merkle_leaf_data WHERE leaf_index = (SELECT min(leaf_index) FROM merkle_sealed_range)",
    ];
    for edit in altered {
        run(&mut c, &format!("BEGIN; {edit}"));
        let kinds: Vec<String> = column(
            &mut c,
            "SELECT DISTINCT kind FROM verify_log('audit') UNION SELECT kind FROM verify_log('merkle_log_administration')",
        );
        assert!(!kinds.is_empty(), "{edit}");
        if edit.contains("merkle_sealed")
            && !edit.contains("log_id = 77")
            && !edit.starts_with("DELETE FROM merkle_sealed_range")
        {
            assert!(
                kinds.contains(&"seal_altered".to_owned()),
                "{edit}: {kinds:?}"
            );
        }
        run(&mut c, "SAVEPOINT before");
        // Whatever is handed out still proves the truth.
        for (id, entries) in &truth {
            let sql = format!("SELECT json FROM absence_proof_of('audit', 'orders', {id})");
            match c.query_one(&sql, &[]) {
                Ok(row) => {
                    let proof = AbsenceProof::from_bytes(row.get::<_, &str>(0).as_bytes()).unwrap();
                    if let Ok(found) = proof.verify(&policy()) {
                        let there = entries.iter().copied();
                        let there: Vec<i64> = there
                            .filter(|at| found.range.contains(&(*at as u64)))
                            .collect();
                        assert_eq!(indexes(&found), there, "{edit}: {id}");
                    }
                }
                Err(_) => run(&mut c, "ROLLBACK TO before"),
            }
        }
        run(&mut c, "ROLLBACK");
    }
    assert_eq!(findings(&mut c, "audit"), Vec::<String>::new());
}

#[test]
fn an_index_that_was_forged_when_it_was_sealed_is_found() {
    let (_cluster, mut c) = served();
    // Sealed while the entry of an order is another's: the index is honest about the wrong keys.
    run(
        &mut c,
        "UPDATE merkle_log SET source_key = '100000' WHERE source_id = 1 AND source_key = '77';
         SELECT seal_range('audit');
         UPDATE merkle_log SET source_key = '77' WHERE source_id = 1 AND source_key = '100000'",
    );
    run(&mut c, "SELECT checkpoint('audit')");
    let denied = proven(&mut c, "absence_proof_of('audit', 'orders', 77)");
    assert!(denied.entries.is_empty() && denied.range.contains(&76));
    // Everything else of the log is as it was, and the lie is found: by verification,
    assert_eq!(findings(&mut c, "audit"), ["seal_altered 0"]);
    let detail: String = one(&mut c, "SELECT detail FROM verify_log('audit')");
    assert!(detail.contains("entries 0 to "), "{detail}");
    // and by whoever has one entry of the key.
    let bundle: String = one(
        &mut c,
        "SELECT json FROM proof_bundle_of('audit', 'orders', 77)",
    );
    let bundle = tlog::ProofBundle::from_bytes(bundle.as_bytes()).unwrap();
    let has = bundle.verify(&policy()).unwrap();
    assert!(matches!(&has.entries[0].content, Content::Row(leaf) if leaf.source == denied.source));
}

#[test]
fn a_range_is_not_sealed_twice() {
    let (_cluster, mut c) = served();
    run(&mut c, "SELECT seal_range('audit', 300)");
    // Somebody who would like to have another index of the same entries.
    run(
        &mut c,
        "CREATE TABLE kept AS SELECT * FROM merkle_sealed_range; CREATE TABLE kept_keys AS SELECT * FROM merkle_sealed_key;
         DELETE FROM merkle_sealed_range; DELETE FROM merkle_sealed_key; SELECT seal_range('audit', 300)",
    );
    let twice = findings(&mut c, "audit");
    assert!(!twice.is_empty());
    run(
        &mut c,
        "DELETE FROM merkle_sealed_range; DELETE FROM merkle_sealed_key;
         INSERT INTO merkle_sealed_range SELECT * FROM kept; INSERT INTO merkle_sealed_key SELECT * FROM kept_keys",
    );
    assert!(!findings(&mut c, "audit").is_empty());
}

#[test]
fn keys_are_told_to_those_who_may_read_them() {
    let (cluster, mut c) = served();
    run(&mut c, "SELECT seal_range('audit')");
    run(&mut c, "SELECT checkpoint('audit')");
    let mut nobody = cluster.client_as("postgres", "nobody");
    for (there, absent) in [
        (
            "absence_proof_of('audit', 'orders', 7)",
            "absence_proof_of('audit', 'orders', 1000)",
        ),
        (
            "absence_proof('audit', 'orders', '7')",
            "absence_proof('audit', 'orders', '1000')",
        ),
        (
            "absence_proof('audit', 'orders', '7', 0, 100000)",
            "absence_proof('audit', 'orders', '1000', 0, 100000)",
        ),
        (
            "absence_proof('audit', 'orders', '7', 3, 3)",
            "absence_proof('audit', 'orders', '1000', 3, 3)",
        ),
    ] {
        let [a, b] = [there, absent].map(|call| error(&mut nobody, &format!("SELECT {call}")));
        assert!(a.starts_with("42501"), "{a}");
        assert_eq!(a, b);
    }
    for denied in [
        "SELECT seal_range('audit')",
        "SELECT * FROM merkle_sealed_key",
        "SELECT * FROM merkle_sealed_range",
    ] {
        assert!(error(&mut nobody, denied).starts_with("42501"), "{denied}");
    }
    let shown: Vec<Option<Vec<u8>>> =
        column(&mut nobody, "SELECT secret FROM sealed_ranges('audit')");
    assert_eq!(shown, [None]);
    let shown: Vec<Option<Vec<u8>>> = column(&mut c, "SELECT secret FROM sealed_ranges('audit')");
    assert_eq!(shown[0].as_ref().map(Vec::len), Some(32));
    // Who may read the key sees which entries there are, and not what is in them.
    let mut of_keys = cluster.client_as("postgres", "of_keys");
    let hashes = proof(&mut of_keys, "absence_proof_of('audit', 'orders', 7)");
    assert_eq!(indexes(&hashes.verify(&policy()).unwrap()).len(), 3);
    assert!(
        hashes
            .entries
            .iter()
            .all(|e| matches!(e.leaf, BundleLeaf::Hash(_)))
    );
    let mut reader = cluster.client_as("postgres", "reader");
    let data = proof(&mut reader, "absence_proof_of('audit', 'orders', 7)");
    assert!(
        data.entries
            .iter()
            .all(|e| matches!(e.leaf, BundleLeaf::Data(_)))
    );
    assert!(
        error(
            &mut reader,
            "SELECT absence_proof_of('audit', 'lines', 'a', 1)"
        )
        .starts_with("42501")
    );
}

#[test]
fn redaction_retention_and_retirement_leave_proofs_true() {
    let (_cluster, mut c) = served();
    run(
        &mut c,
        "CREATE TABLE people (mail text PRIMARY KEY, name text); SELECT create_log('people', origin => 'example.com/audit');
         SELECT add_source('people', 'people', capture => 'trigger', salted => true, store_leaf_data => true, allow_truncate => true);
         INSERT INTO people SELECT 'p' || i, 'x' FROM generate_series(1, 700) i",
    );
    drain(&mut c, "people");
    run(
        &mut c,
        "SELECT seal_range('people', 600); SELECT redact_row_of('people', 'people', 'asked for', 'p5')",
    );
    run(
        &mut c,
        "UPDATE people SET name = 'y' WHERE mail = 'p5'; TRUNCATE people",
    );
    drain(&mut c, "people");
    run(&mut c, "SELECT seal_range('people')");
    run(&mut c, "SELECT checkpoint('people')");
    let faults = "SELECT kind FROM verify_log('people') WHERE kind NOT IN (SELECT kind FROM finding_kinds() WHERE fault_of = 'nobody')";
    assert_eq!(column::<String>(&mut c, faults), Vec::<String>::new());
    // What is shown of a salted row is a hash, redacted or not.
    for (mail, count) in [("p5", 2), ("p6", 1), ("p0", 0)] {
        let proof = proof(
            &mut c,
            &format!("absence_proof_of('people', 'people', '{mail}')"),
        );
        assert_eq!(
            proof.verify(&policy()).unwrap().entries.len(),
            count,
            "{mail}"
        );
        assert!(
            proof
                .entries
                .iter()
                .all(|e| matches!(e.leaf, BundleLeaf::Hash(_)))
        );
    }
    // Pruning in the middle of a range, then behind its seal.
    run(&mut c, "SELECT prune_log('people', 512)");
    assert_eq!(column::<String>(&mut c, faults), Vec::<String>::new());
    assert!(
        proven(&mut c, "absence_proof_of('people', 'people', 'p0')")
            .range
            .contains(&3)
    );
    let pruned = error(&mut c, "SELECT absence_proof_of('people', 'people', 'p6')");
    assert!(pruned.starts_with("P0002"), "{pruned}");
    assert_eq!(
        proven(&mut c, "absence_proof_of('people', 'people', 'p650')")
            .entries
            .len(),
        1
    );
    run(
        &mut c,
        "UPDATE merkle_sealed_key SET keys = set_byte(keys, 40, get_byte(keys, 40) # 1) WHERE from_leaf_index = 0 AND log_id = 2 AND run = 1",
    );
    assert_eq!(column::<String>(&mut c, faults), ["seal_altered"]);
    run(
        &mut c,
        "UPDATE merkle_sealed_key SET keys = set_byte(keys, 40, get_byte(keys, 40) # 1) WHERE from_leaf_index = 0 AND log_id = 2 AND run = 1",
    );
    run(
        &mut c,
        "INSERT INTO people SELECT 'q' || i, 'x' FROM generate_series(1, 400) i",
    );
    drain(&mut c, "people");
    run(&mut c, "SELECT prune_log('people', 768)");
    assert_eq!(column::<String>(&mut c, faults), Vec::<String>::new());
    assert_eq!(
        one::<i64>(&mut c, "SELECT count(*) FROM sealed_ranges('people')"),
        0
    );
    assert!(sealed(&mut c, "seal_range('people')")[0].starts_with("768 "));
    assert_eq!(column::<String>(&mut c, faults), Vec::<String>::new());
}

#[test]
fn a_key_that_may_be_written_otherwise_is_refused() {
    let (_cluster, mut c) = served();
    run(
        &mut c,
        "CREATE TABLE prices (id numeric PRIMARY KEY); CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE moods (mood mood PRIMARY KEY); CREATE TABLE retyped (id int PRIMARY KEY);
         SELECT create_log('keys', origin => 'example.com/keys');
         SELECT add_source('keys', t::regclass, capture => 'trigger') FROM unnest('{prices,moods,retyped}'::text[]) t;
         INSERT INTO prices VALUES (1.0); INSERT INTO moods VALUES ('sad'), ('ok'); INSERT INTO retyped VALUES (1)",
    );
    drain(&mut c, "keys");
    run(
        &mut c,
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'glum'; ALTER TABLE retyped ALTER COLUMN id TYPE text; UPDATE moods SET mood = mood",
    );
    drain(&mut c, "keys");
    run(&mut c, "SELECT seal_range('keys')");
    for call in [
        "absence_proof_of('keys', 'prices', 1)",
        "absence_proof_of('keys', 'prices', 2.50)",
        "absence_proof_of('keys', 'moods', 'glum')",
        "absence_proof_of('keys', 'retyped', '1')",
    ] {
        let message = error(&mut c, &format!("SELECT {call}"));
        assert!(
            message.starts_with("0A000") && message.contains("history_of"),
            "{call}: {message}"
        );
    }
    // The index does not depend on what became of the table.
    run(
        &mut c,
        "SELECT remove_source('keys', 'prices'); DROP TABLE prices",
    );
    let faults = "SELECT kind FROM verify_log('keys') WHERE kind IN (SELECT kind FROM finding_kinds() WHERE fault_of = 'extension')";
    assert_eq!(column::<String>(&mut c, faults), Vec::<String>::new());
}

#[test]
fn sealing_is_done_in_ranges_of_a_fixed_size_and_survives_a_crash() {
    let (cluster, mut c) = served();
    run(
        &mut c,
        "CREATE TABLE many (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k int); SELECT create_log('many', origin => 'example.com/many', batch_size => 1000000);
         SELECT add_source('many', 'many', order_column => 'id'); INSERT INTO many (k) SELECT i FROM generate_series(1, 150000) i",
    );
    drain(&mut c, "many");
    // What is not committed leaves nothing behind.
    run(&mut c, "BEGIN; SELECT seal_range('many'); ROLLBACK");
    assert_eq!(
        one::<i64>(&mut c, "SELECT count(*) FROM merkle_sealed_key"),
        0
    );
    let mut other = cluster.client("postgres");
    run(&mut other, "BEGIN; SELECT seal_range('many')");
    cluster.kill_9();
    cluster.restart();
    let mut c = cluster.client("postgres");
    assert_eq!(one::<i64>(&mut c, "SELECT merkle_size('many')"), 150_000);
    assert_eq!(
        sealed(&mut c, "seal_range('many')"),
        [
            "0 65536 150000 65536",
            "65536 131072 150001 65536",
            "131072 150000 150002 18928"
        ]
    );
    assert_eq!(sealed(&mut c, "seal_range('many')"), Vec::<String>::new());
    assert_eq!(one::<i64>(&mut c, "SELECT merkle_size('many')"), 150_003);
    assert_eq!(findings(&mut c, "many"), Vec::<String>::new());
    run(&mut c, "SELECT checkpoint('many')");
    let many = Policy::of_log(
        one::<String>(&mut c, "SELECT checkpoint_key('many')")
            .parse()
            .unwrap(),
    );
    for (id, count) in [
        (1, 1),
        (65_536, 1),
        (65_537, 1),
        (150_000, 1),
        (150_001, 0),
        (0, 0),
    ] {
        let proof = proof(&mut c, &format!("absence_proof_of('many', 'many', {id})"));
        assert_eq!(proof.verify(&many).unwrap().entries.len(), count, "{id}");
        assert!(
            proof.to_cbor().len() < 6_000,
            "{} bytes",
            proof.to_cbor().len()
        );
    }
}
