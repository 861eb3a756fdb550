//! `merkle-log serve` when things go wrong around it: the database goes and comes back, clients are slow, huge and many,
//! and the gateway itself is reloaded, told to end, and killed.

use merkle_tree::{Hash, LeafIndex, TreeSize, verify_inclusion};
use serde_json::Value;
use server_tests::gateway::{Answer, Gateway, exchange, exchange_unix, hash, token_file};
use server_tests::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const ROWS: i64 = 1000;

/// A cluster whose log `audit` has rows, as long as `note` says.
fn cluster_with(note: usize) -> (Cluster, Client) {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        &format!(
            "CREATE TABLE orders (id bigint PRIMARY KEY, note text);
             SELECT create_log('audit', batch_size => 100000);
             SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark');
             INSERT INTO orders SELECT i, repeat('x', {note}) FROM generate_series(1, {ROWS}) i"
        ),
    );
    assert_eq!(drain(&mut client, "audit"), ROWS);
    (cluster, client)
}

fn root(client: &mut Client) -> Hash {
    let root: Vec<u8> = one(client, "SELECT merkle_root('audit')");
    Hash::try_from(root.as_slice()).unwrap()
}

fn is_proof(answer: &Answer, root: &Hash) {
    let proof = answer.json();
    let path: Vec<Hash> = proof["path"].as_array().unwrap().iter().map(hash).collect();
    let index = LeafIndex::new(proof["index"].as_u64().unwrap()).unwrap();
    let size = TreeSize::new(proof["size"].as_u64().unwrap()).unwrap();
    verify_inclusion(&hash(&proof["leaf_hash"]), index, size, &path, root).unwrap();
}

/// An answer, if the connection lasts until there is one.
fn attempt(address: &str, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let length: usize = text
        .split("content-length: ")
        .nth(1)?
        .split("\r\n")
        .next()?
        .parse()
        .ok()?;
    let torn = text
        .split_once("\r\n\r\n")
        .is_none_or(|(_, body)| body.len() != length);
    (!torn).then(|| Answer::parse(&bytes))
}

#[test]
fn a_restart_of_the_database_is_announced_and_recovered_from() {
    let (cluster, mut client) = cluster_with(10);
    let root = root(&mut client);
    drop(client);
    let gateway = Gateway::start(&cluster, "");
    let proof = "/logs/audit/proof?index=7";
    is_proof(&gateway.get(proof), &root);
    let (ending, answered, refused) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ending.load(SeqCst) {
                    let answer = gateway.get(proof);
                    match answer.status {
                        200 => is_proof(&answer, &root),
                        _ => {
                            assert_eq!(answer.problem().1, "unavailable", "{answer}");
                            assert_eq!(answer.header("retry-after"), Some("1"));
                            refused.fetch_add(1, SeqCst);
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    }
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
        for _ in 0..3 {
            cluster.stop();
            gateway.until_status("/health/ready", 503);
            assert_eq!(gateway.get("/health/live").status, 200);
            // What was read within the last second is still answered.
            gateway.until_status("/logs", 503);
            let metrics = String::from_utf8(gateway.get("/metrics").body).unwrap();
            assert!(
                metrics.contains("merkle_log_gateway_database_up 0\n"),
                "{metrics}"
            );
            cluster.restart();
            gateway.until_status("/health/ready", 200);
            gateway.until_status(proof, 200);
        }
        // And killed, with all its processes.
        cluster.kill_9();
        cluster.restart();
        gateway.until_status(proof, 200);
        ending.store(true, SeqCst);
    });
    assert!(refused.load(SeqCst) > 0 && answered.load(SeqCst) > refused.load(SeqCst));
    is_proof(&gateway.get(proof), &root);
}

#[test]
fn a_gateway_that_is_started_before_its_database_waits_for_it() {
    let (cluster, _) = cluster_with(10);
    cluster.stop();
    let gateway = Gateway::start(&cluster, "");
    assert_eq!(gateway.get("/logs/audit/size").problem().0, 503);
    cluster.restart();
    gateway.until_status("/logs/audit/size", 200);
}

#[test]
fn a_statement_that_waits_for_a_lock_is_given_up_and_the_others_go_on() {
    let (cluster, mut client) = cluster_with(10);
    let gateway = Gateway::start(
        &cluster,
        "[limits]\nstatement_ms = 500\ndatabase_connections = 2",
    );
    gateway.json("/logs/audit/proof?index=1");
    let mut locker = cluster.client("postgres");
    run(
        &mut locker,
        "BEGIN; LOCK TABLE merkle_checkpoint IN ACCESS EXCLUSIVE MODE",
    );
    for _ in 0..6 {
        let answer = gateway.get("/logs/audit/checkpoints");
        assert_eq!(answer.problem().0, 503, "{answer}");
        gateway.json("/logs/audit/proof?index=1");
    }
    run(&mut locker, "COMMIT");
    assert_eq!(
        gateway.json("/logs/audit/checkpoints"),
        Value::Array(Vec::new())
    );
    until(
        &mut client,
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'merkle-log' AND state = 'active')",
    );
}

