//! The index of a sealed range: what it proves of keys that are there and of keys that are not, against a second
//! implementation of its leaves and a model of its order.

use merkle_tree::*;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

mod support;
use support::Store;

const SECRET: Secret = Secret([7; 32]);

fn salt() -> Hash {
    leaf_hash(b"a root")
}

fn key(number: u64) -> KeyHash {
    KeyHash::new(&salt(), "public.orders", [number.to_string().as_str()])
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

/// An index, and the tree of its leaves.
struct Index {
    keys: Vec<SealedKey>,
    store: Store,
    root: Hash,
}

impl Index {
    fn of(keys: impl IntoIterator<Item = (u64, Vec<u64>)>) -> Index {
        let sealed = |(number, entries)| SealedKey {
            hash: key(number),
            entries,
        };
        let mut keys: Vec<SealedKey> = keys.into_iter().map(sealed).collect();
        keys.sort_unstable_by_key(|k| k.hash);
        Index::in_this_order(keys)
    }

    fn in_this_order(keys: Vec<SealedKey>) -> Index {
        let mut store = Store::default();
        sealed_leaves(&keys, &SECRET)
            .into_iter()
            .for_each(|leaf| store.push(leaf));
        store.flush();
        let root = store.frontier.root();
        Index { keys, store, root }
    }

    /// Keys with the numbers of a range, each with one entry.
    fn of_numbers(numbers: std::ops::Range<u64>) -> Index {
        Index::of(numbers.map(|n| (n, vec![n])))
    }

    fn size(&self) -> TreeSize {
        TreeSize::new(self.keys.len() as u64).unwrap()
    }

    fn prove(&mut self, key: &KeyHash) -> (KeyProof, Vec<u64>) {
        let place = self.keys.partition_point(|k| k.hash < *key);
        let before = place.checked_sub(1).map(|place| self.keys[place].clone());
        let found = self.keys.get(place).cloned();
        let around = (before.as_ref(), found.as_ref());
        let size = self.size();
        let proof = key_proof(&mut self.store, size, key, &SECRET, place as u64, around).unwrap();
        let of_key = found.filter(|found| found.hash == *key);
        (proof, of_key.map_or(Vec::new(), |found| found.entries))
    }

    fn verify(
        &self,
        proof: &KeyProof,
        key: &KeyHash,
        entries: &[u64],
    ) -> Result<(), KeyProofError> {
        verify_key_proof(proof, key, entries, self.size(), &self.root)
    }
}

#[test]
fn the_leaves_are_those_of_the_specification() {
    let keys = [
        SealedKey {
            hash: key(1),
            entries: vec![3, 500, 1 << 40],
        },
        SealedKey {
            hash: key(2),
            entries: vec![4],
        },
    ];
    // docs/proof-format.md, word for word.
    let hash = digest(&[
        &[0x10],
        salt().as_bytes(),
        &13u64.to_be_bytes(),
        b"public.orders",
        &1u64.to_be_bytes(),
        b"1",
    ]);
    assert_eq!(hash, *keys[0].hash.as_bytes());
    for (key, leaf) in keys.iter().zip(sealed_leaves(&keys, &SECRET)) {
        let hash = key.hash.as_bytes();
        let blind = digest(&[&[0x12], &SECRET.0, hash]);
        let entries: Vec<u8> = key.entries.iter().flat_map(|e| e.to_be_bytes()).collect();
        let mut commitment = digest(&[&[0x11], &blind, hash, &entries]);
        for bit in (0..64).rev() {
            let is_set = hash[bit / 8] & (0x80 >> (bit % 8)) != 0;
            commitment = digest(&[&[0x20 + u8::from(is_set)], &commitment]);
        }
        assert_eq!(leaf, leaf_hash(&commitment));
    }
}

#[test]
fn texts_are_not_taken_for_others() {
    let salt = salt();
    let hashes = [
        KeyHash::new(&salt, "a", ["bc"]),
        KeyHash::new(&salt, "ab", ["c"]),
        KeyHash::new(&salt, "a", ["b", "c"]),
        KeyHash::new(&salt, "a", ["bc", ""]),
        KeyHash::new(&salt, "", ["a", "bc"]),
        KeyHash::new(&leaf_hash(b"another root"), "a", ["bc"]),
    ];
    for (place, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..place].contains(hash), "{place}");
    }
}

