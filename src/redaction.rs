//! Redaction: what an entry was made from is destroyed, the entry stays.
//!
//! A salted leaf hash says nothing about its row to one who does not have the salt. So when the salt is
//! gone, and the leaf data where the log kept it, nothing personal is left; the tree is as it was, and
//! an entry of its own says who erased what, when and why.

use crate::batch;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{self, OF_LOG};
use crate::encode::time;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use crate::store::append::{self, Appender};
use crate::store::entries::{self, Entry};
use crate::store::{heads, leaves, metadata};
use leaf_format::{Cbor, Columns, Context, Encoder, Kind, Leaf, Origin, Value};
use merkle_tree::leaf_hash;

/// Redacts an entry and returns the leaf index of the entry that says so.
pub fn redact(session: &Session, name: &str, index: i64, reason: &str) -> Result<i64, Error> {
    batch::check_writable(name)?;
    let log = logs::lock_and_wait(session, name)?;
    let size = heads::latest(session, Snapshot::Fresh, &log)?.tree_size;
    let entry = entries::at(session, Snapshot::Fresh, &log, index, size)?;
    let cannot = |why| Error::CannotRedact {
        log: log.name.clone(),
        index,
        why,
    };
    let source = sources::by_id(session, entry.source_id)
        .filter(|_| entry.source_id != OF_LOG)
        .ok_or_else(|| cannot("it is an entry of the log itself"))?;
    session.check_caller_owns(&log, &source)?;
    if !source.salted {
        return Err(cannot("its source is not salted"));
    }
    let salt = session.fresh(
        "SELECT d.salt FROM @extschema@.merkle_leaf_data d
          WHERE d.log_id = $1 AND d.leaf_index = $2 AND d.salt IS NOT NULL",
        &[log.id.into(), index.into()],
        |row| row.required::<Vec<u8>>(0),
    );
    let salt = salt
        .first()
        .ok_or_else(|| cannot("it was redacted before"))?;
    session.execute(
        "UPDATE @extschema@.merkle_leaf_data SET salt = NULL, leaf_data = NULL, erased_salt = $3
          WHERE log_id = $1 AND leaf_index = $2",
        &[
            log.id.into(),
            index.into(),
            metadata::erased(index, salt).as_bytes().as_slice().into(),
        ],
    );
    let (user, application) = (xact::session_user(), xact::application_name());
    let origin = Origin {
        transaction: xact::id(),
        user: &user,
        application: &application,
        at: time::unix_micros(xact::statement_start()),
    };
    let context = Context {
        origin: Some(origin),
        salt: None,
    };
    let mut leaf_data = Vec::new();
    Encoder::new(
        &source.name,
        Kind::Redact,
        &["leaf_index", "leaf_hash", "reason"],
    )
    .and_then(|encoder| {
        let values = [
            Value::Int(index.into()),
            Value::Bytes(entry.leaf_hash.as_slice().into()),
            Value::Text(reason.into()),
        ];
        encoder.encode(&values, &context, &mut leaf_data)
    })
    .map_err(|_| cannot("the reason cannot be encoded"))?;
    let mut appender = Appender::open(session, &log)?;
    let at = appender.push(&append::Entry {
        source_id: OF_LOG,
        key: &key(index),
        order: Some(""),
        place: None,
        hash: leaf_hash(&leaf_data),
        salt: None,
        leaf_data: Some(&leaf_data),
    })?;
    appender.finish()?;
    Ok(at)
}

/// The key of the entry that says that the entry at `index` was redacted.
fn key(index: i64) -> String {
    format!("redact {index}")
}

/// True if the leaf of a redaction is about the entry that its own entry's key names.
pub fn is_of(leaf: &Leaf, entry_key: &str) -> bool {
    let Columns::Map(columns) = &leaf.columns else {
        return false;
    };
    match columns.get("leaf_index") {
        Some(Cbor::Integer(index)) => i64::try_from(*index).is_ok_and(|i| key(i) == entry_key),
        _ => false,
    }
}

/// Why an entry was redacted, if an entry of the log says that it was.
pub fn on_record(session: &Session, log: &Log, entry: &Entry) -> Option<String> {
    let at = entries::of_log(session, Snapshot::Statement, log, &key(entry.leaf_index))?;
    let leaf_data = leaves::annex(session, log, at).leaf_data?;
    let leaf = Leaf::decode(&leaf_data).ok()?;
    let Columns::Map(columns) = leaf.columns else {
        return None;
    };
    let names = leaf.kind == Kind::Redact
        && columns.get("leaf_index") == Some(&Cbor::Integer(entry.leaf_index.into()))
        && columns.get("leaf_hash") == Some(&Cbor::Bytes(entry.leaf_hash.clone()));
    match columns.get("reason") {
        Some(Cbor::Text(reason)) if names => Some(reason.clone()),
        _ => None,
    }
}
