//! What a log serves of its tree (C2SP tlog-tiles): unverified, read by several threads, a stretch at a time.

use super::Fault;
use merkle_log_client::{Error, Retry, Tiles, Transport};
use merkle_tree::{Hash, TILE_WIDTH, TreeSize, leaf_hashes, tile_hash};
use tlog::{TileLevel, TilePath, entry_bundle, tile_from_bytes};

/// The files of a tree.
pub struct Tree<'t> {
    pub transport: &'t dyn Transport,
    pub retry: &'t Retry,
    pub size: TreeSize,
}

/// What is there of 256 entries, or of the last ones.
pub enum Leaves {
    Entries {
        hashes: Vec<Hash>,
        /// The root over them.
        root: Hash,
        /// The places of the entries that are withheld.
        withheld: Vec<usize>,
    },
    Hashes {
        hashes: Vec<Hash>,
        root: Hash,
    },
    /// Only the root over 256 of them, in the tile above.
    Root(Hash),
}

impl Tree<'_> {
    /// The leaves below the tiles `from .. to` of level 0, read by as many threads as there are processors.
    pub fn read(&self, from: u64, to: u64) -> Vec<Result<Leaves, Fault>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let share = (to - from).div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let start = |start: u64| {
                let part = start..to.min(start + share);
                scope.spawn(move || {
                    let mut read = Vec::new();
                    for index in part {
                        read.push(self.leaves(index));
                        // What follows would not be looked at.
                        if read.last().is_some_and(Result::is_err) {
                            break;
                        }
                    }
                    read
                })
            };
            let started: Vec<_> = (from..to).step_by(share as usize).map(start).collect();
            let joined = started.into_iter().flat_map(|thread| match thread.join() {
                Ok(leaves) => leaves,
                Err(_) => vec![Err(Fault::Unread("a thread panicked".to_owned()))],
            });
            joined.collect()
        })
    }

    /// The leaves of one tile of level 0, as hashes of the entries if they are there.
    fn leaves(&self, index: u64) -> Result<Leaves, Fault> {
        let tile = self.path(TileLevel::Hashes(0), index)?;
        let stored = self.hashes(TileLevel::Hashes(0), index)?;
        let bundle = self.path(TileLevel::Entries, index)?;
        let Some((bytes, held)) = self.file(TileLevel::Entries, index)? else {
            return match stored {
                Some(hashes) => Ok(Leaves::Hashes {
                    root: tile_hash(&hashes),
                    hashes,
                }),
                None => self.root_above(index).map(Leaves::Root),
            };
        };
        let entries = entry_bundle::entries(&bytes, held).map_err(damaged(&bundle))?;
        let entries = entries.into_iter().take(usize::from(tile.width()));
        let stored = stored.ok_or_else(|| Fault::Unread(format!("{tile} is missing")))?;
        let mut hashes = leaf_hashes(entries.clone());
        let mut withheld = Vec::new();
        // An entry without a byte stands for one that is withheld; its hash is in the tile.
        for (place, ((entry, hash), stored)) in entries.zip(&mut hashes).zip(&stored).enumerate() {
            if entry.is_empty() && hash != stored {
                *hash = *stored;
                withheld.push(place);
            }
        }
        match stored == hashes {
            false => Err(Fault::Entries(tile)),
            true => Ok(Leaves::Entries {
                root: tile_hash(&hashes),
                hashes,
                withheld,
            }),
        }
    }

    /// The hashes of a tile, as many as it has in this tree; `None` if no such file is there.
    pub fn hashes(&self, level: TileLevel, index: u64) -> Result<Option<Vec<Hash>>, Fault> {
        let tile = self.path(level, index)?;
        let Some((bytes, width)) = self.file(level, index)? else {
            return Ok(None);
        };
        let mut hashes = tile_from_bytes(&bytes, width).map_err(damaged(&tile))?;
        hashes.truncate(usize::from(tile.width()));
        Ok(Some(hashes))
    }

    fn tiles(&self) -> Tiles<'_> {
        Tiles::new(self.transport, self.retry, self.size)
    }

    fn path(&self, level: TileLevel, index: u64) -> Result<TilePath, Fault> {
        let path = self.tiles().path(level, index);
        path.map_err(|error| Fault::Unread(error.to_string()))
    }

    fn file(&self, level: TileLevel, index: u64) -> Result<Option<(Vec<u8>, u16)>, Fault> {
        match self.tiles().served(level, index) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(Fault::Unread(error.to_string())),
        }
    }

    /// The root over a tile of level 0 that is not there.
    fn root_above(&self, index: u64) -> Result<Hash, Fault> {
        let missing = || {
            Fault::Unread(format!(
                "neither entries nor hashes of tile {index} are there"
            ))
        };
        if index >= self.size.get() / TILE_WIDTH {
            return Err(missing());
        }
        let hashes = self.hashes(TileLevel::Hashes(1), index / TILE_WIDTH)?;
        let hash = hashes.and_then(|hashes| hashes.get((index % TILE_WIDTH) as usize).copied());
        hash.ok_or_else(missing)
    }
}

/// A file that does not have the form of one.
fn damaged(file: &TilePath) -> impl FnOnce(tlog::Error) -> Fault {
    move |error| Fault::Unread(format!("{file}: {error}"))
}
