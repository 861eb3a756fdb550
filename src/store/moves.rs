//! Rows that an UPDATE gave another key.
//!
//! Such an UPDATE makes two entries, a `delete` under the old key and an `insert` under the new one. In a salted source
//! the salts of both end with the same random bytes, the tag, which stays when the salts are erased. So it is known
//! which entries are of one row, and nothing else is said by it.

use super::key_index;
use super::redacted::{self, Hashes, RedactedKey, Redaction, Subject};
use crate::capture::row_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, OF_LOG};
use crate::error::Error;
use crate::pg::random;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use std::collections::HashMap;

/// Bytes of a salt: as many as make guessing hopeless.
pub const SALT: usize = 16;
const TAG: usize = 8;
/// Bytes of what stands for an erased salt, before the tag.
const ERASED: usize = 32;

pub type Tag = [u8; TAG];

/// The random part of a salt, and its tag, which is empty where the key stayed.
pub fn split(salt: &[u8]) -> (&[u8], &[u8]) {
    salt.split_at(salt.len().min(SALT))
}

/// The same of what is stored for a salt that was erased.
pub fn split_erased(erased: &[u8]) -> (&[u8], &[u8]) {
    erased.split_at(erased.len().min(ERASED))
}

pub fn new_tag() -> Tag {
    random::bytes().expect("the server has a source of random bytes")
}

/// The tag of a row of `merkle_leaf_data` that is called `d`.
fn tag_of(d: &str) -> String {
    format!(
        "COALESCE(pg_catalog.substr({d}.salt, {}), pg_catalog.substr({d}.erased_salt, {}))",
        SALT + 1,
        ERASED + 1
    )
}

/// An entry of a row, as far as the row's life is concerned.
#[derive(Clone, Debug)]
pub struct Step {
    pub index: i64,
    /// `insert`, `update`, `delete` or `truncate`.
    pub kind: String,
    /// Empty where the row kept its key.
    pub tag: Vec<u8>,
}

/// What entries say about the lives of their rows, in the order of the log.
pub fn steps(session: &Session, log: &Log, indexes: Vec<i64>) -> Vec<Step> {
    session.fresh(
        &format!(
            "SELECT k.leaf_index, COALESCE(s.kind, 'insert'), {}
               FROM pg_catalog.unnest($2) k (leaf_index)
               LEFT JOIN @extschema@.merkle_leaf_data d ON d.log_id = $1 AND d.leaf_index = k.leaf_index
               LEFT JOIN LATERAL (SELECT t.kind, t.from_leaf_index + t.entries AS upto
                                    FROM @extschema@.merkle_statement t
                                   WHERE t.log_id = $1 AND t.from_leaf_index <= k.leaf_index
                                   ORDER BY t.from_leaf_index DESC LIMIT 1) s ON k.leaf_index < s.upto
              ORDER BY k.leaf_index",
            tag_of("d")
        ),
        &[log.id.into(), indexes.into()],
        |row| Step {
            index: row.required(0),
            kind: row.required(1),
            tag: row.get::<Vec<u8>>(2).unwrap_or_default(),
        },
    )
}

/// An entry that an UPDATE of a key made, and the key that it names.
#[derive(Clone, Debug)]
pub struct Half {
    pub index: i64,
    pub key: String,
}

/// The first and the last leaf index of the transaction that made an entry: in the queue it has one place, which is the
/// order value of its entries.
fn transaction(session: &Session, log: &Log, index: i64) -> (i64, i64) {
    let other = |direction: &str, order: &str| {
        format!(
            "(SELECT o.leaf_index FROM @extschema@.merkle_log o
               WHERE o.log_id = $1 AND o.leaf_index {direction} $2 AND o.source_id <> {OF_LOG}
                 AND o.order_value IS DISTINCT FROM m.order_value
               ORDER BY o.leaf_index {order} LIMIT 1)"
        )
    };
    let sql = format!(
        "SELECT {}, {} FROM @extschema@.merkle_log m WHERE m.log_id = $1 AND m.leaf_index = $2",
        other("<", "DESC"),
        other(">", "ASC")
    );
    let others = session.fresh_one(&sql, &[log.id.into(), index.into()], |row| {
        (row.get::<i64>(0), row.get::<i64>(1))
    });
    let (before, after) = others.unwrap_or_default();
    (
        before.map_or(0, |at| at + 1),
        after.map_or(i64::MAX, |at| at - 1),
    )
}

