//! The state of a source: whether its table can still be read and kept track of as the source promises,
//! and if not, what happened to it and how to mend it.
//!
//! What `add_source` refuses can still come later, by DDL that nobody here is asked about. This is the only
//! place that looks: batches pass over a source that cannot be read and go on with the others of its log,
//! `verify_log`, `merkle_log_coverage`, `merkle_log_health` and the views name the state. A source whose rows may
//! escape, or come late, is read all the same.

use super::ceiling::{self, Ceiling};
use super::ddl;
use super::definition;
use super::guard;
use super::order_values::{self, Incomplete};
use super::ready;
use super::shape::Shape;
use super::table_query;
use crate::catalog::logs::Log;
use crate::catalog::sources::{Source, relation_name};
use crate::catalog::versions::{self, Version};
use crate::error::{Error, identifier, literal};
use crate::pg::spi::Snapshot;
use crate::pg::{foreign_code, lock, server};
use crate::session::Session;
use pgrx::pg_sys;
use std::collections::HashMap;

/// What can be wrong with a source, by the name that the views show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The table was dropped.
    TableGone,
    /// What it refers to is another table of the same database.
    AnotherTable,
    /// There is a view, a foreign table or something else in its place.
    NotATable,
    /// It became a temporary or unlogged table.
    NotPermanent,
    /// Others inherit from a captured table, so its triggers see rows that are not its own.
    Inherited,
    ForcedRowSecurity,
    /// The owner lacks a privilege that reading its own table needs.
    OwnerMayNotRead,
    /// Functions that the server runs while it plans a query on the table fail, or take too long.
    PlanningFails,
    KeyDropped,
    /// No unique index is on exactly the key columns any more, or one of them can be null.
    KeyNotUnique,
    KeyTypeChanged,
    OrderTypeChanged,
    OrderNullable,
    OrderIndexMissing,
    /// Rows may commit behind the watermark, which was not accepted when the source was added.
    OrderIncomplete,
    /// The sequence of the order column hands out values in another order than it draws them.
    OrderSequence,
    /// The log has gone past the sequence of the order column: what that gives out comes late.
    OrderAhead,
    ColumnMissing,
    /// The types of a column are nested too deeply to be logged.
    ColumnTooDeep,
    TriggerMissing,
    TriggerDisabled,
    /// The same changes are captured twice.
    TriggerTwice,
    /// The extension's own record of it is damaged.
    Damaged,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::TableGone => "table_gone",
            State::AnotherTable => "another_table",
            State::NotATable => "not_a_table",
            State::NotPermanent => "not_permanent",
            State::Inherited => "inherited",
            State::ForcedRowSecurity => "forced_row_security",
            State::OwnerMayNotRead => "owner_may_not_read",
            State::PlanningFails => "planning_fails",
            State::KeyDropped => "key_dropped",
            State::KeyNotUnique => "key_not_unique",
            State::KeyTypeChanged => "key_type_changed",
            State::OrderTypeChanged => "order_type_changed",
            State::OrderNullable => "order_nullable",
            State::OrderIndexMissing => "order_index_missing",
            State::OrderIncomplete => "order_incomplete",
            State::OrderSequence => "order_sequence",
            State::OrderAhead => "order_ahead",
            State::ColumnMissing => "column_missing",
            State::ColumnTooDeep => "column_too_deep",
            State::TriggerMissing => "trigger_missing",
            State::TriggerDisabled => "trigger_disabled",
            State::TriggerTwice => "trigger_twice",
            State::Damaged => "damaged",
        }
    }

    /// True if batches read the source all the same.
    fn is_read(self) -> bool {
        use State::*;
        matches!(
            self,
            OrderIncomplete
                | OrderSequence
                | OrderAhead
                | TriggerMissing
                | TriggerDisabled
                | TriggerTwice
        )
    }

    /// What kind of problem an error about the source's table is.
    fn of(error: &Error) -> State {
        match error {
            Error::SourceGone { .. } => State::TableGone,
            Error::AnotherTable { .. } => State::AnotherTable,
            Error::NotATable { what, .. }
                if what.contains("temporary") || what.contains("unlogged") =>
            {
                State::NotPermanent
            }
            Error::NotATable { what, .. } if what.contains("inherit") => State::Inherited,
            Error::NotATable { .. } => State::NotATable,
            Error::ForcedRowSecurity { .. } => State::ForcedRowSecurity,
            Error::OwnerMayNotRead { .. } => State::OwnerMayNotRead,
            Error::Planning { .. } => State::PlanningFails,
            Error::KeyDropped { .. } | Error::KeyUnknown { .. } => State::KeyDropped,
            Error::NotAKey { .. } | Error::NoKey { .. } => State::KeyNotUnique,
            Error::KeyType { .. } | Error::KeyNames { .. } => State::KeyTypeChanged,
            Error::OrderType { .. } => State::OrderTypeChanged,
            Error::OrderNullable { .. } => State::OrderNullable,
            Error::OrderIndex { .. } => State::OrderIndexMissing,
            Error::CaptureNotNamed { .. } => State::OrderIncomplete,
            Error::Sequence { .. } => State::OrderSequence,
            Error::NoSuchColumn { .. } | Error::HashType { .. } => State::ColumnMissing,
            Error::TypeDepth { .. } => State::ColumnTooDeep,
            _ => State::Damaged,
        }
    }
}

