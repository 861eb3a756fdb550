//! Creating, changing and dropping logs.

use super::required;
use crate::capture::order::Domain;
use crate::capture::{gather, guard};
use crate::catalog::logs::{self, Log};
use crate::catalog::sources;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use crate::shared;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

const MAX_NAME: usize = 63;

#[pg_extern(parallel_unsafe, name = "create_log")]
#[search_path(pg_catalog, pg_temp)]
fn create_log_v2(
    name: Option<String>,
    batch_size: default!(Option<i32>, "NULL"),
    settle: default!(Option<Interval>, "'0'"),
    run_interval: default!(Option<Interval>, "NULL"),
    reconcile_interval: default!(Option<Interval>, "NULL"),
) -> Result<i32, ErrorReport> {
    Session::enter(|session| {
        let name = valid_name(name)?;
        let batch_size = batch_size.map(valid_batch_size).transpose()?;
        check_free(session, &name)?;
        let settle = valid_settle(session, required("settle", settle)?)?;
        let intervals = valid_intervals(run_interval, reconcile_interval)?;
        let id = session.fresh_one(
            "INSERT INTO @extschema@.verification_logs (log_name, batch_size, settle, run_interval, reconcile_interval)
             VALUES ($1, $2, $3, $4, $5) RETURNING log_id",
            &[
                name.into(),
                batch_size.into(),
                settle.into(),
                intervals.0.into(),
                intervals.1.into(),
            ],
            |row| row.required(0),
        );
        xact::after_commit(|| {
            if let Some(shared) = shared::get() {
                shared.poke_launcher();
            }
        });
        Ok(id.expect("INSERT … RETURNING returns a row"))
    })
}

