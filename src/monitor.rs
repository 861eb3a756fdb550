//! How far behind a log is, what escapes it, and whether all is well: for operators and their machines.

pub mod coverage;
pub mod health;
pub mod metrics;

use crate::capture::ceiling;
use crate::capture::fence::{self, Blocked};
use crate::capture::shape::Shape;
use crate::capture::state;
use crate::capture::statement;
use crate::capture::table_query::TableQuery;
use crate::catalog::logs::Log;
use crate::catalog::sources::{self, Source};
use crate::encode::Decoder;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::{foreign_code, subtransaction};
use crate::session::Session;
use leaf_format::Value;
use pgrx::pg_sys;
use std::time::Instant;

/// Rows that wait to be logged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    pub rows: i64,
    /// How long the oldest of them has waited, as far as that can be known: where rows carry no time,
    /// since the last batch.
    pub seconds: f64,
}

/// Runs `f`, which is about one source or one log, apart from all others: its error is returned in
/// words, and nothing of it is left. No function of a table's owner is run.
fn apart<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<T, String> {
    let outcome =
        foreign_code::refused(|| subtransaction::run(|| f().unwrap_or_else(|error| error.raise())));
    outcome.map_err(|failure| failure.message)
}

/// What waits to be logged, or why a source cannot be asked. Sources that are not ready are shown by their
/// state.
pub fn lag(session: &Session, log: &Log) -> Result<Lag, String> {
    let mut total = apart(|| Ok(queued(session, log)))?;
    for source in sources::active(session, log)
        .iter()
        .filter(|s| !s.by_trigger())
    {
        let lag = apart(|| behind(session, log, source))?;
        total.rows += lag.rows;
        total.seconds = total.seconds.max(lag.seconds);
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

fn queued(session: &Session, log: &Log) -> Lag {
    let lag = session.fresh_one(
        "SELECT COALESCE(pg_catalog.sum(COALESCE(p.changes, pg_catalog.cardinality(p.keys)) - p.taken), 0)::pg_catalog.int8,
                COALESCE(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.min(p.statement_at)), 0)::pg_catalog.float8
           FROM @extschema@.merkle_pending p WHERE p.log_id = $1",
        &[log.id.into()],
        |row| Lag {
            rows: row.required(0),
            seconds: row.required::<f64>(1).max(0.0),
        },
    );
    lag.unwrap_or_default()
}

/// The rows of a source after its watermark.
fn behind(session: &Session, log: &Log, source: &Source) -> Result<Lag, Error> {
    let Some(shape) = shape(session, log, source)? else {
        return Ok(Lag::default());
    };
    let ceiling = ceiling::of(session, log, &shape);
    let statement = statement::ahead(&shape, ceiling.as_deref());
    let decoder = Decoder::of_column(shape.order());
    let counted = TableQuery::on(&shape).first(Snapshot::Fresh, &statement, |row| {
        // SAFETY: the second column is the least order value, or NULL.
        let oldest = match unsafe { decoder.decode(row.datum(1)) } {
            Value::Int(n) => Some(n),
            _ => None,
        };
        (row.required::<i64>(0), oldest)
    });
    let (rows, oldest) = counted.unwrap_or_default();
    if rows == 0 {
        return Ok(Lag::default());
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
    Ok(Lag {
        rows,
        seconds: seconds.unwrap_or(0.0).max(0.0),
    })
}