/// A problem of a source, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub state: State,
    /// The source's table, or the partition of it that has the problem.
    pub relation: pg_sys::Oid,
    pub detail: String,
    /// What to do about it.
    pub mend: String,
}

impl Problem {
    fn of_table(session: &Session, log: &Log, source: &Source, error: &Error) -> Problem {
        let state = State::of(error);
        Problem {
            state,
            relation: source.relation,
            detail: error.to_string(),
            mend: mend(session, log, source, state, error)
                .unwrap_or_else(|| error.hint().unwrap_or_default()),
        }
    }
}

/// The statement that mends a source, where there is one.
fn mend(
    session: &Session,
    log: &Log,
    source: &Source,
    state: State,
    error: &Error,
) -> Option<String> {
    let table = super::table::name_now(session, source);
    Some(match (state, error) {
        (State::TableGone, _) => remove(log, source),
        (State::NotPermanent, Error::NotATable { what, .. }) if what.contains("unlogged") => {
            format!("ALTER TABLE {table} SET LOGGED")
        }
        (State::ForcedRowSecurity, _) => {
            format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        }
        (State::OrderNullable, Error::OrderNullable { column, .. }) => {
            format!(
                "ALTER TABLE {table} ALTER COLUMN {} SET NOT NULL",
                identifier(column)
            )
        }
        (State::KeyDropped, Error::KeyDropped { .. }) => remove(log, source),
        (_, Error::KeyNames { column, .. }) => {
            format!(
                "ALTER TABLE {table} ALTER COLUMN {} TYPE oid",
                identifier(column)
            )
        }
        (_, Error::KeyType { column, .. } | Error::OrderType { column, .. }) => {
            let versions = versions::load(session, source.id);
            let type_name = &versions.last()?.column(column)?.type_name;
            let column = identifier(column);
            format!(
                "ALTER TABLE {table} ALTER COLUMN {column} TYPE {type_name} USING {column}::{type_name}"
            )
        }
        (_, Error::Sequence { sequence, fix, .. }) => format!("ALTER SEQUENCE {sequence} {fix}"),
        (State::ColumnMissing, _) => format!(
            "SELECT alter_source({}, {}, hash_column => '')",
            literal(&log.name),
            literal(&table)
        ),
        (State::Damaged, _) => format!("SELECT * FROM verify_log({})", literal(&log.name)),
        _ => return None,
    })
}

/// The call that takes a source out of its log whose table has no name any more.
fn remove(log: &Log, source: &Source) -> String {
    format!(
        "SELECT remove_source({}, {})",
        literal(&log.name),
        source.relation.to_u32()
    )
}

/// The source bound to its table as it is now, which stays so until the end of the transaction; or why its
/// rows cannot be read. With the versions of its columns that the caller has, or those that are stored if it has
/// none.
pub fn open_versions(
    session: &Session,
    log: &Log,
    source: &Source,
    versions: Vec<Version>,
) -> Result<Shape, Problem> {
    lock::access_share(source.relation);
    check(session, log, source, || match versions.is_empty() {
        true => Shape::load(session, log, source),
        false => Shape::of_versions(session, log, source, versions),
    })
}

