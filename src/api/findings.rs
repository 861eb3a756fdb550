//! What continuous verification has found.

use super::history::valid_reason;
use super::{log_name, required};
use crate::catalog::logs;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::verify::recorded::{self, Shown};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(stable, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the columns of the SQL function
pub fn findings(
    log: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(finding, i64),
            name!(log_name, String),
            name!(state, String),
            name!(kind, String),
            name!(source_table, Option<String>),
            name!(source_key, Option<String>),
            name!(leaf_index, Option<i64>),
            name!(expected, Option<Vec<u8>>),
            name!(actual, Option<Vec<u8>>),
            name!(detail, String),
            name!(first_seen, TimestampWithTimeZone),
            name!(last_seen, TimestampWithTimeZone),
            name!(resolved_at, Option<TimestampWithTimeZone>),
            name!(acknowledged_at, Option<TimestampWithTimeZone>),
            name!(acknowledged_by, Option<String>),
            name!(reason, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Session::enter(|session| {
        let log = match log {
            None => None,
            Some(name) => Some(logs::by_name(
                session,
                Snapshot::Statement,
                log_name("log", Some(name))?,
            )?),
        };
        let found = recorded::list(session, log.as_ref())?;
        Ok(TableIterator::new(found.into_iter().map(|f: Shown| {
            (
                f.id,
                f.log_name,
                f.state,
                f.kind,
                f.source_table,
                f.source_key,
                f.leaf_index,
                f.expected,
                f.actual,
                f.detail,
                f.first_seen,
                f.last_seen,
                f.resolved_at,
                f.acknowledged_at,
                f.acknowledged_by,
                f.reason,
            )
        })))
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
pub fn acknowledge_finding(finding: Option<i64>, reason: Option<&str>) -> Result<(), ErrorReport> {
    Session::write(None, |session| {
        let finding = required("finding", finding)?;
        recorded::acknowledge(session, finding, valid_reason(reason)?)
    })
}
