//! The triggers on a source: those that capture its changes, and those that refuse them.
//!
//! Statement-level triggers stand on the table and on each of its partitions, since a statement
//! fires those of the table it names. Row-level triggers stand on the table: the server copies them
//! to its partitions, later ones included.
//!
//! A trigger is known by what it calls, for which source and when; whoever owns the table may rename it.

use super::ddl;
use super::state::State;
use super::table::Table;
use crate::catalog::logs;
use crate::catalog::sources::{self, Capture, Source};
use crate::error::Error;
use crate::pg::spi::Row;
use crate::pg::subtransaction;
use crate::pg::trigger::Firing;
use crate::session::Session;
use pgrx::pg_sys;

/// A trigger that fires in every session, as `pg_trigger.tgenabled` says it.
const ALWAYS: &str = "A";

/// A trigger that a source needs.
struct Needed {
    suffix: &'static str,
    event: &'static str,
    level: &'static str,
    function: &'static str,
    /// It has a condition, which notes when the table was truncated.
    notes: bool,
}

const CAPTURE: &[Needed] = &[
    Needed {
        suffix: "change",
        event: "AFTER INSERT OR UPDATE OR DELETE",
        level: "FOR EACH ROW",
        function: "capture_change",
        notes: false,
    },
    Needed {
        suffix: "truncate",
        event: "AFTER TRUNCATE",
        level: "FOR EACH STATEMENT",
        function: "capture_change",
        notes: true,
    },
];

const REFUSE: &[Needed] = &[
    Needed {
        suffix: "append_only",
        event: "BEFORE UPDATE OR DELETE",
        level: "FOR EACH ROW",
        function: "refuse_change",
        notes: false,
    },
    Needed {
        suffix: "no_truncate",
        event: "BEFORE TRUNCATE",
        level: "FOR EACH STATEMENT",
        function: "refuse_change",
        notes: false,
    },
];

impl Needed {
    fn name(&self, source: &Source) -> String {
        format!("merkle_log_{}_{}", source.id, self.suffix)
    }

    fn for_each_row(&self) -> bool {
        self.level == "FOR EACH ROW"
    }

    /// When it fires, as `pg_trigger.tgtype` says it (`TRIGGER_TYPE_…` in the server's pg_trigger.h).
    fn tgtype(&self) -> i16 {
        [
            (self.for_each_row(), 1),
            (self.event.starts_with("BEFORE"), 2),
            (self.event.contains("INSERT"), 4),
            (self.event.contains("DELETE"), 8),
            (self.event.contains("UPDATE"), 16),
            (self.event.contains("TRUNCATE"), 32),
        ]
        .into_iter()
        .filter_map(|(set, bit)| set.then_some(bit))
        .sum()
    }

    /// The statement that makes it, on the source's table (`root`) or on a partition of it.
    fn create(&self, session: &Session, source: &Source, (table, root): (&str, bool)) -> String {
        let schema = session.schema();
        let name = self.name(source);
        let (event, level, function, id) = (self.event, self.level, self.function, source.id);
        let condition = match self.notes {
            true => format!("WHEN ({schema}.capture_truncate({id}, {root}))"),
            false => String::new(),
        };
        format!(
            "CREATE TRIGGER {name} {event} ON {table} {level} {condition} EXECUTE FUNCTION {schema}.{function}('{id}')"
        )
    }

    fn is(&self, trigger: &Present, root: bool) -> bool {
        self.function == trigger.function
            && self.tgtype() == trigger.tgtype
            && !trigger.for_columns
            && trigger.condition
                == match self.notes {
                    true => Condition::Notes(root),
                    false => Condition::Always,
                }
    }

    /// True if `trigger` is called for changes that this one is called for.
    fn overlaps(&self, trigger: &Present) -> bool {
        const EVENTS: i16 = 4 | 8 | 16 | 32;
        self.function == trigger.function
            && (trigger.tgtype & 1 == 1) == self.for_each_row()
            && self.tgtype() & trigger.tgtype & EVENTS != 0
    }
}

fn needed(source: &Source) -> impl Iterator<Item = &'static Needed> {
    let capture = if source.by_trigger() { CAPTURE } else { &[] };
    let refuse = if source.append_only { REFUSE } else { &[] };
    capture.iter().chain(refuse)
}

