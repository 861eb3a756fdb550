//! A table as it was, and what happened to it since: `table_at` and `changes`.
//!
//! What is meant by "then" is a size of the log or a time. Each function has a signature for either, and one for texts,
//! which literals and parameters without a type are.

use super::history::OriginColumns;
use super::{log_name, required};
use crate::catalog::logs::{self, Log};
use crate::error::Error;
use crate::history::Version;
use crate::history::changes::{Change, Changes};
use crate::history::table_at::{Row, TableAt};
use crate::pg::jsonb::Jsonb;
use crate::pg::memory::Scratch;
use crate::pg::regclass::RegClass;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::heads;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::str::FromStr;

pgrx::extension_sql_file!("../../sql/as_of.sql", name = "as_of", requires = ["tables"]);

/// A state of a log.
#[derive(Clone, Copy)]
enum Then {
    Latest,
    Size(i64),
    Time(TimestampWithTimeZone),
}

impl Then {
    fn of_size(size: Option<i64>) -> Then {
        size.map_or(Then::Latest, Then::Size)
    }

    /// A number is a size, and anything else a time as the session writes it.
    fn of_text(name: &'static str, text: Option<&str>) -> Result<Then, Error> {
        let Some(text) = text else {
            return Ok(Then::Latest);
        };
        if let Ok(size) = text.trim().parse() {
            return Ok(Then::Size(size));
        }
        let time = TimestampWithTimeZone::from_str(text);
        time.map(Then::Time).map_err(|_| Error::Argument {
            name,
            must: "a number of entries or a time",
            value: super::shortened(text),
        })
    }

    fn time(self) -> Option<TimestampWithTimeZone> {
        match self {
            Then::Latest => Some(TimestampWithTimeZone::positive_infinity()),
            Then::Time(time) => Some(time),
            Then::Size(_) => None,
        }
    }

    /// As the calling statement sees the log.
    fn size(self, session: &Session, log: &Log) -> Result<i64, Error> {
        let latest = heads::latest(session, Snapshot::Statement, log)?.tree_size;
        match self {
            Then::Latest => Ok(latest),
            Then::Time(time) => Ok(heads::size_at(session, log, time)),
            Then::Size(wanted) if !(0..=latest).contains(&wanted) => Err(Error::SizeOutOfRange {
                log: log.name.clone(),
                wanted,
                size: latest,
            }),
            Then::Size(size) => Ok(size),
        }
    }
}

type RowColumns = (i64, String, Option<Jsonb>);

fn rows_at(
    log: Option<&str>,
    source_table: Option<RegClass>,
    then: Result<Then, Error>,
) -> Result<TableIterator<'static, RowColumns>, ErrorReport> {
    let mut at = Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
        let relation = required("source_table", source_table)?.0;
        let then = then?;
        let size = then.size(session, &log)?;
        TableAt::start(session, log, relation, size, then.time())
    })?;
    let rows = paged(move |session| match &mut at {
        Some(at) => at.page(session),
        None => Ok(Vec::new()),
    });
    Ok(TableIterator::new(rows.map(|row: Row| {
        (row.leaf_index, row.key, row.row.map(Jsonb))
    })))
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn table_at(
    log: Option<&str>,
    source_table: Option<RegClass>,
    tree_size: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(source_key, String),
            name!(row_data, Option<Jsonb>),
        ),
    >,
    ErrorReport,
> {
    rows_at(log, source_table, Ok(Then::of_size(tree_size)))
}

#[pg_extern(stable, parallel_restricted, name = "table_at")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn table_at_time(
    log: Option<&str>,
    source_table: Option<RegClass>,
    at: Option<TimestampWithTimeZone>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(source_key, String),
            name!(row_data, Option<Jsonb>),
        ),
    >,
    ErrorReport,
> {
    rows_at(log, source_table, required("at", at).map(Then::Time))
}

#[pg_extern(stable, parallel_restricted, name = "table_at")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn table_at_text(
    log: Option<&str>,
    source_table: Option<RegClass>,
    size_or_time: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(source_key, String),
            name!(row_data, Option<Jsonb>),
        ),
    >,
    ErrorReport,
> {
    rows_at(
        log,
        source_table,
        Then::of_text("size_or_time", size_or_time),
    )
}

