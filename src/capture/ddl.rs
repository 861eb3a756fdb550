//! DDL on the tables of sources, as event triggers tell of it: who ran which command, noted in the transaction that runs it.
//!
//! The event triggers are there only where a superuser has asked for them (`record_ddl`). They note commands in
//! `merkle_ddl_command`, and the next batch of the log puts them on record with what they changed (`definition`).
//! Whatever goes wrong here becomes a warning: nobody's command fails because of it.

use super::context;
use crate::administration::{self, Act};
use crate::error::Error;
use crate::pg::event_trigger::{self, Command};
use crate::pg::extension::Extension;
use crate::pg::spi::Row;
use crate::pg::{role, subtransaction, xact};
use crate::session::Session;
use crate::{settings, shared};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use serde_json::{Value as Json, json};
use std::cell::Cell;

/// Commands that one act shows; those that are left, the next.
const TOGETHER: i64 = 100;

thread_local! {
    /// The library itself is changing triggers, which its own acts put on record.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, whose commands are not noted.
pub fn unnoted<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            OURS.set(self.0);
        }
    }
    let _restore = Restore(OURS.replace(true));
    f()
}

/// What the event triggers call.
pub fn note(command: &Command) {
    if OURS.get() || is_own_script() {
        return;
    }
    let noted = subtransaction::run(|| {
        // Under the search path of the command, and as who has run it.
        let named = Named {
            granted: command.granted(),
            // What it drops itself is told as what it alters.
            altered: command.altered().filter(|_| command.is_drop()),
        };
        let who = Who {
            role: xact::role_called(role::current()).to_string(),
            said: said(),
            statement: context::statement(),
        };
        let noted: Result<bool, ErrorReport> = Session::enter(|session| {
            Ok(match command.is_drop() {
                true => note_with(session, DROPPED, command, &who, named),
                false => note_with(session, ALTERED, command, &who, named),
            })
        });
        noted.unwrap_or_else(|report| Error::raise_report(report))
    });
    match noted {
        Ok(true) => xact::after_commit(shared::wake_workers),
        Ok(false) => {}
        Err(failure) => {
            pgrx::warning!("merkle_log has not noted this command: {}", failure.message)
        }
    }
}

/// True while the script of this extension runs, which changes what notes are written to.
fn is_own_script() -> bool {
    let own = || Extension::find(c"merkle_log").map(|own| own.oid);
    event_trigger::extension_of_script().is_some_and(|running| Some(running) == own())
}

/// The tables that the text of a command names.
struct Named {
    granted: event_trigger::Granted,
    altered: Option<pg_sys::Oid>,
}

/// What the session says about its command.
struct Who {
    role: String,
    said: Option<String>,
    statement: Option<context::Text>,
}

/// The context of the transaction, if it is one: a command is not refused for what it says.
fn said() -> Option<String> {
    let set = settings::context()?;
    let text = set.to_str().ok()?;
    (!text.is_empty() && settings::context::check(text).is_ok()).then(|| text.to_owned())
}

/// The tables that a command is about, as relation and name of the object. A GRANT names none of its own.
const ALTERED: &str = "
    SELECT CASE c.classid
               WHEN 'pg_catalog.pg_class'::pg_catalog.regclass
                   THEN COALESCE((SELECT i.indrelid FROM pg_catalog.pg_index i WHERE i.indexrelid = c.objid), c.objid)
               WHEN 'pg_catalog.pg_trigger'::pg_catalog.regclass
                   THEN (SELECT t.tgrelid FROM pg_catalog.pg_trigger t WHERE t.oid = c.objid)
               WHEN 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                   THEN (SELECT r.ev_class FROM pg_catalog.pg_rewrite r WHERE r.oid = c.objid)
               WHEN 'pg_catalog.pg_policy'::pg_catalog.regclass
                   THEN (SELECT p.polrelid FROM pg_catalog.pg_policy p WHERE p.oid = c.objid)
           END, c.object_type || ' ' || c.object_identity
      FROM pg_catalog.pg_event_trigger_ddl_commands() c
    UNION ALL
    SELECT n.oid, 'schema ' || c.object_identity
      FROM pg_catalog.pg_event_trigger_ddl_commands() c
      JOIN pg_catalog.pg_class n ON n.relnamespace = c.objid
     WHERE c.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass";

