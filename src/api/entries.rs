//! `log_entries` and `entry_bundles`: entries in leaf order, streamed.

use super::log_name;
use crate::catalog::logs;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::stream::{Bundle, Listed, Stream};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn log_entries(
    log: Option<&str>,
    from_index: default!(Option<i64>, 0),
    to_index: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(source_table, Option<String>),
            name!(source_key, Option<String>),
            name!(leaf_hash, Vec<u8>),
            name!(leaf_data, Option<Vec<u8>>),
        ),
    >,
    ErrorReport,
> {
    let stream = Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
        Stream::start(session, log, from_index.unwrap_or(0), to_index)
    })?;
    Ok(TableIterator::new(
        Entries {
            stream,
            page: Vec::new().into_iter(),
        }
        .map(|entry| {
            (
                entry.leaf_index,
                entry.source_table,
                entry.key,
                entry.leaf_hash,
                entry.leaf_data,
            )
        }),
    ))
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn entry_bundles(
    log: Option<&str>,
    from_index: default!(Option<i64>, 0),
    to_index: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(first_index, i64),
            name!(leaf_hashes, Vec<u8>),
            name!(entry_bundle, Vec<u8>),
        ),
    >,
    ErrorReport,
> {
    let mut stream = Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
        Stream::start(session, log, from_index.unwrap_or(0), to_index)
    })?;
    Ok(TableIterator::new(std::iter::from_fn(move || {
        let bundle: Result<Option<Bundle>, ErrorReport> =
            Scratch::new().scope(|| Session::enter(|session| stream.bundle(session)));
        match bundle {
            Ok(bundle) => bundle.map(|b| (b.first, b.leaf_hashes, b.leaf_data)),
            Err(report) => Error::raise_report(report),
        }
    })))
}

/// Entries as they are asked for, read a page at a time.
struct Entries {
    stream: Stream,
    page: std::vec::IntoIter<Listed>,
}

impl Iterator for Entries {
    type Item = Listed;

    fn next(&mut self) -> Option<Listed> {
        if let Some(entry) = self.page.next() {
            return Some(entry);
        }
        let page: Result<Vec<Listed>, ErrorReport> =
            Scratch::new().scope(|| Session::enter(|session| self.stream.page(session)));
        match page {
            Ok(page) => self.page = page.into_iter(),
            Err(report) => Error::raise_report(report),
        }
        self.page.next()
    }
}