/// The columns of a change.
type ChangeColumns = (
    i64,
    String,
    Option<String>,
    Option<Jsonb>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<TimestampWithTimeZone>,
    Option<String>,
    Option<Jsonb>,
    Option<String>,
    Option<i64>,
);

fn changed(
    log: Option<&str>,
    source_table: Option<RegClass>,
    from: Result<Then, Error>,
    to: Result<Then, Error>,
) -> Result<TableIterator<'static, ChangeColumns>, ErrorReport> {
    let mut changes = Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
        let relation = required("source_table", source_table)?.0;
        let (from, to) = (from?.size(session, &log)?, to?.size(session, &log)?);
        Changes::start(session, log, relation, from, to)
    })?;
    let changes = paged(move |session| changes.page(session));
    Ok(TableIterator::new(changes.map(columns)))
}

fn columns(change: Change) -> ChangeColumns {
    let Change { key, version } = change;
    let Version {
        leaf_index,
        operation,
        row,
        origin,
    } = version;
    let of = OriginColumns::of(origin);
    (
        leaf_index,
        operation,
        key,
        row.map(Jsonb),
        of.transaction,
        of.user,
        of.application,
        of.at,
        of.role,
        of.said,
        of.statement,
        of.statement_bytes,
    )
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn changes(
    log: Option<&str>,
    source_table: Option<RegClass>,
    from_size: default!(Option<i64>, 0),
    to_size: default!(Option<i64>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(operation, String),
            name!(source_key, Option<String>),
            name!(row_data, Option<Jsonb>),
            name!(transaction_id, Option<String>),
            name!(user_name, Option<String>),
            name!(application_name, Option<String>),
            name!(statement_at, Option<TimestampWithTimeZone>),
            name!(role_name, Option<String>),
            name!(context, Option<Jsonb>),
            name!(statement, Option<String>),
            name!(statement_bytes, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let from = required("from_size", from_size).map(Then::Size);
    changed(log, source_table, from, Ok(Then::of_size(to_size)))
}

#[pg_extern(stable, parallel_restricted, name = "changes")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn changes_between_times(
    log: Option<&str>,
    source_table: Option<RegClass>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(operation, String),
            name!(source_key, Option<String>),
            name!(row_data, Option<Jsonb>),
            name!(transaction_id, Option<String>),
            name!(user_name, Option<String>),
            name!(application_name, Option<String>),
            name!(statement_at, Option<TimestampWithTimeZone>),
            name!(role_name, Option<String>),
            name!(context, Option<Jsonb>),
            name!(statement, Option<String>),
            name!(statement_bytes, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let from = required("from_time", from_time).map(Then::Time);
    let to = Ok(to_time.map_or(Then::Latest, Then::Time));
    changed(log, source_table, from, to)
}

#[pg_extern(stable, parallel_restricted, name = "changes")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn changes_between_texts(
    log: Option<&str>,
    source_table: Option<RegClass>,
    from_size_or_time: Option<&str>,
    to_size_or_time: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(operation, String),
            name!(source_key, Option<String>),
            name!(row_data, Option<Jsonb>),
            name!(transaction_id, Option<String>),
            name!(user_name, Option<String>),
            name!(application_name, Option<String>),
            name!(statement_at, Option<TimestampWithTimeZone>),
            name!(role_name, Option<String>),
            name!(context, Option<Jsonb>),
            name!(statement, Option<String>),
            name!(statement_bytes, Option<i64>),
        ),
    >,
    ErrorReport,
> {
    let from = required("from_size_or_time", from_size_or_time);
    let from = from.and_then(|text| Then::of_text("from_size_or_time", Some(text)));
    let to = Then::of_text("to_size_or_time", to_size_or_time);
    changed(log, source_table, from, to)
}

/// What `page` gives, one by one, until it gives nothing.
fn paged<T: 'static>(
    mut page: impl FnMut(&Session) -> Result<Vec<T>, Error>,
) -> impl Iterator<Item = T> {
    let next = move || {
        let read: Result<Vec<T>, ErrorReport> =
            Scratch::new().scope(|| Session::enter(|session| page(session)));
        let page = read.unwrap_or_else(|report| Error::raise_report(report));
        (!page.is_empty()).then_some(page)
    };
    std::iter::from_fn(next).flatten()
}
