//! `merkle_log_health`: one row a check, with what to do where one fails.

mod verified;

use super::{apart, lag, lag_limit};
use crate::capture::{ddl, queue, state};
use crate::catalog::identity;
use crate::catalog::logs::{self, Log};
use crate::catalog::sources::{self, Source};
use crate::checkpoint;
use crate::error::literal;
use crate::pg::{server, xact};
use crate::session::{Session, WITHHELD};
use crate::settings;
use crate::shared;
use crate::store::set_aside;
use std::sync::atomic::Ordering::SeqCst;

/// A worker that has not gone round for so long hangs: microseconds.
const STALE: i64 = 30_000_000;
/// The check of what is not signed, whose object is a log.
pub const CHECKPOINT: &str = "checkpoint";

/// A checkpoint is overdue so long after twice its interval: seconds.
const UNSIGNED: f64 = 10.0;

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
    let mut checks = vec![
        preload(),
        worker(),
        queue(session),
        notifications(session),
        database(session),
        privileges(session),
        owner(session),
    ];
    checks.extend(ddl(session));
    for state in states(session) {
        let name = state.name.as_str();
        let quoted = literal(name);
        let hand = format!("SELECT process_next_batch({quoted})");
        checks.push(check(
            "error",
            Some(name),
            state.last_error.is_none(),
            match &state.last_error {
                None => "the last batch went well".to_owned(),
                Some(error) => match logs::by_id(session, state.id) {
                    Some(log) => session.message_for_caller(&log, error),
                    None => WITHHELD.to_owned(),
                },
            },
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
        checks.push(verified::overdue(session, &state));
        checks.push(verified::found(session, &state));
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
            checks.extend(unsigned(session, &log));
            for source in sources::active(session, &log) {
                let object = format!("{name}: {}", source.name);
                checks.push(source_state(session, &log, &source, &object));
            }
        }
    }
    checks
}

