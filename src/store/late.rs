//! `merkle_late_entry`: entries of rows that were found after they should have been logged.
//!
//! A row that came behind the watermark, or past the triggers, is logged when it is found. It is no fault
//! any more then, but whoever put it there may have had a reason to, so that it came late stays on record.

use crate::administration::{self, Act};
use crate::catalog::logs::Log;
use crate::pg::spi::{Row, Snapshot};
use crate::pg::xact;
use crate::session::Session;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use std::collections::HashSet;

/// How a row escaped until it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    BehindWatermark,
    /// Its order value lies ahead of the clock, or of the sequence that gives the values out, where no watermark
    /// goes yet.
    AboveCeiling,
    PastTriggers,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::BehindWatermark => "behind_watermark",
            Way::AboveCeiling => "above_ceiling",
            Way::PastTriggers => "past_triggers",
        }
    }
}

/// Entries that were found at one time, in one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub way: String,
    /// Microseconds since 2000-01-01 00:00 UTC.
    pub found_at: i64,
    pub first: i64,
    pub last: i64,
    pub entries: i64,
    /// SHA-256 of the leaf indexes, each as eight bytes, in hexadecimal digits.
    pub indexes: String,
}

const GROUP: &str = "SELECT l.way, l.found_at, pg_catalog.min(l.leaf_index), pg_catalog.max(l.leaf_index), pg_catalog.count(*),
            pg_catalog.encode(pg_catalog.sha256(pg_catalog.string_agg(pg_catalog.int8send(l.leaf_index), ''::pg_catalog.bytea
                                                                      ORDER BY l.leaf_index)), 'hex')
       FROM @extschema@.merkle_late_entry l WHERE l.log_id = $1";

fn group(row: &Row) -> Group {
    Group {
        way: row.required(0),
        found_at: row.datum(1).map_or(0, |d| d.value() as i64),
        first: row.required(2),
        last: row.required(3),
        entries: row.required(4),
        indexes: row.required(5),
    }
}

/// What stands in the table of a log.
pub fn groups(session: &Session, log: &Log) -> Vec<Group> {
    session.read(
        &format!("{GROUP} GROUP BY l.way, l.found_at"),
        &[log.id.into()],
        group,
    )
}

/// Puts on record that the entries at these leaf indexes were logged late.
pub fn record(session: &Session, log: &Log, indexes: &[i64], way: Way) {
    if indexes.is_empty() {
        return;
    }
    let found_at = TimestampWithTimeZone::try_from(xact::now()).ok();
    session.execute(
        "INSERT INTO @extschema@.merkle_late_entry (log_id, leaf_index, way, found_at)
         SELECT $1, pg_catalog.unnest($2), $3, $4",
        &[
            log.id.into(),
            indexes.to_vec().into(),
            way.name().into(),
            found_at.into(),
        ],
    );
    let group = session.fresh_one(
        &format!("{GROUP} AND l.way = $2 AND l.found_at = $3 GROUP BY l.way, l.found_at"),
        &[log.id.into(), way.name().into(), found_at.into()],
        group,
    );
    if let Some(group) = group {
        let log_id = log.id;
        administration::record(session, Act::LateLogged { log_id, group });
    }
}

/// Those of the entries `from .. to` that came late.
pub fn between(session: &Session, log: &Log, from: i64, to: i64) -> HashSet<i64> {
    let late = session.read(
        "SELECT l.leaf_index FROM @extschema@.merkle_late_entry l
          WHERE l.log_id = $1 AND l.leaf_index >= $2 AND l.leaf_index < $3",
        &[log.id.into(), from.into(), to.into()],
        |row| row.required(0),
    );
    late.into_iter().collect()
}

/// How many entries of the log came late.
pub fn count(session: &Session, log: &Log) -> i64 {
    let count = session.read_one(
        "SELECT pg_catalog.count(*) FROM @extschema@.merkle_late_entry l WHERE l.log_id = $1",
        &[log.id.into()],
        |row| row.required(0),
    );
    count.unwrap_or(0)
}

pub struct LateEntry {
    pub leaf_index: i64,
    /// `None` where the entry was pruned.
    pub source: Option<(String, pg_sys::Oid, String)>,
    pub way: String,
    pub found_at: TimestampWithTimeZone,
}

/// The entries that came late, in the order of the log.
pub fn list(session: &Session, log: &Log) -> Vec<LateEntry> {
    session.query(
        Snapshot::Statement,
        "SELECT l.leaf_index, s.source_table, s.relation::pg_catalog.oid, m.source_key, l.way, l.found_at
           FROM @extschema@.merkle_late_entry l
           LEFT JOIN @extschema@.merkle_log m ON m.log_id = l.log_id AND m.leaf_index = l.leaf_index
           LEFT JOIN @extschema@.verification_sources s ON s.source_id = m.source_id
          WHERE l.log_id = $1 ORDER BY l.leaf_index",
        &[log.id.into()],
        |row: &Row| LateEntry {
            leaf_index: row.required(0),
            source: row
                .get(1)
                .map(|table| (table, row.required(2), row.required(3))),
            way: row.required(4),
            found_at: row.required(5),
        },
    )
}
