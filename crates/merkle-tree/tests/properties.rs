//! What holds for every tree.

mod support;

use merkle_tree::*;
use proptest::prelude::*;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::Mutex;
use support::*;

const LARGE: u64 = 70_000;
static STORE: LazyLock<Mutex<Store>> = LazyLock::new(|| Mutex::new(Store::of(LARGE)));

fn flipped(hash: &Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    Hash::from(bytes)
}

/// A reader with a cache of `room` hashes, the oldest of which go first.
struct Cached<'a> {
    store: &'a mut Store,
    known: std::collections::VecDeque<(Range<u64>, Hash)>,
    room: usize,
    recalled: usize,
}

impl HashReader for Cached<'_> {
    type Error = std::convert::Infallible;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Self::Error> {
        self.store.read(tile, first, count)
    }

    fn recall(&mut self, leaves: &Range<u64>) -> Option<Hash> {
        let found = self.known.iter().find(|(known, _)| known == leaves);
        self.recalled += usize::from(found.is_some());
        found.map(|(_, hash)| *hash)
    }

    fn learn(&mut self, leaves: &Range<u64>, hash: &Hash) {
        self.known.push_back((leaves.clone(), *hash));
        if self.known.len() > self.room {
            self.known.pop_front();
        }
    }
}

proptest! {
    #[test]
    fn hashing_many_at_once_is_hashing_one_by_one(
        leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..70),
    ) {
        let one_by_one: Vec<Hash> = leaves.iter().map(|l| leaf_hash(l)).collect();
        prop_assert_eq!(&leaf_hashes(leaves.iter().map(Vec::as_slice)), &one_by_one);
        let pairs = one_by_one.chunks(2);
        let nodes: Vec<Hash> = pairs
            .map(|pair| match pair {
                [left, right] => node_hash(left, right),
                pair => pair[0],
            })
            .collect();
        prop_assert_eq!(parents(&one_by_one), nodes);
    }
}

