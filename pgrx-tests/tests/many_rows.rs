//! Proofs of many rows at once: by keys, and one proof of all.

use merkle_tree::{Hash, LeafIndex, TreeSize};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::*;
use tlog::{KeyName, Policy, ProofBundle, SignatureType, SigningKey};

const ROWS: i64 = 70_123;

fn served() -> (Cluster, Client) {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        &format!(
            "CREATE ROLE nobody LOGIN;
             CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
             CREATE TABLE lines (order_id bigint, line smallint, day date, PRIMARY KEY (order_id, line, day));
             SELECT create_log('audit', batch_size => 100000), create_log('history');
             SELECT add_source('audit', 'orders', order_column => 'id');
             SELECT add_source('history', 'lines', capture => 'trigger');
             INSERT INTO orders (note) SELECT i FROM generate_series(1, {ROWS}) i;
             INSERT INTO lines SELECT i / 3, i % 3, date '2024-01-01' + i FROM generate_series(0, 599) i"
        ),
    );
    drain(&mut c, "audit");
    drain(&mut c, "history");
    // Not in any log.
    run(&mut c, "INSERT INTO orders (note) VALUES ('new')");
    (cluster, c)
}

#[test]
fn proofs_by_many_keys_are_those_by_each_key() {
    let (_cluster, mut c) = served();
    // A row of each call: given keys with their numbers, and the proof that is made of each alone.
    for (table, log, given, of, each) in [
        (
            "orders",
            "audit",
            "SELECT ARRAY[7, 70123, 1, 7, 300]",
            "k.a",
            "SELECT n, p FROM unnest(ARRAY[7, 70123, 1, 7, 300]) WITH ORDINALITY k (id, n), inclusion_proof_of('audit', 'orders', id) p",
        ),
        (
            "orders",
            "audit",
            "SELECT ARRAY['12', '40000']",
            "k.a",
            "SELECT n, p FROM unnest(ARRAY['12', '40000']) WITH ORDINALITY k (id, n), inclusion_proof_of('audit', 'orders', id) p",
        ),
        (
            "lines",
            "history",
            "SELECT array_agg(order_id ORDER BY day DESC), array_agg(line ORDER BY day DESC), array_agg(day::timestamp ORDER BY day DESC) FROM lines",
            "k.a, k.b, k.c",
            "SELECT row_number() OVER (ORDER BY day DESC), p FROM lines, inclusion_proof_of('history', 'lines', order_id, line, day) p",
        ),
    ] {
        let columns = &["a", "b", "c"][..of.split(',').count()].join(", ");
        let many = format!(
            "SELECT key_number, (leaf_index, tree_size, leaf_hash, root_hash, path)::text AS p
               FROM ({given}) k ({columns}), inclusion_proofs_of_rows('{log}', '{table}', {of})"
        );
        let each = format!("SELECT n, p::text AS p FROM ({each}) e (n, p)");
        let differing: i64 = one(
            &mut c,
            &format!(
                "SELECT count(*) FROM ({many}) many (n, p) FULL JOIN ({each}) each USING (n) WHERE many.p IS DISTINCT FROM each.p"
            ),
        );
        assert_eq!(differing, 0, "{given}");
        let count: i64 = one(&mut c, &format!("SELECT count(*) FROM ({many}) m"));
        assert!(count > 1);
        assert_eq!(
            count,
            one::<i64>(&mut c, &format!("SELECT count(*) FROM ({each}) e"))
        );
    }
    // In order of leaf index, one row a key; a key that is not in the log has no proof.
    let sql = format!(
        "SELECT key_number || ' ' || COALESCE(leaf_index::text, 'none') FROM inclusion_proofs_of_rows('audit', 'orders', ARRAY[9, {}, 2, 9, 0])",
        ROWS + 1
    );
    assert_eq!(
        column::<String>(&mut c, &sql),
        ["3 1", "1 8", "4 8", "2 none", "5 none"]
    );
    let none = "SELECT count(*) FROM inclusion_proofs_of_rows('audit', 'orders', '{}'::int[])";
    assert_eq!(one::<i64>(&mut c, none), 0);
    let some = "SELECT count(*) FROM (SELECT inclusion_proofs_of_rows('audit', 'orders', ARRAY(SELECT generate_series(1, 5000))) LIMIT 3) s";
    assert_eq!(one::<i64>(&mut c, some), 3);
    // Which row each is of, as docs/operations.md has it.
    let joined = "SELECT count(*) FROM (SELECT array_agg(id ORDER BY note) AS ids FROM orders WHERE id < 500) s,
                         LATERAL inclusion_proofs_of_rows('audit', 'orders', s.ids) p,
                         LATERAL (SELECT s.ids[p.key_number] AS id) k WHERE p.leaf_index = k.id - 1";
    assert_eq!(one::<i64>(&mut c, joined), 499);
    // Every proof holds.
    let holds = "SELECT bool_and(verify_inclusion(leaf_hash, leaf_index, tree_size, path, root_hash))
                   FROM inclusion_proofs_of_rows('audit', 'orders', (SELECT array_agg(i) FROM generate_series(1, 70000, 41) i))";
    assert!(one::<bool>(&mut c, holds));
}

