//! `merkle_log`: entries by position and by source row.

use crate::catalog::logs::Log;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use std::collections::HashSet;

#[derive(Clone, Debug)]
pub struct Entry {
    pub leaf_index: i64,
    pub source_id: i32,
    pub key: String,
    pub leaf_hash: Vec<u8>,
}

const COLUMNS: &str = "m.leaf_index, m.source_id, m.source_key, m.leaf_hash";

fn from_row(row: &Row) -> Entry {
    Entry {
        leaf_index: row.required(0),
        source_id: row.required(1),
        key: row.required(2),
        leaf_hash: row.required(3),
    }
}

/// The entries `from .. to`, in order, as the calling statement sees them.
pub fn between(session: &Session, log: &Log, from: i64, to: i64) -> Vec<Entry> {
    session.read(
        &format!(
            "SELECT {COLUMNS} FROM @extschema@.merkle_log m
              WHERE m.log_id = $1 AND m.leaf_index >= $2 AND m.leaf_index < $3 ORDER BY m.leaf_index"
        ),
        &[log.id.into(), from.into(), to.into()],
        from_row,
    )
}

/// The latest entry of a source row.
pub fn latest_of(session: &Session, snapshot: Snapshot, source_id: i32, key: &str) -> Option<i64> {
    session
        .query(
            snapshot,
            "SELECT m.leaf_index FROM @extschema@.merkle_log m
              WHERE m.source_id = $1 AND m.source_key = $2 ORDER BY m.leaf_index DESC LIMIT 1",
            &[source_id.into(), key.into()],
            |row| row.required(0),
        )
        .pop()
}

/// Those of `keys` that the source has an entry for.
pub fn logged(
    session: &Session,
    snapshot: Snapshot,
    source_id: i32,
    keys: Vec<String>,
) -> HashSet<String> {
    session
        .query(
            snapshot,
            "SELECT m.source_key FROM @extschema@.merkle_log m
              WHERE m.source_id = $1 AND m.source_key = ANY ($2)",
            &[source_id.into(), keys.into()],
            |row| row.required(0),
        )
        .into_iter()
        .collect()
}
