//! Any bytes as a request to a witness: an error, or a value that is written as the same bytes, and gets no cosignature
//! without the log's signature.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tlog::{AddCheckpoint, Policy, Verdict};

/// A log that has signed nothing.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    Policy::of_log(key.parse().unwrap())
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = AddCheckpoint::from_bytes(bytes) else {
        return;
    };
    assert_eq!(request.to_string().as_bytes(), bytes);
    assert!(matches!(
        request.admit(&POLICY),
        Err(Verdict::NotFound | Verdict::Forbidden)
    ));
    let cosigned = request.rule(Some(request.checkpoint())).verdict == Verdict::Cosign;
    assert_eq!(
        cosigned,
        request.old_size() == request.checkpoint().size() && request.path().is_empty()
    );
});
