//! Proofs of several leaves: against the proofs of each, and against a second way to find their nodes.

mod support;

use merkle_tree::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{LazyLock, Mutex};
use support::*;

const LARGE: u64 = 70_000;
static STORE: LazyLock<Mutex<Store>> = LazyLock::new(|| Mutex::new(Store::of(LARGE)));

fn split(leaves: &Range<u64>) -> [Range<u64>; 2] {
    let length = leaves.end - leaves.start;
    let middle = leaves.start + (length.next_power_of_two() / 2);
    [leaves.start..middle, middle..leaves.end]
}

/// MTH of RFC 6962 §2.1, word for word.
fn tree_hash(leaves: &Range<u64>) -> Hash {
    if leaves.end - leaves.start == 1 {
        return leaf(leaves.start);
    }
    let [left, right] = split(leaves);
    node_hash(&tree_hash(&left), &tree_hash(&right))
}

/// The nodes beside the ways from the root down to the wanted leaves: height, first leaf, hash.
fn beside(leaves: Range<u64>, wanted: &BTreeSet<u64>, found: &mut Vec<(u32, u64, Hash)>) {
    if leaves.end - leaves.start == 1 {
        return;
    }
    let halves = split(&leaves);
    let height = (halves[0].end - halves[0].start).trailing_zeros();
    for half in halves {
        match wanted.range(half.clone()).next() {
            Some(_) => beside(half, wanted, found),
            None => found.push((height, half.start, tree_hash(&half))),
        }
    }
}

/// By recursion from the root, where the crate goes up from the leaves.
fn nodes_from_the_root(wanted: &BTreeSet<u64>, size: u64) -> Vec<Hash> {
    let mut found = Vec::new();
    beside(0..size, wanted, &mut found);
    found.sort_unstable_by_key(|(height, first, _)| (*height, *first));
    found.into_iter().map(|(_, _, hash)| hash).collect()
}

fn indexes(of: &BTreeSet<u64>) -> Vec<LeafIndex> {
    of.iter().map(|i| index(*i)).collect()
}

fn leaves(of: &BTreeSet<u64>) -> Vec<(LeafIndex, Hash)> {
    of.iter().map(|i| (index(*i), leaf(*i))).collect()
}

fn flipped(hash: &Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    Hash::from(bytes)
}

/// A tree, and leaves of it: some anywhere, some in a row.
fn sets(largest: u64) -> impl Strategy<Value = (u64, BTreeSet<u64>)> {
    let places = prop::collection::vec(any::<u64>(), 1..40);
    (1..=largest, places, any::<u64>(), 0..300u64).prop_map(|(n, places, from, row)| {
        let first = from % n;
        let row = first..(first + row).min(n);
        (n, places.iter().map(|p| p % n).chain(row).collect())
    })
}

#[test]
fn every_set_of_leaves_of_every_small_tree_has_one_proof() {
    let mut store = Store::of(8);
    for n in 1..=8u64 {
        let root = tree_hash(&(0..n));
        let sets: Vec<BTreeSet<u64>> = (1..1u64 << n)
            .map(|bits| (0..n).filter(|i| bits >> i & 1 == 1).collect())
            .collect();
        for set in &sets {
            let proof = multiproof(&mut store, &indexes(set), size(n)).unwrap();
            assert_eq!(proof.nodes, nodes_from_the_root(set, n), "{set:?} of {n}");
            // No other set has this proof, whatever of its leaves are true.
            for other in &sets {
                let proven = verify_multiproof(&leaves(other), size(n), &proof.nodes, &root);
                assert_eq!(proven.is_ok(), set == other, "{set:?}, {other:?} of {n}");
            }
        }
    }
}

