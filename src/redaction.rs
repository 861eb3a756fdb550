//! Redaction: what an entry was made from is destroyed, the entry stays.
//!
//! A salted leaf hash says nothing about its row to one who does not have the salt. So when the salt is
//! gone, and the leaf data where the log kept it, nothing personal is left; the tree is as it was, and
//! an entry of its own says who erased what, when and why.
//!
//! A row is redacted by its key: all its entries now, and every later one as it is logged. So it does not
//! matter whether a row is first redacted and then deleted, or the other way round.

mod lineage;

use crate::batch;
use crate::capture::given_key::GivenKey;
use crate::capture::row_key::{self, Finder, RowKey};
use crate::capture::shape::Shape;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{self, OF_LOG, Source};
use crate::encode::time;
use crate::error::{Error, literal};
use crate::pg::spi::Snapshot;
use crate::pg::subtransaction;
use crate::session::Session;
use crate::store::append::Appender;
use crate::store::entries::{self, Entry};
use crate::store::redacted::{self, RedactedKey, Redaction, Subject};
use crate::store::{heads, key_index, leaves};
use leaf_format::{Cbor, Columns, Kind, Leaf};
use lineage::Lineage;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Redacts an entry and returns the leaf index of the entry that says so.
pub fn redact(session: &Session, name: &str, index: i64, reason: &str) -> Result<i64, Error> {
    batch::check_writable(Some(name))?;
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
    if !redacted::erase(session, &log, index) {
        return Err(cannot("it was redacted before"));
    }
    let subject = Subject::Entry {
        index,
        leaf_hash: &entry.leaf_hash,
    };
    let redaction = Redaction::new(session, &log, &source.name, &subject, reason)?;
    let mut appender = Appender::open(session, &log)?;
    let at = appender.push(&redaction.entry())?;
    appender.finish()?;
    Ok(at)
}

/// Redacts every entry of a row, those to come included; returns how many entries were redacted now.
pub fn redact_row(
    session: &Session,
    name: &str,
    relation: pg_sys::Oid,
    key: GivenKey,
    reason: &str,
) -> Result<i64, Error> {
    batch::check_writable(Some(name))?;
    let log = logs::lock_and_wait(session, name)?;
    let finder = Finder::of(session, &log, relation)?;
    let known = |ids: &[i32]| -> Vec<Source> {
        ids.iter()
            .filter_map(|id| sources::by_id(session, *id))
            .collect()
    };
    let (of_key, others) = (known(&finder.sources), known(&finder.others));
    for source in of_key.iter().chain(&others) {
        session.check_caller_owns(&log, source)?;
        if !source.salted {
            return Err(Error::CannotRedactRow {
                log: log.name.clone(),
                table: source.name.clone(),
            });
        }
    }
    // What is captured and not yet logged is logged first, so that nothing of it stays in the queue. Labels that got
    // other names since are put on record, so that it is known which entry calls the row what.
    batch::drain_queue(session, &log)?;
    record_names(session, &log, &of_key)?;
    let finder = Finder::of(session, &log, relation)?;
    let key = finder.key(session, key)?;
    let mut appender = Appender::open(session, &log)?;
    let mut count = 0;
    for source in &of_key {
        // Before anything is erased, since the lives of rows are told by it.
        let lineage = lineage_of(session, &log, source, &finder, &key)?;
        count += redact_entries(session, &log, source, &key, reason, &mut appender)?;
        count += redact_lineage(
            session,
            &log,
            source,
            &finder,
            lineage,
            reason,
            &mut appender,
        )?;
    }
    for source in &others {
        count += redact_elsewhere(session, &log, source, &of_key, &key, reason, &mut appender)?;
    }
    appender.finish()?;
    Ok(count)
}

fn record_names(session: &Session, log: &Log, sources: &[Source]) -> Result<(), Error> {
    let size = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
    for source in sources {
        let mut shape = Shape::locked(session, log, source)?;
        if row_key::has_labels(&shape) && !source.removed {
            shape.record(session, size)?;
        }
        let untold = row_key::untold(&shape);
        if !untold.is_empty() {
            let message = format!(
                "names inside of {} were others before: entries of the row from then are not found in log \"{}\", and are not redacted",
                untold.join(", "),
                log.name
            );
            warn(message, &log.name);
        }
    }
    Ok(())
}

