//! `merkle_log_health`: one row a check, with what to do where one fails.

use super::{apart, lag};
use crate::capture::{guard, queue};
use crate::catalog::{logs, sources};
use crate::error::literal;
use crate::pg::{server, xact};
use crate::session::Session;
use crate::shared;
use crate::store::set_aside;
use std::sync::atomic::Ordering::SeqCst;

/// A worker that has not gone round for so long hangs: microseconds.
const STALE: i64 = 30_000_000;
/// Rows that have waited for so long are late: seconds beyond ten rounds.
const LATE: f64 = 60.0;

/// A queue of this size, in bytes, slows its batches down: dead rows cannot be cleaned away.
const LARGE_QUEUE: i64 = 256 << 20;

pub struct Check {
    pub name: &'static str,
    pub object: Option<String>,
    pub ok: bool,
    pub detail: String,
    pub mend: Option<String>,
}

fn check(
    name: &'static str,
    object: Option<&str>,
    ok: bool,
    detail: impl Into<String>,
    mend: impl Into<String>,
) -> Check {
    Check {
        name,
        object: object.map(str::to_owned),
        ok,
        detail: detail.into(),
        mend: (!ok).then(|| mend.into()),
    }
}

pub fn checks(session: &Session) -> Vec<Check> {
    let mut checks = vec![preload(), worker(), queue(session)];
    for state in states(session) {
        let name = state.name.as_str();
        let quoted = literal(name);
        let hand = format!("SELECT process_next_batch({quoted})");
        checks.push(check(
            "error",
            Some(name),
            state.last_error.is_none(),
            state
                .last_error
                .as_deref()
                .unwrap_or("the last batch went well"),
            format!("{hand} shows it with its hint"),
        ));
        checks.push(check(
            "fence",
            Some(name),
            state.waiting_for.is_none(),
            match &state.waiting_for {
                None => "waits for nobody".to_owned(),
                Some(who) => format!("waits for {who}"),
            },
            "end that transaction: COMMIT, ROLLBACK PREPARED, or pg_terminate_backend",
        ));
        checks.push(writer(session, &state));
        checks.push(readable(session, &state));
        let enabled = state.enabled && !state.paused;
        checks.push(check(
            "running",
            Some(name),
            enabled,
            match (state.enabled, state.paused) {
                (false, _) => "disabled",
                (_, true) => "paused",
                _ => "enabled",
            },
            match state.enabled {
                false => format!("SELECT enable_log({quoted})"),
                true => format!("SELECT resume_log({quoted})"),
            },
        ));
        if let Some(log) = logs::by_id(session, state.id) {
            checks.push(lateness(session, &log));
            for source in sources::active(session, &log) {
                let holes = apart(|| Ok(guard::holes(session, &source)));
                let problems: Vec<String> = match holes {
                    Ok(holes) => holes.into_iter().map(|(_, problem)| problem).collect(),
                    Err(why) => vec![why],
                };
                let detail = match problems.is_empty() {
                    true => "nothing is missing".to_owned(),
                    false => problems.join("; "),
                };
                let object = format!("{name}: {}", source.name);
                let mend = format!("SELECT repair_capture({quoted}, {})", literal(&source.name));
                checks.push(check(
                    "capture",
                    Some(&object),
                    problems.is_empty(),
                    detail,
                    mend,
                ));
            }
        }
    }
    checks
}

fn preload() -> Check {
    let loaded = shared::get().is_some();
    let detail = match loaded {
        true => "the library is preloaded",
        false => "the library is not preloaded: no background worker, no node cache",
    };
    let mend = "add merkle_log to shared_preload_libraries and restart the server";
    check("preload", None, loaded, detail, mend)
}

fn worker() -> Check {
    if server::in_recovery() {
        let detail = "a standby: the worker starts on promotion";
        return check("worker", None, true, detail, "");
    }
    let worker = shared::get().and_then(|s| s.worker_of(server::my_database()));
    let (ok, detail) = match worker.filter(|w| w.pid.load(SeqCst) != 0) {
        None => (false, "no worker runs for this database".to_owned()),
        Some(worker) => {
            let age = xact::now() - worker.heartbeat.load(SeqCst);
            let pid = worker.pid.load(SeqCst);
            (
                age < STALE,
                format!("pid {pid}, last heard of {:.1} s ago", age as f64 / 1e6),
            )
        }
    };
    let mend =
        "see merkle_log.databases, max_worker_processes and the server's log; or schedule_log";
    check("worker", None, ok, detail, mend)
}

fn queue(session: &Session) -> Check {
    let size = queue::table(session).map_or(0, |(_, size)| size);
    let detail = format!("the queue's table has {} MB", size >> 20);
    let mend =
        "end old transactions (backend_xmin in pg_stat_activity), then VACUUM merkle_pending";
    check("queue", None, size < LARGE_QUEUE, detail, mend)
}

fn lateness(session: &Session, log: &logs::Log) -> Check {
    let name = Some(log.name.as_str());
    let mend = format!(
        "SELECT * FROM merkle_log_status WHERE log_name = {} says when it runs next; SELECT run_now({0})",
        literal(&log.name)
    );
    match lag(session, log) {
        Err(why) => check("lag", name, false, format!("cannot be told: {why}"), mend),
        Ok(lag) => {
            let detail = format!(
                "{} rows wait, the oldest for {:.1} s",
                lag.rows, lag.seconds
            );
            let limit = LATE + 10.0 * crate::settings::run_interval().as_secs_f64();
            check(
                "lag",
                name,
                lag.rows == 0 || lag.seconds < limit,
                detail,
                mend,
            )
        }
    }
}

/// That no idle or prepared transaction keeps the log to itself.
fn writer(session: &Session, state: &State) -> Check {
    let (ok, detail) = match logs::idle_writer(session, state.id) {
        Ok(None) => (true, "no idle transaction holds the log's lock".to_owned()),
        Ok(Some(who)) => (
            false,
            format!("{who} holds the log's lock, so no batch of the log can run"),
        ),
        Err(error) => (false, error.to_string()),
    };
    let mend = "end that transaction: COMMIT, ROLLBACK PREPARED, or pg_terminate_backend";
    check("writer", Some(&state.name), ok, detail, mend)
}

/// That no row is set aside because it cannot be read or encoded.
fn readable(session: &Session, state: &State) -> Check {
    let aside = set_aside::summary(session, state.id);
    let detail = match &aside {
        None => "every row could be read".to_owned(),
        Some((rows, first)) => format!("{rows} rows cannot be logged and are set aside: {first}"),
    };
    let mend = format!(
        "change or delete the row, or leave the column out with alter_source(…, columns => …); then SELECT reconcile({})",
        literal(&state.name)
    );
    check(
        "set_aside",
        Some(&state.name),
        aside.is_none(),
        detail,
        mend,
    )
}

struct State {
    id: i32,
    name: String,
    enabled: bool,
    paused: bool,
    last_error: Option<String>,
    waiting_for: Option<String>,
}

fn states(session: &Session) -> Vec<State> {
    session.fresh(
        "SELECT l.log_id, l.log_name, l.enabled, l.paused, l.last_error, l.waiting_for
           FROM @extschema@.verification_logs l ORDER BY l.log_id",
        &[],
        |row| State {
            id: row.required(0),
            name: row.required(1),
            enabled: row.required(2),
            paused: row.required(3),
            last_error: row.get(4),
            waiting_for: row.get(5),
        },
    )
}
