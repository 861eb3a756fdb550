//! Hashes of any range of leaves, from stored hashes of complete subtrees.

use crate::hash::{EMPTY_ROOT, Hash, node_hash, tile_hash};
use crate::index::{TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};
use std::ops::Range;

/// Storage of a tree: hashes of complete subtrees, by tile.
pub trait HashReader {
    type Error;

    /// The hashes `first .. first + count` of `tile`, where `first + count <= 256`.
    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Self::Error>;

    /// The tree hash over `leaves`, if it is at hand without reading. Such a range begins at a multiple of
    /// the largest power of two not above its length; where its length is one, it is a complete subtree.
    fn recall(&mut self, _leaves: &Range<u64>) -> Option<Hash> {
        None
    }

    /// The tree hash over `leaves` was computed from what was read.
    fn learn(&mut self, _leaves: &Range<u64>, _hash: &Hash) {}
}

/// Why a root or a proof cannot be computed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    #[error("{0}")]
    Read(E),
    #[error("tile {} of level {} gave {got} hashes where {wanted} were asked for", tile.index, tile.level)]
    ShortRead {
        tile: TileId,
        wanted: u16,
        got: usize,
    },
    #[error("leaf index {index} is not in a tree of {size} leaves")]
    IndexOutOfRange { index: u64, size: u64 },
    #[error("the leaf indexes are not ascending, or there are none")]
    IndexesNotAscending,
    #[error("old size {old} is greater than new size {new}")]
    SizesReversed { old: u64, new: u64 },
}

/// The root of the first `size` leaves: MTH(D[0:size]) of RFC 6962 §2.1.
pub fn root<R: HashReader>(reader: &mut R, size: TreeSize) -> Result<Hash, Error<R::Error>> {
    match size.get() {
        0 => Ok(EMPTY_ROOT),
        n => range_hash(reader, 0..n),
    }
}

/// The root of the complete subtree over the leaves `[index·2^height, (index+1)·2^height)`.
pub fn subtree_hash<R: HashReader>(
    reader: &mut R,
    height: u32,
    index: u64,
) -> Result<Hash, Error<R::Error>> {
    range_hash(reader, index << height..(index + 1) << height)
}

/// MTH(D[leaves]) for a non-empty range that starts at a multiple of the largest power of two not
/// above its length: every range that a proof needs.
pub(crate) fn range_hash<R: HashReader>(
    reader: &mut R,
    leaves: Range<u64>,
) -> Result<Hash, Error<R::Error>> {
    if let Some(hash) = reader.recall(&leaves) {
        return Ok(hash);
    }
    let length = leaves.end - leaves.start;
    let hash = if length.is_power_of_two() {
        complete(reader, length.trailing_zeros(), leaves.start)?
    } else {
        let middle = leaves.start + (1 << length.ilog2());
        let left = range_hash(reader, leaves.start..middle)?;
        node_hash(&left, &range_hash(reader, middle..leaves.end)?)
    };
    reader.learn(&leaves, &hash);
    Ok(hash)
}

/// The root of the complete subtree of a height that begins at a leaf, from the tile it is in.
fn complete<R: HashReader>(
    reader: &mut R,
    height: u32,
    start: u64,
) -> Result<Hash, Error<R::Error>> {
    let count = 1 << (height % TILE_HEIGHT);
    let level = height / TILE_HEIGHT;
    let first = start >> (TILE_HEIGHT * level);
    let tile = TileId {
        level: level as u8,
        index: first / TILE_WIDTH,
    };
    let hashes = read(reader, tile, (first % TILE_WIDTH) as u8, count)?;
    Ok(tile_hash(&hashes))
}

/// As [`HashReader::read`], with the number of hashes checked.
pub(crate) fn read<R: HashReader>(
    reader: &mut R,
    tile: TileId,
    first: u8,
    count: u16,
) -> Result<Vec<Hash>, Error<R::Error>> {
    let hashes = reader.read(tile, first, count).map_err(Error::Read)?;
    if hashes.len() != usize::from(count) {
        return Err(Error::ShortRead {
            tile,
            wanted: count,
            got: hashes.len(),
        });
    }
    Ok(hashes)
}
