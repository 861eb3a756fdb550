//! What clients keep, also when they are killed and when several share a file.

mod stage;

use merkle_log_client::*;
use stage::support;
use stage::support::key;
use stage::support::log::export;
use stage::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn a_kept_file_that_cannot_be_read_is_never_replaced() {
    let stage = Stage::new();
    stage.show(&orders(20));
    let stranger = orders(20).signed(&[&key("example.com/log", 7)]).to_string();
    for content in [b"".as_slice(), b"torn", b"\xff\xfe", stranger.as_bytes()] {
        std::fs::write(stage.kept(), content).unwrap();
        assert!(stage.client().latest().is_err());
        assert_eq!(std::fs::read(stage.kept()).unwrap(), content);
    }
    std::fs::remove_file(stage.kept()).unwrap();
    std::fs::create_dir(stage.kept()).unwrap();
    assert!(matches!(stage.client().latest(), Err(Error::File { .. })));
}

#[test]
fn what_a_crash_left_behind_is_no_checkpoint() {
    let stage = Stage::new();
    let note = stage.show(&orders(20));
    let torn = stage.directory.path().join("kept.new");
    std::fs::write(&torn, &note.to_string()[..30]).unwrap();
    assert!(stage.client().kept().unwrap().is_none());
    stage.client().latest().unwrap();
    assert_eq!(stage.kept_note(), note.to_string());
    assert!(!torn.exists());
}

/// Shows one of two notes of the same tree, so that every call replaces what was kept. Runs until it is killed.
fn replace_for_ever(directory: &Path) {
    let notes = [1, 2].map(|time| {
        support::note(
            &orders(20).checkpoint_at(orders(20).size()),
            &signers(),
            time,
        )
    });
    let exported = directory.join("log");
    let client = Client::new(Directory::new(&exported), policy(), directory.join("kept"));
    for note in notes.iter().cycle() {
        std::fs::write(exported.join("checkpoint"), note.to_string()).unwrap();
        client.latest().unwrap();
    }
}

fn signers() -> [&'static dyn tlog::Signer; 2] {
    static KEYS: std::sync::LazyLock<[tlog::SigningKey; 2]> =
        std::sync::LazyLock::new(|| [key("example.com/log", 1), support::witness("w", 2)]);
    [&KEYS[0], &KEYS[1]]
}

#[test]
fn a_client_that_is_killed_at_any_moment_leaves_a_whole_checkpoint() {
    const DIRECTORY: &str = "REPLACE_FOR_EVER_IN";
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return replace_for_ever(Path::new(&directory));
    }
    let stage = Stage::new();
    stage.show(&orders(20));
    for round in 0..20 {
        // It has begun when it has replaced this.
        let mark = stage.directory.path().join("kept.new");
        std::fs::write(&mark, "torn").unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_client_that_is_killed_at_any_moment_leaves_a_whole_checkpoint",
            ])
            .env(DIRECTORY, stage.directory.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while mark.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(137 * round));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let (_, verified) = stage.client().kept().unwrap().unwrap();
        assert_eq!(verified.checkpoint.size().get(), 20);
        // The lock went with the process.
        stage.show(&orders(20));
        stage.client().latest().unwrap();
    }
}

/// A log that has grown whenever its checkpoint is asked for.
#[derive(Clone)]
struct Growing {
    exports: Arc<Vec<Directory>>,
    asked: Arc<AtomicUsize>,
}

impl Growing {
    fn new(stage: &Stage, sizes: impl Iterator<Item = u64>) -> Growing {
        let export_of = |size| {
            let directory = stage.directory.path().join(format!("at-{size}"));
            export(&orders(size), &signed(&orders(size)), &directory);
            Directory::new(directory)
        };
        Growing {
            exports: Arc::new(sizes.map(export_of).collect()),
            asked: Arc::default(),
        }
    }
}

impl Transport for Growing {
    fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        if path == "checkpoint" {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            return self.exports[asked.min(self.exports.len() - 1)].get(path, limit);
        }
        let found = self.exports.iter().map(|export| export.get(path, limit));
        let found = found.into_iter().find(Result::is_ok);
        found.unwrap_or(Err(TransportError::NotFound))
    }
}

#[test]
fn clients_that_share_a_file_believe_an_honest_log_that_grows() {
    let stage = Stage::new();
    let log = Growing::new(&stage, (1..=60).map(|n| n * 10));
    let follow = || {
        let client = Client::new(log.clone(), policy(), stage.kept());
        let mut size = merkle_tree::TreeSize::ZERO;
        for _ in 0..10 {
            let latest = client.latest().unwrap().verified.checkpoint.size();
            let kept = client.kept().unwrap().unwrap().1.checkpoint.size();
            assert!(size <= latest && latest <= kept);
            size = kept;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(follow);
        }
    });
    assert_eq!(stage.kept_note(), signed(&orders(600)).to_string());
}

/// Lets another client keep the newest checkpoint while the first answer is under way.
struct Overtaken {
    log: Growing,
    other: Client,
}

impl Transport for Overtaken {
    fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        let first = self.log.asked.load(Ordering::SeqCst) == 0;
        let answer = self.log.get(path, limit);
        if first {
            self.other.latest().unwrap();
        }
        answer
    }
}

#[test]
fn a_client_that_was_overtaken_asks_again() {
    for kept_before in [false, true] {
        let stage = Stage::new();
        if kept_before {
            stage.show(&orders(20));
            stage.client().latest().unwrap();
        }
        let log = Growing::new(&stage, [300, 301].into_iter());
        let other = Client::new(log.clone(), policy(), stage.kept());
        let client = Client::new(Overtaken { log, other }, policy(), stage.kept());
        let latest = client.latest().unwrap();
        assert_eq!(latest.note, signed(&orders(301)));
        assert_eq!(latest.progress, Progress::Same);
    }
}
