//! Witnesses of a real database's logs: checkpoints are cosigned to the quorum, whatever goes and comes back meanwhile;
//! and a history that whoever rules the server rewrites and signs anew is refused.

use server_tests::command_line::{program, says};
use server_tests::gateway::Gateway;
use server_tests::witness::*;
use server_tests::*;
use std::process::Command;
use std::time::{Duration, Instant};
use tlog::{ConsistencyBundle, Error, Policy, SignedNote, VerifierKey};

const ORIGIN: &str = "example.com/audit";

struct World {
    cluster: Cluster,
    client: Client,
    key: VerifierKey,
}

impl World {
    fn new() -> World {
        let cluster = Cluster::start();
        cluster.sign_with_a_new_key("example.com/shop");
        let mut client = cluster.client("postgres");
        run(
            &mut client,
            "CREATE TABLE orders (id bigint PRIMARY KEY, note text);
             SELECT create_log('audit', origin => 'example.com/audit');
             SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, capture => 'watermark');
             CREATE ROLE submitter LOGIN;
             GRANT EXECUTE ON FUNCTION add_cosignature(text, text, text[]) TO submitter",
        );
        let key: String = one(&mut client, "SELECT checkpoint_key('audit')");
        let mut world = World {
            cluster,
            client,
            key: key.parse().unwrap(),
        };
        world.grows_to(100);
        world
    }

    /// Logs rows up to a number, and signs.
    fn grows_to(&mut self, rows: u64) {
        let sql = format!(
            "INSERT INTO orders SELECT i, 'order ' || i
               FROM generate_series((SELECT COALESCE(max(id), 0) + 1 FROM orders), {rows}) i"
        );
        run(&mut self.client, &sql);
        drain(&mut self.client, "audit");
        run(&mut self.client, "SELECT checkpoint('audit')");
    }

    /// The newest checkpoint as the database has it.
    fn note(&mut self) -> SignedNote {
        let sql = "SELECT note FROM merkle_log_checkpoints WHERE log_name = 'audit' ORDER BY tree_size DESC LIMIT 1";
        one::<String>(&mut self.client, sql).parse().unwrap()
    }

    fn place(&self, seed: u8) -> Place {
        Place::new(seed, std::slice::from_ref(&self.key), UNLIMITED)
    }

    /// The log and these witnesses, all of which are to cosign.
    fn policy(&self, witnesses: &[(&VerifierKey, &str)], quorum: &str) -> String {
        let mut text = format!("log {}\n", self.key);
        let mut names = String::new();
        for (number, (key, url)) in witnesses.iter().enumerate() {
            text += &format!("witness w{number} {key} {url}\n");
            names += &format!(" w{number}");
        }
        text + &format!("group g {quorum}{names}\nquorum g\n")
    }

    /// `submit` as a role that may do nothing else, once.
    fn submit(&self, policy: &str, arguments: &[&str]) -> (i32, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy");
        std::fs::write(&file, policy).unwrap();
        let mut command = program();
        self.connects(&mut command);
        command
            .args(["submit", "audit", "--timeout", "2", "--policy"])
            .arg(&file)
            .args(arguments);
        says(&mut command)
    }

    fn connects(&self, command: &mut Command) {
        command
            .env("PGHOST", self.cluster.socket())
            .env("PGUSER", "submitter")
            .env("PGDATABASE", "postgres");
    }

    /// The same, until it is ended.
    fn follow(&self, policy: &str) -> Gateway {
        let directory = tempfile::tempdir().unwrap();
        Gateway::spawn(program(), directory, policy, |command, file| {
            self.connects(command);
            command
                .args(["--json", "submit", "audit", "--follow", "--interval", "1"])
                .args([
                    "--timeout",
                    "2",
                    "--late",
                    "1",
                    "--listen",
                    "127.0.0.1:0",
                    "--policy",
                ])
                .arg(file);
        })
    }

    fn has_quorum(&mut self, policy: &str) -> bool {
        let policy = Policy::from_bytes(policy.as_bytes()).unwrap();
        policy.verify(&self.note()).is_ok()
    }
}