/// As `open_versions`, with the versions that are stored, where the table is locked already, or nothing is read of it.
/// Nothing is asked about a source that was ready and has not changed since.
pub fn open_locked(session: &Session, log: &Log, source: &Source) -> Result<Shape, Problem> {
    if let Some(shape) = ready::shape(source) {
        return Ok(shape);
    }
    let since = ready::now();
    let shape = check(session, log, source, || Shape::load(session, log, source))?;
    // Where users' functions are refused, nobody has tried whether queries can be planned.
    if !foreign_code::is_refused() {
        ready::keep(since, &shape);
    }
    Ok(shape)
}

fn check(
    session: &Session,
    log: &Log,
    source: &Source,
    load: impl FnOnce() -> Result<Shape, Error>,
) -> Result<Shape, Problem> {
    let opened = || {
        let shape = load()?;
        shape.check(session, log)?;
        shape.columns_now()?;
        if source.by_trigger() {
            shape.table.check_no_heirs(session)?;
        }
        table_query::check_planning(source.id, &shape.table)?;
        Ok(shape)
    };
    opened().map_err(|error: Error| Problem::of_table(session, log, source, &error))
}

/// Everything that is wrong with a source now; empty if it is ready.
pub fn problems(session: &Session, log: &Log, source: &Source) -> Vec<Problem> {
    let opened = open_locked(session, log, source);
    if let Err(gone) = &opened
        && gone.state == State::TableGone
    {
        return vec![gone.clone()];
    }
    let mut weak = weaknesses(session, log, source, opened.as_ref().ok());
    // Where the table cannot be read now, this cannot be told, and nobody waits for it.
    let is_free = || !source.by_trigger() && lock::try_access_share(source.relation);
    let ahead = opened.as_ref().ok().filter(|_| is_free());
    weak.extend(ahead.and_then(|shape| order_ahead(session, log, shape)));
    let unread = opened.err().or_else(|| unplannable(session, source));
    unread.into_iter().chain(weak).collect()
}

/// Where rows of a source may escape, or come late. Nothing is asked about a source that was well and has not
/// changed since.
pub fn weaknesses(
    session: &Session,
    log: &Log,
    source: &Source,
    shape: Option<&Shape>,
) -> Vec<Problem> {
    if shape.is_some() && ready::is_guarded(source) {
        return Vec::new();
    }
    let since = ready::now();
    if let Some(shape) = shape.filter(|_| !source.by_trigger()) {
        // First, so that whatever is done to them from now on is told.
        ceiling::sequences(session, shape);
    }
    let mut found: Vec<Problem> = shape
        .and_then(|shape| order_changed(session, log, shape))
        .into_iter()
        .collect();
    found.extend(holes(session, log, source));
    if found.is_empty() {
        ready::keep_guarded(since, source);
    }
    found
}

fn holes(session: &Session, log: &Log, source: &Source) -> Vec<Problem> {
    let holes = guard::holes(session, source);
    if holes.is_empty() {
        return Vec::new();
    }
    let repair = format!(
        "SELECT repair_capture({}, {})",
        literal(&log.name),
        literal(&super::table::name_now(session, source))
    );
    let problem = |hole: guard::Hole| Problem {
        state: hole.state,
        relation: hole.relation,
        detail: hole.detail,
        mend: repair.clone(),
    };
    holes.into_iter().map(problem).collect()
}

/// That the order column gets its values otherwise than `add_source` found, or was told.
pub fn order_changed(session: &Session, log: &Log, shape: &Shape) -> Option<Problem> {
    let source = &shape.source;
    if source.by_trigger() {
        return None;
    }
    let (table, order) = (&shape.table, shape.order());
    let incomplete = match order_values::incomplete(session, table, order) {
        Ok(incomplete) => incomplete.filter(|_| !source.late_accepted)?,
        Err(error) => return Some(Problem::of_table(session, log, source, &error)),
    };
    let error = Error::CaptureNotNamed {
        table: table.name.clone(),
        column: order.name.clone(),
    };
    let mut changed = Problem::of_table(session, log, source, &error);
    if let Some(mend) = order_values::mend(session, table, order, &incomplete) {
        changed.mend = mend;
    }
    if let Incomplete::Partition { relation, name } = incomplete {
        changed.relation = relation;
        changed.detail = format!(
            "{}: partition {name} has a default of its own",
            changed.detail
        );
    }
    Some(changed)
}

