//! `verify_log`.

use super::{given_key, log_name, required};
use crate::catalog::logs;
use crate::error::Error;
use crate::pg::hashes::Path;
use crate::pg::memory::Scratch;
use crate::pg::regclass::RegClass;
use crate::pg::role;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::late::{self, LateEntry};
use crate::verify::finding::{Finding, Kind};
use crate::verify::row::Verified;
use crate::verify::{Verification, row};
use merkle_tree::Hash;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashMap;

#[pg_extern(stable, parallel_unsafe, name = "verify_log")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn verify_log_v3(
    log: Option<&str>,
    from_index: default!(Option<i64>, 0),
    to_index: default!(Option<i64>, "NULL"),
    workers: default!(Option<i32>, 1),
) -> Result<
    TableIterator<
        'static,
        (
            name!(kind, String),
            name!(source_table, Option<String>),
            name!(source_key, Option<String>),
            name!(leaf_index, Option<i64>),
            name!(expected, Option<Vec<u8>>),
            name!(actual, Option<Vec<u8>>),
            name!(detail, String),
        ),
    >,
    ErrorReport,
> {
    let (verification, found) = Session::enter(|session| {
        let log = log_name("log", log)?;
        let from = from_index.unwrap_or(0);
        Verification::start(session, log, from, to_index, workers.unwrap_or(1))
    })?;
    Ok(TableIterator::new(
        Findings {
            verification,
            found: found.into_iter(),
        }
        .map(|finding| {
            (
                finding.kind.as_str().to_owned(),
                finding.source_table,
                finding.source_key,
                finding.leaf_index,
                finding.expected,
                finding.actual,
                finding.detail,
            )
        }),
    ))
}

#[pg_extern(stable, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn verify_row(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(status, String),
            name!(leaf_index, Option<i64>),
            name!(tree_size, Option<i64>),
            name!(leaf_hash, Option<Vec<u8>>),
            name!(row_hash, Option<Vec<u8>>),
            name!(root_hash, Option<Vec<u8>>),
            name!(path, Option<Path>),
            name!(detail, String),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let log = log_name("log", log)?;
        let relation = required("source_table", source_table)?.0;
        let found = row::verify(session, log, relation, given_key(key)?)?;
        Ok(TableIterator::once(row_columns(found)))
    })
}

/// The columns of what is said about a row.
pub type RowColumns = (
    String,
    Option<i64>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Path>,
    String,
);

pub fn row_columns(found: Verified) -> RowColumns {
    let bytes = |hash: &Hash| hash.as_bytes().to_vec();
    let entry = found.entry.as_ref();
    (
        found.status.as_str().to_owned(),
        entry.map(|e| e.index),
        entry.map(|e| e.size),
        entry.map(|e| bytes(&e.leaf)),
        found.row.as_ref().map(bytes),
        entry.map(|e| bytes(&e.root)),
        entry.map(|e| Path(e.path.clone())),
        found.detail,
    )
}

#[pg_extern(stable, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn late_entries(
    log: Option<String>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(source_table, Option<String>),
            name!(source_key, Option<String>),
            name!(way, String),
            name!(found_at, TimestampWithTimeZone),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, &required("log", log)?)?;
        let mut readable = HashMap::new();
        let mut row = |entry: LateEntry| {
            let shown = entry.source.filter(|(_, relation, _)| {
                let reads = || role::may_read_all(session.caller(), *relation);
                *readable.entry(*relation).or_insert_with(reads)
            });
            let (table, key) = shown.map(|(table, _, key)| (table, key)).unzip();
            (entry.leaf_index, table, key, entry.way, entry.found_at)
        };
        let rows: Vec<_> = late::list(session, &log)
            .into_iter()
            .map(&mut row)
            .collect();
        Ok(TableIterator::new(rows))
    })
}

#[pg_extern(immutable, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the columns of the SQL function
fn finding_kinds() -> TableIterator<
    'static,
    (
        name!(kind, &'static str),
        name!(fault_of, &'static str),
        name!(meaning, &'static str),
    ),
> {
    let kinds = Kind::ALL.iter();
    TableIterator::new(kinds.map(|k| (k.as_str(), k.of().as_str(), k.meaning())))
}

/// Findings one by one; the work is done a chunk at a time, when the last chunk's are used up.
struct Findings {
    /// `None` if it could not begin.
    verification: Option<Verification>,
    found: std::vec::IntoIter<Finding>,
}

impl Iterator for Findings {
    type Item = Finding;

    fn next(&mut self) -> Option<Finding> {
        loop {
            if let Some(finding) = self.found.next() {
                return Some(finding);
            }
            let verification = self.verification.as_mut()?;
            let step: Result<Option<Vec<Finding>>, ErrorReport> =
                Scratch::new().scope(|| Session::enter(|session| verification.step(session)));
            match step {
                Ok(found) => self.found = found?.into_iter(),
                Err(report) => Error::raise_report(report),
            }
        }
    }
}
