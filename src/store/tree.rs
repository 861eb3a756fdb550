//! The tree crate's view of `merkle_log` (level 0) and `merkle_tile` (all others).

use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use merkle_tree::{HASH_SIZE, Hash, HashReader, TILE_WIDTH, TileId, TreeSize};

/// Reads stored hashes of one log under one kind of snapshot.
pub struct TreeReader<'a> {
    session: &'a Session,
    log: &'a Log,
    snapshot: Snapshot,
}

impl<'a> TreeReader<'a> {
    pub fn new(session: &'a Session, log: &'a Log, snapshot: Snapshot) -> Self {
        TreeReader {
            session,
            log,
            snapshot,
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

    fn read(&mut self, tile: TileId, first: u8, count: u16) -> Result<Vec<Hash>, Error> {
        let (first, count) = (i64::from(first), i64::from(count));
        let bytes: Vec<u8> = if tile.level == 0 {
            let start = (tile.index * TILE_WIDTH) as i64 + first;
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
