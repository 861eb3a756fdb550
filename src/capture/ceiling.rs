//! How high a watermark may go: no further than values can have been given out by now.
//!
//! A row whose order value lies ahead of the clock, or of the sequence that gives the values out, would
//! take the watermark with it, and leave all that comes after it behind. Such rows are set aside, as those
//! at infinity are: `reconcile` logs them. So whoever may insert can put a row of his own ahead, and cannot
//! keep those of others out.
//!
//! For a column that is filled by `clock_timestamp()`, the ceiling is what makes the fence complete: all
//! that a batch takes is strictly earlier than the clock before the fence was drawn, so a writer that came
//! after it cannot have a value that ties with one of these.

use super::order::{Domain, OrderValue};
use super::row_key::order_value;
use super::shape::Shape;
use crate::catalog::logs::Log;
use crate::session::Session;
use pgrx::datum::{DatumWithOid, Interval};
use pgrx::pg_sys;
use std::collections::HashMap;

/// The highest order value that a batch may take now, in its text form; `None` where there is no limit.
pub fn of(session: &Session, log: &Log, shape: &Shape) -> Option<String> {
    match Domain::of_type(shape.order().base_type)? {
        Domain::Time => Some(clock(session, shape.order().base_type, log.settle)),
        Domain::Number => sequence(session, shape),
        Domain::Uuid | Domain::Arrival => None,
    }
}

/// What is earlier than the clock, and `settle` old. Without a time zone it may be that of any zone, of
/// which the earliest is 14 hours ahead of UTC.
fn clock(session: &Session, base_type: pg_sys::Oid, settle: Option<Interval>) -> String {
    let by_zone = if settle.is_some() { "0" } else { "14 hours" };
    let expression = match base_type {
        pg_sys::TIMESTAMPTZOID => "$1 - '1 microsecond'::pg_catalog.interval",
        pg_sys::TIMESTAMPOID => "pg_catalog.timezone('UTC', $1) + $2::pg_catalog.interval",
        _ => "pg_catalog.date(pg_catalog.timezone('UTC', $1) + $2::pg_catalog.interval)",
    };
    let now = format!(
        "SELECT ({})::pg_catalog.text",
        expression.replace("$1", "(pg_catalog.clock_timestamp() - $1)")
    );
    let args: [DatumWithOid; 2] = [
        settle.unwrap_or_else(|| Interval::from_micros(0)).into(),
        by_zone.into(),
    ];
    let sql = format!("{now} WHERE $2 IS NOT NULL");
    session
        .fresh_one(&sql, &args, |row| row.required(0))
        .expect("the clock has a time")
}

/// The last value of the sequence that fills the order column. None where the log is past it already:
/// there the writers bring the values.
fn sequence(session: &Session, shape: &Shape) -> Option<String> {
    let last: i64 = session
        .fresh_one(
            "SELECT pg_catalog.max(CASE WHEN pg_catalog.has_sequence_privilege(q.seqrelid, 'SELECT,USAGE')
                                        THEN pg_catalog.pg_sequence_last_value(q.seqrelid) END)
               FROM pg_catalog.pg_depend p
               JOIN pg_catalog.pg_sequence q ON q.seqrelid = CASE p.deptype WHEN 'i' THEN p.objid ELSE p.refobjid END
               LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = $1 AND d.adnum = $2
              WHERE p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.deptype = 'i'
                AND p.refclassid = p.classid AND p.refobjid = $1 AND p.refobjsubid = $2
                 OR p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid",
            &[shape.table.oid.into(), shape.order().attnum.into()],
            |row| row.get(0),
        )
        .flatten()?;
    let logged = shape.source.watermark.as_ref().and_then(|w| w.first());
    let past = logged.is_some_and(|w| order_value(shape.order(), w) > OrderValue::Integer(last));
    (!past).then(|| last.to_string())
}

/// For each source of a log with entries of rows ahead of its watermark: the least order value that such a
/// row can have.
pub fn logged_ahead(session: &Session, log: &Log) -> HashMap<i32, String> {
    session
        .fresh(
            "SELECT s.source_id, s.logged_ahead FROM @extschema@.verification_sources s
              WHERE s.log_id = $1 AND s.logged_ahead IS NOT NULL",
            &[log.id.into()],
            |row| (row.required(0), row.required(1)),
        )
        .into_iter()
        .collect()
}

pub fn set_logged_ahead(session: &Session, source_id: i32, least: Option<&str>) {
    session.execute(
        "UPDATE @extschema@.verification_sources SET logged_ahead = $2
          WHERE source_id = $1 AND logged_ahead IS DISTINCT FROM $2",
        &[source_id.into(), least.into()],
    );
}
