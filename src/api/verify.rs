//! `verify_log`.

use super::log_name;
use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::session::Session;
use crate::verify::{Finding, Verification};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

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
    let verification = Session::enter(|session| {
        let log = log_name("log", log)?;
        let from = from_index.unwrap_or(0);
        Verification::start(session, log, from, to_index, workers.unwrap_or(1))
    })?;
    Ok(TableIterator::new(
        Findings {
            verification,
            found: Vec::new().into_iter(),
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

/// Findings one by one; the work is done a chunk at a time, when the last chunk's are used up.
struct Findings {
    verification: Verification,
    found: std::vec::IntoIter<Finding>,
}

impl Iterator for Findings {
    type Item = Finding;

    fn next(&mut self) -> Option<Finding> {
        loop {
            if let Some(finding) = self.found.next() {
                return Some(finding);
            }
            let step: Result<Option<Vec<Finding>>, ErrorReport> =
                Scratch::new().scope(|| Session::enter(|session| self.verification.step(session)));
            match step {
                Ok(found) => self.found = found?.into_iter(),
                Err(report) => Error::raise_report(report),
            }
        }
    }
}