#[test]
fn what_is_no_list_of_keys_is_refused_with_a_hint() {
    let (cluster, mut c) = served();
    for call in [
        "inclusion_proofs_of_rows",
        "multiproof_of_rows",
        "proof_bundle_of_rows",
    ] {
        for (table, keys, state, says) in [
            ("audit', 'orders", "7", "42804", "array_agg"),
            ("audit', 'orders", "'{7}'", "42804", "::bigint[]"),
            ("audit', 'orders", "NULL::int[]", "22004", "keys"),
            (
                "audit', 'orders",
                "ARRAY[1, NULL]",
                "22004",
                "column \"id\"",
            ),
            ("audit', 'orders", "ARRAY[1], ARRAY[2]", "22023", "1 column"),
            ("audit', 'orders", "ARRAY[true]", "42804", "bigint"),
            ("audit', 'orders", "ARRAY[1.5]", "22023", "1.5"),
            (
                "history', 'lines",
                "ARRAY[1, 2], ARRAY[1], ARRAY['2024-01-01'::date]",
                "2202E",
                "2 and 1 and 1",
            ),
            ("history', 'orders", "ARRAY[1]", "42704", "orders"),
            ("none', 'orders", "ARRAY[1]", "42704", "none"),
        ] {
            let said = error(&mut c, &format!("SELECT {call}('{table}', {keys})"));
            assert!(
                said.starts_with(state) && said.contains(says),
                "{call} {table} {keys}: {said}"
            );
        }
    }
    for call in ["multiproof_of_rows", "proof_bundle_of_rows"] {
        let said = error(
            &mut c,
            &format!("SELECT {call}('audit', 'orders', ARRAY[1, {}])", ROWS + 1),
        );
        assert!(
            said.starts_with("P0002") && said.contains(&(ROWS + 1).to_string()),
            "{said}"
        );
        let said = error(
            &mut c,
            &format!("SELECT {call}('audit', 'orders', '{{}}'::int[])"),
        );
        assert!(said.starts_with("22023"), "{said}");
    }
    // Who may not read the key of every row is not told which rows are in the log.
    let mut nobody = cluster.client_as("postgres", "nobody");
    for call in [
        "inclusion_proofs_of_rows",
        "multiproof_of_rows",
        "proof_bundle_of_rows",
    ] {
        let said = error(
            &mut nobody,
            &format!("SELECT {call}('audit', 'orders', ARRAY[1])"),
        );
        assert!(said.starts_with("42501"), "{said}");
    }
    run(&mut nobody, "SELECT multiproof('audit', '{1, 2}')");
}

