//! The rows of a table as they were, from the leaf data that the log keeps: the versions of one row, what happened to
//! all of them, and the table as a whole.

pub mod changes;
mod json;
mod latest;
pub mod table_at;
mod value_text;

use crate::capture::given_key::GivenKey;
use crate::capture::row_key::Finder;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::catalog::versions;
use crate::error::{Error, literal};
use crate::pg::alloc;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries;
use crate::store::heads;
use crate::store::leaves::{self, Annex};
use json::{Types, Unshown};
use leaf_format::{Columns, DecodedOrigin, Leaf};
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
    pub role: Option<String>,
    pub application: String,
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub at: i64,
    /// JSON that the application had set for its transaction.
    pub said: Option<String>,
    /// The statement, or its beginning.
    pub statement: Option<String>,
    /// Bytes of the whole statement.
    pub statement_bytes: Option<u64>,
}

impl From<DecodedOrigin> for Origin {
    fn from(origin: DecodedOrigin) -> Origin {
        let shown = origin.statement.as_ref().map(|s| s.len() as u64);
        Origin {
            transaction: origin.transaction,
            user: origin.user,
            role: origin.role,
            application: origin.application,
            at: origin.at,
            said: origin.said,
            statement: origin.statement,
            statement_bytes: origin.statement_bytes.or(shown),
        }
    }
}

/// The versions of a row that are on record, oldest first, loaded one by one.
pub struct Versions {
    log: Log,
    /// The sources that the table has been.
    sources: Vec<Recorded>,
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
        let TableSources { sources, name } = TableSources::of_table(session, &log, relation)?;
        let no_history = Error::NoHistory {
            log: log.name.clone(),
            table: name,
        };
        let finder = Finder::of(session, &log, relation)?;
        let key = finder.key(session, key)?;
        let mut entries = Vec::new();
        for (place, Recorded { source, .. }) in sources.iter().enumerate() {
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
                annex.leaf_data.is_some() || sources[*place].source.salted && annex.salt.is_none()
            });
        if !anything_kept {
            return Err(no_history);
        }
        Ok(Versions {
            log,
            sources,
            entries: entries.into_iter(),
        })
    }

    /// The next version; `None` when all have been loaded.
    pub fn next(&mut self, session: &Session) -> Option<Version> {
        pgrx::check_for_interrupts!();
        let (index, place) = self.entries.next()?;
        let annex = leaves::annex(session, &self.log, index);
        let leaf = annex.leaf_data.as_ref();
        let leaf =
            leaf.and_then(|_| leaves::in_full(session, Snapshot::Statement, &self.log, index));
        Some(version_of(
            &self.log,
            index,
            leaf,
            &annex,
            &self.sources[place],
        ))
    }
}

/// A source that a table is or was.
struct Recorded {
    source: Source,
    /// The versions of its columns.
    versions: Vec<versions::Version>,
    /// Of each the types.
    types: Vec<Types>,
}

impl Recorded {
    fn load(session: &Session, source: Source) -> Recorded {
        let versions = versions::load(session, source.id);
        Recorded {
            types: versions.iter().map(|v| Types::of(session, v)).collect(),
            versions,
            source,
        }
    }

    /// The types of the columns of an entry.
    fn types(&self, leaf_index: i64) -> Option<&Types> {
        let place = self
            .versions
            .iter()
            .rposition(|v| v.from_leaf_index <= leaf_index)?;
        self.types.get(place)
    }
}

/// The sources of a log that a table is and was, oldest first.
struct TableSources {
    /// The table's name, as it was registered last.
    name: String,
    sources: Vec<Recorded>,
}

impl TableSources {
    /// # Errors
    /// If there is none, or the caller may not read one of them.
    fn of_table(
        session: &Session,
        log: &Log,
        relation: pg_sys::Oid,
    ) -> Result<TableSources, Error> {
        let mut of_table = sources::all(session, log);
        of_table.retain(|s| s.relation == relation);
        let latest = of_table.last().ok_or_else(|| Error::NoSuchSource {
            log: log.name.clone(),
            table: sources::relation_name(session, relation),
        })?;
        let name = latest.name.clone();
        for source in &of_table {
            session.check_caller_reads(log, source)?;
        }
        let recorded = |source| Recorded::load(session, source);
        Ok(TableSources {
            name,
            sources: of_table.into_iter().map(recorded).collect(),
        })
    }
}

/// What an entry says of a row. `leaf`: what is kept of it, in full.
fn version_of(
    log: &Log,
    leaf_index: i64,
    leaf: Option<Leaf>,
    annex: &Annex,
    recorded: &Recorded,
) -> Version {
    // What was hashed says it with authority; the statement's row only repeats it.
    if let Some(leaf) = leaf {
        return Version {
            leaf_index,
            operation: leaf.kind.as_str().to_owned(),
            row: row_json(log, leaf_index, &leaf, recorded),
            origin: leaf.origin.map(Origin::from),
        };
    }
    let statement = annex.statement.as_ref();
    Version {
        leaf_index,
        operation: match (recorded.source.salted && annex.salt.is_none(), statement) {
            (true, _) => "redacted".to_owned(),
            (false, None) => "insert".to_owned(),
            (false, Some(statement)) => statement.kind.clone(),
        },
        row: None,
        origin: statement.map(|s| Origin {
            transaction: s.transaction,
            user: s.user.clone(),
            role: s.role.clone(),
            application: s.application.clone(),
            at: s.at,
            said: None,
            statement: None,
            statement_bytes: None,
        }),
    }
}

/// The row of an entry as JSON; `None` where only the digest of its columns is kept, or it is about no row. Columns that
/// are too long for it, or that `jsonb` cannot hold, are null there, and a notice names them.
fn row_json(log: &Log, index: i64, leaf: &Leaf, recorded: &Recorded) -> Option<String> {
    let map = match &leaf.columns {
        Columns::Map(map) if leaf.kind != leaf_format::Kind::Truncate => map,
        _ => return None,
    };
    let (row, unshown) = json::row(map.iter(), recorded.types(index)?, json::LONGEST);
    for (column, why) in unshown {
        let why = match why {
            Unshown::TooLong => "is too long for jsonb",
            Unshown::NotJsonb => "holds JSON that jsonb cannot hold",
        };
        pgrx::notice!(
            "column \"{column}\" of entry {index} {why}, and is shown as null: kept_value({}, {index}, {}) gives it",
            literal(&log.name),
            literal(column)
        );
    }
    Some(row)
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
    let recorded = Recorded::load(session, source);
    let mut versions = recorded.versions.iter().rev();
    let version = versions.find(|v| v.from_leaf_index <= index);
    if version.is_none_or(|v| v.column(column).is_none()) {
        return Err(Error::NoSuchColumn {
            table: recorded.source.name,
            column: column.to_owned(),
        });
    }
    let of = recorded.types(index).and_then(|t| t.of_column(column));
    Ok(columns.get(column).map(|value| json::text(value, of)))
}