proptest! {
    #[test]
    fn frontier_goes_on_from_any_size(start in 0..3000u64, more in 0..2000u64, cut in 1..700u64) {
        let mut whole = Store::of(start + more);
        let mut resumed = Store::of(start);
        resumed.frontier = Frontier::load(&mut whole, size(start)).unwrap();
        for i in start..start + more {
            resumed.push(leaf(i));
            if i % cut == 0 {
                resumed.flush();
            }
        }
        resumed.flush();
        prop_assert_eq!(resumed.frontier.root(), whole.frontier.root());
        prop_assert_eq!(resumed.tiles, whole.tiles);
    }

    #[test]
    fn a_tile_whose_root_is_known_is_not_hashed_again(n in 0..2000u64, more in 0..2000u64) {
        let store = &mut *STORE.lock().unwrap();
        let mut frontier = Frontier::load(store, size(n)).unwrap();
        let mut tile = frontier.edge().to_vec();
        for i in n..n + more {
            let leaf = leaf(i);
            tile.push(leaf);
            if tile.len() == 256 {
                frontier.push_last(leaf, tile_hash(&tile)).unwrap();
                tile.clear();
            } else {
                prop_assert!(frontier.clone().push_last(leaf, leaf).is_err());
                frontier.push(leaf).unwrap();
            }
        }
        prop_assert_eq!(frontier.root(), root(store, size(n + more)).unwrap());
    }

    #[test]
    fn peaks_are_the_roots_of_the_largest_complete_subtrees(n in 0..LARGE) {
        let store = &mut *STORE.lock().unwrap();
        let peaks = Frontier::load(store, size(n)).unwrap().peaks();
        let mut lengths: Vec<u64> = peaks.iter().map(|(leaves, _)| leaves.end - leaves.start).collect();
        prop_assert_eq!(lengths.iter().sum::<u64>(), n);
        lengths.sort_unstable();
        prop_assert!(lengths.windows(2).all(|pair| pair[0] < pair[1]));
        for (leaves, hash) in peaks {
            let height = (leaves.end - leaves.start).trailing_zeros();
            prop_assert_eq!(subtree_hash(store, height, leaves.start >> height).unwrap(), hash);
        }
    }

    #[test]
    fn a_reader_that_recalls_and_forgets_gives_the_same_answers(n in 1..LARGE, i: u64, m: u64, room in 0..40usize) {
        let store = &mut *STORE.lock().unwrap();
        let (i, m) = (i % n, m % (n + 1));
        let plain = (
            root(store, size(n)).unwrap(),
            inclusion_proof(store, index(i), size(n)).unwrap(),
            consistency_proof(store, size(m), size(n)).unwrap(),
        );
        let mut cached = Cached { store, known: Default::default(), room, recalled: 0 };
        for round in 0..3 {
            prop_assert_eq!(&root(&mut cached, size(n)).unwrap(), &plain.0);
            prop_assert_eq!(&inclusion_proof(&mut cached, index(i), size(n)).unwrap(), &plain.1);
            prop_assert_eq!(&consistency_proof(&mut cached, size(m), size(n)).unwrap(), &plain.2);
            prop_assert!(round == 0 || room < 40 || n < 2 || cached.recalled > 0);
        }
    }

    #[test]
    fn a_whole_tile_appends_like_its_leaves(tiles in 0..4u64) {
        let mut by_leaf = Store::of(tiles * TILE_WIDTH);
        let mut frontier = by_leaf.frontier.clone();
        let leaves: Vec<Hash> = (0..TILE_WIDTH).map(leaf).collect();
        leaves.iter().for_each(|l| by_leaf.push(*l));
        frontier.push_tile(tile_hash(&leaves)).unwrap();
        prop_assert_eq!(frontier.root(), by_leaf.frontier.root());
        frontier.push(leaf(0)).unwrap();
        prop_assert!(frontier.push_tile(leaf(0)).is_err());
    }

    #[test]
    fn proofs_are_accepted_and_any_flipped_bit_refused(n in 2..LARGE, i: u64, m: u64, at: usize, bit in 0..256usize) {
        let store = &mut *STORE.lock().unwrap();
        let (i, m) = (i % n, 1 + m % (n - 1));
        let root_n = root(store, size(n)).unwrap();
        let path = inclusion_proof(store, index(i), size(n)).unwrap();
        let check = |leaf: &Hash, i, n, path: &[Hash], root: &Hash| {
            verify_inclusion(leaf, index(i), size(n), path, root)
        };
        prop_assert_eq!(check(&leaf(i), i, n, &path, &root_n), Ok(()));
        prop_assert!(check(&flipped(&leaf(i), bit), i, n, &path, &root_n).is_err());
        prop_assert!(check(&leaf(i), i, n, &path, &flipped(&root_n, bit)).is_err());
        prop_assert!(check(&leaf(i), (i + 1) % n, n, &path, &root_n).is_err());
        prop_assert!(check(&leaf(i), i, n, &path[1..], &root_n).is_err());
        prop_assert!(check(&leaf(i), i, n, &[&path[..], &path[..1]].concat(), &root_n).is_err());
        let mut bent = path.clone();
        let place = at % bent.len();
        bent[place] = flipped(&bent[place], bit);
        prop_assert!(check(&leaf(i), i, n, &bent, &root_n).is_err());

        let root_m = root(store, size(m)).unwrap();
        let path = consistency_proof(store, size(m), size(n)).unwrap();
        let check = |old: &Hash, new: &Hash, path: &[Hash]| verify_consistency(size(m), size(n), old, new, path);
        prop_assert_eq!(check(&root_m, &root_n, &path), Ok(()));
        prop_assert!(check(&flipped(&root_m, bit), &root_n, &path).is_err());
        prop_assert!(check(&root_m, &flipped(&root_n, bit), &path).is_err());
        prop_assert!(check(&root_m, &root_n, &path[1..]).is_err());
        prop_assert!(check(&root_m, &root_n, &[&path[..], &path[..1]].concat()).is_err());
        let mut bent = path.clone();
        let place = at % bent.len();
        bent[place] = flipped(&bent[place], bit);
        prop_assert!(check(&root_m, &root_n, &bent).is_err());

        let prefix = |new: &Hash, path: &[Hash]| prefix_root(size(m), size(n), new, path);
        let told = 0 < m && m < n && !m.is_power_of_two();
        prop_assert_eq!(prefix(&root_n, &path), told.then_some(root_m));
        prop_assert_eq!(prefix(&flipped(&root_n, bit), &path), None);
        prop_assert_eq!(prefix(&root_n, &path[1..]), None);
        prop_assert_eq!(prefix(&root_n, &[&path[..], &path[..1]].concat()), None);
        prop_assert_eq!(prefix(&root_n, &bent), None);
    }

    #[test]
    fn the_largest_trees_can_be_proven(n in 1..MAX_SIZE, i: u64, m: u64) {
        let mut uniform = Uniform::new();
        let (i, m) = (i % n, m % (n + 1));
        let root_n = root(&mut uniform, size(n)).unwrap();
        let path = inclusion_proof(&mut uniform, index(i), size(n)).unwrap();
        prop_assert_eq!(verify_inclusion(&leaf(0), index(i), size(n), &path, &root_n), Ok(()));
        let root_m = root(&mut uniform, size(m)).unwrap();
        let path = consistency_proof(&mut uniform, size(m), size(n)).unwrap();
        prop_assert_eq!(verify_consistency(size(m), size(n), &root_m, &root_n, &path), Ok(()));
    }

    #[test]
    fn reading_grows_with_the_logarithm(n in 1..LARGE, i: u64) {
        let store = &mut *STORE.lock().unwrap();
        (store.reads, store.widest) = (0, 0);
        inclusion_proof(store, index(i % n), size(n)).unwrap();
        let log = u64::BITS - n.leading_zeros();
        prop_assert!(store.reads <= 2 * log as usize, "{} reads in a tree of {n}", store.reads);
        prop_assert!(store.widest <= 128);
        store.reads = 0;
        Frontier::load(store, size(n)).unwrap();
        prop_assert!(store.reads <= 3);
    }

    #[test]
    fn verification_never_panics(i: u64, m: u64, n: u64, path in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
        let path: Vec<Hash> = path.into_iter().map(Hash::from).collect();
        let any = leaf(0);
        if let (Ok(i), Ok(n)) = (LeafIndex::new(i >> 1), TreeSize::new(n >> 1)) {
            prop_assert!(verify_inclusion(&any, i, n, &path, &any).is_err() || n.get() == 1);
        }
        if let (Ok(m), Ok(n)) = (TreeSize::new(m >> 2), TreeSize::new(n >> 2)) {
            let _ = verify_consistency(m, n, &any, &any, &path);
            let _ = prefix_root(m, n, &any, &path);
        }
    }
}

