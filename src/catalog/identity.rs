//! `merkle_database`: which database the logs are of.
//!
//! A dump that is restored, or a database made from another as its template, has the other's logs. If it
//! went on by itself there would be two histories of one log. So whoever would write to a log first looks
//! whether this is the database that wrote to it last, and otherwise holds until `adopt_database` says what
//! it is. A standby that was promoted is the same database, on another timeline.

use crate::administration::{self, ADMINISTRATION, Act};
use crate::catalog::logs;
use crate::catalog::schedule::Jobs;
use crate::error::Error;
use crate::pg::spi::{Row, Snapshot};
use crate::session::Session;
use crate::store::checkpoints;

/// A database of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub system_identifier: i64,
    pub database: u32,
    pub name: String,
    /// Which of the cluster's histories; a promotion or a point-in-time recovery begins a new one.
    pub timeline: i32,
}

impl Identity {
    fn is(&self, other: &Identity) -> bool {
        (self.system_identifier, self.database) == (other.system_identifier, other.database)
    }
}

/// What to make of a database that has the logs of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// It takes the other's place, which writes to the logs no more.
    Continue,
    /// The other goes on: the logs here are a copy of how they were.
    Copy,
}

impl Adoption {
    pub fn from_name(name: &str) -> Option<Adoption> {
        match name {
            "continue" => Some(Adoption::Continue),
            "copy" => Some(Adoption::Copy),
            _ => None,
        }
    }
}

fn from_row(row: &Row) -> Identity {
    Identity {
        system_identifier: row.required(0),
        database: row.required::<i64>(1) as u32,
        name: row.required(2),
        timeline: row.required(3),
    }
}

/// This database. On a standby the timeline is that of the last restart point.
pub fn here(session: &Session) -> Identity {
    session
        .fresh_one(
            "SELECT s.system_identifier, d.oid::pg_catalog.int8, d.datname::pg_catalog.text,
                    CASE WHEN pg_catalog.pg_is_in_recovery() THEN c.timeline_id
                         ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))
                              ::pg_catalog.bit(32)::pg_catalog.int4 END
               FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_database d
              WHERE d.datname = pg_catalog.current_database()",
            &[],
            from_row,
        )
        .expect("the current database exists")
}

/// The databases that the logs are of: one, unless a dump of another was restored over it.
fn recorded(session: &Session) -> Vec<Identity> {
    session.query(
        Snapshot::Fresh,
        "SELECT i.system_identifier, i.database_oid::pg_catalog.int8, i.database_name, i.timeline
           FROM @extschema@.merkle_database i WHERE i.left_at IS NULL ORDER BY i.since",
        &[],
        from_row,
    )
}

/// The database whose logs these are, if that is another than this one.
pub fn other(session: &Session) -> Option<Identity> {
    let here = here(session);
    recorded(session).into_iter().find(|known| !known.is(&here))
}

/// That this is the database whose logs these are; the first to ask is.
///
/// # Errors
/// If it is a copy of another that nobody has adopted.
pub fn check(session: &Session) -> Result<(), Error> {
    let (here, known) = (here(session), recorded(session));
    check_own(&here, &known)?;
    if !known.contains(&here) {
        let copy = is_copy(session, Snapshot::Fresh);
        store(session, &here, copy);
    }
    Ok(())
}

/// True if the logs were another database's, which goes on with them.
pub fn is_copy(session: &Session, snapshot: Snapshot) -> bool {
    let copy = session.query(
        snapshot,
        "SELECT true FROM @extschema@.merkle_database i WHERE i.left_at IS NULL AND i.is_copy",
        &[],
        |_| (),
    );
    !copy.is_empty()
}

/// As [`check`], but puts nothing on record.
///
/// # Errors
/// As [`check`].
pub fn look(session: &Session) -> Result<(), Error> {
    check_own(&here(session), &recorded(session))
}

fn check_own(here: &Identity, known: &[Identity]) -> Result<(), Error> {
    match known.iter().find(|known| !known.is(here)) {
        None => Ok(()),
        Some(other) => Err(Error::CopiedDatabase {
            name: other.name.clone(),
            system_identifier: other.system_identifier,
            oid: other.database,
        }),
    }
}

fn store(session: &Session, here: &Identity, is_copy: bool) {
    session.execute(
        "INSERT INTO @extschema@.merkle_database AS i (system_identifier, database_oid, database_name, timeline, is_copy)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (system_identifier, database_oid) DO UPDATE
            SET database_name = EXCLUDED.database_name, timeline = EXCLUDED.timeline, is_copy = EXCLUDED.is_copy,
                since = pg_catalog.clock_timestamp(), left_at = NULL",
        &[
            here.system_identifier.into(),
            pgrx::pg_sys::Oid::from(here.database).into(),
            here.name.as_str().into(),
            here.timeline.into(),
            is_copy.into(),
        ],
    );
    administration::record(session, Act::DatabaseRecorded);
}

/// Says what this database is, which has the logs of another or, where `restored`, was restored from a dump of
/// its own; returns that in words. What is on record about the state of the other server is forgotten.
pub fn adopt(session: &Session, adoption: Adoption, restored: bool) -> Result<String, Error> {
    let here = here(session);
    let other = other(session)
        .or_else(|| restored.then(|| here.clone()))
        .ok_or_else(|| Error::NotACopy {
            name: here.name.clone(),
        })?;
    session.execute(
        "UPDATE @extschema@.merkle_database SET left_at = pg_catalog.clock_timestamp() WHERE left_at IS NULL",
        &[],
    );
    store(session, &here, adoption == Adoption::Copy);
    logs::forget_state(session);
    let renamed = match adoption {
        Adoption::Continue => checkpoints::keep_origins(session),
        Adoption::Copy => checkpoints::forget_origins(session),
    };
    // The administration log's own row is in no dump and on no record.
    for log_id in renamed.into_iter().filter(|id| *id != ADMINISTRATION) {
        administration::record(session, Act::LogAltered { log_id });
    }
    let log_ids = logs::ids(session);
    let jobs = Jobs {
        log_ids: &log_ids,
        restored_from: (other.system_identifier != here.system_identifier).then_some(&other),
    };
    let said = match adoption {
        Adoption::Continue => {
            jobs.renew(session);
            format!("takes the place of database \"{}\"", other.name)
        }
        Adoption::Copy => {
            logs::disable_all(session);
            jobs.remove(session);
            format!(
                "is a copy of database \"{}\": its logs are disabled",
                other.name
            )
        }
    };
    session.logs_changed()?;
    Ok(format!("database \"{}\" {said}", here.name))
}
