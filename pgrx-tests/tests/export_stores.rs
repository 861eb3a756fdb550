//! `merkle-log export` into object stores: moto and Azurite, which speak the protocols of S3 and Azure, on this machine.

use server_tests::command_line::{program, says};
use server_tests::*;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What answers as an object store, which has a bucket of the name `bucket`.
struct Store {
    child: Child,
    kind: &'static str,
    endpoint: String,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> PathBuf {
    tests().join("../target/clients/python/bin/python")
}

/// An address of this machine that is free.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Store {
    fn s3() -> Store {
        let address = free();
        let mut moto = Command::new(python());
        moto.arg(python().with_file_name("moto_server")).args([
            "-H",
            "127.0.0.1",
            "-p",
            &address.port().to_string(),
        ]);
        Store::start("s3", moto, address, "")
    }

    fn azure() -> Store {
        let address = free();
        let mut azurite = Command::new("node");
        azurite
            .arg(tests().join("../target/clients/node/node_modules/azurite/dist/src/blob/main.js"))
            .args(["--blobHost", "127.0.0.1", "--blobPort"])
            .arg(address.port().to_string())
            .args([
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--silent",
                "--disableTelemetry",
            ]);
        Store::start("az", azurite, address, "/devstoreaccount1")
    }

    fn start(kind: &'static str, mut server: Command, address: SocketAddr, path: &str) -> Store {
        let child = server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/setup.sh test installs it");
        let store = Store {
            child,
            kind,
            endpoint: format!("http://{address}{path}"),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "{kind}: nobody listens");
            std::thread::sleep(Duration::from_millis(50));
        }
        store.objects(&["bucket"]);
        store
    }

    fn objects(&self, arguments: &[&str]) {
        let script = tests().join("clients/store_objects.py");
        let (code, text) = says(
            Command::new(python())
                .arg(script)
                .args([self.kind, &self.endpoint])
                .args(arguments),
        );
        assert_eq!(code, 0, "{text}");
    }

    /// Where it is, and who may write to it, as the environment says it.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let endpoint = self.endpoint.clone();
        match self.kind {
            "s3" => vec![
                ("AWS_ENDPOINT", endpoint),
                ("AWS_ALLOW_HTTP", "true".to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
                ("AWS_ACCESS_KEY_ID", "a".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
            ],
            _ => vec![
                ("AZURE_ENDPOINT", endpoint),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY.to_owned()),
            ],
        }
    }
}

/// Of the account that every Azurite has.
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

fn logged(client: &mut Client, note: &str, size: i64) {
    run(
        client,
        &format!(
            "CREATE TABLE IF NOT EXISTS orders (id bigint PRIMARY KEY, note text DEFAULT '{note}');
             INSERT INTO orders (id) SELECT generate_series((SELECT coalesce(max(id), 0) + 1 FROM orders), {size})"
        ),
    );
    if one::<i64>(
        client,
        "SELECT count(*) FROM verification_logs WHERE log_name = 'audit'",
    ) == 0
    {
        run(
            client,
            "SELECT create_log('audit', batch_size => 100000, origin => 'example.com/audit');
             SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark')",
        );
    }
    assert_eq!(drain(client, "audit"), size);
}

#[test]
fn a_bucket_of_s3_holds_a_tree_that_goes_on_and_never_forks() {
    holds_a_tree_that_goes_on_and_never_forks(&Store::s3());
}

#[test]
fn a_container_of_azure_holds_a_tree_that_goes_on_and_never_forks() {
    holds_a_tree_that_goes_on_and_never_forks(&Store::azure());
}

fn holds_a_tree_that_goes_on_and_never_forks(store: &Store) {
    let cluster = Cluster::start();
    cluster.sign_with_a_new_key("example.com/audit");
    let mut c = cluster.client("postgres");
    let export = |database: &str, arguments: &[&str]| {
        let mut command = program();
        command
            .env("PGHOST", cluster.socket())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database);
        command.envs(store.environment());
        says(
            command
                .args([
                    "export",
                    "audit",
                    &format!("{}://bucket/logs/audit", store.kind),
                ])
                .args(arguments),
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let verified = |c: &mut Client, size: i64| {
        let copy = directory.path().join(size.to_string());
        store.objects(&["bucket", copy.to_str().unwrap()]);
        let key: String = one(c, "SELECT checkpoint_key('audit')");
        let (code, text) = says(
            program()
                .args(["verify", "--key", &key])
                .arg(copy.join("logs/audit")),
        );
        assert!(
            code == 0 && text.contains(&format!("{size} entries")),
            "{code} {text}"
        );
        copy.join("logs/audit")
    };
    for size in [100, 300, 70_000] {
        logged(&mut c, "", size);
        let (code, text) = export("postgres", &[]);
        assert_eq!(code, 0, "{text}");
        let copy = verified(&mut c, size);
        assert!(!copy.join("tile/0/000.p").exists() || size < 256);
    }
    let (code, text) = export("postgres", &["--again"]);
    assert_eq!(code, 0, "{text}");
    // Another history under the same name is refused, and so are tiles that it would have left.
    run(&mut c, "CREATE DATABASE forked");
    let mut forked = cluster.client("forked");
    run(&mut forked, "CREATE EXTENSION merkle_log");
    logged(&mut forked, "forked", 71_000);
    cluster.forgets_what_it_signed();
    let (code, text) = export("forked", &[]);
    assert!(
        code == 1 && text.contains("not a continuation"),
        "{code} {text}"
    );
    verified(&mut c, 70_000);
}
