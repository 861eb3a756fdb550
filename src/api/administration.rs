//! `administration`: what was done to logs and sources, for people.

use crate::administration::listing::{self, CHUNK, Listed};
use crate::catalog::logs::{self, Log};
use crate::encode::time;
use crate::error::Error;
use crate::pg::jsonb::Jsonb;
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashSet;

#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // the columns of the SQL function
pub fn administration(
    log: default!(Option<String>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(leaf_index, i64),
            name!(acted_at, Option<TimestampWithTimeZone>),
            name!(user_name, Option<String>),
            name!(application_name, Option<String>),
            name!(act, String),
            name!(log_name, String),
            name!(source_table, Option<String>),
            name!(content, Jsonb),
            name!(role_name, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let (acts, reads_all) = Session::enter(|session| {
        let administration = logs::administration(session)?;
        let asked = log.map(|name| listing::logs_called(session, &administration, &name));
        let acts = Acts {
            log: administration,
            asked,
            next: Some(0),
            read: Vec::new().into_iter(),
        };
        Ok((acts, session.caller_may_read_entries()?))
    })?;
    Ok(TableIterator::new(acts.map(move |(index, act)| {
        let at = act.at.map(time::server_micros);
        let role = act.role.clone();
        (
            index,
            at.and_then(|at| TimestampWithTimeZone::try_from(at).ok()),
            act.user.clone(),
            act.application.clone(),
            act.act.clone(),
            act.log_name.clone(),
            act.source_table().map(str::to_owned),
            Jsonb(act.content(reads_all)),
            role,
        )
    })))
}

/// Acts one by one; they are read a chunk at a time.
struct Acts {
    log: Log,
    /// The ids of the logs that were asked for; `None` for all.
    asked: Option<HashSet<i64>>,
    /// The leaf index to go on from; `None` at the end.
    next: Option<i64>,
    read: std::vec::IntoIter<(i64, Listed)>,
}

impl Acts {
    fn wanted(&self, act: &Listed) -> bool {
        let asked = self.asked.as_ref();
        asked.is_none_or(|ids| ids.contains(&act.log_id))
    }
}

impl Iterator for Acts {
    type Item = (i64, Listed);

    fn next(&mut self) -> Option<(i64, Listed)> {
        loop {
            if let Some(act) = self.read.next() {
                return Some(act);
            }
            let from = self.next?;
            let chunk = || {
                pgrx::check_for_interrupts!();
                Session::enter(|session| {
                    let snapshot = Snapshot::Statement;
                    Ok(listing::from(session, &self.log, snapshot, from))
                })
            };
            let read: Result<_, ErrorReport> = Scratch::new().scope(chunk);
            let read = read.unwrap_or_else(|report| Error::raise_report(report));
            let last = read.last().map(|(index, _)| index + 1);
            self.next = last.filter(|_| read.len() as i64 == CHUNK);
            let readable = read
                .into_iter()
                .filter_map(|(index, act)| Some((index, act?)));
            let wanted: Vec<_> = readable.filter(|(_, act)| self.wanted(act)).collect();
            self.read = wanted.into_iter();
        }
    }
}