/// Redacts the entries of a source that the table was under another key, as far as the row itself tells which
/// these are. The caller is told what it does not.
fn redact_elsewhere(
    session: &Session,
    log: &Log,
    source: &Source,
    of_key: &[Source],
    key: &RowKey,
    reason: &str,
    appender: &mut Appender,
) -> Result<i64, Error> {
    let before = redacted::unredacted(session, log, source.id);
    if before == 0 {
        return Ok(0);
    }
    let other = other_key(session, log, source, of_key, key).unwrap_or(None);
    let (count, known) = match other {
        Some(other) => {
            let of_source = Finder::of_source(session, log, source)?;
            let other = of_source.key(session, GivenKey::Text(&other))?;
            let count = redact_entries(session, log, source, &other, reason, appender)?;
            (
                count,
                format!(
                    "of those of the row, the {count} under {}, its key as it is now, were redacted",
                    other.text
                ),
            )
        }
        None => (
            0,
            "which of them are of the row is not known, since it is not in the table".to_owned(),
        ),
    };
    let left = before - count;
    if left > 0 {
        let message = format!(
            "log \"{}\" has {left} entries of table \"{}\" by another key ({}) that are not redacted: {known}",
            log.name,
            source.name,
            source.key_columns.join(", ")
        );
        warn(message, &log.name);
    }
    Ok(count)
}

fn warn(message: String, log: &str) {
    let hint = format!(
        "If they are of the person as well: redact_row({0}, …) redacts all entries of a key, SELECT redact({0}, leaf_index, reason) a single one.",
        literal(log)
    );
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "redact_row")
        .set_hint(hint)
        .report(PgLogLevel::WARNING);
}

/// The key that a source has for the row with this key of other columns, as the row is now.
fn other_key(
    session: &Session,
    log: &Log,
    source: &Source,
    of_key: &[Source],
    key: &RowKey,
) -> Result<Option<String>, Error> {
    let Some(latest) = of_key.last() else {
        return Ok(None);
    };
    let now = Shape::locked(session, log, latest)?;
    let then = Shape::load(session, log, source)?;
    session.pinned(|| row_key::of_row_now(&now, &key.text, &then.key))
}

fn redact_entries(
    session: &Session,
    log: &Log,
    source: &Source,
    key: &RowKey,
    reason: &str,
    appender: &mut Appender,
) -> Result<i64, Error> {
    let subject = Subject::Row {
        source_id: source.id,
        key: &key.text,
    };
    if redacted::remember(session, log, source.id, &key.text, appender.size(), reason) {
        appender.push(&Redaction::new(session, log, &source.name, &subject, reason)?.entry())?;
    }
    let mut count = 0;
    let size = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
    for index in entries::of_row(session, Snapshot::Fresh, log, source.id, key)? {
        count += redact_entry(session, log, source, (index, size), reason, appender)?;
    }
    Ok(count)
}

/// Redacts an entry of a log of `size` entries, if it is the source's and was not redacted before; how many that are.
fn redact_entry(
    session: &Session,
    log: &Log,
    source: &Source,
    (index, size): (i64, i64),
    reason: &str,
    appender: &mut Appender,
) -> Result<i64, Error> {
    let entry = entries::at(session, Snapshot::Fresh, log, index, size)?;
    if entry.source_id != source.id || !redacted::erase(session, log, index) {
        return Ok(0);
    }
    let subject = Subject::Entry {
        index,
        leaf_hash: &entry.leaf_hash,
    };
    appender.push(&Redaction::new(session, log, &source.name, &subject, reason)?.entry())?;
    Ok(1)
}

/// Where else the row is. What cannot be followed, as under a type of the key that it has no more, does not keep its
/// entries under this key from being redacted.
fn lineage_of(
    session: &Session,
    log: &Log,
    source: &Source,
    finder: &Finder,
    key: &RowKey,
) -> Result<Lineage, Error> {
    match subtransaction::run(|| lineage::of(session, log, source, finder, &key.text)) {
        Ok(lineage) => lineage,
        Err(failure) if !failure.is_about_content() => failure.raise(),
        Err(failure) => {
            let message = format!(
                "other keys of the row in log \"{}\" cannot be followed: {}",
                log.name, failure.message
            );
            warn(message, &log.name);
            Ok(Lineage::default())
        }
    }
}

