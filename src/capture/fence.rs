//! The fence: waiting out every transaction that may still be writing below a bound.
//!
//! A sequence's values become visible in commit order, not in their own. But a writer takes its lock
//! on the table before it draws a value, and holds it until it ends. So once a row with value `b` is
//! visible, whoever holds or will hold a value below `b` that was drawn earlier is among the lock
//! holders of that moment: when these have ended, everything below `b` that will ever commit has
//! committed, and a snapshot taken then sees it. Writers that come later draw values above `b` and
//! need not be waited for, so the fence blocks nobody.
//!
//! Whoever holds the lock, has written nothing and runs no statement has drawn no value that it could still write: PREPARE
//! takes a writer's lock, and whoever may log in may call that. Such a transaction is not waited for.
//!
//! Only RowExclusiveLock is a writer's; VACUUM, ANALYZE and index builds hold others. A prepared
//! transaction keeps its virtual transaction id, or is listed under its own id after a restart.

use crate::pg::{lock, wait};
use crate::session::Session;
use pgrx::pg_sys;
use std::collections::HashMap;
use std::time::{Duration, Instant};

pub const FIRST_PAUSE: Duration = Duration::from_millis(1);
pub const LONGEST_PAUSE: Duration = Duration::from_millis(50);

const WRITERS: &str = "pg_catalog.pg_locks l
    WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
      AND l.relation = ANY ($1)
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";

/// What stood in the way when time was up, in words.
pub struct Blocked(pub String);

/// True if the calling transaction itself has written to one of `sources` or their partitions: then
/// another batch may be waiting for it, and it must not wait for anyone.
pub fn caller_is_writing(session: &Session, sources: &[pg_sys::Oid]) -> bool {
    session
        .fresh_one(
            "SELECT EXISTS (
                SELECT FROM pg_catalog.pg_locks l
                 WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
                   AND l.pid = pg_catalog.pg_backend_pid()
                   AND (l.relation = ANY ($1)
                     OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(l.relation) a WHERE a.relid = ANY ($1))))",
            &[sources.to_vec().into()],
            |row| row.required(0),
        )
        .unwrap_or(false)
}

/// Keeps the tables from being altered until the end of the transaction.
pub fn hold_tables(
    session: &Session,
    relations: &[pg_sys::Oid],
    deadline: Instant,
) -> Result<(), Blocked> {
    for &oid in relations {
        until(deadline, || lock::try_access_share(oid)).map_err(|()| {
            Blocked(name_holders(
                session,
                "l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.relation = ANY ($1)",
                &[oid],
                &[],
            ))
        })?;
    }
    Ok(())
}

/// The transactions that were writing to some tables at one moment, and what can be read once all of them
/// have ended.
#[derive(Clone, Debug)]
pub struct Fence {
    relations: Vec<pg_sys::Oid>,
    /// Virtual transaction ids.
    writers: Vec<String>,
    /// By source: the order value up to which nothing can commit then that was not there before.
    pub upto: HashMap<i32, String>,
}

impl Fence {
    /// Lists who is writing to `relations` now. The bounds in `upto` were found before.
    pub fn draw(
        session: &Session,
        relations: Vec<pg_sys::Oid>,
        upto: HashMap<i32, String>,
    ) -> Fence {
        let writers = match relations.is_empty() {
            true => Vec::new(),
            false => writers(session, &relations),
        };
        Fence {
            relations,
            writers,
            upto,
        }
    }

    /// Waits until the writers have ended.
    pub fn cross(&self, session: &Session, deadline: Instant) -> Result<(), Blocked> {
        let Fence {
            relations, writers, ..
        } = self;
        let gone = || {
            writers.is_empty()
                || !session
                    .fresh_one(
                        &format!(
                            "SELECT EXISTS (SELECT FROM {WRITERS} AND l.virtualtransaction = ANY ($2))"
                        ),
                        &[relations.clone().into(), writers.clone().into()],
                        |row| row.required(0),
                    )
                    .unwrap_or(true)
        };
        until(deadline, gone).map_err(|()| {
            Blocked(name_holders(
                session,
                "l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
                 AND l.relation = ANY ($1) AND l.virtualtransaction = ANY ($2)",
                relations,
                writers,
            ))
        })
    }
}

/// The virtual transaction ids of those who may be writing. A prepared transaction has no activity, and has written.
fn writers(session: &Session, relations: &[pg_sys::Oid]) -> Vec<String> {
    // The transaction may have looked at activities before.
    session.fresh_one("SELECT pg_catalog.pg_stat_clear_snapshot()", &[], |_| ());
    session.fresh(
        &format!(
            "SELECT DISTINCT l.virtualtransaction FROM {WRITERS} AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(COALESCE(l.pid, 0)) a
                                 WHERE a.state LIKE 'idle in transaction%' AND a.backend_xid IS NULL)"
        ),
        &[relations.to_vec().into()],
        |row| row.required(0),
    )
}

/// Asks again, at growing intervals, until `done` or the deadline.
fn until(deadline: Instant, mut done: impl FnMut() -> bool) -> Result<(), ()> {
    let mut pause = FIRST_PAUSE;
    while !done() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(());
        }
        wait::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

fn name_holders(
    session: &Session,
    condition: &str,
    relations: &[pg_sys::Oid],
    transactions: &[String],
) -> String {
    describe(session, condition, relations, transactions, 0).unwrap_or_else(just_ended)
}

/// Names the holders of locks: "pid 4711", "prepared transaction 'x'". `condition` may speak of
/// `relations` as $1, `transactions` as $2 and `object` as $3.
pub fn describe(
    session: &Session,
    condition: &str,
    relations: &[pg_sys::Oid],
    transactions: &[String],
    object: i32,
) -> Option<String> {
    session
        .fresh_one(
            &format!(
                "SELECT pg_catalog.string_agg(DISTINCT CASE
                            WHEN l.pid IS NOT NULL THEN 'pid ' || l.pid
                            ELSE COALESCE('prepared transaction ' || pg_catalog.quote_literal(p.gid),
                                          'transaction ' || l.virtualtransaction) END, ', ')
                   FROM pg_catalog.pg_locks l
                   LEFT JOIN pg_catalog.pg_locks x
                     ON l.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
                   LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
                  WHERE l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                                       WHERE d.datname = pg_catalog.current_database())
                    AND {condition} AND $2 IS NOT NULL AND $3 IS NOT NULL"
            ),
            &[
                relations.to_vec().into(),
                transactions.to_vec().into(),
                object.into(),
            ],
            |row| row.get(0),
        )
        .flatten()
}

/// What is said of a holder that was gone before it could be named.
pub fn just_ended() -> String {
    "a transaction that has just ended".to_owned()
}
