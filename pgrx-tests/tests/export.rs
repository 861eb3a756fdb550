//! `merkle-log export`, against real servers: what it writes is verified, goes on, and never forks.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server_tests::command_line::{program, says};
use server_tests::*;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// A cluster whose log `audit` has the origin `example.com/audit`, keys to sign with, and a place to export to.
struct Bench {
    cluster: Cluster,
    client: Client,
    directory: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let cluster = Cluster::start();
        cluster.sign_with_a_new_key("example.com/audit");
        let mut client = cluster.client("postgres");
        create_log(&mut client, "");
        Bench {
            cluster,
            client,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Logs rows up to a number.
    fn rows_to(&mut self, size: i64) {
        rows_to(&mut self.client, size);
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("exported")
    }

    fn command(&self, database: &str) -> Command {
        let mut command = program();
        command
            .env("PGHOST", self.cluster.socket())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database);
        command
    }

    fn export(&self) -> Command {
        let mut command = self.command("postgres");
        command.args(["export", "audit"]).arg(self.target());
        command
    }

    fn exports(&self) -> String {
        let (code, text) = says(&mut self.export());
        assert_eq!(code, 0, "{text}");
        text
    }

    fn refused(&self, database: &str) -> (i32, String) {
        says(
            self.command(database)
                .args(["export", "audit"])
                .arg(self.target()),
        )
    }

    fn verified(&mut self) -> (i32, String) {
        let key: String = one(&mut self.client, "SELECT checkpoint_key('audit')");
        says(
            program()
                .args(["--json", "verify", "--key", &key])
                .arg(self.target()),
        )
    }

    /// That the exported tree is good, with so many entries of which so many are withheld.
    fn is_good(&mut self, size: i64, withheld: i64) {
        let (code, text) = self.verified();
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains(&format!("\"size\":{size}}}"))
                || text.contains(&format!("\"size\":{size},")),
            "{text}"
        );
        assert!(text.contains(&format!("\"withheld\":{withheld}")), "{text}");
        let root: String = one(
            &mut self.client,
            &format!("SELECT encode(merkle_root('audit', {size}), 'hex')"),
        );
        assert!(text.contains(&root), "{text}");
    }
}

fn create_log(client: &mut Client, note: &str) {
    let sql = format!(
        "CREATE TABLE orders (id bigint PRIMARY KEY, note text DEFAULT '{note}');
         SELECT create_log('audit', batch_size => 100000, origin => 'example.com/audit');
         SELECT add_source('audit', 'orders', order_column => 'id', append_only => true, store_leaf_data => true, capture => 'watermark')"
    );
    run(client, &sql);
}

fn rows_to(client: &mut Client, size: i64) {
    run(
        client,
        &format!(
            "INSERT INTO orders (id) SELECT generate_series((SELECT coalesce(max(id), 0) + 1 FROM orders), {size})"
        ),
    );
    assert_eq!(drain(client, "audit"), size);
}

/// The files below a directory, without those that only the exporter looks at.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            match path.is_dir() {
                _ if name.starts_with('.') => {}
                true => open.push(path),
                false => found.push(name),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn an_exported_log_is_verified_at_every_size_it_goes_on_from() {
    let mut bench = Bench::new();
    for size in [0, 1, 200, 256, 257, 511, 70_000, 70_001, 131_072, 131_080] {
        bench.rows_to(size);
        bench.exports();
        bench.is_good(size, 0);
        if size == 256 {
            let complete = [
                "checkpoint",
                "tile/0/000",
                "tile/1/000.p/1",
                "tile/entries/000",
            ];
            assert_eq!(files(&bench.target()), complete);
        }
    }
    // What a full tile has replaced is gone; nothing else is there than the specification has.
    let files = files(&bench.target());
    let partial: Vec<_> = files.iter().filter(|file| file.contains(".p/")).collect();
    let kept = [
        "tile/0/512.p/8",
        "tile/2/000.p/1",
        "tile/2/000.p/2",
        "tile/entries/512.p/8",
    ];
    assert_eq!(partial, kept);
    assert_eq!(files.len(), 1 + 2 * 513 + 2 + 2);
    // Where nothing is new, nothing is written, not even the checkpoint.
    let text = says(bench.export().arg("--json")).1;
    assert!(text.contains("\"published\":false"), "{text}");
    // A damaged file is found, and written again when asked for.
    let tile = bench.target().join("tile/0/100");
    std::fs::write(&tile, [7; 8192]).unwrap();
    assert_eq!(bench.verified().0, 1);
    let (code, text) = says(bench.export().arg("--again"));
    assert_eq!(code, 0, "{text}");
    bench.is_good(131_080, 0);
}

