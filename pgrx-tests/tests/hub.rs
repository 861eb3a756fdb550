//! `merkle-log hub`: checkpoints of several clusters in one log. One that rewrites its history is named, with evidence, and
//! the others are untouched; rows are proven through both levels; and kills and restarts lose and double nothing.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use server_tests::command_line::{program, says};
use server_tests::followers::{Shop, conninfo, follow_once, follower};
use server_tests::gateway::Gateway;
use server_tests::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tempfile::TempDir;

struct Hub {
    cluster: Cluster,
    directory: TempDir,
}

impl Hub {
    fn new() -> Hub {
        let hub = Hub {
            cluster: Cluster::start(),
            directory: tempfile::tempdir().unwrap(),
        };
        hub.cluster.sign_with_a_new_key("example.com/hub");
        until(
            &mut hub.client(),
            "SELECT current_setting('merkle_log.signing_key_file', true) <> ''",
        );
        let (code, text) = hub.run(&["init", "--origin", "example.com/hub"]);
        assert_eq!(code, 0, "{text}");
        hub
    }

    fn client(&self) -> Client {
        self.cluster.client("postgres")
    }

    fn conninfo(&self) -> String {
        conninfo(&self.cluster, "postgres")
    }

    /// A sub-command in the hub's database.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = program();
        command
            .arg("hub")
            .args(arguments)
            .args(["--dbname", &self.conninfo()]);
        says(&mut command)
    }

    fn configuration(&self, logs: &str) -> String {
        let database = self.conninfo();
        format!("database = '{database}'\ninterval_seconds = 1\nstatement_seconds = 20\n{logs}")
    }

    fn pull(&self, logs: &str) -> (i32, String) {
        follow_once("hub", self.directory.path(), &self.configuration(logs))
    }

    fn key(&self) -> String {
        one(&mut self.client(), "SELECT checkpoint_key('hub')")
    }

    fn sizes(&self, origin: &str) -> Vec<i64> {
        column(
            &mut self.client(),
            &format!("SELECT tree_size FROM hub.checkpoints WHERE origin = '{origin}' ORDER BY 1"),
        )
    }

    /// That every row is an entry, once, and that every checkpoint continues the one before it.
    fn is_whole(&self) {
        let mut c = self.client();
        let rows: i64 = one(
            &mut c,
            "SELECT (SELECT count(*) FROM hub.checkpoints) + (SELECT count(*) FROM hub.convictions)",
        );
        assert_eq!(drain(&mut c, "hub"), rows);
        assert_eq!(findings(&mut c, "hub"), [""; 0]);
        let broken: i64 = one(
            &mut c,
            "SELECT count(*) FROM (SELECT continues, lag(tree_size, 1, -1::bigint) OVER (PARTITION BY origin ORDER BY tree_size) AS before
                                     FROM hub.checkpoints) c WHERE continues <> before",
        );
        assert_eq!(broken, 0);
    }

    fn verify(&self, keys: &[&str], name: &str, content: &str) -> (i32, String) {
        let file = self.directory.path().join(name);
        std::fs::write(&file, content).unwrap();
        verify(keys, &file)
    }
}

fn verify(keys: &[&str], file: &Path) -> (i32, String) {
    let mut command = program();
    command.args(["--json", "verify"]);
    for key in keys {
        command.args(["--key", key]);
    }
    says(command.arg(file))
}

/// Three shops, followed in three ways.
struct Street {
    shops: Vec<Shop>,
    gateway: Gateway,
    exported: TempDir,
}

impl Street {
    fn new() -> Street {
        let shops: Vec<_> = std::thread::scope(|scope| {
            let names = ["first", "second", "third"];
            let opened = names.map(|name| scope.spawn(move || Shop::open(name, 300)));
            opened
                .into_iter()
                .map(|shop| shop.join().unwrap())
                .collect()
        });
        let street = Street {
            gateway: shops[1].gateway(),
            shops,
            exported: tempfile::tempdir().unwrap(),
        };
        street.export();
        street
    }

    fn target(&self) -> PathBuf {
        self.exported.path().join("third")
    }

