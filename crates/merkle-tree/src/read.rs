//! Hashes of any range of leaves, from stored hashes of complete subtrees.

use crate::hash::{EMPTY_ROOT, Hash, node_hash, tile_hash};
use crate::index::{TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};
use std::ops::Range;

/// Storage of a tree: hashes of complete subtrees, by tile.
pub trait HashReader {
    type Error;

    /// The hashes `first .. first + count` of `tile`, where `first + count <= 256`.
    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Self::Error>;

    /// The root of the complete subtree over the leaves `[index·2^height, (index+1)·2^height)`, if it
    /// is at hand without reading.
    fn recall(&mut self, _height: u32, _index: u64) -> Option<Hash> {
        None
    }

    /// That subtree's root was computed from what was read.
    fn learn(&mut self, _height: u32, _index: u64, _hash: &Hash) {}
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
    if let Some(hash) = reader.recall(height, index) {
        return Ok(hash);
    }
    let count = 1 << (height % TILE_HEIGHT);
    let first = index * u64::from(count);
    let tile = TileId {
        level: (height / TILE_HEIGHT) as u8,
        index: first / TILE_WIDTH,
    };
    let hash = tile_hash(&read(reader, tile, (first % TILE_WIDTH) as u8, count)?);
    reader.learn(height, index, &hash);
    Ok(hash)
}

/// MTH(D[range]) for a non-empty range that starts at a multiple of the largest power of two not
/// above its length: every range that a proof needs.
pub(crate) fn range_hash<R: HashReader>(
    reader: &mut R,
    range: Range<u64>,
) -> Result<Hash, Error<R::Error>> {
    let length = range.end - range.start;
    if length.is_power_of_two() {
        let height = length.trailing_zeros();
        return subtree_hash(reader, height, range.start >> height);
    }
    let middle = range.start + (1 << length.ilog2());
    let left = range_hash(reader, range.start..middle)?;
    let right = range_hash(reader, middle..range.end)?;
    Ok(node_hash(&left, &right))
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
