//! How far behind a log is, what escapes it, and whether all is well: for operators and their machines.

pub mod coverage;
pub mod health;
pub mod metrics;

use crate::capture::ceiling::{self, Ceiling};
use crate::capture::fence::{self, Blocked};
use crate::capture::scan::Scan;
use crate::capture::shape::Shape;
use crate::capture::state;
use crate::capture::statement;
use crate::capture::table_query::TableQuery;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::encode::Decoder;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::{foreign_code, settings, subtransaction};
use crate::session::Session;
use crate::store::entries;
use leaf_format::Value;
use pgrx::pg_sys;
use std::time::Instant;

/// Rows of a log that are counted, at most: a log that is further behind is so by this number at least.
pub const COUNTED: i64 = 10_000;

/// How long rows may wait before a log is late, in seconds: a minute beyond ten rounds, and as long as `settle` holds
/// them back. SQL over the columns of `verification_logs`; $1 is `merkle_log.run_interval` in seconds.
const LAG_LIMIT: &str =
    "60 + 10 * COALESCE(EXTRACT(epoch FROM run_interval)::pg_catalog.float8, $1)
    + EXTRACT(epoch FROM settle)::pg_catalog.float8";

/// Rows that wait to be logged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// `COUNTED` stands for as many or more.
    pub rows: i64,
    /// How long the oldest of them has waited, as far as that can be known: where rows carry no time,
    /// since the last batch.
    pub seconds: f64,
}

impl Lag {
    fn add(&mut self, other: Lag) {
        self.rows = COUNTED.min(self.rows + other.rows);
        self.seconds = self.seconds.max(other.seconds);
    }

    /// The number of rows in words.
    pub fn rows_in_words(&self) -> String {
        match self.rows >= COUNTED {
            true => format!("at least {COUNTED} rows"),
            false => format!("{} rows", self.rows),
        }
    }
}

/// Runs `f`, which is about one source or one log, apart from all others: its error is returned in
/// words, and nothing of it is left, no lock either. No code of a table's owner runs.
fn apart<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<T, String> {
    let raising = || f().unwrap_or_else(|error| error.raise());
    let outcome = subtransaction::look(|| foreign_code::refused(raising));
    outcome.map_err(|failure| failure.message)
}

/// As `apart`, but locks are held until what is around it ends.
fn part<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<T, String> {
    let raising = || f().unwrap_or_else(|error| error.raise());
    let outcome = subtransaction::run(|| foreign_code::refused(raising));
    outcome.map_err(|failure| failure.message)
}

/// What waits to be logged, or why a source cannot be asked. Sources that are not ready are shown by their
/// state.
pub fn lag(session: &Session, log: &Log) -> Result<Lag, String> {
    apart(|| Ok(lag_of(session, log))).flatten()
}

/// How long rows of the log may wait, in seconds.
pub fn lag_limit(session: &Session, log: &Log) -> f64 {
    let sql = format!("SELECT {LAG_LIMIT} FROM @extschema@.verification_logs WHERE log_id = $2");
    let run_interval = crate::settings::run_interval().as_secs_f64();
    let limit = session.fresh_one(&sql, &[run_interval.into(), log.id.into()], |row| {
        row.required(0)
    });
    limit.unwrap_or(f64::INFINITY)
}

fn lag_of(session: &Session, log: &Log) -> Result<Lag, String> {
    let mut total = part(|| Ok(queued(session, log)))?;
    let mut shapes = Vec::new();
    for source in sources::active(session, log)
        .iter()
        .filter(|s| !s.by_trigger())
    {
        shapes.extend(part(|| shape(session, log, source))?);
    }
    let shapes: Vec<&Shape> = shapes.iter().collect();
    let ceilings = part(|| Ok(ceiling::of_all(session, log, &shapes)))?;
    for (shape, ceiling) in shapes.into_iter().zip(ceilings) {
        if ceiling::is_reached(shape, &ceiling) {
            continue;
        }
        // Where enough is counted, it is still asked how long the others wait.
        let room = (COUNTED - total.rows).max(1);
        total.add(part(|| {
            Ok(ahead(session, log, shape, ceiling.text(), room))
        })?);
        if let Ceiling::Passed(last) = ceiling
            && !shape.source.late_accepted
        {
            total.add(part(|| overtaken(session, log, shape, last))?);
        }
    }
    Ok(total)
}