proptest! {
    // Each case makes hundreds of proofs.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_proof_of_several_has_nodes_of_the_proofs_of_each((n, set) in sets(LARGE)) {
        let store = &mut *STORE.lock().unwrap();
        let root = root(store, size(n)).unwrap();
        let proof = multiproof(store, &indexes(&set), size(n)).unwrap();
        prop_assert_eq!(verify_multiproof(&leaves(&set), size(n), &proof.nodes, &root), Ok(()));
        let mut of_each = BTreeSet::new();
        for i in &set {
            let path = inclusion_proof(store, index(*i), size(n)).unwrap();
            let alone = multiproof(store, &[index(*i)], size(n)).unwrap();
            prop_assert_eq!(&alone.nodes, &path);
            of_each.extend(path.iter().map(|hash| *hash.as_bytes()));
        }
        prop_assert!(proof.nodes.iter().all(|node| of_each.contains(node.as_bytes())));
        prop_assert!(proof.nodes.len() <= of_each.len());
    }
}

proptest! {
    #[test]
    fn the_nodes_are_those_that_are_found_from_the_root((n, set) in sets(2000)) {
        let store = &mut *STORE.lock().unwrap();
        let proof = multiproof(store, &indexes(&set), size(n)).unwrap();
        prop_assert_eq!(proof.nodes, nodes_from_the_root(&set, n));
        let leaves: Vec<Hash> = set.iter().map(|i| leaf(*i)).collect();
        prop_assert_eq!(proof.leaves, leaves);
    }

    #[test]
    fn whatever_is_altered_is_refused((n, set) in sets(LARGE), at: usize, bit in 0..256usize, other: u64) {
        let store = &mut *STORE.lock().unwrap();
        let root = root(store, size(n)).unwrap();
        let nodes = multiproof(store, &indexes(&set), size(n)).unwrap().nodes;
        let good = leaves(&set);
        let check = |leaves: &[(LeafIndex, Hash)], nodes: &[Hash], root: &Hash| {
            verify_multiproof(leaves, size(n), nodes, root)
        };
        prop_assert_eq!(check(&good, &nodes, &root), Ok(()));
        prop_assert_eq!(check(&good, &nodes, &flipped(&root, bit)), Err(VerifyError::RootMismatch));
        prop_assert_eq!(check(&good, &[&nodes[..], &[root]].concat(), &root), Err(VerifyError::PathLength));
        let mut bent = good.clone();
        bent[at % good.len()].1 = flipped(&good[at % good.len()].1, bit);
        prop_assert_eq!(check(&bent, &nodes, &root), Err(VerifyError::RootMismatch));
        if !nodes.is_empty() {
            let place = at % nodes.len();
            let mut bent = nodes.clone();
            bent[place] = flipped(&nodes[place], bit);
            prop_assert_eq!(check(&good, &bent, &root), Err(VerifyError::RootMismatch));
            bent.remove(place);
            prop_assert_eq!(check(&good, &bent, &root), Err(VerifyError::PathLength));
            let mut swapped = nodes.clone();
            swapped.swap(0, place);
            prop_assert!(place == 0 || check(&good, &swapped, &root).is_err());
        }
        // A leaf more, a leaf less, and a leaf in another place.
        let mut more = set.clone();
        prop_assert!(!more.insert(other % n) || check(&leaves(&more), &nodes, &root).is_err());
        let mut less = good.clone();
        less.remove(at % good.len());
        prop_assert!(check(&less, &nodes, &root).is_err());
        let mut moved = good.clone();
        let last = moved.len() - 1;
        moved[last].0 = index(moved[last].0.get() + 1);
        prop_assert!(check(&moved, &nodes, &root).is_err());
        // One form of a set.
        let twice = [&good[..1], &good[..]].concat();
        prop_assert_eq!(check(&twice, &nodes, &root), Err(VerifyError::IndexesNotAscending));
        let reversed: Vec<_> = good.iter().rev().copied().collect();
        prop_assert!(good.len() == 1 || check(&reversed, &nodes, &root) == Err(VerifyError::IndexesNotAscending));
    }

    #[test]
    fn the_largest_trees_can_be_proven(n in 1..MAX_SIZE, places in prop::collection::vec(any::<u64>(), 1..9)) {
        let mut uniform = Uniform::new();
        let set: BTreeSet<u64> = places.iter().map(|p| p % n).chain([n - 1]).collect();
        let root_n = root(&mut uniform, size(n)).unwrap();
        let proof = multiproof(&mut uniform, &indexes(&set), size(n)).unwrap();
        let leaves: Vec<_> = set.iter().map(|i| (index(*i), leaf(0))).collect();
        prop_assert_eq!(verify_multiproof(&leaves, size(n), &proof.nodes, &root_n), Ok(()));
    }

    #[test]
    fn verification_never_panics(
        places in prop::collection::vec(any::<u64>(), 0..9),
        shift in 0..62u32,
        n: u64,
        nodes in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let nodes: Vec<Hash> = nodes.into_iter().map(Hash::from).collect();
        let leaves: Vec<_> = places
            .iter()
            .filter_map(|p| LeafIndex::new(p >> (shift + 1)).ok())
            .map(|index| (index, leaf(0)))
            .collect();
        let n = TreeSize::new(n >> (shift + 2)).unwrap();
        let proven = verify_multiproof(&leaves, n, &nodes, &leaf(0));
        prop_assert!(proven.is_err() || n.get() == 1);
    }
}

