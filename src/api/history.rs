//! What the log keeps of a row: its versions, redaction, retention.

use super::{given_key, log_name, required, shortened};
use crate::capture::given_key::GivenKey;
use crate::catalog::logs;
use crate::encode::time::server_micros;
use crate::error::Error;
use crate::history::{Origin, Version, Versions};
use crate::pg::jsonb::Jsonb;
use crate::pg::memory::Scratch;
use crate::pg::regclass::RegClass;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::settings::context;
use crate::{redaction, retention};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(stable, parallel_restricted, name = "history")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn row_history(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(operation, String),
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
    versions(log, source_table, || given_key(key))
}

/// The versions of a row, as they are asked for.
pub fn versions<'a>(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: impl FnOnce() -> Result<GivenKey<'a>, Error>,
) -> Result<TableIterator<'static, VersionColumns>, ErrorReport> {
    let versions = Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
        let relation = required("source_table", source_table)?.0;
        Versions::find(session, log, relation, key()?)
    })?;
    Ok(TableIterator::new(OneByOne(versions).map(columns)))
}

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
pub fn kept_value(
    log: Option<&str>,
    leaf_index: Option<i64>,
    column_name: Option<&str>,
) -> Result<Option<String>, ErrorReport> {
    Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, log_name("log", log)?)?;
        let column = required("column_name", column_name)?;
        let index = required("leaf_index", leaf_index)?;
        crate::history::kept_value(session, &log, index, &shortened(column))
    })
}

/// The columns of a version.
pub type VersionColumns = (
    i64,
    String,
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

/// Versions of a row as they are asked for: a row can have any number of them, and each a whole row's data.
struct OneByOne(Versions);

impl Iterator for OneByOne {
    type Item = Version;

    fn next(&mut self) -> Option<Version> {
        let next: Result<Option<Version>, ErrorReport> =
            Scratch::new().scope(|| Session::enter(|session| Ok(self.0.next(session))));
        next.unwrap_or_else(|report| Error::raise_report(report))
    }
}

fn columns(version: Version) -> VersionColumns {
    let of = OriginColumns::of(version.origin);
    (
        version.leaf_index,
        version.operation,
        version.row.map(Jsonb),
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

/// Who made a change, as columns.
#[derive(Default)]
pub struct OriginColumns {
    pub transaction: Option<String>,
    pub user: Option<String>,
    pub role: Option<String>,
    pub application: Option<String>,
    pub at: Option<TimestampWithTimeZone>,
    pub said: Option<Jsonb>,
    pub statement: Option<String>,
    pub statement_bytes: Option<i64>,
}

impl OriginColumns {
    pub fn of(origin: Option<Origin>) -> OriginColumns {
        let Some(o) = origin else {
            return OriginColumns::default();
        };
        OriginColumns {
            transaction: Some(o.transaction.to_string()),
            user: Some(o.user),
            role: o.role,
            application: Some(o.application),
            at: TimestampWithTimeZone::try_from(server_micros(o.at)).ok(),
            // Leaf data that were altered may hold any text there.
            said: o.said.filter(|said| context::is_json(said)).map(Jsonb),
            statement: o.statement,
            statement_bytes: o
                .statement_bytes
                .map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
        }
    }
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn redact(
    log: Option<&str>,
    leaf_index: Option<i64>,
    reason: Option<&str>,
) -> Result<i64, ErrorReport> {
    Session::write(log, |session| {
        let log = log_name("log", log)?;
        let index = required("leaf_index", leaf_index)?;
        redaction::redact(session, log, index, valid_reason(reason)?)
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn redact_row(
    log: Option<&str>,
    source_table: Option<RegClass>,
    key: Option<&str>,
    reason: Option<&str>,
) -> Result<i64, ErrorReport> {
    Session::write(log, |session| {
        let log = log_name("log", log)?;
        let relation = required("source_table", source_table)?.0;
        let key = given_key(key)?;
        redaction::redact_row(session, log, relation, key, valid_reason(reason)?)
    })
}

pub fn valid_reason(reason: Option<&str>) -> Result<&str, Error> {
    let reason = required("reason", reason)?;
    match reason.trim().is_empty() || reason.len() > 1000 {
        false => Ok(reason),
        true => Err(Error::Argument {
            name: "reason",
            must: "a text of 1 to 1,000 bytes",
            value: format!("{} bytes", reason.len()),
        }),
    }
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn prune_log(log: Option<&str>, before_leaf_index: Option<i64>) -> Result<i64, ErrorReport> {
    Session::write(log, |session| {
        let log = log_name("log", log)?;
        let before = required("before_leaf_index", before_leaf_index)?;
        if before < 0 {
            return Err(Error::Argument {
                name: "before_leaf_index",
                must: "a leaf index",
                value: before.to_string(),
            });
        }
        retention::prune(session, log, before)
    })
}
