//! What the client believes and refuses.

mod server;
mod stage;

use merkle_log_client::*;
use merkle_tree::leaf_hash;
use server::{Fault, Server};
use stage::support::key;
use stage::support::log::{Log, export, order};
use stage::*;
use tlog::Policy;

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
        let several = orders(size).bundle_at_once(&[0, 3], &[&key("example.com/log", 1)]);
        assert_eq!(client.verify(&several).unwrap().entries.len(), 2, "{size}");
    }
    let several = rewritten(20).bundle_at_once(&[0, 3], &[&key("example.com/log", 1)]);
    assert!(matches!(
        client.verify(&several),
        Err(Error::NotConsistent { .. })
    ));
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
fn entries_are_those_that_the_checkpoint_commits_to() {
    let stage = Stage::new();
    let log = orders(700);
    stage.show(&log);
    let client = stage.client();
    assert!(matches!(client.entry(0), Err(Error::NothingKept)));
    client.latest().unwrap();
    for index in [0, 255, 256, 511, 512, 699] {
        assert_eq!(client.entry(index).unwrap(), entry_of(&log, index));
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
    assert_eq!(client.entry(510).unwrap(), entry_of(&log, 510));
}

#[test]
fn a_withheld_entry_is_no_fault_of_the_log() {
    let stage = Stage::new();
    let mut log = orders(300);
    log.entries[4] = Vec::new();
    let note = stage.show(&log);
    let client = stage.client();
    client.latest().unwrap();
    stage.withhold(&log, 0);
    stage.withhold(&log, 1);
    for index in [0, 5, 255, 256, 299] {
        let leaf_hash = leaf_hash(&log.entries[index as usize]);
        let entry = client.entry(index).unwrap();
        assert_eq!(entry, Entry::Withheld { leaf_hash });
        assert_eq!((entry.leaf_data(), entry.leaf_hash()), (None, leaf_hash));
    }
    // A log of others may have an empty entry, and that is what is shown.
    assert_eq!(client.entry(4).unwrap(), Entry::LeafData(Vec::new()));
    // Nobody can pass an entry off as a withheld one with another hash.
    for (tile, at, index) in [("tile/0/000", 5, 5), ("tile/0/001.p/44", 43, 299)] {
        let path = stage.exported().join(tile);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at * 32] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let refused = client.entry(index);
        assert!(
            matches!(&refused, Err(Error::Tlog(tlog::Error::Inclusion { .. }))),
            "{refused:?}"
        );
    }
    assert_eq!(stage.kept_note(), note.to_string());
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
    assert_eq!(client.entry(299).unwrap(), Entry::LeafData(order(299)));
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
    assert_eq!(client.entry(7).await.unwrap(), Entry::LeafData(order(7)));
    stage.withhold(&orders(300), 0);
    assert_eq!(
        client.entry(8).await.unwrap(),
        Entry::Withheld {
            leaf_hash: leaf_hash(&order(8))
        }
    );
    assert!(client.verify(bundle(&orders(20), 3)).await.is_ok());
    stage.show(&rewritten(400));
    assert!(matches!(
        client.latest().await,
        Err(Error::NotConsistent { .. })
    ));
}