#[test]
fn the_tree_is_read_from_the_left_to_the_right() {
    struct Recorded<'a>(&'a mut Store, Vec<u64>);
    impl HashReader for Recorded<'_> {
        type Error = std::convert::Infallible;
        fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Self::Error> {
            let first_leaf =
                (tile.index * TILE_WIDTH + u64::from(first)) << (8 * u32::from(tile.level));
            self.1.push(first_leaf);
            self.0.read(tile, first, count)
        }
    }
    let store = &mut *STORE.lock().unwrap();
    let mut recorded = Recorded(store, Vec::new());
    let set: Vec<LeafIndex> = (0..LARGE).step_by(977).map(index).collect();
    multiproof(&mut recorded, &set, size(LARGE)).unwrap();
    assert!(recorded.1.len() > set.len() && recorded.1.is_sorted());
}

#[test]
fn borders_are_errors_not_panics() {
    let mut store = Store::of(3);
    let mut prove = |of: &[u64], n| {
        let of: Vec<_> = of.iter().map(|i| index(*i)).collect();
        multiproof(&mut store, &of, size(n)).map(|proof| proof.nodes.len())
    };
    assert_eq!(prove(&[], 3), Err(Error::IndexesNotAscending));
    assert_eq!(prove(&[1, 1], 3), Err(Error::IndexesNotAscending));
    assert_eq!(prove(&[2, 1], 3), Err(Error::IndexesNotAscending));
    let beyond = Err(Error::IndexOutOfRange { index: 3, size: 3 });
    assert_eq!(prove(&[0, 3], 3), beyond);
    assert_eq!(prove(&[0], 1), Ok(0));
    assert_eq!(prove(&[0, 1, 2], 3), Ok(0));
    let (root, one) = (tree_hash(&(0..3)), (index(0), leaf(0)));
    let check = |leaves: &[_], n| verify_multiproof(leaves, size(n), &[], &root);
    assert_eq!(check(&[], 3), Err(VerifyError::IndexesNotAscending));
    assert_eq!(check(&[], 0), Err(VerifyError::IndexesNotAscending));
    let beyond = Err(VerifyError::IndexOutOfRange { index: 0, size: 0 });
    assert_eq!(check(&[one], 0), beyond);
    assert_eq!(check(&[one], 3), Err(VerifyError::PathLength));
    let all: BTreeSet<u64> = (0..3).collect();
    assert_eq!(check(&leaves(&all), 3), Ok(()));
}

#[test]
fn a_verification_that_stops_halfway_proves_nothing() {
    let all = leaves(&(0..4).collect());
    let root = tree_hash(&(0..4));
    let mut verification = MultiproofVerification::start(&all, size(4), &[]).unwrap();
    assert_eq!(verification.climb(), Ok(true));
    assert_eq!(verification.end(&root), Err(VerifyError::PathLength));
}