    fn export(&self) {
        let mut command = program();
        let database = self.shops[2].conninfo("postgres");
        command
            .args(["export", "audit", "--dbname", &database])
            .arg(self.target());
        let (code, text) = says(&mut command);
        assert_eq!(code, 0, "{text}");
    }

    fn logs(&self) -> String {
        let [first, second, third] = self.shops.as_slice() else {
            panic!("not three");
        };
        format!(
            "[[log]]\nname = 'first'\nlog = 'audit'\nkey = '{}'\ndatabase = '{}'
             [[log]]\nname = 'second'\nkey = '{}'\nurl = 'http://{}/logs/audit'
             [[log]]\nname = 'third'\nkey = '{}'\ntiles = '{}'\n",
            first.key(),
            first.conninfo("reader"),
            second.key(),
            self.gateway.address,
            third.key(),
            self.target().display()
        )
    }
}

#[test]
fn a_database_that_rewrites_its_history_is_named_with_evidence_and_the_others_are_untouched() {
    let (hub, street) = (Hub::new(), Street::new());
    let logs = street.logs();
    let (code, text) = hub.pull(&logs);
    assert_eq!(code, 0, "{text}");
    for shop in &street.shops {
        shop.grow(50);
    }
    street.export();
    assert_eq!(hub.pull(&logs).0, 0);
    // What is the same is not kept twice.
    assert_eq!(hub.pull(&logs).0, 0);
    for shop in &street.shops {
        assert_eq!(hub.sizes(&shop.origin), [300, 350]);
    }
    // Every entry's root and note are those of the log.
    let mut c = hub.client();
    for row in c
        .query(
            "SELECT origin, tree_size, root, checkpoint FROM hub.checkpoints",
            &[],
        )
        .unwrap()
    {
        let note: tlog::Checkpoint = row
            .get::<_, String>(3)
            .parse::<tlog::SignedNote>()
            .unwrap()
            .text()
            .parse()
            .unwrap();
        assert_eq!(note.origin(), row.get::<_, String>(0));
        assert_eq!(note.size().get() as i64, row.get::<_, i64>(1));
        assert_eq!(note.root().as_bytes().as_slice(), row.get::<_, Vec<u8>>(2));
    }
    let second = &street.shops[1];
    second.rewrite_history();
    for shop in &street.shops {
        shop.grow(7);
    }
    street.export();
    for _ in 0..2 {
        let (code, text) = hub.pull(&logs);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("second: BAD"), "{text}");
        assert!(
            text.contains("first: 357") && text.contains("third: 357"),
            "{text}"
        );
    }
    for shop in &street.shops {
        let expected: &[i64] = match shop.origin == second.origin {
            true => &[300, 350],
            false => &[300, 350, 357],
        };
        assert_eq!(hub.sizes(&shop.origin), expected);
    }
    // One conviction, which anyone believes who has the log's key, and which is an entry of the hub's log itself.
    let convictions = c
        .query(
            "SELECT origin, tree_size, evidence FROM hub.convictions",
            &[],
        )
        .unwrap();
    assert_eq!(convictions.len(), 1);
    assert_eq!(convictions[0].get::<_, String>(0), second.origin);
    let evidence: String = convictions[0].get(2);
    let (code, text) = hub.verify(&[&second.key()], "evidence.json", &evidence);
    assert!(code == 1 && text.contains("signed two histories"), "{text}");
    assert_eq!(hub.verify(&[&hub.key()], "evidence.json", &evidence).0, 2);
    let bundle: String = one(
        &mut c,
        &format!(
            "SELECT json FROM proof_bundle_of('hub', 'hub.convictions', '{}', '350', '0')",
            second.origin
        ),
    );
    let (code, text) = hub.verify(&[&hub.key()], "conviction.json", &bundle);
    assert!(code == 0 && text.contains("merkle_log/fork@v1"), "{text}");
    hub.is_whole();
}