/// The other half of the UPDATE that made an entry of a source with a tag.
pub fn other_half(session: &Session, log: &Log, source_id: i32, step: &Step) -> Option<Half> {
    if step.tag.is_empty() {
        return None;
    }
    let (from, to) = transaction(session, log, step.index);
    session.fresh_one(
        &format!(
            "SELECT m.leaf_index, m.source_key
               FROM @extschema@.merkle_leaf_data d JOIN @extschema@.merkle_log m USING (log_id, leaf_index)
              WHERE d.log_id = $1 AND d.leaf_index BETWEEN $4 AND $5 AND d.leaf_index <> $3
                AND m.source_id = $2 AND {} = $6",
            tag_of("d")
        ),
        &[
            log.id.into(),
            source_id.into(),
            step.index.into(),
            from.into(),
            to.into(),
            step.tag.clone().into(),
        ],
        |row| Half {
            index: row.required(0),
            key: row.required(1),
        },
    )
}

/// A row that got another key while its old one is redacted.
pub struct Moved {
    /// What it is called from the entry at this leaf index on.
    pub to: Half,
    /// Its old key.
    pub from: RedactedKey,
}

/// The rows of a source that entries from `first` on give another key than one that is redacted, in the order in which
/// that happened: those that move on again included.
pub fn of_redacted(session: &Session, log: &Log, source_id: i32, first: i64) -> Vec<Moved> {
    let mut hashes = Hashes::load(session, log, source_id).into_vec();
    let mut moved: Vec<Moved> = Vec::new();
    let equality = key_index::equality(session, log, source_id);
    // By a key that has come to be redacted by this: the entry since which its row is.
    let mut since: HashMap<i64, i64> = HashMap::new();
    loop {
        let mut more = false;
        for (deleted, inserted) in pairs(session, log, source_id, first, hashes.clone()) {
            if moved.iter().any(|known| known.to.index == inserted.index) {
                continue;
            }
            let hash = equality.hash(source_id, &deleted.key);
            let by_this = moved
                .iter()
                .find(|known| equality.same(&known.to.key, &deleted.key));
            let from = match redacted::find(session, log, source_id, &deleted.key, deleted.index) {
                Some(from) => Some(from),
                None if since.get(&hash).is_some_and(|at| *at < deleted.index) => {
                    by_this.map(|known| known.from.clone())
                }
                None => None,
            };
            let Some(from) = from else {
                continue;
            };
            let hash = equality.hash(source_id, &inserted.key);
            since.entry(hash).or_insert(inserted.index);
            hashes.push(hash);
            more = true;
            moved.push(Moved { to: inserted, from });
        }
        if !more {
            moved.sort_by_key(|known| known.to.index);
            return moved;
        }
    }
}

/// Of UPDATEs that entries from `first` on complete: the halves of those whose old key has one of these hashes.
fn pairs(
    session: &Session,
    log: &Log,
    source_id: i32,
    first: i64,
    hashes: Vec<i64>,
) -> Vec<(Half, Half)> {
    let (from, _) = transaction(session, log, first);
    let sql = format!(
        "WITH tagged AS (
             SELECT d.leaf_index, {} AS tag, m.source_key, m.key_hash
               FROM @extschema@.merkle_leaf_data d JOIN @extschema@.merkle_log m USING (log_id, leaf_index)
              WHERE d.log_id = $1 AND d.leaf_index >= $3 AND m.source_id = $2)
         SELECT a.leaf_index, a.source_key, b.leaf_index, b.source_key
           FROM tagged a JOIN tagged b ON a.tag = b.tag AND a.leaf_index < b.leaf_index
          WHERE a.tag <> '' AND b.leaf_index >= $4 AND a.key_hash = ANY ($5)
          ORDER BY b.leaf_index",
        tag_of("d")
    );
    let args = [
        log.id.into(),
        source_id.into(),
        from.into(),
        first.into(),
        hashes.into(),
    ];
    let half = |row: &Row, at: usize| Half {
        index: row.required(at),
        key: row.required(at + 1),
    };
    session.fresh(&sql, &args, |row| (half(row, 0), half(row, 2)))
}