#[test]
fn the_ends_of_an_index_have_one_neighbour() {
    for size in [1, 2, 3, 255, 256, 257, 1000] {
        let mut index = Index::of_numbers(0..size);
        let (mut first, mut last) = (0, 0);
        for absent in 10_000..12_000 {
            let key = key(absent);
            let (proof, entries) = index.prove(&key);
            assert_eq!(entries, Vec::<u64>::new());
            index.verify(&proof, &key, &[]).unwrap();
            let Shown::Neighbours { before, after } = proof.shown else {
                panic!("{absent} is not there");
            };
            assert_eq!(before.is_none(), proof.position == 0);
            assert_eq!(after.is_none(), proof.position == size);
            first += u32::from(before.is_none());
            last += u32::from(after.is_none());
        }
        assert!(
            size > 300 || first > 0 && last > 0,
            "{size}: {first} {last}"
        );
    }
}

#[test]
fn neighbours_show_hardly_more_than_it_takes_to_order_them() {
    let mut index = Index::of_numbers(0..4096);
    let mut bits = 0;
    for absent in 100_000..101_000 {
        let (proof, _) = index.prove(&key(absent));
        if let Shown::Neighbours { before, after } = proof.shown {
            bits += before
                .into_iter()
                .chain(after)
                .map(|n| u32::from(n.shared))
                .max()
                .unwrap();
        }
    }
    // log2 4096 is 12.
    assert!(
        (12_000..15_000).contains(&bits),
        "{bits} bits of 1,000 proofs"
    );
}

#[test]
fn an_index_that_is_out_of_order_hides_a_key_from_nobody_who_computes_it() {
    // What somebody might do who has the key's leaf where it is not looked for.
    let mut forged: Vec<SealedKey> = Index::of_numbers(0..100).keys;
    let hidden = forged.remove(40);
    forged.push(hidden.clone());
    let honest = Index::of_numbers(0..100);
    let mut index = Index::in_this_order(forged);
    let place = honest
        .keys
        .iter()
        .position(|k| k.hash == hidden.hash)
        .unwrap();
    let around = (honest.keys.get(place - 1), honest.keys.get(place + 1));
    let size = index.size();
    let proof = key_proof(
        &mut index.store,
        size,
        &hidden.hash,
        &SECRET,
        place as u64,
        around,
    )
    .unwrap();
    // Such a log has sealed the lie: its proof holds, and its root is not that of the keys.
    index.verify(&proof, &hidden.hash, &[]).unwrap();
    assert_ne!(index.root, honest.root);
    assert!(honest.verify(&proof, &hidden.hash, &[]).is_err());
}

