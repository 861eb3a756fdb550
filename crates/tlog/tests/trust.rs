//! Whose word counts: cosignatures and policies.

mod support;

use ml_dsa::signature::{Keypair, Signer as _};
use support::{checkpoint, key, note, witness};
use tlog::*;

/// A witness with an ML-DSA-44 key, which this crate verifies and others sign with.
struct PostQuantum {
    name: KeyName,
    key: ml_dsa::SigningKey<ml_dsa::MlDsa44>,
}

impl PostQuantum {
    fn new(name: &str, seed: u8) -> PostQuantum {
        PostQuantum {
            name: KeyName::new(name).unwrap(),
            key: ml_dsa::SigningKey::from_seed(&[seed; 32].into()),
        }
    }

    fn verifier_key(&self) -> VerifierKey {
        let public_key = self.key.verifying_key().encode();
        VerifierKey::new(
            self.name.clone(),
            SignatureType::MlDsa44Cosignature,
            &public_key,
        )
        .unwrap()
    }
}

impl Signer for PostQuantum {
    fn name(&self) -> &KeyName {
        &self.name
    }

    fn id(&self) -> KeyId {
        self.verifier_key().id()
    }

    /// Written from the specification, apart from the crate's own.
    fn sign(&self, text: &str, time: UnixSeconds) -> Result<Vec<u8>, Error> {
        let checkpoint: Checkpoint = text.parse()?;
        let message = [
            b"subtree/v1\n\0".as_slice(),
            &[self.name.as_str().len() as u8],
            self.name.as_str().as_bytes(),
            &time.to_be_bytes(),
            &[checkpoint.origin().len() as u8],
            checkpoint.origin().as_bytes(),
            &[0; 8],
            &checkpoint.size().get().to_be_bytes(),
            checkpoint.root().as_bytes(),
        ]
        .concat();
        let signature = self.key.sign(&message).encode();
        Ok([time.to_be_bytes().as_slice(), &signature].concat())
    }
}

fn policy(text: &str) -> Policy {
    Policy::from_bytes(text.as_bytes()).unwrap()
}

#[test]
fn a_cosignature_signs_the_time_and_the_whole_checkpoint() {
    let witness = witness("witness.example.com/w1", 1);
    let note = note(&checkpoint(5), &[&witness], 1_679_315_147);
    let verifier_key = witness.verifier_key();
    let [(signature, _)] = note.verify([&verifier_key]).unwrap()[..] else {
        panic!();
    };
    assert_eq!(signature.payload.len(), 8 + 64);
    assert_eq!(signature.time(&verifier_key), Some(1_679_315_147));
    // The same bytes, signed as the specification says, by a key that signs plain text.
    let message = format!("cosignature/v1\ntime 1679315147\n{}", note.text());
    let plain = SigningKey::from_seed(witness.name().clone(), SignatureType::Ed25519, &[1; 32]);
    assert_eq!(
        plain.unwrap().sign(&message, 0).unwrap(),
        signature.payload[8..]
    );
    for byte in 0..signature.payload.len() {
        let mut other = note.clone();
        let mut altered = signature.clone();
        altered.payload[byte] ^= 1;
        other.add(altered).unwrap();
        assert!(other.verify([&verifier_key]).is_err());
    }
}

#[test]
fn cosignatures_are_over_checkpoints_only() {
    let witness = witness("w", 1);
    assert!(
        SignedNote::new("any text\n")
            .unwrap()
            .sign(&witness, 0)
            .is_err()
    );
    let mut note = SignedNote::new(&checkpoint(1).to_string()).unwrap();
    assert!(note.sign(&witness, i64::MAX as u64).is_ok());
    assert!(note.sign(&witness, i64::MAX as u64 + 1).is_err());
}

