//! Appending to a log: entries in bulk, each tile written once, one tree head at the end.

use super::leaves::Statement;
use super::tree::{TreeReader, tree_error, tree_size};
use super::{heads, heads::Head};
use crate::cache;
use crate::capture::scan::Leaf;
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::settings;
use merkle_tree::{Frontier, Hash};
use std::rc::Rc;
use std::time::Instant;

/// Entries that are written by one statement.
const CHUNK: usize = 8192;
/// Completed tiles, of 8 kB, that wait in memory at most.
const TILES: usize = 256;

/// An entry to be.
pub struct Entry {
    pub source_id: i32,
    pub key: String,
    /// Text form of the order value.
    pub order: String,
    pub hash: Hash,
    pub salt: Option<Vec<u8>>,
    pub leaf_data: Option<Vec<u8>>,
}

impl Entry {
    /// The entry of a row; `ordered` if the log goes by the rows' order values.
    pub fn of_row(source_id: i32, leaf: Leaf, ordered: bool) -> Entry {
        let first = leaf.position.into_iter().next();
        Entry {
            source_id,
            key: leaf.key,
            order: first.filter(|_| ordered).unwrap_or_default(),
            hash: leaf.hash,
            salt: leaf.salt,
            leaf_data: leaf.leaf_data,
        }
    }
}

pub struct Appender<'a> {
    session: &'a Session,
    log: &'a Log,
    start: i64,
    began: Instant,
    frontier: Frontier,
    source_ids: Vec<i32>,
    keys: Vec<String>,
    orders: Vec<String>,
    hashes: Vec<Vec<u8>>,
    kept: Kept,
    /// Runs of entries and the statements that made them: first index, number, statement.
    runs: Vec<(i64, i32, Rc<Statement>)>,
    scratch: Scratch,
}

/// Rows of `merkle_leaf_data`, by column.
#[derive(Default)]
struct Kept {
    indexes: Vec<i64>,
    salts: Vec<Option<Vec<u8>>>,
    leaf_data: Vec<Option<Vec<u8>>>,
}

impl<'a> Appender<'a> {
    /// Goes on where the log's latest head ends. The caller holds the log's lock.
    pub fn open(session: &'a Session, log: &'a Log) -> Result<Appender<'a>, Error> {
        let began = Instant::now();
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
            began,
            frontier,
            source_ids: Vec::new(),
            keys: Vec::new(),
            orders: Vec::new(),
            hashes: Vec::new(),
            kept: Kept::default(),
            runs: Vec::new(),
            scratch: Scratch::new(),
        })
    }

    /// Appends a leaf and returns its index.
    pub fn push(&mut self, entry: Entry) -> Result<i64, Error> {
        let index = self.size();
        self.frontier.push(entry.hash).map_err(|e| Error::Damaged {
            log: self.log.name.clone(),
            problem: e.to_string(),
        })?;
        self.source_ids.push(entry.source_id);
        self.keys.push(entry.key);
        self.orders.push(entry.order);
        self.hashes.push(entry.hash.as_bytes().to_vec());
        if entry.salt.is_some() || entry.leaf_data.is_some() {
            self.kept.indexes.push(index);
            self.kept.salts.push(entry.salt);
            self.kept.leaf_data.push(entry.leaf_data);
        }
        if self.source_ids.len() == CHUNK {
            self.flush();
        }
        Ok(index)
    }

    /// The entries from `first` on were made by `statement`.
    pub fn made_by(&mut self, first: i64, statement: Rc<Statement>) {
        let entries = (self.size() - first) as i32;
        match self.runs.last_mut() {
            // Statements are packed in pieces; their run is one.
            Some((_, run, last)) if *last == statement => *run += entries,
            _ => self.runs.push((first, entries, statement)),
        }
    }

    /// Entries so far, those of earlier batches included.
    pub fn size(&self) -> i64 {
        self.frontier.size().get() as i64
    }

    /// Entries of this batch.
    pub fn entries(&self) -> i64 {
        self.size() - self.start
    }

    /// Writes the entries that wait in memory.
    pub fn flush(&mut self) {
        self.write_entries();
        self.write_kept();
        if self.frontier.pending_tiles() >= TILES {
            self.write_tiles();
        }
    }

    /// Writes what is left, and a tree head if anything was appended.
    pub fn finish(mut self) -> Result<Appended, Error> {
        self.flush();
        self.write_runs();
        let entries = self.entries();
        if entries == 0 {
            let head = heads::latest(self.session, Snapshot::Fresh, self.log)?;
            return Ok(Appended::nothing(head));
        }
        self.write_tiles();
        let (size, root) = (self.size(), self.frontier.root());
        let head = heads::insert(self.session, self.log, size, root, self.began.elapsed());
        cache::learn_after_commit(self.session, self.log, self.frontier.peaks());
        if settings::notify() {
            heads::notify(self.session, self.log, &head);
        }
        Ok(Appended {
            entries,
            head,
            more: false,
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
        if source_ids.is_empty() {
            return;
        }
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

    fn write_kept(&mut self) {
        let Appender {
            session,
            log,
            kept,
            scratch,
            ..
        } = self;
        if kept.indexes.is_empty() {
            return;
        }
        let Kept {
            indexes,
            salts,
            leaf_data,
        } = std::mem::take(kept);
        scratch.scope(|| {
            session.execute(
                "INSERT INTO @extschema@.merkle_leaf_data (log_id, leaf_index, salt, leaf_data)
                 SELECT $1, d.* FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) d",
                &[log.id.into(), indexes.into(), salts.into(), leaf_data.into()],
            )
        });
    }

    fn write_runs(&mut self) {
        let Appender {
            session,
            log,
            runs,
            scratch,
            ..
        } = self;
        for runs in std::mem::take(runs).chunks(CHUNK) {
            let of =
                |f: fn(&Statement) -> String| runs.iter().map(|(.., s)| f(s)).collect::<Vec<_>>();
            scratch.scope(|| {
                session.execute(
                    "INSERT INTO @extschema@.merkle_statement
                        (log_id, from_leaf_index, entries, source_id, kind, transaction_id, user_name, application_name, statement_at)
                     SELECT $1, t.first, t.entries, t.source_id, t.kind, t.xid::pg_catalog.xid8, t.user_name, t.application_name,
                            '1970-01-01 00:00:00+00'::pg_catalog.timestamptz + t.at * '1 microsecond'::pg_catalog.interval
                       FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                                       pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9))
                            t (first, entries, source_id, kind, xid, user_name, application_name, at)",
                    &[
                        log.id.into(),
                        runs.iter().map(|(first, ..)| *first).collect::<Vec<_>>().into(),
                        runs.iter().map(|(_, entries, _)| *entries).collect::<Vec<_>>().into(),
                        runs.iter().map(|(.., s)| s.source_id).collect::<Vec<_>>().into(),
                        of(|s| s.kind.clone()).into(),
                        of(|s| s.transaction.to_string()).into(),
                        of(|s| s.user.clone()).into(),
                        of(|s| s.application.clone()).into(),
                        runs.iter().map(|(.., s)| s.at).collect::<Vec<_>>().into(),
                    ],
                )
            });
        }
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
        if tiles.is_empty() {
            return;
        }
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
    /// There is more to log at once.
    pub more: bool,
}

impl Appended {
    pub fn nothing(head: Head) -> Appended {
        Appended {
            entries: 0,
            head,
            more: false,
        }
    }
}

/// Hashes as a tile stores them.
pub fn concat(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|h| *h.as_bytes()).collect()
}
