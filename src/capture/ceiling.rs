//! How high a watermark may go: no further than values can have been given out by now.
//!
//! A row whose order value lies ahead of the clock, or of the sequence that gives the values out, would
//! take the watermark with it, and leave all that comes after it behind. Such rows are set aside, as those
//! at infinity are: `reconcile` logs them. So whoever may insert can put a row of his own ahead, and cannot
//! keep those of others out.
//!
//! For a column that is filled by `clock_timestamp()` or `uuidv7()`, the ceiling is what makes the fence complete: all
//! that a batch takes is strictly earlier than the clock before the fence was drawn, so a writer that came
//! after it cannot have a value that ties with one of these.

use super::order::{Domain, OrderValue};
use super::order_values::is_time_ordered_uuid;
use super::ready;
use super::row_key::order_value;
use super::shape::Shape;
use super::statement;
use super::table_query::TableQuery;
use crate::catalog::logs::Log;
use crate::pg::spi::Snapshot;
use crate::pg::{foreign_code, role, sequence};
use crate::session::Session;
use pgrx::datum::{DatumWithOid, Interval};
use pgrx::pg_sys;
use std::collections::HashMap;

/// How high a watermark may go now.
#[derive(Clone, Debug)]
pub enum Ceiling {
    /// As high as it likes.
    None,
    /// An order value, in its text form.
    At(String),
    /// As high as it likes, since it is past the last value of the sequence.
    Passed(i64),
}

impl Ceiling {
    pub fn text(&self) -> Option<&str> {
        match self {
            Ceiling::At(text) => Some(text),
            Ceiling::None | Ceiling::Passed(_) => None,
        }
    }

    /// True if a batch takes a row with this order value that is ahead of the watermark.
    pub fn admits(&self, shape: &Shape, order: &OrderValue) -> bool {
        let on_line = !matches!(order, OrderValue::First | OrderValue::Last);
        on_line
            && self
                .text()
                .is_none_or(|text| *order <= order_value(shape, text))
    }
}

pub fn of(session: &Session, log: &Log, shape: &Shape) -> Ceiling {
    of_all(session, log, &[shape])
        .pop()
        .unwrap_or(Ceiling::None)
}

/// As `of`, of several sources at once.
pub fn of_all(session: &Session, log: &Log, shapes: &[&Shape]) -> Vec<Ceiling> {
    let mut clocks: HashMap<pg_sys::Oid, String> = HashMap::new();
    let sequences = last_values(session, shapes);
    let ceiling = |(shape, last): (&&Shape, Option<i64>)| {
        let order = shape.order();
        match Domain::of_type(order.base_type) {
            Some(Domain::Time) => {
                let clock = clocks
                    .entry(order.base_type)
                    .or_insert_with(|| clock(session, order.base_type, log.settle));
                Ceiling::At(clock.clone())
            }
            Some(Domain::Number) => {
                let last = last.or_else(|| as_its_owner(session, shape));
                match (last, logged_order(shape)) {
                    (None, _) => Ceiling::None,
                    // There the writers bring the values.
                    (Some(last), Some(logged)) if logged > OrderValue::Integer(last) => {
                        Ceiling::Passed(last)
                    }
                    (Some(last), _) => Ceiling::At(last.to_string()),
                }
            }
            Some(Domain::Uuid) if is_time_ordered_uuid(session, &shape.table, order) => {
                Ceiling::At(uuid_clock(session))
            }
            Some(Domain::Uuid | Domain::Arrival) | None => Ceiling::None,
        }
    };
    shapes.iter().zip(sequences).map(ceiling).collect()
}

/// Of sequences of which the extension's owner is not told a last value: the last value as the table's owner sees it, or
/// else what lies before the first.
fn as_its_owner(session: &Session, shape: &Shape) -> Option<i64> {
    let positions: Vec<Position> = sequences(session, shape)
        .into_iter()
        .filter_map(|sequence| Position::of(session, shape, sequence))
        .collect();
    let called = positions.iter().filter(|p| p.is_called).map(|p| p.value);
    called.max().or_else(|| before_first(shape, &positions))
}

/// The value before the first that a sequence will give out which has given out none, as after `setval(…, false)`, if
/// there are rows up to it: these were brought along, and whatever lies ahead of the sequence is put there. Where all
/// rows do, nobody may use the sequence, as in a copy that logical replication fills.
fn before_first(shape: &Shape, positions: &[Position]) -> Option<i64> {
    if shape.source.late_accepted {
        return None;
    }
    let first = positions.iter().map(|p| p.value).max()?;
    let before = first.checked_sub(1)?;
    let statement = statement::any_up_to(shape, &before.to_string());
    let found = TableQuery::on(shape).first(Snapshot::Fresh, &statement, |_| ());
    found.map(|()| before)
}

/// Where a sequence is.
struct Position {
    value: i64,
    is_called: bool,
}

