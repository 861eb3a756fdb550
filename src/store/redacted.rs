//! Redaction in the tables: what an entry was made from is erased, and an entry of the log's own says so.
//!
//! `merkle_redacted_key` has the keys whose entries are all redacted, those to come included. An entry of
//! such a key is redacted by the batch that appends it, in the same transaction.

use super::append::Entry;
use super::leaves;
use super::{key_index, metadata};
use crate::capture::key_equality::{ByKey, KeyEquality};
use crate::capture::row_key;
use crate::catalog::logs::Log;
use crate::catalog::sources::OF_LOG;
use crate::error::Error;
use crate::pg::spi::{Row, Snapshot};
use crate::pg::xact;
use crate::session::Session;
use leaf_format::{Cbor, Columns, Kind, Leaf, Value};
use merkle_tree::Hash;
use pgrx::datum::TimestampWithTimeZone;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};

/// What an entry that says that something was redacted is about.
pub enum Subject<'a> {
    /// One entry.
    Entry { index: i64, leaf_hash: &'a [u8] },
    /// Every entry of a row.
    Row { source_id: i32, key: &'a str },
}

/// An entry that says that something was redacted.
pub struct Redaction {
    key: String,
    leaf_data: Vec<u8>,
    hash: Hash,
}

impl Redaction {
    /// `source_table`: the table's registered name.
    pub fn new(
        session: &Session,
        log: &Log,
        source_table: &str,
        subject: &Subject,
        reason: &str,
    ) -> Result<Redaction, Error> {
        let columns = match subject {
            Subject::Entry { index, leaf_hash } => vec![
                ("leaf_index", Value::Int((*index).into())),
                ("leaf_hash", Value::Bytes((*leaf_hash).into())),
                ("reason", Value::Text(reason.into())),
            ],
            Subject::Row { source_id, key } => vec![
                ("source_id", Value::Int((*source_id).into())),
                ("source_key", Value::Text((*key).into())),
                ("reason", Value::Text(reason.into())),
            ],
        };
        let leaf_data = leaves::of_log(session, log, source_table, Kind::Redact, columns)?;
        Ok(Redaction {
            key: subject.key(),
            hash: leaves::hash(&leaf_data),
            leaf_data,
        })
    }

    pub fn entry(&self) -> Entry<'_> {
        Entry {
            source_id: OF_LOG,
            key: &self.key,
            order: Some(""),
            place: None,
            hash: self.hash,
            salt: None,
            leaf_data: Some(&self.leaf_data),
        }
    }
}

impl Subject<'_> {
    /// The key of the entry that says that this was redacted.
    pub fn key(&self) -> String {
        match self {
            Subject::Entry { index, .. } => format!("redact {index}"),
            Subject::Row { source_id, key } => format!("redact row of source {source_id}: {key}"),
        }
    }
}

/// The source and the key of the row that the leaf of a redaction is about, if it is about a row.
pub fn row_of(leaf: &Leaf) -> Option<(i32, String)> {
    let Columns::Map(columns) = &leaf.columns else {
        return None;
    };
    match (columns.get("source_id"), columns.get("source_key")) {
        (Some(Cbor::Integer(id)), Some(Cbor::Text(key))) => {
            Some((i32::try_from(*id).ok()?, key.clone()))
        }
        _ => None,
    }
}

/// True if the leaf of a redaction is about what its own entry's key names.
pub fn is_of(leaf: &Leaf, entry_key: &str) -> bool {
    let Columns::Map(columns) = &leaf.columns else {
        return false;
    };
    let index = match columns.get("leaf_index") {
        Some(Cbor::Integer(n)) => i64::try_from(*n).ok(),
        _ => None,
    };
    let key = match (index, row_of(leaf)) {
        (Some(index), None) => Subject::Entry {
            index,
            leaf_hash: &[],
        }
        .key(),
        (None, Some((source_id, key))) => Subject::Row {
            source_id,
            key: &key,
        }
        .key(),
        _ => return false,
    };
    key == entry_key
}

/// Destroys the salt and the leaf data of an entry; false if it has none. What the salt contributes to the
/// digest of its batch stays.
pub fn erase(session: &Session, log: &Log, index: i64) -> bool {
    let salt = session.fresh_one(
        "SELECT d.salt FROM @extschema@.merkle_leaf_data d
          WHERE d.log_id = $1 AND d.leaf_index = $2 AND d.salt IS NOT NULL",
        &[log.id.into(), index.into()],
        |row| row.required::<Vec<u8>>(0),
    );
    let Some(salt) = salt else {
        return false;
    };
    session.execute(
        "UPDATE @extschema@.merkle_leaf_data SET salt = NULL, leaf_data = NULL, erased_salt = $3
          WHERE log_id = $1 AND leaf_index = $2",
        &[
            log.id.into(),
            index.into(),
            metadata::erased(index, &salt).into(),
        ],
    );
    true
}

