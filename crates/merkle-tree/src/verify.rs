//! Checking proofs, with nothing but the proof and two numbers.

use crate::hash::{EMPTY_ROOT, Hash, node_hash};
use crate::index::{LeafIndex, TreeSize};
use ct_merkle::{ConsistencyProof, ConsistencyVerifError, RootHash};
use sha2::Sha256;

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("leaf index {index} is not in a tree of {size} leaves")]
    IndexOutOfRange { index: u64, size: u64 },
    #[error("old size {old} is greater than new size {new}")]
    SizesReversed { old: u64, new: u64 },
    #[error("the path has the wrong number of hashes")]
    PathLength,
    #[error("the leaf indexes are not ascending, or there are none")]
    IndexesNotAscending,
    #[error("the path leads to another root")]
    RootMismatch,
}

/// Checks that the leaf with `leaf_hash` is at `index` of the tree with `size` leaves and `root`
/// (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: LeafIndex,
    size: TreeSize,
    path: &[Hash],
    root: &Hash,
) -> Result<(), VerifyError> {
    let (index, size) = (index.get(), size.get());
    if index >= size {
        return Err(VerifyError::IndexOutOfRange { index, size });
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf_hash);
    for sibling in path {
        if last == 0 {
            return Err(VerifyError::PathLength);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // The rightmost node has no sibling on the levels where it is a left child.
            let skip = node.trailing_zeros();
            node >>= skip;
            last >>= skip;
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match last {
        0 if hash == *root => Ok(()),
        0 => Err(VerifyError::RootMismatch),
        _ => Err(VerifyError::PathLength),
    }
}

/// Checks that the tree with `old_size` leaves and `old_root` is a prefix of the one with `new_size`
/// leaves and `new_root` (RFC 6962 §2.1.2). Every tree begins with the empty one.
pub fn verify_consistency(
    old_size: TreeSize,
    new_size: TreeSize,
    old_root: &Hash,
    new_root: &Hash,
    path: &[Hash],
) -> Result<(), VerifyError> {
    let (old, new) = (old_size.get(), new_size.get());
    if old > new {
        return Err(VerifyError::SizesReversed { old, new });
    }
    if old == 0 || old == new {
        let expected = if old == 0 { &EMPTY_ROOT } else { new_root };
        return match (
            path,
            old_root == expected && (new > 0 || new_root == expected),
        ) {
            ([], true) => Ok(()),
            ([], false) => Err(VerifyError::RootMismatch),
            _ => Err(VerifyError::PathLength),
        };
    }
    let digest = |hash: &Hash| (*hash.as_bytes()).into();
    let digests: Vec<_> = path.iter().map(digest).collect();
    RootHash::<Sha256>::new(digest(new_root), new)
        .verify_consistency(
            &RootHash::new(digest(old_root), old),
            &ConsistencyProof::from_digests(&digests),
        )
        .map_err(|error| match error {
            ConsistencyVerifError::MalformedProof => VerifyError::PathLength,
            _ => VerifyError::RootMismatch,
        })
}

/// The root of the first `old_size` leaves of the tree with `new_size` leaves and `new_root`, if `path` is their
/// consistency proof: the algorithm of RFC 9162 §2.1.4.2, which computes both roots. None if it is not, and where a
/// proof says nothing about the old root, which the verifier brings along: where `old_size` is a power of two.
pub fn prefix_root(
    old_size: TreeSize,
    new_size: TreeSize,
    new_root: &Hash,
    path: &[Hash],
) -> Option<Hash> {
    let (old, new) = (old_size.get(), new_size.get());
    if old == 0 || old >= new || old.is_power_of_two() {
        return None;
    }
    // The last leaf of either tree, and then their nodes on each level.
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (first, rest) = path.split_first()?;
    let (mut prefix, mut whole) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            prefix = node_hash(hash, &prefix);
            whole = node_hash(hash, &whole);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            whole = node_hash(&whole, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0 && whole == *new_root).then_some(prefix)
}