/// Redacts what a row has under other keys, and says what may be of it as well.
fn redact_lineage(
    session: &Session,
    log: &Log,
    source: &Source,
    finder: &Finder,
    lineage: Lineage,
    reason: &str,
    appender: &mut Appender,
) -> Result<i64, Error> {
    let size = heads::latest(session, Snapshot::Fresh, log)?.tree_size;
    let mut count = 0;
    for index in lineage.entries {
        count += redact_entry(session, log, source, (index, size), reason, appender)?;
    }
    if let Some(now) = &lineage.now {
        let key = finder.key(session, GivenKey::Text(now))?;
        count += redact_entries(session, log, source, &key, reason, appender)?;
    }
    let mut keys = lineage.earlier;
    keys.extend(lineage.now);
    if !keys.is_empty() {
        pgrx::notice!(
            "the row had other keys in log \"{}\" ({}): its entries under these are redacted too",
            log.name,
            lineage::named(&keys)
        );
    }
    for (keys, what) in [
        (
            lineage.others,
            "rows that had the key before it have other keys as well",
        ),
        (
            lineage.untold,
            "the same statements deleted and inserted these keys, which may be of the row,",
        ),
    ] {
        if !keys.is_empty() {
            let keys = lineage::named(&keys);
            warn(
                format!("log \"{}\": {what} and are not redacted: {keys}", log.name),
                &log.name,
            );
        }
    }
    Ok(count)
}

/// Why an entry was redacted, if an entry of the log says that it was.
pub fn on_record(session: &Session, log: &Log, entry: &Entry) -> Option<String> {
    let subject = Subject::Entry {
        index: entry.leaf_index,
        leaf_hash: &entry.leaf_hash,
    };
    let at = entries::of_log(session, Snapshot::Statement, log, &subject.key())?;
    let leaf = leaves::in_full(session, Snapshot::Statement, log, at)?;
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

/// What of `merkle_redacted_key` is not what the log's entries say: source, key, and what is wrong. Of rows
/// whose entry was pruned, the administration log has a digest.
pub fn contradictions(session: &Session, log: &Log) -> Vec<(i32, String, &'static str)> {
    let size = match heads::latest(session, Snapshot::Statement, log) {
        Ok(head) => head.tree_size,
        Err(_) => return Vec::new(),
    };
    let wrong = |row: &RedactedKey| {
        if !(0..size).contains(&row.leaf_index) {
            return Some("the key is marked as redacted, and no entry of the log says that it was");
        }
        let is_misplaced =
            key_index::is_misplaced(session, log, row.source_id, &row.key, row.key_hash);
        if row.leaf_index < log.pruned_to {
            return is_misplaced.then_some("the hash of the redacted key is another");
        }
        let leaf = leaves::in_full(session, Snapshot::Statement, log, row.leaf_index);
        let said = leaf.as_ref().and_then(redacted::row_of);
        match (leaf, said) {
            (Some(leaf), Some((source_id, key)))
                if leaf.kind == Kind::Redact && (source_id, &key) == (row.source_id, &row.key) =>
            {
                let at = leaf.origin.as_ref().map(|o| time::server_micros(o.at));
                let same = reason_of(&leaf) == Some(&row.reason) && at == Some(row.redacted_at);
                (!same)
                    .then_some("the reason or the time of the redaction is not what its entry says")
            }
            _ => Some("the key is marked as redacted, and no entry of the log says that it was"),
        }
        .or(is_misplaced.then_some("the hash of the redacted key is another"))
    };
    let rows = redacted::all(session, Snapshot::Statement, log);
    let wrong = rows.into_iter().filter_map(|row| Some((wrong(&row)?, row)));
    wrong
        .map(|(problem, row)| (row.source_id, row.key, problem))
        .collect()
}

fn reason_of(leaf: &Leaf) -> Option<&String> {
    match &leaf.columns {
        Columns::Map(columns) => match columns.get("reason") {
            Some(Cbor::Text(reason)) => Some(reason),
            _ => None,
        },
        Columns::Digest(_) => None,
    }
}