/// How many entries of a source still have the salt that a redaction erases.
pub fn unredacted(session: &Session, log: &Log, source_id: i32) -> i64 {
    let count = session.fresh_one(
        "SELECT pg_catalog.count(*) FROM @extschema@.merkle_leaf_data d
           JOIN @extschema@.merkle_log m USING (log_id, leaf_index)
          WHERE d.log_id = $1 AND d.salt IS NOT NULL AND m.source_id = $2",
        &[log.id.into(), source_id.into()],
        |row| row.required(0),
    );
    count.unwrap_or(0)
}

/// A row of `merkle_redacted_key`.
#[derive(Clone, Debug)]
pub struct RedactedKey {
    pub source_id: i32,
    pub key: String,
    /// The entry that says that the row is redacted.
    pub leaf_index: i64,
    pub reason: String,
    /// When that was asked for; microseconds since 2000-01-01 00:00 UTC.
    pub redacted_at: i64,
    pub key_hash: i64,
}

const COLUMNS: &str =
    "r.source_id, r.source_key, r.leaf_index, r.reason, r.redacted_at, r.key_hash";

fn from_row(row: &Row) -> RedactedKey {
    RedactedKey {
        source_id: row.required(0),
        key: row.required(1),
        leaf_index: row.required(2),
        reason: row.required(3),
        redacted_at: row.datum(4).map_or(0, |d| d.value() as i64),
        key_hash: row.required(5),
    }
}

/// The redacted key of the row that the entry at `leaf_index` of a source calls `key`, under whatever spelling, and
/// whatever its labels are called since.
pub fn find(
    session: &Session,
    log: &Log,
    source_id: i32,
    key: &str,
    leaf_index: i64,
) -> Option<RedactedKey> {
    let equality = key_index::equality(session, log, source_id);
    if let Some(shape) = key_index::labelled(session, log, source_id) {
        let mut of_source = all_of(session, source_id).into_iter();
        return of_source.rfind(|found| {
            let name = row_key::name_then(&shape, &found.key, found.leaf_index, leaf_index);
            equality.same(&name, key)
        });
    }
    let of_hash = session.fresh(
        &format!(
            "SELECT {COLUMNS} FROM @extschema@.merkle_redacted_key r WHERE r.source_id = $1 AND r.key_hash = $2"
        ),
        &[source_id.into(), equality.hash(source_id, key).into()],
        from_row,
    );
    let same = |found: &RedactedKey| equality.same(&found.key, key);
    of_hash.into_iter().find(same)
}

/// Redacts from now on what is logged of a row, which the entry at leaf index `at` will say; false if that was so
/// before.
pub fn remember(
    session: &Session,
    log: &Log,
    source_id: i32,
    key: &str,
    at: i64,
    reason: &str,
) -> bool {
    if find(session, log, source_id, key, at).is_some() {
        return false;
    }
    let equality = key_index::equality(session, log, source_id);
    session.execute(
        "INSERT INTO @extschema@.merkle_redacted_key (source_id, source_key, leaf_index, reason, redacted_at, key_hash)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            source_id.into(),
            key.into(),
            at.into(),
            reason.into(),
            TimestampWithTimeZone::try_from(xact::statement_start()).ok().into(),
            equality.hash(source_id, key).into(),
        ],
    );
    true
}

fn all_of(session: &Session, source_id: i32) -> Vec<RedactedKey> {
    session.fresh(
        &format!(
            "SELECT {COLUMNS} FROM @extschema@.merkle_redacted_key r WHERE r.source_id = $1 ORDER BY r.leaf_index"
        ),
        &[source_id.into()],
        from_row,
    )
}

/// True if any key of a source is redacted.
pub fn is_any(session: &Session, source_id: i32) -> bool {
    !all_of(session, source_id).is_empty()
}

/// Whose keys are redacted of the sources of a log.
pub fn all(session: &Session, snapshot: Snapshot, log: &Log) -> Vec<RedactedKey> {
    session.query(
        snapshot,
        &format!(
            "SELECT {COLUMNS} FROM @extschema@.merkle_redacted_key r
               JOIN @extschema@.verification_sources s USING (source_id) WHERE s.log_id = $1"
        ),
        &[log.id.into()],
        from_row,
    )
}

