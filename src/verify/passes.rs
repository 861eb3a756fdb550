//! Passes of continuous verification: whose turn it is, and a slice of it.
//!
//! `merkle_verification` says how far the pass over each log is. It is written in the transaction of the slice, with
//! what the slice has found: a slice that a crash ends is read again.

use super::Verification;
use super::configuration::Record;
use super::recorded::{self, Recorded};
use super::slices::{Crossing, Position};
use crate::capture::fence;
use crate::catalog::logs::{self, ADMINISTRATION, Log};
use crate::catalog::{identity, sources};
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use crate::settings;
use std::time::{Duration, Instant};

/// Tables of a log that are kept from being altered before a slice takes its snapshot, at most.
const HELD: usize = 64;

/// Rows of the queue, of up to a page each, that are a backlog.
const BACKLOG: i64 = 500;

/// As long as changes are gathered after the first was queued, nobody waits for a slice.
const UNDISTURBED: Duration = Duration::from_millis(10);

/// What a slice may take.
pub struct Limits<'a> {
    /// Rows and entries.
    pub rows: u64,
    pub time: Duration,
    /// Rows and entries of one step, between which it is asked whether to go on.
    pub step: i64,
    /// True if something else is to be done.
    pub is_wanted: &'a dyn Fn() -> bool,
}

/// What became of a slice.
pub struct Slice {
    pub rows: u64,
    /// What a pass over the log waits for, if that ended it.
    pub blocked: Option<String>,
}

/// The log whose turn it is to be verified, if any is: of those that are due, the one that has waited longest.
/// Not those in `except`; and in a copy of another database, none.
pub fn next(session: &Session, except: &[i32]) -> Option<(i32, String)> {
    let due = session.fresh_one(
        "SELECT l.log_id, l.log_name
           FROM @extschema@.verification_logs l
           LEFT JOIN @extschema@.merkle_verification v ON v.log_id = l.log_id
          -- What is on record is verified once a day at least, whatever its row says.
          CROSS JOIN LATERAL (SELECT CASE WHEN l.log_id <> $2 THEN l.verify_interval
                                          ELSE LEAST(l.verify_interval, '1 day'::pg_catalog.interval) END) e (every)
          WHERE l.log_id <> ALL ($1) AND e.every IS NOT NULL
            -- Until it has entries, a dump may be about to bring them.
            AND (l.log_id <> $2 OR EXISTS (SELECT FROM @extschema@.merkle_tree_head h WHERE h.log_id = l.log_id))
            AND (v.stage IS NOT NULL OR v.started_at IS NULL OR v.started_at + e.every <= pg_catalog.clock_timestamp()
                 -- A pass over a log without entries was none.
                 OR v.size = 0 AND EXISTS (SELECT FROM @extschema@.merkle_tree_head h WHERE h.log_id = l.log_id))
          ORDER BY v.read_at NULLS FIRST, l.log_id LIMIT 1",
        &[except.to_vec().into(), ADMINISTRATION.into()],
        |row| (row.required(0), row.required(1)),
    )?;
    match identity::other(session) {
        None => Some(due),
        Some(_) => None,
    }
}

/// A pass under way, as it is stored.
struct Stored {
    pass: i64,
    crossing: Option<Crossing>,
}

/// Reads the pass over a log, and begins the next where the last has ended.
fn stored(session: &Session, log_id: i32) -> Stored {
    let stored = session.fresh_one(
        "SELECT v.pass, v.stage IS NOT NULL, v.state FROM @extschema@.merkle_verification v WHERE v.log_id = $1",
        &[log_id.into()],
        |row| Stored {
            pass: row.required::<i64>(0) + i64::from(!row.required::<bool>(1)),
            crossing: row.get::<&str>(2).and_then(Crossing::from_text),
        },
    );
    let stored = stored.unwrap_or(Stored {
        pass: 1,
        crossing: None,
    });
    if stored.crossing.is_none() {
        session.execute(
            "INSERT INTO @extschema@.merkle_verification AS v (log_id, pass, started_at)
             VALUES ($1, $2, pg_catalog.clock_timestamp())
             ON CONFLICT (log_id) DO UPDATE
                SET pass = EXCLUDED.pass, started_at = EXCLUDED.started_at, left_out = 0",
            &[log_id.into(), stored.pass.into()],
        );
    }
    stored
}