/// Waits until what is shown at /health is so.
fn until_health(program: &Gateway, what: &str, so: impl Fn(&serde_json::Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let health = program.json("/health");
        if so(&health) {
            return;
        }
        assert!(Instant::now() < deadline, "still not: {what}: {health}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_checkpoint_gets_its_quorum_when_a_witness_that_was_down_is_back() {
    let mut world = World::new();
    let (first, mut second) = (world.place(1), world.place(2));
    let witness = first.start();
    // A port that is the second's, while it is down.
    let down = second.start();
    let address = down.program.address.clone();
    let (url, key) = (down.url(), down.key.clone());
    second.stays_at(&address);
    drop(down);
    let policy = world.policy(&[(&witness.key, &witness.url()), (&key, &url)], "all");
    let (code, text) = world.submit(&policy, &[]);
    assert!(
        code == 2 && text.contains("has not its quorum"),
        "{code} {text}"
    );
    assert!(
        text.contains("w0: cosigned at") && text.contains("w1: the witness could not be reached"),
        "{text}"
    );
    assert!(!world.has_quorum(&policy));
    assert_eq!(
        world.note().signatures().len(),
        2,
        "what was cosigned is kept"
    );
    let (code, text) = world.submit(&policy, &["--json"]);
    let said: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (code, &said["quorum"], &said["size"]),
        (2, &false.into(), &100.into())
    );
    assert_eq!(said["witnesses"][0]["size"], 100);
    assert!(
        said["witnesses"][1]["error"]
            .as_str()
            .unwrap()
            .contains("reached")
    );
    let back = second.start();
    let (code, text) = world.submit(&policy, &[]);
    assert!(
        code == 0 && text.contains("has its quorum"),
        "{code} {text}"
    );
    assert!(world.has_quorum(&policy));
    // And the next, which is proven from the one before.
    world.grows_to(300);
    let (code, text) = world.submit(&policy, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(world.has_quorum(&policy));
    for witness in [&witness, &back] {
        assert_eq!(witness.last(ORIGIN).unwrap().text(), world.note().text());
    }
    let bundle: String = one(
        &mut world.client,
        "SELECT json FROM proof_bundle_of('audit', 'orders', 42)",
    );
    let policy = Policy::from_bytes(policy.as_bytes()).unwrap();
    let bundle = tlog::ProofBundle::from_json(bundle.as_bytes()).unwrap();
    assert!(bundle.verify(&policy).is_ok());
}

#[test]
fn a_witness_that_lost_its_state_between_two_runs_is_told_and_keeps_nothing_new() {
    let mut world = World::new();
    let (first, mut second) = (world.place(1), world.place(2));
    let (witness, forgetful) = (first.start(), second.start());
    second.stays_at(&forgetful.program.address.clone());
    let policy = world.policy(
        &[
            (&witness.key, &witness.url()),
            (&forgetful.key, &forgetful.url()),
        ],
        "any",
    );
    let (code, text) = world.submit(&policy, &[]);
    assert_eq!(code, 0, "{text}");
    drop(forgetful);
    std::fs::remove_dir_all(second.state()).unwrap();
    let _forgetful = second.start();
    // Neither by a run of its own, nor by a program that goes on, and not by many either.
    for size in [150, 200] {
        world.grows_to(size);
        let (code, text) = world.submit(&policy, &[]);
        assert!(
            code == 0
                && text.contains("w0: cosigned at")
                && text
                    .contains("w1: the witness has cosigned 100 entries, and says that it is at 0"),
            "{code} {text}"
        );
    }
    let follower = world.follow(&policy);
    world.grows_to(250);
    until_health(&follower, "the loss", |health| {
        let error = health["logs"][0]["witnesses"][1]["error"].as_str();
        error.is_some_and(|error| error.contains("says that it is at 0"))
    });
}

#[test]
fn one_dead_witness_delays_no_other_and_the_missing_quorum_is_told() {
    let mut world = World::new();
    let (first, mut second) = (world.place(1), world.place(2));
    let (witness, down) = (first.start(), second.start());
    second.stays_at(&down.program.address.clone());
    let policy = world.policy(
        &[(&witness.key, &witness.url()), (&down.key, &down.url())],
        "all",
    );
    let follower = world.follow(&policy);
    until_health(&follower, "quorum", |health| {
        health["logs"][0]["quorum"] == true
    });
    drop(down);
    for size in [110, 120, 130] {
        world.grows_to(size);
        // The target stays for a while, since the quorum needs both; the living one is not held up.
        until_health(&follower, "cosigned by the first", |health| {
            health["logs"][0]["witnesses"][0]["size"].as_u64() >= Some(110)
        });
    }
    until_health(&follower, "late", |health| health["ok"] == false);
    let health = follower.json("/health");
    let log = &health["logs"][0];
    assert_eq!(
        (&log["quorum"], &log["quorum_size"]),
        (&false.into(), &100.into())
    );
    assert!(
        log["witnesses"][1]["error"]
            .as_str()
            .unwrap()
            .contains("could not be reached"),
        "{health}"
    );
    let metric = |name: &str| metric(&follower, &format!("merkle_log_submit_{name}"));
    assert_eq!(metric("quorum_entries{log=\"audit\"}"), 100);
    assert!(metric("waiting_seconds{log=\"audit\"}") > 0);
    assert!(metric("witness_failures{log=\"audit\",witness=\"w1\"}") > 0);
    assert!(metric("heartbeat_timestamp_seconds{log=\"audit\"}") > 0);
    let _back = second.start();
    until_health(&follower, "quorum again", |health| {
        health["ok"] == true && health["logs"][0]["quorum_size"] == 130
    });
    assert!(world.has_quorum(&policy));
}

#[test]
fn a_database_that_is_restarted_is_found_again() {
    let mut world = World::new();
    let place = world.place(1);
    let witness = place.start();
    let policy = world.policy(&[(&witness.key, &witness.url())], "all");
    let mut follower = world.follow(&policy);
    until_health(&follower, "quorum", |health| {
        health["ok"] == true && health["logs"][0]["quorum"] == true
    });
    for round in 0..2 {
        match round {
            0 => world.cluster.stop(),
            _ => world.cluster.kill_9(),
        }
        until_health(&follower, "the database is missed", |health| {
            health["ok"] == false && !health["logs"][0]["problem"].is_null()
        });
        world.cluster.restart();
        world.client = world.cluster.client("postgres");
        world.grows_to(200 + round);
        until_health(&follower, "quorum again", |health| {
            health["ok"] == true && health["logs"][0]["quorum_size"] == 200 + round
        });
    }
    // A reload with another policy begins with it; one that is not valid changes nothing.
    follower.reload(
        "nonsense\n",
        "the configuration was not reloaded, and stays as it was",
    );
    until_health(&follower, "as before", |health| health["ok"] == true);
    let other = world.place(2);
    let second = other.start();
    let both = world.policy(
        &[(&witness.key, &witness.url()), (&second.key, &second.url())],
        "all",
    );
    follower.reload(&both, "the configuration was reloaded");
    until_health(&follower, "both", |health| {
        health["logs"][0]["quorum"] == true
            && health["logs"][0]["witnesses"].as_array().unwrap().len() == 2
    });
    assert!(world.has_quorum(&both));
    signal("TERM", &[&follower.pid()]);
    assert!(follower.ends().success());
}

#[test]
fn a_submitter_that_is_killed_goes_on_where_it_was() {
    let mut world = World::new();
    let place = world.place(1);
    let witness = place.start();
    let policy = world.policy(&[(&witness.key, &witness.url())], "all");
    let mut rows = 100;
    for _ in 0..size(5, 100) {
        let mut follower = world.follow(&policy);
        rows += 7;
        world.grows_to(rows);
        let deadline = Instant::now() + Duration::from_millis(rand::random_range(0..400));
        while Instant::now() < deadline {
            std::thread::yield_now();
        }
        signal("KILL", &[&follower.pid()]);
        follower.ends();
    }
    let (code, text) = world.submit(&policy, &[]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(witness.last(ORIGIN).unwrap().text(), world.note().text());
    assert_eq!(findings(&mut world.client, "audit"), [""; 0]);
}

/// Whoever rules the server alters an entry and its row, and all that follows from it, makes the server forget what it
/// has signed, and has it sign again.
fn rewrites_everything(world: &mut World, rows: u64) {
    each(&mut world.client, &["CREATE DATABASE forged"]);
    let mut forged = world.cluster.client("forged");
    world.cluster.forgets_what_it_signed();
    run(
        &mut forged,
        &format!(
            "CREATE EXTENSION merkle_log;
             CREATE TABLE orders (id bigint PRIMARY KEY, note text);
             SELECT create_log('audit', origin => 'example.com/audit');
             SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, capture => 'watermark');
             INSERT INTO orders SELECT i, CASE i WHEN 42 THEN 'nothing' ELSE 'order ' || i END
               FROM generate_series(1, {rows}) i;
             GRANT EXECUTE ON FUNCTION add_cosignature(text, text, text[]) TO submitter"
        ),
    );
    drain(&mut forged, "audit");
    run(&mut forged, "SELECT checkpoint('audit')");
    assert_eq!(
        findings(&mut forged, "audit"),
        [""; 0],
        "all of it is consistent in itself"
    );
    world.client = forged;
}

#[test]
fn a_history_that_is_rewritten_consistently_and_signed_anew_is_refused_and_both_halves_are_kept() {
    let mut world = World::new();
    world.grows_to(150);
    let place = world.place(1);
    let witness = place.start();
    let policy = world.policy(&[(&witness.key, &witness.url())], "all");
    let (code, text) = world.submit(&policy, &[]);
    assert_eq!(code, 0, "{text}");
    let honest = world.note();
    for rows in [200, 150] {
        rewrites_everything(&mut world, rows);
        let key: String = one(&mut world.client, "SELECT checkpoint_key('audit')");
        assert_eq!(key, world.key.to_string(), "it has the log's own key");
        let mut command = program();
        world.connects(&mut command);
        let file = place.path().join("submitter-policy");
        std::fs::write(&file, &policy).unwrap();
        command
            .env("PGDATABASE", "forged")
            .args(["submit", "audit", "--policy"])
            .arg(&file);
        let (code, text) = says(&mut command);
        assert!(
            code == 2 && text.contains("does not continue what the witness has cosigned"),
            "{code} {text}"
        );
        assert!(text.contains("accept_checkpoint"), "{text}");
        assert_eq!(world.note().signatures().len(), 1, "nobody has cosigned it");
        let cosigned = witness.last(ORIGIN).unwrap();
        assert_eq!(
            cosigned.text(),
            honest.text(),
            "the witness stays with what it saw"
        );
        // Both halves are there, and convict the log before anyone who has its key.
        let health = witness.program.json("/health");
        let forks = health["logs"][0]["forks"].as_array().unwrap();
        assert!(!forks.is_empty(), "{health}");
        let only_log = Policy::of_log(world.key.clone());
        let halves: Vec<ConsistencyBundle> = forks
            .iter()
            .map(|path| witness.program.get(path.as_str().unwrap()))
            .map(|answer| ConsistencyBundle::from_json(&answer.body).unwrap())
            .collect();
        let forged = world.note();
        let of_this = halves
            .iter()
            .find(|halves| halves.new.text() == forged.text())
            .unwrap();
        assert_eq!(of_this.old.text(), honest.text());
        assert!(matches!(
            of_this.fork(&only_log),
            Some(Error::Fork { size: 150, .. })
        ));
        // The database can say itself that it has another history, when it is given what the witness has.
        let accept = format!("SELECT accept_checkpoint('{cosigned}')");
        assert_eq!(one::<String>(&mut world.client, &accept), "rewrote_history");
        // As it was before, for the second round.
        world.client = world.cluster.client("postgres");
        run(&mut world.client, "DROP DATABASE forged WITH (FORCE)");
    }
}

#[test]
fn whoever_submits_needs_no_more_than_the_right_to_add_cosignatures() {
    let mut world = World::new();
    let place = world.place(1);
    let witness = place.start();
    let policy = world.policy(&[(&witness.key, &witness.url())], "all");
    run(
        &mut world.client,
        "REVOKE EXECUTE ON FUNCTION add_cosignature(text, text, text[]) FROM submitter",
    );
    let (code, text) = world.submit(&policy, &[]);
    assert!(
        code == 2 && text.contains("permission denied"),
        "{code} {text}"
    );
    run(
        &mut world.client,
        "GRANT EXECUTE ON FUNCTION add_cosignature(text, text, text[]) TO submitter",
    );
    let (code, text) = world.submit(&policy, &[]);
    assert_eq!(code, 0, "{text}");
    for (sql, why) in [
        ("SELECT checkpoint('audit')", "42501"),
        ("TABLE orders", "42501"),
    ] {
        let mut submitter = world.cluster.client_as("postgres", "submitter");
        let said = error(&mut submitter, sql);
        assert!(said.starts_with(why), "{said}");
    }
}

#[test]
fn what_cannot_be_submitted_is_said_before_anything_is_asked() {
    let mut world = World::new();
    let place = world.place(1);
    let witness = place.start();
    let key = &witness.key;
    let no_url = format!("log {}\nwitness w {key}\nquorum w\n", world.key);
    let (code, text) = world.submit(&no_url, &[]);
    assert!(code == 2 && text.contains("no witness has a URL"), "{text}");
    let other = log_key(ORIGIN).verifier_key();
    let wrong_key = format!("log {other}\nwitness w {key} {}\nquorum w\n", witness.url());
    let (code, text) = world.submit(&wrong_key, &[]);
    assert!(
        code == 2 && text.contains("has not signed the checkpoint with a known key"),
        "{text}"
    );
    let policy = world.policy(&[(key, &witness.url())], "all");
    let (code, text) = world.submit(&policy, &["nothing"]);
    assert!(
        code == 2 && text.contains("no checkpoint of log \"nothing\""),
        "{text}"
    );
    assert!(
        world.has_quorum(&policy),
        "the other log was submitted all the same"
    );
}
