//! An exported directory (C2SP tlog-tiles): every entry and every tile is hashed again, up to the root that
//! the log has signed.

use super::{Finding, Report, Trust};
use merkle_tree::{Frontier, Hash, TILE_WIDTH, TileId, TreeSize, leaf_hashes, tile_hash};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use tlog::{
    Checkpoint, SignedNote, TileLevel, TilePath, VerifiedCheckpoint, entry_bundle, tile_from_bytes,
};

/// What a directory proved to be.
#[derive(Debug)]
pub struct Directory {
    pub checkpoint: VerifiedCheckpoint,
    /// The entries before this index are not there: the log is pruned. Their hashes, or those of their
    /// tiles, are.
    pub first_entry: u64,
    /// How many other entries are there as hashes only: withheld.
    pub withheld: u64,
    /// How many tiles were compared with what follows from the level below.
    pub tiles: u64,
    /// The kept checkpoint that the directory was found to contain.
    pub since: Option<Checkpoint>,
}

/// So many bundles are read and hashed before the next are begun.
const AT_ONCE: u64 = 1024;

/// What is there of 256 entries, or of the last ones.
enum Leaves {
    Entries {
        hashes: Vec<Hash>,
        /// The root over them.
        root: Hash,
        /// How many of the entries are withheld.
        withheld: u64,
    },
    Hashes {
        hashes: Vec<Hash>,
        root: Hash,
    },
    /// Only the root over 256 of them, in the tile above.
    Root(Hash),
}

pub fn verify(directory: &Path, trust: &Trust) -> Result<Report, Finding> {
    let path = directory.join("checkpoint");
    let note = read(&path).map_err(Finding::unreadable(&path))?;
    let checkpoint = trust.policy.verify(&SignedNote::from_bytes(&note)?)?;
    let tree = Tree {
        directory,
        size: checkpoint.checkpoint.size(),
    };
    let mut check = Check {
        frontier: Frontier::default(),
        since: trust.since.as_ref(),
        first_entry: 0,
        withheld: 0,
        tiles: 0,
        incomplete: BTreeMap::new(),
    };
    let count = tree.size.get().div_ceil(TILE_WIDTH);
    for start in (0..count).step_by(AT_ONCE as usize) {
        for (index, leaves) in (start..).zip(tree.read(start, count.min(start + AT_ONCE))) {
            check.append(&tree, index, leaves?)?;
        }
        check.compare_tiles(&tree)?;
    }
    check.ends_at(&checkpoint.checkpoint)?;
    Ok(Report::Directory(Directory {
        checkpoint,
        first_entry: check.first_entry,
        withheld: check.withheld,
        tiles: check.tiles,
        since: trust.since.clone(),
    }))
}

/// Files of a tree.
struct Tree<'t> {
    directory: &'t Path,
    size: TreeSize,
}

