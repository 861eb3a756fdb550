//! `merkle-log` finds a database as psql does, and administers the logs in it.

use server_tests::command_line::{program, says};
use server_tests::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn logs(client: &mut Client) -> Vec<String> {
    column(
        client,
        "SELECT concat_ws(' ', log_name, batch_size, settle, origin, checkpoint_interval,
                          CASE WHEN NOT enabled THEN 'disabled' END, CASE WHEN paused THEN 'paused' END)
           FROM verification_logs WHERE log_id > 0 ORDER BY log_name",
    )
}

fn sources(client: &mut Client) -> Vec<String> {
    column(
        client,
        "SELECT concat_ws(' ', log_name, source_table, capture, order_column, array_to_string(columns, ','), append_only, store_leaf_data)
           FROM merkle_log_sources WHERE removed_at IS NULL ORDER BY 1",
    )
}

/// Lets the server read its configuration again, with a line added. New sessions come after that.
fn reload(cluster: &Cluster, client: &mut Client, line: &str) {
    let before: String = one(client, "SELECT pg_conf_load_time()::text");
    cluster.reload_with(line);
    until(client, &format!("SELECT pg_conf_load_time() <> '{before}'"));
}

struct Operator<'c>(&'c Cluster);

impl Operator<'_> {
    fn says(&self, arguments: &[&str]) -> (i32, String) {
        says(
            program()
                .env("PGHOST", self.0.socket())
                .env("PGUSER", "postgres")
                .args(arguments),
        )
    }

    fn does(&self, arguments: &[&str]) -> String {
        let (code, text) = self.says(arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}");
        text
    }
}

#[test]
fn logs_and_sources_are_made_changed_and_removed() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE orders (id bigint PRIMARY KEY, note text, \"o'k\" text)",
    );
    let operator = Operator(&cluster);
    operator.does(&[
        "log",
        "create",
        "it's",
        "--batch-size",
        "7",
        "--origin",
        "example.com/a",
    ]);
    operator.does(&[
        "log",
        "alter",
        "it's",
        "--rename",
        "audit",
        "--settle",
        "3 s",
        "--checkpoint-interval",
        "1 min",
    ]);
    operator.does(&["log", "pause", "audit"]);
    assert_eq!(
        logs(&mut c),
        ["audit 7 00:00:03 example.com/a 00:01:00 paused"]
    );
    operator.does(&["log", "resume", "audit"]);
    operator.does(&["log", "disable", "audit"]);
    assert_eq!(
        logs(&mut c),
        ["audit 7 00:00:03 example.com/a 00:01:00 disabled"]
    );
    operator.does(&["log", "enable", "audit"]);
    operator.does(&["log", "alter", "audit", "--settle", "0"]);
    let add = [
        "source",
        "add",
        "audit",
        "orders",
        "--order-column",
        "id",
        "--capture",
        "watermark",
        "--columns",
        "note,o'k",
    ];
    operator.does(&[&add[..], &["--append-only", "--store-leaf-data=true"]].concat());
    assert_eq!(
        sources(&mut c),
        ["audit public.orders watermark id note,o'k t t"]
    );
    run(
        &mut c,
        "INSERT INTO orders SELECT i FROM generate_series(1, 5) i",
    );
    assert_eq!(drain(&mut c, "audit"), 5);
    let status = operator.does(&["status"]);
    assert!(
        status.contains("audit") && status.contains("running"),
        "{status}"
    );
    let status = operator.does(&["--json", "status", "audit"]);
    assert!(
        status.contains("\"tree_size\": 5") && status.lines().count() == 1,
        "{status}"
    );
    assert_eq!(operator.says(&["status", "absent"]).0, 2);
    // What the server says is passed on, with its hint.
    let (code, text) = operator.says(&["log", "drop", "audit"]);
    assert!(code == 2 && text.contains("Hint: "), "{code} {text}");
    operator.does(&["source", "remove", "audit", "public.orders"]);
    operator.does(&["log", "drop", "audit", "--confirm"]);
    assert_eq!(logs(&mut c), [""; 0]);
}