/// Runs a slice of the pass over a log.
pub fn slice(session: &Session, log_id: i32, limits: &Limits) -> Result<Slice, Error> {
    // Whoever drops the log waits for the slice, and then deletes what it has stored.
    let held = session.fresh_one(
        "SELECT l.log_id FROM @extschema@.verification_logs l WHERE l.log_id = $1 FOR KEY SHARE SKIP LOCKED",
        &[log_id.into()],
        |_| (),
    );
    let Some(log) = held.and_then(|()| logs::by_id(session, log_id)) else {
        // Another log's turn, until the transaction that alters or drops this one has ended.
        return Ok(Slice {
            rows: 0,
            blocked: Some("a transaction that alters or drops the log".to_owned()),
        });
    };
    if has_backlog(session, log_id) {
        let why = "it waits until most of the changes in the queue are logged";
        set_problem(session, log_id, why);
        return Ok(Slice {
            rows: 0,
            blocked: Some(why.to_owned()),
        });
    }
    let stored = stored(session, log_id);
    for source in sources::active(session, &log).iter().take(HELD) {
        // One that cannot be held is asked for again when it is read.
        let _unheld = fence::hold_tables(session, &[source.relation], Instant::now());
    }
    xact::with_new_snapshot(|| read(session, &log, stored, limits))
}

/// True if so much waits in the queue that each slice would take long to find out which rows have changes in it.
fn has_backlog(session: &Session, log_id: i32) -> bool {
    let waiting = session.fresh_one(
        "SELECT pg_catalog.count(*) FROM (SELECT 1 FROM @extschema@.merkle_pending p WHERE p.log_id = $1 LIMIT $2) w",
        &[log_id.into(), BACKLOG.into()],
        |row| row.required::<i64>(0),
    );
    waiting.is_some_and(|waiting| waiting >= BACKLOG)
}

fn read(session: &Session, log: &Log, stored: Stored, limits: &Limits) -> Result<Slice, Error> {
    let began = Instant::now();
    let pass = stored.pass;
    let log = logs::by_name(session, Snapshot::Statement, &log.name)?;
    let record = match &stored.crossing {
        None => Record::load(session),
        Some(_) => Record::replayed(session),
    };
    let mut verification = Verification::slice(session, log.clone(), record, stored.crossing)?;
    verification.take_at_most(limits.step);
    let (mut found, mut blocked, mut explaining) = (Vec::new(), None, false);
    loop {
        match verification.prepare(session) {
            Ok(()) => {}
            Err(Error::Blocked { by, .. }) => {
                blocked = Some(by);
                break;
            }
            Err(error) => return Err(error),
        }
        if verification.explains() && !explaining {
            verification.wait_for_explanation(recorded::unexplained(session, &log, pass));
            explaining = true;
        }
        match verification.step(session)? {
            Some(findings) => found.extend(findings),
            None => break,
        }
        let took = began.elapsed();
        let is_enough = verification.rows_read() >= limits.rows
            || took >= limits.time
            || took >= UNDISTURBED && (limits.is_wanted)();
        if is_enough && verification.may_suspend() {
            break;
        }
    }
    found.extend(verification.take_pending());
    let rows = verification.rows_read();
    let position = verification.position();
    let next = (!position.is_done).then(|| verification.suspend(session));
    let recorded = recorded::record(session, &log, pass, &found);
    store(session, &log, &position, next, rows, &recorded);
    if position.is_done && !position.unread {
        recorded::resolve(session, &log, pass);
    }
    if !recorded.new.is_empty() && settings::notify() {
        recorded::notify(session, &log, &recorded);
    }
    if let Some(by) = &blocked {
        let why = format!("a source table is kept locked by {by}");
        set_problem(session, log.id, &why);
    }
    Ok(Slice { rows, blocked })
}

/// Stores how far the pass is.
fn store(
    session: &Session,
    log: &Log,
    position: &Position,
    crossing: Option<Crossing>,
    rows: u64,
    recorded: &Recorded,
) {
    session.execute(
        "UPDATE @extschema@.merkle_verification
            SET stage = $2, state = $3, entries = $4, size = $5, rows_read = rows_read + $6,
                left_out = left_out + $7, read_at = pg_catalog.clock_timestamp(),
                ended_at = CASE WHEN $3 IS NULL THEN pg_catalog.clock_timestamp() ELSE ended_at END,
                problem = NULL, problem_since = NULL
          WHERE log_id = $1",
        &[
            log.id.into(),
            crossing.as_ref().map(|_| position.stage).into(),
            crossing.map(|c| c.to_text()).into(),
            position.next.into(),
            position.size.into(),
            (rows as i64).into(),
            recorded.left_out.into(),
        ],
    );
}

/// Puts on record why a pass does not go on.
pub fn set_problem(session: &Session, log_id: i32, problem: &str) {
    session.execute(
        "INSERT INTO @extschema@.merkle_verification AS v (log_id, problem, problem_since, read_at)
         SELECT l.log_id, $2, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp()
           FROM @extschema@.verification_logs l WHERE l.log_id = $1 FOR KEY SHARE SKIP LOCKED
         ON CONFLICT (log_id) DO UPDATE
            SET problem = EXCLUDED.problem, problem_since = COALESCE(v.problem_since, EXCLUDED.problem_since),
                read_at = EXCLUDED.read_at",
        &[log_id.into(), problem.into()],
    );
}