/// Size, root, indexes, leaf hashes and nodes, and whether the server says that they hold.
fn multiproof(c: &mut Client, call: &str) -> (i64, Hash, Vec<i64>, Vec<Hash>, Vec<Hash>) {
    let sql = format!(
        "SELECT tree_size, root_hash, leaf_indexes, leaf_hashes, nodes, verify_multiproof(leaf_hashes, leaf_indexes, tree_size, nodes, root_hash) FROM {call}"
    );
    let row = c
        .query_one(&sql, &[])
        .unwrap_or_else(|e| panic!("{call}: {e:?}"));
    assert!(row.get::<_, bool>(5), "{call}");
    let hash = |bytes: &Vec<u8>| Hash::try_from(bytes.as_slice()).unwrap();
    let hashes = |at: usize| row.get::<_, Vec<Vec<u8>>>(at).iter().map(hash).collect();
    (
        row.get(0),
        hash(&row.get(1)),
        row.get(2),
        hashes(3),
        hashes(4),
    )
}

#[test]
fn one_proof_of_many_entries_holds_outside_and_is_made_of_the_nodes_of_each() {
    let (_cluster, mut c) = served();
    let root: Vec<u8> = one(&mut c, "SELECT merkle_root('audit')");
    for (indexes, size, most) in [
        (
            "SELECT generate_series(0, 70122, 97)::bigint",
            "NULL",
            7_000,
        ),
        ("SELECT generate_series(500, 800)::bigint", "801", 12),
        ("SELECT generate_series(0, 70122)::bigint", "NULL", 0),
        ("SELECT generate_series(70000, 70122)::bigint", "NULL", 16),
        ("SELECT unnest('{5, 70122, 5, 0}'::bigint[])", "NULL", 40),
        ("SELECT 41::bigint", "NULL", 17),
        ("SELECT 2::bigint", "3", 1),
    ] {
        let call = format!("multiproof('audit', ARRAY({indexes}), {size})");
        let (tree_size, root_hash, leaf_indexes, leaves, nodes) = multiproof(&mut c, &call);
        assert!(
            leaf_indexes.is_sorted_by(|a, b| a < b) && nodes.len() <= most,
            "{call}: {}",
            nodes.len()
        );
        if size == "NULL" {
            assert_eq!(root_hash.as_bytes().as_slice(), root);
        }
        let leaves: Vec<(LeafIndex, Hash)> = leaf_indexes
            .iter()
            .map(|index| LeafIndex::new(*index as u64).unwrap())
            .zip(leaves)
            .collect();
        let tree_size = TreeSize::new(tree_size as u64).unwrap();
        merkle_tree::verify_multiproof(&leaves, tree_size, &nodes, &root_hash).unwrap();
    }
    // By keys it is that of their latest entries, and by one key the proof of that.
    let by_keys = multiproof(
        &mut c,
        "multiproof_of_rows('audit', 'orders', ARRAY[43, 42, 43])",
    );
    assert_eq!(
        by_keys,
        multiproof(&mut c, "multiproof('audit', '{41, 42}')")
    );
    let composite = multiproof(
        &mut c,
        "multiproof_of_rows('history', 'lines', ARRAY[0, 1], ARRAY[1, 2], ARRAY['2024-01-02', '2024-01-06']::date[])",
    );
    assert_eq!(composite.2, [1, 5]);
    let same: bool = one(
        &mut c,
        "SELECT m.nodes = p.path FROM multiproof('audit', '{41}') m, inclusion_proof('audit', 41) p",
    );
    assert!(same);
    for (call, state) in [
        ("multiproof('audit', '{1, 70123}')", "22003"),
        ("multiproof('audit', '{1, -1}')", "22003"),
        ("multiproof('audit', '{1, NULL}')", "22004"),
        ("multiproof('audit', '{1}', 1)", "22003"),
        ("multiproof('audit', '{}')", "22023"),
        ("multiproof('audit', NULL)", "22004"),
        ("multiproof('none', '{1}')", "42704"),
        (
            "multiproof('audit', ARRAY(SELECT generate_series(0, 100000)::bigint))",
            "22023",
        ),
    ] {
        let said = error(&mut c, &format!("SELECT * FROM {call}"));
        assert!(said.starts_with(state), "{call}: {said}");
    }
}

