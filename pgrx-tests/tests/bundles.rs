//! Proof bundles: what the database hands out is proven elsewhere, by the key alone.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::*;
use tlog::{
    BundleLeaf, Content, KeyName, Policy, ProofBundle, SignatureType, SigningKey, TlogProof,
};

fn key() -> SigningKey {
    let name = KeyName::new("example.com/audit").unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519, &[7; 32]).unwrap()
}

fn policy() -> Policy {
    Policy::of_log(key().verifier_key())
}

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
        "CREATE ROLE reader LOGIN; CREATE ROLE nobody LOGIN;
         CREATE TABLE orders (id bigint PRIMARY KEY, note text); CREATE TABLE lines (order_id bigint, line int, note text, PRIMARY KEY (order_id, line));
         CREATE TABLE people (id int PRIMARY KEY, name text); GRANT SELECT ON orders TO reader; SELECT create_log('audit');
         SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true);
         SELECT add_source('audit', 'lines', capture => 'trigger');
         SELECT add_source('audit', 'people', capture => 'trigger', salted => true, store_leaf_data => true)",
    );
    run(
        &mut c,
        "INSERT INTO orders SELECT i, 'n' || i FROM generate_series(1, 600) i",
    );
    run(&mut c, "INSERT INTO lines VALUES (7, 3, 'a'), (7, 4, 'b')");
    run(&mut c, "INSERT INTO people VALUES (1, 'Ada')");
    drain(&mut c, "audit");
    run(&mut c, "SELECT checkpoint('audit')");
    (cluster, c)
}

fn bundle(c: &mut Client, call: &str) -> ProofBundle {
    let row = c
        .query_one(&format!("SELECT json, cbor FROM {call}"), &[])
        .unwrap();
    let json = ProofBundle::from_bytes(row.get::<_, &str>(0).as_bytes()).unwrap();
    let cbor = ProofBundle::from_bytes(row.get::<_, &[u8]>(1)).unwrap();
    assert_eq!(json, cbor, "{call}");
    json
}

#[test]
fn a_bundle_proves_a_row_to_whoever_has_the_key() {
    let (cluster, mut c) = served();
    let by_key = bundle(&mut c, "proof_bundle_of('audit', 'orders', 42)");
    assert_eq!(by_key, bundle(&mut c, "proof_bundle('audit', 41)"));
    let proven = by_key.verify(&policy()).unwrap();
    let [entry] = proven.entries.as_slice() else {
        panic!("one entry");
    };
    assert!(matches!(&entry.content, Content::Row(leaf) if leaf.source == "public.orders"));
    let label = entry.label.as_ref().unwrap();
    assert_eq!(label.key, [("id".to_owned(), "42".to_owned())]);
    // What the log does not keep is computed from the row, as long as that is what was logged.
    let line = bundle(&mut c, "proof_bundle_of('audit', 'lines', 7, 4)");
    assert!(matches!(line.entries[0].leaf, BundleLeaf::Data(_)));
    assert_eq!(
        line.entries[0].label.as_ref().unwrap().key[1],
        ("line".to_owned(), "4".to_owned())
    );
    line.verify(&policy()).unwrap();
    run(
        &mut c,
        "SET session_replication_role = replica; ALTER TABLE lines DISABLE TRIGGER ALL; UPDATE lines SET note = 'x' WHERE line = 4",
    );
    let line = bundle(&mut c, "proof_bundle_of('audit', 'lines', 7, 4)");
    assert!(matches!(line.entries[0].leaf, BundleLeaf::Hash(_)));
    line.verify(&policy()).unwrap();
    // A salted row is shown to nobody for ever.
    let person = bundle(&mut c, "proof_bundle_of('audit', 'people', 1)");
    assert!(matches!(person.entries[0].leaf, BundleLeaf::Hash(_)));
    person.verify(&policy()).unwrap();
    // Many rows share one checkpoint and have one proof.
    let many = bundle(
        &mut c,
        "proof_bundle('audit', VARIADIC ARRAY(SELECT generate_series(0, 599, 7)))",
    );
    assert_eq!(many.verify(&policy()).unwrap().entries.len(), 86);
    let (all, one_of_them): (i32, i32) = {
        let row = c
            .query_one(
                "SELECT (SELECT length(cbor) FROM proof_bundle('audit', VARIADIC ARRAY(SELECT generate_series(0, 599, 7)))),
                        (SELECT length(cbor) FROM proof_bundle('audit', 7))",
                &[],
            )
            .unwrap();
        (row.get(0), row.get(1))
    };
    assert!(
        all < one_of_them * 86 / 2,
        "{all} bytes, and {one_of_them} for one"
    );
    let text: String = one(&mut c, "SELECT tlog_proof FROM proof_bundle('audit', 41)");
    let proof: TlogProof = text.parse().unwrap();
    assert!(
        proof
            .verify(&by_key.entries[0].leaf.hash(), &policy())
            .is_ok()
    );
    // Content is for those who may read it; hashes are for everyone.
    let mut nobody = cluster.client_as("postgres", "nobody");
    let hidden = bundle(&mut nobody, "proof_bundle('audit', 41)");
    assert!(
        matches!(hidden.entries[0].leaf, BundleLeaf::Hash(_)) && hidden.entries[0].label.is_none()
    );
    hidden.verify(&policy()).unwrap();
    let said = error(&mut nobody, "SELECT proof_bundle_of('audit', 'orders', 42)");
    assert!(said.starts_with("42501"), "{said}");
    let mut reader = cluster.client_as("postgres", "reader");
    assert_eq!(bundle(&mut reader, "proof_bundle('audit', 41)"), by_key);
}