/// The table and its partitions: number, quoted name, and whether it is the table itself.
fn tables(session: &Session, source: &Source) -> Vec<(pg_sys::Oid, String, bool)> {
    session.fresh(
        "SELECT c.oid, c.oid::pg_catalog.regclass::pg_catalog.text, c.oid = $1
           FROM (SELECT $1 UNION SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t) t (relid)
           JOIN pg_catalog.pg_class c ON c.oid = t.relid
          ORDER BY c.oid <> $1, c.oid",
        &[source.relation.into()],
        |row| (row.required(0), row.required(1), row.required(2)),
    )
}

/// When a trigger fires for an event that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// Always, and notes a TRUNCATE: of the source's table itself (`true`), or of a partition.
    Notes(bool),
    Other,
}

/// A trigger of a source that is there, on its table or on one that once was a partition of it.
struct Present {
    relation: pg_sys::Oid,
    /// The table's name, quoted where it must be.
    table: String,
    /// The trigger's name, quoted where it must be.
    name: String,
    function: String,
    tgtype: i16,
    tgenabled: String,
    /// Its condition, and whether it fires for updates of some columns only.
    condition: Condition,
    for_columns: bool,
    /// The server made it, for a partition, and takes it away with the one that it is a copy of.
    copied: bool,
}

/// Of the extension's schema, so that its name may be any.
const PRESENT: &str = "SELECT t.tgrelid, t.tgrelid::pg_catalog.regclass::pg_catalog.text, pg_catalog.quote_ident(t.tgname),
                p.proname::pg_catalog.text, t.tgtype, t.tgenabled::pg_catalog.text, t.tgparentid <> 0,
                CASE WHEN t.tgqual IS NULL THEN ''
                     -- None of ours, and maybe nested deeper than the server can write it.
                     WHEN pg_catalog.length(t.tgqual::pg_catalog.text) > 10000 THEN 'of another'
                     WHEN t.tgtype & 1 = 0 THEN pg_catalog.pg_get_expr(t.tgqual, t.tgrelid)
                     ELSE 'of a row' END,
                pg_catalog.format('%I.capture_truncate(', n.nspname),
                t.tgattr <> ''
           FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
           JOIN pg_catalog.pg_proc p ON p.pronamespace = e.extnamespace AND p.proname IN ('capture_change', 'refuse_change')
           JOIN pg_catalog.pg_trigger t ON t.tgfoid = p.oid
          WHERE e.oid = $1 AND t.tgnargs = 1 AND t.tgargs = $2";

/// The triggers of a source on any table. Reads through all triggers of the database.
fn present_anywhere(session: &Session, source: &Source) -> Vec<Present> {
    let sql = format!("{PRESENT} ORDER BY t.tgrelid, t.oid");
    let args = [session.extension().into(), argument(source).into()];
    session.fresh(&sql, &args, |row| Present::of(source, row))
}

/// The triggers of a source on these tables.
fn present_on(session: &Session, source: &Source, tables: Vec<pg_sys::Oid>) -> Vec<Present> {
    let sql = format!("{PRESENT} AND t.tgrelid = ANY ($3) ORDER BY t.tgrelid, t.oid");
    let args = [
        session.extension().into(),
        argument(source).into(),
        tables.into(),
    ];
    session.fresh(&sql, &args, |row| Present::of(source, row))
}

/// A trigger's argument as it is stored.
fn argument(source: &Source) -> Vec<u8> {
    [source.id.to_string().as_bytes(), b"\0"].concat()
}

impl Present {
    fn of(source: &Source, row: &Row) -> Present {
        let (condition, notes): (String, String) = (row.required(7), row.required(8));
        let noted = condition.strip_prefix(&notes).and_then(|rest| {
            let rest = rest.strip_prefix(&format!("{}, ", source.id))?;
            rest.strip_suffix(')')?.parse().ok()
        });
        Present {
            relation: row.required(0),
            table: row.required(1),
            name: row.required(2),
            function: row.required(3),
            tgtype: row.required(4),
            tgenabled: row.required(5),
            copied: row.required(6),
            condition: match noted {
                _ if condition.is_empty() => Condition::Always,
                Some(root) => Condition::Notes(root),
                None => Condition::Other,
            },
            for_columns: row.required(9),
        }
    }
}

