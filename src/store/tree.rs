//! The tree crate's view of `merkle_log` (level 0) and `merkle_tile` (all others).

use crate::cache::{self, Cache};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use merkle_tree::{HASH_SIZE, Hash, HashReader, TILE_HEIGHT, TILE_WIDTH, TileId, TreeSize};

/// Reads stored hashes of one log under one kind of snapshot.
pub struct TreeReader<'a> {
    session: &'a Session,
    log: &'a Log,
    snapshot: Snapshot,
    cache: Cache,
}

impl<'a> TreeReader<'a> {
    /// Reads the tables only: for those who write, and those who check.
    pub fn new(session: &'a Session, log: &'a Log, snapshot: Snapshot) -> Self {
        TreeReader {
            session,
            log,
            snapshot,
            cache: Cache::none(),
        }
    }

    /// Reads through the node cache.
    pub fn cached(session: &'a Session, log: &'a Log, snapshot: Snapshot) -> Self {
        TreeReader {
            cache: Cache::of(session, log),
            ..TreeReader::new(session, log, snapshot)
        }
    }

    fn select<T>(
        &self,
        sql: &str,
        tile: TileId,
        map: impl FnMut(&Row) -> T,
        from: i64,
        to: i64,
    ) -> Vec<T> {
        self.session.query(
            self.snapshot,
            sql,
            &[
                self.log.id.into(),
                i16::from(tile.level).into(),
                (tile.index as i64).into(),
                from.into(),
                to.into(),
            ],
            map,
        )
    }
}

impl HashReader for TreeReader<'_> {
    type Error = Error;

    fn recall(&mut self, height: u32, index: u64) -> Option<Hash> {
        self.cache.recall(height, index)
    }

    fn learn(&mut self, height: u32, index: u64, hash: &Hash) {
        self.cache.learn(height, index, hash);
    }

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Error> {
        let (first, count) = (i64::from(first), i64::from(count));
        let start = (tile.index * TILE_WIDTH) as i64 + first;
        // Of pruned entries, only tiles that a tree head cuts are left.
        let bytes: Vec<u8> = if tile.level == 0 && start >= self.log.pruned_to {
            self.select(
                "SELECT m.leaf_hash FROM @extschema@.merkle_log m
                  WHERE m.log_id = $1 AND m.leaf_index >= $4 AND m.leaf_index < $5
                    AND $2 >= 0 AND $3 >= 0
                  ORDER BY m.leaf_index",
                tile,
                |row| row.required::<Vec<u8>>(0),
                start,
                start + count,
            )
            .concat()
        } else {
            let width = HASH_SIZE as i64;
            self.select(
                "SELECT pg_catalog.substr(t.hashes, $4::pg_catalog.int4, $5::pg_catalog.int4)
                   FROM @extschema@.merkle_tile t
                  WHERE t.log_id = $1 AND t.level = $2 AND t.tile_index = $3",
                tile,
                |row| row.required::<Vec<u8>>(0),
                first * width + 1,
                count * width,
            )
            .concat()
        };
        hashes(self.log, &bytes)
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
    let lowest = (0..62).find(|h| (size >> h) * 2 <= room).unwrap_or(62);
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
                        cache.learn(height, first + place as u64, hash);
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