/// The source's shape, unless someone keeps the table locked; `None` if the source is not ready.
fn shape(session: &Session, log: &Log, source: &Source) -> Result<Option<Shape>, Error> {
    fence::hold_tables(session, &[source.relation], Instant::now()).map_err(|Blocked(by)| {
        Error::Blocked {
            log: log.name.clone(),
            by,
        }
    })?;
    Ok(state::open_locked(session, log, source).ok())
}

/// Of the transactions that stand first in the queue, and of what others wrote early.
fn queued(session: &Session, log: &Log) -> Lag {
    let first = |which: &str| {
        format!(
            "(SELECT COALESCE(p.changes, pg_catalog.cardinality(p.keys)) - p.taken AS waiting, p.statement_at
                FROM @extschema@.merkle_pending p
               WHERE p.log_id = $1 AND p.pending_id {which} 0 ORDER BY p.pending_id LIMIT $2)"
        )
    };
    let sql = format!(
        "SELECT COALESCE(pg_catalog.sum(p.waiting), 0)::pg_catalog.int8,
                COALESCE(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.min(p.statement_at)), 0)::pg_catalog.float8
           FROM ({} UNION ALL {}) p",
        first(">"),
        first("<=")
    );
    let lag = settings::in_index_order(|| {
        session.fresh_one(&sql, &[log.id.into(), COUNTED.into()], |row| Lag {
            rows: COUNTED.min(row.required(0)),
            seconds: row.required::<f64>(1).max(0.0),
        })
    });
    lag.unwrap_or_default()
}

/// The rows of a source after its watermark and up to the ceiling, `room` at most.
fn ahead(session: &Session, log: &Log, shape: &Shape, ceiling: Option<&str>, room: i64) -> Lag {
    let statement = statement::ahead(shape, ceiling, room);
    let decoder = Decoder::of_column(shape.order());
    let count = || {
        TableQuery::on(shape).first(Snapshot::Fresh, &statement, |row| {
            // SAFETY: the second column is the least order value, or NULL.
            let oldest = match unsafe { decoder.decode(row.datum(1)) } {
                Value::Int(n) => Some(n),
                _ => None,
            };
            (row.required::<i64>(0), oldest)
        })
    };
    let counted = settings::in_index_order(count);
    let (rows, oldest) = counted.unwrap_or_default();
    waiting(session, log, shape, rows, oldest)
}

/// Rows without an entry that the watermark has passed before the sequence gave out their values, of the last ones.
fn overtaken(session: &Session, log: &Log, shape: &Shape, last: i64) -> Result<Lag, Error> {
    let mut scan = Scan::new(log, shape, shape.current())?;
    let upto = last.to_string();
    let statement = statement::last_up_to(shape, scan.attributes(), &upto, COUNTED);
    let rows = scan.all_with_problems(Snapshot::Fresh, &statement)?;
    let logged = entries::logged(session, Snapshot::Fresh, log, shape.source.id, &rows)?;
    let late = rows.iter().filter(|row| !logged.contains(&row.key)).count();
    Ok(waiting(session, log, shape, late as i64, None))
}

/// How long `rows` rows have waited, of which `oldest` is the least order value.
fn waiting(session: &Session, log: &Log, shape: &Shape, rows: i64, oldest: Option<i128>) -> Lag {
    if rows == 0 {
        return Lag::default();
    }
    let micros = match (shape.order().base_type, oldest) {
        (pg_sys::TIMESTAMPTZOID | pg_sys::TIMESTAMPOID, Some(micros)) => Some(micros as f64),
        _ => None,
    };
    let seconds = session.fresh_one(
        "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp() - COALESCE(
                    '1970-01-01 00:00:00+00'::pg_catalog.timestamptz + $2 * '1 microsecond'::pg_catalog.interval,
                    (SELECT pg_catalog.max(h.created_at) FROM @extschema@.merkle_tree_head h WHERE h.log_id = $1),
                    (SELECT l.created_at FROM @extschema@.verification_logs l WHERE l.log_id = $1)))::pg_catalog.float8",
        &[log.id.into(), micros.into()],
        |row| row.required::<f64>(0),
    );
    Lag {
        rows,
        seconds: seconds.unwrap_or(0.0).max(0.0),
    }
}
