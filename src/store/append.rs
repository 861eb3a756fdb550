//! Appending to a log: entries in bulk, each tile written once, one tree head at the end.

use super::tree::{TreeReader, tree_error, tree_size};
use super::{heads, heads::Head};
use crate::capture::scan::Leaf;
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use merkle_tree::{Frontier, Hash};

/// Entries that are written by one statement.
const CHUNK: usize = 8192;
/// Completed tiles, of 8 kB, that wait in memory at most.
const TILES: usize = 256;

pub struct Appender<'a> {
    session: &'a Session,
    log: &'a Log,
    start: i64,
    frontier: Frontier,
    source_ids: Vec<i32>,
    keys: Vec<String>,
    orders: Vec<String>,
    hashes: Vec<Vec<u8>>,
    scratch: Scratch,
}

impl<'a> Appender<'a> {
    /// Goes on where the log's latest head ends. The caller holds the log's lock.
    pub fn open(session: &'a Session, log: &'a Log) -> Result<Appender<'a>, Error> {
        let start = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
        let frontier = Frontier::load(
            &mut TreeReader::new(session, log, Snapshot::Fresh),
            tree_size(log, start)?,
        )
        .map_err(|e| tree_error(log, e))?;
        Ok(Appender {
            session,
            log,
            start,
            frontier,
            source_ids: Vec::new(),
            keys: Vec::new(),
            orders: Vec::new(),
            hashes: Vec::new(),
            scratch: Scratch::new(),
        })
    }

    /// Appends a leaf and returns its index.
    pub fn push(&mut self, source_id: i32, leaf: Leaf) -> Result<i64, Error> {
        let index = self.size();
        self.frontier.push(leaf.hash).map_err(|e| Error::Damaged {
            log: self.log.name.clone(),
            problem: e.to_string(),
        })?;
        self.source_ids.push(source_id);
        self.keys.push(leaf.key);
        self.orders
            .push(leaf.position.into_iter().next().unwrap_or_default());
        self.hashes.push(leaf.hash.as_bytes().to_vec());
        if self.source_ids.len() == CHUNK {
            self.write_entries();
            if self.frontier.pending_tiles() >= TILES {
                self.write_tiles();
            }
        }
        Ok(index)
    }

    /// Entries so far, those of earlier batches included.
    pub fn size(&self) -> i64 {
        self.frontier.size().get() as i64
    }

    /// Writes what is left, and a tree head if anything was appended.
    pub fn finish(mut self) -> Result<Appended, Error> {
        self.write_entries();
        self.write_tiles();
        let entries = self.size() - self.start;
        if entries > 0 {
            heads::insert(self.session, self.log, self.size(), &self.frontier.root());
        }
        Ok(Appended {
            entries,
            head: heads::latest(self.session, Snapshot::Fresh, self.log)?,
        })
    }

    fn write_entries(&mut self) {
        let Appender {
            session,
            log,
            source_ids,
            keys,
            orders,
            hashes,
            scratch,
            frontier,
            ..
        } = self;
        let first = frontier.size().get() as i64 - source_ids.len() as i64;
        scratch.scope(|| {
            session.execute(
                "INSERT INTO @extschema@.merkle_log (log_id, source_id, leaf_index, source_key, order_value, leaf_hash)
                 SELECT $1, e.source_id, $2 + e.place - 1, e.source_key, e.order_value, e.leaf_hash
                   FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4),
                                   pg_catalog.unnest($5), pg_catalog.unnest($6))
                        WITH ORDINALITY e (source_id, source_key, order_value, leaf_hash, place)",
                &[
                    log.id.into(),
                    first.into(),
                    std::mem::take(source_ids).into(),
                    std::mem::take(keys).into(),
                    std::mem::take(orders).into(),
                    std::mem::take(hashes).into(),
                ],
            )
        });
    }

    fn write_tiles(&mut self) {
        let Appender {
            session,
            log,
            scratch,
            frontier,
            ..
        } = self;
        let tiles = frontier.take_tiles();
        scratch.scope(|| {
            session.execute(
                "INSERT INTO @extschema@.merkle_tile (log_id, level, tile_index, hashes)
                 SELECT $1, t.* FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) t
                 ON CONFLICT (log_id, level, tile_index) DO UPDATE SET hashes = EXCLUDED.hashes",
                &[
                    log.id.into(),
                    tiles.iter().map(|(t, _)| i16::from(t.level)).collect::<Vec<_>>().into(),
                    tiles.iter().map(|(t, _)| t.index as i64).collect::<Vec<_>>().into(),
                    tiles.iter().map(|(_, h)| concat(h)).collect::<Vec<_>>().into(),
                ],
            )
        });
    }
}

/// What a batch did.
pub struct Appended {
    pub entries: i64,
    pub head: Head,
}

/// Hashes as a tile stores them.
pub fn concat(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|h| *h.as_bytes()).collect()
}
