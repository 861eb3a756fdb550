//! `merkle-log monitor` against real servers: a superuser who rewrites everything is caught, however the log is followed;
//! rows that are not what was logged are found; and restarts and kills lose nothing.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use server_tests::command_line::{program, says};
use server_tests::followers::{Shop, follow_once, follower};
use server_tests::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The configuration of a monitor that appends what it tells to a file.
fn configuration(directory: &Path, settings: &str, logs: &str) -> String {
    let told = directory.join("told");
    format!(
        "state = '{}'\ninterval_seconds = 1\n{settings}\n{logs}
         [[tell]]\nname = 'file'\ncommand = ['sh', '-c', '''printf \"%s\\\\n\" \"$(cat)\" >> {told}''']\n",
        directory.join("state").display(),
        told = told.display()
    )
}

fn over_sql(shop: &Shop, name: &str, user: &str) -> String {
    format!(
        "[[log]]\nname = '{name}'\nlog = 'audit'\nkey = '{}'\ntimeout_seconds = 10\ndatabase = '{}'\n",
        shop.key(),
        shop.conninfo(user)
    )
}

/// The events that were told.
fn told(directory: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(directory.join("told")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn kinds(directory: &Path) -> Vec<String> {
    let events = told(directory).into_iter();
    let kinds = events.map(|event| {
        format!(
            "{} {}",
            event["log"].as_str().unwrap(),
            event["event"].as_str().unwrap()
        )
    });
    let mut kinds: Vec<_> = kinds.collect();
    kinds.sort();
    kinds
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_superuser_who_rewrites_everything_is_convicted_over_sql_http_and_tiles() {
    let shop = Shop::open("audit", 700);
    let directory = tempfile::tempdir().unwrap();
    let exported = directory.path().join("exported");
    let export = |target: &Path| {
        let mut command = program();
        command
            .args(["export", "audit", "--dbname", &shop.conninfo("postgres")])
            .arg(target);
        let (code, text) = says(&mut command);
        assert_eq!(code, 0, "{text}");
    };
    export(&exported);
    let gateway = shop.gateway();
    let key = shop.key();
    let logs = format!(
        "{}[[log]]\nname = 'http'\nkey = '{key}'\nurl = 'http://{}/logs/audit'
         [[log]]\nname = 'tiles'\nkey = '{key}'\ntiles = '{}'\n",
        over_sql(&shop, "sql", "postgres"),
        gateway.address,
        exported.display()
    );
    let configuration = configuration(directory.path(), "", &logs);
    let check = || follow_once("monitor", directory.path(), &configuration);
    let (code, text) = check();
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        text.matches("good, 700 entries, 700 of them hashed")
            .count(),
        3,
        "{text}"
    );
    shop.grow(41);
    export(&exported);
    assert_eq!(check().0, 0);
    shop.rewrite_history();
    shop.grow(100);
    // The exporter would refuse to go on; whoever rules it begins anew.
    std::fs::remove_dir_all(&exported).unwrap();
    export(&exported);
    for _ in 0..2 {
        let (code, text) = check();
        assert_eq!(code, 1, "{text}");
        assert_eq!(text.matches("BAD: fork").count(), 3, "{text}");
    }
    assert_eq!(
        kinds(directory.path()),
        ["http fork", "sql fork", "tiles fork"]
    );
    for event in told(directory.path()) {
        let evidence = event["evidence"].as_str().unwrap();
        let (code, text) = says(program().args(["verify", "--key", &key, evidence]));
        assert!(code == 1 && text.contains("signed two histories"), "{text}");
    }
}

#[test]
fn rows_that_are_not_what_was_logged_are_found_once_and_recovered_from() {
    let shop = Shop::open("audit", 300);
    let directory = tempfile::tempdir().unwrap();
    let logs = over_sql(&shop, "sql", "postgres");
    let configuration = configuration(directory.path(), "verify_seconds = 1", &logs);
    let _monitor = follower("monitor", tempfile::tempdir().unwrap(), &configuration);
    let mut c = shop.client();
    let quietly = |c: &mut Client, note: &str| {
        let triggers: Vec<String> = column(
            c,
            "SELECT tgname::text FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal",
        );
        let each = |what: &str| {
            let statements = triggers
                .iter()
                .map(|name| format!("ALTER TABLE orders {what} TRIGGER \"{name}\";"));
            statements.collect::<String>()
        };
        run(
            c,
            &format!(
                "BEGIN; {} UPDATE orders SET note = '{note}' WHERE id = 7; {} COMMIT",
                each("DISABLE"),
                each("ENABLE ALWAYS")
            ),
        );
    };
    quietly(&mut c, "forged");
    wait_for("the finding", || kinds(directory.path()) == ["sql finding"]);
    let event = told(directory.path()).remove(0);
    let detail = event["detail"].as_str().unwrap();
    assert!(
        detail.contains("modified") && detail.contains('7'),
        "{detail}"
    );
    quietly(&mut c, "order 7");
    let both = ["sql finding", "sql recovered"];
    wait_for("the recovery", || kinds(directory.path()) == both);
}

#[test]
fn what_was_redacted_removed_or_pruned_accuses_no_log() {
    let shop = Shop::open("audit", 1000);
    let mut c = shop.client();
    run(
        &mut c,
        "CREATE TABLE people (id integer PRIMARY KEY, name text); CREATE TABLE gone (id integer PRIMARY KEY);
         SELECT add_source('audit', 'people', capture => 'trigger', store_leaf_data => true, salted => true);
         SELECT add_source('audit', 'gone', capture => 'trigger');
         INSERT INTO people SELECT i, 'Ada' FROM generate_series(1, 20) i; INSERT INTO gone SELECT generate_series(1, 20);
         SELECT redact_row_of('audit', 'people', 'asked for', 7); SELECT remove_source('audit', 'gone'); DROP TABLE gone",
    );
    drain(&mut c, "audit");
    run(&mut c, "SELECT prune_log('audit', 512)");
    run(&mut c, "SELECT checkpoint('audit')");
    let kinds: Vec<String> = column(
        &mut c,
        "SELECT DISTINCT kind FROM verify_log('audit') ORDER BY kind",
    );
    assert_eq!(kinds, ["redacted", "source_removed"]);
    let directory = tempfile::tempdir().unwrap();
    let logs = over_sql(&shop, "sql", "postgres");
    let configuration = configuration(directory.path(), "verify_seconds = 1", &logs);
    for _ in 0..2 {
        let (code, text) = follow_once("monitor", directory.path(), &configuration);
        assert_eq!(code, 0, "{text}");
        shop.grow(10);
    }
    assert_eq!(told(directory.path()).len(), 0);
}

#[test]
fn a_role_without_rights_follows_hashes_and_is_told_that_it_compares_nothing() {
    let shop = Shop::open("audit", 300);
    let directory = tempfile::tempdir().unwrap();
    let logs = over_sql(&shop, "sql", "reader");
    let hashes = configuration(directory.path(), "verify_seconds = 0", &logs);
    let (code, text) = follow_once("monitor", directory.path(), &hashes);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("300 entries, 0 of them hashed"), "{text}");
    let rows = configuration(directory.path(), "verify_seconds = 1", &logs);
    let (code, text) = follow_once("monitor", directory.path(), &rows);
    assert!(code == 2 && text.contains("could not tell"), "{text}");
    shop.rewrite_history();
    shop.grow(10);
    let (code, text) = follow_once("monitor", directory.path(), &hashes);
    assert_eq!(code, 1, "{text}");
}

#[test]
fn a_monitor_that_is_killed_while_the_database_comes_and_goes_loses_nothing_and_accuses_nobody() {
    let shop = Shop::open("audit", 1000);
    let directory = tempfile::tempdir().unwrap();
    let gateway = shop.gateway();
    let logs = format!(
        "{}[[log]]\nname = 'http'\nkey = '{}'\nurl = 'http://{}/logs/audit'\n",
        over_sql(&shop, "sql", "postgres"),
        shop.key(),
        gateway.address
    );
    let configuration = configuration(directory.path(), "verify_seconds = 1", &logs);
    let mut random = StdRng::seed_from_u64(seed());
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ending.load(SeqCst) {
                // The server may be away.
                let _ = std::panic::catch_unwind(|| {
                    if let Some(mut c) = shop.cluster.try_client("postgres") {
                        let sql =
                            "INSERT INTO orders (note) SELECT 'more' FROM generate_series(1, 300);
                                   SELECT process_next_batch('audit')";
                        let _ = c.batch_execute(sql);
                        let _ = c.batch_execute("SELECT checkpoint('audit')");
                    }
                });
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for round in 0..size(6, 100) {
            let monitor = follower("monitor", tempfile::tempdir().unwrap(), &configuration);
            std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
            if round % 3 == 1 {
                match random.random() {
                    true => shop.cluster.stop(),
                    false => shop.cluster.kill_9(),
                }
                std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
                shop.cluster.restart();
            }
            signal("KILL", &[&monitor.pid()]);
        }
        ending.store(true, SeqCst);
    });
    wait_for("the gateway", || {
        gateway.get("/logs/audit/checkpoint").status == 200
    });
    shop.grow(1);
    let (code, text) = follow_once("monitor", directory.path(), &configuration);
    assert_eq!(code, 0, "{text}");
    let size: i64 = one(&mut shop.client(), "SELECT merkle_size('audit')");
    let good = format!("good, {size} entries, {size} of them hashed");
    assert_eq!(text.matches(&good).count(), 2, "{text}");
    assert_eq!(kinds(directory.path()), [""; 0]);
}

#[test]
fn an_unreachable_database_is_told_after_a_while_and_never_as_tampering() {
    let shop = Shop::open("audit", 300);
    let directory = tempfile::tempdir().unwrap();
    let logs = over_sql(&shop, "sql", "postgres");
    let configuration = configuration(directory.path(), "unreachable_seconds = 2", &logs);
    let monitor = follower("monitor", tempfile::tempdir().unwrap(), &configuration);
    monitor.until_status("/health", 200);
    shop.cluster.stop();
    wait_for("the event", || {
        kinds(directory.path()) == ["sql unreachable"]
    });
    monitor.until_status("/health", 503);
    assert_eq!(told(directory.path())[0]["proven"], false);
    let (code, _) = follow_once(
        "monitor",
        tempfile::tempdir().unwrap().path(),
        &configuration,
    );
    assert_eq!(code, 2);
    shop.cluster.restart();
    let both = ["sql recovered", "sql unreachable"];
    wait_for("the recovery", || kinds(directory.path()) == both);
    monitor.until_status("/health", 200);
}