#[test]
fn what_a_hub_has_is_never_changed() {
    let (hub, shop) = (Hub::new(), Shop::open("only", 10));
    let logs = sql(&shop);
    assert_eq!(hub.pull(&logs).0, 0);
    let mut c = hub.client();
    for statement in [
        "UPDATE hub.checkpoints SET tree_size = 11",
        "DELETE FROM hub.checkpoints",
        "TRUNCATE hub.checkpoints",
        "TRUNCATE hub.convictions",
    ] {
        let said = error(&mut c, statement);
        assert!(said.starts_with("55000"), "{statement}: {said}");
    }
    // It is made once, and says so.
    let (code, text) = hub.run(&["init"]);
    assert!(code == 2 && text.contains("exists"), "{text}");
    hub.is_whole();
}

#[test]
fn the_statements_that_init_prints_make_the_same_hub() {
    let cluster = Cluster::start();
    cluster.sign_with_a_new_key("example.com/hub");
    let mut c = cluster.client("postgres");
    run(&mut c, "CREATE DATABASE printed");
    let mut printed = cluster.client("printed");
    run(
        &mut printed,
        "CREATE SCHEMA apart; CREATE EXTENSION merkle_log SCHEMA apart; SET search_path = apart",
    );
    let names = [
        "--log",
        r"o'dd \ @extschema@",
        "--origin",
        "example.com/hub's",
    ];
    let (code, text) = says(program().args(["hub", "init", "--print"]).args(names));
    assert_eq!(code, 0, "{text}");
    run(&mut printed, &text);
    let mut command = program();
    command
        .args(["hub", "init", "--dbname", &conninfo(&cluster, "postgres")])
        .args(names);
    let (code, text) = says(&mut command);
    assert_eq!(code, 0, "{text}");
    let made = "SELECT string_agg(concat_ws('|', l.log_name, l.origin, s.source_table, s.capture, s.store_leaf_data), E'\n' ORDER BY s.source_table)
                  FROM verification_logs l JOIN verification_sources s USING (log_id) WHERE l.log_name LIKE 'o%'";
    let shown: String = one(&mut c, made);
    assert_eq!(
        shown
            .matches(r"o'dd \ @extschema@|example.com/hub's|")
            .count(),
        2,
        "{shown}"
    );
    assert_eq!(one::<String>(&mut printed, made), shown);
}

#[test]
fn rows_that_no_log_has_signed_stop_nothing() {
    let (hub, shop) = (Hub::new(), Shop::open("only", 10));
    let logs = sql(&shop);
    assert_eq!(hub.pull(&logs).0, 0);
    let mut c = hub.client();
    let origin = &shop.origin;
    let put = |size: i64, text: &str, signed: &str| {
        format!(
            "INSERT INTO hub.checkpoints (origin, tree_size, root, checkpoint, continues, pulled_from)
             SELECT '{origin}', {size}, decode(repeat('00', 32), 'hex'), '{text}' || encode(decode(repeat('00', 32), 'hex'), 'base64') || '{signed}', 10, 'garbage'"
        )
    };
    // The columns are those of the note.
    for text in ["nonsense", "other\n20\n", &format!("{origin}\n21\n")] {
        let said = error(&mut c, &put(20, text, "\n"));
        assert!(said.starts_with("23514"), "{said}");
    }
    // Whoever may pull can still put there what the log has not signed: garbage, and a false signature.
    let false_signature = "\n\n\u{2014} example.com/only AAAAAAAA\n";
    run(&mut c, &put(20, &format!("{origin}\n20\n"), "\n"));
    run(
        &mut c,
        &put(1_000_000, &format!("{origin}\n1000000\n"), false_signature),
    );
    run(
        &mut c,
        &format!(
            "INSERT INTO hub.convictions (origin, tree_size, evidence, pulled_from)
                  SELECT '{origin}', size, 'nonsense', 'garbage' FROM generate_series(0, 200) size"
        ),
    );
    for (rows, size) in [(5, 15), (10, 25)] {
        shop.grow(rows);
        let (code, text) = hub.pull(&logs);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains(&format!("{size} entries, new; ")) && text.contains("not believed"),
            "{text}"
        );
    }
    let chain: Vec<i64> = column(
        &mut c,
        "SELECT continues FROM hub.checkpoints WHERE pulled_from = 'shop' ORDER BY tree_size",
    );
    assert_eq!(chain, [-1, 10, 15]);
    // A log that is convicted is so beside them.
    shop.rewrite_history();
    shop.grow(1);
    for _ in 0..2 {
        assert_eq!(hub.pull(&logs).0, 1);
    }
    let evidence: Vec<String> = column(
        &mut c,
        "SELECT evidence FROM hub.convictions WHERE pulled_from = 'shop' AND tree_size = 25 AND piece = 1",
    );
    let [evidence] = evidence.as_slice() else {
        panic!("{evidence:?}");
    };
    let (code, text) = hub.verify(&[&shop.key()], "evidence.json", evidence);
    assert!(code == 1 && text.contains("signed two histories"), "{text}");
}

