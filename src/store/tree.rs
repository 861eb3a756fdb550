//! The tree crate's view of `merkle_log` (level 0) and `merkle_tile` (all others).

use crate::cache::{self, Cache};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::index::{Direction, Index, Key};
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use crate::store::entries;
use merkle_tree::{HASH_SIZE, Hash, HashReader, TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};
use std::ops::Range;

/// Reads stored hashes of one log under one kind of snapshot.
pub struct TreeReader<'a> {
    session: &'a Session,
    log: &'a Log,
    snapshot: Snapshot,
    cache: Cache,
    entries: Option<Index>,
    tiles: Option<Index>,
    /// The leaf hashes that were read last: the first one's index, and they.
    group: (i64, Vec<Hash>),
}

/// Leaves that are read together where a few of them are asked for: a proof needs all of these.
const GROUP: i64 = 1 << GROUP_HEIGHT;
const GROUP_HEIGHT: u32 = 4;

/// True but for small complete subtrees: those are sooner computed, from leaves that are read anyway.
fn worth_keeping(leaves: &Range<u64>) -> bool {
    let length = leaves.end - leaves.start;
    !length.is_power_of_two() || length >= GROUP as u64
}

impl<'a> TreeReader<'a> {
    /// Reads the tables only: for those who write, and those who check.
    pub fn new(session: &'a Session, log: &'a Log, snapshot: Snapshot) -> Self {
        TreeReader {
            session,
            log,
            snapshot,
            cache: Cache::none(),
            entries: None,
            tiles: None,
            group: (0, Vec::new()),
        }
    }

    /// Reads through the node cache.
    pub fn cached(session: &'a Session, log: &'a Log, snapshot: Snapshot) -> Self {
        TreeReader {
            cache: Cache::of(session, log),
            ..TreeReader::new(session, log, snapshot)
        }
    }

    fn leaf_hashes(&mut self, first: i64, count: usize) -> Result<Vec<Hash>, Error> {
        let end = first + count as i64;
        let group = first - first % GROUP;
        if end > group + GROUP {
            return self.read_leaf_hashes(first, count);
        }
        let held = |(start, hashes): &(i64, Vec<Hash>)| {
            *start <= first && end <= start + hashes.len() as i64
        };
        if !held(&self.group) {
            self.group = (group, self.read_leaf_hashes(group, GROUP as usize)?);
        }
        let place = (first - group) as usize;
        let hashes = self.group.1.iter().skip(place).take(count);
        Ok(hashes.copied().collect())
    }

    fn read_leaf_hashes(&mut self, first: i64, count: usize) -> Result<Vec<Hash>, Error> {
        let entries = match &mut self.entries {
            Some(open) => open,
            closed => closed.insert(entries::open(self.session)?),
        };
        entries::leaf_hashes(entries, self.snapshot, self.log, first, count)
    }

    fn tile_hashes(&mut self, tile: TileId, first: u8, count: usize) -> Result<Vec<Hash>, Error> {
        let tiles = match &mut self.tiles {
            Some(open) => open,
            closed => closed.insert(self.session.index(c"merkle_tile", c"merkle_tile_pkey")?),
        };
        let keys = [
            Key::int4(1, self.log.id),
            Key::int2(2, tile.level.into()),
            Key::int8(3, tile.index as i64),
        ];
        let (start, length) = (usize::from(first) * HASH_SIZE, count * HASH_SIZE);
        let part = |row: &Row| row.bytes(3, start, length);
        let bytes = tiles.first(self.snapshot, &keys, Direction::Forward, part);
        hashes(self.log, &bytes.flatten().unwrap_or_default())
    }
}

impl HashReader for TreeReader<'_> {
    type Error = Error;

    fn recall(&mut self, leaves: &Range<u64>) -> Option<Hash> {
        match worth_keeping(leaves) {
            true => self.cache.recall(leaves),
            false => None,
        }
    }

    fn learn(&mut self, leaves: &Range<u64>, hash: &Hash) {
        if worth_keeping(leaves) {
            self.cache.learn(leaves, hash);
        }
    }

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Error> {
        let start = (tile.index * TILE_WIDTH) as i64 + i64::from(first);
        // Of pruned entries, only tiles that a tree head cuts are left.
        match tile.level == 0 && start >= self.log.pruned_to {
            true => self.leaf_hashes(start, count.into()),
            false => self.tile_hashes(tile, first, count.into()),
        }
    }
}

/// Puts as much of a log's tree into the node cache as there is room for, from its root down; returns
/// how many hashes.
pub fn warm(session: &Session, log: &Log) -> Result<i64, Error> {
    let cache = Cache::of(session, log);
    let Some((_, room)) = cache::occupancy() else {
        return Ok(0);
    };
    let size = super::heads::latest(session, Snapshot::Statement, log)?.tree_size as u64;
    // A tree of n leaves has about 2n/2^h complete subtrees of height h and above.
    let lowest = (GROUP_HEIGHT..62)
        .find(|h| (size >> h) * 2 <= room)
        .unwrap_or(62);
    let mut reader = TreeReader::new(session, log, Snapshot::Statement);
    let mut put = 0;
    for level in (lowest / TILE_HEIGHT..62 / TILE_HEIGHT).rev() {
        let nodes = size >> (TILE_HEIGHT * level);
        for index in 0..nodes.div_ceil(TILE_WIDTH) {
            pgrx::check_for_interrupts!();
            let tile = TileId {
                level: level as u8,
                index,
            };
            let count = (nodes - index * TILE_WIDTH).min(TILE_WIDTH) as u16;
            // Of a pruned part there may be nothing.
            let mut hashes = reader.read(tile, 0, count)?;
            for bit in 0..TILE_HEIGHT {
                let height = TILE_HEIGHT * level + bit;
                if height >= lowest {
                    let first = (index * TILE_WIDTH) >> bit;
                    for (place, hash) in hashes.iter().enumerate() {
                        let at = first + place as u64;
                        cache.learn(&(at << height..(at + 1) << height), hash);
                        put += 1;
                    }
                }
                let pairs = hashes.as_chunks::<2>().0;
                hashes = pairs
                    .iter()
                    .map(|[l, r]| merkle_tree::node_hash(l, r))
                    .collect();
            }
        }
    }
    Ok(put)
}

/// Splits concatenated hashes.
pub fn hashes(log: &Log, bytes: &[u8]) -> Result<Vec<Hash>, Error> {
    bytes
        .chunks(HASH_SIZE)
        .map(|chunk| {
            Hash::try_from(chunk).map_err(|e| Error::Damaged {
                log: log.name.clone(),
                problem: e.to_string(),
            })
        })
        .collect()
}

/// The tree crate's error in terms of the log.
pub fn tree_error(log: &Log, error: merkle_tree::Error<Error>) -> Error {
    match error {
        merkle_tree::Error::Read(error) => error,
        merkle_tree::Error::ShortRead { tile, .. }
            if tile.level == 0 && ((tile.index * TILE_WIDTH) as i64) < log.pruned_to =>
        {
            Error::PrunedProof {
                log: log.name.clone(),
                pruned_to: log.pruned_to,
            }
        }
        other => Error::Damaged {
            log: log.name.clone(),
            problem: other.to_string(),
        },
    }
}

/// A size that came from a table or a caller.
pub fn tree_size(log: &Log, size: i64) -> Result<TreeSize, Error> {
    u64::try_from(size)
        .ok()
        .and_then(|n| TreeSize::new(n).ok())
        .ok_or_else(|| Error::Damaged {
            log: log.name.clone(),
            problem: format!("{size} is no tree size"),
        })
}
