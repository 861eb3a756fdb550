//! Hashes every entry and every tile that a log serves again, up to the root that it has signed: in bounded memory, and
//! from where it was left, if need be.

mod saved;
mod tree;

pub use saved::Saved;
pub use tree::Tree;

use merkle_tree::{Frontier, Hash, TILE_HEIGHT, TILE_WIDTH, TileId};
use std::fmt;
use tlog::{Checkpoint, TileLevel, TilePath};
use tree::Leaves;

/// Why what is served does not lead to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be read, or has not the form that it must have: nothing is said about the log.
    Unread(String),
    /// The entries are not those whose hashes are in the tile.
    Entries(TilePath),
    /// The tile is not what follows from the entries.
    Tile(TilePath),
    /// All agree with each other, and not with the root that the log has signed.
    Root,
    /// The first entries are not those of the checkpoint that was kept.
    Rewritten { size: u64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unread(what) => f.write_str(what),
            Fault::Entries(tile) | Fault::Tile(tile) => {
                write!(f, "{tile} is not what follows from the entries")
            }
            Fault::Root => {
                f.write_str("the entries do not lead to the root that the log has signed")
            }
            Fault::Rewritten { size } => write!(
                f,
                "history was rewritten: the first {size} entries are not those of the checkpoint that you have kept"
            ),
        }
    }
}

/// Which entries must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// All but the first ones, which may have been pruned.
    #[default]
    AllButPruned,
    /// Those that the log serves; of the others, the hashes.
    Served,
}

/// So many bundles are read and hashed before the next are begun.
const AT_ONCE: u64 = 256;

/// The tree as it follows from the entries so far.
#[derive(Clone, Debug, Default)]
pub struct Rehash {
    frontier: Frontier,
    wanted: Wanted,
    since: Option<Checkpoint>,
    /// Up to here no entries were there, if they must be from somewhere on.
    pub first_entry: u64,
    /// Up to here there were not even the hashes of all entries: they were pruned.
    pub pruned_to: u64,
    /// How many entries were there, and were not withheld.
    pub entries: u64,
    pub withheld: u64,
    /// How many tiles were compared with what follows from the level below.
    pub tiles: u64,
}

impl Rehash {
    /// From the first entry on. The tree must contain the checkpoint that was kept.
    pub fn new(wanted: Wanted, since: Option<Checkpoint>) -> Rehash {
        Rehash {
            wanted,
            since,
            ..Rehash::default()
        }
    }

    pub fn size(&self) -> u64 {
        self.frontier.size().get()
    }

    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Hashes the next stretch. After the last one, the root was compared. What was found wrong leaves the tree unfit
    /// to go on.
    ///
    /// # Errors
    /// If what is served cannot be read, or does not follow from the entries.
    pub fn step(&mut self, tree: &Tree, checkpoint: &Checkpoint) -> Result<bool, Fault> {
        let count = tree.size.get().div_ceil(TILE_WIDTH);
        // An incomplete tile at the end is read again: it has grown.
        let first = self.size() / TILE_WIDTH;
        let end = count.min(first + AT_ONCE);
        for (index, leaves) in (first..end).zip(tree.read(first, end)) {
            self.append(index, leaves?)?;
        }
        let whole = |(_, hashes): &(TileId, Vec<Hash>)| hashes.len() as u64 == TILE_WIDTH;
        for (tile, hashes) in self.frontier.take_tiles().into_iter().filter(whole) {
            self.compare_tile(tree, tile, &hashes)?;
        }
        if self.frontier.size() < tree.size {
            return Ok(false);
        }
        let size = self.size();
        let incomplete = self.frontier.edges().iter().enumerate().skip(1);
        let edges: Vec<_> = incomplete
            .filter(|(_, hashes)| !hashes.is_empty())
            .map(|(level, hashes)| {
                let index = (size >> (TILE_HEIGHT * level as u32)) / TILE_WIDTH;
                let level = level as u8;
                (TileId { level, index }, hashes.clone())
            })
            .collect();
        for (tile, hashes) in edges {
            self.compare_tile(tree, tile, &hashes)?;
        }
        match self.root() == *checkpoint.root() {
            true => Ok(true),
            false => Err(Fault::Root),
        }
    }

