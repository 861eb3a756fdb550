//! Ten thousand random alterations of each kind of document: what is still accepted says what the original says.

mod support;

use merkle_tree::{LeafIndex, leaf_hash, leaf_hashes, tile_hash};
use std::collections::BTreeSet;
use support::log::{Log, label};
use support::{key, witness};
use tlog::*;

const MUTATIONS: u32 = 10_000;

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        start..(start + 1 + self.below(40)).min(length)
    }
}

/// One to three alterations; `other` is a document of the same kind.
fn mutate(document: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = document.to_vec();
    for _ in 0..1 + random.below(3) {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        let range = random.range(length);
        match random.below(8) {
            0 | 1 => bytes[range.start] ^= 1 << random.below(8),
            2 => bytes[range.start] = random.below(256) as u8,
            3 => drop(bytes.drain(range)),
            4 => bytes.insert(range.start, random.below(256) as u8),
            5 => {
                let copy = bytes[range].to_vec();
                let at = random.below(length);
                bytes.splice(at..at, copy);
            }
            6 => {
                let from = random.range(other.len());
                let to = range.start..(range.start + from.len()).min(length);
                bytes.splice(to, other[from].iter().copied());
            }
            _ => bytes.truncate(range.start),
        }
    }
    bytes
}

/// Calls `accepted` with every alteration that differs from the document, and returns how many it accepted.
fn accepted(document: &[u8], other: &[u8], mut accepted: impl FnMut(&[u8]) -> bool) -> u32 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut count = 0;
    for _ in 0..MUTATIONS {
        let altered = mutate(document, other, &mut random);
        if altered != document {
            count += u32::from(accepted(&altered));
        }
    }
    count
}

fn log() -> Log {
    Log::of_orders("example.com/log", 300)
}

fn signer() -> SigningKey {
    key("example.com/log", 1)
}

fn policy() -> Policy {
    Policy::of_logs([
        signer().verifier_key(),
        key("example.com/hub", 2).verifier_key(),
    ])
}

fn bundle(indexes: &[u64]) -> ProofBundle {
    let mut bundle = log().bundle(indexes, &[&signer()]);
    let id = indexes[0].to_string();
    bundle.entries[0].label = label("public.orders", &[("id", &id)]);
    let mut hub = Log::of_orders("example.com/hub", 7);
    hub.entries[3] = bundle.checkpoint.to_string().into_bytes();
    bundle.hub = Some(Box::new(hub.bundle(&[3], &[&key("example.com/hub", 2)])));
    bundle
}

#[test]
fn altered_bundles_are_refused() {
    let (original, other) = (bundle(&[3, 4, 256]), bundle(&[7]));
    let policy = policy();
    assert!(original.verify(&policy).is_ok());
    let proves = |bytes: &[u8]| {
        let bundle = ProofBundle::from_bytes(bytes).ok();
        bundle.filter(|bundle| bundle.verify(&policy).is_ok())
    };
    let cbor = accepted(&original.to_cbor(), &other.to_cbor(), |bytes| {
        proves(bytes).is_some()
    });
    assert_eq!(cbor, 0);
    // JSON has spaces and escapes that mean nothing.
    let json = accepted(
        original.to_json().as_bytes(),
        other.to_json().as_bytes(),
        |bytes| proves(bytes).is_some_and(|bundle| bundle != original),
    );
    assert_eq!(json, 0);
}

#[test]
fn altered_proofs_of_several_entries_at_once_are_refused() {
    let at_once = |indexes: &[u64]| log().bundle_at_once(indexes, &[&signer()]);
    let mut original = at_once(&[3, 4, 99, 256]);
    original.entries[2].leaf = BundleLeaf::Hash(original.entries[2].leaf.hash());
    let other = at_once(&[3, 5, 256]);
    let policy = policy();
    assert!(original.verify(&policy).is_ok() && other.verify(&policy).is_ok());
    let proves = |bytes: &[u8]| {
        let bundle = ProofBundle::from_bytes(bytes).ok();
        bundle.filter(|bundle| bundle.verify(&policy).is_ok())
    };
    let cbor = accepted(&original.to_cbor(), &other.to_cbor(), |bytes| {
        proves(bytes).is_some()
    });
    assert_eq!(cbor, 0);
    // JSON has spaces and escapes that mean nothing.
    let json = accepted(
        original.to_json().as_bytes(),
        other.to_json().as_bytes(),
        |bytes| proves(bytes).is_some_and(|bundle| bundle != original),
    );
    assert_eq!(json, 0);
}

