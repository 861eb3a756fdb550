//! Positions in a tree, kept apart by type.

use std::fmt;

/// Tile width in hashes, and its binary logarithm (C2SP tlog-tiles).
pub const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;
pub const TILE_HEIGHT: u32 = 8;

/// More leaves than this are refused, which keeps all index arithmetic inside 64 bits.
pub const MAX_SIZE: u64 = (1 << 62) - 1;

/// A number beyond [`MAX_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is beyond the largest tree")]
pub struct OutOfRange(pub u64);

/// A leaf's 0-based position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafIndex(u64);

/// A number of leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeSize(u64);

impl LeafIndex {
    pub fn new(index: u64) -> Result<Self, OutOfRange> {
        (index < MAX_SIZE)
            .then_some(LeafIndex(index))
            .ok_or(OutOfRange(index))
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

impl TreeSize {
    pub const ZERO: TreeSize = TreeSize(0);

    pub fn new(size: u64) -> Result<Self, OutOfRange> {
        (size <= MAX_SIZE)
            .then_some(TreeSize(size))
            .ok_or(OutOfRange(size))
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LeafIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TreeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A tile: `index` counts the tiles of `level`; the tiles of level 0 hold leaf hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    pub level: u8,
    pub index: u64,
}
