//! `merkle-log serve`, against real servers: what each path answers, to whom, and that it proves what it says.

use merkle_log_client::{Client as LogClient, Http, Transport};
use merkle_tree::{Hash, LeafIndex, TreeSize, leaf_hash, verify_consistency, verify_inclusion};
use serde_json::Value;
use server_tests::command_line::{program, says};
use server_tests::gateway::{Answer, Gateway, bytes, hash, token_file};
use server_tests::*;
use std::path::Path;
use std::time::{Duration, Instant};
use tlog::{BundleLeaf, Policy, ProofBundle, TilePath, TlogProof, tiles_of};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A cluster with logs: `audit` with rows (public), `private` with rows of its own, `empty`, and `late` with a row
/// that is not logged yet.
struct Bench {
    cluster: Cluster,
    client: Client,
    gateway: Gateway,
}

const ROWS: i64 = 600;

impl Bench {
    fn new() -> Bench {
        Bench::with("")
    }

    fn with(configuration: &str) -> Bench {
        let cluster = Cluster::start();
        cluster.sign_with_a_new_key("example.com/logs");
        cluster.reload_with("merkle_log.origin_prefix = 'example.com/logs'");
        let mut client = cluster.client("postgres");
        run(
            &mut client,
            "CREATE TABLE orders (id bigint PRIMARY KEY, note text);
             CREATE TABLE secrets (id bigint PRIMARY KEY, note text);
             CREATE TABLE late (id bigint PRIMARY KEY);
             SELECT create_log(name, batch_size => 100000, find_by_hash => true) FROM unnest(ARRAY['audit', 'private', 'empty', 'late']) name;
             SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark');
             SELECT add_source('private', 'secrets', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark');
             SELECT add_source('late', 'late', order_column => 'id', append_only => true, capture => 'watermark');
             INSERT INTO secrets SELECT i, 'secret ' || i FROM generate_series(1, 20) i",
        );
        drain(&mut client, "private");
        rows_to(&mut client, ROWS);
        each(
            &mut client,
            &[
                "INSERT INTO late VALUES (1)",
                "SELECT checkpoint('audit')",
                "SELECT checkpoint('private')",
                "SELECT checkpoint('empty')",
            ],
        );
        let directory = tempfile::tempdir().unwrap();
        let tokens = token_file(directory.path(), "read-tokens", &format!("ana {TOKEN}\n"));
        let configuration = format!(
            "public_logs = ['audit', 'empty', 'late']\nread_tokens = {:?}\n{configuration}",
            tokens.to_str().unwrap()
        );
        let gateway = Gateway::prepare(directory, &configuration, |command| {
            command
                .env("PGHOST", cluster.socket())
                .env("PGUSER", "postgres")
                .env("PGDATABASE", "postgres")
                .args(["--listen", "127.0.0.1:0"]);
        });
        Bench {
            cluster,
            client,
            gateway,
        }
    }

    fn get(&self, path: &str) -> Answer {
        self.gateway.get(path)
    }

    /// With a token.
    fn trusted(&self, path: &str) -> Answer {
        self.gateway
            .get_with(path, &[("authorization", &format!("Bearer {TOKEN}"))])
    }

    fn refuses(&self, path: &str, status: u16, kind: &str) -> String {
        let (given, named, hint) = self.get(path).problem();
        assert_eq!((given, named.as_str()), (status, kind), "{path}");
        hint
    }

    fn root(&mut self, log: &str, size: i64) -> Hash {
        let sql = format!("SELECT merkle_root('{log}', {size})");
        let root: Vec<u8> = one(&mut self.client, &sql);
        Hash::try_from(root.as_slice()).unwrap()
    }

    fn policy(&mut self, log: &str) -> Policy {
        let key: String = one(&mut self.client, &format!("SELECT checkpoint_key('{log}')"));
        Policy::of_log(key.parse().unwrap())
    }
}

fn rows_to(client: &mut Client, size: i64) {
    run(
        client,
        &format!(
            "INSERT INTO orders SELECT i, 'order ' || i FROM generate_series((SELECT coalesce(max(id), 0) + 1 FROM orders), {size}) i"
        ),
    );
    assert_eq!(drain(client, "audit"), size);
}

fn hashes(value: &Value) -> Vec<Hash> {
    value.as_array().unwrap().iter().map(hash).collect()
}

fn tree_size(value: &Value) -> TreeSize {
    TreeSize::new(value.as_u64().unwrap()).unwrap()
}

/// That an answer is an inclusion proof that holds under a root; its leaf hash.
fn proves(proof: &Value, root: &Hash) -> Hash {
    let index = LeafIndex::new(proof["index"].as_u64().unwrap()).unwrap();
    let (leaf, path) = (hash(&proof["leaf_hash"]), hashes(&proof["path"]));
    assert_eq!(hash(&proof["root"]), *root);
    verify_inclusion(&leaf, index, tree_size(&proof["size"]), &path, root).unwrap();
    leaf
}

#[test]
fn sizes_roots_and_heads_are_those_of_the_database_also_of_an_empty_log() {
    let mut bench = Bench::new();
    for (log, size) in [("audit", ROWS), ("empty", 0), ("private", 20)] {
        let root = bench.root(log, size);
        let json = |what: &str| bench.gateway.json(&format!("/logs/{log}/{what}"));
        assert_eq!(json("size")["size"], size);
        for what in ["root", "head", &format!("root?size={size}")] {
            assert_eq!(
                (json(what)["size"].as_i64(), hash(&json(what)["root"])),
                (Some(size), root),
                "{what}"
            );
        }
        let summary = bench.gateway.json(&format!("/logs/{log}"));
        assert_eq!(
            (&summary["name"], summary["size"].as_i64()),
            (&Value::from(log), Some(size))
        );
        assert_eq!(summary["rows_are_public"], log != "private");
        assert_eq!(summary["checkpoint_size"], size);
    }
    assert_eq!(
        hash(&bench.gateway.json("/logs/audit/root?size=7")["root"]),
        bench.root("audit", 7)
    );
    let logs = bench.gateway.json("/logs");
    let names: Vec<_> = logs
        .as_array()
        .unwrap()
        .iter()
        .map(|log| log["name"].as_str().unwrap())
        .collect();
    assert!(
        ["audit", "empty", "late", "private"]
            .iter()
            .all(|name| names.contains(name)),
        "{names:?}"
    );
    assert_eq!(
        bench.gateway.json("/logs/empty/entries")["entries"],
        Value::Array(Vec::new())
    );
    // A tree that begins with the empty one begins with anything.
    assert_eq!(
        bench.gateway.json("/logs/audit/consistency?old_size=0")["path"],
        Value::Array(Vec::new())
    );
    assert_eq!(
        bench.gateway.json("/logs/empty/consistency?old_size=0")["new_size"],
        0
    );
}

#[test]
fn proofs_hold_under_the_roots_of_the_database() {
    let mut bench = Bench::new();
    let root = bench.root("audit", ROWS);
    for index in [0, 1, 255, 256, ROWS - 1] {
        let proof = bench
            .gateway
            .json(&format!("/logs/audit/proof?index={index}"));
        let leaf = proves(&proof, &root);
        let by_hash = bench
            .gateway
            .json(&format!("/logs/audit/proof?hash={leaf}"));
        let by_row = bench
            .gateway
            .json(&format!("/logs/audit/proof?table=orders&key={}", index + 1));
        assert_eq!((&by_hash, &by_row), (&proof, &proof));
        assert_eq!(
            bench
                .gateway
                .json(&format!("/logs/audit/has_leaf?hash={leaf}"))["found"],
            true
        );
    }
    let older = bench.root("audit", 300);
    proves(
        &bench.gateway.json("/logs/audit/proof?index=299&size=300"),
        &older,
    );
    for (query, old) in [
        ("old_size=300", 300),
        ("old_size=300&new_size=500", 300),
        (&format!("old_root={root}"), ROWS),
    ] {
        let proof = bench
            .gateway
            .json(&format!("/logs/audit/consistency?{query}"));
        let (old_size, new_size) = (tree_size(&proof["old_size"]), tree_size(&proof["new_size"]));
        assert_eq!(old_size.get() as i64, old);
        let [old_root, new_root] =
            [old_size, new_size].map(|size| bench.root("audit", size.get() as i64));
        verify_consistency(
            old_size,
            new_size,
            &old_root,
            &new_root,
            &hashes(&proof["path"]),
        )
        .unwrap();
        assert_eq!(
            (hash(&proof["old_root"]), hash(&proof["new_root"])),
            (old_root, new_root)
        );
    }
    assert_eq!(
        bench
            .gateway
            .json(&format!("/logs/audit/has_root?root={root}"))["found"],
        true
    );
    let none = "00".repeat(32);
    assert_eq!(
        bench
            .gateway
            .json(&format!("/logs/audit/has_root?root={none}"))["found"],
        false
    );
    assert_eq!(
        bench
            .gateway
            .json(&format!("/logs/audit/has_leaf?hash={none}"))["found"],
        false
    );
}

#[test]
fn cbor_says_what_json_says() {
    let bench = Bench::new();
    let entry = bench.gateway.json("/logs/audit/entries?to=1")["entries"][0].clone();
    let leaf = entry["leaf_hash"].as_str().unwrap().to_owned();
    for path in [
        "/logs",
        "/logs/audit",
        "/logs/empty/head",
        "/logs/audit/size",
        "/logs/audit/root",
        "/logs/audit/proof?index=3",
        "/logs/audit/consistency?old_size=5",
        "/logs/audit/entries?from=590",
        "/logs/audit/checkpoints",
        &format!("/logs/audit/has_leaf?hash={leaf}"),
        &format!("/logs/audit/has_root?root={leaf}"),
    ] {
        let json = bench.gateway.json(path);
        let answer = bench.gateway.get_with(
            path,
            &[("accept", "application/cbor, application/json;q=0.5")],
        );
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/cbor")),
            "{path}"
        );
        let cbor: ciborium::Value = ciborium::from_reader(answer.body.as_slice()).unwrap();
        // Lag is another from moment to moment.
        let without_lag = |mut value: Value| {
            for log in value.as_array_mut().into_iter().flatten() {
                log.as_object_mut().unwrap().remove("lag_seconds");
            }
            if let Some(object) = value.as_object_mut() {
                object.remove("lag_seconds");
            }
            value
        };
        assert_eq!(without_lag(as_json(cbor)), without_lag(json), "{path}");
        let refused = bench.gateway.get_with(path, &[("accept", "image/png")]);
        assert_eq!(refused.problem().0, 406, "{path}");
    }
}

