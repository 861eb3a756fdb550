//! `merkle_log`: entries by position and by source row.
//!
//! An entry without an order value has its key in its place, and stands in the order of its source's
//! keys: it is found through `merkle_order_index`. All others are in the index on the key's hash.

use super::{key_index, order_index};
use crate::capture::order::SortKey;
use crate::capture::row_key::{self, RowKey};
use crate::capture::scan::Leaf;
use crate::capture::trigger::truncation_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::OF_LOG;
use crate::error::Error;
use crate::pg::index::{Direction, Index, Key};
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use merkle_tree::Hash;
use std::collections::{HashMap, HashSet};

#[derive(Clone, Debug)]
pub struct Entry {
    pub leaf_index: i64,
    pub source_id: i32,
    pub key: String,
    /// Text form of its order value; `None` where that is the key, and the entry is in its order.
    pub order: Option<String>,
    pub leaf_hash: Vec<u8>,
    /// The hash that it is found by; `None` where it is found through the order index.
    pub key_hash: Option<i64>,
}

/// The table, for reading by leaf index.
pub fn open(session: &Session) -> Result<Index, Error> {
    session.index(c"merkle_log", c"merkle_log_pkey")
}

/// Hands the entries `from .. to` of a log to `take`, in order, as rows of the table.
fn scan(
    entries: &mut Index,
    snapshot: Snapshot,
    log: &Log,
    from: i64,
    to: i64,
    mut take: impl FnMut(&Row),
) {
    let keys = [
        Key::int4(1, log.id),
        Key::at_least(2, from),
        Key::at_most(2, to - 1),
    ];
    entries.scan(snapshot, &keys, Direction::Forward, |row| {
        take(row);
        true
    });
}

fn from_row(row: &Row) -> Entry {
    Entry {
        source_id: row.required(1),
        leaf_index: row.required(2),
        key: row.required(3),
        order: row.get(4),
        leaf_hash: row.required(5),
        key_hash: row.get(6),
    }
}

/// The entries `from .. to`, in order, as the calling statement sees them.
pub fn between(session: &Session, log: &Log, from: i64, to: i64) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::with_capacity((to - from).max(0) as usize);
    scan(
        &mut open(session)?,
        Snapshot::Statement,
        log,
        from,
        to,
        |row| {
            found.push(from_row(row));
        },
    );
    Ok(found)
}

/// The leaf hashes of `count` entries from `first` on, as many as there are without a gap.
pub fn leaf_hashes(
    entries: &mut Index,
    snapshot: Snapshot,
    log: &Log,
    first: i64,
    count: usize,
) -> Result<Vec<Hash>, Error> {
    let mut found = Vec::with_capacity(count);
    let mut problem = None;
    scan(
        entries,
        snapshot,
        log,
        first,
        first + count as i64,
        |row| match Hash::try_from(row.required::<&[u8]>(5)) {
            Ok(hash) => found.push(hash),
            Err(e) => problem = Some(e),
        },
    );
    match problem {
        None => Ok(found),
        Some(e) => Err(Error::Damaged {
            log: log.name.clone(),
            problem: e.to_string(),
        }),
    }
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
    let mut found = None;
    scan(
        &mut open(session)?,
        snapshot,
        log,
        index,
        index + 1,
        |row| {
            found = Some(from_row(row));
        },
    );
    found.ok_or_else(out_of_range)
}

/// The leaf indexes of a source row's entries, oldest first.
pub fn of_row(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    source_id: i32,
    key: &RowKey,
) -> Result<Vec<i64>, Error> {
    let texts = key.texts(source_id);
    let of_key = key_index::find(session, snapshot, log, source_id, &texts);
    let of_key = of_key
        .into_iter()
        .filter(|(place, index)| key.was_called(source_id, &texts[*place], *index));
    let truncations = key_index::find(session, snapshot, log, OF_LOG, &[truncation_key(source_id)]);
    let mut found: Vec<i64> = of_key.chain(truncations).map(|(_, index)| index).collect();
    found.extend(in_order(
        session,
        snapshot,
        log,
        source_id,
        &key.text,
        key.order.as_ref(),
    )?);
    found.sort_unstable();
    Ok(found)
}