#[test]
fn checkpoints_by_a_key_that_is_known_no_more_are_not_begun_anew() {
    let (hub, shop, other) = (Hub::new(), Shop::open("only", 10), Shop::open("only", 20));
    assert_eq!(hub.pull(&sql(&shop)).0, 0);
    // Another key, which has signed another history under the same origin.
    let (code, text) = hub.pull(&sql(&other));
    assert!(code == 2 && text.contains("known of this log"), "{text}");
    assert_eq!(hub.sizes(&shop.origin), [10]);
    shop.grow(5);
    let policy = hub.directory.path().join("policy");
    let keys = format!("log {}\nlog {}\nquorum none\n", other.key(), shop.key());
    std::fs::write(&policy, keys).unwrap();
    let key = format!("key = '{}'", shop.key());
    let both = sql(&shop).replace(&key, &format!("policy = '{}'", policy.display()));
    let (code, text) = hub.pull(&both);
    assert_eq!(code, 0, "{text}");
    assert_eq!(hub.sizes(&shop.origin), [10, 15]);
}

fn sql(shop: &Shop) -> String {
    format!(
        "[[log]]\nname = 'shop'\nlog = 'audit'\nkey = '{}'\ndatabase = '{}'\n",
        shop.key(),
        shop.conninfo("reader")
    )
}

#[test]
fn a_row_is_proven_through_its_log_and_the_hub_by_one_command() {
    let (hub, shop) = (Hub::new(), Shop::open("only", 300));
    let logs = sql(&shop);
    let bundle = |key: &str, more: &[&str]| {
        let mut command = program();
        command
            .args([
                "hub",
                "bundle",
                "audit",
                "orders",
                key,
                "--hub",
                &hub.conninfo(),
            ])
            .args(["--dbname", &shop.conninfo("postgres")])
            .args(more);
        says(&mut command)
    };
    let (code, text) = bundle("7", &[]);
    assert!(code == 2 && text.contains("no checkpoint"), "{text}");
    assert_eq!(hub.pull(&logs).0, 0);
    // The log goes on, and the hub does not know of it yet.
    shop.grow(20);
    let (code, text) = bundle("7", &[]);
    assert_eq!(code, 0, "{text}");
    let keys = [shop.key(), hub.key()];
    let keys = [keys[0].as_str(), keys[1].as_str()];
    let (code, said) = hub.verify(&keys, "bundle.json", text.trim_end());
    assert_eq!(code, 0, "{said}");
    let proven: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(
        proven["proven"]["hub"]["checkpoint"]["origin"],
        "example.com/hub"
    );
    // Offline, each key is needed.
    for key in keys {
        assert_eq!(hub.verify(&[key], "bundle.json", text.trim_end()).0, 2);
    }
    let cbor = hub.directory.path().join("bundle.cbor");
    let (code, _) = bundle("7", &["--out", cbor.to_str().unwrap()]);
    assert_eq!((code, verify(&keys, &cbor).0), (0, 0));
    // What came later is proven after the next pull.
    let (code, text) = bundle("310", &[]);
    assert!(code == 2 && text.contains("no checkpoint"), "{text}");
    assert_eq!(hub.pull(&logs).0, 0);
    assert_eq!(bundle("310", &[]).0, 0);
    let (code, text) = bundle("99999", &[]);
    assert_eq!(code, 2, "{text}");
}

