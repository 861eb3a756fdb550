//! A tree in memory, filled through a frontier as a database would be.

#![allow(dead_code)] // every test file uses a part of it

use merkle_tree::*;
use std::collections::BTreeMap;
use std::convert::Infallible;

#[derive(Default)]
pub struct Store {
    pub frontier: Frontier,
    pub leaves: Vec<Hash>,
    pub tiles: BTreeMap<TileId, Vec<Hash>>,
    pub reads: usize,
    pub widest: u16,
}

impl Store {
    pub fn of(leaves: u64) -> Store {
        let mut store = Store::default();
        (0..leaves).for_each(|i| store.push(leaf(i)));
        store.flush();
        store
    }

    pub fn push(&mut self, leaf: Hash) {
        self.leaves.push(leaf);
        self.frontier.push(leaf).unwrap();
    }

    pub fn flush(&mut self) {
        let tiles = self.frontier.take_tiles();
        assert!(
            tiles.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "each tile once, in order"
        );
        self.tiles.extend(tiles);
    }
}

impl HashReader for Store {
    type Error = Infallible;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Infallible> {
        self.reads += 1;
        self.widest = self.widest.max(count);
        let hashes = match tile.level {
            0 => &self.leaves[(tile.index * TILE_WIDTH) as usize..],
            _ => &self.tiles[&tile][..],
        };
        Ok(hashes[usize::from(first)..][..usize::from(count)].to_vec())
    }
}

pub fn leaf(i: u64) -> Hash {
    leaf_hash(&data(i))
}

pub fn data(i: u64) -> [u8; 8] {
    i.to_be_bytes()
}

pub fn size(n: u64) -> TreeSize {
    TreeSize::new(n).unwrap()
}

pub fn index(i: u64) -> LeafIndex {
    LeafIndex::new(i).unwrap()
}

/// A tree of any size whose leaves are all the same: complete subtrees of a height are, too.
pub struct Uniform(pub Vec<Hash>);

impl Uniform {
    pub fn new() -> Uniform {
        let mut levels = vec![leaf(0)];
        for _ in 0..62 {
            let below = levels[levels.len() - 1];
            levels.push(node_hash(&below, &below));
        }
        Uniform(levels)
    }
}

impl HashReader for Uniform {
    type Error = Infallible;

    fn read(&mut self, tile: TileId, _first: u8, count: u16) -> Result<Vec<Hash>, Infallible> {
        let height = u32::from(tile.level) * TILE_HEIGHT;
        Ok(vec![self.0[height as usize]; count.into()])
    }
}