#[test]
fn sigterm_finishes_what_runs_and_takes_nothing_new() {
    let (cluster, _) = cluster_with(10);
    let mut gateway = Gateway::start(&cluster, "");
    let mut locker = cluster.client("postgres");
    run(
        &mut locker,
        "BEGIN; LOCK TABLE merkle_checkpoint IN ACCESS EXCLUSIVE MODE",
    );
    let address = gateway.address.clone();
    let idle = gateway.connect();
    let waiting = std::thread::spawn({
        let address = address.clone();
        move || attempt(&address, "/logs/audit/checkpoints")
    });
    until(
        &mut cluster.client("postgres"),
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'merkle-log' AND wait_event_type = 'Lock')",
    );
    signal("TERM", &[&gateway.pid()]);
    gateway.says("ending: running requests are finished");
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    run(&mut locker, "COMMIT");
    assert_eq!(waiting.join().unwrap().unwrap().status, 200);
    // A connection on which nothing runs does not keep it.
    assert!(gateway.ends().success());
    drop(idle);
}

#[test]
fn a_killed_gateway_serves_nothing_torn_and_is_started_again_where_it_was() {
    let (cluster, mut client) = cluster_with(2000);
    let root = root(&mut client);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("gateway.sock");
    let start = |listen: &[&str]| {
        Gateway::prepare(
            tempfile::tempdir().unwrap(),
            "public_logs = ['audit']",
            |command| {
                command
                    .env("PGHOST", cluster.socket())
                    .env("PGUSER", "postgres")
                    .env("PGDATABASE", "postgres");
                for listen in listen {
                    command.args(["--listen", listen]);
                }
            },
        )
    };
    let unix = format!("unix:{}", socket.display());
    let mut gateway = start(&["127.0.0.1:0", &unix]);
    let mut answered = 0;
    for round in 0..size(8, 100) {
        let address = gateway.address.clone();
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let address = address.clone();
                std::thread::spawn(move || {
                    let path = match reader % 2 {
                        0 => "/logs/audit/proof?index=5",
                        _ => "/logs/audit/entries",
                    };
                    let mut answers = Vec::new();
                    while let Some(answer) = attempt(&address, path) {
                        answers.push(answer);
                        if answers.len() > 200 {
                            answers.remove(0);
                        }
                    }
                    (reader, answers)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20 + 37 * (round % 7)));
        signal("KILL", &[&gateway.pid()]);
        gateway.ends();
        for reader in readers {
            let (reader, answers) = reader.join().unwrap();
            answered += answers.len();
            for answer in answers {
                assert_eq!(answer.status, 200, "{answer}");
                match reader % 2 {
                    0 => is_proof(&answer, &root),
                    _ => assert!(answer.json()["entries"].is_array()),
                }
            }
        }
        gateway = start(&[&address, &unix]);
        assert_eq!(gateway.address, address);
        is_proof(&gateway.get("/logs/audit/proof?index=5"), &root);
        assert_eq!(
            exchange_unix(&socket, "GET", "/logs/audit/size", &[], "").status,
            200
        );
    }
    assert!(answered > 0, "nothing was served before it was killed");
}

#[test]
fn a_reload_changes_who_sees_what_and_a_bad_one_changes_nothing() {
    let (cluster, _) = cluster_with(10);
    let mut gateway = Gateway::start(&cluster, "");
    let public = |gateway: &Gateway| {
        gateway.json("/logs/audit/entries?to=1")["entries"][0]
            .get("table")
            .is_some()
    };
    assert!(!public(&gateway));
    gateway.reload("public_logs = ['audit']", "the configuration was reloaded");
    assert!(public(&gateway));
    let bad = "the configuration was not reloaded, and stays as it was";
    for wrong in [
        "public_logs = 'audit'",
        "nonsense = 1",
        "read_tokens = '{directory}/absent'",
        "[[[",
    ] {
        gateway.reload(wrong, bad);
        assert!(public(&gateway), "{wrong}");
    }
    let token = "t".repeat(40);
    let file = token_file(
        gateway.directory.path(),
        "tokens",
        &format!("ana {token}\n"),
    );
    let configuration = "read_tokens = '{directory}/tokens'";
    gateway.reload(configuration, "the configuration was reloaded");
    assert!(!public(&gateway));
    let header = format!("Bearer {token}");
    let with_token = |gateway: &Gateway| {
        gateway.get_with("/logs/audit/entries?to=1", &[("authorization", &header)])
    };
    assert!(
        with_token(&gateway).json()["entries"][0]
            .get("table")
            .is_some()
    );
    // Others may not read the file: its tokens are not believed, and those that were stay.
    Command::new("chmod")
        .arg("644")
        .arg(&file)
        .status()
        .unwrap();
    gateway.reload(configuration, bad);
    assert_eq!(with_token(&gateway).status, 200);
    token_file(
        gateway.directory.path(),
        "tokens",
        &format!("ben {}\n", "u".repeat(40)),
    );
    gateway.reload(configuration, "the configuration was reloaded");
    assert_eq!(with_token(&gateway).problem().0, 401);
    let metrics = String::from_utf8(gateway.get("/metrics").body).unwrap();
    assert!(
        metrics.contains("merkle_log_gateway_reloads_failed_total 5\n"),
        "{metrics}"
    );
}