/// The entry of a row that stands where its key says, which is `order` as an order value.
pub fn in_order(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    source_id: i32,
    key: &str,
    order: Option<&SortKey>,
) -> Result<Option<i64>, Error> {
    let Some(order) = order else {
        return Ok(None);
    };
    let Some((mark, to)) = order_index::before(session, snapshot, source_id, order)? else {
        return Ok(None);
    };
    let mut entries = open(session)?;
    let equality = key_index::equality(session, log, source_id);
    let is_it = |row: &Row| {
        let same = row.required::<i32>(1) == source_id
            && row.datum(4).is_none()
            && equality.same(row.required(3), key);
        same.then(|| row.required::<i64>(2))
    };
    // Where keys are numbers without a gap, it is as far behind the mark as its key is.
    if let Some(at) = mark.distance_to(order).map(|d| mark.leaf_index + d)
        && at < to
    {
        let keys = [Key::int4(1, log.id), Key::int8(2, at)];
        let found = entries.first(snapshot, &keys, Direction::Forward, is_it);
        if let Some(found) = found.flatten() {
            return Ok(Some(found));
        }
    }
    let mut found = None;
    scan(&mut entries, snapshot, log, mark.leaf_index, to, |row| {
        found = found.or_else(|| is_it(row));
    });
    Ok(found)
}

/// The sources that the entries `from .. to` are of, as the calling statement sees them.
pub fn sources_of(session: &Session, log: &Log, from: i64, to: i64) -> Vec<i32> {
    session.read(
        "SELECT DISTINCT m.source_id FROM @extschema@.merkle_log m
          WHERE m.log_id = $1 AND m.leaf_index >= $2 AND m.leaf_index < $3",
        &[log.id.into(), from.into(), to.into()],
        |row| row.required(0),
    )
}

/// The leaf index behind the last entry of a log, as the calling statement sees it.
pub fn end(session: &Session, log: &Log) -> i64 {
    let last = session.read_one(
        "SELECT pg_catalog.max(m.leaf_index) FROM @extschema@.merkle_log m WHERE m.log_id = $1",
        &[log.id.into()],
        |row| row.get::<i64>(0),
    );
    last.flatten().map_or(0, |index| index.saturating_add(1))
}

