//! `merkle_order_index`: where entries that stand in the order of their keys are.
//!
//! Such entries of a source only ever go up, in leaf index and in key, so it is enough to know the first
//! of each tile: an entry is in the tile of the last mark at or before its key. That is one row for up
//! to 256 entries, where an index on the key would cost more than all else that a batch writes.

use crate::capture::order::SortKey;
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::bulk::Column;
use crate::pg::index::{Direction, Index, Key};
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use merkle_tree::TILE_WIDTH;
use std::collections::HashMap;

const TILE: i64 = TILE_WIDTH as i64;

/// The first entry of a source, of those in order, in a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub source_id: i32,
    pub key: SortKey,
    pub leaf_index: i64,
}

impl Mark {
    /// How far a key is behind the mark's, if it is in reach of a tile.
    pub fn distance_to(&self, key: &SortKey) -> Option<i64> {
        let distance = u128::from_be_bytes(*key).checked_sub(u128::from_be_bytes(self.key))?;
        i64::try_from(distance).ok().filter(|d| *d < TILE)
    }

    /// As a row of the table.
    pub fn row(&self) -> [Column<'_>; 3] {
        [
            Column::Int4(self.source_id),
            Column::Bytes(&self.key),
            Column::Int8(self.leaf_index),
        ]
    }
}

/// The tile that a leaf is in.
pub fn tile_of(leaf_index: i64) -> i64 {
    leaf_index / TILE
}

fn open(session: &Session) -> Result<Index, Error> {
    session.index(c"merkle_order_index", c"merkle_order_index_pkey")
}

fn from_row(row: &Row) -> Option<Mark> {
    Some(Mark {
        source_id: row.required(0),
        key: row.required::<&[u8]>(1).try_into().ok()?,
        leaf_index: row.required(2),
    })
}

/// The last mark at or before a key, and the end of the tile it is in: the key's entry is between.
pub fn before(
    session: &Session,
    snapshot: Snapshot,
    source_id: i32,
    key: &SortKey,
) -> Result<Option<(Mark, i64)>, Error> {
    let keys = [Key::int4(1, source_id), Key::bytes_at_most(2, key)];
    let mark = open(session)?.first(snapshot, &keys, Direction::Backward, from_row);
    Ok(mark
        .flatten()
        .map(|mark| (mark, (tile_of(mark.leaf_index) + 1) * TILE)))
}

/// The leaf indexes between which the source's entries in order with keys from `first` to `last` are;
/// entries of others are there too.
pub fn span(
    session: &Session,
    snapshot: Snapshot,
    source_id: i32,
    first: &SortKey,
    last: &SortKey,
) -> Result<Option<(i64, i64)>, Error> {
    let Some((_, to)) = before(session, snapshot, source_id, last)? else {
        return Ok(None);
    };
    let from = match before(session, snapshot, source_id, first)? {
        Some((mark, _)) => Some(mark),
        None => {
            let source = [Key::int4(1, source_id)];
            let least = open(session)?.first(snapshot, &source, Direction::Forward, from_row);
            least.flatten()
        }
    };
    Ok(from.map(|mark| (mark.leaf_index, to)))
}

/// The tile that a log of `size` entries ends in, for each source that has a mark in it.
pub fn marked_since(session: &Session, log: &Log, size: i64) -> HashMap<i32, i64> {
    let tile = tile_of(size);
    if size == tile * TILE {
        return HashMap::new();
    }
    let marked = session.fresh(
        "SELECT s.source_id FROM @extschema@.verification_sources s
           CROSS JOIN LATERAL (SELECT i.leaf_index FROM @extschema@.merkle_order_index i
                                WHERE i.source_id = s.source_id ORDER BY i.order_key DESC LIMIT 1) last
          WHERE s.log_id = $1 AND last.leaf_index >= $2",
        &[log.id.into(), (tile * TILE).into()],
        |row| (row.required(0), tile),
    );
    marked.into_iter().collect()
}

/// Those of `wanted` that are not stored as they should be.
pub fn missing(session: &Session, wanted: impl Iterator<Item = Mark>) -> Result<Vec<Mark>, Error> {
    let mut marks = open(session)?;
    let mut stored = |mark: &Mark| {
        let keys = [
            Key::int4(1, mark.source_id),
            Key::bytes_at_most(2, &mark.key),
        ];
        let found = marks.first(Snapshot::Statement, &keys, Direction::Backward, from_row);
        found.flatten() == Some(*mark)
    };
    Ok(wanted.filter(|m| !stored(m)).collect())
}

/// A mark as it is stored, whatever it is.
pub struct Stored {
    pub key: Vec<u8>,
    pub leaf_index: i64,
}

/// The marks of a source behind a key, in the order of keys, at most `limit`, as the calling statement sees them.
pub fn page(session: &Session, source_id: i32, after: Option<&[u8]>, limit: i64) -> Vec<Stored> {
    session.read(
        "SELECT i.order_key, i.leaf_index FROM @extschema@.merkle_order_index i
          WHERE i.source_id = $1 AND i.order_key > $2 ORDER BY i.order_key LIMIT $3",
        &[
            source_id.into(),
            after.unwrap_or_default().into(),
            limit.into(),
        ],
        |row| Stored {
            key: row.required(0),
            leaf_index: row.required(1),
        },
    )
}