/// Of what is well formed, too: indexes, leaf hashes and nodes that are altered as values.
#[test]
fn altered_values_of_a_proof_of_several_entries_are_refused() {
    let original = log().bundle_at_once(&[3, 4, 99, 100, 101, 256], &[&signer()]);
    let policy = policy();
    assert!(original.verify(&policy).is_ok());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut readable = 0;
    for _ in 0..MUTATIONS {
        let mut altered = original.clone();
        let nodes = altered.multiproof.as_mut().unwrap();
        let (at, to) = (random.below(nodes.len()), random.below(nodes.len()));
        let entry = random.below(altered.entries.len());
        match random.below(7) {
            0 => nodes[at] = nodes[to],
            1 => nodes.swap(at, to),
            2 => drop(nodes.remove(at)),
            3 => nodes.insert(at, nodes[to]),
            4 => altered.entries[entry].index = leaf_index(random.below(310)),
            5 => altered.entries[entry].leaf = BundleLeaf::Hash(nodes[at]),
            _ => drop(altered.entries.remove(entry)),
        }
        if altered == original {
            continue;
        }
        readable += u32::from(ProofBundle::from_cbor(&altered.to_cbor()).is_ok());
        assert!(altered.verify(&policy).is_err(), "{altered:?}");
    }
    assert!(readable > MUTATIONS / 2, "{readable}");
}

fn leaf_index(index: usize) -> LeafIndex {
    LeafIndex::new(index as u64).unwrap()
}

#[test]
fn altered_consistency_proofs_are_refused() {
    let (original, other) = (
        log().consistency(100, &[&signer()]),
        log().consistency(257, &[&signer()]),
    );
    let policy = policy();
    assert!(original.verify(&policy).is_ok());
    let cbor = accepted(&original.to_cbor(), &other.to_cbor(), |bytes| {
        ConsistencyBundle::from_cbor(bytes).is_ok_and(|proof| proof.verify(&policy).is_ok())
    });
    assert_eq!(cbor, 0);
    let json = accepted(
        original.to_json().as_bytes(),
        other.to_json().as_bytes(),
        |bytes| {
            let proof = ConsistencyBundle::from_json(bytes).ok();
            proof.is_some_and(|proof| proof.verify(&policy).is_ok() && proof != original)
        },
    );
    assert_eq!(json, 0);
}

#[test]
fn altered_tlog_proofs_are_refused() {
    let proof = |index: u64| {
        let bundle = log().bundle(&[index], &[&signer()]);
        bundle.tlog_proof(&bundle.entries[0]).unwrap().to_string()
    };
    let policy = policy();
    let count = accepted(proof(5).as_bytes(), proof(260).as_bytes(), |bytes| {
        let proof = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse::<TlogProof>().ok());
        proof.is_some_and(|proof| {
            let data = proof.extra.clone().unwrap_or_default();
            proof.verify(&leaf_hash(&data), &policy).is_ok()
        })
    });
    assert_eq!(count, 0);
}

#[test]
fn altered_notes_are_refused() {
    let witness = witness("witness.example.com", 5);
    let signed = |size| Log::of_orders("example.com/log", size).signed(&[&signer(), &witness]);
    let policy = format!(
        "log {}\nwitness w {}\nquorum w\n",
        signer().verifier_key(),
        witness.verifier_key()
    );
    let policy = Policy::from_bytes(policy.as_bytes()).unwrap();
    let (original, other) = (signed(300), signed(77));
    assert!(policy.verify(&original).is_ok());
    let count = accepted(
        original.to_string().as_bytes(),
        other.to_string().as_bytes(),
        |bytes| {
            let verified = SignedNote::from_bytes(bytes).and_then(|note| policy.verify(&note));
            // A signature line may be there twice, or in another order: the text and the signatures are the same.
            verified.is_ok_and(|verified| verified.checkpoint.to_string() != original.text())
        },
    );
    assert_eq!(count, 0);
}