#[test]
fn a_file_declares_logs_and_sources() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    run(
        &mut c,
        "CREATE TABLE a (id bigint PRIMARY KEY, x text, y text); CREATE TABLE b (id bigint PRIMARY KEY); CREATE TABLE c (id bigint PRIMARY KEY)",
    );
    let operator = Operator(&cluster);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("logs.toml");
    let at = file.to_str().unwrap();
    let declare = |text: &str| fs::write(&file, text).unwrap();
    declare(
        "[logs.audit]\nbatch_size = 100\ncheckpoint_interval = \"60 s\"\n\
         [logs.audit.sources.\"public.a\"]\norder_column = \"id\"\ncapture = \"watermark\"\n\
         [logs.audit.sources.b]\norder_column = \"id\"\ncapture = \"watermark\"\n\
         [logs.more]\npaused = true\n",
    );
    let text = operator.does(&["apply", at, "--dry-run"]);
    assert!(
        text.contains("create_log(name => 'audit'") && text.contains("pause_log(name => 'more')"),
        "{text}"
    );
    assert_eq!(logs(&mut c), [""; 0]);
    assert_eq!(operator.does(&["apply", at]), text);
    let declared = ["audit 100 00:00:00 00:01:00", "more 00:00:00 paused"];
    assert_eq!(logs(&mut c), declared);
    let both = [
        "audit public.a watermark id f f",
        "audit public.b watermark id f f",
    ];
    assert_eq!(sources(&mut c), both);
    assert_eq!(operator.does(&["apply", at]), "everything is as declared\n");
    // Changes are made; what is not named stays, until asked for.
    declare(
        "[logs.audit]\nbatch_size = 200\ncheckpoint_interval = \"0\"\n\
         [logs.audit.sources.\"public.a\"]\nstore_leaf_data = true\ncolumns = [\"x\"]\n\
         [logs.more]\npaused = false\n",
    );
    let text = operator.does(&["apply", at]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert_eq!(logs(&mut c), ["audit 200 00:00:00", "more 00:00:00"]);
    assert_eq!(
        sources(&mut c),
        [
            "audit public.a watermark id x f t",
            "audit public.b watermark id f f"
        ]
    );
    assert_eq!(operator.does(&["apply", at]), "everything is as declared\n");
    let text = operator.does(&["--json", "apply", at, "--remove-sources"]);
    assert!(
        text.contains("\"remove_source\"") && text.lines().count() == 1,
        "{text}"
    );
    assert_eq!(sources(&mut c).len(), 1);
    // All of it or nothing.
    declare("[logs.another]\n[logs.audit.sources.absent]\norder_column = \"id\"\n");
    assert_eq!(operator.says(&["apply", at]).0, 2);
    assert_eq!(logs(&mut c).len(), 2);
    declare("[logs.audit.sources.a]\norder_column = \"y\"\n");
    let (code, text) = operator.says(&["apply", at]);
    assert!(
        code == 2 && text.contains("cannot be changed"),
        "{code} {text}"
    );
    declare("[logs.audit]\nbatch_sise = 3\n");
    let (code, text) = operator.says(&["apply", at]);
    assert!(code == 2 && text.contains("batch_sise"), "{code} {text}");
}

#[test]
fn a_database_is_named_as_psql_names_it() {
    let cluster = Cluster::start();
    let mut c = cluster.client("postgres");
    each(
        &mut c,
        &[
            "CREATE DATABASE empty",
            "CREATE ROLE reader LOGIN PASSWORD 'se:cret'",
            "SELECT create_log('audit')",
        ],
    );
    let home = tempfile::tempdir().unwrap();
    let socket = cluster.socket().display().to_string();
    let status = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = program();
        command
            .env("HOME", home.path())
            .envs(environment.iter().copied());
        says(command.args(["--json", "status"]).args(arguments))
    };
    let found = |(code, text): (i32, String)| {
        assert!(code == 0 && text.contains("\"audit\""), "{code} {text}")
    };
    let user = [("PGHOST", socket.as_str()), ("PGUSER", "postgres")];
    found(status(&user, &[]));
    found(status(&user, &["-d", "postgres"]));
    found(status(
        &[],
        &[
            "--dbname",
            &format!("host={socket} user=postgres dbname=postgres"),
        ],
    ));
    let encoded = socket.replace('/', "%2F");
    found(status(
        &[],
        &[
            "--dbname",
            &format!("postgresql://postgres@{encoded}/postgres"),
        ],
    ));
    let (code, text) = status(&user, &["-d", "empty"]);
    assert!(
        code == 2 && text.contains("CREATE EXTENSION"),
        "{code} {text}"
    );
    fs::write(
        home.path().join(".pg_service.conf"),
        format!("[it]\nhost={socket}\nuser=postgres\ndbname=postgres\n"),
    )
    .unwrap();
    found(status(&[("PGSERVICE", "it")], &[]));
    found(status(&[], &["-d", "service=it"]));
    let (code, text) = status(&[], &["-d", "service=other"]);
    assert!(
        code == 2 && text.contains("definition of the service"),
        "{code} {text}"
    );
    // Passwords.
    let hba = cluster.socket().join("data/pg_hba.conf");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("local all reader scram-sha-256\n{rules}")).unwrap();
    reload(&cluster, &mut c, "");
    let reader = format!("host={socket} user=reader dbname=postgres");
    assert_eq!(status(&[], &["-d", &reader]).0, 2);
    assert_eq!(status(&[("PGPASSWORD", "wrong")], &["-d", &reader]).0, 2);
    found(status(&[("PGPASSWORD", "se:cret")], &["-d", &reader]));
    let file = home.path().join("pass");
    fs::write(&file, format!("{socket}:*:postgres:reader:se\\:cret\n")).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    found(status(
        &[("PGPASSFILE", file.to_str().unwrap())],
        &["-d", &reader],
    ));
    fs::rename(&file, home.path().join(".pgpass")).unwrap();
    found(status(&[], &["-d", &reader]));
    let (code, text) = status(&[], &["-d", &format!("{reader} password=se:cret")]);
    assert!(
        code == 2 && !text.contains("se:cret") && text.contains("pgpass"),
        "{code} {text}"
    );
}

