//! `merkle_log`: entries by position and by source row.

use crate::capture::trigger::truncation_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::OF_LOG;
use crate::error::Error;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use std::collections::{HashMap, HashSet};

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

/// The entry at `index` of a log of `size` entries.
///
/// # Errors
/// If there is none, or it was pruned.
pub fn at(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    index: i64,
    size: i64,
) -> Result<Entry, Error> {
    let out_of_range = || Error::IndexOutOfRange {
        log: log.name.clone(),
        index,
        size,
    };
    if !(0..size).contains(&index) {
        return Err(out_of_range());
    }
    check_not_pruned(log, index)?;
    let sql = format!(
        "SELECT {COLUMNS} FROM @extschema@.merkle_log m WHERE m.log_id = $1 AND m.leaf_index = $2"
    );
    let found = session.query(snapshot, &sql, &[log.id.into(), index.into()], from_row);
    found.into_iter().next().ok_or_else(out_of_range)
}

/// The leaf indexes of a source row's entries, oldest first.
pub fn of_row(session: &Session, log: &Log, source_id: i32, key: &str) -> Vec<i64> {
    session.read(
        "SELECT m.leaf_index FROM @extschema@.merkle_log m
          WHERE m.source_key = $1 AND m.source_id = $2 AND m.log_id = $3
             OR m.source_key = $4 AND m.source_id = $5 AND m.log_id = $3
          ORDER BY m.leaf_index",
        &[
            key.into(),
            source_id.into(),
            log.id.into(),
            truncation_key(source_id).into(),
            OF_LOG.into(),
        ],
        |row| row.required(0),
    )
}

pub fn check_not_pruned(log: &Log, index: i64) -> Result<(), Error> {
    match index < log.pruned_to {
        false => Ok(()),
        true => Err(Error::Pruned {
            log: log.name.clone(),
            index,
            pruned_to: log.pruned_to,
        }),
    }
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

/// The latest entry of those of `keys` whose latest entry says that the row is there: neither that it
/// was deleted, nor from before the source was truncated last.
pub fn live(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    source_id: i32,
    keys: Vec<String>,
) -> HashMap<String, i64> {
    let truncated = truncated_at(session, snapshot, log, source_id);
    latest(session, snapshot, log, source_id, keys)
        .into_iter()
        .filter(|(_, (index, kind))| {
            kind.as_deref() != Some("delete") && truncated.is_none_or(|at| *index > at)
        })
        .map(|(key, (index, _))| (key, index))
        .collect()
}

/// The latest entry of each of `keys`, and what its statement did, where one made it.
fn latest(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    source_id: i32,
    keys: Vec<String>,
) -> HashMap<String, (i64, Option<String>)> {
    session
        .query(
            snapshot,
            "SELECT k.source_key, k.leaf_index, s.kind
               FROM (SELECT m.source_key, max(m.leaf_index) AS leaf_index
                       FROM @extschema@.merkle_log m
                      WHERE m.source_id = $1 AND m.source_key = ANY ($2) GROUP BY m.source_key) k
               LEFT JOIN LATERAL (SELECT t.kind, t.from_leaf_index + t.entries AS upto
                                    FROM @extschema@.merkle_statement t
                                   WHERE t.log_id = $3 AND t.from_leaf_index <= k.leaf_index
                                   ORDER BY t.from_leaf_index DESC LIMIT 1) s ON k.leaf_index < s.upto",
            &[source_id.into(), keys.into(), log.id.into()],
            |row| (row.required(0), (row.required(1), row.get(2))),
        )
        .into_iter()
        .collect()
}

/// The leaf index at which the source was truncated last.
fn truncated_at(session: &Session, snapshot: Snapshot, log: &Log, source_id: i32) -> Option<i64> {
    of_log(session, snapshot, log, &truncation_key(source_id))
}

/// The latest of the log's own entries under `key`.
pub fn of_log(session: &Session, snapshot: Snapshot, log: &Log, key: &str) -> Option<i64> {
    session
        .query(
            snapshot,
            "SELECT max(m.leaf_index) FROM @extschema@.merkle_log m
              WHERE m.source_key = $1 AND m.source_id = $2 AND m.log_id = $3",
            &[key.into(), OF_LOG.into(), log.id.into()],
            |row| row.get(0),
        )
        .pop()
        .flatten()
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
