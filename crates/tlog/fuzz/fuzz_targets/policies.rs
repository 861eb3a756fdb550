//! Any bytes as a policy: an error, or a policy that a note without its signatures does not satisfy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tlog::{Policy, SignedNote};

const NOTE: &str = "o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— o AAAAAAAAAAA=\n";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = Policy::from_bytes(bytes) {
        let note: SignedNote = NOTE.parse().unwrap();
        assert!(policy.verify(&note).is_err());
    }
});
