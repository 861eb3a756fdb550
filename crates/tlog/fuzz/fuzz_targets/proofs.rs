//! Any bytes as a proof: an error, or a value that is written as the same bytes, and proves nothing without
//! a signature.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tlog::{AbsenceProof, ConsistencyBundle, Policy, ProofBundle, TlogProof};

const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fuzz_target!(|bytes: &[u8]| {
    let policy = Policy::of_log(KEY.parse().unwrap());
    if let Ok(bundle) = ProofBundle::from_cbor(bytes) {
        assert_eq!(bundle.to_cbor(), bytes);
        assert_eq!(ProofBundle::from_json(bundle.to_json().as_bytes()), Ok(bundle));
    }
    if let Ok(bundle) = ProofBundle::from_json(bytes) {
        assert!(bundle.verify(&policy).is_err());
        assert_eq!(ProofBundle::from_cbor(&bundle.to_cbor()), Ok(bundle));
    }
    if let Ok(consistency) = ConsistencyBundle::from_cbor(bytes) {
        assert_eq!(consistency.to_cbor(), bytes);
        assert!(consistency.verify(&policy).is_err());
    }
    let _ = ConsistencyBundle::from_json(bytes);
    if let Ok(absence) = AbsenceProof::from_bytes(bytes) {
        assert!(absence.verify(&policy).is_err());
        assert_eq!(AbsenceProof::from_cbor(&absence.to_cbor()), Ok(absence.clone()));
        assert_eq!(AbsenceProof::from_json(absence.to_json().as_bytes()), Ok(absence));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(proof) = text.parse::<TlogProof>() {
        assert_eq!(proof.to_string(), text);
        assert!(proof.verify(&merkle_tree::EMPTY_ROOT, &policy).is_err());
    }
});
