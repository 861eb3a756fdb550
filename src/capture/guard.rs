//! The triggers on a source: those that capture its changes, and those that refuse them.
//!
//! Statement-level triggers stand on the table and on each of its partitions, since a statement
//! fires those of the table it names. Row-level triggers stand on the table: the server copies them
//! to its partitions, later ones included.

use super::table::Table;
use crate::catalog::logs;
use crate::catalog::sources::{self, Capture, Source};
use crate::error::Error;
use crate::pg::trigger::Firing;
use crate::session::Session;
use pgrx::pg_sys;
use std::collections::HashMap;

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

/// The triggers that captured changes up to version 0.3.0, beside the one of TRUNCATE: for each statement, and
/// for each row.
const FORMER: &[&str] = &["insert", "update", "delete"];
const FORMER_ROW: &str = "applied";

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
        name_of(source, self.suffix)
    }

    fn for_each_row(&self) -> bool {
        self.level == "FOR EACH ROW"
    }
}

fn name_of(source: &Source, suffix: &str) -> String {
    format!("merkle_log_{}_{suffix}", source.id)
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
           FROM pg_catalog.pg_class c
          WHERE c.oid = $1 OR c.oid IN (SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.regclass) t)
          ORDER BY c.oid <> $1, c.oid",
        &[source.relation.into()],
        |row| (row.required(0), row.required(1), row.required(2)),
    )
}

/// The state of the triggers of a source that exist: by table and name.
fn present(session: &Session, source: &Source) -> HashMap<(pg_sys::Oid, String), String> {
    session
        .fresh(
            "SELECT t.tgrelid, t.tgname::pg_catalog.text, t.tgenabled::pg_catalog.text
               FROM pg_catalog.pg_trigger t
              WHERE t.tgname::pg_catalog.text LIKE 'merkle\\_log\\_' || $1 || '\\_%'
                AND t.tgfoid IN ('@extschema@.capture_change()'::pg_catalog.regprocedure,
                                 '@extschema@.refuse_change()'::pg_catalog.regprocedure)",
            &[source.id.to_string().into()],
            |row| ((row.required(0), row.required(1)), row.required(2)),
        )
        .into_iter()
        .collect()
}

/// Sets up what the source needs and has not, and takes away what it has and does not need.
pub fn install(session: &Session, source: &Source) {
    let mut present = present(session, source);
    for (oid, table, root) in tables(session, source) {
        for trigger in needed(source).filter(|t| root || !t.for_each_row()) {
            let name = trigger.name(source);
            let state = present.remove(&(oid, name.clone()));
            if state.is_none() {
                session.command(&format!(
                    "CREATE TRIGGER {name} {} ON {table} {} EXECUTE FUNCTION @extschema@.{}('{}')",
                    trigger.event, trigger.level, trigger.function, source.id
                ));
            }
            if state.as_deref() != Some(ALWAYS) {
                session.command(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"));
            }
        }
        let unneeded: Vec<String> = CAPTURE
            .iter()
            .chain(REFUSE)
            .filter(|t| root || !t.for_each_row())
            .map(|t| t.name(source))
            .chain(FORMER.iter().map(|suffix| name_of(source, suffix)))
            .chain(root.then(|| name_of(source, FORMER_ROW)))
            .filter(|name| present.contains_key(&(oid, name.clone())))
            .collect();
        for name in unneeded {
            session.command(&format!("DROP TRIGGER {name} ON {table}"));
        }
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

/// Where changes escape: the table or partition, and what is wrong with it.
pub fn holes(session: &Session, source: &Source) -> Vec<(pg_sys::Oid, String)> {
    let present = present(session, source);
    let mut holes = Vec::new();
    for (oid, ..) in tables(session, source) {
        let missing: Vec<String> = needed(source)
            .map(|t| t.name(source))
            .filter(|name| !present.contains_key(&(oid, name.clone())))
            .collect();
        holes.extend(
            missing
                .into_iter()
                .map(|name| (oid, format!("trigger {name} is missing"))),
        );
        for trigger in needed(source) {
            let name = trigger.name(source);
            let wrong = match present.get(&(oid, name.clone())).map(String::as_str) {
                None => continue,
                Some(ALWAYS) => continue,
                Some("D") => "disabled",
                Some(_) => "not enabled as it must be",
            };
            holes.push((oid, format!("trigger {name} is {wrong}")));
        }
    }
    holes
}
