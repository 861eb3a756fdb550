//! Queries on the table of a source: run as its owner, and planned within a limit of time.
//!
//! The planner runs functions that the owner wrote, where a predicate of an index, a partition key or extended
//! statistics call them with constants. They may fail or never return, and must not hold up other sources: what
//! takes too long is cancelled, and such a source is tried ever more rarely.

use super::ready;
use super::shape::Shape;
use super::statement::Statement;
use super::table::Table;
use crate::error::Error;
use crate::pg::spi::{Cursor, Row, Snapshot};
use crate::pg::time_limit::{self, TimeIsUp};
use crate::pg::{foreign_code, role, subtransaction};
use crate::shared;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long planning one query may take.
const PLANNING: Duration = Duration::from_secs(5);
/// How soon a source is planned again that took too long; each time doubles it, up to the last.
const RETRY: Duration = Duration::from_secs(60);
const LAST_RETRY: Duration = Duration::from_secs(3600);
/// How soon one that ended the process before is.
const RETRY_DEADLY: Duration = Duration::from_secs(600);

/// A source that took too long to plan is not planned until then.
struct Slow {
    until: Instant,
    pause: Duration,
}

thread_local! {
    /// The source whose query is being planned; 0 for none.
    static PLANNED: Cell<i32> = const { Cell::new(0) };
    static SLOW: RefCell<HashMap<i32, Slow>> = RefCell::new(HashMap::new());
}

/// The source whose query is being planned and takes too long: what a process that ends now is ended by.
pub fn over_time() -> Option<i32> {
    let planned = PLANNED.get();
    (planned != 0 && time_limit::is_up()).then_some(planned)
}

/// Leaves alone for a while what ended this process's predecessor.
pub fn leave_alone(sources: impl IntoIterator<Item = i32>) {
    let pause = RETRY_DEADLY;
    let until = Instant::now() + pause;
    SLOW.with_borrow_mut(|slow| {
        slow.extend(sources.into_iter().map(|id| (id, Slow { until, pause })))
    });
}

/// Whose table queries are on.
#[derive(Clone)]
pub struct TableQuery {
    source_id: i32,
    table: String,
    owner: pg_sys::Oid,
}

impl TableQuery {
    pub fn on(shape: &Shape) -> TableQuery {
        TableQuery::on_table(shape.source.id, &shape.table)
    }

    fn on_table(source_id: i32, table: &Table) -> TableQuery {
        TableQuery {
            source_id,
            table: table.name.clone(),
            owner: table.owner,
        }
    }

    /// A cursor over the rows of a statement.
    pub fn open(&self, snapshot: Snapshot, statement: &Statement) -> Cursor {
        self.plan(snapshot, statement)
            .unwrap_or_else(|TimeIsUp| self.too_slow().raise())
    }

    /// The next rows of a cursor, `count` at most; returns how many there were.
    pub fn fetch(&self, cursor: &mut Cursor, count: i64, take: impl FnMut(&Row)) -> u64 {
        role::as_table_owner(self.owner, || cursor.fetch(count, take))
    }

    /// The first row of a statement, mapped.
    pub fn first<T>(
        &self,
        snapshot: Snapshot,
        statement: &Statement,
        mut map: impl FnMut(&Row) -> T,
    ) -> Option<T> {
        let mut first = None;
        self.fetch(&mut self.open(snapshot, statement), 1, |row| {
            first = Some(map(row))
        });
        first
    }

    /// Runs `f`, which runs functions of the owner's, as the owner and within the limit.
    pub fn bounded<T>(&self, f: impl FnOnce() -> T) -> T {
        time_limit::within(PLANNING, || role::as_table_owner(self.owner, f))
            .unwrap_or_else(|TimeIsUp| self.too_slow().raise())
    }

    fn plan(&self, snapshot: Snapshot, statement: &Statement) -> Result<Cursor, TimeIsUp> {
        let unplanned = Unplanned(self.source_id);
        PLANNED.set(self.source_id);
        let planned = time_limit::within(PLANNING, || {
            role::as_table_owner(self.owner, || {
                Cursor::open(snapshot, &statement.sql, &statement.args())
            })
        });
        PLANNED.set(0);
        if planned.is_ok() {
            std::mem::forget(unplanned);
        }
        planned
    }

    fn too_slow(&self) -> Error {
        let seconds = PLANNING.as_secs();
        self.unplannable(format!(
            "functions that it runs took longer than {seconds} s"
        ))
    }

    fn unplannable(&self, problem: String) -> Error {
        Error::Planning {
            table: self.table.clone(),
            problem,
        }
    }
}

/// A source whose query was not planned, for whatever reason, is not known to be ready any more.
struct Unplanned(i32);

impl Drop for Unplanned {
    /// Also while an error unwinds.
    fn drop(&mut self) {
        ready::forget_source(self.0);
    }
}

/// That queries on the table can be planned. Where users' functions are refused nothing is known of that.
pub fn check_planning(source_id: i32, table: &Table) -> Result<(), Error> {
    if foreign_code::is_refused() {
        return Ok(());
    }
    let query = TableQuery::on_table(source_id, table);
    let waits = |slow: &HashMap<i32, Slow>| {
        slow.get(&source_id)
            .is_some_and(|s| s.until > Instant::now())
    };
    if SLOW.with_borrow(waits) {
        return Err(query.too_slow());
    }
    let planned = subtransaction::run(|| {
        query
            .plan(Snapshot::Fresh, &Statement::none(table))
            .map(drop)
    });
    match planned {
        Ok(Ok(())) => {
            if SLOW
                .with_borrow_mut(|slow| slow.remove(&source_id))
                .is_some()
                && shared::my_worker().is_some()
                && let Some(first) = shared::first_worker()
            {
                first.is_not_ended_by(source_id);
            }
            Ok(())
        }
        Ok(Err(TimeIsUp)) => {
            SLOW.with_borrow_mut(|slow| {
                let before = slow.get(&source_id).map(|s| s.pause * 2);
                let pause = before.unwrap_or(RETRY).min(LAST_RETRY);
                let until = Instant::now() + pause;
                slow.insert(source_id, Slow { until, pause });
            });
            Err(query.too_slow())
        }
        // Whatever its SQLSTATE, which the owner's function can choose: the next batch tries again.
        Err(failure) => Err(query.unplannable(failure.message)),
    }
}
