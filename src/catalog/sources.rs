//! `verification_sources`: the tables that feed a log.

use crate::catalog::logs::Log;
use crate::error::Error;
use crate::pg::spi::Row;
use crate::session::Session;
use pgrx::pg_sys;

#[derive(Clone, Debug)]
pub struct Source {
    pub id: i32,
    /// The table's name as registered, `schema.table`: part of every leaf.
    pub name: String,
    pub relation: pg_sys::Oid,
    /// The table that the attribute numbers of the versions refer to (`capture::shape::identity`).
    pub bound_to: String,
    pub order_column: String,
    pub key_columns: Vec<String>,
    /// The columns to log; `None` for all.
    pub columns: Option<Vec<String>>,
    pub hash_column: Option<String>,
    /// Text forms of the last logged row's order value and key, in the order of
    /// `capture::shape::Shape::sort`; `None` before the first.
    pub watermark: Option<Vec<String>>,
    pub removed: bool,
}

const COLUMNS: &str = "s.source_id, s.source_table, s.relation::pg_catalog.oid, s.bound_to,
    s.order_column, s.key_columns, s.columns, s.hash_column, s.watermark, s.removed_at IS NOT NULL";

fn from_row(row: &Row) -> Source {
    Source {
        id: row.required(0),
        name: row.required(1),
        relation: row.required(2),
        bound_to: row.required(3),
        order_column: row.required(4),
        key_columns: row.required(5),
        columns: row.get(6),
        hash_column: row.get(7),
        watermark: row.get(8),
        removed: row.required(9),
    }
}

fn select(condition: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM @extschema@.verification_sources s
          WHERE s.log_id = $1 AND {condition} ORDER BY s.source_id"
    )
}

/// The sources that feed the log now, read with a fresh snapshot.
pub fn active(session: &Session, log: &Log) -> Vec<Source> {
    session.fresh(&select("s.removed_at IS NULL"), &[log.id.into()], from_row)
}

/// Every source that ever fed the log, as the calling statement sees them.
pub fn all(session: &Session, log: &Log) -> Vec<Source> {
    session.read(&select("true"), &[log.id.into()], from_row)
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

/// A relation's name for messages: its number where it is gone.
pub fn relation_name(session: &Session, relation: pg_sys::Oid) -> String {
    session
        .fresh_one(
            "SELECT $1::pg_catalog.oid::pg_catalog.regclass::pg_catalog.text",
            &[relation.into()],
            |row| row.required(0),
        )
        .unwrap_or_default()
}

/// Registers a source; `source.id` and `source.watermark` are not read. Returns its id.
pub fn insert(session: &Session, log: &Log, source: &Source) -> i32 {
    session
        .fresh_one(
            "INSERT INTO @extschema@.verification_sources
                (log_id, source_table, relation, bound_to, capture, order_column, key_columns, columns, hash_column)
             VALUES ($1, $2, $3::pg_catalog.regclass, $4, 'watermark', $5, $6, $7, $8)
             RETURNING source_id",
            &[
                log.id.into(),
                source.name.as_str().into(),
                source.relation.into(),
                source.bound_to.as_str().into(),
                source.order_column.as_str().into(),
                source.key_columns.clone().into(),
                source.columns.clone().into(),
                source.hash_column.as_deref().into(),
            ],
            |row| row.required(0),
        )
        .expect("INSERT … RETURNING returns a row")
}

/// Stores what can change about a source but its watermark: names that follow the table's, the
/// choice of columns, and what it is bound to.
pub fn update(session: &Session, source: &Source) {
    session.execute(
        "UPDATE @extschema@.verification_sources
            SET bound_to = $2, order_column = $3, key_columns = $4, columns = $5, hash_column = $6
          WHERE source_id = $1",
        &[
            source.id.into(),
            source.bound_to.as_str().into(),
            source.order_column.as_str().into(),
            source.key_columns.clone().into(),
            source.columns.clone().into(),
            source.hash_column.as_deref().into(),
        ],
    );
}

/// Moves the watermark to the last logged row.
pub fn set_watermark(session: &Session, source_id: i32, watermark: &[String]) {
    session.execute(
        "UPDATE @extschema@.verification_sources SET watermark = $2 WHERE source_id = $1",
        &[source_id.into(), watermark.to_vec().into()],
    );
}

/// Takes the table out of the log; its entries stay.
pub fn remove(session: &Session, source: &Source) {
    session.execute(
        "UPDATE @extschema@.verification_sources SET removed_at = pg_catalog.clock_timestamp()
          WHERE source_id = $1",
        &[source.id.into()],
    );
}
