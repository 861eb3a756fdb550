//! Exported directories in which some entries are withheld (docs/export.md).

#[path = "../../tlog/tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use support::key;
use support::log::{Log, export};
use tlog::entry_bundle;

fn verify(at: &Path) -> (i32, String) {
    let key = key("example.com/log", 1).verifier_key().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_merkle-log"));
    let output = command
        .args(["verify", "--key", &key])
        .arg(at)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

/// Writes a bundle again without the leaf data of some entries.
fn withhold(at: &Path, bundle: &str, width: u16, withheld: impl Fn(usize) -> bool) {
    let path = at.join(bundle);
    let bytes = std::fs::read(&path).unwrap();
    let mut written = Vec::new();
    for (place, entry) in entry_bundle::entries(&bytes, width)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        entry_bundle::append(&mut written, if withheld(place) { &[] } else { entry }).unwrap();
    }
    std::fs::write(path, written).unwrap();
}

#[test]
fn withheld_entries_are_counted_and_all_others_proven() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = Log::of_orders("example.com/log", 600);
    export(&log, &log.signed(&[&key("example.com/log", 1)]), at);
    withhold(at, "tile/entries/001", 256, |_| true);
    withhold(at, "tile/entries/002.p/88", 88, |place| place % 3 == 0);
    let (code, text) = verify(at);
    assert_eq!(code, 0, "{text}");
    for part in ["hashed      314 entries", "withheld    286 entries"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Who withholds an entry must still show its hash.
    let tile = at.join("tile/0/001");
    let bytes = std::fs::read(&tile).unwrap();
    let mut altered = bytes.clone();
    altered[40] ^= 1;
    std::fs::write(&tile, altered).unwrap();
    assert_eq!(verify(at).0, 1);
    std::fs::remove_file(&tile).unwrap();
    let (code, text) = verify(at);
    assert!(
        code == 2 && text.contains("tile/0/001 is missing"),
        "{code} {text}"
    );
    std::fs::write(&tile, bytes).unwrap();
    assert_eq!(verify(at).0, 0);
}

#[test]
fn an_entry_that_is_there_is_not_taken_for_withheld() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut log = Log::of_orders("example.com/log", 3);
    log.entries[1] = Vec::new();
    export(&log, &log.signed(&[&key("example.com/log", 1)]), at);
    let (code, text) = verify(at);
    assert!(
        code == 0 && text.contains("hashed      3 entries") && !text.contains("withheld"),
        "{code} {text}"
    );
}

#[test]
fn a_directory_without_bundles_is_not_said_to_be_pruned() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let log = Log::of_orders("example.com/log", 600);
    export(&log, &log.signed(&[&key("example.com/log", 1)]), at);
    std::fs::remove_dir_all(at.join("tile/entries")).unwrap();
    let (code, text) = verify(at);
    assert!(
        code == 0
            && text.contains("hashed      0 entries")
            && text.contains(
                "no entries  600 entries from 0 on: there are their hashes, and no bundles"
            )
            && !text.contains("pruned"),
        "{code} {text}"
    );
}