#[test]
fn an_exported_log_is_accepted_by_a_program_of_others() {
    let mut bench = Bench::new();
    for size in [1, 300, 66_000] {
        bench.rows_to(size);
        bench.exports();
        let key: String = one(&mut bench.client, "SELECT checkpoint_key('audit')");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut audit = Command::new(root.join("../target/interop/bin/python"));
        let script = root.join("clients/audit_export.py");
        let (code, text) = says(audit.arg(script).arg(bench.target()).arg(key));
        assert_eq!(code, 0, "{text}");
    }
}

#[test]
fn what_is_withheld_is_there_as_a_hash() {
    let mut bench = Bench::new();
    bench.rows_to(300);
    bench.exports();
    let c = &mut bench.client;
    // Rows longer than a bundle can hold have leaf data that are the digest of their columns.
    run(
        c,
        "INSERT INTO orders (id, note) SELECT i, repeat('x', 70000) || i FROM generate_series(301, 310) i",
    );
    // A source whose leaf data nobody keeps, and one whose rows are redacted.
    run(
        c,
        "CREATE TABLE plain (id bigint PRIMARY KEY);
         SELECT add_source('audit', 'plain', order_column => 'id', append_only => true, capture => 'watermark');
         CREATE TABLE people (id bigint PRIMARY KEY, name text);
         SELECT add_source('audit', 'people', order_column => 'id', append_only => true, capture => 'watermark', salted => true, store_leaf_data => true);
         INSERT INTO plain SELECT generate_series(1, 20); INSERT INTO people SELECT i, 'Ada' FROM generate_series(1, 5) i",
    );
    assert_eq!(drain(c, "audit"), 335);
    bench.exports();
    bench.is_good(335, 20);
    let entries =
        |bench: &Bench| std::fs::read(bench.target().join("tile/entries/001.p/79")).unwrap();
    let has_name = |bytes: Vec<u8>| bytes.windows(3).any(|part| part == b"Ada");
    assert!(has_name(entries(&bench)));
    // What was exported does not go by itself when it is redacted, but when everything is written again.
    let c = &mut bench.client;
    let redact = "SELECT redact('audit', leaf_index, 'asked for') FROM log_entries('audit') WHERE source_table = 'public.people'";
    run(c, redact);
    let size = drain(c, "audit");
    // As an export that was killed leaves it, of a size that was never published.
    let left = bench.target().join("tile/entries/000.p");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("188"), "Ada").unwrap();
    let (code, text) = says(bench.export().arg("--again"));
    assert_eq!(code, 0, "{text}");
    bench.is_good(size, 25);
    for file in files(&bench.target()) {
        let bytes = std::fs::read(bench.target().join(&file)).unwrap();
        assert!(!has_name(bytes), "{file}");
    }
    // What is pruned cannot be written anew, and it is said how much that is.
    run(&mut bench.client, "SELECT prune_log('audit', 256)");
    let (code, text) = says(bench.export().arg("--again"));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("the first 256 entries were pruned"), "{text}");
}

#[test]
fn a_pruned_log_is_exported_from_its_first_entry_on() {
    let mut bench = Bench::new();
    bench.rows_to(1000);
    bench.exports();
    bench.rows_to(200_000);
    // What is exported stays when the log is pruned behind it.
    run(&mut bench.client, "SELECT prune_log('audit', 700)");
    bench.exports();
    bench.is_good(200_000, 0);
    run(&mut bench.client, "SELECT prune_log('audit', 140000)");
    bench.rows_to(200_100);
    bench.exports();
    bench.is_good(200_100, 0);
    // A new target has the tiles above what was pruned.
    let old = bench.target();
    std::fs::rename(&old, old.with_extension("old")).unwrap();
    bench.exports();
    bench.is_good(200_100, 0);
    let first = 140_000 / 256 * 256;
    assert!(
        bench
            .verified()
            .1
            .contains(&format!("\"first_entry\":{first}")),
        "{}",
        bench.verified().1
    );
    // A target that was left behind cannot be gone on with.
    bench.rows_to(210_000);
    run(&mut bench.client, "SELECT prune_log('audit', 205000)");
    let (code, text) = bench.refused("postgres");
    assert!(
        code == 2 && text.contains("Export to a new target"),
        "{code} {text}"
    );
    let (code, text) = says(bench.export().arg("--again"));
    assert!(
        code == 2 && text.contains("Export to a new target"),
        "{code} {text}"
    );
    bench.is_good(200_100, 0);
}