#[test]
fn two_hubs_that_pull_at_once_keep_one_chain() {
    let (hub, shop) = (Hub::new(), Shop::open("only", 10));
    let configuration = hub.configuration(&sql(&shop));
    let hubs: Vec<_> = (0..3)
        .map(|_| follower("hub", tempfile::tempdir().unwrap(), &configuration))
        .collect();
    for _ in 0..8 {
        shop.grow(5);
        std::thread::sleep(Duration::from_millis(300));
    }
    let newest = format!(
        "SELECT max(tree_size) = 50 FROM hub.checkpoints WHERE origin = '{}'",
        shop.origin
    );
    until(&mut hub.client(), &newest);
    drop(hubs);
    hub.is_whole();
}

#[test]
fn a_hub_that_is_killed_while_databases_come_and_go_loses_and_doubles_nothing() {
    let (hub, shop, other) = (Hub::new(), Shop::open("only", 10), Shop::open("other", 10));
    let logs = sql(&shop) + &sql(&other).replace("'shop'", "'other'");
    let configuration = hub.configuration(&logs);
    let mut random = StdRng::seed_from_u64(seed());
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for shop in [&shop, &other] {
            scope.spawn(|| {
                while !ending.load(SeqCst) {
                    if let Some(mut c) = shop.cluster.try_client("postgres") {
                        // The server may go away meanwhile.
                        let sql = "INSERT INTO orders (note) VALUES ('more'); SELECT process_next_batch('audit')";
                        let _ = c.batch_execute(sql);
                        let _ = c.batch_execute("SELECT checkpoint('audit')");
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        for round in 0..size(8, 100) {
            let running = follower("hub", tempfile::tempdir().unwrap(), &configuration);
            std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
            let away = match round % 4 {
                1 => Some(&hub.cluster),
                3 => Some(&shop.cluster),
                _ => None,
            };
            if let Some(cluster) = away {
                match random.random() {
                    true => cluster.stop(),
                    false => cluster.kill_9(),
                }
                std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
                cluster.restart();
            }
            signal("KILL", &[&running.pid()]);
        }
        ending.store(true, SeqCst);
    });
    for shop in [&shop, &other] {
        shop.grow(1);
    }
    let (code, text) = hub.pull(&logs);
    assert_eq!(code, 0, "{text}");
    hub.is_whole();
    for shop in [&shop, &other] {
        let size: i64 = one(&mut shop.client(), "SELECT merkle_size('audit')");
        assert_eq!(hub.sizes(&shop.origin).last(), Some(&size));
    }
    let convicted: i64 = one(&mut hub.client(), "SELECT count(*) FROM hub.convictions");
    assert_eq!(convicted, 0);
}

#[test]
fn a_hub_goes_on_by_itself_when_a_database_is_back() {
    let (hub, shop) = (Hub::new(), Shop::open("only", 10));
    let configuration = hub.configuration(&sql(&shop));
    let running = follower("hub", tempfile::tempdir().unwrap(), &configuration);
    running.until_status("/health", 200);
    for cluster in [&shop.cluster, &hub.cluster] {
        cluster.stop();
        running.until_status("/health", 503);
        let health = running.get("/health").json();
        // Which of the two threads has seen it first, and at which stage of the server's stop, does not matter.
        let said = health.to_string();
        let why = [
            "could not tell",
            "error connecting",
            "shutting down",
            "terminating connection",
            "connection closed",
        ];
        assert!(why.iter().any(|why| said.contains(why)), "{said}");
        cluster.restart();
        running.until_status("/health", 200);
    }
    let metrics = String::from_utf8(running.get("/metrics").body).unwrap();
    for line in [
        "merkle_log_hub_proven_bad{log=\"shop\"} 0\n",
        "merkle_log_hub_size_entries{log=\"shop\"} 10\n",
        "merkle_log_hub_pull_age_seconds{log=\"shop\"} ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    shop.rewrite_history();
    shop.grow(1);
    running.until_status("/health", 503);
    let mut c = hub.client();
    until(&mut c, "SELECT count(*) = 1 FROM hub.convictions");
}