#[test]
fn slow_clients_are_given_up_and_leave_the_others_served() {
    let (cluster, mut client) = cluster_with(2000);
    let root = root(&mut client);
    let gateway = Gateway::start(
        &cluster,
        "public_logs = ['audit']
         [limits]\nheader_seconds = 2\nstalled_seconds = 2\nconnections_per_client = 400\nanswers_mb = 32\nconcurrent_proofs = 64",
    );
    // Some send a head and never end it, some say nothing, some ask for much and read nothing.
    let mut slow: Vec<(TcpStream, bool)> = Vec::new();
    for number in 0..240 {
        let mut stream = gateway.connect();
        match number % 3 {
            0 => stream
                .write_all(b"GET /logs HTTP/1.1\r\nhost: x\r\nx-slow: ")
                .unwrap(),
            1 => {}
            _ => {
                let request = "GET /logs/audit/entries HTTP/1.1\r\nhost: x\r\n\r\n";
                stream.write_all(request.repeat(3).as_bytes()).unwrap();
            }
        }
        slow.push((stream, number % 3 == 2));
        if number % 20 == 0 {
            is_proof(&gateway.get("/logs/audit/proof?index=5"), &root);
        }
    }
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        let answer = gateway.get("/logs/audit/proof?index=5");
        is_proof(&answer, &root);
        // One that drips is no better.
        for (stream, _) in slow.iter_mut().step_by(3) {
            let _ = stream.write_all(b"x");
        }
    }
    let closed = |(mut stream, reads_nothing): (TcpStream, bool)| {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        assert!(reads_nothing || !String::from_utf8_lossy(&bytes).contains("200 OK"));
        assert!(read.is_ok() || read.unwrap_err().kind() != std::io::ErrorKind::WouldBlock);
    };
    slow.into_iter().for_each(closed);
    until_metric(&gateway, "merkle_log_gateway_connections 1\n");
}