/// Redacts a row under the key that it got in place of one that is redacted: the entry that says so, which is to be
/// appended at leaf index `at`, and the entries that the key has. `None` if that was so before.
pub fn follow(
    session: &Session,
    log: &Log,
    source_id: i32,
    moved: &Moved,
    at: i64,
) -> Result<Option<(Redaction, Vec<i64>)>, Error> {
    let (key, reason) = (
        name_now(session, log, source_id, &moved.to),
        &moved.from.reason,
    );
    if !redacted::remember(session, log, source_id, &key, at, reason) {
        return Ok(None);
    }
    let source = sources::by_id(session, source_id);
    let source_table = source.map(|source| source.name).unwrap_or_default();
    let subject = Subject::Row {
        source_id,
        key: &key,
    };
    let redaction = Redaction::new(session, log, &source_table, &subject, reason)?;
    let mut names = vec![key.clone()];
    if let Some(shape) = key_index::labelled(session, log, source_id) {
        names.extend(
            row_key::names_of(&shape, &key, at)
                .into_iter()
                .map(|(_, name)| name),
        );
    }
    let found = key_index::find(session, Snapshot::Fresh, log, source_id, &names);
    Ok(Some((
        redaction,
        found.into_iter().map(|(_, index)| index).collect(),
    )))
}

/// What the row that the entry at `index` of a source calls `key` is called now: labels of enums may have other names.
pub fn name_now(session: &Session, log: &Log, source_id: i32, half: &Half) -> String {
    let labelled = key_index::labelled(session, log, source_id);
    let names = labelled.map(|shape| row_key::names_of(&shape, &half.key, half.index));
    let last = names.and_then(|names| names.into_iter().next_back());
    last.map_or_else(|| half.key.clone(), |(_, name)| name)
}

/// A handful of the keys under which statements of version 0.3.0 and before may have had a row before or after entries
/// of it without a tag: those of the other kind that the same statement made.
pub fn candidates(
    session: &Session,
    log: &Log,
    source_id: i32,
    indexes: Vec<i64>,
    limit: i64,
) -> Vec<String> {
    // The statements of a transaction stand beside each other.
    let other = |direction: &str, order: &str| {
        format!(
            "(SELECT p.from_leaf_index FROM @extschema@.merkle_statement p
               WHERE p.log_id = $1 AND p.from_leaf_index {direction} s.from_leaf_index AND p.transaction_id <> s.transaction_id
               ORDER BY p.from_leaf_index {order} LIMIT 1)"
        )
    };
    session.fresh(
        &format!(
            "SELECT DISTINCT m.source_key
               FROM pg_catalog.unnest($3) k (leaf_index)
               CROSS JOIN LATERAL (SELECT t.* FROM @extschema@.merkle_statement t
                                    WHERE t.log_id = $1 AND t.from_leaf_index <= k.leaf_index
                                    ORDER BY t.from_leaf_index DESC LIMIT 1) s
               CROSS JOIN LATERAL (SELECT COALESCE({}, -1) AS first, COALESCE({}, 9223372036854775807) AS last) others
               JOIN @extschema@.merkle_statement o
                 ON o.log_id = $1 AND o.from_leaf_index > others.first AND o.from_leaf_index < others.last AND o.source_id = s.source_id AND o.transaction_id = s.transaction_id
                AND o.statement_at = s.statement_at
                AND (s.kind, o.kind) IN (('insert', 'delete'), ('delete', 'insert'))
               JOIN @extschema@.merkle_log m
                 ON m.log_id = $1 AND m.leaf_index >= o.from_leaf_index AND m.leaf_index < o.from_leaf_index + o.entries
               JOIN @extschema@.merkle_leaf_data d ON d.log_id = $1 AND d.leaf_index = m.leaf_index
              WHERE k.leaf_index < s.from_leaf_index + s.entries AND s.source_id = $2 AND m.source_id = $2 AND {} = ''
              ORDER BY m.source_key LIMIT $4",
            other("<", "DESC"),
            other(">", "ASC"),
            tag_of("d")
        ),
        &[
            log.id.into(),
            source_id.into(),
            indexes.into(),
            limit.into(),
        ],
        |row| row.required(0),
    )
}
