//! Administration through `merkle-log serve`: only with a token, only on its own listener, and all of it on record.

use serde_json::{Value, json};
use server_tests::gateway::{Answer, Gateway, exchange_unix, token_file};
use server_tests::*;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const TOKEN: &str = "fedcba9876543210fedcba9876543210";

struct Bench {
    client: Client,
    gateway: Gateway,
    socket: PathBuf,
    _cluster: Cluster,
}

impl Bench {
    fn new(cluster: Cluster) -> Bench {
        let client = cluster.client("postgres");
        let directory = tempfile::tempdir().unwrap();
        token_file(
            directory.path(),
            "read",
            &format!("reader {}\n", "r".repeat(40)),
        );
        token_file(directory.path(), "admin", &format!("ana {TOKEN}\n"));
        let socket = directory.path().join("admin.sock");
        let configuration = "read_tokens = '{directory}/read'
            [admin]\nlisten = 'unix:{directory}/admin.sock'\ntokens = '{directory}/admin'";
        let mut gateway = Gateway::prepare(directory, configuration, |command| {
            command
                .env("PGHOST", cluster.socket())
                .env("PGUSER", "postgres")
                .env("PGDATABASE", "postgres")
                .args(["--listen", "127.0.0.1:0"]);
        });
        gateway.says("listening for administration");
        Bench {
            client,
            gateway,
            socket,
            _cluster: cluster,
        }
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let authorization = format!("Bearer {TOKEN}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
        ];
        exchange_unix(&self.socket, method, path, &headers, body)
    }

    fn does(&self, path: &str, body: &str, status: u16) {
        let answer = self.call("POST", path, body);
        assert_eq!(answer.status, status, "{path}: {answer}");
    }