fn openssl(at: &Path, line: &str) {
    let output = Command::new("openssl")
        .args(line.split(' '))
        .current_dir(at)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn certificates_are_checked_as_sslmode_says() {
    // An address of this machine that nobody else listens on.
    let number = std::process::id();
    let address = format!(
        "127.{}.{}.{}",
        1 + number % 200,
        number / 200 % 250,
        1 + number / 50_000 % 250
    );
    let cluster = Cluster::with(&format!("listen_addresses = '{address}'"));
    let mut c = cluster.client("postgres");
    run(&mut c, "SELECT create_log('audit')");
    let keys = tempfile::tempdir_in(cluster.socket()).unwrap();
    let at = keys.path();
    for authority in ["ca", "other"] {
        openssl(
            at,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.crt"
            ),
        );
    }
    openssl(
        at,
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server -keyout server.key -out server.csr",
    );
    for (name, names) in [
        ("right", format!("IP:{address}")),
        ("wrong", "DNS:elsewhere.example".to_owned()),
    ] {
        fs::write(at.join("names"), format!("subjectAltName={names}")).unwrap();
        openssl(
            at,
            &format!(
                "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.crt"
            ),
        );
    }
    fs::set_permissions(at.join("server.key"), PermissionsExt::from_mode(0o600)).unwrap();
    cluster.hand_over(at);
    let hba = cluster.socket().join("data/pg_hba.conf");
    let status = |mode: &str, root: Option<&str>| {
        let mut command = program();
        if let Some(root) = root {
            command.env("PGSSLROOTCERT", at.join(root));
        }
        let uri = format!("postgresql://postgres@{address}/postgres?sslmode={mode}");
        says(command.args(["--json", "status", "--dbname", &uri]))
    };
    fs::write(
        &hba,
        "local all all trust
host all all 127.0.0.0/8 trust
",
    )
    .unwrap();
    reload(&cluster, &mut c, "");
    assert_eq!(status("disable", None).0, 0);
    assert_eq!(status("prefer", None).0, 0);
    assert_eq!(status("require", None).0, 2, "the server has no TLS yet");
    let mut certificates = Vec::new();
    for name in ["right", "wrong"] {
        reload(
            &cluster,
            &mut c,
            &format!(
                "ssl = on\nssl_cert_file = '{0}/{name}.crt'\nssl_key_file = '{0}/server.key'",
                at.display()
            ),
        );
        // A server process that is started from now on has it.
        let modes = [
            ("require", None),
            ("require", Some("other.crt")),
            ("verify-ca", None),
            ("verify-ca", Some("ca.crt")),
            ("verify-ca", Some("other.crt")),
            ("verify-full", Some("ca.crt")),
            ("verify-full", Some("other.crt")),
            ("allow", None),
        ];
        certificates.push(modes.map(|(mode, root)| status(mode, root).0));
    }
    assert_eq!(
        certificates,
        [[0, 2, 2, 0, 2, 0, 2, 2], [0, 2, 2, 0, 2, 2, 2, 2]]
    );
    // Connections are encrypted where they can be.
    fs::write(
        &hba,
        "local all all trust
hostssl all all 127.0.0.0/8 trust
",
    )
    .unwrap();
    reload(&cluster, &mut c, "");
    assert_eq!(status("disable", None).0, 2);
    assert_eq!(status("prefer", None).0, 0);
}
