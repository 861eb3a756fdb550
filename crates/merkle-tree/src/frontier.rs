//! The right edge of a growing tree: all that is needed to append to it and to know its root.

use crate::hash::{EMPTY_ROOT, Hash, tile_hash};
use crate::index::{OutOfRange, TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};
use crate::read::{Error, HashReader, read};
use std::ops::Range;

/// For each tile level, the hashes of its incomplete tile. A tile that fills up is folded into one
/// hash of the level above, once.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    size: u64,
    /// `edge[L]`: the hashes of the incomplete tile of level L, fewer than 256.
    edge: Vec<Vec<Hash>>,
    /// Tiles of level 1 and above that were completed since `take_tiles`.
    full: Vec<(TileId, Vec<Hash>)>,
    /// The size at the last `take_tiles`.
    taken: u64,
}

impl Frontier {
    /// The edge of the tree of the first `size` leaves in storage.
    pub fn load<R: HashReader>(reader: &mut R, size: TreeSize) -> Result<Self, Error<R::Error>> {
        let size = size.get();
        let mut edge = Vec::new();
        let mut nodes = size;
        while nodes > 0 {
            let tile = TileId {
                level: edge.len() as u8,
                index: nodes / TILE_WIDTH,
            };
            edge.push(match (nodes % TILE_WIDTH) as u16 {
                0 => Vec::new(),
                count => read(reader, tile, 0, count)?,
            });
            nodes /= TILE_WIDTH;
        }
        Ok(Frontier {
            size,
            edge,
            full: Vec::new(),
            taken: size,
        })
    }

    pub fn size(&self) -> TreeSize {
        TreeSize::new(self.size).unwrap_or_default()
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Hash) -> Result<(), OutOfRange> {
        self.append(0, leaf, None)
    }

    /// Appends the last leaf of a tile, of which someone has computed the root: that of the leaves that
    /// [`Self::edge`] had then and those appended since, this one included.
    ///
    /// # Errors
    /// If it would not be the last of its tile, or the size becomes too large.
    pub fn push_last(&mut self, leaf: Hash, root: Hash) -> Result<(), OutOfRange> {
        if !(self.size + 1).is_multiple_of(TILE_WIDTH) {
            return Err(OutOfRange(self.size));
        }
        self.append(0, leaf, Some(root))
    }

    /// The frontier of `size` leaves from the hashes of its incomplete tiles, as [`Self::edges`] gave them.
    ///
    /// # Errors
    /// If a tree of that size has incomplete tiles of other lengths.
    pub fn from_edges(size: TreeSize, edges: Vec<Vec<Hash>>) -> Result<Self, OutOfRange> {
        let size = size.get();
        let mut nodes = size;
        for hashes in &edges {
            if hashes.len() as u64 != nodes % TILE_WIDTH {
                return Err(OutOfRange(size));
            }
            nodes /= TILE_WIDTH;
        }
        match nodes {
            0 => Ok(Frontier {
                size,
                edge: edges,
                full: Vec::new(),
                taken: size,
            }),
            _ => Err(OutOfRange(size)),
        }
    }

    /// The hashes of the incomplete tile of each level, from the leaves up.
    pub fn edges(&self) -> &[Vec<Hash>] {
        &self.edge
    }

    /// The leaves of the incomplete tile at the end.
    pub fn edge(&self) -> &[Hash] {
        self.edge.first().map_or(&[], Vec::as_slice)
    }

    /// Appends 256 leaves of which only the root is known, at a tile border.
    ///
    /// # Errors
    /// If the size is not a multiple of 256, or becomes too large.
    pub fn push_tile(&mut self, root: Hash) -> Result<(), OutOfRange> {
        if !self.size.is_multiple_of(TILE_WIDTH) {
            return Err(OutOfRange(self.size));
        }
        self.append(1, root, None)
    }

    /// The root of the tree so far.
    pub fn root(&self) -> Hash {
        // From the lowest level up: what is left over on a level is one ragged node of the next.
        let ragged = self.edge.iter().fold(None, |below: Option<Hash>, hashes| {
            match (hashes.as_slice(), below) {
                ([], below) => below,
                (hashes, None) => Some(tile_hash(hashes)),
                (hashes, Some(below)) => Some(tile_hash(&[hashes, &[below]].concat())),
            }
        });
        ragged.unwrap_or(EMPTY_ROOT)
    }

    /// The largest complete subtrees that the tree is made of, as their leaves and root: what the next
    /// root and proof will ask for.
    pub fn peaks(&self) -> Vec<(Range<u64>, Hash)> {
        let mut peaks = Vec::new();
        for (level, hashes) in self.edge.iter().enumerate() {
            let base = TILE_HEIGHT * level as u32;
            let start = (self.size >> base) / TILE_WIDTH * TILE_WIDTH;
            let mut done = 0;
            for bit in (0..TILE_HEIGHT)
                .rev()
                .filter(|bit| hashes.len() >> bit & 1 == 1)
            {
                let end = done + (1 << bit);
                let leaf = |place: usize| (start + place as u64) << base;
                peaks.push((leaf(done)..leaf(end), tile_hash(&hashes[done..end])));
                done = end;
            }
        }
        peaks
    }

    /// How many completed tiles wait for [`Self::take_tiles`].
    pub fn pending_tiles(&self) -> usize {
        self.full.len()
    }

    /// The tiles of level 1 and above that changed since the last call, each from its first hash:
    /// those that were completed, and those that are incomplete now. In order of level and index.
    pub fn take_tiles(&mut self) -> Vec<(TileId, Vec<Hash>)> {
        let mut tiles = std::mem::take(&mut self.full);
        for (level, hashes) in self.edge.iter().enumerate().skip(1) {
            let width = TILE_HEIGHT * level as u32;
            if !hashes.is_empty() && self.taken >> width != self.size >> width {
                let index = (self.size >> width) / TILE_WIDTH;
                tiles.push((
                    TileId {
                        level: level as u8,
                        index,
                    },
                    hashes.clone(),
                ));
            }
        }
        self.taken = self.size;
        tiles.sort_unstable_by_key(|(tile, _)| *tile);
        tiles
    }

    /// `root` is that of the tile that `hash` completes, where it is known.
    fn append(
        &mut self,
        level: usize,
        hash: Hash,
        mut root: Option<Hash>,
    ) -> Result<(), OutOfRange> {
        let leaves = 1 << (TILE_HEIGHT * level as u32);
        self.size = TreeSize::new(self.size + leaves)?.get();
        let (mut level, mut hash) = (level, hash);
        loop {
            if self.edge.len() <= level {
                self.edge.resize(level + 1, Vec::new());
            }
            self.edge[level].push(hash);
            if self.edge[level].len() < TILE_WIDTH as usize {
                return Ok(());
            }
            let tile = std::mem::take(&mut self.edge[level]);
            hash = root.take().unwrap_or_else(|| tile_hash(&tile));
            if level > 0 {
                let nodes = self.size >> (TILE_HEIGHT * level as u32);
                let index = nodes / TILE_WIDTH - 1;
                self.full.push((
                    TileId {
                        level: level as u8,
                        index,
                    },
                    tile,
                ));
            }
            level += 1;
        }
    }
}