impl Tree<'_> {
    /// The leaves below the tiles `from .. to` of level 0, read by as many threads as there are processors.
    fn read(&self, from: u64, to: u64) -> Vec<Result<Leaves, Finding>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let share = (to - from).div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let start = |start: u64| {
                let part = start..to.min(start + share);
                scope.spawn(move || part.map(|index| self.leaves(index)).collect::<Vec<_>>())
            };
            let started: Vec<_> = (from..to).step_by(share as usize).map(start).collect();
            let joined = started.into_iter().flat_map(|thread| match thread.join() {
                Ok(leaves) => leaves,
                Err(_) => vec![Err(Finding::Unknown("a thread panicked".to_owned()))],
            });
            joined.collect()
        })
    }

    /// The leaves of one tile of level 0, as hashes of the entries if they are there.
    fn leaves(&self, index: u64) -> Result<Leaves, Finding> {
        let width = (self.size.get() - index * TILE_WIDTH).min(TILE_WIDTH) as u16;
        let tile = TilePath::new(TileLevel::Hashes(0), index, width)?;
        let stored = self.hashes(&tile)?;
        let bundle = TilePath::new(TileLevel::Entries, index, width)?;
        let entries = self.file(&bundle)?;
        match (entries, stored) {
            (Some((bytes, held)), stored) => {
                let entries = entry_bundle::entries(&bytes, held).map_err(damaged(&bundle))?;
                let entries = entries.into_iter().take(usize::from(width));
                if stored.is_none() {
                    return Err(Finding::Unknown(format!("{tile} is missing")));
                }
                let mut hashes = leaf_hashes(entries.clone());
                let mut withheld = 0;
                // An entry without a byte stands for one that is withheld; its hash is in the tile.
                for ((entry, hash), stored) in entries.zip(&mut hashes).zip(stored.iter().flatten())
                {
                    if entry.is_empty() && hash != stored {
                        *hash = *stored;
                        withheld += 1;
                    }
                }
                match stored {
                    Some(stored) if stored != hashes => Err(differs(&tile)),
                    _ => Ok(Leaves::Entries {
                        root: tile_hash(&hashes),
                        hashes,
                        withheld,
                    }),
                }
            }
            (None, Some(hashes)) => Ok(Leaves::Hashes {
                root: tile_hash(&hashes),
                hashes,
            }),
            (None, None) => self.root_above(index).map(Leaves::Root),
        }
    }

    /// The hashes of a tile; `None` if no such file is there.
    fn hashes(&self, tile: &TilePath) -> Result<Option<Vec<Hash>>, Finding> {
        let Some((bytes, width)) = self.file(tile)? else {
            return Ok(None);
        };
        let mut hashes = tile_from_bytes(&bytes, width).map_err(damaged(tile))?;
        hashes.truncate(usize::from(tile.width()));
        Ok(Some(hashes))
    }

    /// A tile's file and its width. Where a partial tile is asked for, the full one may have replaced it.
    fn file(&self, tile: &TilePath) -> Result<Option<(Vec<u8>, u16)>, Finding> {
        let full = TilePath::new(tile.level(), tile.index(), TILE_WIDTH as u16)?;
        for tile in [tile, &full] {
            let path = self.directory.join(tile.to_string());
            match read(&path) {
                Ok(bytes) => return Ok(Some((bytes, tile.width()))),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Finding::unreadable(&path)(error)),
            }
        }
        Ok(None)
    }

    /// The root over a tile of level 0 that is not there.
    fn root_above(&self, index: u64) -> Result<Hash, Finding> {
        let full_tiles = self.size.get() / TILE_WIDTH;
        let above = index / TILE_WIDTH;
        let missing = || {
            Finding::Unknown(format!(
                "neither entries nor hashes of tile {index} are there"
            ))
        };
        if index >= full_tiles {
            return Err(missing());
        }
        let width = (full_tiles - above * TILE_WIDTH).min(TILE_WIDTH) as u16;
        let hashes = self.hashes(&TilePath::new(TileLevel::Hashes(1), above, width)?)?;
        let hashes = hashes.ok_or_else(missing)?;
        Ok(hashes[(index % TILE_WIDTH) as usize])
    }
}

/// A file that does not have the form of one.
fn damaged(file: &TilePath) -> impl FnOnce(tlog::Error) -> Finding {
    move |error| Finding::Unknown(format!("{file}: {error}"))
}

/// The tree as it follows from the entries.
struct Check<'s> {
    frontier: Frontier,
    since: Option<&'s Checkpoint>,
    first_entry: u64,
    withheld: u64,
    tiles: u64,
    /// The incomplete tile of each level, as it was when it last changed.
    incomplete: BTreeMap<u8, (u64, Vec<Hash>)>,
}