/// Waits until a metric has a value.
fn until_metric(gateway: &Gateway, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = String::from_utf8(gateway.get("/metrics").body).unwrap();
        if text.contains(line) {
            return;
        }
        assert!(Instant::now() < deadline, "still not: {line} in {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_client_has_no_more_than_its_share() {
    let (cluster, _) = cluster_with(10);
    let gateway = Gateway::start(
        &cluster,
        "trusted_proxies = ['127.0.0.1']
         [limits]\nrate_per_client = 1\nburst_per_client = 20\nconnections_per_client = 5",
    );
    let ask = |client: &str| gateway.get_with("/health/live", &[("x-forwarded-for", client)]);
    let answers: Vec<_> = (0..40).map(|_| ask("192.0.2.1")).collect();
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert!((20..30).contains(&served.len()), "{}", served.len());
    assert_eq!(refused[0].problem().1, "too-many-requests");
    assert!(refused[0].header("retry-after").is_some());
    // What a client writes before its proxy does counts for nothing, and others are served.
    assert_eq!(ask("203.0.113.9, 192.0.2.1").status, 429);
    assert_eq!(ask("192.0.2.1, 203.0.113.9").status, 200);
    // A client that is not behind the proxy cannot pretend to be another.
    let plain = Gateway::start(
        &cluster,
        "[limits]\nrate_per_client = 1\nburst_per_client = 5\nconnections_per_client = 5",
    );
    let pretended = (0..30).map(|n| {
        plain.get_with(
            "/health/live",
            &[("x-forwarded-for", &format!("192.0.2.{n}"))],
        )
    });
    assert!(pretended.filter(|answer| answer.status == 429).count() > 15);
    // Connections beyond its share are closed at once.
    let held: Vec<_> = (0..5).map(|_| plain.connect()).collect();
    let mut beyond = plain.connect();
    let mut byte = [0];
    assert!(matches!(beyond.read(&mut byte), Ok(0) | Err(_)));
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(30);
    while attempt(&plain.address, "/health/live").is_none() {
        assert!(Instant::now() < deadline, "its share is not free again");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn huge_requests_are_refused() {
    let (cluster, _) = cluster_with(10);
    let gateway = Gateway::start(&cluster, "");
    let long = "x".repeat(100_000);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /logs HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"),
        format!(
            "GET /logs HTTP/1.1\r\nhost: x\r\n{}\r\n",
            "a: b\r\n".repeat(500)
        ),
    ] {
        let mut stream = gateway.connect();
        let _ = stream.write_all(request.as_bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let status = String::from_utf8_lossy(&bytes)
            .chars()
            .skip(9)
            .take(3)
            .collect::<String>();
        assert!(
            ["", "414", "431", "400"].contains(&status.as_str()),
            "{status}"
        );
    }
    // A body that nobody reads does no harm.
    let answer = exchange(gateway.connect(), "GET", "/health/live", &[], &long);
    assert_eq!(answer.status, 200);
    assert_eq!(gateway.json("/logs/audit/size")["size"], ROWS);
}

#[test]
fn sockets_that_systemd_hands_over_are_served_and_it_is_told() {
    let (cluster, _) = cluster_with(10);
    let directory = tempfile::tempdir().unwrap();
    let token = "t".repeat(40);
    token_file(directory.path(), "tokens", &format!("ana {token}\n"));
    let (notify, admin) = (
        directory.path().join("notify"),
        directory.path().join("admin"),
    );
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    // As systemd does: sockets from descriptor 3 on, and who is meant.
    let script = "
import os, socket, sys
tcp = socket.create_server(('127.0.0.1', 0))
unix = socket.socket(socket.AF_UNIX); unix.bind(sys.argv[1]); unix.listen()
fds = [os.dup(s.fileno()) for s in (tcp, unix)]
for place, fd in enumerate(fds):
    high = os.dup2(fd, 100 + place)
for place in range(2):
    os.dup2(100 + place, 3 + place); os.set_inheritable(3 + place, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='web:admin')
os.execv(sys.argv[2], sys.argv[2:])
";
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("merkle-log");
    let configuration =
        "[admin]\ntokens = '{directory}/tokens'\nlisten = 'unix:/nonexistent/socket'";
    let admin_socket = admin.clone();
    let mut gateway =
        Gateway::prepare_program(directory, configuration, "python3", |command, file| {
            command
                .args(["-c", script])
                .arg(&admin_socket)
                .arg(&program);
            command.args(["--json", "serve", "--config"]).arg(file);
            command.env("PATH", std::env::var("PATH").unwrap());
            command.env("NOTIFY_SOCKET", &notify);
            command
                .env("PGHOST", cluster.socket())
                .env("PGUSER", "postgres")
                .env("PGDATABASE", "postgres");
        });
    let told = || {
        let mut bytes = [0; 100];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1");
    assert_eq!(gateway.json("/logs/audit/size")["size"], ROWS);
    let header = format!("Bearer {token}");
    let paused = exchange_unix(
        &admin,
        "POST",
        "/admin/logs/audit/pause",
        &[("authorization", &header)],
        "",
    );
    assert_eq!(paused.status, 204, "{paused}");
    signal("TERM", &[&gateway.pid()]);
    assert_eq!(told(), "STOPPING=1");
    assert!(gateway.ends().success());
}

#[test]
fn tls_is_served_and_its_certificate_is_replaced_on_a_reload() {
    let (cluster, _) = cluster_with(10);
    let directory = tempfile::tempdir().unwrap();
    let certificate = |name: &str| {
        let (key, cert) = (
            directory.path().join("key.pem"),
            directory.path().join("cert.pem"),
        );
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                &format!("/CN={name}"),
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    certificate("first.example");
    let path = directory.path().to_owned();
    let configuration = format!(
        "[tls]\ncertificate = '{0}/cert.pem'\nkey = '{0}/key.pem'",
        path.display()
    );
    let mut gateway = Gateway::start(&cluster, &configuration);
    let subject = |gateway: &Gateway| {
        let line = format!(
            "printf 'GET /logs/audit/size HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n' | openssl s_client -quiet -ign_eof -connect {} 2>&1",
            gateway.address
        );
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = subject(&gateway);
    assert!(
        text.contains("first.example") && text.contains("{\"size\":1000}"),
        "{text}"
    );
    // Who speaks no TLS gets no answer, and harms nobody.
    assert!(attempt(&gateway.address, "/health/live").is_none());
    certificate("second.example");
    gateway.reload(&configuration, "the configuration was reloaded");
    assert!(subject(&gateway).contains("second.example"));
    std::fs::write(path.join("cert.pem"), "nonsense").unwrap();
    gateway.reload(
        &configuration,
        "the configuration was not reloaded, and stays as it was",
    );
    assert!(subject(&gateway).contains("second.example"));
}