#[test]
fn a_bundle_is_checked_in_sql_and_a_changed_one_is_refused() {
    let (_cluster, mut c) = served();
    let key = key().verifier_key().to_string();
    let valid = |c: &mut Client, bundle: &[u8]| -> (bool, Option<String>) {
        let row = c
            .query_one(
                "SELECT valid, problem FROM verify_bundle($1::bytea, $2)",
                &[&bundle, &key],
            )
            .unwrap();
        (row.get(0), row.get(1))
    };
    let json: String = one(&mut c, "SELECT json FROM proof_bundle('audit', 41, 500)");
    let cbor: Vec<u8> = one(&mut c, "SELECT cbor FROM proof_bundle('audit', 41, 500)");
    assert_eq!(valid(&mut c, json.as_bytes()), (true, None));
    assert_eq!(valid(&mut c, &cbor), (true, None));
    let row = c
        .query_one(
            "SELECT origin, tree_size, leaf_indexes FROM verify_bundle($1::text, $2)",
            &[&json, &key],
        )
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "example.com/audit");
    assert_eq!(
        (row.get::<_, i64>(1), row.get::<_, Vec<i64>>(2)),
        (603, vec![41, 500])
    );
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..size(1000, 10_000) {
        let mut changed = cbor.clone();
        let at = random.random_range(0..changed.len());
        changed[at] ^= 1 << random.random_range(0..8);
        let (is_valid, problem) = valid(&mut c, &changed);
        // Labels are not proven: a changed text there may stand.
        let same = ProofBundle::from_bytes(&changed).is_ok_and(|b| {
            let original = ProofBundle::from_bytes(&cbor).unwrap();
            b.checkpoint.text() == original.checkpoint.text()
                && b.multiproof == original.multiproof
                && b.entries
                    .iter()
                    .zip(&original.entries)
                    .all(|(a, b)| (a.index, &a.leaf, &a.path) == (b.index, &b.leaf, &b.path))
        });
        assert!(!is_valid || same, "byte {at} was changed");
        assert_eq!(is_valid, problem.is_none());
    }
    let other = SigningKey::from_seed(
        KeyName::new("example.com/audit").unwrap(),
        SignatureType::Ed25519,
        &[8; 32],
    )
    .unwrap();
    let row = c
        .query_one(
            "SELECT valid FROM verify_bundle($1::text, $2)",
            &[&json, &other.verifier_key().to_string()],
        )
        .unwrap();
    assert!(!row.get::<_, bool>(0));
    assert!(error(&mut c, "SELECT verify_bundle('{}', 'x')").contains("verifier key"));
    for (call, state, says) in [
        ("proof_bundle('audit')", "42883", "proof_bundle"),
        (
            "proof_bundle('audit', VARIADIC '{}')",
            "22023",
            "one leaf index",
        ),
        ("proof_bundle('audit', NULL)", "22004", "leaf_index"),
        ("proof_bundle('audit', -1)", "22003", "leaf index"),
        ("proof_bundle('audit', 603)", "P0002", "checkpoint('audit')"),
    ] {
        let said = error(&mut c, &format!("SELECT {call}"));
        assert!(
            said.starts_with(state) && said.contains(says),
            "{call}: {said}"
        );
    }
    // What came after the last checkpoint is proven once that is signed.
    run(&mut c, "INSERT INTO orders VALUES (601, 'new')");
    drain(&mut c, "audit");
    let said = error(&mut c, "SELECT proof_bundle_of('audit', 'orders', 601)");
    assert!(
        said.starts_with("P0002") && said.contains("was signed yet"),
        "{said}"
    );
    run(&mut c, "SELECT checkpoint('audit')");
    bundle(&mut c, "proof_bundle_of('audit', 'orders', 601)")
        .verify(&policy())
        .unwrap();
    // An old bundle stays true: no rewriting behind it goes unseen by who has it and a new checkpoint.
    assert_eq!(valid(&mut c, &cbor), (true, None));
}

