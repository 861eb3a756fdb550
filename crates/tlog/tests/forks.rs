//! Fork proofs convict a log that has signed two histories, and nobody else.

mod support;

use merkle_tree::{TreeSize, consistency_proof, leaf_hash, root};
use support::log::{Log, order};
use support::{key, note};
use tlog::*;

fn signer() -> SigningKey {
    key("example.com/log", 1)
}

fn policy() -> Policy {
    Policy::of_log(signer().verifier_key())
}

fn size(size: u64) -> TreeSize {
    TreeSize::new(size).unwrap()
}

/// What a log shows that had `old` orders, and then others, or the same.
fn proof(old: u64, new: u64, rewritten: bool) -> ForkProof {
    let before = Log::of_orders("example.com/log", old);
    let mut after = Log::of_orders("example.com/log", new);
    if rewritten {
        after.entries[0] = order(-1);
    }
    ForkProof {
        old: before.signed(&[&signer()]),
        new: after.signed(&[&signer()]),
        prefix_root: root(&mut after.tiles(), size(old)).unwrap(),
        path: consistency_proof(&mut after.tiles(), size(old), size(new)).unwrap(),
    }
}

#[test]
fn a_log_that_was_rewritten_is_convicted_and_one_that_grew_is_not() {
    let sizes = [1, 2, 3, 4, 7, 8, 100, 255, 256, 257, 1000];
    for old in sizes {
        for new in sizes.into_iter().filter(|new| *new >= old) {
            let fork = proof(old, new, true);
            let proven = fork.verify(&policy()).unwrap();
            assert_eq!(proven.old.checkpoint.size(), size(old));
            assert_eq!(proven.new.checkpoint.size(), size(new));
            assert_eq!(
                ForkProof::from_json(fork.to_json().as_bytes()).unwrap(),
                fork
            );
            assert_eq!(ForkProof::from_cbor(&fork.to_cbor()).unwrap(), fork);
            let honest = proof(old, new, false).verify(&policy());
            assert!(
                matches!(honest, Err(Error::NoFork(_))),
                "{old} {new}: {honest:?}"
            );
        }
    }
}

#[test]
fn nobody_is_convicted_by_what_they_have_not_signed() {
    let fork = proof(300, 1000, true);
    let other = key("example.com/log", 2);
    let stranger = Policy::of_log(other.verifier_key());
    assert!(fork.verify(&stranger).is_err());
    let checkpoint: Checkpoint = fork.new.text().parse().unwrap();
    let forged = ForkProof {
        new: note(&checkpoint, &[&other], 0),
        ..fork.clone()
    };
    assert!(forged.verify(&policy()).is_err());
    // Checkpoints of two logs that are both trusted.
    let both = [
        signer().verifier_key(),
        key("example.com/other", 3).verifier_key(),
    ];
    let mut of_other = Log::of_orders("example.com/other", 1000);
    of_other.entries[0] = order(-1);
    let mixed = ForkProof {
        new: of_other.signed(&[&key("example.com/other", 3)]),
        ..fork.clone()
    };
    assert!(matches!(
        mixed.verify(&Policy::of_logs(both)),
        Err(Error::NoFork(_))
    ));
    let reversed = ForkProof {
        old: fork.new.clone(),
        new: fork.old.clone(),
        ..fork
    };
    assert!(matches!(reversed.verify(&policy()), Err(Error::NoFork(_))));
}

#[test]
fn an_honest_log_is_not_convicted_by_any_other_root_or_path() {
    for (old, new) in [(1, 2), (4, 9), (255, 256), (300, 1000), (500, 500)] {
        let honest = proof(old, new, false);
        let hashes: Vec<_> = (0..4u8).map(|seed| leaf_hash(&[seed])).collect();
        let roots = hashes.iter().copied().chain([honest.prefix_root]);
        for prefix_root in roots {
            for cut in 0..=honest.path.len() {
                for more in 0..2 {
                    let mut path = honest.path[..cut].to_vec();
                    path.extend(&hashes[..more]);
                    let lie = ForkProof {
                        prefix_root,
                        path,
                        ..honest.clone()
                    };
                    assert!(lie.verify(&policy()).is_err(), "{old} {new}");
                }
            }
        }
    }
}

#[test]
fn every_altered_byte_is_seen() {
    let fork = proof(300, 1000, true);
    for bytes in [fork.to_json().into_bytes(), fork.to_cbor()] {
        let read = |bytes: &[u8]| match bytes.first() {
            Some(b'{') => ForkProof::from_json(bytes),
            _ => ForkProof::from_cbor(bytes),
        };
        for place in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[place] ^= 1;
            let proven = read(&altered).and_then(|fork| fork.verify(&policy()).map(|_| fork));
            // A signature line of a key that nobody knows any more leaves the note unsigned.
            assert!(proven.is_err(), "{place}");
        }
    }
}