impl Check<'_> {
    fn append(&mut self, tree: &Tree, index: u64, leaves: Leaves) -> Result<(), Finding> {
        let start = index * TILE_WIDTH;
        let too_large = |error: merkle_tree::OutOfRange| Finding::Unknown(error.to_string());
        let (hashes, root) = match leaves {
            Leaves::Entries {
                hashes,
                root,
                withheld,
            } => {
                self.tiles += 1;
                self.withheld += withheld;
                (hashes, root)
            }
            Leaves::Hashes { hashes, root } => {
                self.without_entries(start, hashes.len() as u64)?;
                (hashes, root)
            }
            Leaves::Root(root) => {
                self.without_entries(start, TILE_WIDTH)?;
                if self.kept_in(start, start + TILE_WIDTH - 1) {
                    let what =
                        "the checkpoint that you have kept ends among entries that are pruned";
                    return Err(Finding::Unknown(what.to_owned()));
                }
                self.frontier.push_tile(root).map_err(too_large)?;
                return self.meets_kept();
            }
        };
        let whole =
            hashes.len() as u64 == TILE_WIDTH && !self.kept_in(start, start + TILE_WIDTH - 1);
        match whole {
            true => self.frontier.push_tile(root).map_err(too_large)?,
            false => {
                for hash in hashes {
                    self.meets_kept()?;
                    self.frontier.push(hash).map_err(too_large)?;
                }
            }
        }
        debug_assert!(self.frontier.size() <= tree.size);
        self.meets_kept()
    }

    /// Only the first entries may be pruned.
    fn without_entries(&mut self, start: u64, count: u64) -> Result<(), Finding> {
        if self.first_entry != start {
            return Err(Finding::Unknown(format!(
                "the entries from {start} on are missing"
            )));
        }
        self.first_entry = start + count;
        Ok(())
    }

    /// Whether the kept checkpoint's size is in the range.
    fn kept_in(&self, from: u64, to: u64) -> bool {
        let size = self.since.map(|since| since.size().get());
        size.is_some_and(|size| (from..=to).contains(&size))
    }

    /// That the tree so far has the root that the kept checkpoint says, if it has its size.
    fn meets_kept(&self) -> Result<(), Finding> {
        match self.since {
            Some(since)
                if since.size() == self.frontier.size()
                    && *since.root() != self.frontier.root() =>
            {
                Err(Finding::Bad(format!(
                    "history was rewritten: the first {} entries are not those of the checkpoint that you have kept",
                    since.size()
                )))
            }
            _ => Ok(()),
        }
    }

    /// That the tiles above level 0 which are complete by now, and at the end those that are not, are what
    /// they must be.
    fn compare_tiles(&mut self, tree: &Tree) -> Result<(), Finding> {
        for (TileId { level, index }, hashes) in self.frontier.take_tiles() {
            self.incomplete.remove(&level);
            match hashes.len() as u64 == TILE_WIDTH {
                true => self.compare_tile(tree, level, index, &hashes)?,
                false => drop(self.incomplete.insert(level, (index, hashes))),
            }
        }
        if self.frontier.size() == tree.size {
            for (level, (index, hashes)) in std::mem::take(&mut self.incomplete) {
                self.compare_tile(tree, level, index, &hashes)?;
            }
        }
        Ok(())
    }

    fn compare_tile(
        &mut self,
        tree: &Tree,
        level: u8,
        index: u64,
        hashes: &[Hash],
    ) -> Result<(), Finding> {
        let tile = TilePath::new(TileLevel::Hashes(level), index, hashes.len() as u16)?;
        match tree.hashes(&tile)? {
            Some(stored) if stored == hashes => self.tiles += 1,
            Some(_) => return Err(differs(&tile)),
            None => return Err(Finding::Unknown(format!("{tile} is missing"))),
        }
        Ok(())
    }

    fn ends_at(&self, checkpoint: &Checkpoint) -> Result<(), Finding> {
        if self.frontier.root() != *checkpoint.root() {
            return Err(Finding::Bad(
                "the entries do not lead to the root that the log has signed".to_owned(),
            ));
        }
        match self.since {
            Some(since) if since.origin() != checkpoint.origin() => Err(Finding::Unknown(
                "the checkpoint that you have kept is another log's".to_owned(),
            )),
            Some(since) if since.size() > checkpoint.size() => Err(Finding::Unknown(format!(
                "the checkpoint that you have kept has {} entries, this has {}",
                since.size(),
                checkpoint.size()
            ))),
            _ => Ok(()),
        }
    }
}

fn differs(tile: &TilePath) -> Finding {
    Finding::Bad(format!("{tile} is not what follows from the entries"))
}

/// A file of the directory. What is none, such as a pipe, might be read for ever.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    match std::fs::metadata(path)?.is_file() {
        true => std::fs::read(path),
        false => Err(std::io::Error::other("is no file")),
    }
}