#[test]
fn a_row_is_proven_through_the_hub_that_has_its_logs_checkpoint() {
    let (cluster, mut c) = served();
    // The hub is in another database, under another origin: a log whose rows are checkpoints.
    run(&mut c, "CREATE DATABASE hub");
    let mut hub = cluster.client("hub");
    run(
        &mut hub,
        "CREATE EXTENSION merkle_log; CREATE TABLE heads (origin text, tree_size bigint, checkpoint text, PRIMARY KEY (origin, tree_size));
         SELECT create_log('hub'); SELECT add_source('hub', 'heads', capture => 'trigger', store_leaf_data => true)",
    );
    let note: String = one(&mut c, "SELECT checkpoint('audit')");
    hub.execute(
        "INSERT INTO heads VALUES ('example.com/audit', 603, $1)",
        &[&note],
    )
    .unwrap();
    drain(&mut hub, "hub");
    run(&mut hub, "SELECT checkpoint('hub')");
    let outer: Vec<u8> = one(
        &mut hub,
        "SELECT cbor FROM proof_bundle_of('hub', 'heads', 'example.com/audit', 603)",
    );
    // The log has gone on, and a later checkpoint is not in the hub.
    run(&mut c, "INSERT INTO orders VALUES (601, 'new')");
    drain(&mut c, "audit");
    run(&mut c, "SELECT checkpoint('audit')");
    let nest = |c: &mut Client, inner: &str| {
        let sql = format!("SELECT n.json, n.cbor FROM {inner} b, nest_bundle(b.cbor, $1) n");
        c.query_one(&sql, &[&outer])
            .map(|row| (row.get::<_, String>(0), row.get::<_, Vec<u8>>(1)))
    };
    let later = nest(&mut c, "proof_bundle_of('audit', 'orders', 42)").unwrap_err();
    let later = later.as_db_error().unwrap();
    assert_eq!(later.code().code(), "22023");
    assert!(
        later.message().contains("another checkpoint")
            && later.hint().unwrap().contains("proof_bundle_at")
    );
    let (json, cbor) = nest(&mut c, "proof_bundle_at('audit', 603, 41, 500)").unwrap();
    assert_eq!(
        ProofBundle::from_json(json.as_bytes()).unwrap(),
        ProofBundle::from_cbor(&cbor).unwrap()
    );
    let text: String = c
        .query_one(
            "SELECT n.json FROM proof_bundle_at('audit', 603, 41, 500) b, nest_bundle(b.json, $1) n",
            &[&ProofBundle::from_cbor(&outer).unwrap().to_json()],
        )
        .unwrap()
        .get(0);
    assert_eq!(text, json);
    // Both keys are needed, and either level is seen to be altered.
    let keys = [
        key().verifier_key(),
        key()
            .of_log(KeyName::new("example.com/hub").unwrap())
            .unwrap()
            .verifier_key(),
    ]
    .map(|key| key.to_string());
    let verified = |c: &mut Client, bundle: &[u8], keys: &[String]| {
        let row = c
            .query_one("SELECT valid, origin, hubs, problem FROM verify_bundle($1::bytea, VARIADIC $2::text[])", &[&bundle, &keys])
            .unwrap();
        let problem: Option<String> = row.get(3);
        assert_eq!(row.get::<_, bool>(0), problem.is_none());
        row.get::<_, Option<String>>(1)
            .zip(row.get::<_, Option<Vec<String>>>(2))
    };
    let proven = Some((
        "example.com/audit".to_owned(),
        vec!["example.com/hub".to_owned()],
    ));
    assert_eq!(verified(&mut c, &cbor, &keys), proven);
    assert_eq!(verified(&mut c, &cbor, &keys[..1]), None);
    assert_eq!(verified(&mut c, &cbor, &keys[1..]), None);
    let bundle = ProofBundle::from_cbor(&cbor).unwrap();
    let mut unlike = bundle.clone();
    let node = bundle.entries[0].leaf.hash();
    unlike.hub.as_mut().unwrap().entries[0].path.push(node);
    assert_eq!(verified(&mut c, &unlike.to_cbor(), &keys), None);
    let policy = Policy::of_logs(keys.map(|key| key.parse().unwrap()));
    assert_eq!(
        bundle.verify(&policy).unwrap().hub.unwrap().entries.len(),
        1
    );
    for (call, state, says) in [
        (
            "proof_bundle_at('audit', 602, 1)",
            "P0002",
            "no checkpoint of size 602",
        ),
        (
            "proof_bundle_at('audit', 603, 603)",
            "P0002",
            "has entry 603",
        ),
        ("proof_bundle_at('audit', NULL, 1)", "22004", "tree_size"),
        ("nest_bundle('{}', '{}')", "22023", "cannot be nested"),
        (
            "verify_bundle('{}', VARIADIC '{NULL}')",
            "22004",
            "verifier_key",
        ),
    ] {
        let said = error(&mut c, &format!("SELECT {call}"));
        assert!(
            said.starts_with(state) && said.contains(says),
            "{call}: {said}"
        );
    }
}
