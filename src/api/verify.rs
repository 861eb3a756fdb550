//! `verify_log`.

use super::required;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::session::Session;
use crate::verify::Verification;
use crate::verify::finding::{Finding, Kind};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

#[pg_extern(stable, parallel_unsafe, name = "verify_log")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn verify_log_v3(
    log: Option<String>,
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
        let log = required("log", log)?;
        let from = from_index.unwrap_or(0);
        Verification::start(session, &log, from, to_index, workers.unwrap_or(1))
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