/// With byte strings in hexadecimal.
fn as_json(value: ciborium::Value) -> Value {
    use ciborium::Value as Cbor;
    match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(value) => value.into(),
        Cbor::Integer(number) => i64::try_from(number).unwrap().into(),
        Cbor::Float(number) => number.into(),
        Cbor::Text(text) => text.into(),
        Cbor::Bytes(bytes) => bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into(),
        Cbor::Array(values) => values.into_iter().map(as_json).collect(),
        Cbor::Map(pairs) => {
            let pairs = pairs
                .into_iter()
                .map(|(name, value)| (name.into_text().unwrap(), as_json(value)));
            Value::Object(pairs.collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_come_in_pages_with_the_data_that_was_hashed() {
    let mut bench = Bench::new();
    rows_to(&mut bench.client, 1500);
    let (mut from, mut seen) = (Some(0), 0);
    while let Some(next) = from {
        let page = bench
            .gateway
            .json(&format!("/logs/audit/entries?from={next}"));
        for entry in page["entries"].as_array().unwrap() {
            assert_eq!(
                (entry["index"].as_i64(), entry["table"].as_str()),
                (Some(seen), Some("public.orders"))
            );
            assert_eq!(entry["key"], (seen + 1).to_string());
            let data = bytes(&entry["leaf_data"]);
            assert_eq!(leaf_hash(&data), hash(&entry["leaf_hash"]));
            seen += 1;
        }
        from = page["next"].as_i64();
    }
    assert_eq!(seen, 1500);
    let part = bench.gateway.json("/logs/audit/entries?from=10&to=12");
    assert_eq!(
        (part["entries"].as_array().unwrap().len(), &part["next"]),
        (2, &Value::Null)
    );
    // Long rows end a page before there are a thousand of them.
    run(
        &mut bench.client,
        "INSERT INTO orders SELECT i, repeat('x', 60000) FROM generate_series(1501, 1600) i",
    );
    drain(&mut bench.client, "audit");
    let page = bench.gateway.json("/logs/audit/entries?from=1500");
    let count = page["entries"].as_array().unwrap().len();
    assert!((1..100).contains(&count), "{count}");
    assert_eq!(page["next"], 1500 + count);
    // And the session is whole after a page that was cut.
    for _ in 0..10 {
        bench.gateway.json("/logs/audit/entries?from=1500");
    }
}

#[test]
fn bundles_are_verified_without_the_gateway() {
    let mut bench = Bench::new();
    let policy = bench.policy("audit");
    let json = bench.get("/logs/audit/bundle?index=3&index=599");
    let bundle = ProofBundle::from_json(&json.body).unwrap();
    let proven = bundle.verify(&policy).unwrap();
    assert_eq!(proven.entries.len(), 2);
    let cbor = bench.gateway.get_with(
        "/logs/audit/bundle?index=3&index=599",
        &[("accept", "application/cbor")],
    );
    assert_eq!(cbor.header("content-type"), Some("application/cbor"));
    assert_eq!(ProofBundle::from_cbor(&cbor.body).unwrap(), bundle);
    let by_row = bench.get("/logs/audit/bundle?table=public.orders&key=4");
    let by_row = ProofBundle::from_json(&by_row.body).unwrap();
    assert_eq!(by_row.entries[0].leaf, bundle.entries[0].leaf);
    assert_eq!(by_row.entries[0].label, bundle.entries[0].label);
    let text = bench
        .gateway
        .get_with("/logs/audit/bundle?index=3", &[("accept", "text/plain")]);
    let text: TlogProof = String::from_utf8(text.body).unwrap().parse().unwrap();
    assert_eq!(text.path, by_row.entries[0].path);
    let two = bench.gateway.get_with(
        "/logs/audit/bundle?index=3&index=4",
        &[("accept", "text/plain")],
    );
    assert_eq!(two.status, 406);
    // What was logged after the checkpoint has no bundle yet.
    rows_to(&mut bench.client, ROWS + 1);
    let hint = bench.refuses(
        &format!("/logs/audit/bundle?index={ROWS}"),
        409,
        "not-yet-logged",
    );
    assert!(hint.contains("checkpoint"), "{hint}");
}

#[test]
fn what_is_not_there_has_a_status_of_its_own() {
    let mut bench = Bench::new();
    for what in [
        "",
        "/size",
        "/root",
        "/head",
        "/proof?index=0",
        "/consistency?old_size=0",
        "/entries",
        "/bundle?index=0",
        "/checkpoint",
        "/checkpoints",
        "/tile/0/000",
        "/tile/1/000.p/1",
        "/tile/entries/000",
        &format!("/has_leaf?hash={}", "00".repeat(32)),
        &format!("/has_root?root={}", "00".repeat(32)),
    ] {
        let hint = bench.refuses(&format!("/logs/no%20such%2Flog{what}"), 404, "not-found");
        assert!(what.starts_with("/tile") || !hint.is_empty(), "{what}");
    }
    for not_yet in [
        format!("/logs/audit/proof?index={ROWS}"),
        "/logs/empty/proof?index=0".to_owned(),
        "/logs/late/proof?table=late&key=1".to_owned(),
        format!("/logs/audit/root?size={}", ROWS + 1),
        format!("/logs/audit/consistency?old_size=1&new_size={}", ROWS + 1),
        "/logs/late/bundle?table=late&key=1".to_owned(),
        "/logs/late/checkpoint".to_owned(),
    ] {
        let hint = bench.refuses(&not_yet, 409, "not-yet-logged");
        assert!(!hint.is_empty(), "{not_yet}");
    }
    for missing in [
        format!("/logs/audit/proof?hash={}", "00".repeat(32)),
        format!("/logs/audit/consistency?old_root={}", "00".repeat(32)),
        "/logs/audit/proof?table=nothing&key=1".to_owned(),
        "/logs/audit/proof?table=secrets&key=1".to_owned(),
        "/logs/audit/tile/0/002".to_owned(),
        "/logs/audit/tile/0/002.p/89".to_owned(),
        "/nothing".to_owned(),
    ] {
        bench.refuses(&missing, 404, "not-found");
    }
    for wrong in [
        "/logs/audit/proof",
        "/logs/audit/proof?index=-1",
        "/logs/audit/proof?index=1&hash=00",
        "/logs/audit/proof?index=5&size=3",
        "/logs/audit/proof?index=1&size=3&size=4",
        "/logs/audit/proof?idnex=1",
        "/logs/audit/proof?table=orders",
        "/logs/audit/proof?table=orders&key=x",
        "/logs/audit/proof?table=orders&key=1&key=2",
        "/logs/audit/proof?table=a..b&key=1",
        "/logs/audit/consistency?old_size=5&new_size=3",
        "/logs/audit/consistency",
        "/logs/audit/tile/0/1",
        "/logs/audit/tile/64/000",
        "/logs/audit/tile/../../../etc/passwd",
        "/logs/audit/tile/0/000.p/256",
        "/logs/a%00b/size",
        "/logs/%ff/size",
        "/logs/audit/has_leaf?hash=zz",
        "/logs/audit/has_leaf",
        "/logs/audit/bundle",
    ] {
        bench.refuses(wrong, 400, "bad-request");
    }
    assert_eq!(
        bench
            .gateway
            .request("POST", "/logs", &[], "{}")
            .problem()
            .0,
        405
    );
    // What was pruned is gone, and the rest is served.
    rows_to(&mut bench.client, 2000);
    each(
        &mut bench.client,
        &[
            "SELECT checkpoint('audit')",
            "SELECT prune_log('audit', 1024)",
        ],
    );
    for gone in [
        "/logs/audit/proof?index=0",
        "/logs/audit/tile/0/000",
        "/logs/audit/tile/entries/003",
        "/logs/audit/entries?from=0",
        "/logs/audit/bundle?index=1023",
    ] {
        bench.refuses(gone, 410, "pruned");
    }
    let root = bench.root("audit", 2000);
    proves(&bench.gateway.json("/logs/audit/proof?index=1024"), &root);
    assert_eq!(bench.get("/logs/audit/tile/0/004").body.len(), 8192);
    assert_eq!(bench.get("/logs/audit/tile/1/000.p/7").body.len(), 7 * 32);
}

/// Exports a log into a directory.
fn export(cluster: &Cluster, user: &str, log: &str, directory: &Path) {
    let (code, text) = says(
        program()
            .env("PGHOST", cluster.socket())
            .env("PGUSER", user)
            .env("PGDATABASE", "postgres")
            .args(["export", "--no-sign", log])
            .arg(directory),
    );
    assert_eq!(code, 0, "{text}");
}

#[test]
fn tiles_are_those_of_an_export_byte_for_byte() {
    let mut bench = Bench::new();
    rows_to(&mut bench.client, 66_000);
    run(&mut bench.client, "SELECT checkpoint('audit')");
    let exported = tempfile::tempdir().unwrap();
    export(&bench.cluster, "postgres", "audit", exported.path());
    let same = |path: &str| {
        let file = std::fs::read(exported.path().join(path)).unwrap();
        let answer = bench.get(&format!("/logs/audit/{path}"));
        assert_eq!(answer.status, 200, "{path}: {answer}");
        assert!(answer.body == file, "{path}");
        answer
    };
    same("checkpoint");
    for path in tiles_of(TreeSize::new(66_000).unwrap()) {
        same(&path.to_string());
    }
    // Tiles never change, and are not sent twice.
    let tile = same("tile/0/000");
    assert_eq!(
        tile.header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    let tag = tile.header("etag").unwrap();
    for known in [
        tag.to_owned(),
        format!("W/{tag}"),
        format!("\"x\", {tag}"),
        "*".to_owned(),
    ] {
        let answer = bench
            .gateway
            .get_with("/logs/audit/tile/0/000", &[("if-none-match", &known)]);
        assert_eq!(
            (answer.status, answer.body.len(), answer.header("etag")),
            (304, 0, Some(tag)),
            "{known}"
        );
    }
    let other = bench
        .gateway
        .get_with("/logs/audit/tile/0/001", &[("if-none-match", tag)]);
    assert_eq!(other.status, 200);
    let checkpoint = same("checkpoint");
    assert_eq!(checkpoint.header("cache-control"), Some("no-cache"));
    assert_eq!(
        checkpoint.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_ne!(checkpoint.header("etag"), Some(tag));
    // Whoever may not see rows is shown what an exporter is that may not read them.
    run(&mut bench.client, "CREATE ROLE stranger LOGIN");
    let withheld = tempfile::tempdir().unwrap();
    export(&bench.cluster, "stranger", "private", withheld.path());
    let file = std::fs::read(withheld.path().join("tile/entries/000.p/20")).unwrap();
    let answer = bench.get("/logs/private/tile/entries/000.p/20");
    assert_eq!(answer.body, file);
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("vary"), Some("Authorization"));
    let full = tempfile::tempdir().unwrap();
    export(&bench.cluster, "postgres", "private", full.path());
    let file = std::fs::read(full.path().join("tile/entries/000.p/20")).unwrap();
    assert_eq!(
        bench.trusted("/logs/private/tile/entries/000.p/20").body,
        file
    );
    assert_ne!(answer.body, file);
}

#[test]
fn tiles_come_from_an_exported_directory_where_one_is_named() {
    let cluster = Cluster::start();
    cluster.sign_with_a_new_key("example.com/audit");
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "CREATE TABLE orders (id bigint PRIMARY KEY, note text);
         SELECT create_log('audit', origin => 'example.com/audit', batch_size => 100000);
         SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark')",
    );
    rows_to(&mut client, 300);
    run(&mut client, "SELECT checkpoint('audit')");
    let exported = tempfile::tempdir().unwrap();
    export(&cluster, "postgres", "audit", exported.path());
    // The log goes on, and the directory stays behind: checkpoint and tiles are of one state.
    rows_to(&mut client, 900);
    run(&mut client, "SELECT checkpoint('audit')");
    let tiles = format!("[tiles]\naudit = {:?}", exported.path().to_str().unwrap());
    let gateway = Gateway::start(&cluster, &format!("public_logs = ['audit']\n{tiles}"));
    let published = std::fs::read(exported.path().join("checkpoint")).unwrap();
    assert_eq!(gateway.get("/logs/audit/checkpoint").body, published);
    for path in tiles_of(TreeSize::new(300).unwrap()) {
        let file = std::fs::read(exported.path().join(path.to_string())).unwrap();
        assert_eq!(
            gateway.get(&format!("/logs/audit/{path}")).body,
            file,
            "{path}"
        );
    }
    assert_eq!(gateway.get("/logs/audit/tile/0/001").problem().0, 404);
    // Also while there is no database.
    cluster.stop();
    assert_eq!(gateway.get("/logs/audit/checkpoint").status, 200);
    assert_eq!(gateway.get("/logs/audit/tile/0/000").status, 200);
    // Rows of a log that is not public are not shown from files either.
    let private = Gateway::start(&cluster, &tiles);
    assert_eq!(private.get("/logs/audit/tile/entries/000").body, [0; 512]);
    assert_eq!(private.get("/logs/audit/tile/0/000").body.len(), 8192);
}

#[test]
fn a_client_of_tlog_tiles_reads_a_log_from_the_gateway() {
    let mut bench = Bench::new();
    let kept = bench.gateway.directory.path().join("kept");
    let url = format!("http://{}/logs/audit", bench.gateway.address);
    let client = LogClient::http(&url, bench.policy("audit"), &kept);
    let latest = client.latest().unwrap();
    assert_eq!(latest.verified.checkpoint.size().get() as i64, ROWS);
    for index in [0, 255, 256, ROWS as u64 - 1] {
        assert!(client.entry(index).unwrap().leaf_data().is_some());
    }
    rows_to(&mut bench.client, 1000);
    run(&mut bench.client, "SELECT checkpoint('audit')");
    assert_eq!(
        client.latest().unwrap().verified.checkpoint.size().get(),
        1000
    );
    assert!(client.entry(999).unwrap().leaf_data().is_some());
    let bundle = bench.get("/logs/audit/bundle?index=7");
    client
        .verify(&ProofBundle::from_json(&bundle.body).unwrap())
        .unwrap();
    assert!(Http::new(&url).get("tile/0/009", 10_000).is_err());
}

#[test]
fn rows_are_shown_of_public_logs_and_to_those_who_have_a_token() {
    let bench = Bench::new();
    let no_secret = |answer: &Answer| {
        let hex = |text: &str| {
            text.bytes()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        for secret in [
            "secret",
            &hex("secret"),
            "public.secrets",
            &hex("public.secrets"),
        ] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    };
    // Proofs and hashes are for everyone.
    for path in [
        "/logs/private/proof?index=3",
        "/logs/private/entries",
        "/logs/private/bundle?index=3",
        "/logs/private/tile/0/000.p/20",
        "/logs/private/tile/entries/000.p/20",
        "/logs/private",
        "/health",
        "/metrics",
        "/logs",
    ] {
        for headers in [
            &[][..],
            &[("accept", "application/cbor")],
            &[("accept", "text/plain, */*;q=0.1")],
        ] {
            let answer = bench.gateway.get_with(path, headers);
            assert!(
                answer.status == 200 || answer.status == 406,
                "{path}: {answer}"
            );
            no_secret(&answer);
        }
    }
    let bundle = ProofBundle::from_json(&bench.get("/logs/private/bundle?index=3").body).unwrap();
    assert!(matches!(bundle.entries[0].leaf, BundleLeaf::Hash(_)));
    let entry = &bench.gateway.json("/logs/private/entries?to=1")["entries"][0];
    assert_eq!(entry.as_object().unwrap().len(), 2, "{entry}");
    // What says which rows there are is not: the answer is the same whether there is such a row.
    for key in ["3", "333"] {
        let path = format!("/logs/private/proof?table=secrets&key={key}");
        let answer = bench.get(&path);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(answer.problem().0, 401);
        no_secret(&answer);
        let path = format!("/logs/private/bundle?table=secrets&key={key}");
        assert_eq!(bench.get(&path).problem().0, 401);
    }
    // With a token all of it is shown, and with a wrong one nothing at all.
    let policy = Bench::policy;
    let _ = policy;
    assert_eq!(
        bench
            .trusted("/logs/private/proof?table=secrets&key=3")
            .json()["index"],
        2
    );
    assert_eq!(
        bench.trusted("/logs/private/entries").json()["entries"][0]["table"],
        "public.secrets"
    );
    let bundle =
        ProofBundle::from_json(&bench.trusted("/logs/private/bundle?index=3").body).unwrap();
    assert!(
        matches!(&bundle.entries[0].leaf, BundleLeaf::Data(data) if data.windows(6).any(|part| part == b"secret"))
    );
    for wrong in [
        format!("Bearer {}", &TOKEN[1..]),
        format!("Bearer {TOKEN}0"),
        format!("Basic {TOKEN}"),
        "Bearer".to_owned(),
    ] {
        let answer = bench
            .gateway
            .get_with("/logs/private/entries", &[("authorization", &wrong)]);
        assert_eq!(answer.problem().0, 401, "{wrong}");
    }
}

#[test]
fn tables_of_others_are_not_named_whatever_logs_are_called() {
    let mut bench = Bench::new();
    let answers: Vec<String> = ["secrets", "nosuch", "pg_class", "pg_temp.nosuch"]
        .iter()
        .map(|table| {
            let answer = bench.get(&format!("/logs/audit/proof?table={table}&key=1"));
            assert_eq!(answer.problem().0, 404, "{table}: {answer}");
            String::from_utf8(answer.body).unwrap().replace(table, "…")
        })
        .collect();
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    // The name of a private log may begin as that of a public one, with what health puts before a source.
    run(
        &mut bench.client,
        "CREATE TABLE hidden_table (id integer PRIMARY KEY); SELECT create_log('audit: hidden');
         SELECT add_source('audit: hidden', 'hidden_table', capture => 'trigger');
         ALTER TABLE hidden_table DISABLE TRIGGER ALL",
    );
    let started = Instant::now();
    while !bench
        .trusted("/health")
        .to_string()
        .contains("hidden_table")
    {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "health names the table"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let shown = bench.get("/health").to_string();
    assert!(
        shown.contains("audit") && !shown.contains("hidden_table"),
        "{shown}"
    );
}

#[test]
fn a_role_without_rights_serves_hashes_and_says_what_it_may_not_read() {
    let mut bench = Bench::new();
    run(&mut bench.client, "CREATE ROLE web LOGIN");
    let directory = tempfile::tempdir().unwrap();
    let tokens = token_file(directory.path(), "tokens", &format!("ana {TOKEN}\n"));
    let configuration = format!(
        "public_logs = ['audit']\nread_tokens = {:?}",
        tokens.to_str().unwrap()
    );
    let gateway = Gateway::start_as(&bench.cluster, "web", &configuration);
    let root = bench.root("audit", ROWS);
    proves(&gateway.json("/logs/audit/proof?index=3"), &root);
    for path in tiles_of(TreeSize::new(ROWS as u64).unwrap()) {
        assert_eq!(
            gateway.get(&format!("/logs/audit/{path}")).status,
            200,
            "{path}"
        );
    }
    let (status, kind, hint) = gateway
        .get("/logs/audit/proof?table=orders&key=3")
        .problem();
    assert_eq!((status, kind.as_str()), (403, "forbidden"));
    assert!(hint.contains("SELECT"), "{hint}");
    // Health and metrics are what such a role may know.
    let health = gateway.json("/health");
    assert_eq!(
        (&health["ok"], health.get("checks")),
        (&Value::Bool(true), None)
    );
    assert!(
        String::from_utf8(gateway.get("/metrics").body)
            .unwrap()
            .contains("merkle_log_gateway_database_up 1")
    );
}

#[test]
fn health_and_metrics_say_how_things_stand() {
    let bench = Bench::new();
    assert_eq!(bench.get("/health/live").status, 200);
    assert_eq!(bench.get("/health/ready").status, 200);
    let health = bench.gateway.json("/health");
    assert_eq!(health["database"]["role"], "primary");
    let checks = health["checks"].as_array().unwrap();
    let of = |log: &str| {
        checks
            .iter()
            .find(|check| check["object"] == log && check["check"] == "error")
    };
    assert!(of("audit").unwrap().get("detail").is_some());
    assert!(of("private").unwrap().get("detail").is_none());
    assert!(!checks.iter().any(|check| {
        check["object"]
            .as_str()
            .is_some_and(|object| object.contains("secrets"))
    }));
    bench.get("/logs/audit/proof?index=1");
    bench.get("/nothing");
    let text = String::from_utf8(bench.get("/metrics").body).unwrap();
    for line in [
        "merkle_log_gateway_requests_total{route=\"/logs/{log}/proof\",status=\"200\"} 1\n",
        "merkle_log_gateway_requests_total{route=\"none\",status=\"404\"} 1\n",
        "merkle_log_gateway_database_up 1\n",
        "merkle_log_tree_size{database=\"postgres\",log=\"audit\"} 600\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn a_standby_serves_what_its_primary_has_logged() {
    let mut bench = Bench::new();
    let standby = Cluster::standby_of(&bench.cluster);
    standby.catches_up_with(&bench.cluster);
    let gateway = Gateway::start(&standby, "public_logs = ['audit']");
    let root = bench.root("audit", ROWS);
    proves(&gateway.json("/logs/audit/proof?index=3"), &root);
    gateway.json("/logs/audit/bundle?index=3");
    gateway.json("/logs/audit/entries");
    gateway.json("/logs");
    let health = gateway.json("/health");
    assert_eq!(health["database"]["role"], "standby");
    assert!(
        health["database"]["replay_lag_seconds"].as_f64().is_some(),
        "{health}"
    );
    assert_eq!(gateway.get("/metrics").status, 200);
    let path: TilePath = "tile/0/000".parse().unwrap();
    assert_eq!(gateway.get(&format!("/logs/audit/{path}")).body.len(), 8192);
}

#[test]
fn the_documentation_names_every_path_and_needs_no_other_file() {
    let bench = Bench::new();
    let document = bench.gateway.json("/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 17, "{paths:?}");
    let page = bench.get("/docs");
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
    let page = String::from_utf8(page.body).unwrap();
    for path in paths.keys() {
        assert!(page.contains(&format!("<code>GET {path}</code>")), "{path}");
    }
    for outside in ["http://", "https://", "<script", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Every kind of problem is explained where its type points to.
    let kind = bench.get("/nothing").json()["type"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(kind, "/docs#not-found");
    assert!(page.contains("id=\"not-found\""));
}
