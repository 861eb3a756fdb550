//! Redaction in the tables: what an entry was made from is erased, and an entry of the log's own says so.
//!
//! `merkle_redacted_key` has the keys whose entries are all redacted, those to come included. An entry of
//! such a key is redacted by the batch that appends it, in the same transaction.

use super::append::Entry;
use super::metadata;
use crate::catalog::logs::Log;
use crate::catalog::sources::OF_LOG;
use crate::encode::time;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use leaf_format::{Cbor, Columns, Context, Encoder, Kind, Leaf, Origin, Value};
use merkle_tree::{Hash, leaf_hash};
use std::collections::HashSet;

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
        log: &Log,
        source_table: &str,
        subject: &Subject,
        reason: &str,
    ) -> Result<Redaction, Error> {
        let (names, values): (&[&str], Vec<Value>) = match subject {
            Subject::Entry { index, leaf_hash } => (
                &["leaf_index", "leaf_hash", "reason"],
                vec![
                    Value::Int((*index).into()),
                    Value::Bytes((*leaf_hash).into()),
                    Value::Text(reason.into()),
                ],
            ),
            Subject::Row { source_id, key } => (
                &["source_id", "source_key", "reason"],
                vec![
                    Value::Int((*source_id).into()),
                    Value::Text((*key).into()),
                    Value::Text(reason.into()),
                ],
            ),
        };
        let user = xact::session_user();
        let application = xact::application_name(|name| name.into_owned());
        let context = Context {
            origin: Some(Origin {
                transaction: xact::id(),
                user: &user,
                application: &application,
                at: time::unix_micros(xact::statement_start()),
            }),
            salt: None,
        };
        let mut leaf_data = Vec::new();
        Encoder::new(source_table, Kind::Redact, names)
            .and_then(|encoder| encoder.encode(&values, &context, &mut leaf_data))
            .map_err(|e| Error::Damaged {
                log: log.name.clone(),
                problem: format!("a redaction cannot be encoded: {e}"),
            })?;
        Ok(Redaction {
            key: subject.key(),
            hash: leaf_hash(&leaf_data),
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
            metadata::erased(index, &salt).as_bytes().as_slice().into(),
        ],
    );
    true
}

/// Redacts from now on what is logged of a row.
pub fn remember(session: &Session, source_id: i32, key: &str, at: i64, reason: &str) -> bool {
    let added = session.fresh(
        "INSERT INTO @extschema@.merkle_redacted_key (source_id, source_key, leaf_index, reason)
         VALUES ($1, $2, $3, $4) ON CONFLICT (source_id, source_key) DO NOTHING RETURNING true",
        &[source_id.into(), key.into(), at.into(), reason.into()],
        |_| (),
    );
    !added.is_empty()
}

/// The keys of a log's sources that are redacted.
pub fn keys(session: &Session, snapshot: Snapshot, log: &Log) -> HashSet<(i32, String)> {
    session
        .query(
            snapshot,
            "SELECT r.source_id, r.source_key FROM @extschema@.merkle_redacted_key r
               JOIN @extschema@.verification_sources s USING (source_id) WHERE s.log_id = $1",
            &[log.id.into()],
            |row| (row.required(0), row.required(1)),
        )
        .into_iter()
        .collect()
}

/// Erases what entries from `start` on, of keys that are redacted, were made from; the entries that say so
/// are still to be appended.
pub fn erase_logged(session: &Session, log: &Log, start: i64) -> Result<Vec<Redaction>, Error> {
    let of_redacted: Vec<(i64, Vec<u8>, String, String)> = session.fresh(
        "SELECT m.leaf_index, m.leaf_hash, s.source_table, r.reason
           FROM @extschema@.merkle_redacted_key r
           JOIN @extschema@.verification_sources s ON s.source_id = r.source_id AND s.log_id = $1
           JOIN @extschema@.merkle_log m
             ON m.log_id = $1 AND m.leaf_index >= $2 AND m.source_id = r.source_id AND m.source_key = r.source_key
          ORDER BY m.leaf_index",
        &[log.id.into(), start.into()],
        |row| (row.required(0), row.required(1), row.required(2), row.required(3)),
    );
    let mut redactions = Vec::new();
    for (index, leaf_hash, source_table, reason) in of_redacted {
        if erase(session, log, index) {
            let subject = Subject::Entry {
                index,
                leaf_hash: &leaf_hash,
            };
            redactions.push(Redaction::new(log, &source_table, &subject, &reason)?);
        }
    }
    Ok(redactions)
}