#[test]
fn post_quantum_cosignatures_verify() {
    let witness = PostQuantum::new("witness.example.com/pq", 3);
    let log = key("example.com/log", 9);
    let mut note = note(&checkpoint(7), &[&log], 0);
    note.sign(&witness, 1_700_000_000).unwrap();
    let vkey = witness.verifier_key();
    let text = format!("log {}\nwitness pq {vkey}\nquorum pq\n", log.verifier_key());
    let verified = policy(&text).verify(&note).unwrap();
    assert_eq!(verified.cosigned[0].time, 1_700_000_000);
    assert_eq!(vkey.to_string().parse::<VerifierKey>().unwrap(), vkey);
    // The time, the name, the size: each is signed.
    let mut altered = note.signatures()[1].clone();
    altered.payload[7] ^= 1;
    note.add(altered).unwrap();
    assert!(matches!(
        policy(&text).verify(&note),
        Err(Error::BadSignature { .. })
    ));
    let too_long = PostQuantum::new(&"w".repeat(256), 3);
    assert!(
        note.clone()
            .add(Signature {
                name: too_long.name.clone(),
                id: too_long.id(),
                payload: vec![0; 8 + 2420],
            })
            .is_ok()
    );
}

#[test]
fn a_log_may_sign_with_a_post_quantum_key() {
    let log = PostQuantum::new("example.com/log", 3);
    let mut note = SignedNote::new(&checkpoint(7).to_string()).unwrap();
    note.sign(&log, 0).unwrap();
    assert!(Policy::of_log(log.verifier_key()).verify(&note).is_ok());
}

#[test]
fn witnesses_whose_names_are_not_utf8_are_as_many_as_they_are() {
    let log = key("example.com/log", 100);
    let [one, other] = [witness("w1", 1), witness("w2", 2)];
    // Both names look the same to people: \u{fffd}.
    let mut file = format!("log {}\n", log.verifier_key()).into_bytes();
    for (name, key) in [(0xffu8, &one), (0xfe, &other)] {
        file.extend_from_slice(b"witness ");
        file.push(name);
        file.extend_from_slice(format!(" {}\n", key.verifier_key()).as_bytes());
    }
    let with = |rest: &[u8]| Policy::from_bytes(&[&file, rest].concat()).unwrap();
    let by_one = note(&checkpoint(3), &[&log, &one], 7);
    let by_both = note(&checkpoint(3), &[&log, &one, &other], 7);
    let all = with(b"group g all \xff \xfe\nquorum g\n");
    assert!(matches!(
        all.verify(&by_one),
        Err(Error::Quorum { cosigned: 1, .. })
    ));
    assert!(all.verify(&by_both).is_ok());
    assert!(with(b"quorum \xfe\n").verify(&by_one).is_err());
    assert!(with(b"quorum \xff\n").verify(&by_one).is_ok());
}

#[test]
fn logs_of_one_secret_have_keys_of_their_own() {
    let secret = key("example.com/shop", 7);
    let of_log = |origin: &str| secret.of_log(KeyName::new(origin).unwrap()).unwrap();
    let logs = [of_log("example.com/shop/a"), of_log("example.com/shop/b")];
    let lines = logs
        .each_ref()
        .map(|log| format!("log {}\n", log.verifier_key()));
    let both = policy(&format!("{}{}quorum none\n", lines[0], lines[1]));
    for log in &logs {
        let origin = log.verifier_key().name().as_str().to_owned();
        let of = Checkpoint::new(&origin, Default::default(), merkle_tree::EMPTY_ROOT).unwrap();
        assert!(both.verify(&note(&of, &[log], 0)).is_ok());
    }
    assert_eq!(of_log("example.com/shop").to_text(), secret.to_text());
    // Computed with Python's hmac, as RFC 5869 says.
    let known = "+AYe2zNG8yEtvU2jCAnW/4f9iO5z0Ax2b1klZSPPV30KE";
    assert!(logs[0].to_text().ends_with(known));
}

#[test]
fn the_quorum_of_the_specification_counts_as_it_says() {
    let log = key("example.com/log", 100);
    let names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"];
    let witnesses: Vec<_> = (1..)
        .zip(names)
        .map(|(seed, name)| witness(name, seed))
        .collect();
    let mut text = format!("log {}\n", log.verifier_key());
    for (name, key) in names.iter().zip(&witnesses) {
        text += &format!(
            "witness {name} {} https://example.com/{name}\n",
            key.verifier_key()
        );
    }
    text += "group X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2 Y3\n";
    text += "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n";
    let policy = policy(&text);
    for chosen in 0u32..1 << names.len() {
        let mut signed = note(&checkpoint(3), &[&log], 0);
        for (number, key) in witnesses.iter().enumerate() {
            if chosen >> number & 1 == 1 {
                signed.sign(key, 7).unwrap();
            }
        }
        let enough = (chosen & 0b111).count_ones() >= 2 && chosen >> 3 != 0;
        let result = policy.verify(&signed);
        assert_eq!(result.is_ok(), enough, "{chosen:06b}: {result:?}");
        match result {
            Ok(verified) => assert_eq!(verified.cosigned.len(), chosen.count_ones() as usize),
            Err(error) => assert!(matches!(error, Error::Quorum { .. })),
        }
    }
}

