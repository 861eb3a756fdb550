//! `verification_logs`: the logs and their state.

use crate::capture::order::Domain;
use crate::error::Error;
use crate::pg::index::{Direction, Key};
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use crate::settings;
use pgrx::datum::Interval;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub id: i32,
    pub name: String,
    pub domain: Option<Domain>,
    /// Entries that one batch appends at most.
    pub batch_size: i32,
    /// Entries before this one were pruned: a multiple of 256.
    pub pruned_to: i64,
    /// Rows younger than this are left for a later batch; `None` for zero.
    pub settle: Option<Interval>,
}

const COLUMNS: &str = "l.log_id, l.log_name, l.order_domain, l.batch_size,
    CASE WHEN l.settle OPERATOR(pg_catalog.>) '0'::pg_catalog.interval THEN l.settle END, l.pruned_to";

fn from_row(row: &Row) -> Log {
    Log {
        id: row.required(0),
        name: row.required(1),
        domain: row.get::<String>(2).and_then(|d| Domain::from_name(&d)),
        batch_size: row.get(3).unwrap_or_else(settings::batch_size),
        settle: row.get(4),
        pruned_to: row.required(5),
    }
}

/// A row of the table itself.
fn from_table(row: &Row) -> Log {
    let settle: Option<Interval> = row.get(5);
    Log {
        id: row.required(0),
        name: row.required(1),
        domain: row.get::<String>(3).and_then(|d| Domain::from_name(&d)),
        batch_size: row.get(4).unwrap_or_else(settings::batch_size),
        settle: settle.filter(|s| s.as_micros() > 0),
        pruned_to: row.required(13),
    }
}

/// The log called `name`, for a statement that only reads.
pub fn known(session: &Session, name: &str) -> Result<Log, Error> {
    session.known_log(name, |snapshot| by_name(session, snapshot, name))
}

/// The log called `name`, as `snapshot` shows it.
pub fn by_name(session: &Session, snapshot: Snapshot, name: &str) -> Result<Log, Error> {
    session
        .index(c"verification_logs", c"verification_logs_log_name_key")?
        .first(
            snapshot,
            &[Key::text(1, name)],
            Direction::Forward,
            from_table,
        )
        .ok_or_else(|| Error::NoSuchLog(name.to_owned()))
}

/// The names of all enabled logs, oldest first.
pub fn enabled(session: &Session) -> Vec<String> {
    session.fresh(
        "SELECT l.log_name FROM @extschema@.verification_logs l WHERE l.enabled ORDER BY l.log_id",
        &[],
        |row| row.required(0),
    )
}

/// The log with this id, if it is still there.
pub fn by_id(session: &Session, id: i32) -> Option<Log> {
    let sql = format!("SELECT {COLUMNS} FROM @extschema@.verification_logs l WHERE l.log_id = $1");
    session.fresh_one(&sql, &[id.into()], from_row)
}

/// A log as the background worker sees it.
pub struct Scheduled {
    pub id: i32,
    pub name: String,
    pub arrival: bool,
    pub run_interval: Duration,
    /// `None`: never.
    pub reconcile_interval: Option<Duration>,
}

/// The logs that the background worker is to run.
pub fn scheduled(session: &Session) -> Vec<Scheduled> {
    let millis = |row: &Row, column: usize| {
        row.get::<f64>(column)
            .map(|ms| Duration::from_millis(ms.clamp(0.0, 1e15) as u64))
    };
    session.fresh(
        "SELECT l.log_id, l.log_name, COALESCE(l.order_domain = 'arrival', false),
                (1000 * EXTRACT(epoch FROM l.run_interval))::pg_catalog.float8,
                (1000 * EXTRACT(epoch FROM l.reconcile_interval))::pg_catalog.float8
           FROM @extschema@.verification_logs l WHERE l.enabled AND NOT l.paused ORDER BY l.log_id",
        &[],
        |row| {
            let reconcile = millis(row, 4).unwrap_or_else(settings::reconcile_interval);
            Scheduled {
                id: row.required(0),
                name: row.required(1),
                arrival: row.required(2),
                run_interval: millis(row, 3).unwrap_or_else(settings::run_interval),
                reconcile_interval: (!reconcile.is_zero()).then_some(reconcile),
            }
        },
    )
}

/// Makes the caller the only writer of the log until the end of its transaction, and loads the log
/// as it is then. `None` if another is writing and `wait` is false.
pub fn lock(session: &Session, name: &str, wait: bool) -> Result<Option<Log>, Error> {
    let log = by_name(session, Snapshot::Fresh, name)?;
    // The table's oid keeps the key apart from the advisory locks of others.
    let call = "(('@extschema@.verification_logs'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int8
        - CASE WHEN '@extschema@.verification_logs'::pg_catalog.regclass::pg_catalog.oid::pg_catalog.int8 > 2147483647
               THEN 4294967296 ELSE 0 END)::pg_catalog.int4, $1)";
    let locked = if wait {
        session.execute(
            &format!("SELECT pg_catalog.pg_advisory_xact_lock{call}"),
            &[log.id.into()],
        );
        true
    } else {
        session
            .fresh_one(
                &format!("SELECT pg_catalog.pg_try_advisory_xact_lock{call}"),
                &[log.id.into()],
                |row| row.required(0),
            )
            .unwrap_or(false)
    };
    match locked {
        true => by_name(session, Snapshot::Fresh, name).map(Some),
        false => Ok(None),
    }
}

/// As `lock`, waiting for as long as it takes.
pub fn lock_and_wait(session: &Session, name: &str) -> Result<Log, Error> {
    lock(session, name, true)?.ok_or_else(|| Error::NoSuchLog(name.to_owned()))
}

/// Puts a failure on record, for `merkle_log_status`.
pub fn record_error(session: &Session, name: &str, message: &str) {
    session.execute(
        "UPDATE @extschema@.verification_logs
            SET last_error = $2, last_error_at = pg_catalog.clock_timestamp()
          WHERE log_name = $1",
        &[name.into(), message.into()],
    );
}

/// Puts on record what the log waits for (`None`: nothing), and that the last batch did not fail.
pub fn record_state(session: &Session, log: &Log, waiting_for: Option<&str>) {
    session.execute(
        "UPDATE @extschema@.verification_logs
            SET waiting_for = $2, last_error = NULL, last_error_at = NULL
          WHERE log_id = $1
            AND (waiting_for IS DISTINCT FROM $2 OR last_error IS NOT NULL)",
        &[log.id.into(), waiting_for.into()],
    );
}