/// A child that is killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Logs rows until told to stop; how many entries there are then.
fn grow(mut client: Client, stop: Arc<AtomicBool>) -> JoinHandle<i64> {
    std::thread::spawn(move || {
        let insert =
            "INSERT INTO orders (id) SELECT generate_series(max(id) + 1, max(id) + 70) FROM orders";
        while !stop.load(Ordering::Relaxed) {
            run(&mut client, insert);
            drain(&mut client, "audit");
        }
        drain(&mut client, "audit")
    })
}

/// That each file below `tile` has all that its name promises, published or not.
fn none_is_torn(target: &Path) {
    if !target.exists() {
        return;
    }
    for name in files(target)
        .iter()
        .filter(|name| name.starts_with("tile/"))
    {
        let path: tlog::TilePath = name.parse().unwrap();
        let bytes = std::fs::read(target.join(name)).unwrap();
        let is_whole = match path.tile() {
            Some(_) => tlog::tile_from_bytes(&bytes, path.width()).is_ok(),
            None => tlog::entry_bundle::entries(&bytes, path.width()).is_ok(),
        };
        assert!(is_whole, "{name} is torn");
    }
}

#[test]
fn an_exporter_killed_at_random_leaves_a_tree_that_is_gone_on_with() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut bench = Bench::new();
    bench.rows_to(100_000);
    let stop = Arc::new(AtomicBool::new(false));
    let growing = grow(bench.cluster.client("postgres"), stop.clone());
    let (mut seen, mut killed, mut within) = (0, 0, 400);
    while killed < size(20, 100) {
        let mut export = bench.export();
        // What is published is written again as well.
        if random.random_bool(0.3) {
            export.arg("--again");
        }
        export.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running(export.spawn().unwrap());
        std::thread::sleep(Duration::from_millis(random.random_range(0..within)));
        running.0.kill().unwrap();
        match running.0.wait().unwrap().success() {
            false => {
                killed += 1;
                within += within / 6 + 1;
            }
            // It was done already: sooner next time. So about half of them are killed, at any moment of their work.
            true => within = (within * 3 / 4).max(10),
        }
        none_is_torn(&bench.target());
        // Whatever is published is whole, and is never less than it was.
        if let Ok(note) = std::fs::read_to_string(bench.target().join("checkpoint")) {
            let published: i64 = note.lines().nth(1).unwrap().parse().unwrap();
            assert!(published >= seen, "{published} after {seen}");
            seen = published;
            bench.is_good(published, 0);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let rows = growing.join().unwrap();
    bench.exports();
    bench.is_good(rows, 0);
    none_is_torn(&bench.target());
}

#[test]
fn an_entry_that_is_missing_in_the_database_is_named_and_nothing_is_published() {
    for missing in [5, 255, 256, 699] {
        let mut bench = Bench::new();
        bench.rows_to(700);
        run(&mut bench.client, "SELECT checkpoint('audit')");
        run(
            &mut bench.client,
            &format!("DELETE FROM merkle_log WHERE log_id = 1 AND leaf_index = {missing}"),
        );
        let (code, text) = bench.refused("postgres");
        assert!(
            code == 1 && text.contains(&format!("entry {missing} is missing")),
            "{code} {text}"
        );
        assert!(!bench.target().join("checkpoint").exists());
    }
}

#[test]
fn one_exporter_at_a_time_writes_to_a_directory_and_one_that_follows_goes_on() {
    let mut bench = Bench::new();
    bench.rows_to(100);
    let mut follow = bench.export();
    follow
        .args(["--follow", "--interval", "1"])
        .stdout(Stdio::null());
    let running = Running(follow.spawn().unwrap());
    let published = |bench: &Bench, size: i64| {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let line = format!("\n{size}\n");
        while !std::fs::read_to_string(bench.target().join("checkpoint"))
            .is_ok_and(|note| note.contains(&line))
        {
            assert!(
                std::time::Instant::now() < deadline,
                "{size} entries are not published"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    published(&bench, 100);
    let (code, text) = bench.refused("postgres");
    assert!(
        code == 2 && text.contains("another export is at work"),
        "{code} {text}"
    );
    bench.rows_to(5000);
    published(&bench, 5000);
    bench.is_good(5000, 0);
    // It outlives the server.
    bench.cluster.stop();
    bench.cluster.restart();
    bench.client = bench.cluster.client("postgres");
    bench.rows_to(6000);
    published(&bench, 6000);
    drop(running);
    bench.rows_to(6001);
    bench.exports();
    bench.is_good(6001, 0);
}

#[test]
fn no_other_tree_is_written_over_a_published_one() {
    let mut bench = Bench::new();
    bench.rows_to(700);
    bench.exports();
    let before = files(&bench.target());
    // A log of the same name and another origin.
    each(
        &mut bench.client,
        &["CREATE DATABASE other", "CREATE DATABASE forked"],
    );
    let mut other = bench.cluster.client("other");
    run(&mut other, "CREATE EXTENSION merkle_log");
    create_log(&mut other, "");
    run(
        &mut other,
        "SELECT alter_log('audit', origin => 'example.com/other')",
    );
    rows_to(&mut other, 800);
    let (code, text) = bench.refused("other");
    assert!(
        code == 2 && text.contains("the target holds another log"),
        "{code} {text}"
    );
    // The same origin and key, and another history, shorter, as long, and longer.
    let mut forked = bench.cluster.client("forked");
    run(&mut forked, "CREATE EXTENSION merkle_log");
    create_log(&mut forked, "forked");
    rows_to(&mut forked, 600);
    bench.cluster.forgets_what_it_signed();
    let (code, text) = bench.refused("forked");
    assert!(
        code == 2 && text.contains("the database only 600"),
        "{code} {text}"
    );
    for size in [700, 900, 3000] {
        rows_to(&mut forked, size);
        for arguments in [&[][..], &["--again"]] {
            let (code, text) = says(
                bench
                    .command("forked")
                    .args(["export", "audit"])
                    .arg(bench.target())
                    .args(arguments),
            );
            assert!(
                code == 1 && text.contains("not a continuation"),
                "{code} {text}"
            );
        }
    }
    assert_eq!(files(&bench.target()), before);
    bench.is_good(700, 0);
}

#[test]
fn a_history_that_was_rewritten_and_signed_anew_is_not_published() {
    let mut bench = Bench::new();
    bench.rows_to(300);
    bench.exports();
    // Whoever rules the server alters an entry and makes it forget what was signed; then the database signs again.
    each(
        &mut bench.client,
        &[
            "DELETE FROM merkle_leaf_data WHERE leaf_index = 290",
            "UPDATE merkle_log SET leaf_hash = sha256('x') WHERE leaf_index = 290",
            "DELETE FROM merkle_checkpoint",
            "INSERT INTO orders (id) VALUES (301)",
        ],
    );
    drain(&mut bench.client, "audit");
    bench.cluster.forgets_what_it_signed();
    run(&mut bench.client, "SELECT checkpoint('audit')");
    let (code, text) = bench.refused("postgres");
    assert!(
        code == 1 && text.contains("not a continuation"),
        "{code} {text}"
    );
    let (code, text) = bench.verified();
    assert!(code == 0 && text.contains("\"size\":300"), "{text}");
}

#[test]
fn without_a_signing_key_nothing_is_published() {
    let cluster = Cluster::start();
    let mut client = cluster.client("postgres");
    create_log(&mut client, "");
    rows_to(&mut client, 10);
    let directory = tempfile::tempdir().unwrap();
    let mut command = program();
    command
        .env("PGHOST", cluster.socket())
        .env("PGUSER", "postgres");
    let (code, text) = says(command.args(["export", "audit"]).arg(directory.path()));
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("no signing key is configured")
            && text.contains("merkle_log.signing_key_file"),
        "{text}"
    );
    assert_eq!(files(directory.path()), [""; 0]);
}

#[test]
fn what_is_signed_already_is_exported_by_those_who_may_not_sign() {
    let mut bench = Bench::new();
    bench.rows_to(400);
    run(
        &mut bench.client,
        "CREATE ROLE exporter LOGIN; GRANT SELECT ON orders TO exporter",
    );
    let mut export = bench.export();
    let export = export.env("PGUSER", "exporter");
    let (code, text) = says(export);
    assert!(
        code == 2 && text.contains("permission denied"),
        "{code} {text}"
    );
    export.arg("--no-sign");
    let (code, text) = says(export);
    assert!(
        code == 2 && text.contains("has no checkpoint"),
        "{code} {text}"
    );
    run(&mut bench.client, "SELECT checkpoint('audit')");
    bench.rows_to(500);
    let (code, text) = says(export);
    assert_eq!(code, 0, "{text}");
    bench.is_good(400, 0);
}
