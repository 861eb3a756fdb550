//! `verification_source_versions` and `_columns`: what a source's rows looked like, and since which
//! leaf index.
//!
//! An entry belongs to the last version that begins at or before its leaf index, so an entry needs
//! no version number of its own.

use crate::administration::{self, Act};
use crate::session::Session;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A column as a version knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name then: the name in the leaf data.
    pub name: String,
    /// Its type then, as `format_type` writes it.
    pub type_name: String,
    /// Its number in the table the source is bound to; `None` once that is not known any more.
    pub attnum: Option<i16>,
    /// False for a key or order column that is not among the logged ones.
    pub logged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: i32,
    pub from_leaf_index: i64,
    /// Set where the leaves are of kind `hash`.
    pub hash_column: Option<String>,
    pub columns: Vec<Column>,
}

impl Version {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

impl Column {
    /// Its bytes, about.
    pub fn size(&self) -> usize {
        self.name.len() + self.type_name.len() + size_of::<Column>()
    }
}

/// Columns as version 0.3.0 wrote them into the queue: four texts a column, name, type, number, and whether it is
/// logged.
pub fn unflatten(texts: &[String]) -> Vec<Column> {
    let column = |c: &[String; 4]| Column {
        name: c[0].clone(),
        type_name: c[1].clone(),
        attnum: c[2].parse().ok(),
        logged: c[3] == "true",
    };
    texts.as_chunks().0.iter().map(column).collect()
}

/// The number of the version in force.
pub fn current_number(session: &Session, source_id: i32) -> Option<i32> {
    session
        .fresh_one(
            "SELECT max(v.version) FROM @extschema@.verification_source_versions v WHERE v.source_id = $1",
            &[source_id.into()],
            |row| row.get(0),
        )
        .flatten()
}

/// The versions of a source, first to last. A source has at least one.
pub fn load(session: &Session, source_id: i32) -> Vec<Version> {
    let mut columns: HashMap<i32, Vec<Column>> = HashMap::new();
    for (version, column) in session.fresh(
        "SELECT c.version, c.column_name, c.column_type, c.attnum, c.logged
           FROM @extschema@.verification_source_columns c WHERE c.source_id = $1
          ORDER BY c.attnum, c.column_name",
        &[source_id.into()],
        |row| {
            let column = Column {
                name: row.required(1),
                type_name: row.required(2),
                attnum: row.get(3),
                logged: row.required(4),
            };
            (row.required::<i32>(0), column)
        },
    ) {
        columns.entry(version).or_default().push(column);
    }
    session.fresh(
        "SELECT v.version, v.from_leaf_index, v.hash_column
           FROM @extschema@.verification_source_versions v WHERE v.source_id = $1 ORDER BY v.version",
        &[source_id.into()],
        |row| {
            let number = row.required(0);
            Version {
                number,
                from_leaf_index: row.required(1),
                hash_column: row.get(2),
                columns: columns.remove(&number).unwrap_or_default(),
            }
        },
    )
}

/// Puts a new version on record; `change` says in words what is new.
pub fn insert(session: &Session, source_id: i32, version: &Version, change: &str) {
    session.execute(
        "INSERT INTO @extschema@.verification_source_versions
            (source_id, version, from_leaf_index, hash_column, change) VALUES ($1, $2, $3, $4, $5)",
        &[
            source_id.into(),
            version.number.into(),
            version.from_leaf_index.into(),
            version.hash_column.as_deref().into(),
            change.into(),
        ],
    );
    let of = |f: fn(&Column) -> String| version.columns.iter().map(f).collect::<Vec<_>>();
    session.execute(
        "INSERT INTO @extschema@.verification_source_columns
            (source_id, version, column_name, column_type, attnum, logged)
         SELECT $1, $2, c.* FROM ROWS FROM (
            pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) c",
        &[
            source_id.into(),
            version.number.into(),
            of(|c| c.name.clone()).into(),
            of(|c| c.type_name.clone()).into(),
            version.columns.iter().map(|c| c.attnum).collect::<Vec<_>>().into(),
            version.columns.iter().map(|c| c.logged).collect::<Vec<_>>().into(),
        ],
    );
    let version = version.number;
    administration::record(session, Act::VersionRecorded { source_id, version });
}

/// Stores new attribute numbers, after the table was restored from a dump.
pub fn rebind(session: &Session, source_id: i32, version: &Version) {
    for column in &version.columns {
        session.execute(
            "UPDATE @extschema@.verification_source_columns SET attnum = $4
              WHERE source_id = $1 AND version = $2 AND column_name = $3",
            &[
                source_id.into(),
                version.number.into(),
                column.name.as_str().into(),
                column.attnum.into(),
            ],
        );
    }
    administration::record(session, Act::SourceBound { source_id });
}
