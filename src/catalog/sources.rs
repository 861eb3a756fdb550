//! `verification_sources`: the tables that feed a log.

use crate::administration::{self, Act};
use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::relcache;
use crate::pg::spi::Row;
use crate::session::Session;
use pgrx::pg_sys;

/// The source id of entries that the log itself makes: truncations, redactions, and acts of
/// administration.
pub const OF_LOG: i32 = 0;

/// How a source's changes come to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    Watermark,
    Trigger,
}

impl Capture {
    pub fn name(self) -> &'static str {
        match self {
            Capture::Watermark => "watermark",
            Capture::Trigger => "trigger",
        }
    }

    pub fn from_name(name: &str) -> Option<Capture> {
        [Capture::Watermark, Capture::Trigger]
            .into_iter()
            .find(|c| c.name() == name)
    }
}

#[derive(Clone, Debug)]
pub struct Source {
    pub id: i32,
    pub log_id: i32,
    /// The table's name as registered, `schema.table`, with a number where that was another's: part of every leaf.
    pub name: String,
    pub relation: pg_sys::Oid,
    /// The table that the attribute numbers of the versions refer to (`capture::shape::identity`).
    pub bound_to: String,
    pub capture: Capture,
    /// Watermark capture has one, trigger capture none.
    pub order_column: Option<String>,
    pub key_columns: Vec<String>,
    /// The columns to log; `None` for all.
    pub columns: Option<Vec<String>>,
    pub hash_column: Option<String>,
    /// Text forms of the last logged row's order value and key, in the order of
    /// `capture::shape::Shape::sort`; `None` before the first.
    pub watermark: Option<Vec<String>>,
    pub removed: bool,
    /// UPDATE, DELETE and TRUNCATE of the table are refused.
    pub append_only: bool,
    /// TRUNCATE is logged rather than refused, where it is captured.
    pub allow_truncate: bool,
    pub store_leaf_data: bool,
    /// The text of the statement is in the leaf of a captured change.
    pub record_statement: bool,
    pub salted: bool,
    /// Trigger capture: the key after which rows that were there before the triggers are still to be
    /// looked for, empty for the beginning; `None` when that is done.
    pub backfill: Option<Vec<String>>,
    /// The highest order value among the entries that were pruned.
    pub pruned_order: Option<String>,
    /// Every row is to have an entry: false where the rows from before the triggers were left out.
    pub complete: bool,
    /// The rows that were there before the triggers have been logged: one that is found without an entry
    /// came late.
    pub backfilled: bool,
    /// The mode was named when the source was added, so it is accepted that rows come late. Where it was not,
    /// the order column is to stay one for which the fence is complete.
    pub late_accepted: bool,
}

impl Source {
    pub fn by_trigger(&self) -> bool {
        self.capture == Capture::Trigger
    }

    /// True if a captured row without an entry must have come past the triggers: none was left out,
    /// is still to be backfilled, or has had its entry pruned.
    pub fn every_row_is_logged(&self) -> bool {
        self.complete && self.backfill.is_none() && self.pruned_order.is_none()
    }
}

/// The name that a table had when it was registered, from the source's: without the number that tells it from others of
/// that name. Where the table's name itself ends like that, it is quoted.
pub fn table_name(registered: &str) -> &str {
    let numbered = registered
        .strip_suffix(')')
        .and_then(|r| r.rsplit_once(" ("));
    let is_number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    match numbered {
        Some((name, number)) if is_number(number) => name,
        _ => registered,
    }
}

const COLUMNS: &str = "s.source_id, s.log_id, s.source_table, s.relation::pg_catalog.oid, s.bound_to,
    s.capture, s.order_column, s.key_columns, s.columns, s.hash_column, s.watermark,
    s.removed_at IS NOT NULL, s.append_only, s.allow_truncate, s.store_leaf_data, s.salted, s.backfill,
    s.pruned_order, s.complete, s.backfilled, s.late_accepted, s.record_statement";