/// SHA-256 of which keys entries before a leaf index say to be redacted, in hexadecimal digits: when these entries
/// are pruned, it goes on record in their place.
pub fn digest(session: &Session, snapshot: Snapshot, log: &Log, before: i64) -> String {
    let mut rows = all(session, snapshot, log);
    rows.retain(|row| row.leaf_index < before);
    rows.sort_by(|a, b| {
        (a.leaf_index, a.source_id, &a.key).cmp(&(b.leaf_index, b.source_id, &b.key))
    });
    let mut digest = Sha256::new();
    for row in &rows {
        digest.update(row.leaf_index.to_be_bytes());
        digest.update(row.source_id.to_be_bytes());
        digest.update(row.redacted_at.to_be_bytes());
        for text in [&row.key, &row.reason] {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        }
    }
    let digest = digest.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys of a log's sources that are redacted.
pub struct RedactedKeys {
    by_source: HashMap<i32, ByKey<()>>,
    /// Of the sources whose keys have labels that may get other names: by version, with the leaf index from which it
    /// counts.
    labelled: HashMap<i32, Vec<(i64, ByKey<()>)>>,
    /// Source, key as it is stored, and the entry that says so.
    recorded: HashSet<(i32, String, i64)>,
}

impl RedactedKeys {
    pub fn load(session: &Session, snapshot: Snapshot, log: &Log) -> RedactedKeys {
        let mut keys = RedactedKeys {
            by_source: HashMap::new(),
            labelled: HashMap::new(),
            recorded: HashSet::new(),
        };
        for row in all(session, snapshot, log) {
            let at = (row.source_id, row.key.clone(), row.leaf_index);
            keys.recorded.insert(at);
            if let Some(shape) = key_index::labelled(session, log, row.source_id) {
                let of_source = keys.labelled.entry(row.source_id).or_default();
                let names = row_key::names_of(&shape, &row.key, row.leaf_index);
                for (place, (from, name)) in names.into_iter().enumerate() {
                    if place == of_source.len() {
                        of_source.push((from, KeyEquality::of(&shape).map([])));
                    }
                    of_source[place].1.insert(name, ());
                }
                continue;
            }
            keys.by_source
                .entry(row.source_id)
                .or_insert_with(|| key_index::equality(session, log, row.source_id).map([]))
                .insert(row.key, ());
        }
        keys
    }

    /// True if the row of an entry is redacted, under whatever spelling of its key, and whatever its labels are
    /// called since.
    pub fn has(&self, source_id: i32, key: &str, leaf_index: i64) -> bool {
        let then = self.labelled.get(&source_id).and_then(|versions| {
            let then = versions.iter().rev().find(|(from, _)| *from <= leaf_index);
            then.or(versions.first()).map(|(_, keys)| keys)
        });
        let keys = then.or(self.by_source.get(&source_id));
        keys.is_some_and(|keys| keys.contains(key))
    }

    /// True if a key stands there as the entry at `leaf_index` says.
    pub fn is_recorded(&self, row: &(i32, String), leaf_index: i64) -> bool {
        self.recorded.contains(&(row.0, row.1.clone(), leaf_index))
    }
}

/// The hashes of redacted keys of a source.
pub struct Hashes {
    hashes: HashSet<i64>,
    /// Versions of the columns under which the keys may be called something else.
    versions: usize,
}

impl Hashes {
    pub fn load(session: &Session, log: &Log, source_id: i32) -> Hashes {
        let rows = all_of(session, source_id);
        let labelled = match rows.is_empty() {
            true => None,
            false => key_index::labelled(session, log, source_id),
        };
        let Some(shape) = labelled else {
            return Hashes {
                hashes: rows.into_iter().map(|row| row.key_hash).collect(),
                versions: 0,
            };
        };
        let equality = key_index::equality(session, log, source_id);
        let names = rows
            .iter()
            .flat_map(|row| row_key::names_of(&shape, &row.key, row.leaf_index));
        Hashes {
            hashes: names
                .map(|(_, name)| equality.hash(source_id, &name))
                .collect(),
            versions: shape.versions.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    pub fn into_vec(self) -> Vec<i64> {
        self.hashes.into_iter().collect()
    }

    pub fn contains(&self, hash: i64) -> bool {
        self.hashes.contains(&hash)
    }

    /// True if a version of the columns was recorded since, under which keys have other names.
    pub fn is_stale(&self, session: &Session, log: &Log, source_id: i32) -> bool {
        self.versions > 0
            && key_index::labelled(session, log, source_id)
                .is_none_or(|shape| shape.versions.len() != self.versions)
    }
}

/// Erases what those of the entries at `indexes` were made from whose keys are redacted; the entries that say so
/// are still to be appended.
pub fn erase_logged(
    session: &Session,
    log: &Log,
    indexes: Vec<i64>,
) -> Result<Vec<Redaction>, Error> {
    let of_hash: Vec<(i64, Vec<u8>, i32, String, String)> = session.fresh(
        "SELECT m.leaf_index, m.leaf_hash, s.source_id, s.source_table, m.source_key
           FROM @extschema@.merkle_log m JOIN @extschema@.verification_sources s USING (source_id)
          WHERE m.log_id = $1 AND m.leaf_index = ANY ($2) ORDER BY m.leaf_index",
        &[log.id.into(), indexes.into()],
        |row| {
            (
                row.required(0),
                row.required(1),
                row.required(2),
                row.required(3),
                row.required(4),
            )
        },
    );
    let mut redactions = Vec::new();
    for (index, leaf_hash, source_id, source_table, key) in of_hash {
        let Some(redacted) = find(session, log, source_id, &key, index) else {
            continue;
        };
        if erase(session, log, index) {
            let subject = Subject::Entry {
                index,
                leaf_hash: &leaf_hash,
            };
            redactions.push(Redaction::new(
                session,
                log,
                &source_table,
                &subject,
                &redacted.reason,
            )?);
        }
    }
    Ok(redactions)
}