#[test]
fn a_log_speaks_for_its_own_origin_only() {
    let (ours, other) = (key("example.com/log", 1), key("example.com/other", 2));
    let both = Policy::of_logs([ours.verifier_key(), other.verifier_key()]);
    let by_other = note(&checkpoint(3), &[&other], 0);
    let refused = both.verify(&by_other).unwrap_err();
    assert!(matches!(refused, Error::NotSignedByLog { .. }), "{refused}");
    let refused = Policy::of_log(other.verifier_key())
        .verify(&by_other)
        .unwrap_err();
    assert!(matches!(refused, Error::UnknownLog { .. }), "{refused}");
}

#[test]
fn a_name_joins_one_group_and_a_policy_may_be_large() {
    let mut text = String::new();
    for number in 0..100 {
        let key = witness(&format!("w{number}"), number);
        text += &format!("witness w{number} {}\n", key.verifier_key());
    }
    text += "group g0 any w0\n";
    for number in 1..10_000 {
        text += &format!("group g{number} any g{}\n", number - 1);
    }
    text += "quorum g9999\n";
    let log = format!("log {}\n", key("example.com/log", 200).verifier_key());
    let policy = policy(&(log + &text));
    let mut signed = note(&checkpoint(3), &[&key("example.com/log", 200)], 0);
    assert!(matches!(policy.verify(&signed), Err(Error::Quorum { .. })));
    signed.sign(&witness("w0", 0), 1).unwrap();
    assert!(policy.verify(&signed).is_ok());
    for bad in [
        "group a any w1 w1\n",
        "group a any g1\n",
        "group a 2 w1\n",
        "group a 0 w1\n",
        "group a 01 w1\n",
        "group w1 any w2\n",
        "group none any w1\n",
    ] {
        let with = text.replace("quorum", &format!("{bad}quorum"));
        assert!(Policy::from_bytes(with.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn names_in_a_policy_are_octets() {
    let mut text = Vec::new();
    for (seed, name) in [(1, b"\xff".as_slice()), (2, b"\xfe"), (3, "K".as_bytes())] {
        let key = witness("w", seed).verifier_key().to_string();
        text.extend([b"witness ", name, b" ", key.as_bytes(), b"\n"].concat());
    }
    text.extend(b"group g all \xff \xfe \xe2\x84\xaa\n");
    assert!(Policy::from_bytes(&[&text, b"quorum g\n".as_slice()].concat()).is_err());
    assert!(Policy::from_bytes(&[&text[..text.len() - 5], b"\nquorum \xff\n"].concat()).is_ok());
}

/// A browser checks this bundle too: `pgrx-tests/tests/page/` reads the same file.
#[test]
fn a_bundle_with_a_post_quantum_cosignature_is_that_of_its_file() {
    let log = key("example.com/log", 1);
    let witness = PostQuantum::new("witness.example.com/pq", 3);
    let data = b"a row".to_vec();
    let root = merkle_tree::leaf_hash(&data);
    let size = merkle_tree::TreeSize::new(1).unwrap();
    let checkpoint = Checkpoint::new("example.com/log", size, root).unwrap();
    let bundle = ProofBundle {
        checkpoint: note(&checkpoint, &[&log, &witness], 1_700_000_000),
        entries: vec![BundleEntry {
            index: merkle_tree::LeafIndex::new(0).unwrap(),
            leaf: BundleLeaf::Data(data),
            path: Vec::new(),
            label: None,
        }],
        multiproof: None,
        hub: None,
    };
    let (log, witness) = (log.verifier_key(), witness.verifier_key());
    let text = format!("log {log}\nwitness pq {witness}\nquorum pq\n");
    bundle.verify(&policy(&text)).unwrap();
    let made = serde_json::json!({"policy": text, "json": bundle.to_json()});
    let kept: serde_json::Value = serde_json::from_str(include_str!("ml-dsa-44.json")).unwrap();
    assert_eq!(kept, made, "{made}");
}