#[test]
fn a_proof_of_many_that_is_altered_is_refused_in_sql() {
    let (_cluster, mut c) = served();
    let indexes = "ARRAY(SELECT generate_series(30, 70000, 1777)::bigint) || ARRAY[31, 32, 33, 70122]::bigint[]";
    let (size, root, indexes, leaves, nodes) =
        multiproof(&mut c, &format!("multiproof('audit', {indexes})"));
    let bytes = |hashes: &[Hash]| -> Vec<Vec<u8>> {
        hashes.iter().map(|h| h.as_bytes().to_vec()).collect()
    };
    let statement = c
        .prepare("SELECT verify_multiproof($1, $2, $3, $4, $5)")
        .unwrap();
    let mut holds = |indexes: &[i64], leaves: &[Hash], size: i64, nodes: &[Hash]| -> bool {
        let root = root.as_bytes().to_vec();
        let row = c.query_one(
            &statement,
            &[&bytes(leaves), &indexes, &size, &bytes(nodes), &root],
        );
        row.unwrap().get(0)
    };
    assert!(holds(&indexes, &leaves, size, &nodes));
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..size_of_run() {
        let (mut i, mut l, mut n, mut s) = (indexes.clone(), leaves.clone(), nodes.clone(), size);
        let (at, to) = (
            random.random_range(0..n.len()),
            random.random_range(0..n.len()),
        );
        let entry = random.random_range(0..i.len());
        match random.random_range(0..9) {
            0 => n[at] = n[to],
            1 => n.swap(at, to),
            2 => drop(n.remove(at)),
            3 => n.insert(at, n[to]),
            4 => i[entry] = random.random_range(-3..80_000),
            5 => l[entry] = n[at],
            6 => drop((i.remove(entry), l.remove(entry))),
            7 => s = random.random_range(-3..200_000),
            _ => {
                let to = random.random_range(0..i.len());
                i.swap(entry, to);
                l.swap(entry, to);
            }
        }
        if (&i, &l, &n, s) == (&indexes, &leaves, &nodes, size) {
            continue;
        }
        // The tree of another size can have the same shape beside these leaves, but then it has their root.
        let same_tree = s != size && {
            let leaf = |(i, l): (&i64, &Hash)| (LeafIndex::new(*i as u64).unwrap(), *l);
            let known: Vec<_> = i.iter().zip(&l).map(leaf).collect();
            TreeSize::new(s as u64)
                .is_ok_and(|s| merkle_tree::verify_multiproof(&known, s, &n, &root).is_ok())
        };
        assert!(
            !holds(&i, &l, s, &n) || same_tree,
            "{i:?} {s} {at} {to} {entry}"
        );
    }
    for (call, state) in [
        (
            "verify_multiproof(ARRAY[sha256('')], '{0, 1}', 2, '{}', sha256(''))",
            "22023",
        ),
        (
            "verify_multiproof(ARRAY[NULL::bytea], '{0}', 2, '{}', sha256(''))",
            "22004",
        ),
        (
            "verify_multiproof(ARRAY[sha256('')], '{NULL}', 2, '{}', sha256(''))",
            "22004",
        ),
        (
            "verify_multiproof(ARRAY['x'::bytea], '{0}', 2, '{}', sha256(''))",
            "22023",
        ),
        (
            "verify_multiproof(ARRAY[sha256('')], '{0}', 2, ARRAY['x'::bytea], sha256(''))",
            "22023",
        ),
        (
            "verify_multiproof(array_fill(sha256(''), ARRAY[100001]), array_fill(0::bigint, ARRAY[100001]), 2, '{}', sha256(''))",
            "22023",
        ),
    ] {
        let said = error(&mut c, &format!("SELECT {call}"));
        assert!(said.starts_with(state), "{call}: {said}");
    }
    for call in [
        "verify_multiproof('{}', '{}', 2, '{}', sha256(''))",
        "verify_multiproof('{}', '{}', 0, '{}', sha256(''))",
        "verify_multiproof(ARRAY[sha256('')], '{0}', 1, array_fill(sha256(''), ARRAY[1000000]), sha256(''))",
    ] {
        assert!(!one::<bool>(&mut c, &format!("SELECT {call}")), "{call}");
    }
    let pure: String = one(
        &mut c,
        "SELECT provolatile::text || proparallel::text FROM pg_proc WHERE proname = 'verify_multiproof'",
    );
    assert_eq!(pure, "is");
}

