//! Reading a tree for many proofs: a tile of leaves at a time, and what is above them once.

use super::tree::{TreeReader, tree_error};
use crate::catalog::logs::Log;
use crate::error::Error;
use merkle_tree::{Hash, HashReader, TILE_WIDTH, TileId, parents};
use std::collections::HashMap;
use std::ops::Range;

/// What was read or computed so far.
#[derive(Default)]
pub struct Known {
    /// The tile of leaves at hand, and its levels, from the leaves up.
    tile: Option<u64>,
    levels: Vec<Vec<Hash>>,
    /// Tree hashes over other leaves.
    others: HashMap<Range<u64>, Hash>,
}

pub struct TileReader<'a, 'k> {
    pub reader: TreeReader<'a>,
    pub known: &'k mut Known,
}

impl TileReader<'_, '_> {
    /// Takes a tile of leaves at hand, the first `count` of it.
    pub fn open_tile(&mut self, index: u64, count: u16) -> Result<(), merkle_tree::Error<Error>> {
        if self.known.tile == Some(index) {
            return Ok(());
        }
        let tile = TileId { level: 0, index };
        let read = self.reader.read(tile, 0, count);
        let mut level = read.map_err(merkle_tree::Error::Read)?;
        if level.len() != usize::from(count) {
            return Err(merkle_tree::Error::ShortRead {
                tile,
                wanted: count,
                got: level.len(),
            });
        }
        self.known.levels.clear();
        while level.len() > 1 {
            // Of an incomplete tile, what is left over is no complete subtree.
            let above = parents(&level[..level.len() & !1]);
            self.known.levels.push(std::mem::replace(&mut level, above));
        }
        self.known.levels.push(level);
        self.known.tile = Some(index);
        Ok(())
    }

    /// The hash of a leaf of the tile at hand.
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.in_tile(&(index..index + 1))
    }

    /// The leaf hashes of the tile at hand.
    fn leaves(&self) -> &[Hash] {
        self.known.levels.first().map_or(&[], Vec::as_slice)
    }

    /// The root of a complete subtree in the tile at hand.
    fn in_tile(&self, leaves: &Range<u64>) -> Option<Hash> {
        let length = leaves.end - leaves.start;
        let start = self.known.tile? * TILE_WIDTH;
        let place = leaves
            .start
            .checked_sub(start)
            .filter(|p| *p < TILE_WIDTH)?;
        let level = self.known.levels.get(length.trailing_zeros() as usize)?;
        let at = (place / length) as usize;
        level.get(at).filter(|_| length.is_power_of_two()).copied()
    }
}

impl HashReader for TileReader<'_, '_> {
    type Error = Error;

    fn recall(&mut self, leaves: &Range<u64>) -> Option<Hash> {
        if let Some(hash) = self.in_tile(leaves) {
            return Some(hash);
        }
        if let Some(hash) = self.known.others.get(leaves) {
            return Some(*hash);
        }
        let hash = self.reader.recall(leaves)?;
        self.known.others.insert(leaves.clone(), hash);
        Some(hash)
    }

    fn learn(&mut self, leaves: &Range<u64>, hash: &Hash) {
        self.known.others.insert(leaves.clone(), *hash);
        self.reader.learn(leaves, hash);
    }

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Error> {
        self.reader.read(tile, first, count)
    }
}

/// Reads whole tiles of leaves where a part of one is asked for: for who asks from the left of the tree to its right.
pub struct WholeTiles<'a, 'k> {
    tiles: TileReader<'a, 'k>,
    log: &'a Log,
    /// Leaves of the tree.
    size: u64,
}

impl<'a, 'k> WholeTiles<'a, 'k> {
    pub fn new(tiles: TileReader<'a, 'k>, log: &'a Log, size: i64) -> Self {
        let size = size as u64;
        WholeTiles { tiles, log, size }
    }
}

impl HashReader for WholeTiles<'_, '_> {
    type Error = Error;

    fn recall(&mut self, leaves: &Range<u64>) -> Option<Hash> {
        self.tiles.recall(leaves)
    }

    fn learn(&mut self, leaves: &Range<u64>, hash: &Hash) {
        // What is in the tile at hand is not asked for again once another one is.
        if leaves.end - leaves.start >= TILE_WIDTH {
            self.tiles.learn(leaves, hash);
        }
    }

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Error> {
        pgrx::check_for_interrupts!();
        if tile.level > 0 {
            return self.tiles.read(tile, first, count);
        }
        let there = TILE_WIDTH.min(self.size.saturating_sub(tile.index * TILE_WIDTH));
        let opened = self.tiles.open_tile(tile.index, there as u16);
        opened.map_err(|e| tree_error(self.log, e))?;
        let leaves = self.tiles.leaves().iter().skip(first.into());
        Ok(leaves.take(count.into()).copied().collect())
    }
}
