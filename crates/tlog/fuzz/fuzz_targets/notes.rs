//! Any bytes as a note, a checkpoint or a key: an error, or a value that is written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tlog::{Checkpoint, Policy, SignedNote, SigningKey, VerifierKey};

/// Logs that have signed nothing.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let keys = [
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
    ];
    Policy::of_logs(keys.map(|key| key.parse().unwrap()))
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert!(SignedNote::from_bytes(bytes).is_err());
        return;
    };
    if let Ok(note) = text.parse::<SignedNote>() {
        assert_eq!(note.to_string(), text);
        assert!(POLICY.verify(&note).is_err());
    }
    if let Ok(checkpoint) = text.parse::<Checkpoint>() {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = SigningKey::from_text(text) {
        assert_eq!(key.to_text().as_str(), text);
    }
});
