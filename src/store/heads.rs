//! `merkle_tree_head`: one row a batch.

use super::leaves;
use super::metadata::{self, Metadata};
use super::tree::{TreeReader, hashes, tree_error, tree_size};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::index::{Direction, Key};
use crate::pg::spi::{Row, Snapshot};
use crate::pg::{parallel, server, xact};
use crate::session::Session;
use crate::shared::{self, LogCounters};
use merkle_tree::{EMPTY_ROOT, Hash, root};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub tree_size: i64,
    pub root: Hash,
    /// `None` for the empty tree, which no batch made.
    pub created_at: Option<TimestampWithTimeZone>,
}

/// Entries that are read at once.
const CHUNK: i64 = 8192;

impl Head {
    pub const EMPTY: Head = Head {
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

/// The latest head, as the table has it.
pub fn latest(session: &Session, snapshot: Snapshot, log: &Log) -> Result<Head, Error> {
    stored(session, snapshot, log).map(|(head, _)| head)
}

/// The latest head, and who wrote it.
pub fn stored(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
) -> Result<(Head, pg_sys::TransactionId), Error> {
    // tree_size, root_hash and created_at are the second to fourth columns.
    let map = |row: &Row| {
        let columns = (row.required(1), row.required(2), row.get(3));
        (columns, row.writer)
    };
    let first = session
        .index(c"merkle_tree_head", c"merkle_tree_head_pkey")?
        .first(snapshot, &[Key::int4(1, log.id)], Direction::Backward, map);
    match first {
        None => Ok((Head::EMPTY, pg_sys::InvalidTransactionId)),
        Some((columns, writer)) => Ok((head(log, columns)?, writer)),
    }
}

/// A head that was the latest, the transaction that wrote it, and how often the log's heads had changed
/// by then.
type Known = (Head, pg_sys::TransactionId, u64);

thread_local! {
    /// By extension and log.
    static KNOWN: RefCell<HashMap<(u64, i32), Known>> = RefCell::new(HashMap::new());
}

/// The latest head that the calling statement sees: the one read before, if no batch has come since.
pub fn current(session: &Session, log: &Log) -> Result<Head, Error> {
    let at = (shared::owner(session), log.id);
    // On a standby heads change without a word.
    let counters = shared::get()
        .filter(|_| !server::in_recovery())
        .and_then(|shared| shared.counters(session, log.id));
    let changes = || counters.and_then(LogCounters::head_changes_so_far);
    if let Some((head, writer, then)) = KNOWN.with_borrow(|known| known.get(&at).copied())
        && changes() == Some(then)
        && xact::sees(writer)
    {
        return Ok(head);
    }
    // What is worth knowing is the latest of all, which this statement may be too old to see.
    if let Some(before) = changes().filter(|_| !parallel::is_parallel()) {
        let (head, writer) = stored(session, Snapshot::Latest, log)?;
        // Of an empty log there is no row to tell whether a statement sees it.
        if changes() == Some(before) && head.tree_size > 0 {
            KNOWN.with_borrow_mut(|known| known.insert(at, (head, writer, before)));
        }
    }
    latest(session, Snapshot::Statement, log)
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

/// A head with what was stored beside its root.
pub struct Recorded {
    pub tree_size: i64,
    /// Microseconds since 2000-01-01 00:00 UTC.
    pub created_at: i64,
    /// `None` of a head that a version before 0.4.0 wrote.
    pub metadata: Option<Vec<u8>>,
}

/// The heads of the batches that entries `from .. to` are of, smallest first, and the size of the tree before
/// the first of them.
pub fn of_entries(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    from: i64,
    to: i64,
) -> (i64, Vec<Recorded>) {
    let before = session.query(
        snapshot,
        "SELECT pg_catalog.max(h.tree_size) FROM @extschema@.merkle_tree_head h
          WHERE h.log_id = $1 AND h.tree_size <= $2",
        &[log.id.into(), from.into()],
        |row| row.get(0),
    );
    let heads = session.query(
        snapshot,
        "(SELECT h.tree_size, h.created_at, h.metadata FROM @extschema@.merkle_tree_head h
           WHERE h.log_id = $1 AND h.tree_size > $2 AND h.tree_size < $3)
         UNION ALL
         (SELECT h.tree_size, h.created_at, h.metadata FROM @extschema@.merkle_tree_head h
           WHERE h.log_id = $1 AND h.tree_size >= $3 ORDER BY h.tree_size LIMIT 1)
          ORDER BY tree_size",
        &[log.id.into(), from.into(), to.into()],
        |row| Recorded {
            tree_size: row.required(0),
            created_at: row.datum(1).map_or(0, |d| d.value() as i64),
            metadata: row.get(2),
        },
    );
    (before.into_iter().flatten().next().unwrap_or(0), heads)
}

/// Takes what entries before `upto` record out of the digest of the batch that is pruned in part. The caller
/// holds the log's lock, and has not deleted anything yet.
pub fn cut(session: &Session, log: &Log, upto: i64) {
    let (before, heads) = of_entries(session, Snapshot::Fresh, log, upto - 1, upto);
    let cut = heads.into_iter().find(|head| head.tree_size > upto);
    let Some((size, stored)) = cut.and_then(|head| Some((head.tree_size, head.metadata?))) else {
        return;
    };
    let mut metadata = Metadata::default();
    let mut from = before.max(log.pruned_to);
    while from < upto {
        pgrx::check_for_interrupts!();
        let to = upto.min(from + CHUNK);
        session.fresh(
            "SELECT m.leaf_index, m.source_id, m.source_key, m.order_value, d.salt, d.erased_salt,
                    pg_catalog.substr(d.leaf_data, 1, 2000)
               FROM @extschema@.merkle_log m LEFT JOIN @extschema@.merkle_leaf_data d USING (log_id, leaf_index)
              WHERE m.log_id = $1 AND m.leaf_index >= $2 AND m.leaf_index < $3",
            &[log.id.into(), from.into(), to.into()],
            |row| {
                let (index, order): (i64, Option<String>) = (row.required(0), row.get(3));
                let key: String = row.required(2);
                metadata.entry(index, row.required(1), &key, order.as_deref());
                if let Some(salt) = row.get::<Vec<u8>>(4) {
                    metadata.salt(index, &salt);
                }
                if let Some(erased) = row.get::<Vec<u8>>(5) {
                    metadata.erased_salt(index, &erased);
                }
                if row.get::<&[u8]>(6).is_some_and(leaf_format::is_digest) {
                    metadata.digest(index);
                }
            },
        );
        from = to;
    }
    for (first, entries, statement) in leaves::runs(session, Snapshot::Fresh, log, before, upto) {
        if first + entries <= upto {
            metadata.statement(first, entries as i32, &statement);
        }
    }
    if let Some(rest) = metadata::without(&stored, &metadata.sum()) {
        session.execute(
            "UPDATE @extschema@.merkle_tree_head SET metadata = $3 WHERE log_id = $1 AND tree_size = $2",
            &[log.id.into(), size.into(), rest.into()],
        );
    }
}

/// A size up to the log's, its own if none is asked for, and the root there: the stored one where that
/// is the latest, else computed.
pub fn at(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    size: Option<i64>,
) -> Result<(i64, Hash), Error> {
    let latest = match snapshot {
        Snapshot::Statement => current(session, log)?,
        _ => latest(session, snapshot, log)?,
    };
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

/// The size that the log had at a time, by its heads: 0 before the first.
pub fn size_at(session: &Session, log: &Log, time: TimestampWithTimeZone) -> i64 {
    let size = session.read_one(
        "SELECT h.tree_size FROM @extschema@.merkle_tree_head h
          WHERE h.log_id = $1 AND h.created_at <= $2 ORDER BY h.tree_size DESC LIMIT 1",
        &[log.id.into(), time.into()],
        |row| row.required(0),
    );
    size.unwrap_or(0)
}

/// The size of the head with this root. The empty tree's root is that of size 0.
pub fn with_root(session: &Session, log: &Log, root: &Hash) -> Option<i64> {
    if *root == EMPTY_ROOT {
        return Some(0);
    }
    let size = session.read_one(
        // Without the sum, the planner might go through all heads of the log.
        "SELECT pg_catalog.min(h.tree_size) FROM @extschema@.merkle_tree_head h WHERE h.root_hash = $1 AND h.log_id + 0 = $2",
        &[root.as_bytes().as_slice().into(), log.id.into()],
        |row| row.get(0),
    );
    size.flatten()
}

/// Size and root of the latest head, as stored, whatever they are.
pub fn last_stored(session: &Session, log: &Log) -> Option<(i64, Vec<u8>)> {
    session.read_one(
        "SELECT h.tree_size, h.root_hash FROM @extschema@.merkle_tree_head h
          WHERE h.log_id = $1 ORDER BY h.tree_size DESC LIMIT 1",
        &[log.id.into()],
        |row| (row.required(0), row.get(1).unwrap_or_default()),
    )
}

/// What a batch stores with its head.
pub struct Written {
    /// Microseconds since 2000-01-01 00:00 UTC.
    pub created_at: i64,
    /// How long the batch took.
    pub duration: Duration,
    pub metadata: Vec<u8>,
}

/// Commits the tree to a new size.
pub fn insert(session: &Session, log: &Log, tree_size: i64, root: Hash, written: Written) -> Head {
    if let Some(counters) = shared::get().and_then(|s| s.counters(session, log.id)) {
        counters.head_changes();
        xact::at_end(|| counters.head_changed());
    }
    let created_at = session.fresh_one(
        "INSERT INTO @extschema@.merkle_tree_head (log_id, tree_size, root_hash, duration, created_at, metadata)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING created_at",
        &[
            log.id.into(),
            tree_size.into(),
            root.as_bytes().as_slice().into(),
            Interval::from_micros(written.duration.as_micros() as i64).into(),
            TimestampWithTimeZone::try_from(written.created_at)
                .ok()
                .into(),
            written.metadata.into(),
        ],
        |row| row.required(0),
    );
    Head {
        tree_size,
        root,
        created_at,
    }
}

/// Tells those who LISTEN on channel `merkle_log`, once the batch has committed. Where the server's queue of
/// notifications is more than half full, which any role can make it, the notification is left out: a full queue
/// would let the commit fail.
pub fn notify(session: &Session, log: &Log, head: &Head) {
    session.execute(
        "SELECT pg_catalog.pg_notify('merkle_log', pg_catalog.json_build_object(
            'log', $1::pg_catalog.text, 'size', $2::pg_catalog.int8, 'root', $3::pg_catalog.text)::pg_catalog.text)
          WHERE pg_catalog.pg_notification_queue_usage() < 0.5",
        &[
            log.name.as_str().into(),
            head.tree_size.into(),
            head.root.to_string().into(),
        ],
    );
}