/// An array of texts; an element that is NULL, which nothing of ours writes, becomes the empty text.
fn texts(row: &Row, column: usize) -> Option<Vec<String>> {
    let elements: Vec<Option<String>> = row.get(column)?;
    Some(
        elements
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect(),
    )
}

fn from_row(row: &Row) -> Source {
    Source {
        id: row.required(0),
        log_id: row.required(1),
        name: row.required(2),
        relation: row.required(3),
        bound_to: row.required(4),
        capture: match row.required::<String>(5).as_str() {
            "trigger" => Capture::Trigger,
            _ => Capture::Watermark,
        },
        order_column: row.get(6),
        key_columns: texts(row, 7).unwrap_or_default(),
        columns: texts(row, 8),
        hash_column: row.get(9),
        watermark: texts(row, 10),
        removed: row.required(11),
        append_only: row.required(12),
        allow_truncate: row.required(13),
        store_leaf_data: row.required(14),
        salted: row.required(15),
        backfill: texts(row, 16),
        pruned_order: row.get(17),
        complete: row.required(18),
        backfilled: row.required(19),
        late_accepted: row.required(20),
        record_statement: row.required(21),
    }
}

fn select(condition: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM @extschema@.verification_sources s
          WHERE {condition} ORDER BY s.source_id"
    )
}

/// The sources that feed the log now, read with a fresh snapshot.
pub fn active(session: &Session, log: &Log) -> Vec<Source> {
    let sql = select("s.log_id = $1 AND s.removed_at IS NULL");
    session.fresh(&sql, &[log.id.into()], from_row)
}

/// As `active`, of several logs.
pub fn active_of(session: &Session, log_ids: &[i32]) -> Vec<Source> {
    let sql = select("s.log_id = ANY ($1) AND s.removed_at IS NULL");
    session.fresh(&sql, &[log_ids.to_vec().into()], from_row)
}

/// Every source that ever fed the log, as the calling statement sees them.
pub fn all(session: &Session, log: &Log) -> Vec<Source> {
    session.read(&select("s.log_id = $1"), &[log.id.into()], from_row)
}

/// A source of any log, read with a fresh snapshot.
pub fn by_id(session: &Session, id: i32) -> Option<Source> {
    session.fresh_one(&select("s.source_id = $1"), &[id.into()], from_row)
}

/// The active source of `log` that is `relation`.
pub fn by_relation(session: &Session, log: &Log, relation: pg_sys::Oid) -> Result<Source, Error> {
    active(session, log)
        .into_iter()
        .find(|s| s.relation == relation)
        .ok_or_else(|| Error::NoSuchSource {
            log: log.name.clone(),
            table: relation_name(session, relation),
        })
}

/// A relation's name for messages: its number where it is gone, and - for none.
pub fn relation_name(session: &Session, relation: pg_sys::Oid) -> String {
    session
        .fresh_one(
            "SELECT $1::pg_catalog.int8::pg_catalog.oid::pg_catalog.regclass::pg_catalog.text",
            &[i64::from(relation.to_u32()).into()],
            |row| row.required(0),
        )
        .unwrap_or_default()
}