/// That planning fails, as the last batch has put it on record: where users' functions are refused it cannot be
/// tried.
fn unplannable(session: &Session, source: &Source) -> Option<Problem> {
    if !foreign_code::is_refused() {
        return None;
    }
    session.fresh_one(
        "SELECT s.detail, s.mend FROM @extschema@.merkle_source_state s WHERE s.source_id = $1 AND s.state = $2",
        &[source.id.into(), State::PlanningFails.name().into()],
        |row| Problem {
            state: State::PlanningFails,
            relation: source.relation,
            detail: row.required(0),
            mend: row.required(1),
        },
    )
}

/// That the log has gone past the sequence of the order column.
fn order_ahead(session: &Session, log: &Log, shape: &Shape) -> Option<Problem> {
    match ceiling::of(session, log, shape) {
        Ceiling::Passed(last) => ahead_of(session, log, shape, last),
        Ceiling::None | Ceiling::At(_) => None,
    }
}

fn ahead_of(session: &Session, log: &Log, shape: &Shape, last: i64) -> Option<Problem> {
    let source = &shape.source;
    if source.late_accepted {
        return None;
    }
    let (table, order) = (&shape.table, shape.order());
    let logged = source.watermark.as_ref()?.first()?;
    let reconcile = format!("SELECT reconcile({})", literal(&log.name));
    let sequence = ceiling::sequences(session, shape).into_iter().next()?;
    let sequence = literal(&relation_name(session, sequence));
    // Where there is room behind, the sequence can go on from there.
    let room = logged.parse::<i64>().is_ok_and(|n| n < i64::MAX / 2);
    Some(Problem {
        state: State::OrderAhead,
        relation: source.relation,
        detail: format!(
            "the log of table \"{}\" is at {logged} of order column \"{}\", past {last}, the last value of its sequence: rows with lower values come late",
            table.name, order.name
        ),
        mend: match room {
            true => format!("SELECT setval({sequence}, {logged}); {reconcile}"),
            false => reconcile,
        },
    })
}

/// Puts on record which of the sources, that a batch reads, are ahead of their sequences, and which no longer are.
pub fn record_ahead(session: &Session, log: &Log, shapes: &[Shape], ceilings: &[Ceiling]) {
    let recorded = on_record(session, log);
    for (shape, ceiling) in shapes.iter().zip(ceilings) {
        let source = &shape.source;
        let ahead = match ceiling {
            Ceiling::Passed(last) => ahead_of(session, log, shape, *last),
            Ceiling::None | Ceiling::At(_) => None,
        };
        let state = recorded.get(&source.id).map(String::as_str);
        let was_ahead = state == Some(State::OrderAhead.name());
        if was_ahead && ahead.is_none() || ahead.is_some() && (was_ahead || state.is_none()) {
            record(session, log, source, ahead.as_ref());
        }
    }
}

/// Puts on record what is wrong with a source, for the views; `None` if nothing is. The
/// change is told to whoever runs the batch, once.
pub fn record(session: &Session, log: &Log, source: &Source, problem: Option<&Problem>) {
    let Some(problem) = problem else {
        session.execute(
            "DELETE FROM @extschema@.merkle_source_state s WHERE s.source_id = $1",
            &[source.id.into()],
        );
        return;
    };
    let changed = session.fresh(
        "INSERT INTO @extschema@.merkle_source_state AS s (source_id, state, detail, mend)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (source_id) DO UPDATE
            SET state = EXCLUDED.state, detail = EXCLUDED.detail, mend = EXCLUDED.mend, since = pg_catalog.clock_timestamp()
          WHERE (s.state, s.detail) IS DISTINCT FROM (EXCLUDED.state, EXCLUDED.detail)
         RETURNING true",
        &[
            source.id.into(),
            problem.state.name().into(),
            problem.detail.as_str().into(),
            problem.mend.as_str().into(),
        ],
        |_| (),
    );
    if !changed.is_empty() {
        let (name, detail) = (&source.name, &problem.detail);
        match problem.state.is_read() {
            true => pgrx::warning!("source \"{name}\" of log \"{}\": {detail}", log.name),
            false => pgrx::warning!(
                "log \"{}\" goes on without source \"{name}\": {detail}",
                log.name
            ),
        }
    }
}

