//! Rows of the configuration tables in the form in which acts put them on record.
//!
//! A row is recorded with all its columns but the few that are listed here, so that a new column is on
//! record without another word.

use crate::pg::spi::Snapshot;
use crate::session::Session;
use leaf_format::{Cbor, Value};
use pgrx::datum::DatumWithOid;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// A table whose rows acts put on record.
struct Table {
    name: &'static str,
    /// The columns that name a row.
    key: &'static [&'static str],
    /// Columns that are not recorded: the state of the moment, and numbers that a dump and restore change.
    unrecorded: &'static [&'static str],
}

const LOGS: Table = Table {
    name: "verification_logs",
    key: &["log_id"],
    unrecorded: &["last_error", "last_error_at", "waiting_for"],
};
const SOURCES: Table = Table {
    name: "verification_sources",
    key: &["source_id"],
    unrecorded: &["relation", "key_equality", "logged_ahead"],
};
const VERSIONS: Table = Table {
    name: "verification_source_versions",
    key: &["source_id", "version"],
    unrecorded: &[],
};
const COLUMNS: Table = Table {
    name: "verification_source_columns",
    key: &["source_id", "version", "column_name"],
    unrecorded: &[],
};
const PARTITIONS: Table = Table {
    name: "verification_source_partitions",
    key: &["source_id", "partition_name", "from_leaf_index"],
    unrecorded: &["relation"],
};
const DEFINITIONS: Table = Table {
    name: "verification_source_definitions",
    key: &["source_id"],
    unrecorded: &[],
};
const RETIREMENTS: Table = Table {
    name: "verification_source_retirements",
    key: &["source_id", "from_leaf_index"],
    unrecorded: &[],
};
const DATABASES: Table = Table {
    name: "merkle_database",
    key: &["system_identifier", "database_oid"],
    unrecorded: &[],
};
const TABLES: [&Table; 8] = [
    &LOGS,
    &SOURCES,
    &VERSIONS,
    &COLUMNS,
    &PARTITIONS,
    &DEFINITIONS,
    &RETIREMENTS,
    &DATABASES,
];

/// Columns that hold values of a source's rows: people who may not read the source are not shown these.
pub const VALUES: [&str; 4] = ["watermark", "backfill", "pruned_order", "retired_before"];

/// A row of a table, by column; NULLs are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub table: String,
    pub columns: Map<String, Json>,
}

/// What names a row: its table and key.
pub type RowId = (String, Vec<String>);

/// What leaf data leave out, which have no NULLs in maps.
fn without_nulls(map: Map<String, Json>) -> Map<String, Json> {
    fn inside(value: Json) -> Json {
        match value {
            Json::Object(map) => Json::Object(without_nulls(map)),
            Json::Array(elements) => elements.into_iter().map(inside).collect(),
            other => other,
        }
    }
    let there = map.into_iter().filter(|(_, value)| !value.is_null());
    there.map(|(name, value)| (name, inside(value))).collect()
}

/// The configuration, row by row.
pub type Configuration = BTreeMap<RowId, Row>;

impl Row {
    fn new(table: &str, json: &str) -> Option<Row> {
        let Ok(Json::Object(columns)) = serde_json::from_str(json) else {
            return None;
        };
        Some(Row {
            table: table.to_owned(),
            columns: without_nulls(columns),
        })
    }

    /// A row as leaf data have it.
    pub fn from_leaf(value: &Cbor) -> Option<Row> {
        let Cbor::Array(parts) = value else {
            return None;
        };
        match parts.as_slice() {
            [Cbor::Text(table), columns @ Cbor::Map(_)] => match json(columns)? {
                Json::Object(columns) => Some(Row {
                    table: table.clone(),
                    columns,
                }),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn to_value(&self) -> Value<'_> {
        let column = |(name, json): (&String, &Json)| (name.clone().into(), value(json));
        Value::List(vec![
            Value::Text(self.table.as_str().into()),
            Value::Composite(self.columns.iter().map(column).collect()),
        ])
    }

    /// Bytes of it as JSON.
    pub fn length(&self) -> usize {
        let of = |(name, json): (&String, &Json)| name.len() + json.to_string().len() + 4;
        self.table.len() + self.columns.iter().map(of).sum::<usize>()
    }

    /// `None` if it is of a table that has no rows on record, or lacks a column of the key.
    pub fn id(&self) -> Option<RowId> {
        let table = TABLES.iter().find(|t| t.name == self.table)?;
        let part = |column: &&str| self.columns.get(*column).map(plain);
        let key = table.key.iter().map(part).collect::<Option<_>>()?;
        Some((self.table.clone(), key))
    }

    pub fn number(&self, column: &str) -> Option<i64> {
        self.columns.get(column)?.as_i64()
    }

    /// The row as it is shown to those who may not read the source.
    pub fn without_values(mut self) -> Json {
        self.columns
            .retain(|name, _| !VALUES.contains(&name.as_str()));
        Json::Array(vec![self.table.into(), self.columns.into()])
    }
}

/// A JSON value as a text: strings without their quotes.
pub fn plain(json: &Json) -> String {
    json.as_str()
        .map_or_else(|| json.to_string(), str::to_owned)
}

/// JSON as leaf data have it.
pub fn value(json: &Json) -> Value<'static> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n.into()),
            None => Value::Text(n.to_string().into()),
        },
        Json::String(text) => Value::Text(text.clone().into()),
        Json::Array(elements) => Value::List(elements.iter().map(value).collect()),
        Json::Object(fields) => Value::Composite(
            fields
                .iter()
                .map(|(name, json)| (name.clone().into(), value(json)))
                .collect(),
        ),
    }
}