impl Position {
    /// Reads it as a table, and as the owner of the source's table: such a lock can be let go, while the server's functions
    /// lock a sequence as a writer does, until the end of the transaction. `None` where it may not be read.
    fn of(session: &Session, shape: &Shape, sequence: pg_sys::Oid) -> Option<Position> {
        role::as_table_owner(shape.table.owner, || {
            let name = session.fresh_one(
                "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.oid = $1 AND c.relkind = 'S' AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
                    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')",
                &[sequence.into()],
                |row| row.required::<String>(0),
            )?;
            let sql = format!("SELECT s.last_value, s.is_called FROM {name} s");
            session.fresh_one(&sql, &[], |row| Position {
                value: row.required(0),
                is_called: row.required(1),
            })
        })
    }
}

/// The order value that the watermark is at.
pub fn logged_order(shape: &Shape) -> Option<OrderValue> {
    let first = shape.source.watermark.as_ref()?.first()?;
    Some(order_value(shape, first))
}

/// True if nothing can lie after the watermark and up to the ceiling: the key is the order column, and the last of
/// what its sequence gave out is logged.
pub fn is_reached(shape: &Shape, ceiling: &Ceiling) -> bool {
    shape.sort.len() == 1
        && ceiling
            .text()
            .is_some_and(|c| logged_order(shape) == Some(order_value(shape, c)))
}

/// As `is_reached`, found out without a statement and without waiting for anyone, of a source that is known to be ready.
/// False where that cannot be told so.
pub fn is_plainly_reached(shape: &Shape) -> bool {
    let logged = match logged_order(shape) {
        Some(OrderValue::Integer(logged)) if shape.sort.len() == 1 => logged,
        _ => return false,
    };
    let given_out = ready::sequences(&shape.source).and_then(|sequences| {
        let positions: Option<Vec<_>> = sequences.into_iter().map(sequence::position).collect();
        let called = positions?.into_iter().filter(|p| p.is_called);
        called.map(|p| p.last_value).max()
    });
    given_out == Some(logged)
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

/// The greatest UUID that is less than all that `uuidv7()` will make from now on.
fn uuid_clock(session: &Session) -> String {
    let now: i64 = session
        .fresh_one(
            "SELECT (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8",
            &[],
            |row| row.required(0),
        )
        .expect("the clock has a time");
    before_uuids_of(now)
}

/// The greatest UUID that is less than all that `uuidv7()` makes from a moment on, in microseconds since 1970.
///
/// Such a UUID holds milliseconds (48 bits), the version (4), and the fraction of the millisecond (12), of which some
/// systems know only the upper 10 (RFC 9562, section 6.2, method 3). What follows is random, the least of it zero.
fn before_uuids_of(micros: i64) -> String {
    let micros = micros.max(0) as u128;
    let (milliseconds, rest) = (micros / 1000, micros % 1000);
    let fraction = ((rest << 10) / 1000) << 2;
    let least = (milliseconds << 16 | 7 << 12 | fraction) << 64;
    let before = least - 1;
    let hex = format!("{before:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// The last value of the sequence that fills each source's order column, where one does.
fn last_values(session: &Session, shapes: &[&Shape]) -> Vec<Option<i64>> {
    let (mut places, mut all) = (Vec::new(), Vec::new());
    for (place, shape) in shapes.iter().enumerate() {
        if Domain::of_type(shape.order().base_type) == Some(Domain::Number) {
            for sequence in sequences(session, shape) {
                places.push(place as i32);
                all.push(sequence);
            }
        }
    }
    let mut values = vec![None; shapes.len()];
    // Whoever only looks at tables holds nobody up: `as_its_owner` does without the server's function.
    if !all.is_empty() && !foreign_code::is_refused() {
        session.fresh(
            "SELECT s.place, pg_catalog.max(CASE WHEN pg_catalog.has_sequence_privilege(s.sequence, 'SELECT,USAGE')
                                                 THEN pg_catalog.pg_sequence_last_value(s.sequence) END)
               FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) s (place, sequence) GROUP BY s.place",
            &[places.into(), all.into()],
            |row| values[row.required::<i32>(0) as usize] = row.get(1),
        );
    }
    values
}

/// The sequences that fill the order column: that of an identity column, and those in its default value.
pub fn sequences(session: &Session, shape: &Shape) -> Vec<pg_sys::Oid> {
    if let Some(known) = ready::sequences(&shape.source) {
        return known;
    }
    let since = ready::now();
    let found = session.fresh(
        "SELECT q.seqrelid
           FROM (SELECT p.objid FROM pg_catalog.pg_depend p
                  WHERE p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.refobjid = $1 AND p.refobjsubid = $2
                    AND p.classid = p.refclassid AND p.deptype = 'i'
                 UNION
                 SELECT p.refobjid FROM pg_catalog.pg_attrdef d
                   JOIN pg_catalog.pg_depend p ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
                  WHERE d.adrelid = $1 AND d.adnum = $2) s (oid)
           JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid",
        &[shape.table.oid.into(), shape.order().attnum.into()],
        |row| row.required(0),
    );
    ready::keep_sequences(since, &shape.source, &found);
    found
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
