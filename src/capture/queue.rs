//! `merkle_pending`: changes that triggers have captured and no batch has logged yet.
//!
//! A queue row holds many changes of one statement, so that a bulk statement costs a row of queue for
//! hundreds of its own. Draining needs no watermark: what is visible is committed.

use crate::catalog::logs::Log;
use crate::catalog::sources::Source;
use crate::encode::time;
use crate::error::Error;
use crate::pg::insert;
use crate::pg::spi::{Cursor, Row, Snapshot};
use crate::session::Session;
use crate::store::leaves::Statement;
use leaf_format::{Kind, Origin};
use pgrx::{IntoDatum, pg_sys};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

/// Bytes of changes in one queue row: it fits a page, and is not moved out of line.
const ROOM: usize = 6500;
/// What an element costs beside its bytes.
const OVERHEAD: usize = 16;
/// Queue rows fetched at once.
const FETCH: i64 = 64;

/// Where the queue is.
pub struct Pack {
    table: pg_sys::Oid,
    sequence: pg_sys::Oid,
}

/// Keys, leaves and salts of some changes.
#[derive(Default)]
pub struct Packed {
    keys: Vec<String>,
    leaves: Vec<Vec<u8>>,
    salts: Vec<Vec<u8>>,
    bytes: usize,
}

impl Packed {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn has_room_for(&self, key: &str, leaf: &[u8]) -> bool {
        self.is_empty() || self.bytes + key.len() + leaf.len() + 3 * OVERHEAD <= ROOM
    }

    pub fn add(&mut self, key: String, leaf: Vec<u8>, salt: Option<Vec<u8>>) {
        self.bytes += key.len() + leaf.len() + 3 * OVERHEAD;
        self.keys.push(key);
        self.leaves.push(leaf);
        self.salts.extend(salt);
    }
}

impl Pack {
    pub fn load(session: &Session) -> Result<Pack, Error> {
        session
            .fresh_one(
                "SELECT '@extschema@.merkle_pending'::pg_catalog.regclass::pg_catalog.oid,
                        '@extschema@.merkle_pending_id'::pg_catalog.regclass::pg_catalog.oid",
                &[],
                |row| Pack {
                    table: row.required(0),
                    sequence: row.required(1),
                },
            )
            .ok_or(Error::NotInstalled)
    }

    /// Writes one queue row. `shape`: the version of the columns on record, or the columns; `what`:
    /// the kind of the changes, and whether the leaves are leaf data rather than hashes.
    pub fn write(
        &self,
        source: &Source,
        shape: (Option<i32>, Option<&Vec<String>>),
        what: (Kind, bool),
        origin: &Origin,
        packed: Packed,
    ) {
        let salts = (!packed.salts.is_empty()).then_some(packed.salts);
        let row = [
            source.log_id.into_datum(),
            insert::next_value(self.sequence).into_datum(),
            source.id.into_datum(),
            shape.0.into_datum(),
            shape.1.cloned().into_datum(),
            what.0.as_str().into_datum(),
            Some(pg_sys::Datum::from(origin.transaction)),
            origin.user.into_datum(),
            origin.application.into_datum(),
            Some(pg_sys::Datum::from(time::server_micros(origin.at))),
            packed.keys.into_datum(),
            what.1.into_datum(),
            packed.leaves.into_datum(),
            salts.into_datum(),
        ];
        insert::insert(self.table, &row);
    }
}

/// Changes of one kind that one statement made.
pub struct Changes {
    pub id: i64,
    /// Where the queue row lies.
    pub place: String,
    pub version: Option<i32>,
    /// The columns, where no version on record had them.
    pub columns: Option<Vec<String>>,
    pub statement: Rc<Statement>,
    pub keys: Vec<String>,
    /// The leaves are leaf data, not hashes.
    pub whole: bool,
    pub leaves: Vec<Vec<u8>>,
    pub salts: Option<Vec<Vec<u8>>>,
}

fn bytes(row: &Row, column: usize) -> Option<Vec<Vec<u8>>> {
    let array: pgrx::Array<&[u8]> = row.get(column)?;
    Some(array.iter().flatten().map(<[u8]>::to_vec).collect())
}

fn changes(row: &Row) -> Changes {
    Changes {
        id: row.required(0),
        version: row.get(1),
        columns: row.get(2),
        statement: Rc::new(Statement {
            source_id: row.required(3),
            kind: row.required(4),
            transaction: row.required::<String>(5).parse().unwrap_or(0),
            user: row.required(6),
            application: row.required(7),
            at: row.required(8),
        }),
        keys: row.required(9),
        whole: row.required(10),
        leaves: bytes(row, 11).unwrap_or_default(),
        salts: bytes(row, 12),
        place: row.required(13),
    }
}

/// The first rows of a log's queue as it is when this is opened, in the order of capture.
pub struct Queue {
    cursor: Cursor,
    fetched: VecDeque<Changes>,
    done: bool,
}

impl Queue {
    /// The first `rows` rows. They are found by their numbers alone, so that a long queue is read
    /// through, but not sorted, for each batch.
    pub fn open(session: &Session, log: &Log, rows: i64) -> Queue {
        let cursor = session.cursor(
            "SELECT p.pending_id, p.version, p.columns, p.source_id, p.kind, p.transaction_id::pg_catalog.text,
                    p.user_name, p.application_name, (EXTRACT(epoch FROM p.statement_at) * 1000000)::pg_catalog.int8,
                    p.keys, p.whole, p.leaves, p.salts, p.ctid::pg_catalog.text
               FROM (SELECT f.ctid AS place, f.pending_id FROM @extschema@.merkle_pending f
                      WHERE f.log_id = $1 ORDER BY f.pending_id LIMIT $2) q
               JOIN @extschema@.merkle_pending p ON p.ctid = q.place
              ORDER BY q.pending_id",
            &[log.id.into(), rows.into()],
        );
        Queue {
            cursor,
            fetched: VecDeque::new(),
            done: false,
        }
    }

    pub fn next(&mut self) -> Option<Changes> {
        if self.fetched.is_empty() && !self.done {
            let fetched = &mut self.fetched;
            self.cursor
                .fetch(FETCH, |row| fetched.push_back(changes(row)));
            self.done = (self.fetched.len() as i64) < FETCH;
        }
        self.fetched.pop_front()
    }
}

/// Deletes queue rows that have been logged, by their places: nothing ever moves them.
pub fn forget(session: &Session, places: &[String]) {
    for places in places.chunks(10_000) {
        session.execute(
            "DELETE FROM @extschema@.merkle_pending p WHERE p.ctid = ANY ($1::pg_catalog.tid[])",
            &[places.to_vec().into()],
        );
    }
}

/// The queue's table, and its size in bytes.
pub fn table(session: &Session) -> Option<(pg_sys::Oid, i64)> {
    session.fresh_one(
        "SELECT q, pg_catalog.pg_relation_size(q) FROM (SELECT '@extschema@.merkle_pending'::pg_catalog.regclass) t (q)",
        &[],
        |row| (row.required(0), row.required(1)),
    )
}

/// Those of `keys` that have changes in the queue.
pub fn waiting(
    session: &Session,
    snapshot: Snapshot,
    source: &Source,
    keys: Vec<String>,
) -> HashSet<String> {
    session
        .query(
            snapshot,
            "SELECT k FROM @extschema@.merkle_pending p, pg_catalog.unnest(p.keys) k
              WHERE p.log_id = $1 AND p.source_id = $2 AND k = ANY ($3)",
            &[source.log_id.into(), source.id.into(), keys.into()],
            |row| row.required(0),
        )
        .into_iter()
        .collect()
}