/// The inverse of `value`; `None` for what it never makes.
pub fn json(cbor: &Cbor) -> Option<Json> {
    Some(match cbor {
        Cbor::Null => Json::Null,
        Cbor::Bool(b) => Json::Bool(*b),
        Cbor::Integer(n) => i64::try_from(*n).ok()?.into(),
        Cbor::Text(text) => text.clone().into(),
        Cbor::Array(elements) => Json::Array(elements.iter().map(json).collect::<Option<_>>()?),
        Cbor::Map(fields) => Json::Object(
            fields
                .iter()
                .map(|(name, value)| match name {
                    Cbor::Text(name) => Some((name.clone(), json(value)?)),
                    _ => None,
                })
                .collect::<Option<_>>()?,
        ),
        _ => return None,
    })
}

fn read(
    session: &Session,
    snapshot: Snapshot,
    table: &Table,
    condition: &str,
    args: &[DatumWithOid],
) -> Vec<Row> {
    let unrecorded: Vec<String> = table
        .unrecorded
        .iter()
        .map(|c| format!("- '{c}'"))
        .collect();
    let sql = format!(
        "SELECT (pg_catalog.to_jsonb(t) {})::pg_catalog.text FROM @extschema@.{} t
          WHERE {condition} ORDER BY {}",
        unrecorded.join(" "),
        table.name,
        table.key.join(", "),
    );
    let rows = session.query(snapshot, &sql, args, |row| {
        Row::new(table.name, &row.required::<String>(0))
    });
    rows.into_iter().flatten().collect()
}

/// The row of a log.
pub fn log_row(session: &Session, log_id: i32) -> Vec<Row> {
    read(
        session,
        Snapshot::Fresh,
        &LOGS,
        "t.log_id = $1",
        &[log_id.into()],
    )
}

/// The rows of all sources that ever fed a log.
pub fn source_rows(session: &Session, log_id: i32) -> Vec<Row> {
    read(
        session,
        Snapshot::Fresh,
        &SOURCES,
        "t.log_id = $1",
        &[log_id.into()],
    )
}

/// The row of a source.
pub fn source_row(session: &Session, source_id: i32) -> Vec<Row> {
    read(
        session,
        Snapshot::Fresh,
        &SOURCES,
        "t.source_id = $1",
        &[source_id.into()],
    )
}

/// The rows of a source's versions, or of one of them, with those of their columns.
pub fn versions_of(session: &Session, source_id: i32, version: Option<i32>) -> Vec<Row> {
    let condition = "t.source_id = $1 AND ($2 IS NULL OR t.version = $2)";
    let args = [source_id.into(), version.into()];
    let of = |table| read(session, Snapshot::Fresh, table, condition, &args);
    let mut rows = of(&VERSIONS);
    rows.extend(of(&COLUMNS));
    rows
}

/// The rows of a source's partitions of a name, or of all of them.
pub fn partitions_of(session: &Session, source_id: i32, name: Option<&str>) -> Vec<Row> {
    read(
        session,
        Snapshot::Fresh,
        &PARTITIONS,
        "t.source_id = $1 AND ($2 IS NULL OR t.partition_name = $2)",
        &[source_id.into(), name.into()],
    )
}

/// How the table of a source is defined.
pub fn definition_of(session: &Session, source_id: i32) -> Vec<Row> {
    read(
        session,
        Snapshot::Fresh,
        &DEFINITIONS,
        "t.source_id = $1",
        &[source_id.into()],
    )
}

/// The ranges of entries of retired rows of a source that begin with these.
pub fn retirements_of(session: &Session, source_id: i32, first: &[i64]) -> Vec<Row> {
    read(
        session,
        Snapshot::Fresh,
        &RETIREMENTS,
        "t.source_id = $1 AND t.from_leaf_index = ANY ($2)",
        &[source_id.into(), first.to_vec().into()],
    )
}

/// The databases that the logs are and were of.
pub fn databases(session: &Session) -> Vec<Row> {
    read(session, Snapshot::Fresh, &DATABASES, "true", &[])
}

/// All rows that configure a log.
pub fn of_log(session: &Session, log_id: i32) -> Vec<Row> {
    all(session, Snapshot::Fresh, Some(log_id))
}

/// All rows that configure a log, or any, as `snapshot` shows them. Rows of versions whose source does not exist
/// are among those of all logs.
pub fn all(session: &Session, snapshot: Snapshot, log_id: Option<i32>) -> Vec<Row> {
    let of_log = "($1 IS NULL OR t.log_id = $1)";
    let of_source = "($1 IS NULL OR EXISTS (SELECT FROM @extschema@.verification_sources s
                      WHERE s.source_id = t.source_id AND s.log_id = $1))";
    let conditions = [
        (&LOGS, of_log),
        (&SOURCES, of_log),
        (&VERSIONS, of_source),
        (&COLUMNS, of_source),
        (&PARTITIONS, of_source),
        (&DEFINITIONS, of_source),
        (&RETIREMENTS, of_source),
        (&DATABASES, "$1 IS NULL"),
    ];
    let rows = conditions.into_iter();
    rows.flat_map(|(table, condition)| read(session, snapshot, table, condition, &[log_id.into()]))
        .collect()
}
