//! Inclusion proofs (RFC 6962 §2.1.1) and consistency proofs (§2.1.2).
//!
//! Which nodes a proof consists of is `ct-merkle`'s arithmetic. It numbers nodes as array-based
//! trees do (RFC 9420 appendix C): a node's height is the number of trailing ones of its number,
//! and a node at the right edge stands for the leaves that exist below it.

use crate::hash::Hash;
use crate::index::{LeafIndex, TreeSize};
use crate::read::{Error, HashReader, range_hash};
use ct_merkle::{indices_for_consistency_proof, indices_for_inclusion_proof};
use std::ops::Range;

/// PATH(index, D[0:size]): the hashes that lead from a leaf to the root, the leaf's sibling first.
///
/// # Errors
/// If `index` is not below `size`, or the reader fails.
pub fn inclusion_proof<R: HashReader>(
    reader: &mut R,
    index: LeafIndex,
    size: TreeSize,
) -> Result<Vec<Hash>, Error<R::Error>> {
    let (index, size) = (index.get(), size.get());
    if index >= size {
        return Err(Error::IndexOutOfRange { index, size });
    }
    hashes(reader, indices_for_inclusion_proof(size, index), size)
}

/// PROOF(old, D[0:new]): the hashes that show that the first `old` of `new` leaves are the tree of
/// size `old`. Empty if the sizes are equal or `old` is 0.
///
/// # Errors
/// If `old` is greater than `new`, or the reader fails.
pub fn consistency_proof<R: HashReader>(
    reader: &mut R,
    old: TreeSize,
    new: TreeSize,
) -> Result<Vec<Hash>, Error<R::Error>> {
    let (old, new) = (old.get(), new.get());
    match old {
        _ if old > new => Err(Error::SizesReversed { old, new }),
        _ if old == 0 || old == new => Ok(Vec::new()),
        _ => hashes(reader, indices_for_consistency_proof(old, new - old), new),
    }
}

fn hashes<R: HashReader>(
    reader: &mut R,
    nodes: Vec<u64>,
    size: u64,
) -> Result<Vec<Hash>, Error<R::Error>> {
    nodes
        .into_iter()
        .map(|node| range_hash(reader, leaves_below(node, size)))
        .collect()
}

/// The leaves below a node of an array-based tree over `size` leaves.
fn leaves_below(node: u64, size: u64) -> Range<u64> {
    let height = node.trailing_ones();
    let first = (node >> (height + 1)) << height;
    first..(first + (1 << height)).min(size)
}
