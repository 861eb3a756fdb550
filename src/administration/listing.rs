//! The acts on record, taken out of their leaf data: for people, and for `verify_log`.

use super::state::{self, Row};
use crate::catalog::logs::Log;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use leaf_format::{Cbor, Columns, Kind, Leaf};
use serde_json::{Value as Json, json};
use std::collections::HashSet;

/// Entries that are read at once.
pub const CHUNK: i64 = 256;

/// An entry of the administration log.
pub struct Listed {
    /// The table's registered name where the act is about a source, else the log's name.
    pub subject: String,
    pub act: String,
    pub log_id: i64,
    pub log_name: String,
    pub source_id: Option<i64>,
    /// Entries of the log at the time.
    pub tree_size: Option<i64>,
    pub rows: Vec<Row>,
    pub detail: Option<Json>,
    pub user: Option<String>,
    pub role: Option<String>,
    pub application: Option<String>,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub at: Option<i64>,
}

impl Listed {
    /// `None` if it is not an act as this library writes them.
    pub fn new(leaf: &Leaf) -> Option<Listed> {
        let Columns::Map(columns) = &leaf.columns else {
            return None;
        };
        let text = |name: &str| match columns.get(name) {
            Some(Cbor::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let number = |name: &str| match columns.get(name) {
            Some(Cbor::Integer(n)) => i64::try_from(*n).ok(),
            _ => None,
        };
        let rows = match columns.get("rows") {
            Some(Cbor::Array(rows)) => rows.iter().map(Row::from_leaf).collect::<Option<_>>()?,
            _ => return None,
        };
        Some(Listed {
            subject: leaf.source.clone(),
            act: text("act")?,
            log_id: number("log_id")?,
            log_name: text("log_name")?,
            source_id: number("source_id"),
            tree_size: number("tree_size"),
            rows,
            detail: columns.get("detail").and_then(state::json),
            user: leaf.origin.as_ref().map(|o| o.user.clone()),
            role: leaf.origin.as_ref().and_then(|o| o.role.clone()),
            application: leaf.origin.as_ref().map(|o| o.application.clone()),
            at: leaf.origin.as_ref().map(|o| o.at),
        })
        .filter(|_| leaf.kind == Kind::Administration)
    }

    /// The key of its entry.
    pub fn key(&self) -> String {
        super::key(self.log_id, self.source_id)
    }

    pub fn source_table(&self) -> Option<&str> {
        self.source_id.map(|_| self.subject.as_str())
    }

    /// What it says, without values of a source's rows, and without a reason that somebody gave, which may name them. For
    /// those who may not read `all` rows also without the texts of commands, and what the application said of them.
    pub fn content(mut self, all: bool) -> String {
        if let Some(Json::Object(detail)) = &mut self.detail {
            detail.remove("reason");
            let commands = detail.get_mut("commands").and_then(Json::as_array_mut);
            let commands = commands.into_iter().flatten().filter(|_| !all);
            for command in commands.filter_map(Json::as_object_mut) {
                command.remove("statement");
                command.remove("context");
            }
        }
        let rows: Vec<Json> = self.rows.into_iter().map(Row::without_values).collect();
        match self.detail {
            None => json!({ "rows": rows }),
            Some(detail) => json!({ "rows": rows, "detail": detail }),
        }
        .to_string()
    }
}

/// The ids of the logs that ever had a name.
pub fn logs_called(session: &Session, administration: &Log, name: &str) -> HashSet<i64> {
    let mut ids = HashSet::new();
    let mut next = Some(0);
    while let Some(start) = next {
        pgrx::check_for_interrupts!();
        let read = from(session, administration, Snapshot::Statement, start);
        next = read.last().map(|(index, _)| index + 1);
        let acts = read.iter().filter_map(|(_, act)| act.as_ref());
        ids.extend(acts.filter(|a| a.log_name == name).map(|a| a.log_id));
    }
    ids
}

/// The next entries of the administration log from a leaf index on, at most `CHUNK`; `None` for one that is no
/// act.
pub fn from(
    session: &Session,
    log: &Log,
    snapshot: Snapshot,
    from: i64,
) -> Vec<(i64, Option<Listed>)> {
    session.query(
        snapshot,
        "SELECT d.leaf_index, d.leaf_data FROM @extschema@.merkle_leaf_data d
          WHERE d.log_id = $1 AND d.leaf_index >= $2 ORDER BY d.leaf_index LIMIT $3",
        &[log.id.into(), from.into(), CHUNK.into()],
        |row| {
            let leaf = row
                .get::<Vec<u8>>(1)
                .and_then(|data| Leaf::decode_in_full(&data).ok());
            (row.required(0), leaf.as_ref().and_then(Listed::new))
        },
    )
}
