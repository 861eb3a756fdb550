//! Holes: where changes of a source can escape the log, or have.

use super::apart;
use crate::capture::ceiling::{self, Ceiling};
use crate::capture::gather;
use crate::capture::scan::{Leaf, Scan};
use crate::capture::shape::Shape;
use crate::capture::state;
use crate::capture::statement::{self, Rows};
use crate::capture::table::{Table, name_now};
use crate::catalog::logs::Log;
use crate::catalog::sources::Source;
use crate::error::{Error, literal};
use crate::pg::memory::Scratch;
use crate::pg::spi::Snapshot;
use crate::session::Session;
use crate::store::entries;
use pgrx::pg_sys;
use std::collections::HashSet;

/// Rows that are looked at in one step.
const STEP: i64 = 10_000;

pub struct Hole {
    pub relation: pg_sys::Oid,
    pub problem: String,
    /// Rows that escaped, where the problem is about rows.
    pub rows: Option<i64>,
    pub mend: String,
}

/// What escapes a source. Reads all of its rows that should be logged; what keeps it from that is a hole
/// too.
pub fn holes(session: &Session, log: &Log, source: &Source) -> Vec<Hole> {
    let found = apart(|| problems(session, log, source)).and_then(|mut holes| {
        holes.extend(apart(|| rows(session, log, source))?);
        Ok(holes)
    });
    found.unwrap_or_else(|problem| {
        let mend = match Table::load(session, source.relation) {
            Some(_) => "SELECT * FROM merkle_log_health() WHERE NOT ok".to_owned(),
            None => format!(
                "SELECT remove_source({}, {})",
                literal(&log.name),
                source.relation.to_u32()
            ),
        };
        vec![Hole {
            relation: source.relation,
            problem,
            rows: None,
            mend,
        }]
    })
}

fn problems(session: &Session, log: &Log, source: &Source) -> Result<Vec<Hole>, Error> {
    let hole = |problem: state::Problem| Hole {
        relation: problem.relation,
        problem: problem.detail,
        rows: None,
        mend: problem.mend,
    };
    let problems = state::problems(session, log, source);
    Ok(problems.into_iter().map(hole).collect())
}

fn rows(session: &Session, log: &Log, source: &Source) -> Result<Option<Hole>, Error> {
    let Some(shape) = super::shape(session, log, source)? else {
        return Ok(None);
    };
    if source.by_trigger() && source.pruned_order.is_some() {
        return Ok(None);
    }
    let rows = never_logged(session, log, &shape)?;
    if rows == 0 {
        return Ok(None);
    }
    let (problem, mend) = match (&source.backfill, source.by_trigger()) {
        (Some(_), _) => (
            "rows that the backfill has not reached yet",
            "process_next_batch",
        ),
        (None, true) if !source.complete => ("rows that were left out", "backfill"),
        (None, true) => ("rows that were never logged", "backfill"),
        (None, false) => (
            "rows behind the watermark, or ahead of the clock or the sequence, that were never logged",
            "reconcile",
        ),
    };
    let (of_log, of_table) = (literal(&log.name), literal(&name_now(session, source)));
    Ok(Some(Hole {
        relation: source.relation,
        problem: problem.to_owned(),
        rows: Some(rows),
        mend: match mend {
            "backfill" => format!("SELECT backfill({of_log}, {of_table})"),
            function => format!("SELECT {function}({of_log})"),
        },
    }))
}

/// How many rows should be in the log, or in the queue, and are not.
fn never_logged(session: &Session, log: &Log, shape: &Shape) -> Result<i64, Error> {
    let source = &shape.source;
    let mut scan = Scan::new(log, shape, shape.current())?;
    let mut scratch = Scratch::new();
    let mut after: Option<Vec<String>> = None;
    let ceiling = match source.by_trigger() {
        true => Ceiling::None,
        false => ceiling::of(session, log, shape),
    };
    let mut count = 0;
    loop {
        pgrx::check_for_interrupts!();
        let which = match source.by_trigger() {
            true => Rows::All,
            false => Rows::behind(source, ceiling.text()),
        };
        let statement = statement::rows(shape, scan.attributes(), after.as_deref(), which, STEP);
        let rows = scan.all_with_problems(Snapshot::Fresh, &statement)?;
        let Some(last) = rows.last() else {
            return Ok(count);
        };
        after = Some(last.position(shape)?);
        let known: HashSet<String> = scratch.scope(|| match source.by_trigger() {
            false => entries::logged(session, Snapshot::Fresh, log, source.id, &rows),
            true => {
                let keys: Vec<String> = rows.iter().map(|r| r.key.clone()).collect();
                let live = entries::live(session, Snapshot::Fresh, log, source.id, keys.clone());
                let mut known: HashSet<String> = live.into_keys().collect();
                let rest: Vec<String> = keys.into_iter().filter(|k| !known.contains(k)).collect();
                if !rest.is_empty() {
                    known.extend(gather::waiting(session, Snapshot::Fresh, shape, rest));
                }
                Ok(known)
            }
        })?;
        // What the ceiling has passed meanwhile is left to the next batch.
        let now = match source.by_trigger() {
            true => None,
            false => Some(ceiling::of(session, log, shape)),
        };
        let is_taken = |row: &Leaf| {
            let watermark = ceiling::logged_order(shape);
            let is_ahead = watermark.is_none_or(|logged| row.order > logged);
            is_ahead
                && now
                    .as_ref()
                    .is_some_and(|now| now.admits(shape, &row.order))
        };
        let unknown = rows.iter().filter(|r| !known.contains(&r.key));
        count += unknown.filter(|row| !is_taken(row)).count() as i64;
    }
}