    /// The lines of the audit log, each as its text, once there are so many.
    fn audit(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let lines = self.gateway.lines().into_iter();
            let audit = lines.filter(|line| line["target"] == "audit");
            let audit: Vec<_> = audit.map(|line| line["fields"].to_string()).collect();
            if audit.len() >= count {
                assert_eq!(audit.len(), count, "{audit:?}");
                return audit;
            }
            assert!(Instant::now() < deadline, "{audit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn what_is_done_to_logs_is_done_and_is_on_record() {
    let mut bench = Bench::new(Cluster::start());
    bench.does(
        "/admin/logs",
        &json!({"name": "audit", "settings": {"batch_size": 77, "origin": "example.com/audit"}})
            .to_string(),
        201,
    );
    let size: i32 = one(
        &mut bench.client,
        "SELECT batch_size FROM merkle_log_status WHERE log_name = 'audit'",
    );
    assert_eq!(size, 77);
    let state = |bench: &mut Bench, column: &str| -> bool {
        let sql = format!("SELECT {column} FROM merkle_log_status WHERE log_name = 'audit'");
        one(&mut bench.client, &sql)
    };
    for (act, column, after) in [
        ("pause", "paused", true),
        ("resume", "paused", false),
        ("disable", "enabled", false),
        ("enable", "enabled", true),
    ] {
        bench.does(&format!("/admin/logs/audit/{act}"), "", 204);
        assert_eq!(state(&mut bench, column), after, "{act}");
    }
    let acts: Vec<String> = column(
        &mut bench.client,
        "SELECT act || ': ' || application_name FROM administration('audit') ORDER BY leaf_index",
    );
    let names = ["created", "paused", "resumed", "disabled", "enabled"];
    let expected: Vec<String> = names
        .iter()
        .map(|act| format!("log {act}: merkle-log serve: ana"))
        .collect();
    assert_eq!(acts, expected);
    let audit = bench.audit(5);
    assert!(
        audit
            .iter()
            .all(|line| line.contains("\"ana\"") && line.contains("\"done\"")),
        "{audit:?}"
    );
    assert!(
        audit[0].contains("create_log(name => 'audit'") && audit[0].contains("77"),
        "{audit:?}"
    );
    // No worker runs here; what that means is said.
    let (status, kind, hint) = bench.call("POST", "/admin/logs/audit/run", "").problem();
    assert_eq!((status, kind.as_str()), (409, "conflict"));
    assert!(hint.contains("merkle_log.databases"), "{hint}");
    let refused = &bench.audit(6)[5];
    assert!(
        refused.contains("refused") && refused.contains("run_now"),
        "{refused}"
    );
}

#[test]
fn a_log_is_run_at_once_when_it_is_asked_for() {
    let cluster =
        Cluster::with("shared_preload_libraries = 'merkle_log'\nmerkle_log.databases = 'postgres'");
    let mut bench = Bench::new(cluster);
    run(
        &mut bench.client,
        "CREATE TABLE orders (id bigint PRIMARY KEY);
         SELECT create_log('audit', run_interval => '1 hour');
         SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, capture => 'watermark')",
    );
    until(
        &mut bench.client,
        "SELECT worker_pid IS NOT NULL AND last_run_at IS NOT NULL FROM merkle_log_status WHERE log_name = 'audit'",
    );
    run(&mut bench.client, "INSERT INTO orders VALUES (1)");
    bench.does("/admin/logs/audit/run", "", 204);
    until(&mut bench.client, "SELECT merkle_size('audit') = 1");
}

#[test]
fn nobody_administers_without_a_token_or_from_elsewhere() {
    let mut bench = Bench::new(Cluster::start());
    run(&mut bench.client, "SELECT create_log('audit')");
    let reader = format!("Bearer {}", "r".repeat(40));
    for authorization in [
        None,
        Some("Bearer x"),
        Some(reader.as_str()),
        Some("Basic YTpi"),
    ] {
        let headers: Vec<_> = authorization
            .map(|value| ("authorization", value))
            .into_iter()
            .collect();
        for path in [
            "/admin/logs/audit/pause",
            "/admin/logs",
            "/admin/logs/nothing/run",
        ] {
            let answer = exchange_unix(&bench.socket, "POST", path, &headers, "");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.problem().0, 401, "{path}");
        }
    }
    let audit = bench.audit(12);
    assert!(
        audit
            .iter()
            .all(|line| line.contains("refused") && !line.contains(&"r".repeat(40)))
    );
    // The public listener knows no administration, and the administrator's token shows nobody's rows.
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("authorization", authorization.as_str())];
    let public = bench
        .gateway
        .request("POST", "/admin/logs/audit/pause", &headers, "");
    assert_eq!(public.problem().0, 404);
    assert_eq!(
        bench
            .gateway
            .get_with("/logs/audit/entries", &headers)
            .problem()
            .0,
        401
    );
    let untouched: bool = one(
        &mut bench.client,
        "SELECT NOT paused FROM merkle_log_status WHERE log_name = 'audit'",
    );
    assert!(untouched);
    // Group and owner alone may connect.
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&bench.socket).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn what_cannot_be_done_says_why() {
    let mut bench = Bench::new(Cluster::start());
    run(&mut bench.client, "SELECT create_log('audit')");
    let long = "x".repeat(100_000);
    for (path, body, status) in [
        ("/admin/logs", r#"{"name": "audit"}"#, 409),
        ("/admin/logs", r#"{"name": ""}"#, 400),
        (
            "/admin/logs",
            r#"{"name": "a", "settings": {"settle": "soon"}}"#,
            400,
        ),
        (
            "/admin/logs",
            r#"{"name": "a", "settings": {"batch_size": -1}}"#,
            400,
        ),
        (
            "/admin/logs",
            r#"{"name": "a", "settings": {"nonsense": 1}}"#,
            400,
        ),
        (
            "/admin/logs",
            r#"{"name": "a", "settings": {"batch_size": 0}}"#,
            400,
        ),
        ("/admin/logs", r#"{"nmae": "a"}"#, 400),
        ("/admin/logs", "", 400),
        ("/admin/logs", "[", 400),
        ("/admin/logs", long.as_str(), 413),
        ("/admin/logs/nothing/pause", "", 404),
        ("/admin/logs/merkle_log_administration/pause", "", 400),
        (
            "/admin/logs/audit/schedule",
            r#"{"schedule": "* * * * *"}"#,
            404,
        ),
        ("/admin/logs/audit/schedule", "{}", 400),
        ("/admin/logs/audit/drop", "", 404),
    ] {
        let answer = bench.call("POST", path, body);
        assert_eq!(answer.problem().0, status, "{path} {body:.40}: {answer}");
    }
    let authorization = format!("Bearer {TOKEN}");
    let plain = [
        ("authorization", authorization.as_str()),
        ("content-type", "text/plain"),
    ];
    let answer = exchange_unix(
        &bench.socket,
        "POST",
        "/admin/logs",
        &plain,
        r#"{"name": "b"}"#,
    );
    assert_eq!(answer.problem().0, 415);
    assert_eq!(
        bench.call("GET", "/admin/logs/audit/pause", "").problem().0,
        405
    );
    let names: Vec<String> = column(
        &mut bench.client,
        "SELECT log_name FROM merkle_log_status WHERE log_name <> 'merkle_log_administration' ORDER BY 1",
    );
    assert_eq!(names, ["audit"]);
    // Its documentation is its own.
    let document = exchange_unix(&bench.socket, "GET", "/openapi.json", &[], "").json();
    assert!(
        document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .all(|path| path.starts_with("/admin/"))
    );
    let _: &Value = &document;
}

#[test]
fn administration_is_not_opened_to_the_network_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = token_file(directory.path(), "admin", &format!("ana {TOKEN}\n"));
    let file = directory.path().join("gateway.toml");
    std::fs::write(
        &file,
        format!(
            "[admin]\nlisten = '0.0.0.0:0'\ntokens = {:?}",
            tokens.to_str().unwrap()
        ),
    )
    .unwrap();
    let mut command = command_line::program();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&file);
    let (code, text) = command_line::says(&mut command);
    assert!(
        code == 2 && text.contains("not of this machine alone"),
        "{code} {text}"
    );
}