/// The sources of a log that have a problem on record, with the name of its state.
fn on_record(session: &Session, log: &Log) -> HashMap<i32, String> {
    let recorded = session.query(
        Snapshot::Fresh,
        "SELECT t.source_id, t.state FROM @extschema@.merkle_source_state t
           JOIN @extschema@.verification_sources s USING (source_id) WHERE s.log_id = $1",
        &[log.id.into()],
        |row| (row.required(0), row.required(1)),
    );
    recorded.into_iter().collect()
}

/// Opens those of `sources` that can be read; puts on record what is wrong with any, and which are well again.
pub fn open_ready(session: &Session, log: &Log, sources: &[Source]) -> Vec<Shape> {
    let recorded = on_record(session, log);
    let noted = ddl::noted(session, log.id);
    let open = |source: &Source| {
        let opened = open_locked(session, log, source);
        let is_its_table = !matches!(
            opened.as_ref().err().map(|problem| problem.state),
            Some(State::AnotherTable | State::Damaged)
        );
        if is_its_table && (!ready::is_described(source) || noted.contains(&source.id)) {
            definition::notice(session, source);
        }
        let problem = match &opened {
            Ok(shape) => weaknesses(session, log, source, Some(shape))
                .into_iter()
                .next(),
            Err(problem) => Some(problem.clone()),
        };
        let state = recorded.get(&source.id).map(String::as_str);
        // `record_ahead` tells whether that is still so.
        let is_left = problem.is_none() && state == Some(State::OrderAhead.name());
        if problem.is_some() || state.is_some() && !is_left {
            record(session, log, source, problem.as_ref());
        }
        opened.ok()
    };
    sources.iter().filter_map(open).collect()
}

/// Sources that a session does not know yet, of which one batch looks at so many: a log may have a thousand, and a
/// session may run one batch.
const LOOKED_AT: usize = 32;

/// For logs whose batches read no source: looks at those whose tables have changed since they were well, and those that
/// are not. One statement finds most of them; what it does not tell is asked of those that the session does not know.
pub fn look_for_changes(session: &Session, log: &Log, sources: &[Source]) {
    let suspects: Vec<i32> = session.fresh(
        "SELECT s.source_id FROM @extschema@.verification_sources s
           LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relation
          WHERE s.log_id = $1 AND s.removed_at IS NULL
            AND (c.oid IS NULL OR c.relkind NOT IN ('r', 'p') OR c.relpersistence <> 'p' OR c.relforcerowsecurity
                 OR c.relkind = 'r' AND c.relhassubclass
                 OR EXISTS (SELECT FROM @extschema@.merkle_source_state t WHERE t.source_id = s.source_id)
                 OR EXISTS (SELECT FROM @extschema@.merkle_ddl_command d WHERE d.source_id = s.source_id))",
        &[log.id.into()],
        |row| row.required(0),
    );
    let mut unknown: Vec<i32> = sources
        .iter()
        .filter(|source| !ready::is_guarded(source) || !ready::is_described(source))
        .map(|source| source.id)
        .collect();
    if unknown.len() > LOOKED_AT {
        // Another session looks at others.
        let first = server::my_pid().unsigned_abs() as usize % unknown.len();
        unknown.rotate_left(first);
        unknown.truncate(LOOKED_AT);
    }
    let is_looked_at =
        |source: &&Source| suspects.contains(&source.id) || unknown.contains(&source.id);
    for source in sources.iter().filter(is_looked_at) {
        if lock::try_access_share(source.relation) {
            open_ready(session, log, std::slice::from_ref(source));
        }
    }
}