/// That none of `keys`, of rows whose entries were not found, is that of an entry that look-ups do not find: such
/// a row must not be logged a second time.
///
/// # Errors
/// Names the first such entry.
pub fn check_unlogged(
    session: &Session,
    log: &Log,
    source_id: i32,
    keys: Vec<String>,
) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    // Entries with an order value are in the index on the key, so those without one are what is left.
    let hidden = |keys: &[String]| {
        session.fresh_one(
            "SELECT m.source_key, m.leaf_index FROM @extschema@.merkle_log m
              WHERE m.log_id = $1 AND m.source_id = $2 AND m.order_value IS NULL AND m.source_key = ANY ($3)
              ORDER BY m.leaf_index LIMIT 1",
            &[log.id.into(), source_id.into(), keys.to_vec().into()],
            |row| (row.required::<String>(0), row.required::<i64>(1)),
        )
    };
    let handfuls = row_key::handfuls(keys.iter().map(String::len));
    match handfuls.into_iter().find_map(|range| hidden(&keys[range])) {
        None => Ok(()),
        Some((key, index)) => Err(Error::Damaged {
            log: log.name.clone(),
            problem: format!("row {key} has entry {index}, which is not found by its key"),
        }),
    }
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
pub fn latest_of(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    source_id: i32,
    key: &RowKey,
) -> Result<Option<i64>, Error> {
    let equality = key_index::equality(session, log, source_id);
    let mut by_key = session.index(c"merkle_log", c"merkle_log_key_hash")?;
    let mut found = in_order(
        session,
        snapshot,
        log,
        source_id,
        &key.text,
        key.order.as_ref(),
    )?;
    for text in key.texts(source_id) {
        let keys = [Key::int8(1, equality.hash(source_id, &text))];
        by_key.scan(snapshot, &keys, Direction::Forward, |row| {
            let at = row.required::<i64>(2);
            if row.required::<i32>(1) == source_id
                && equality.same(row.required(3), &text)
                && key.was_called(source_id, &text, at)
            {
                found = found.max(Some(at));
            }
            true
        });
    }
    Ok(found)
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
    let truncated = of_log(session, snapshot, log, &truncation_key(source_id));
    let mut latest: HashMap<usize, i64> = HashMap::with_capacity(keys.len());
    for (place, index) in key_index::find(session, snapshot, log, source_id, &keys) {
        let known = latest.entry(place).or_insert(index);
        *known = index.max(*known);
    }
    let deletions = deletions(session, snapshot, log, latest.values().copied().collect());
    let mut keys: Vec<Option<String>> = keys.into_iter().map(Some).collect();
    latest
        .into_iter()
        .filter(|(_, index)| !deletions.contains(index) && truncated.is_none_or(|at| *index > at))
        .filter_map(|(place, index)| Some((keys[place].take()?, index)))
        .collect()
}

/// Those of `indexes` that were made by a DELETE.
fn deletions(session: &Session, snapshot: Snapshot, log: &Log, indexes: Vec<i64>) -> HashSet<i64> {
    session
        .query(
            snapshot,
            "SELECT k.leaf_index
               FROM pg_catalog.unnest($1) k (leaf_index)
               CROSS JOIN LATERAL (SELECT t.kind, t.from_leaf_index + t.entries AS upto
                                     FROM @extschema@.merkle_statement t
                                    WHERE t.log_id = $2 AND t.from_leaf_index <= k.leaf_index
                                    ORDER BY t.from_leaf_index DESC LIMIT 1) s
              WHERE k.leaf_index < s.upto AND s.kind = 'delete'",
            &[indexes.into(), log.id.into()],
            |row| row.required(0),
        )
        .into_iter()
        .collect()
}

/// The latest of the log's own entries under `key`.
pub fn of_log(session: &Session, snapshot: Snapshot, log: &Log, key: &str) -> Option<i64> {
    key_index::find(session, snapshot, log, OF_LOG, &[key.to_owned()])
        .into_iter()
        .map(|(_, index)| index)
        .max()
}

/// Those of a source's rows, given in order, that have an entry: their keys.
pub fn logged(
    session: &Session,
    snapshot: Snapshot,
    log: &Log,
    source_id: i32,
    rows: &[Leaf],
) -> Result<HashSet<String>, Error> {
    let mut in_order = key_index::equality(session, log, source_id).map([]);
    let ordered: Vec<SortKey> = rows.iter().filter_map(|r| r.place).collect();
    if let (Some(first), Some(last)) = (ordered.iter().min(), ordered.iter().max())
        && let Some((from, to)) = order_index::span(session, snapshot, source_id, first, last)?
    {
        scan(&mut open(session)?, snapshot, log, from, to, |row| {
            if row.required::<i32>(1) == source_id && row.datum(4).is_none() {
                in_order.insert(row.required(3), ());
            }
        });
    }
    let keys = rows.iter().map(|r| r.key.clone());
    let (found, others): (Vec<String>, Vec<String>) = keys.partition(|key| in_order.contains(key));
    let mut found = HashSet::from_iter(found);
    if !others.is_empty() {
        let by_hash = key_index::find(session, snapshot, log, source_id, &others);
        found.extend(by_hash.into_iter().map(|(place, _)| others[place].clone()));
    }
    Ok(found)
}
