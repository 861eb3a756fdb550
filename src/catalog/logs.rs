//! `verification_logs`: the logs and their state.

use crate::administration::{self, Act};
use crate::capture::fence::{self, Blocked};
use crate::capture::order::Domain;
use crate::catalog::identity;
use crate::error::Error;
use crate::pg::index::{Direction, Key};
use crate::pg::lock::Object;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use crate::settings;
use pgrx::datum::Interval;
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// The log of what is done to the others: its id and its name, which no other may have.
pub const ADMINISTRATION: i32 = 0;
pub const ADMINISTRATION_NAME: &str = "merkle_log_administration";

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
    /// Leaf hashes are to be found fast.
    pub find_by_hash: bool,
}

const COLUMNS: &str = "l.log_id, l.log_name, l.order_domain, l.batch_size,
    CASE WHEN l.settle OPERATOR(pg_catalog.>) '0'::pg_catalog.interval THEN l.settle END, l.pruned_to, l.find_by_hash";

fn from_row(row: &Row) -> Log {
    Log {
        id: row.required(0),
        name: row.required(1),
        domain: row.get::<String>(2).and_then(|d| Domain::from_name(&d)),
        batch_size: row.get(3).unwrap_or_else(settings::batch_size),
        settle: row.get(4),
        pruned_to: row.required(5),
        find_by_hash: row.required(6),
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
        find_by_hash: row.required(14),
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

/// The names of all enabled logs that batches append to, oldest first.
pub fn enabled(session: &Session) -> Vec<String> {
    session.fresh(
        "SELECT l.log_name FROM @extschema@.verification_logs l
          WHERE l.enabled AND l.log_id <> $1 ORDER BY l.log_id",
        &[ADMINISTRATION.into()],
        |row| row.required(0),
    )
}

/// The ids of all logs, oldest first.
pub fn ids(session: &Session) -> Vec<i32> {
    session.fresh(
        "SELECT l.log_id FROM @extschema@.verification_logs l ORDER BY l.log_id",
        &[],
        |row| row.required(0),
    )
}

/// The administration log.
pub fn administration(session: &Session) -> Result<Log, Error> {
    by_id(session, ADMINISTRATION).ok_or_else(|| Error::NoSuchLog(ADMINISTRATION_NAME.to_owned()))
}

/// That a log may be changed by those who call: what is on record is not.
pub fn check_not_administration(log: &Log) -> Result<(), Error> {
    match log.id == ADMINISTRATION {
        true => Err(Error::Reserved(log.name.clone())),
        false => Ok(()),
    }
}

/// The log with this id, if it is still there.
pub fn by_id(session: &Session, id: i32) -> Option<Log> {
    let sql = format!("SELECT {COLUMNS} FROM @extschema@.verification_logs l WHERE l.log_id = $1");
    session.fresh_one(&sql, &[id.into()], from_row)
}

/// As `by_id`, of several logs.
pub fn by_ids(session: &Session, ids: &[i32]) -> Vec<Log> {
    let sql =
        format!("SELECT {COLUMNS} FROM @extschema@.verification_logs l WHERE l.log_id = ANY ($1)");
    session.fresh(&sql, &[ids.to_vec().into()], from_row)
}

/// The transaction that wrote the row of a log last.
pub fn row_writer(session: &Session, log: &Log) -> Result<Option<pg_sys::TransactionId>, Error> {
    let mut logs = session.index(c"verification_logs", c"verification_logs_pkey")?;
    let keys = [Key::int4(1, log.id)];
    Ok(logs.first(Snapshot::Fresh, &keys, Direction::Forward, |row| row.writer))
}

/// A log as the background worker sees it.
#[derive(Clone)]
pub struct Scheduled {
    pub id: i32,
    pub name: String,
    pub arrival: bool,
    pub run_interval: Duration,
    /// `None`: never.
    pub reconcile_interval: Option<Duration>,
    /// How often a checkpoint is signed; `None`: never.
    pub checkpoint_interval: Option<Duration>,
    /// The transaction that wrote the log's row last.
    pub written_by: i64,
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
                (1000 * EXTRACT(epoch FROM l.reconcile_interval))::pg_catalog.float8,
                (1000 * EXTRACT(epoch FROM l.checkpoint_interval))::pg_catalog.float8,
                l.xmin::pg_catalog.text::pg_catalog.int8
           FROM @extschema@.verification_logs l
          WHERE l.enabled AND NOT l.paused AND l.log_id <> $1 ORDER BY l.log_id",
        &[ADMINISTRATION.into()],
        |row| {
            let reconcile = millis(row, 4).unwrap_or_else(settings::reconcile_interval);
            Scheduled {
                id: row.required(0),
                name: row.required(1),
                arrival: row.required(2),
                run_interval: millis(row, 3).unwrap_or_else(settings::run_interval),
                reconcile_interval: (!reconcile.is_zero()).then_some(reconcile),
                checkpoint_interval: millis(row, 5),
                written_by: row.required(6),
            }
        },
    )
}

/// Makes the caller the only writer of the log until the end of its transaction, and loads the log
/// as it is then. After `patience`, `Blocked` names who holds the lock.
///
/// # Errors
/// If there is no such log, or this database is a copy of another that nobody has adopted.
///
/// Who locks several logs in one transaction does so in ascending order of their ids, so that two such
/// transactions cannot wait for each other.
pub fn lock(
    session: &Session,
    name: &str,
    patience: Duration,
) -> Result<Result<Log, Blocked>, Error> {
    let deadline = Instant::now() + patience;
    loop {
        let log = by_name(session, Snapshot::Fresh, name)?;
        check_not_administration(&log)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(blocked) = lock_known(session, &log, left)? {
            return Ok(Err(blocked));
        }
        // While the lock was waited for, the name may have passed to another log.
        let now = by_name(session, Snapshot::Fresh, name)?;
        if now.id == log.id {
            return Ok(Ok(now));
        }
    }
}

/// Locks the administration log. This is done last, after all locks of other logs, so that who holds it
/// waits for nobody.
///
/// # Errors
/// `Busy`, if another still writes it after as long as a batch waits at the fence.
pub fn lock_administration(session: &Session) -> Result<Log, Error> {
    let log = administration(session)?;
    match lock_known(session, &log, settings::fence_timeout())? {
        Ok(()) => Ok(log),
        Err(Blocked(by)) => Err(Error::Busy { log: log.name, by }),
    }
}

fn lock_known(
    session: &Session,
    log: &Log,
    patience: Duration,
) -> Result<Result<(), Blocked>, Error> {
    identity::check(session)?;
    let lock = Object {
        table: session.relation(c"verification_logs")?,
        number: log.id,
    };
    if lock.try_exclusive() || lock.exclusive_within(patience).is_ok() {
        return Ok(Ok(()));
    }
    let by = writer(session, log.id)?;
    Ok(Err(Blocked(by.unwrap_or_else(fence::just_ended))))
}

/// As `lock`, for as long as a batch waits at the fence.
///
/// # Errors
/// `Busy`, if another still writes the log then.
pub fn lock_and_wait(session: &Session, name: &str) -> Result<Log, Error> {
    lock(session, name, settings::fence_timeout())?.map_err(|Blocked(by)| Error::Busy {
        log: name.to_owned(),
        by,
    })
}

const HOLDS_LOCK: &str =
    "l.locktype = 'object' AND l.classid = ANY ($1) AND l.objid = $3 AND l.granted
    AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()";

/// Who holds the log's lock, if anyone but the caller does.
pub fn writer(session: &Session, id: i32) -> Result<Option<String>, Error> {
    let table = session.relation(c"verification_logs")?;
    let holder = fence::describe(session, HOLDS_LOCK, &[table], &[], id);
    Ok(holder.map(|by| format!("{by}, which is writing the log")))
}

/// Who holds the log's lock and does nothing: a transaction that has been idle for ten seconds, or is
/// prepared.
pub fn idle_writer(session: &Session, id: i32) -> Result<Option<String>, Error> {
    let table = session.relation(c"verification_logs")?;
    let idle = format!(
        "{HOLDS_LOCK} AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_stat_activity a
             WHERE a.pid = l.pid
               AND (a.state NOT LIKE 'idle in transaction%'
                 OR a.state_change > pg_catalog.clock_timestamp() - '10 s'::pg_catalog.interval))"
    );
    Ok(fence::describe(session, &idle, &[table], &[], id))
}