/// Sets up what the source needs and has not, and takes away what it has and does not need: on tables that
/// are no partition of it any more, and the triggers by which versions up to 0.3.0 captured changes.
pub fn install(session: &Session, source: &Source) -> Result<(), Error> {
    let mut present = present_anywhere(session, source);
    let mut wanted = Vec::new();
    for (oid, table, root) in &tables(session, source) {
        for trigger in needed(source).filter(|t| *root || !t.for_each_row()) {
            let found = present
                .iter()
                .position(|p| p.relation == *oid && trigger.is(p, *root))
                .map(|place| present.remove(place));
            wanted.push((trigger, table.clone(), *root, found));
        }
    }
    // First, since a trigger of an earlier version may have the name of one that is needed.
    for Present { table, name, .. } in present.iter().filter(|p| !p.copied) {
        run(session, table, format!("DROP TRIGGER {name} ON {table}"))?;
    }
    for (trigger, table, root, found) in wanted {
        let name = match &found {
            Some(found) => found.name.clone(),
            None => {
                let name = trigger.name(source);
                let create = trigger.create(session, source, (&table, root));
                run(session, &table, create)?;
                name
            }
        };
        if found.is_none_or(|f| f.tgenabled != ALWAYS) {
            let enable = format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}");
            run(session, &table, enable)?;
        }
    }
    Ok(())
}

/// Runs a statement that changes triggers. The server calls event triggers of others in it, which may expect another
/// search_path.
fn run(session: &Session, table: &str, statement: String) -> Result<(), Error> {
    match ddl::unnoted(|| subtransaction::run(|| session.command(&statement))) {
        Ok(()) => Ok(()),
        Err(failure) if !failure.is_about_content() => failure.raise(),
        Err(failure) => Err(Error::TriggerStatement {
            table: table.to_owned(),
            statement,
            sqlstate: failure.sqlstate,
            problem: failure.message,
        }),
    }
}

/// Takes all triggers of a source away.
pub fn uninstall(session: &Session, source: &Source) -> Result<(), Error> {
    let nothing = Source {
        capture: Capture::Watermark,
        append_only: false,
        ..source.clone()
    };
    install(session, &nothing)
}

/// That the trigger of an append-only source lets pass what it was called for: on a table that is none
/// of the source's any more, such as a partition that was detached, everything.
pub fn check(session: &Session, firing: &Firing) -> Result<(), Error> {
    let source = firing.number().and_then(|id| sources::by_id(session, id));
    let Some(source) = source.filter(|s| !s.removed) else {
        return Ok(());
    };
    let table = Table::load(session, source.relation);
    if !table.is_some_and(|t| t.written_through.contains(&firing.relation())) {
        return Ok(());
    }
    Err(Error::AppendOnly {
        log: logs::by_id(session, source.log_id).map_or_else(String::new, |l| l.name),
        table: sources::relation_name(session, firing.relation()),
        operation: firing.operation().name(),
    })
}

/// Where changes escape.
pub struct Hole {
    pub state: State,
    /// The table or partition.
    pub relation: pg_sys::Oid,
    pub detail: String,
}

pub fn holes(session: &Session, source: &Source) -> Vec<Hole> {
    if needed(source).next().is_none() {
        return Vec::new();
    }
    let tables = tables(session, source);
    let present = present_on(session, source, tables.iter().map(|t| t.0).collect());
    let mut holes = Vec::new();
    for (relation, _, root) in tables {
        let mut hole = |state, detail| {
            holes.push(Hole {
                state,
                relation,
                detail,
            });
        };
        let here: Vec<&Present> = present.iter().filter(|p| p.relation == relation).collect();
        for trigger in needed(source) {
            let Some(found) = here.iter().find(|p| trigger.is(p, root)) else {
                let detail = format!("trigger {} is missing", trigger.name(source));
                hole(State::TriggerMissing, detail);
                continue;
            };
            if found.tgenabled != ALWAYS {
                let wrong = match found.tgenabled.as_str() {
                    "D" => "disabled",
                    _ => "not enabled as it must be",
                };
                let detail = format!("trigger {} is {wrong}", found.name);
                hole(State::TriggerDisabled, detail);
            }
            let mut others = here.iter().filter(|p| !std::ptr::eq(**p, *found));
            if let Some(twice) = others.find(|p| trigger.overlaps(p)) {
                let detail = format!("trigger {} captures what another captures too", twice.name);
                hole(State::TriggerTwice, detail);
            }
        }
    }
    holes
}