fn changed(hash: &Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_index_proves_what_a_map_says(
        model in prop::collection::btree_map(0u64..500, prop::collection::btree_set(0u64..10_000, 1..5), 1..300),
        asked in prop::collection::vec(0u64..500, 1..40),
    ) {
        let model: BTreeMap<u64, Vec<u64>> = model.into_iter().map(|(k, e)| (k, e.into_iter().collect())).collect();
        let mut index = Index::of(model.clone());
        for number in asked {
            let key = key(number);
            let entries = model.get(&number).cloned().unwrap_or_default();
            let (proof, found) = index.prove(&key);
            prop_assert_eq!(&found, &entries);
            prop_assert_eq!(index.verify(&proof, &key, &entries), Ok(()));
            // Of no other set of entries.
            let mut others = vec![Vec::new(), vec![number], [entries.as_slice(), &[99_999]].concat()];
            others.push(entries.iter().skip(1).copied().collect());
            others.push(entries.iter().rev().copied().collect());
            for other in others.into_iter().filter(|other| *other != entries) {
                prop_assert!(index.verify(&proof, &key, &other).is_err(), "{:?} instead of {:?}", other, entries);
            }
        }
    }

    #[test]
    fn a_proof_that_was_altered_proves_nothing(
        size in 1u64..700, number in 0u64..1400, bit in 0usize..256, place in any::<prop::sample::Index>(), other in 0u64..1400,
    ) {
        let mut index = Index::of_numbers(0..size);
        let key = key(number);
        let (proof, entries) = index.prove(&key);
        let refused = |altered: KeyProof| altered == proof || index.verify(&altered, &key, &entries).is_err();
        for position in [0, proof.position + 1, proof.position.wrapping_sub(1), size, size + 1, u64::MAX] {
            prop_assert!(refused(KeyProof { position, ..proof.clone() }), "position {}", position);
        }
        if !proof.nodes.is_empty() {
            let place = place.index(proof.nodes.len());
            let mut nodes = proof.nodes.clone();
            nodes[place] = changed(&nodes[place], bit);
            prop_assert!(refused(KeyProof { nodes, ..proof.clone() }), "nodes");
            let mut nodes = proof.nodes.clone();
            nodes.remove(place);
            prop_assert!(refused(KeyProof { nodes, ..proof.clone() }), "nodes");
        }
        let mut nodes = proof.nodes.clone();
        nodes.push(salt());
        prop_assert!(refused(KeyProof { nodes, ..proof.clone() }), "nodes");
        let altered = |n: &Neighbour| [
            Neighbour { rest: changed(&n.rest, bit), ..*n },
            Neighbour { shared: n.shared + 1, ..*n },
            Neighbour { shared: n.shared.wrapping_sub(1), ..*n },
            Neighbour { shared: (bit % 64) as u8, ..*n },
            Neighbour { shared: 64, ..*n },
            Neighbour { shared: 255, ..*n },
        ];
        match &proof.shown {
            Shown::Key { blind } => {
                let shown = Shown::Key { blind: changed(blind, bit) };
                prop_assert!(refused(KeyProof { shown, ..proof.clone() }), "shown");
            }
            Shown::Neighbours { before, after } => {
                let (before, after) = (*before, *after);
                let mut others = vec![(after, before), (None, after), (before, None), (None, None)];
                for n in before.iter().flat_map(altered) {
                    others.push((Some(n), after));
                }
                for n in after.iter().flat_map(altered) {
                    others.push((before, Some(n)));
                }
                for (before, after) in others {
                    let shown = Shown::Neighbours { before, after };
                    prop_assert!(refused(KeyProof { shown, ..proof.clone() }), "shown");
                }
            }
        }
        // Nor is it a proof of another key.
        if other != number {
            let other = KeyHash::new(&salt(), "public.orders", [other.to_string().as_str()]);
            let (of_other, _) = index.prove(&other);
            prop_assert!(of_other == proof || index.verify(&proof, &other, &entries).is_err() || proof.position == of_other.position);
        }
    }

    #[test]
    fn nothing_panics(
        position in any::<u64>(), size in 0u64..=MAX_SIZE, shared in any::<(u8, u8)>(), which in 0..5, nodes in 0usize..70, entries in prop::collection::vec(any::<u64>(), 0..3),
    ) {
        let neighbour = |shared| Neighbour { shared, rest: salt() };
        let shown = match which {
            0 => Shown::Key { blind: salt() },
            1 => Shown::Neighbours { before: Some(neighbour(shared.0)), after: None },
            2 => Shown::Neighbours { before: None, after: Some(neighbour(shared.1)) },
            3 => Shown::Neighbours { before: None, after: None },
            _ => Shown::Neighbours { before: Some(neighbour(shared.0)), after: Some(neighbour(shared.1)) },
        };
        let proof = KeyProof { position, shown, nodes: vec![salt(); nodes] };
        prop_assert!(verify_key_proof(&proof, &key(1), &entries, TreeSize::new(size).unwrap(), &salt()).is_err());
    }
}
