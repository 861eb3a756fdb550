//! One inclusion proof of several leaves, a multi-proof: each node once, and none that follows from the leaves.
//!
//! The tree is looked at level by level, from the leaves up. On each level some nodes are known: at first the leaves
//! that are proven, then the nodes above them. A known node whose sibling is not known needs it from the proof; the
//! last node of a level that has no sibling is the last node of the next level as it is. So the indexes of the leaves and
//! the size of the tree alone say which nodes a proof consists of: those of the lowest level first, and from left to
//! right within a level. Every set of leaves has exactly one proof, and that of one leaf is its inclusion proof (RFC 6962
//! §2.1.1).

use crate::hash::{EMPTY_ROOT, Hash, node_hash};
use crate::index::{LeafIndex, TreeSize};
use crate::read::{Error, HashReader, range_hash};
use crate::verify::VerifyError;
use std::ops::Range;

/// What proves a set of leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiproof {
    /// The leaf hashes, in the order of the leaf indexes.
    pub leaves: Vec<Hash>,
    /// The nodes that do not follow from the leaves: those of the lowest level first, from left to right.
    pub nodes: Vec<Hash>,
}

/// The proof of the leaves at `indexes` in the tree with `size` leaves. The reader is asked for hashes from the left of
/// the tree to its right.
///
/// # Errors
/// If there is no index, one is not greater than the one before it or not below `size`, or the reader fails.
pub fn multiproof<R: HashReader>(
    reader: &mut R,
    indexes: &[LeafIndex],
    size: TreeSize,
) -> Result<Multiproof, Error<R::Error>> {
    let size = size.get();
    let last = indexes.last().map(|index| index.get());
    let last = last.filter(|_| indexes.is_sorted_by(|a, b| a < b));
    let last = last.ok_or(Error::IndexesNotAscending)?;
    if last >= size {
        return Err(Error::IndexOutOfRange { index: last, size });
    }
    let ranges = ranges(indexes, size);
    let mut from_the_left: Vec<usize> = (0..ranges.len()).collect();
    from_the_left.sort_unstable_by_key(|place| (ranges[*place].start, ranges[*place].end));
    let mut leaves = vec![EMPTY_ROOT; ranges.len()];
    for place in from_the_left {
        leaves[place] = range_hash(reader, ranges[place].clone())?;
    }
    let nodes = leaves.split_off(indexes.len());
    Ok(Multiproof { leaves, nodes })
}

/// The proven leaves, and behind them for each node of the proof the leaves below it, in the order of the proof.
fn ranges(indexes: &[LeafIndex], size: u64) -> Vec<Range<u64>> {
    let leaf = |index: &LeafIndex| index.get()..index.get() + 1;
    let mut ranges: Vec<_> = indexes.iter().map(leaf).collect();
    let mut known: Vec<_> = indexes.iter().map(|index| (index.get(), ())).collect();
    let (mut width, mut height) = (size, 0);
    while width > 1 {
        let sibling = |node: u64| {
            ranges.push(node << height..((node + 1) << height).min(size));
            Some(())
        };
        climb(&mut known, width, sibling, |(), ()| ());
        width = width.div_ceil(2);
        height += 1;
    }
    ranges
}

/// Replaces the known nodes of a level with `width` nodes by those above them. A node is its index in the level and what
/// is known of it; `sibling` gives those that are missing, from left to right. None once there is none.
fn climb<T: Copy>(
    known: &mut Vec<(u64, T)>,
    width: u64,
    mut sibling: impl FnMut(u64) -> Option<T>,
    join: impl Fn(&T, &T) -> T,
) -> Option<()> {
    let (mut next, mut parents) = (0, 0);
    while let Some(&(node, value)) = known.get(next) {
        next += 1;
        let parent = match known.get(next) {
            _ if node % 2 == 1 => join(&sibling(node - 1)?, &value),
            _ if node + 1 == width => value,
            Some((right, known)) if *right == node + 1 => {
                next += 1;
                join(&value, known)
            }
            _ => join(&value, &sibling(node + 1)?),
        };
        known[parents] = (node / 2, parent);
        parents += 1;
    }
    known.truncate(parents);
    Some(())
}

/// Checks that the leaves with these indexes and hashes are in the tree with `size` leaves and `root`.
///
/// # Errors
/// If they are not proven; also if there is none, or one is not behind the one before it.
pub fn verify_multiproof(
    leaves: &[(LeafIndex, Hash)],
    size: TreeSize,
    nodes: &[Hash],
    root: &Hash,
) -> Result<(), VerifyError> {
    let mut verification = MultiproofVerification::start(leaves, size, nodes)?;
    while verification.climb()? {}
    verification.end(root)
}

/// [`verify_multiproof`] a level at a time, for those who must be able to stop between two.
#[derive(Debug)]
pub struct MultiproofVerification<'n> {
    known: Vec<(u64, Hash)>,
    /// Nodes of the level.
    width: u64,
    nodes: std::slice::Iter<'n, Hash>,
}

impl<'n> MultiproofVerification<'n> {
    /// # Errors
    /// As [`verify_multiproof`], for what the indexes alone show.
    pub fn start(
        leaves: &[(LeafIndex, Hash)],
        size: TreeSize,
        nodes: &'n [Hash],
    ) -> Result<MultiproofVerification<'n>, VerifyError> {
        let size = size.get();
        let last = leaves.last().map(|(index, _)| index.get());
        let last = last.filter(|_| leaves.is_sorted_by(|a, b| a.0 < b.0));
        let last = last.ok_or(VerifyError::IndexesNotAscending)?;
        if last >= size {
            return Err(VerifyError::IndexOutOfRange { index: last, size });
        }
        let known = leaves.iter().map(|(index, hash)| (index.get(), *hash));
        Ok(MultiproofVerification {
            known: known.collect(),
            width: size,
            nodes: nodes.iter(),
        })
    }

    /// Goes up one level, which takes at most one hash for each leaf; false if this is the root's.
    ///
    /// # Errors
    /// If a node is missing.
    pub fn climb(&mut self) -> Result<bool, VerifyError> {
        if self.width <= 1 {
            return Ok(false);
        }
        let sibling = |_| self.nodes.next().copied();
        climb(&mut self.known, self.width, sibling, node_hash).ok_or(VerifyError::PathLength)?;
        self.width = self.width.div_ceil(2);
        Ok(true)
    }

    /// # Errors
    /// If the root is another, it was not reached, or a node was not needed.
    pub fn end(self, root: &Hash) -> Result<(), VerifyError> {
        match self.known.as_slice() {
            _ if self.width > 1 || self.nodes.len() > 0 => Err(VerifyError::PathLength),
            [(_, found)] if found == root => Ok(()),
            _ => Err(VerifyError::RootMismatch),
        }
    }
}