/// Tree heads are notified only while the server's queue of notifications has room.
fn notifications(session: &Session) -> Check {
    let usage = session.fresh_one(
        "SELECT pg_catalog.pg_notification_queue_usage()",
        &[],
        |row| row.required::<f64>(0),
    );
    let full = usage.unwrap_or_default();
    check(
        "notifications",
        None,
        full < 0.5,
        format!(
            "the server's queue of notifications is {:.0} % full",
            100.0 * full
        ),
        "end the transaction of the session that has not heard them: the server's log names its pid; new tree heads are not notified meanwhile",
    )
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
    let (ok, detail) = match shared::running_workers().first() {
        None => {
            let detail = match settings::workers() {
                1 => "no worker runs for this database".to_owned(),
                wanted => format!("not all {wanted} workers run for this database"),
            };
            (false, detail)
        }
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

/// Whether the logs are this database's own.
fn database(session: &Session) -> Check {
    let other = identity::other(session);
    let detail = match &other {
        None => "the logs are this database's own".to_owned(),
        Some(other) => format!(
            "the logs are those of database \"{}\"; nothing is logged here until someone says what this one is",
            other.name
        ),
    };
    let mend = "SELECT adopt_database('continue') if it takes that one's place, adopt_database('copy') if that one goes on";
    check("database", None, other.is_none(), detail, mend)
}

/// That the event triggers which note DDL are as `record_ddl` has made them, where there are any.
fn ddl(session: &Session) -> Option<Check> {
    ddl::is_noted(session).map(|noted| {
        let detail = match noted {
            true => "DDL on sources is noted",
            false => "an event trigger that notes DDL on sources is missing, disabled, or not for all commands",
        };
        check("ddl", None, noted, detail, "SELECT record_ddl()")
    })
}

/// That nobody but its owner can write the extension's tables.
fn privileges(session: &Session) -> Check {
    let writers: Vec<(String, String)> = session.fresh(
        "SELECT DISTINCT c.oid::pg_catalog.regclass::pg_catalog.text, COALESCE(pg_catalog.quote_ident(r.rolname), 'PUBLIC')
           FROM pg_catalog.pg_depend d
           JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid
          CROSS JOIN LATERAL (SELECT x.grantee, x.privilege_type FROM pg_catalog.aclexplode(c.relacl) x
                              UNION ALL
                              SELECT x.grantee, x.privilege_type
                                FROM pg_catalog.pg_attribute t CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) x
                               WHERE t.attrelid = c.oid) a
           LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
          WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'e'
            AND a.grantee <> c.relowner AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')
          ORDER BY 1, 2",
        &[session.extension().into()],
        |row| (row.required(0), row.required(1)),
    );
    let detail = match writers.first() {
        None => "only its owner may write the extension's tables".to_owned(),
        Some((table, role)) => format!("{role} may write {table}, and so forge logs"),
    };
    let revoke = |(table, role): &(String, String)| format!("REVOKE ALL ON {table} FROM {role}");
    let mend: Vec<String> = writers.iter().map(revoke).collect();
    check(
        "privileges",
        None,
        writers.is_empty(),
        detail,
        mend.join("; "),
    )
}

/// That the extension's owner, as whom it works, is still a superuser.
fn owner(session: &Session) -> Check {
    let owner = session.fresh_one(
        "SELECT pg_catalog.quote_ident(r.rolname), r.rolsuper
           FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_roles r ON r.oid = e.extowner WHERE e.oid = $1",
        &[session.extension().into()],
        |row| (row.required::<String>(0), row.required::<bool>(1)),
    );
    let (name, ok) = owner.unwrap_or_else(|| ("nobody".to_owned(), false));
    let detail = match ok {
        true => format!("the extension belongs to {name}, a superuser"),
        false => format!(
            "the extension belongs to {name}, who is no superuser: what the extension does as its owner may be refused"
        ),
    };
    check(
        "owner",
        None,
        ok,
        detail,
        format!("ALTER ROLE {name} SUPERUSER"),
    )
}

fn lateness(session: &Session, log: &Log) -> Check {
    let name = Some(log.name.as_str());
    let mend = format!(
        "SELECT * FROM merkle_log_status WHERE log_name = {} says when it runs next; SELECT run_now({0})",
        literal(&log.name)
    );
    match lag(session, log) {
        Err(why) => check("lag", name, false, format!("cannot be told: {why}"), mend),
        Ok(lag) => {
            let detail = format!(
                "{} wait, the oldest for {:.1} s",
                lag.rows_in_words(),
                lag.seconds
            );
            let in_time = lag.rows == 0 || lag.seconds < lag_limit(session, log);
            check("lag", name, in_time, detail, mend)
        }
    }
}

/// That what is new was signed, of a log whose checkpoints the worker signs.
fn unsigned(session: &Session, log: &Log) -> Option<Check> {
    let waits = session.fresh_one(
        "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - h.created_at)::pg_catalog.float8,
                (2 * EXTRACT(epoch FROM l.checkpoint_interval))::pg_catalog.float8
           FROM @extschema@.verification_logs l
           LEFT JOIN LATERAL (SELECT t.created_at FROM @extschema@.merkle_tree_head t
                               WHERE t.log_id = l.log_id
                                 AND t.tree_size > COALESCE((SELECT pg_catalog.max(c.tree_size) FROM @extschema@.merkle_checkpoint c
                                                              WHERE c.log_id = l.log_id), 0)
                               ORDER BY t.tree_size LIMIT 1) h ON true
          WHERE l.log_id = $1 AND l.checkpoint_interval IS NOT NULL",
        &[log.id.into()],
        |row| (row.get::<f64>(0), row.get::<f64>(1)),
    );
    let (waits, twice) = waits?;
    let waits = waits.unwrap_or(0.0);
    let quoted = literal(&log.name);
    let problem = checkpoint::problem(session, log);
    Some(check(
        CHECKPOINT,
        Some(&log.name),
        problem.is_none() && waits <= UNSIGNED + twice.unwrap_or(0.0),
        match problem {
            Some(why) => session.message_for_caller(log, &why),
            None if waits > 0.0 => format!("what is not signed yet waits for {waits:.0} s"),
            None => "everything is signed".to_owned(),
        },
        format!("SELECT checkpoint({quoted}) says why nothing is signed"),
    ))
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

/// Whether a source is ready, and its capture complete.
fn source_state(session: &Session, log: &Log, source: &Source, object: &str) -> Check {
    let problems = match apart(|| Ok(state::problems(session, log, source))) {
        Ok(problems) => problems,
        Err(why) => {
            let mend = "SELECT * FROM merkle_log_coverage";
            return check(
                "capture",
                Some(object),
                false,
                format!("cannot be told: {why}"),
                mend,
            );
        }
    };
    let detail = match problems.is_empty() {
        true => "nothing is missing".to_owned(),
        false => {
            let named = problems
                .iter()
                .map(|p| format!("{}: {}", p.state.name(), p.detail));
            named.collect::<Vec<_>>().join("; ")
        }
    };
    let mut mends: Vec<&str> = problems.iter().map(|p| p.mend.as_str()).collect();
    mends.dedup();
    let mend = mends.join("; ");
    check("capture", Some(object), problems.is_empty(), detail, mend)
}

/// That no row is set aside because it cannot be read or encoded.
fn readable(session: &Session, state: &State) -> Check {
    let aside = set_aside::summary(session, state.id);
    let detail = match &aside {
        None => "every row could be read".to_owned(),
        Some((rows, first)) => {
            let first = match logs::by_id(session, state.id) {
                Some(log) => session.message_for_caller(&log, first),
                None => String::new(),
            };
            format!("{rows} rows cannot be logged and are set aside: {first}")
        }
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