const DROPPED: &str = "
    SELECT CASE WHEN d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN d.objid
                WHEN d.object_type IN ('trigger', 'policy', 'rule', 'table constraint', 'default value')
                THEN pg_catalog.to_regclass(pg_catalog.format('%I.%I', d.address_names[1], d.address_names[2]))::pg_catalog.oid
           END, d.object_type || ' ' || d.object_identity
      FROM pg_catalog.pg_event_trigger_dropped_objects() d";

/// True if the command is about a source.
fn note_with(session: &Session, about: &str, command: &Command, who: &Who, named: Named) -> bool {
    let sql = format!(
        "WITH about (relation, object) AS (
             {about}
             UNION ALL
             SELECT g.relation, 'table ' || g.relation::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.unnest($1) g (relation)
             UNION ALL
             SELECT c.oid, 'tables in schema ' || c.relnamespace::pg_catalog.regnamespace::pg_catalog.text
               FROM pg_catalog.pg_class c WHERE c.relnamespace = ANY ($2)),
         tables (relation, object) AS (
             SELECT a.relation, a.object FROM about a
             UNION ALL
             SELECT p.relid, a.object
               FROM about a
               JOIN pg_catalog.pg_class c ON c.oid = a.relation AND c.relispartition
              CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(c.oid::pg_catalog.regclass) p (relid)
             UNION ALL
             -- Of a partition that is gone only we know whose it was.
             SELECT s.relation, a.object
               FROM about a
               JOIN @extschema@.verification_source_partitions r ON r.relation = a.relation AND r.detached_at IS NULL
               JOIN @extschema@.verification_sources s ON s.source_id = r.source_id),
         of_source (source_id, objects) AS (
             SELECT s.source_id, pg_catalog.left(pg_catalog.string_agg(DISTINCT t.object, ', ' ORDER BY t.object), 2000)
               FROM tables t
               JOIN @extschema@.verification_sources s ON s.relation = t.relation
              WHERE s.removed_at IS NULL
                AND s.relation <> ALL (ARRAY(SELECT $11 WHERE $11 IS NOT NULL UNION ALL
                                             SELECT p.relid::pg_catalog.oid FROM pg_catalog.pg_partition_ancestors($11::pg_catalog.regclass) p (relid)))
              GROUP BY s.source_id)
         INSERT INTO @extschema@.merkle_ddl_command
             (source_id, transaction_id, user_name, role_name, application_name, context, executed_at, command_tag, objects,
              statement, statement_bytes)
         SELECT o.source_id, $3::pg_catalog.xid8, $4, $5, $6, $7, pg_catalog.statement_timestamp(), $8, o.objects, $9, $10
           FROM of_source o
         RETURNING true"
    );
    let user = xact::session_user();
    let application = xact::application_name(|name| name.into_owned());
    let statement = who.statement.as_ref();
    let noted = session.fresh(
        &sql,
        &[
            named.granted.tables.into(),
            named.granted.schemas.into(),
            xact::id().to_string().into(),
            (*user).into(),
            who.role.as_str().into(),
            application.into(),
            who.said.as_deref().into(),
            command.tag().into(),
            statement.map(|s| s.text.as_str()).into(),
            statement
                .map(|s| s.whole.unwrap_or(s.text.len() as u64) as i64)
                .into(),
            named.altered.into(),
        ],
        |_| (),
    );
    !noted.is_empty()
}

/// A command that was noted.
pub struct Noted {
    transaction: String,
    user: String,
    role: String,
    application: String,
    said: Option<String>,
    at: String,
    tag: String,
    objects: String,
    statement: Option<String>,
    statement_bytes: Option<i64>,
}