    fn append(&mut self, index: u64, leaves: Leaves) -> Result<(), Fault> {
        let start = index * TILE_WIDTH;
        let too_large = |error: merkle_tree::OutOfRange| Fault::Unread(error.to_string());
        let (hashes, root) = match leaves {
            Leaves::Entries {
                hashes,
                root,
                withheld,
            } => {
                self.tiles += 1;
                // Of a tile that had begun, the first ones were counted.
                let done = (self.size() - start) as usize;
                let withheld = withheld.iter().filter(|place| **place >= done).count();
                self.withheld += withheld as u64;
                self.entries += hashes.len().saturating_sub(done + withheld) as u64;
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
                    return Err(Fault::Unread(what.to_owned()));
                }
                self.begins_at(start)?;
                self.pruned_to = start + TILE_WIDTH;
                self.frontier.push_tile(root).map_err(too_large)?;
                return self.meets_kept();
            }
        };
        let done = (self.size() - start) as usize;
        if self.frontier.edge() != &hashes[..done.min(hashes.len())] {
            let tile = TilePath::new(TileLevel::Hashes(0), index, hashes.len() as u16);
            return Err(tile.map_or_else(|e| Fault::Unread(e.to_string()), Fault::Tile));
        }
        let whole = hashes.len() as u64 == TILE_WIDTH
            && done == 0
            && !self.kept_in(start, start + TILE_WIDTH - 1);
        match whole {
            true => self.frontier.push_tile(root).map_err(too_large)?,
            false => {
                for hash in hashes.into_iter().skip(done) {
                    self.meets_kept()?;
                    self.frontier.push(hash).map_err(too_large)?;
                }
            }
        }
        self.meets_kept()
    }

    /// That no leaf of a tile is there yet of which there is only the root.
    fn begins_at(&self, start: u64) -> Result<(), Fault> {
        match self.size() == start {
            true => Ok(()),
            false => Err(Fault::Unread(format!(
                "the hashes from {start} on were pruned before they were all read"
            ))),
        }
    }

    fn without_entries(&mut self, start: u64, count: u64) -> Result<(), Fault> {
        if self.wanted == Wanted::Served {
            return Ok(());
        }
        if self.first_entry != start {
            return Err(Fault::Unread(format!(
                "the entries from {start} on are missing"
            )));
        }
        self.first_entry = start + count;
        Ok(())
    }

    /// Whether the kept checkpoint's size is in the range.
    fn kept_in(&self, from: u64, to: u64) -> bool {
        let size = self.since.as_ref().map(|since| since.size().get());
        size.is_some_and(|size| (from..=to).contains(&size))
    }

    /// That the tree so far has the root that the kept checkpoint says, if it has its size.
    fn meets_kept(&self) -> Result<(), Fault> {
        match &self.since {
            Some(since) if since.size() == self.frontier.size() && *since.root() != self.root() => {
                Err(Fault::Rewritten {
                    size: since.size().get(),
                })
            }
            _ => Ok(()),
        }
    }

    fn compare_tile(&mut self, tree: &Tree, tile: TileId, hashes: &[Hash]) -> Result<(), Fault> {
        let level = TileLevel::Hashes(tile.level);
        let path = TilePath::new(level, tile.index, hashes.len() as u16)
            .map_err(|error| Fault::Unread(error.to_string()))?;
        match tree.hashes(level, tile.index)? {
            Some(stored) if stored == hashes => self.tiles += 1,
            Some(_) => return Err(Fault::Tile(path)),
            None => return Err(Fault::Unread(format!("{path} is missing"))),
        }
        Ok(())
    }
}
