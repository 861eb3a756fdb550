//! Jobs of pg_cron that run batches of logs.
//!
//! A job calls `run_scheduled_batch` with the number of its log, which never changes and is no other log's, and which does
//! nothing while the log is disabled. Versions up to 0.3.0 wrote the log's name into the command: it is replaced when
//! the log is renamed, and when a restored database takes the place of the one that the job was of.

use crate::catalog::identity::Identity;
use crate::error::Error;
use crate::pg::subtransaction;
use crate::session::Session;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys::panic::ErrorReport};

pub fn job_name(log_id: i32) -> String {
    format!("merkle_log_{log_id}")
}

pub fn command(session: &Session, log_id: i32) -> String {
    format!("SELECT {}.run_scheduled_batch({log_id})", session.schema())
}

/// Whose jobs are ours: those for this database, and in another cluster those for the database that it was restored
/// from.
pub struct Jobs<'a> {
    pub log_ids: &'a [i32],
    pub restored_from: Option<&'a Identity>,
}

const OURS: &str = "FROM pg_catalog.unnest($1) l (log_id)
    JOIN cron.job j ON j.jobname::pg_catalog.text = 'merkle_log_' || l.log_id
   WHERE (j.database = pg_catalog.current_database() OR j.database = $2)";

impl Jobs<'_> {
    pub fn of(log_ids: &[i32]) -> Jobs<'_> {
        Jobs {
            log_ids,
            restored_from: None,
        }
    }

    /// Takes the jobs away, whoever made them.
    pub fn remove(&self, session: &Session) {
        self.change(
            session,
            &format!("SELECT cron.unschedule(j.jobid) {OURS}"),
            "removed",
        );
    }

    /// Lets the jobs run in this database, and name their logs as they do now.
    pub fn renew(&self, session: &Session) {
        let command = format!(
            "pg_catalog.format('SELECT %s.run_scheduled_batch(%s)', {}, l.log_id)",
            crate::error::literal(session.schema())
        );
        let sql = format!(
            "SELECT cron.alter_job(j.jobid, command => {command}, database => pg_catalog.current_database()::pg_catalog.text)
               {OURS}"
        );
        self.change(session, &sql, "renewed");
    }

    /// What pg_cron refuses keeps nobody from what the log is for, and is told.
    fn change(&self, session: &Session, sql: &str, what: &str) {
        if !is_installed(session) {
            return;
        }
        let from = self.restored_from.map(|from| from.name.as_str());
        let args = [self.log_ids.to_vec().into(), from.into()];
        if let Err(failure) = subtransaction::run(|| session.fresh(sql, &args, |_| ())) {
            if !failure.is_about_content() {
                failure.raise();
            }
            let message = format!(
                "jobs of pg_cron that run the log could not be {what}: {}",
                failure.message
            );
            ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "merkle_log")
                .set_hint("Look at cron.job, and call cron.unschedule.")
                .report(PgLogLevel::WARNING);
        }
    }
}

fn is_installed(session: &Session) -> bool {
    let found = session.fresh_one(
        "SELECT pg_catalog.to_regclass('cron.job') IS NOT NULL FROM pg_catalog.pg_extension e WHERE e.extname = 'pg_cron'",
        &[],
        |row| row.required(0),
    );
    found == Some(true)
}

/// That pg_cron is there, and the caller may make jobs.
pub fn check_may_schedule(session: &Session) -> Result<(), Error> {
    let may = session.fresh_one(
        "SELECT pg_catalog.has_schema_privilege($1, n.oid, 'USAGE')
           FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_namespace n ON n.nspname = 'cron' WHERE e.extname = 'pg_cron'",
        &[session.caller().into()],
        |row| row.required(0),
    );
    match may {
        Some(true) => Ok(()),
        Some(false) => Err(Error::MayNotSchedule),
        None => Err(Error::NoCron),
    }
}
