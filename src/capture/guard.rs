//! The triggers on a source: those that capture its changes, and those that refuse them.
//!
//! Statement-level triggers stand on the table and on each of its partitions, since a statement
//! fires those of the table it names. Row-level triggers stand on the table: the server copies them
//! to its partitions, later ones included.
//!
//! A trigger is known by what it calls, for which source and when; whoever owns the table may rename it.

use super::state::State;
use super::table::Table;
use crate::catalog::logs;
use crate::catalog::sources::{self, Capture, Source};
use crate::error::Error;
use crate::pg::spi::Row;
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
}

const CAPTURE: &[Needed] = &[
    Needed {
        suffix: "change",
        event: "AFTER INSERT OR UPDATE OR DELETE",
        level: "FOR EACH ROW",
        function: "capture_change",
    },
    Needed {
        suffix: "truncate",
        event: "AFTER TRUNCATE",
        level: "FOR EACH STATEMENT",
        function: "capture_change",
    },
];

const REFUSE: &[Needed] = &[
    Needed {
        suffix: "append_only",
        event: "BEFORE UPDATE OR DELETE",
        level: "FOR EACH ROW",
        function: "refuse_change",
    },
    Needed {
        suffix: "no_truncate",
        event: "BEFORE TRUNCATE",
        level: "FOR EACH STATEMENT",
        function: "refuse_change",
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

    fn is(&self, trigger: &Present) -> bool {
        self.function == trigger.function && self.tgtype() == trigger.tgtype
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
    /// The server made it, for a partition, and takes it away with the one that it is a copy of.
    copied: bool,
}

const PRESENT: &str = "SELECT t.tgrelid, t.tgrelid::pg_catalog.regclass::pg_catalog.text, pg_catalog.quote_ident(t.tgname),
                p.proname::pg_catalog.text, t.tgtype, t.tgenabled::pg_catalog.text, t.tgparentid <> 0
           FROM pg_catalog.pg_trigger t
           JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
          WHERE p.pronamespace = (SELECT e.extnamespace FROM pg_catalog.pg_extension e WHERE e.extname = 'merkle_log')
            AND p.proname IN ('capture_change', 'refuse_change')
            AND t.tgnargs = 1 AND t.tgargs = $1 AND t.tgqual IS NULL AND t.tgattr = ''";

/// The triggers of a source on any table. Reads through all triggers of the database.
fn present_anywhere(session: &Session, source: &Source) -> Vec<Present> {
    let sql = format!("{PRESENT} ORDER BY t.tgrelid, t.oid");
    session.fresh(&sql, &[argument(source).into()], Present::from_row)
}

/// The triggers of a source on these tables.
fn present_on(session: &Session, source: &Source, tables: Vec<pg_sys::Oid>) -> Vec<Present> {
    let sql = format!("{PRESENT} AND t.tgrelid = ANY ($2) ORDER BY t.tgrelid, t.oid");
    let args = [argument(source).into(), tables.into()];
    session.fresh(&sql, &args, Present::from_row)
}

/// A trigger's argument as it is stored.
fn argument(source: &Source) -> Vec<u8> {
    [source.id.to_string().as_bytes(), b"\0"].concat()
}

impl Present {
    fn from_row(row: &Row) -> Present {
        Present {
            relation: row.required(0),
            table: row.required(1),
            name: row.required(2),
            function: row.required(3),
            tgtype: row.required(4),
            tgenabled: row.required(5),
            copied: row.required(6),
        }
    }
}

/// Sets up what the source needs and has not, and takes away what it has and does not need: on tables that
/// are no partition of it any more, and the triggers by which versions up to 0.3.0 captured changes.
pub fn install(session: &Session, source: &Source) {
    let mut present = present_anywhere(session, source);
    for (oid, table, root) in tables(session, source) {
        for trigger in needed(source).filter(|t| root || !t.for_each_row()) {
            let found = present
                .iter()
                .position(|p| p.relation == oid && trigger.is(p))
                .map(|place| present.remove(place));
            let name = match &found {
                Some(found) => found.name.clone(),
                None => {
                    let name = trigger.name(source);
                    session.command(&format!(
                        "CREATE TRIGGER {name} {} ON {table} {} EXECUTE FUNCTION {}.{}('{}')",
                        trigger.event,
                        trigger.level,
                        session.schema(),
                        trigger.function,
                        source.id
                    ));
                    name
                }
            };
            if found.is_none_or(|f| f.tgenabled != ALWAYS) {
                session.command(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"));
            }
        }
    }
    for Present { table, name, .. } in present.iter().filter(|p| !p.copied) {
        session.command(&format!("DROP TRIGGER {name} ON {table}"));
    }
}

/// Takes all triggers of a source away.
pub fn uninstall(session: &Session, source: &Source) {
    let nothing = Source {
        capture: Capture::Watermark,
        append_only: false,
        ..source.clone()
    };
    install(session, &nothing);
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
    let tables: Vec<pg_sys::Oid> = tables(session, source).iter().map(|t| t.0).collect();
    let present = present_on(session, source, tables.clone());
    let mut holes = Vec::new();
    for relation in tables {
        let mut hole = |state, detail| {
            holes.push(Hole {
                state,
                relation,
                detail,
            });
        };
        let of = |trigger: &Needed| -> Vec<&Present> {
            let here = present.iter().filter(|p| p.relation == relation);
            here.filter(|p| trigger.is(p)).collect()
        };
        for trigger in needed(source) {
            match of(trigger).as_slice() {
                [] => {
                    let detail = format!("trigger {} is missing", trigger.name(source));
                    hole(State::TriggerMissing, detail);
                }
                [found] if found.tgenabled == ALWAYS => {}
                [found] => {
                    let wrong = match found.tgenabled.as_str() {
                        "D" => "disabled",
                        _ => "not enabled as it must be",
                    };
                    let detail = format!("trigger {} is {wrong}", found.name);
                    hole(State::TriggerDisabled, detail);
                }
                [_, twice, ..] => {
                    let detail =
                        format!("trigger {} captures what another captures too", twice.name);
                    hole(State::TriggerTwice, detail);
                }
            }
        }
    }
    holes
}
