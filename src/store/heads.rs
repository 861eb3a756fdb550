//! `merkle_tree_head`: one row a batch.

use super::tree::{TreeReader, hashes, tree_error, tree_size};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::index::{Direction, Key};
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use merkle_tree::{EMPTY_ROOT, Hash, root};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub tree_size: i64,
    pub root: Hash,
    /// `None` for the empty tree, which no batch made.
    pub created_at: Option<TimestampWithTimeZone>,
}

impl Head {
    const EMPTY: Head = Head {
        tree_size: 0,
        root: EMPTY_ROOT,
        created_at: None,
    };
}

const COLUMNS: &str = "h.tree_size, h.root_hash, h.created_at";

/// Size, root and time, as stored.
pub type Columns = (i64, Vec<u8>, Option<TimestampWithTimeZone>);

fn from_row(row: &Row) -> Columns {
    (row.required(0), row.required(1), row.get(2))
}

fn head(log: &Log, (tree_size, root, created_at): Columns) -> Result<Head, Error> {
    match hashes(log, &root)?.as_slice() {
        [root] => Ok(Head {
            tree_size,
            root: *root,
            created_at,
        }),
        _ => Err(Error::Damaged {
            log: log.name.clone(),
            problem: format!("the root at size {tree_size} is no hash"),
        }),
    }
}

/// The latest head.
pub fn latest(session: &Session, snapshot: Snapshot, log: &Log) -> Result<Head, Error> {
    // tree_size, root_hash and created_at are the second to fourth columns.
    let map = |row: &Row| (row.required(1), row.required(2), row.get(3));
    session
        .index(c"merkle_tree_head", c"merkle_tree_head_pkey")?
        .first(snapshot, &[Key::int4(1, log.id)], Direction::Backward, map)
        .map_or(Ok(Head::EMPTY), |row| head(log, row))
}

/// The heads with sizes in `from ..= to`, smallest first, at most `limit`.
pub fn between(session: &Session, log: &Log, from: i64, to: i64, limit: i64) -> Vec<Columns> {
    session.read(
        &format!(
            "SELECT {COLUMNS} FROM @extschema@.merkle_tree_head h
              WHERE h.log_id = $1 AND h.tree_size >= $2 AND h.tree_size <= $3
              ORDER BY h.tree_size LIMIT $4"
        ),
        &[log.id.into(), from.into(), to.into(), limit.into()],
        from_row,
    )
}

/// A size up to the log's, its own if none is asked for, and the root there: the stored one where that
/// is the latest, else computed.
pub fn at(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    size: Option<i64>,
) -> Result<(i64, Hash), Error> {
    let latest = latest(session, snapshot, log)?;
    let size = size.unwrap_or(latest.tree_size);
    if size == latest.tree_size {
        return Ok((size, latest.root));
    }
    if size < 0 || size > latest.tree_size {
        return Err(Error::SizeOutOfRange {
            log: log.name.clone(),
            wanted: size,
            size: latest.tree_size,
        });
    }
    let mut reader = TreeReader::cached(session, log, snapshot);
    let root = root(&mut reader, tree_size(log, size)?).map_err(|e| tree_error(log, e))?;
    Ok((size, root))
}

/// Commits the tree to a new size, after a batch that took `duration`.
pub fn insert(
    session: &Session,
    log: &Log,
    tree_size: i64,
    root: Hash,
    duration: Duration,
) -> Head {
    let created_at = session.fresh_one(
        "INSERT INTO @extschema@.merkle_tree_head (log_id, tree_size, root_hash, duration)
         VALUES ($1, $2, $3, $4) RETURNING created_at",
        &[
            log.id.into(),
            tree_size.into(),
            root.as_bytes().as_slice().into(),
            Interval::from_micros(duration.as_micros() as i64).into(),
        ],
        |row| row.required(0),
    );
    Head {
        tree_size,
        root,
        created_at,
    }
}

/// Tells those who LISTEN on channel `merkle_log`, once the batch has committed.
pub fn notify(session: &Session, log: &Log, head: &Head) {
    session.execute(
        "SELECT pg_catalog.pg_notify('merkle_log', pg_catalog.json_build_object(
            'log', $1::pg_catalog.text, 'size', $2::pg_catalog.int8, 'root', $3::pg_catalog.text)::pg_catalog.text)",
        &[
            log.name.as_str().into(),
            head.tree_size.into(),
            head.root.to_string().into(),
        ],
    );
}