#[pg_extern(parallel_unsafe, name = "alter_log")]
#[search_path(pg_catalog, pg_temp)]
fn alter_log_v2(
    name: Option<String>,
    new_name: default!(Option<String>, "NULL"),
    batch_size: default!(Option<i32>, "NULL"),
    settle: default!(Option<Interval>, "NULL"),
    run_interval: default!(Option<Interval>, "NULL"),
    reconcile_interval: default!(Option<Interval>, "NULL"),
) -> Result<(), ErrorReport> {
    Session::enter(|session| {
        let log = logs::lock_and_wait(session, &required("name", name)?)?;
        let new_name = match new_name {
            Some(new) if new != log.name => {
                let new = valid_name(Some(new))?;
                check_free(session, &new)?;
                Some(new)
            }
            _ => None,
        };
        let batch_size = batch_size.map(valid_batch_size).transpose()?;
        let settle = settle.map(|s| valid_settle(session, s)).transpose()?;
        if let Some(settle) = settle {
            check_settle_domain(&log, log.domain, settle)?;
        }
        let intervals = valid_intervals(run_interval, reconcile_interval)?;
        session.logs_changed()?;
        session.execute(
            "UPDATE @extschema@.verification_logs
                SET log_name = COALESCE($2, log_name), batch_size = COALESCE($3, batch_size),
                    settle = COALESCE($4, settle), run_interval = COALESCE($5, run_interval),
                    reconcile_interval = COALESCE($6, reconcile_interval)
              WHERE log_id = $1",
            &[
                log.id.into(),
                new_name.into(),
                batch_size.into(),
                settle.into(),
                intervals.0.into(),
                intervals.1.into(),
            ],
        );
        Ok(())
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn enable_log(name: Option<String>) -> Result<(), ErrorReport> {
    set_enabled(name, true)
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn disable_log(name: Option<String>) -> Result<(), ErrorReport> {
    set_enabled(name, false)
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn pause_log(name: Option<String>) -> Result<(), ErrorReport> {
    set_paused(name, true)
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn resume_log(name: Option<String>) -> Result<(), ErrorReport> {
    set_paused(name, false)
}

fn set_paused(name: Option<String>, paused: bool) -> Result<(), ErrorReport> {
    Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Fresh, &required("name", name)?)?;
        session.execute(
            "UPDATE @extschema@.verification_logs SET paused = $2 WHERE log_id = $1",
            &[log.id.into(), paused.into()],
        );
        xact::after_commit(super::worker::wake);
        Ok(())
    })
}

fn set_enabled(name: Option<String>, enabled: bool) -> Result<(), ErrorReport> {
    Session::enter(|session| {
        let log = logs::by_name(session, Snapshot::Fresh, &required("name", name)?)?;
        session.execute(
            "UPDATE @extschema@.verification_logs SET enabled = $2 WHERE log_id = $1",
            &[log.id.into(), enabled.into()],
        );
        Ok(())
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn drop_log(
    name: Option<String>,
    confirm: default!(Option<bool>, false),
) -> Result<String, ErrorReport> {
    Session::enter(|session| {
        let log = logs::lock_and_wait(session, &required("name", name)?)?;
        let count = |table: &str| -> i64 {
            let sql = format!(
                "SELECT pg_catalog.count(*) FROM @extschema@.{table} t WHERE t.log_id = $1"
            );
            session
                .fresh_one(&sql, &[log.id.into()], |row| row.required(0))
                .unwrap_or(0)
        };
        let (entries, heads, sources) = (
            count("merkle_log"),
            count("merkle_tree_head"),
            count("verification_sources"),
        );
        if entries > 0 && confirm != Some(true) {
            return Err(Error::DropNotConfirmed {
                log: log.name,
                entries,
                sources,
                heads,
            });
        }
        for source in sources::active(session, &log) {
            guard::uninstall(session, &source);
        }
        for table in [
            "verification_source_columns",
            "verification_source_versions",
            "merkle_order_index",
        ] {
            let sql = format!(
                "DELETE FROM @extschema@.{table} t USING @extschema@.verification_sources s
                  WHERE t.source_id = s.source_id AND s.log_id = $1"
            );
            session.execute(&sql, &[log.id.into()]);
        }
        for table in [
            "verification_sources",
            "merkle_log",
            "merkle_tile",
            "merkle_tree_head",
            "merkle_leaf_data",
            "merkle_statement",
            "merkle_pending",
            "verification_logs",
        ] {
            let sql = format!("DELETE FROM @extschema@.{table} WHERE log_id = $1");
            session.execute(&sql, &[log.id.into()]);
        }
        gather::drop_log(log.id);
        session.logs_changed()?;
        Ok(format!(
            "dropped log \"{}\" with {entries} entries, {sources} sources and {heads} tree heads",
            log.name
        ))
    })
}

fn valid_name(name: Option<String>) -> Result<String, Error> {
    let name = required("name", name)?;
    let problem = match name.len() {
        0 => "it is empty",
        n if n > MAX_NAME => "it is longer than 63 bytes",
        _ if name.chars().any(char::is_control) => "it has a control character",
        _ => return Ok(name),
    };
    Err(Error::LogName { name, problem })
}

fn check_free(session: &Session, name: &str) -> Result<(), Error> {
    match logs::by_name(session, Snapshot::Fresh, name) {
        Ok(_) => Err(Error::LogExists(name.to_owned())),
        Err(_) => Ok(()),
    }
}

fn valid_batch_size(size: i32) -> Result<i32, Error> {
    match size {
        1.. => Ok(size),
        _ => Err(Error::Argument {
            name: "batch_size",
            must: "a positive number of entries",
            value: size.to_string(),
        }),
    }
}

fn valid_intervals(
    run: Option<Interval>,
    reconcile: Option<Interval>,
) -> Result<(Option<Interval>, Option<Interval>), Error> {
    match (&run, &reconcile) {
        (Some(run), _) if run.as_micros() < 10_000 => Err(Error::Argument {
            name: "run_interval",
            must: "an interval of at least 10 ms",
            value: run.to_string(),
        }),
        (_, Some(reconcile)) if reconcile.as_micros() < 0 => Err(Error::Argument {
            name: "reconcile_interval",
            must: "an interval that is not negative (zero: never)",
            value: reconcile.to_string(),
        }),
        _ => Ok((run, reconcile)),
    }
}

fn valid_settle(session: &Session, settle: Interval) -> Result<Interval, Error> {
    let text = session.fresh_one(
        "SELECT $1::pg_catalog.text WHERE $1 < '0'::pg_catalog.interval",
        &[settle.into()],
        |row| row.required::<String>(0),
    );
    match text {
        None => Ok(settle),
        Some(value) => Err(Error::Argument {
            name: "settle",
            must: "an interval that is not negative",
            value,
        }),
    }
}

/// Only times have an age.
pub fn check_settle_domain(
    log: &Log,
    domain: Option<Domain>,
    settle: Interval,
) -> Result<(), Error> {
    let none = settle.as_micros() == 0;
    match domain {
        Some(domain) if !none && domain != Domain::Time => Err(Error::SettleDomain {
            log: log.name.clone(),
            domain: domain.name(),
        }),
        _ => Ok(()),
    }
}