/// Registers a source; `source.id` and `source.watermark` are not read. Returns its id.
pub fn insert(session: &Session, source: &Source) -> i32 {
    relcache::invalidate(source.relation);
    let source_id = session
        .fresh_one(
            "INSERT INTO @extschema@.verification_sources
                (log_id, source_table, relation, bound_to, capture, order_column, key_columns, columns,
                 hash_column, append_only, allow_truncate, store_leaf_data, salted, backfill, complete,
                 late_accepted, record_statement)
             VALUES ($1, $2, $3::pg_catalog.regclass, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
             RETURNING source_id",
            &[
                source.log_id.into(),
                source.name.as_str().into(),
                source.relation.into(),
                source.bound_to.as_str().into(),
                source.capture.name().into(),
                source.order_column.as_deref().into(),
                source.key_columns.clone().into(),
                source.columns.clone().into(),
                source.hash_column.as_deref().into(),
                source.append_only.into(),
                source.allow_truncate.into(),
                source.store_leaf_data.into(),
                source.salted.into(),
                source.backfill.clone().into(),
                source.complete.into(),
                source.late_accepted.into(),
                source.record_statement.into(),
            ],
            |row| row.required(0),
        )
        .expect("INSERT … RETURNING returns a row");
    administration::record(session, Act::SourceAdded { source_id });
    source_id
}

/// Stores what can change about a source but how far it is: names that follow the table's, the
/// choice of columns, what it is bound to, and what is refused or kept.
pub fn update(session: &Session, source: &Source) {
    session.execute(
        "UPDATE @extschema@.verification_sources
            SET bound_to = $2, order_column = $3, key_columns = $4, columns = $5, hash_column = $6,
                append_only = $7, allow_truncate = $8, store_leaf_data = $9, record_statement = $10
          WHERE source_id = $1",
        &[
            source.id.into(),
            source.bound_to.as_str().into(),
            source.order_column.as_deref().into(),
            source.key_columns.clone().into(),
            source.columns.clone().into(),
            source.hash_column.as_deref().into(),
            source.append_only.into(),
            source.allow_truncate.into(),
            source.store_leaf_data.into(),
            source.record_statement.into(),
        ],
    );
    relcache::invalidate(source.relation);
    let source_id = source.id;
    administration::record(session, Act::SourceAltered { source_id });
}

/// Moves the watermark to the last logged row.
pub fn set_watermark(session: &Session, source_id: i32, watermark: &[String]) {
    session.execute(
        "UPDATE @extschema@.verification_sources SET watermark = $2 WHERE source_id = $1",
        &[source_id.into(), watermark.to_vec().into()],
    );
}

/// Moves the place up to which a source was backfilled; `None` when it is done.
pub fn set_backfill(session: &Session, source_id: i32, after: Option<&[String]>) {
    let changed = session.fresh(
        "UPDATE @extschema@.verification_sources SET backfill = $2, backfilled = backfilled OR $2 IS NULL
          WHERE source_id = $1 AND backfill IS DISTINCT FROM $2 RETURNING true",
        &[source_id.into(), after.map(<[String]>::to_vec).into()],
        |_| (),
    );
    if after.is_none() && !changed.is_empty() {
        administration::record(session, Act::BackfillFinished { source_id });
    }
}

/// Lets batches look for rows without an entry, from the beginning.
pub fn start_backfill(session: &Session, source_id: i32) {
    session.execute(
        "UPDATE @extschema@.verification_sources SET backfill = '{}', complete = true WHERE source_id = $1",
        &[source_id.into()],
    );
    administration::record(session, Act::BackfillStarted { source_id });
}

/// Lets a source that was removed go on: its entries are held against its table again.
pub fn readmit(session: &Session, source: &Source) {
    session.execute(
        "UPDATE @extschema@.verification_sources
            SET removed_at = NULL, columns = $2, append_only = $3, allow_truncate = $4, store_leaf_data = $5,
                backfill = $6, complete = $7, late_accepted = $8, hash_column = $9, record_statement = $10
          WHERE source_id = $1",
        &[
            source.id.into(),
            source.columns.clone().into(),
            source.append_only.into(),
            source.allow_truncate.into(),
            source.store_leaf_data.into(),
            source.backfill.clone().into(),
            source.complete.into(),
            source.late_accepted.into(),
            source.hash_column.as_deref().into(),
            source.record_statement.into(),
        ],
    );
    relcache::invalidate(source.relation);
    let source_id = source.id;
    administration::record(session, Act::SourceAdded { source_id });
}

/// Takes the table out of the log; its entries stay.
pub fn remove(session: &Session, source: &Source) {
    session.execute(
        "UPDATE @extschema@.verification_sources SET removed_at = pg_catalog.clock_timestamp()
          WHERE source_id = $1",
        &[source.id.into()],
    );
    relcache::invalidate(source.relation);
    let source_id = source.id;
    administration::record(session, Act::SourceRemoved { source_id });
}
