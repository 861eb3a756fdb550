//! The versions of a row, from the leaf data that the log keeps.

mod json;

use crate::capture::given_key::GivenKey;
use crate::capture::row_key::Finder;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::catalog::versions::{self, Column};
use crate::error::{Error, literal};
use crate::pg::alloc;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries;
use crate::store::heads;
use crate::store::leaves::{self, Annex};
use leaf_format::{Columns, Leaf};
use pgrx::pg_sys;

/// One version of a row, or what became of it.
pub struct Version {
    pub leaf_index: i64,
    /// `insert`, `update`, `delete`, `truncate`, or `redacted`.
    pub operation: String,
    /// The row as JSON; `None` where the log does not keep it.
    pub row: Option<String>,
    pub origin: Option<Origin>,
}

pub struct Origin {
    pub transaction: u64,
    pub user: String,
    pub application: String,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub at: i64,
}

/// The versions of a row that are on record, oldest first, loaded one by one.
pub struct Versions {
    log: Log,
    /// The sources that the table has been, each with its versions of the columns.
    sources: Vec<(Source, Vec<versions::Version>)>,
    /// Leaf indexes of the row's entries, each with the place of its source.
    entries: std::vec::IntoIter<(i64, usize)>,
}

impl Versions {
    /// Finds the entries of a row.
    ///
    /// # Errors
    /// If the caller may not read a source that the table is or was, or if nothing was kept of the row.
    pub fn find(
        session: &Session,
        log: Log,
        relation: pg_sys::Oid,
        key: GivenKey,
    ) -> Result<Versions, Error> {
        let of_table: Vec<_> = sources::all(session, &log)
            .into_iter()
            .filter(|s| s.relation == relation)
            .collect();
        let latest = of_table.last().ok_or_else(|| Error::NoSuchSource {
            log: log.name.clone(),
            table: sources::relation_name(session, relation),
        })?;
        let no_history = Error::NoHistory {
            log: log.name.clone(),
            table: latest.name.clone(),
        };
        for source in &of_table {
            session.check_caller_reads(&log, source)?;
        }
        let finder = Finder::of(session, &log, relation)?;
        let key = finder.key(session, key)?;
        let mut entries = Vec::new();
        for (place, source) in of_table.iter().enumerate() {
            if !finder.sources.contains(&source.id) {
                continue;
            }
            let of_source = entries::of_row(session, Snapshot::Statement, &log, source.id, &key)?;
            alloc::reserve(&mut entries, of_source.len());
            entries.extend(of_source.into_iter().map(|index| (index, place)));
        }
        entries.sort_unstable();
        let anything_kept = entries.is_empty()
            || entries.iter().any(|(index, place)| {
                pgrx::check_for_interrupts!();
                let annex = leaves::annex(session, &log, *index);
                annex.leaf_data.is_some() || of_table[*place].salted && annex.salt.is_none()
            });
        if !anything_kept {
            return Err(no_history);
        }
        let with_versions = |source: Source| {
            let versions = versions::load(session, source.id);
            (source, versions)
        };
        Ok(Versions {
            log,
            sources: of_table.into_iter().map(with_versions).collect(),
            entries: entries.into_iter(),
        })
    }

    /// The next version; `None` when all have been loaded.
    pub fn next(&mut self, session: &Session) -> Option<Version> {
        pgrx::check_for_interrupts!();
        let (index, place) = self.entries.next()?;
        let (source, versions) = &self.sources[place];
        let version = versions.iter().rev().find(|v| v.from_leaf_index <= index);
        let columns = version.map_or(&[][..], |v| &v.columns);
        let annex = leaves::annex(session, &self.log, index);
        let leaf = annex.leaf_data.as_ref();
        let leaf =
            leaf.and_then(|_| leaves::in_full(session, Snapshot::Statement, &self.log, index));
        let (version, left_out) = version_of(index, leaf, &annex, columns, source.salted);
        for column in left_out {
            pgrx::notice!(
                "column \"{column}\" of entry {index} is too long for jsonb, and shown as null: kept_value({}, {index}, {}) gives it",
                literal(&self.log.name),
                literal(&column)
            );
        }
        Some(version)
    }
}

fn version_of(
    leaf_index: i64,
    leaf: Option<Leaf>,
    annex: &Annex,
    columns: &[Column],
    salted: bool,
) -> (Version, Vec<String>) {
    let mut left_out = Vec::new();
    let origin = annex.statement.as_ref().map(|s| Origin {
        transaction: s.transaction,
        user: s.user.clone(),
        application: s.application.clone(),
        at: s.at,
    });
    let on_statement = || {
        annex
            .statement
            .as_ref()
            .map_or("insert", |s| &s.kind)
            .to_owned()
    };
    let version = match leaf {
        // What was hashed says it with authority; the statement's row only repeats it.
        Some(leaf) => Version {
            leaf_index,
            operation: leaf.kind.as_str().to_owned(),
            row: match leaf.columns {
                Columns::Map(map) if leaf.kind != leaf_format::Kind::Truncate => {
                    let fields = map.iter().map(|(name, value)| {
                        let column = columns.iter().find(|c| c.name == *name);
                        let type_name = column.map_or("", |c| c.type_name.as_str());
                        (name.as_str(), value, type_name)
                    });
                    let fields: Vec<_> = fields.collect();
                    let (row, too_long) = json::row(&fields, json::LONGEST);
                    left_out = too_long.into_iter().map(str::to_owned).collect();
                    Some(row)
                }
                _ => None,
            },
            origin: leaf.origin.map(|o| Origin {
                transaction: o.transaction,
                user: o.user,
                application: o.application,
                at: o.at,
            }),
        },
        None => Version {
            leaf_index,
            operation: match salted && annex.salt.is_none() {
                true => "redacted".to_owned(),
                false => on_statement(),
            },
            row: None,
            origin,
        },
    };
    (version, left_out)
}

/// The text of a column in a version of a row that the log keeps; `None` if it was NULL.
pub fn kept_value(
    session: &Session,
    log: &Log,
    index: i64,
    column: &str,
) -> Result<Option<String>, Error> {
    let size = heads::latest(session, Snapshot::Statement, log)?.tree_size;
    let entry = entries::at(session, Snapshot::Statement, log, index, size)?;
    let mut sources = sources::all(session, log).into_iter();
    let Some(source) = sources.find(|s| s.id == entry.source_id) else {
        return Err(Error::NotOfARow {
            log: log.name.clone(),
            index,
        });
    };
    session.check_caller_reads(log, &source)?;
    let leaf = leaves::in_full(session, Snapshot::Statement, log, index);
    let Some(Columns::Map(columns)) = leaf.map(|leaf| leaf.columns) else {
        return Err(Error::NoHistory {
            log: log.name.clone(),
            table: source.name,
        });
    };
    let versions = versions::load(session, source.id);
    let version = versions.iter().rev().find(|v| v.from_leaf_index <= index);
    let known = version.and_then(|v| v.columns.iter().find(|c| c.name == column));
    let known = known.ok_or_else(|| Error::NoSuchColumn {
        table: source.name,
        column: column.to_owned(),
    })?;
    let value = columns.get(column);
    Ok(value.map(|value| json::text(value, &known.type_name)))
}