#[test]
fn altered_requests_to_witnesses_submit_nothing_else() {
    let request = |old: u64| {
        let ConsistencyBundle { old, new, path } = log().consistency(old, &[&signer()]);
        let old: Checkpoint = old.text().parse().unwrap();
        AddCheckpoint::new(old.size(), path, new).unwrap()
    };
    let last = log().checkpoint_at(merkle_tree::TreeSize::new(100).unwrap());
    let (original, other, policy) = (request(100), request(257), policy());
    let cosigned = |request: &AddCheckpoint| {
        request.admit(&policy).is_ok() && request.rule(Some(&last)).verdict == Verdict::Cosign
    };
    assert!(cosigned(&original));
    let mut read = 0;
    let count = accepted(
        original.to_string().as_bytes(),
        other.to_string().as_bytes(),
        |bytes| {
            let Ok(request) = AddCheckpoint::from_bytes(bytes) else {
                return false;
            };
            assert_eq!(request.to_string().as_bytes(), bytes);
            read += 1;
            // A signature line may be there twice: what is signed is the same.
            cosigned(&request) && request.checkpoint() != original.checkpoint()
        },
    );
    assert_eq!(count, 0);
    assert!(read > 100, "{read}");
}

#[test]
fn altered_policies_trust_no_new_key() {
    let mut text = format!("log {}\n", signer().verifier_key());
    for number in 1..=4 {
        let witness = witness(&format!("w{number}"), number);
        text += &format!(
            "witness w{number} {} https://example.com/{number}\n",
            witness.verifier_key()
        );
    }
    text += "group a 2 w1 w2 w3\ngroup b all a w4\nquorum b\n";
    let keys = |policy: &Policy| -> BTreeSet<String> {
        let witnesses = policy.witnesses().iter().map(|witness| &witness.key);
        policy
            .logs()
            .iter()
            .chain(witnesses)
            .map(VerifierKey::to_string)
            .collect()
    };
    let original = keys(&Policy::from_bytes(text.as_bytes()).unwrap());
    let note = log().signed(&[&key("example.com/log", 9)]);
    let count = accepted(text.as_bytes(), text.as_bytes(), |bytes| {
        Policy::from_bytes(bytes).is_ok_and(|policy| {
            assert!(policy.verify(&note).is_err());
            !keys(&policy).is_subset(&original)
        })
    });
    assert_eq!(count, 0);
}

#[test]
fn altered_keys_are_refused() {
    let (public, secret) = (
        signer().verifier_key().to_string(),
        signer().to_text().to_string(),
    );
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap_or_default();
    let count = accepted(public.as_bytes(), secret.as_bytes(), |bytes| {
        text(bytes)
            .parse::<VerifierKey>()
            .is_ok_and(|key| key != signer().verifier_key())
    });
    assert_eq!(count, 0);
    let count = accepted(secret.as_bytes(), public.as_bytes(), |bytes| {
        SigningKey::from_text(&text(bytes)).is_ok()
    });
    assert_eq!(count, 0);
}

#[test]
fn altered_tiles_and_entry_bundles_have_another_root() {
    let log = log();
    let entries = &log.entries[..256];
    let hashes = leaf_hashes(entries.iter().map(Vec::as_slice));
    let root = tile_hash(&hashes);
    let tile = tile_to_bytes(&hashes);
    let count = accepted(&tile, &tile, |bytes| {
        tile_from_bytes(bytes, 256).is_ok_and(|hashes| tile_hash(&hashes) == root)
    });
    assert_eq!(count, 0);
    let mut bundle = Vec::new();
    for entry in entries {
        entry_bundle::append(&mut bundle, entry).unwrap();
    }
    let count = accepted(&bundle, &tile, |bytes| {
        entry_bundle::entries(bytes, 256)
            .is_ok_and(|entries| tile_hash(&leaf_hashes(entries)) == root)
    });
    assert_eq!(count, 0);
}