impl Noted {
    fn of(row: &Row) -> Noted {
        Noted {
            transaction: row.required(0),
            user: row.required(1),
            role: row.required(2),
            application: row.required(3),
            said: row.get(4),
            at: row.required(5),
            tag: row.required(6),
            objects: row.required(7),
            statement: row.get(8),
            statement_bytes: row.get(9),
        }
    }

    pub fn to_json(&self) -> Json {
        json!({
            "transaction_id": self.transaction, "user_name": self.user, "role_name": self.role,
            "application_name": self.application, "context": self.said, "executed_at": self.at, "command_tag": self.tag,
            "objects": self.objects, "statement": self.statement, "statement_bytes": self.statement_bytes,
        })
    }
}

/// Takes the next commands on a source's table that were noted.
pub fn take(session: &Session, source_id: i32) -> Vec<Noted> {
    let mut commands: Vec<(i64, Noted)> = session.fresh(
        "DELETE FROM @extschema@.merkle_ddl_command d
          WHERE d.command_id IN (SELECT n.command_id FROM @extschema@.merkle_ddl_command n
                                  WHERE n.source_id = $1 ORDER BY n.command_id LIMIT $2)
         RETURNING d.transaction_id::pg_catalog.text, d.user_name, d.role_name, d.application_name, d.context,
                   d.executed_at::pg_catalog.text, d.command_tag, d.objects, d.statement, d.statement_bytes, d.command_id",
        &[source_id.into(), TOGETHER.into()],
        |row| (row.required(10), Noted::of(row)),
    );
    commands.sort_by_key(|(id, _)| *id);
    commands.into_iter().map(|(_, noted)| noted).collect()
}

/// The sources of a log on whose tables commands were noted that are not on record yet.
pub fn noted(session: &Session, log_id: i32) -> Vec<i32> {
    session.fresh(
        "SELECT DISTINCT d.source_id FROM @extschema@.merkle_ddl_command d
           JOIN @extschema@.verification_sources s ON s.source_id = d.source_id
          WHERE s.log_id = $1",
        &[log_id.into()],
        |row| row.required(0),
    )
}

/// The event triggers that are there, by name, quoted where it must be; of each whether it fires always and for all commands.
fn present(session: &Session) -> Vec<(String, bool)> {
    session.fresh(
        "SELECT pg_catalog.quote_ident(t.evtname), t.evtenabled = 'A' AND t.evttags IS NULL
           FROM pg_catalog.pg_event_trigger t
           JOIN pg_catalog.pg_proc p ON p.oid = t.evtfoid
           JOIN pg_catalog.pg_extension e ON e.extnamespace = p.pronamespace
          WHERE e.oid = $1 AND p.proname = 'note_ddl_command'",
        &[session.extension().into()],
        |row| (row.required(0), row.required(1)),
    )
}

fn is_whole(present: &[(String, bool)]) -> bool {
    present.len() == 2 && present.iter().all(|(_, whole)| *whole)
}

/// Whether commands are noted as `record_ddl` has set it up; `None` where there is no event trigger.
pub fn is_noted(session: &Session) -> Option<bool> {
    let present = present(session);
    (!present.is_empty()).then(|| is_whole(&present))
}

/// Makes the event triggers, or takes them away; true if that changed anything.
pub fn switch(session: &Session, on: bool) -> bool {
    let present = present(session);
    if on && is_whole(&present) || !on && present.is_empty() {
        return false;
    }
    for (name, _) in &present {
        session.command(&format!("DROP EVENT TRIGGER {name}"));
    }
    if on {
        let schema = session.schema();
        // Of all commands: those that can change a table are more than their names say, as in ALTER VIEW … RENAME COLUMN.
        for (name, event) in [
            ("merkle_log_ddl_command_end", "ddl_command_end"),
            ("merkle_log_sql_drop", "sql_drop"),
        ] {
            session.command(&format!(
                "CREATE EVENT TRIGGER {name} ON {event} EXECUTE FUNCTION {schema}.note_ddl_command()"
            ));
            session.command(&format!("ALTER EVENT TRIGGER {name} ENABLE ALWAYS"));
        }
    }
    administration::record(session, Act::DdlRecorded { on });
    true
}