#[test]
fn borders_are_errors_not_panics() {
    let mut store = Store::of(3);
    assert!(matches!(
        inclusion_proof(&mut store, index(3), size(3)),
        Err(Error::IndexOutOfRange { index: 3, size: 3 })
    ));
    assert!(matches!(
        consistency_proof(&mut store, size(3), size(2)),
        Err(Error::SizesReversed { old: 3, new: 2 })
    ));
    assert_eq!(inclusion_proof(&mut store, index(0), size(1)), Ok(vec![]));
    assert_eq!(consistency_proof(&mut store, size(0), size(3)), Ok(vec![]));
    assert_eq!(consistency_proof(&mut store, size(3), size(3)), Ok(vec![]));
    assert!(TreeSize::new(MAX_SIZE).is_ok() && TreeSize::new(MAX_SIZE + 1).is_err());
    assert!(LeafIndex::new(MAX_SIZE).is_err());
    assert_eq!(Hash::try_from(&[0u8; 31][..]), Err(HashLengthError(31)));
    let (old, new) = (
        root(&mut store, size(2)).unwrap(),
        root(&mut store, size(3)).unwrap(),
    );
    assert!(verify_consistency(size(0), size(3), &EMPTY_ROOT, &new, &[]).is_ok());
    assert!(verify_consistency(size(0), size(3), &old, &new, &[]).is_err());
    assert!(verify_consistency(size(0), size(0), &EMPTY_ROOT, &new, &[]).is_err());
    assert!(verify_consistency(size(3), size(3), &new, &new, &[]).is_ok());
    assert!(verify_consistency(size(3), size(3), &old, &new, &[]).is_err());
    assert!(verify_consistency(size(3), size(3), &new, &new, &[old]).is_err());
    assert!(verify_consistency(size(3), size(2), &new, &old, &[]).is_err());
}

#[test]
fn a_reader_that_gives_too_little_is_an_error() {
    struct Short;
    impl HashReader for Short {
        type Error = std::convert::Infallible;
        fn read(&mut self, _: TileId, _: u8, _: u16) -> Result<Vec<Hash>, Self::Error> {
            Ok(vec![])
        }
    }
    assert!(matches!(
        root(&mut Short, size(5)),
        Err(Error::ShortRead {
            wanted: 4,
            got: 0,
            ..
        })
    ));
    assert!(matches!(
        Frontier::load(&mut Short, size(5)),
        Err(Error::ShortRead { .. })
    ));
}
