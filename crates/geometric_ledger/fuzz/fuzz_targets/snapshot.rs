//! Any bytes as a snapshot: an error or a ledger, never a panic, never half a ledger.
#![no_main]

use geometric_ledger::{GeometricLedger, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().unwrap();
    let (file, path) = (directory.path().join("snapshot"), directory.path().join("ledger"));
    std::fs::write(&file, bytes).unwrap();
    let _ = GeometricLedger::snapshot_info(&file);
    let restored = GeometricLedger::restore(&path, &[file], Options::new().shards(1));
    assert_eq!(restored.is_ok(), path.exists());
});
