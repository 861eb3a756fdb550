//! Tiles of a log, as the tree crate reads them. Nothing is believed until a proof made of them holds.

use crate::{Error, Retry, Transport, TransportError};
use merkle_tree::{HASH_SIZE, Hash, HashReader, TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};
use std::collections::HashMap;
use tlog::{TileLevel, TilePath, entry_bundle, tile_from_bytes};

/// The tiles of one tree, as a log serves them.
pub struct Tiles<'t> {
    transport: &'t dyn Transport,
    retry: &'t Retry,
    size: TreeSize,
    read: HashMap<TileId, Vec<Hash>>,
}

const MAX_BUNDLE: u64 = TILE_WIDTH * (2 + u16::MAX as u64);
const MAX_TILE: u64 = TILE_WIDTH * HASH_SIZE as u64;

impl HashReader for Tiles<'_> {
    type Error = Error;

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Error> {
        if !self.read.contains_key(&tile) {
            let path = self.path(TileLevel::Hashes(tile.level), tile.index)?;
            let (bytes, width) = self.file(&path, MAX_TILE)?;
            self.read.insert(tile, tile_from_bytes(&bytes, width)?);
        }
        let range = usize::from(first)..usize::from(first) + usize::from(count);
        let hashes = self.read.get(&tile).and_then(|hashes| hashes.get(range));
        Ok(hashes.map(<[Hash]>::to_vec).unwrap_or_default())
    }
}

impl<'t> Tiles<'t> {
    pub fn new(transport: &'t dyn Transport, retry: &'t Retry, size: TreeSize) -> Tiles<'t> {
        Tiles {
            transport,
            retry,
            size,
            read: HashMap::new(),
        }
    }

    /// The file of a tile or an entry bundle of this tree, and its width, unverified: of a partial one, the full one may
    /// be there instead.
    ///
    /// # Errors
    /// [`Error::Missing`] if neither is there; another one if that cannot be told.
    pub fn served(&self, level: TileLevel, index: u64) -> Result<(Vec<u8>, u16), Error> {
        let limit = match level {
            TileLevel::Entries => MAX_BUNDLE,
            TileLevel::Hashes(_) => MAX_TILE,
        };
        self.file(&self.path(level, index)?, limit)
    }

    /// The entry at an index of the tree, unverified.
    pub(crate) fn entry(&self, index: u64) -> Result<Vec<u8>, Error> {
        let path = self.path(TileLevel::Entries, index / TILE_WIDTH)?;
        let (bytes, width) = self.file(&path, MAX_BUNDLE)?;
        let entries = entry_bundle::entries(&bytes, width)?;
        let entry = entries.get((index % TILE_WIDTH) as usize);
        entry.map(|entry| entry.to_vec()).ok_or(Error::Missing {
            path: path.to_string(),
        })
    }

    /// The leaf hash at an index of the tree, unverified.
    pub(crate) fn leaf_hash(&mut self, index: u64) -> Result<Hash, Error> {
        let tile = TileId {
            level: 0,
            index: index / TILE_WIDTH,
        };
        let hashes = self.read(tile, (index % TILE_WIDTH) as u8, 1)?;
        hashes.first().copied().ok_or_else(short_tile)
    }

    /// Where a tile is, with the width that it has in this tree.
    ///
    /// # Errors
    /// If this tree has no such tile.
    pub fn path(&self, level: TileLevel, index: u64) -> Result<TilePath, Error> {
        let height = match level {
            TileLevel::Entries => 0,
            TileLevel::Hashes(level) => u32::from(level) * TILE_HEIGHT,
        };
        let hashes = self.size.get().checked_shr(height).unwrap_or(0);
        let width = hashes
            .saturating_sub(index.saturating_mul(TILE_WIDTH))
            .min(TILE_WIDTH);
        Ok(TilePath::new(level, index, width as u16)?)
    }

    /// A tile's content and width. A full tile may have replaced a partial one.
    fn file(&self, tile: &TilePath, limit: u64) -> Result<(Vec<u8>, u16), Error> {
        let full = TilePath::new(tile.level(), tile.index(), TILE_WIDTH as u16)?;
        for tile in [tile, &full] {
            match get(self.transport, self.retry, &tile.to_string(), limit) {
                Err(Error::Missing { .. }) => {}
                got => return Ok((got?, tile.width())),
            }
        }
        Err(Error::Missing {
            path: tile.to_string(),
        })
    }
}

pub(crate) fn short_tile() -> Error {
    tlog::Error::Tile("it has fewer hashes than the tree needs").into()
}

pub(crate) fn get(
    transport: &dyn Transport,
    retry: &Retry,
    path: &str,
    limit: u64,
) -> Result<Vec<u8>, Error> {
    let path_of = path.to_owned();
    retry
        .get(transport, path, limit)
        .map_err(|(error, attempts)| match error {
            TransportError::NotFound => Error::Missing { path: path_of },
            TransportError::Passing(why) | TransportError::Lasting(why) => Error::Unreachable {
                path: path_of,
                attempts,
                why,
            },
        })
}
