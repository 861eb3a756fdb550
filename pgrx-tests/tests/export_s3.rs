//! `merkle-log export` into an object store: moto, which speaks S3, on this machine.

use server_tests::command_line::{program, says};
use server_tests::*;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Moto {
    child: Child,
    endpoint: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/clients/python/bin")
        .join(name)
}

impl Moto {
    fn start() -> Moto {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new(python("python"))
            .arg(python("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &free.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/setup.sh test installs moto");
        let moto = Moto {
            child,
            endpoint: format!("http://{free}"),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(free).is_err() {
            assert!(Instant::now() < deadline, "moto does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        moto.objects(&["bucket"]);
        moto
    }

    fn objects(&self, arguments: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/s3_objects.py");
        let (code, text) = says(
            Command::new(python("python"))
                .arg(script)
                .arg(&self.endpoint)
                .args(arguments),
        );
        assert_eq!(code, 0, "{text}");
    }
}

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
fn a_bucket_holds_a_tree_that_goes_on_and_never_forks() {
    let moto = Moto::start();
    let cluster = Cluster::start();
    cluster.sign_with_a_new_key("example.com/audit");
    let mut c = cluster.client("postgres");
    let export = |database: &str, arguments: &[&str]| {
        let mut command = program();
        command
            .env("PGHOST", cluster.socket())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database);
        command
            .env("AWS_ENDPOINT", &moto.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1");
        command
            .env("AWS_ACCESS_KEY_ID", "a")
            .env("AWS_SECRET_ACCESS_KEY", "b");
        says(
            command
                .args(["export", "audit", "s3://bucket/logs/audit"])
                .args(arguments),
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let verified = |c: &mut Client, size: i64| {
        let copy = directory.path().join(size.to_string());
        moto.objects(&["bucket", copy.to_str().unwrap()]);
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
    let (code, text) = export("forked", &[]);
    assert!(
        code == 1 && text.contains("not a continuation"),
        "{code} {text}"
    );
    verified(&mut c, 70_000);
}
