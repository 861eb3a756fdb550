//! Absence proofs: the vectors of `docs/proof-format-vectors.json`, and any bytes in the place of any others.

mod support;

use proptest::prelude::*;
use serde_json::Value as Json;
use support::{key, log::Log, sealed};
use tlog::*;

fn vectors(of: &str) -> Vec<Json> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/proof-format-vectors.json"
    );
    let all: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vectors = all[of].as_array().unwrap().clone();
    assert!(vectors.len() > 5);
    vectors
}

fn text<'v>(vector: &'v Json, field: &str) -> &'v str {
    vector[field].as_str().unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn policy(vector: &Json) -> Policy {
    Policy::from_bytes(text(vector, "policy").as_bytes()).unwrap()
}

#[test]
fn proofs_prove_what_the_vectors_say() {
    for vector in vectors("absence") {
        let (name, expected) = (text(&vector, "name"), &vector["proven"]);
        for form in [
            text(&vector, "json").as_bytes().to_vec(),
            unhex(text(&vector, "cbor")),
        ] {
            let proof = AbsenceProof::from_bytes(&form).unwrap();
            assert_eq!(proof.to_json(), text(&vector, "json"), "{name}");
            assert_eq!(proof.to_cbor(), unhex(text(&vector, "cbor")), "{name}");
            let proven = proof.verify(&policy(&vector)).unwrap();
            assert_eq!(proven.source, text(expected, "source"), "{name}");
            assert_eq!(Json::from(proven.key), expected["key"], "{name}");
            assert_eq!(
                proven.range.start.to_string(),
                text(expected, "from"),
                "{name}"
            );
            assert_eq!(proven.range.end.to_string(), text(expected, "to"), "{name}");
            let indexes: Vec<String> = proven.entries.iter().map(|e| e.index.to_string()).collect();
            assert_eq!(Json::from(indexes), expected["indexes"], "{name}");
        }
    }
}

#[test]
fn bad_proofs_are_refused_for_their_reason() {
    for vector in vectors("bad_absence") {
        let forms = [
            vector["json"].as_str().map(|json| json.as_bytes().to_vec()),
            vector["cbor"].as_str().map(unhex),
        ];
        for form in forms.into_iter().flatten() {
            let refused = AbsenceProof::from_bytes(&form).and_then(|p| p.verify(&policy(&vector)));
            let error = refused.expect_err(text(&vector, "name"));
            let debug = format!("{error:?}");
            let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            assert_eq!(
                variant,
                text(&vector, "error"),
                "{}: {error}",
                vector["name"]
            );
        }
    }
}

#[test]
fn a_proof_is_no_bundle_and_a_bundle_no_proof() {
    let vector = &vectors("absence")[0];
    assert!(ProofBundle::from_bytes(text(vector, "json").as_bytes()).is_err());
    let bundle = Log::of_orders("example.com/log", 3).bundle(&[1], &[&key("example.com/log", 1)]);
    assert!(AbsenceProof::from_bytes(bundle.to_json().as_bytes()).is_err());
    assert!(AbsenceProof::from_bytes(&bundle.to_cbor()).is_err());
}

#[test]
fn whoever_has_one_entry_convicts_a_log_that_sealed_a_lie() {
    let signer = key("example.com/log", 1);
    let mut log = Log::of_orders("example.com/log", 50);
    let lie = sealed::seal(&mut log, 0..50, |at| at != 17);
    let denied = sealed::prove(&log, &[&lie], "public.orders", &["17"], &[&signer]);
    let policy = Policy::of_log(signer.verifier_key());
    // The log has committed itself to it,
    let proven = denied.verify(&policy).unwrap();
    assert!(proven.entries.is_empty() && proven.range.contains(&17));
    // and to this, under the same checkpoint.
    let bundle = log.bundle(&[17], &[&signer]);
    assert!(bundle.verify(&policy).is_ok() && bundle.checkpoint == denied.checkpoint);
    // Who computes the index has another one.
    let honest = sealed::keys(&log, 0..50, &lie.said.root, |_| true);
    assert_ne!(honest, lie.keys);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_proof_has_the_entries_that_the_log_has(
        ids in prop::collection::vec(0i128..12, 1..120), cuts in prop::collection::vec(0usize..120, 0..4), asked in 0i128..14,
    ) {
        let signer = key("example.com/log", 1);
        let mut log = Log::of_orders("example.com/log", 0);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.clamp(1, ids.len())).chain([ids.len()]).collect();
        cuts.sort_unstable();
        let (mut parts, mut from) = (Vec::new(), 0);
        for (place, id) in ids.iter().enumerate() {
            log.entries.push(support::log::order(*id));
            while cuts.first() == Some(&(place + 1)) {
                cuts.remove(0);
                let to = log.entries.len() as u64;
                if from < to {
                    parts.push(sealed::seal(&mut log, from..to, |_| true));
                    from = to;
                }
            }
        }
        let all: Vec<_> = parts.iter().collect();
        let asked = asked.to_string();
        let expected: Vec<u64> = (0..from)
            .filter(|at| sealed::key_of(&log.entries[*at as usize]) == ("public.orders".to_owned(), vec![asked.clone()]))
            .collect();
        let proof = sealed::prove(&log, &all, "public.orders", &[&asked], &[&signer]);
        let policy = Policy::of_log(signer.verifier_key());
        let proven = proof.verify(&policy).unwrap();
        prop_assert_eq!(proven.range, 0..from);
        prop_assert_eq!(proven.entries.iter().map(|e| e.index.get()).collect::<Vec<_>>(), expected);
        prop_assert_eq!(AbsenceProof::from_bytes(&proof.to_cbor()).unwrap(), proof.clone());
        prop_assert_eq!(AbsenceProof::from_bytes(proof.to_json().as_bytes()).unwrap(), proof);
    }

    #[test]
    fn a_byte_that_is_altered_proves_nothing_else(which in 0usize..7, at in any::<prop::sample::Index>(), mask in 1u8..=255) {
        let vector = &vectors("absence")[which];
        let mut cbor = unhex(text(vector, "cbor"));
        let original = AbsenceProof::from_cbor(&cbor).unwrap();
        let at = at.index(cbor.len());
        cbor[at] ^= mask;
        if let Ok(proven) = AbsenceProof::from_cbor(&cbor).and_then(|p| p.verify(&policy(vector))) {
            // Only signatures of strangers and their names may change.
            let before = original.verify(&policy(vector)).unwrap();
            prop_assert_eq!(proven.range, before.range);
            prop_assert_eq!((proven.source, proven.key), (before.source, before.key));
            let hashes = |entries: &[ProvenEntry]| entries.iter().map(|e| (e.index, e.leaf_hash)).collect::<Vec<_>>();
            prop_assert_eq!(hashes(&proven.entries), hashes(&before.entries));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = AbsenceProof::from_bytes(&bytes);
    }
}
