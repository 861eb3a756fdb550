//! What the log keeps of a row: its versions, redaction, retention.

use super::required;
use crate::catalog::logs;
use crate::error::Error;
use crate::history::{self, Version};
use crate::pg::jsonb::Jsonb;
use crate::pg::regclass::RegClass;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::{redaction, retention};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(stable, parallel_restricted, name = "history")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
pub fn row_history(
    log: Option<String>,
    source_table: Option<RegClass>,
    key: Option<String>,
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
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Statement, &required("log", log)?)?;
        let relation = required("source_table", source_table)?.0;
        let key = required("key", key)?;
        let versions = history::of_row(session, &log, relation, &key)?;
        Ok(TableIterator::new(versions.into_iter().map(columns)))
    })
}

#[allow(clippy::type_complexity)]
fn columns(
    version: Version,
) -> (
    i64,
    String,
    Option<Jsonb>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<TimestampWithTimeZone>,
) {
    let (transaction, user, application, at) = match version.origin {
        Some(o) => (
            Some(o.transaction.to_string()),
            Some(o.user),
            Some(o.application),
            TimestampWithTimeZone::try_from(crate::encode::time::server_micros(o.at)).ok(),
        ),
        None => (None, None, None, None),
    };
    (
        version.leaf_index,
        version.operation,
        version.row.map(Jsonb),
        transaction,
        user,
        application,
        at,
    )
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn redact(
    log: Option<String>,
    leaf_index: Option<i64>,
    reason: Option<String>,
) -> Result<i64, ErrorReport> {
    Session::enter(|session| {
        let log = required("log", log)?;
        let index = required("leaf_index", leaf_index)?;
        redaction::redact(session, &log, index, &valid_reason(reason)?)
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn redact_row(
    log: Option<String>,
    source_table: Option<RegClass>,
    key: Option<String>,
    reason: Option<String>,
) -> Result<i64, ErrorReport> {
    Session::enter(|session| {
        let log = required("log", log)?;
        let relation = required("source_table", source_table)?.0;
        let key = required("key", key)?;
        redaction::redact_row(session, &log, relation, &key, &valid_reason(reason)?)
    })
}

fn valid_reason(reason: Option<String>) -> Result<String, Error> {
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
pub fn prune_log(log: Option<String>, before_leaf_index: Option<i64>) -> Result<i64, ErrorReport> {
    Session::enter(|session| {
        let log = required("log", log)?;
        let before = required("before_leaf_index", before_leaf_index)?;
        if before < 0 {
            return Err(Error::Argument {
                name: "before_leaf_index",
                must: "a leaf index",
                value: before.to_string(),
            });
        }
        retention::prune(session, &log, before)
    })
}