/// Forgets how batches went and whom they waited for: that was on another server.
pub fn forget_state(session: &Session) {
    session.execute(
        "UPDATE @extschema@.verification_logs SET waiting_for = NULL, last_error = NULL, last_error_at = NULL",
        &[],
    );
    session.execute("DELETE FROM @extschema@.merkle_source_state", &[]);
}

/// Disables every log that batches append to.
pub fn disable_all(session: &Session) {
    let disabled = session.fresh(
        "UPDATE @extschema@.verification_logs SET enabled = false
          WHERE enabled AND log_id <> $1 RETURNING log_id",
        &[ADMINISTRATION.into()],
        |row| row.required(0),
    );
    for log_id in disabled {
        administration::record(session, Act::LogDisabled { log_id });
    }
}

/// Puts a failure on record, for `merkle_log_status`, unless someone holds the log's row meanwhile.
pub fn record_error(session: &Session, name: &str, message: &str) {
    session.execute(
        "UPDATE @extschema@.verification_logs
            SET last_error = $2, last_error_at = pg_catalog.clock_timestamp()
          WHERE log_id IN (SELECT l.log_id FROM @extschema@.verification_logs l
                            WHERE l.log_name = $1 FOR NO KEY UPDATE SKIP LOCKED)",
        &[name.into(), message.into()],
    );
}

/// Puts on record who holds the log's lock, unless someone holds the log's row meanwhile. For callers
/// that commit at once: the next batch waits for them.
pub fn record_writer(session: &Session, name: &str, by: &str) {
    session.execute(
        "UPDATE @extschema@.verification_logs SET waiting_for = $2
          WHERE log_id IN (SELECT l.log_id FROM @extschema@.verification_logs l
                            WHERE l.log_name = $1 AND l.waiting_for IS DISTINCT FROM $2
                              FOR NO KEY UPDATE SKIP LOCKED)",
        &[name.into(), by.into()],
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
