//! A gateway over a database with logs, and its form filled in.

use serde_json::{Value, json};
use server_tests::browser::Browser;
use server_tests::gateway::Gateway;
use server_tests::*;
use tlog::{KeyName, SignatureType, SigningKey};

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// As a log may be called.
pub const HOSTILE: &str = "<script>alert(1)</script> a/b?#%";

pub fn key() -> SigningKey {
    let name = KeyName::new("example.com/audit").unwrap();
    SigningKey::from_seed(name, SignatureType::Ed25519, &[7; 32]).unwrap()
}

pub fn verifier_key() -> String {
    key().verifier_key().to_string()
}

/// A gateway over a database with logs.
pub struct Site {
    pub gateway: Gateway,
    pub client: Client,
    _cluster: Cluster,
}

impl Site {
    pub fn start() -> Site {
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
            "CREATE TABLE orders (id bigint PRIMARY KEY, note text, amount numeric(12, 2));
             CREATE TABLE lines (order_id bigint, line text, PRIMARY KEY (order_id, line));
             SELECT create_log('audit'); SELECT add_source('audit', 'orders', capture => 'trigger', store_leaf_data => true);
             SELECT add_source('audit', 'lines', capture => 'trigger');
             CREATE TABLE people (id int PRIMARY KEY, name text);
             SELECT create_log('private'); SELECT add_source('private', 'people', capture => 'trigger', store_leaf_data => true);
             SELECT create_log('empty')",
        );
        c.execute("SELECT create_log($1)", &[&HOSTILE]).unwrap();
        run(
            &mut c,
            "INSERT INTO orders SELECT i, 'order ' || i, i * 1.25 FROM generate_series(1, 300) i",
        );
        run(&mut c, "INSERT INTO lines VALUES (7, 'first & last')");
        run(&mut c, "INSERT INTO people VALUES (1, 'Ada Lovelace')");
        drain(&mut c, "audit");
        drain(&mut c, "private");
        run(
            &mut c,
            "SELECT checkpoint('audit'); SELECT checkpoint('private')",
        );
        let gateway = Gateway::start(
            &cluster,
            &format!(
                "public_logs = [\"audit\"]\nread_tokens = \"{}\"",
                cluster.secret_file("tokens", &format!("reader {TOKEN}\n"))
            ),
        );
        Site {
            gateway,
            client: c,
            _cluster: cluster,
        }
    }

    pub fn address(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
    }

    /// The bundle of an order, as the database gives it.
    pub fn bundle(&mut self, order: i64) -> Value {
        let json: String = one(
            &mut self.client,
            &format!("SELECT json FROM proof_bundle_of('audit', 'orders', {order})"),
        );
        serde_json::from_str(&json).unwrap()
    }

    /// The page that readers keep, in a file of theirs.
    pub fn offline(&self) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("verify.html");
        std::fs::write(&file, self.gateway.get("/page/merkle_log-verify.html").body).unwrap();
        let address = format!("file://{}", file.display());
        (directory, address)
    }
}

/// Puts texts into the form, lets it check them, and returns the verdict with the kind of problem.
pub fn check(browser: &Browser, document: &str, policy: &str) -> (String, String) {
    let verdict = browser.script_async(
        "const [document_, policy, done] = arguments;
         const field = (id) => document.getElementById(id);
         [field('document').value, field('policy').value] = [document_, policy];
         field('report').hidden = true;
         field('check').requestSubmit();
         const look = () => {
           const verdict = document.querySelector('#report:not([hidden]) .verdict');
           if (verdict === null) setTimeout(look, 2);
           else done([verdict.className.split(' ').at(-1), verdict.dataset.kind]);
         };
         setTimeout(look, 0);",
        json!([document, policy]),
    );
    let part = |place: usize| verdict[place].as_str().unwrap_or_default().to_owned();
    (part(0), part(1))
}

pub fn assert_quiet(browser: &Browser) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

pub const PROVEN: &str =
    "return document.querySelector('#report:not([hidden]) .verdict.proven') !== null";

/// The form is there although no database is.
pub fn without_database() -> Gateway {
    Gateway::prepare(tempfile::tempdir().unwrap(), "", |command| {
        command
            .env("PGHOST", "/nowhere")
            .args(["--listen", "127.0.0.1:0"]);
    })
}

pub fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../docs/proof-format-vectors.json")).unwrap()
}

/// Every page of the site, in all its states.
pub const PAGES: [&str; 9] = [
    "/",
    "/page/log/audit",
    "/page/log/private",
    "/page/log/empty",
    "/page/log/%3Cscript%3Ealert(1)%3C%2Fscript%3E%20a%2Fb%3F%23%25",
    "/page/log/audit/row?table=orders&key=42",
    "/page/log/audit/entry?entry=300000",
    "/page/log/nowhere",
    "/page/verify",
];