fn size_of_run() -> u32 {
    size(1_000, 10_000)
}

#[test]
fn a_bundle_of_many_rows_has_one_proof_and_is_checked_everywhere() {
    let cluster = Cluster::start();
    let name = KeyName::new("example.com/audit").unwrap();
    let key = SigningKey::from_seed(name, SignatureType::Ed25519, &[7; 32]).unwrap();
    let file = cluster.secret_file("key", key.to_text().as_str());
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
        "CREATE TABLE orders (id bigint PRIMARY KEY, note text); SELECT create_log('audit');
         SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true);
         INSERT INTO orders SELECT i, 'n' || i FROM generate_series(1, 12000) i",
    );
    drain(&mut c, "audit");
    run(&mut c, "SELECT checkpoint('audit')");
    let (policy, vkey) = (
        Policy::of_log(key.verifier_key()),
        key.verifier_key().to_string(),
    );
    let row = c
        .query_one("SELECT json, cbor, tlog_proof FROM proof_bundle_of_rows('audit', 'orders', ARRAY(SELECT generate_series(101, 400)))", &[])
        .unwrap();
    let (json, cbor): (String, Vec<u8>) = (row.get(0), row.get(1));
    assert_eq!(row.get::<_, Option<String>>(2), None);
    let bundle = ProofBundle::from_json(json.as_bytes()).unwrap();
    assert_eq!(bundle, ProofBundle::from_cbor(&cbor).unwrap());
    let proven = bundle.verify(&policy).unwrap();
    assert_eq!(proven.entries.len(), 300);
    let last = proven.entries[299].label.as_ref().unwrap();
    assert_eq!(last.key, [("id".to_owned(), "400".to_owned())]);
    let nodes = bundle.multiproof.as_ref().unwrap().len();
    assert!(nodes < 20, "{nodes}");
    // The same entries by index, and what SQL says of them.
    let by_index: Vec<u8> = one(
        &mut c,
        "SELECT cbor FROM proof_bundle('audit', VARIADIC ARRAY(SELECT generate_series(100, 399)))",
    );
    assert_eq!(by_index, cbor);
    let row = c
        .query_one(
            "SELECT valid, leaf_indexes[300], problem FROM verify_bundle($1::bytea, $2)",
            &[&cbor, &vkey],
        )
        .unwrap();
    assert_eq!(
        (row.get::<_, bool>(0), row.get::<_, Option<i64>>(1)),
        (true, Some(399))
    );
    let mut false_bundle = bundle.clone();
    false_bundle.multiproof.as_mut().unwrap().pop();
    let row = c
        .query_one(
            "SELECT valid, problem FROM verify_bundle($1::bytea, $2)",
            &[&false_bundle.to_cbor(), &vkey],
        )
        .unwrap();
    assert!(!row.get::<_, bool>(0) && row.get::<_, String>(1).contains("not proven together"));
    // The command line, and the verifiers of other languages.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle.json");
    std::fs::write(&path, &json).unwrap();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/verify");
    let file = path.to_str().unwrap();
    for (program, before) in [
        (
            "python3",
            vec![format!("{examples}/python/verify.py"), vkey.clone()],
        ),
        (
            "node",
            vec![format!("{examples}/javascript/main.js"), vkey.clone()],
        ),
    ] {
        let output = std::process::Command::new(program)
            .args(&before)
            .arg(file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("example.com/audit 12000"),
            "{program}: {output:?}"
        );
        std::fs::write(directory.path().join("false.json"), false_bundle.to_json()).unwrap();
        let output = std::process::Command::new(program)
            .args(&before)
            .arg(directory.path().join("false.json"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{program}");
    }
    // As many entries as a bundle can have, and one more.
    let most: Vec<u8> = one(
        &mut c,
        "SELECT cbor FROM proof_bundle_of_rows('audit', 'orders', ARRAY(SELECT generate_series(1, 10000)))",
    );
    assert_eq!(
        ProofBundle::from_cbor(&most)
            .unwrap()
            .verify(&policy)
            .unwrap()
            .entries
            .len(),
        10_000
    );
    let said = error(
        &mut c,
        "SELECT proof_bundle_of_rows('audit', 'orders', ARRAY(SELECT generate_series(1, 10001)))",
    );
    assert!(
        said.starts_with("22023") && said.contains("10,000"),
        "{said}"
    );
    // One row has a path, as it always had.
    let single: String = one(
        &mut c,
        "SELECT json FROM proof_bundle_of_rows('audit', 'orders', ARRAY[42])",
    );
    assert_eq!(
        single,
        one::<String>(
            &mut c,
            "SELECT json FROM proof_bundle_of('audit', 'orders', 42)"
        )
    );
    assert!(single.contains("proof-bundle@v1") && json.contains("proof-bundle@v2"));
}

#[test]
fn many_proofs_by_key_take_no_statement_each() {
    let cluster = Cluster::with(
        "shared_preload_libraries = 'pg_stat_statements'\npg_stat_statements.track = all",
    );
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE EXTENSION pg_stat_statements; CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
         CREATE TABLE items (id int PRIMARY KEY); SELECT create_log('audit', batch_size => 200000);
         SELECT add_source('audit', 'orders', order_column => 'id'); SELECT create_log('items'); SELECT add_source('items', 'items', capture => 'trigger');
         INSERT INTO orders (note) SELECT i FROM generate_series(1, 100000) i; INSERT INTO items SELECT generate_series(1, 3000)",
    );
    drain(&mut c, "audit");
    drain(&mut c, "items");
    let mut statements = |call: &str| -> (i64, String) {
        let counted = format!("SELECT count(*) FROM {call}");
        // What a session finds out once is known before.
        run(&mut c, &counted);
        run(&mut c, "SELECT pg_stat_statements_reset()");
        run(&mut c, &counted);
        let sql = "SELECT sum(calls)::bigint, string_agg(calls || ' ' || query, E'\\n' ORDER BY calls DESC)
                     FROM pg_stat_statements WHERE query !~ 'pg_stat_statements'";
        let row = c.query_one(sql, &[]).unwrap();
        (row.get(0), row.get(1))
    };
    for (log, table, count) in [("audit", "orders", 100_000), ("items", "items", 3_000)] {
        for function in ["inclusion_proofs_of_rows", "multiproof_of_rows"] {
            let call = |keys: i64| {
                format!("{function}('{log}', '{table}', ARRAY(SELECT generate_series(1, {keys})))")
            };
            for keys in [10, count] {
                let (number, which) = statements(&call(keys));
                assert!(number < 20, "{function} of {keys} {table}: {which}");
            }
        }
    }
}

