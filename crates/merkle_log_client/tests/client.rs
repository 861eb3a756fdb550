//! What the client believes, keeps and refuses.

mod server;
#[path = "../../tlog/tests/support/mod.rs"]
mod support;

use merkle_log_client::*;
use server::{Fault, Server};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::key;
use support::log::{Log, export, order};
use tempfile::TempDir;
use tlog::{Policy, ProofBundle, SignedNote};

const IMPATIENT: Retry = Retry {
    attempts: 4,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(5),
};

/// A log that grows in a directory, and a client's file.
struct Stage {
    directory: TempDir,
}

impl Stage {
    fn new() -> Stage {
        Stage {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn exported(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn kept(&self) -> PathBuf {
        self.directory.path().join("kept")
    }

    /// Shows this log from now on.
    fn show(&self, log: &Log) -> SignedNote {
        let note = signed(log);
        export(log, &note, &self.exported());
        note
    }

    fn client(&self) -> Client {
        Client::new(Directory::new(self.exported()), policy(), self.kept()).with_retry(IMPATIENT)
    }

    fn kept_note(&self) -> String {
        std::fs::read_to_string(self.kept()).unwrap()
    }
}

fn policy() -> Policy {
    Policy::of_log(key("example.com/log", 1).verifier_key())
}

fn signed(log: &Log) -> SignedNote {
    log.signed(&[&key("example.com/log", 1)])
}

fn orders(size: u64) -> Log {
    Log::of_orders("example.com/log", size)
}

/// The log with another entry 3: everything is computed and signed anew.
fn rewritten(size: u64) -> Log {
    let mut log = orders(size);
    log.entries[3] = order(99);
    log
}

fn bundle(log: &Log, index: u64) -> ProofBundle {
    log.bundle(&[index], &[&key("example.com/log", 1)])
}

#[test]
fn a_log_that_grows_is_followed() {
    let stage = Stage::new();
    let mut before = None;
    for size in [0, 1, 2, 255, 256, 257, 600, 600, 66_000] {
        let note = stage.show(&orders(size));
        let latest = stage.client().latest().unwrap();
        let expected = match before {
            None => Progress::First,
            Some(before) if before == size => Progress::Same,
            Some(before) => Progress::Grew {
                from: merkle_tree::TreeSize::new(before).unwrap(),
            },
        };
        assert_eq!(latest.progress, expected);
        assert_eq!(stage.kept_note(), note.to_string());
        before = Some(size);
    }
}

#[test]
fn history_that_was_rewritten_and_signed_anew_is_refused() {
    for size in [20, 21, 300, 70_000] {
        let stage = Stage::new();
        stage.show(&orders(20));
        stage.client().latest().unwrap();
        let kept = stage.kept_note();
        let shown = stage.show(&rewritten(size));
        // A client that has kept nothing cannot know.
        let other = Client::new(
            Directory::new(stage.exported()),
            policy(),
            stage.directory.path().join("new"),
        );
        assert_eq!(other.latest().unwrap().progress, Progress::First);
        for _ in 0..2 {
            match stage.client().latest() {
                Err(Error::NotConsistent {
                    kept: evidence,
                    shown: note,
                    ..
                }) => {
                    assert_eq!((evidence.to_string(), *note), (kept.clone(), shown.clone()));
                }
                other => panic!("{size}: {other:?}"),
            }
            assert_eq!(stage.kept_note(), kept);
        }
    }
}

#[test]
fn an_old_bundle_convicts_a_log_that_was_rewritten() {
    let stage = Stage::new();
    let old = bundle(&orders(20), 3);
    stage.show(&rewritten(300));
    let client = stage.client();
    assert!(matches!(client.verify(&old), Err(Error::NothingKept)));
    client.latest().unwrap();
    let refused = client.verify(&old);
    assert!(
        matches!(refused, Err(Error::NotConsistent { .. })),
        "{refused:?}"
    );
    // An entry that was not changed is none the less part of another history.
    assert!(matches!(
        client.verify(&bundle(&orders(20), 5)),
        Err(Error::NotConsistent { .. })
    ));
    assert!(client.verify(&bundle(&rewritten(20), 5)).is_ok());
}

#[test]
fn bundles_older_and_newer_than_what_was_kept_are_part_of_it() {
    let stage = Stage::new();
    stage.show(&orders(300));
    let client = stage.client();
    client.latest().unwrap();
    export(&orders(500), &signed(&orders(300)), &stage.exported());
    for size in [4, 20, 300, 500] {
        assert!(client.verify(&bundle(&orders(size), 3)).is_ok(), "{size}");
    }
    let of_another_log = Log::of_orders("example.com/other", 9);
    let other = key("example.com/other", 2);
    let both = Policy::of_logs([
        key("example.com/log", 1).verifier_key(),
        other.verifier_key(),
    ]);
    let client = Client::new(Directory::new(stage.exported()), both, stage.kept());
    let refused = client.verify(&of_another_log.bundle(&[1], &[&other]));
    assert!(
        matches!(refused, Err(Error::OtherLog { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_row_in_a_hub_is_compared_with_the_log_that_the_client_follows() {
    let hub_key = key("example.com/hub", 2);
    let mut bundle = bundle(&orders(20), 3);
    let mut hub = Log::of_orders("example.com/hub", 5);
    hub.entries[2] = bundle.checkpoint.to_string().into_bytes();
    bundle.hub = Some(Box::new(hub.bundle(&[2], &[&hub_key])));
    let both = || {
        Policy::of_logs([
            key("example.com/log", 1).verifier_key(),
            hub_key.verifier_key(),
        ])
    };
    let stage = Stage::new();
    export(&hub, &hub.signed(&[&hub_key]), &stage.exported());
    let client = Client::new(Directory::new(stage.exported()), both(), stage.kept());
    client.latest().unwrap();
    assert!(client.verify(&bundle).is_ok());
    let stage = Stage::new();
    stage.show(&rewritten(20));
    let client = Client::new(Directory::new(stage.exported()), both(), stage.kept());
    client.latest().unwrap();
    assert!(matches!(
        client.verify(&bundle),
        Err(Error::NotConsistent { .. })
    ));
}

#[test]
fn an_older_checkpoint_is_refused_and_not_kept() {
    let stage = Stage::new();
    let newer = stage.show(&orders(300));
    stage.client().latest().unwrap();
    stage.show(&orders(20));
    let refused = stage.client().latest();
    assert!(
        matches!(
            refused,
            Err(Error::Older {
                kept: 300,
                shown: 20
            })
        ),
        "{refused:?}"
    );
    assert_eq!(stage.kept_note(), newer.to_string());
}

#[test]
fn a_damaged_mirror_does_not_look_like_a_rewritten_log() {
    let stage = Stage::new();
    stage.show(&orders(20));
    stage.client().latest().unwrap();
    stage.show(&orders(700));
    for file in ["tile/0/000", "tile/0/002.p/188"] {
        let path = stage.exported().join(file);
        let bytes = std::fs::read(&path).unwrap();
        let mut altered = bytes.clone();
        altered[40] ^= 1;
        std::fs::write(&path, &altered).unwrap();
        let refused = stage.client().latest();
        assert!(
            matches!(refused, Err(Error::Tlog(_))),
            "{file}: {refused:?}"
        );
        std::fs::write(&path, &bytes[..8]).unwrap();
        assert!(matches!(stage.client().latest(), Err(Error::Tlog(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            stage.client().latest(),
            Err(Error::Missing { .. })
        ));
        std::fs::write(&path, &bytes).unwrap();
    }
    stage.client().latest().unwrap();
}

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
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_client_that_is_killed_at_any_moment_leaves_a_whole_checkpoint",
            ])
            .env(DIRECTORY, stage.directory.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // It has begun when it has replaced what this writes.
        let mark = stage.directory.path().join("kept.new");
        std::fs::write(&mark, "torn").unwrap();
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

#[test]
fn clients_that_share_a_file_never_go_back() {
    let stage = Stage::new();
    let mirrors: Vec<_> = (1..=8)
        .map(|n| stage.directory.path().join(format!("mirror-{n}")))
        .collect();
    for (n, mirror) in (1..).zip(&mirrors) {
        let log = orders(n * 40);
        export(&log, &signed(&log), mirror);
    }
    let follow = |mirror: &Path| {
        let client = Client::new(Directory::new(mirror), policy(), stage.kept());
        for _ in 0..10 {
            match client.latest() {
                Ok(_) | Err(Error::Older { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            let size = client.kept().unwrap().unwrap().1.checkpoint.size();
            let again = client.kept().unwrap().unwrap().1.checkpoint.size();
            assert!(again >= size);
        }
    };
    std::thread::scope(|scope| {
        for mirror in &mirrors {
            scope.spawn(|| follow(mirror));
        }
    });
    assert_eq!(stage.kept_note(), signed(&orders(320)).to_string());
}

#[test]
fn entries_are_those_that_the_checkpoint_commits_to() {
    let stage = Stage::new();
    let log = orders(700);
    stage.show(&log);
    let client = stage.client();
    assert!(matches!(client.entry(0), Err(Error::NothingKept)));
    client.latest().unwrap();
    for index in [0, 255, 256, 511, 512, 699] {
        assert_eq!(client.entry(index).unwrap(), log.entries[index as usize]);
    }
    for index in [700, 1 << 61, u64::MAX] {
        assert!(
            matches!(client.entry(index), Err(Error::NoSuchEntry { .. })),
            "{index}"
        );
    }
    let path = stage.exported().join("tile/entries/001");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(
        client.entry(511),
        Err(Error::Tlog(tlog::Error::Inclusion { index: 511, .. }))
    ));
    assert_eq!(client.entry(510).unwrap(), log.entries[510]);
}

#[test]
fn failures_that_pass_are_outlived_and_others_are_not_repeated() {
    let stage = Stage::new();
    stage.show(&orders(300));
    let server = Server::of(stage.exported());
    let client = Client::http(&server.url(), policy(), stage.kept()).with_retry(IMPATIENT);
    server.next([Fault::Status(503), Fault::Status(429), Fault::HangUp]);
    client.latest().unwrap();
    assert_eq!(server.requests(), 4);
    assert_eq!(client.entry(299).unwrap(), order(299));
    // What has not changed takes one request.
    server.reset();
    assert_eq!(client.latest().unwrap().progress, Progress::Same);
    assert_eq!(server.requests(), 1);
    server.reset();
    server.next([Fault::Status(503); 4]);
    match client.latest() {
        Err(Error::Unreachable {
            path, attempts: 4, ..
        }) => assert_eq!(path, "checkpoint"),
        other => panic!("{other:?}"),
    }
    server.reset();
    server.next([Fault::Status(403)]);
    assert!(matches!(
        client.latest(),
        Err(Error::Unreachable { attempts: 1, .. })
    ));
    server.reset();
    server.next([Fault::Status(404)]);
    assert!(matches!(client.latest(), Err(Error::Missing { .. })));
    assert_eq!(server.requests(), 1);
    server.next([Fault::Torn]);
    client.latest().unwrap();
    server.next([Fault::Endless]);
    assert!(matches!(
        client.latest(),
        Err(Error::Unreachable { attempts: 1, .. })
    ));
    client.latest().unwrap();
}

#[tokio::test]
async fn async_programs_have_the_same_client() {
    let stage = Stage::new();
    stage.show(&orders(300));
    let client = AsyncClient::from(stage.client());
    assert_eq!(client.latest().await.unwrap().progress, Progress::First);
    assert_eq!(client.entry(7).await.unwrap(), order(7));
    assert!(client.verify(bundle(&orders(20), 3)).await.is_ok());
    stage.show(&rewritten(400));
    assert!(matches!(
        client.latest().await,
        Err(Error::NotConsistent { .. })
    ));
}
