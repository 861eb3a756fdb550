//! `verification_source_versions` and `_columns`: what a source's rows looked like, and since which
//! leaf index.
//!
//! An entry belongs to the last version that begins at or before its leaf index, so an entry needs
//! no version number of its own.

use crate::administration::{self, Act};
use crate::encode::definition::Definition;
use crate::session::Session;
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

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
    /// Its place in the key, from 1.
    pub key: Option<i16>,
    /// Watermark capture goes by it.
    pub orders: bool,
    /// The type's number and modifier; not on record where version 0.3.0 put the column there.
    pub type_oid: Option<u32>,
    pub type_modifier: Option<i32>,
    /// What the encoding of its values depended on beside the type.
    pub definition: Option<Definition>,
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
    fn definition_json(&self) -> Option<String> {
        let definition = self.definition.as_ref()?;
        serde_json::to_string(definition).ok()
    }

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
        key: None,
        orders: false,
        type_oid: None,
        type_modifier: None,
        definition: None,
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

/// The versions of a source, first to last, all as one snapshot shows them. A source has at least one.
pub fn load(session: &Session, source_id: i32) -> Vec<Version> {
    let mut versions: Vec<Version> = Vec::new();
    let rows = session.fresh(
        "SELECT v.version, v.from_leaf_index, v.hash_column, c.column_name, c.column_type, c.attnum, c.logged,
                c.key_position, c.orders, c.type_oid, c.type_modifier, c.type_definition::pg_catalog.text
           FROM @extschema@.verification_source_versions v
           LEFT JOIN @extschema@.verification_source_columns c USING (source_id, version)
          WHERE v.source_id = $1 ORDER BY v.version, c.attnum, c.column_name",
        &[source_id.into()],
        |row| {
            let version = Version {
                number: row.required(0),
                from_leaf_index: row.required(1),
                hash_column: row.get(2),
                columns: Vec::new(),
            };
            let column = row.get(3).map(|name| Column {
                name,
                type_name: row.required(4),
                attnum: row.get(5),
                logged: row.required(6),
                key: row.get(7),
                orders: row.required(8),
                type_oid: row.get::<pg_sys::Oid>(9).map(pg_sys::Oid::to_u32),
                type_modifier: row.get(10),
                definition: row.get::<String>(11).and_then(|d| serde_json::from_str(&d).ok()),
            });
            (version, column)
        },
    );
    for (version, column) in rows {
        if versions
            .last()
            .is_none_or(|last| last.number != version.number)
        {
            versions.push(version);
        }
        if let Some(last) = versions.last_mut() {
            last.columns.extend(column);
        }
    }
    versions
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
            (source_id, version, column_name, column_type, attnum, logged, key_position, orders, type_oid, type_modifier,
             type_definition)
         SELECT $1, $2, c.name, c.type, c.attnum, c.logged, c.key, c.orders, c.type_oid, c.modifier, c.definition::pg_catalog.jsonb
           FROM ROWS FROM (
            pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),
            pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11))
            c (name, type, attnum, logged, key, orders, type_oid, modifier, definition)",
        &[
            source_id.into(),
            version.number.into(),
            of(|c| c.name.clone()).into(),
            of(|c| c.type_name.clone()).into(),
            version.columns.iter().map(|c| c.attnum).collect::<Vec<_>>().into(),
            version.columns.iter().map(|c| c.logged).collect::<Vec<_>>().into(),
            version.columns.iter().map(|c| c.key).collect::<Vec<_>>().into(),
            version.columns.iter().map(|c| c.orders).collect::<Vec<_>>().into(),
            version.columns.iter().map(|c| c.type_oid.map(pg_sys::Oid::from)).collect::<Vec<_>>().into(),
            version.columns.iter().map(|c| c.type_modifier).collect::<Vec<_>>().into(),
            version.columns.iter().map(Column::definition_json).collect::<Vec<_>>().into(),
        ],
    );
    let version = version.number;
    administration::record(session, Act::VersionRecorded { source_id, version });
}

/// Stores what the columns of a version are known by: after the table was restored from a dump, and where version
/// 0.3.0 left it out.
pub fn rebind(session: &Session, source_id: i32, version: &Version) {
    for column in &version.columns {
        session.execute(
            "UPDATE @extschema@.verification_source_columns
                SET attnum = $4, key_position = $5, orders = $6, type_oid = $7, type_modifier = $8,
                    type_definition = $9::pg_catalog.jsonb
              WHERE source_id = $1 AND version = $2 AND column_name = $3",
            &[
                source_id.into(),
                version.number.into(),
                column.name.as_str().into(),
                column.attnum.into(),
                column.key.into(),
                column.orders.into(),
                column.type_oid.map(pg_sys::Oid::from).into(),
                column.type_modifier.into(),
                column.definition_json().into(),
            ],
        );
    }
    administration::record(session, Act::SourceBound { source_id });
}