#[test]
fn a_call_about_many_rows_can_be_cancelled() {
    let (cluster, mut c) = served();
    let pid: i32 = one(&mut c, "SELECT pg_backend_pid()");
    let mut other = cluster.client("postgres");
    for call in [
        "SELECT count(*) FROM generate_series(1, 10000) g, inclusion_proofs_of_rows('audit', 'orders', (SELECT array_agg(i) FROM generate_series(1, 70000) i))",
        "SELECT count(*) FROM generate_series(1, 10000) g, multiproof('audit', (SELECT array_agg(i) FROM generate_series(0, 70000, 3) i) || ARRAY[g]::bigint[])",
        "SELECT bool_and(verify_multiproof(array_fill(sha256('a'), ARRAY[100000]), ARRAY(SELECT generate_series(1, 300000, 3)::bigint), 4611686018427387903 - g, array_fill(sha256('b'), ARRAY[5000000]), sha256('c'))) FROM generate_series(1, 10000) g",
    ] {
        let cancel = std::thread::spawn({
            let token = c.cancel_token();
            move || {
                std::thread::sleep(std::time::Duration::from_secs(2));
                token.cancel_query(postgres::NoTls).unwrap();
                std::time::Instant::now()
            }
        });
        let said = error(&mut c, call);
        let took = cancel.join().unwrap().elapsed();
        assert!(said.starts_with("57014"), "{call}: {said}");
        assert!(took.as_secs() < 10, "{call}: {took:?}");
    }
    assert_eq!(one::<i32>(&mut c, "SELECT pg_backend_pid()"), pid);
    run(&mut other, "SELECT 1");
}
