//! Which logs have nothing to log, found out for many at once, so that an idle log costs no batch.
//!
//! A log is said to be idle only if its last batch left nothing undone, everything that a batch would find out about its
//! sources is known, and no source has a row that a batch would take. Whatever cannot be told cheaply and without waiting
//! for anyone makes the log one that is not idle: then a batch is run, which tells.

use crate::capture::ceiling::{self, Ceiling};
use crate::capture::ready;
use crate::capture::shape::Shape;
use crate::capture::watermark;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources;
use crate::pg::{lock, settings, subtransaction};
use crate::session::Session;
use std::collections::{HashMap, HashSet};

/// Sources whose tables are asked in one transaction, at most: their locks are held until its end.
const ASKED: usize = 200;

/// What there is to do for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Nothing,
    /// Changes wait in the queue.
    Changes,
    /// A batch is to be run.
    Batch,
}

/// What there is to do for each of the logs.
pub fn look(session: &Session, log_ids: &[i32]) -> HashMap<i32, Work> {
    let mut work = standing(session, log_ids);
    let mut unclear: HashMap<i32, Vec<Shape>> = HashMap::new();
    for source in sources::active_of(session, log_ids) {
        let Some(of_log) = work.get_mut(&source.log_id) else {
            continue;
        };
        if *of_log == Work::Batch {
            continue;
        }
        match ready::settled(&source) {
            Some(_) if source.by_trigger() && source.backfill.is_none() => {}
            Some(shape) if !source.by_trigger() => {
                if !ceiling::is_plainly_reached(&shape) {
                    unclear.entry(source.log_id).or_default().push(shape);
                }
            }
            _ => *of_log = Work::Batch,
        }
    }
    let unclear_logs: Vec<i32> = unclear.keys().copied().collect();
    let logs = match unclear_logs.is_empty() {
        true => Vec::new(),
        false => logs::by_ids(session, &unclear_logs),
    };
    let mut asked = 0;
    for log in logs {
        let shapes = &unclear[&log.id];
        asked += shapes.len();
        let is_idle = |shape: &Shape| has_no_rows(session, &log, shape);
        if asked > ASKED || !shapes.iter().all(is_idle) {
            work.insert(log.id, Work::Batch);
        }
    }
    work
}

/// What can be told of the logs themselves. Logs that are gone are left out.
fn standing(session: &Session, log_ids: &[i32]) -> HashMap<i32, Work> {
    let sql = "SELECT l.log_id,
                l.waiting_for IS NOT NULL OR l.last_error IS NOT NULL
                OR EXISTS (SELECT FROM @extschema@.merkle_source_state t
                             JOIN @extschema@.verification_sources s ON s.source_id = t.source_id
                            WHERE s.log_id = l.log_id),
                l.order_domain = 'arrival'
                AND EXISTS (SELECT FROM @extschema@.merkle_pending p WHERE p.log_id = l.log_id)
           FROM @extschema@.verification_logs l WHERE l.log_id = ANY ($1)";
    let rows = settings::in_index_order(|| {
        session.fresh(sql, &[log_ids.to_vec().into()], |row| {
            let work = match (row.required(1), row.get(2)) {
                (true, _) => Work::Batch,
                (false, Some(true)) => Work::Changes,
                (false, _) => Work::Nothing,
            };
            (row.required(0), work)
        })
    });
    rows.into_iter().collect()
}

/// Asks the table, if nobody keeps it locked.
fn has_no_rows(session: &Session, log: &Log, shape: &Shape) -> bool {
    let is_one_table = shape.table.written_through == [shape.table.oid];
    if !is_one_table || !lock::try_access_share(shape.table.oid) {
        return false;
    }
    let has_none = || match ceiling::of(session, log, shape) {
        // What lies ahead of the sequence is put on record by a batch.
        Ceiling::Passed(_) => false,
        ceiling => {
            let span = watermark::all_ahead(std::slice::from_ref(shape), &[ceiling]);
            span.into_iter().flatten().next().is_none()
        }
    };
    subtransaction::run(has_none).unwrap_or(false)
}

/// The logs of which rows near the watermarks may have come late: their sources were written to since `written`, which
/// says of each source how often it had been written to.
pub fn written_to(
    session: &Session,
    log_ids: &[i32],
    written: impl Fn(i32, i32) -> Option<i64>,
) -> HashSet<i32> {
    let sources = sources::active_of(session, log_ids);
    let (mut ids, mut tables) = (Vec::new(), Vec::new());
    let mut found = HashSet::new();
    for source in &sources {
        match ready::settled(source) {
            Some(shape) => {
                ids.extend(shape.table.written_through.iter().map(|_| source.id));
                tables.extend(shape.table.written_through.iter().copied());
            }
            None => drop(found.insert(source.log_id)),
        }
    }
    let counts: HashMap<i32, i64> = super::writes(session, ids, tables).into_iter().collect();
    for source in sources {
        let now = counts.get(&source.id).copied();
        if now.is_none() || written(source.log_id, source.id) != now {
            found.insert(source.log_id);
        }
    }
    found
}
