//! Creating, changing and dropping logs.

use super::{MAX_NAME, log_name, required, shortened};
use crate::administration::{self, Act};
use crate::capture::order::Domain;
use crate::capture::{gather, guard};
use crate::catalog::logs::{self, Log};
use crate::catalog::schedule::Jobs;
use crate::catalog::sources;
use crate::checkpoint;
use crate::error::Error;
use crate::pg::spi::Snapshot;
use crate::pg::xact;
use crate::session::Session;
use crate::shared;
use crate::store::{hash_index, heads};
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Microseconds.
const MIN_RUN_INTERVAL: i128 = 10_000;
const MICROS_OF_DAY: i128 = 86_400_000_000;
/// As the server counts the days of an interval's months.
const DAYS_OF_MONTH: i128 = 30;
/// Microseconds of 100 years.
const MAX_INTERVAL: i128 = 100 * 12 * DAYS_OF_MONTH * MICROS_OF_DAY;

#[pg_extern(parallel_unsafe, name = "create_log")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)] // the SQL function's named arguments
fn create_log_v3(
    name: Option<&str>,
    batch_size: default!(Option<i32>, "NULL"),
    settle: default!(Option<Interval>, "'0'"),
    run_interval: default!(Option<Interval>, "NULL"),
    reconcile_interval: default!(Option<Interval>, "NULL"),
    find_by_hash: default!(Option<bool>, false),
    origin: default!(Option<&str>, "NULL"),
    checkpoint_interval: default!(Option<Interval>, "NULL"),
    verify_interval: default!(Option<Interval>, "'1 day'"),
) -> Result<i32, ErrorReport> {
    Session::write(name, |session| {
        let name = valid_name(name)?;
        let batch_size = batch_size.map(valid_batch_size).transpose()?;
        check_free(session, &name)?;
        let settle = valid_settle(required("settle", settle)?)?;
        let intervals = valid_intervals(run_interval, reconcile_interval)?;
        if let Some(origin) = origin {
            checkpoint::check_origin(session, origin, None)?;
        }
        let checkpoint_interval = checkpoint_interval
            .map(valid_checkpoint_interval)
            .transpose()?;
        let verify_interval = verify_interval.map(valid_verify_interval).transpose()?;
        let id = session.fresh_one(
            "INSERT INTO @extschema@.verification_logs (log_name, batch_size, settle, run_interval, reconcile_interval,
                                                           find_by_hash, origin, checkpoint_interval, verify_interval)
             VALUES ($1, $2, $3, $4, $5, $6, $7, NULLIF($8, '0'::pg_catalog.interval),
                     NULLIF($9, '0'::pg_catalog.interval)) RETURNING log_id",
            &[
                name.into(),
                batch_size.into(),
                settle.into(),
                intervals.0.into(),
                intervals.1.into(),
                required("find_by_hash", find_by_hash)?.into(),
                origin.into(),
                checkpoint_interval.into(),
                verify_interval.into(),
            ],
            |row| row.required(0),
        );
        xact::after_commit(|| {
            if let Some(shared) = shared::get() {
                shared.poke_launcher();
            }
        });
        let log_id = id.expect("INSERT … RETURNING returns a row");
        administration::record(session, Act::LogCreated { log_id });
        Ok(log_id)
    })
}

#[pg_extern(parallel_unsafe, name = "alter_log")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)] // the SQL function's named arguments
fn alter_log_v3(
    name: Option<&str>,
    new_name: default!(Option<&str>, "NULL"),
    batch_size: default!(Option<i32>, "NULL"),
    settle: default!(Option<Interval>, "NULL"),
    run_interval: default!(Option<Interval>, "NULL"),
    reconcile_interval: default!(Option<Interval>, "NULL"),
    find_by_hash: default!(Option<bool>, "NULL"),
    origin: default!(Option<&str>, "NULL"),
    checkpoint_interval: default!(Option<Interval>, "NULL"),
    verify_interval: default!(Option<Interval>, "NULL"),
) -> Result<(), ErrorReport> {
    Session::write(name, |session| {
        let name = log_name("name", name)?;
        let only_signing = new_name.is_none()
            && (batch_size, find_by_hash).eq(&(None, None))
            && [&settle, &run_interval, &reconcile_interval]
                .iter()
                .all(|i| i.is_none());
        let log = match name == administration::ADMINISTRATION_NAME && only_signing {
            true => logs::lock_administration(session)?,
            false => logs::lock_and_wait(session, name)?,
        };
        let new_name = match new_name {
            Some(new) if new != log.name => {
                let new = valid_name(Some(new))?;
                check_free(session, &new)?;
                Some(new)
            }
            _ => None,
        };
        let batch_size = batch_size.map(valid_batch_size).transpose()?;
        let settle = settle.map(valid_settle).transpose()?;
        if let Some(settle) = settle {
            check_settle_domain(&log, log.domain, settle)?;
        }
        let intervals = valid_intervals(run_interval, reconcile_interval)?;
        if let Some(origin) = origin {
            checkpoint::check_new_origin(session, &log, origin)?;
        }
        let checkpoint_interval = checkpoint_interval
            .map(valid_checkpoint_interval)
            .transpose()?;
        let verify_interval = verify_interval.map(valid_verify_interval).transpose()?;
        session.logs_changed()?;
        session.execute(
            "UPDATE @extschema@.verification_logs
                SET log_name = COALESCE($2, log_name), batch_size = COALESCE($3, batch_size),
                    settle = COALESCE($4, settle), run_interval = COALESCE($5, run_interval),
                    reconcile_interval = COALESCE($6, reconcile_interval),
                    find_by_hash = COALESCE($7, find_by_hash), origin = COALESCE($8, origin),
                    checkpoint_interval = NULLIF(COALESCE($9, checkpoint_interval), '0'::pg_catalog.interval),
                    verify_interval = NULLIF(COALESCE($10, verify_interval), '0'::pg_catalog.interval)
              WHERE log_id = $1",
            &[
                log.id.into(),
                new_name.as_deref().into(),
                batch_size.into(),
                settle.into(),
                intervals.0.into(),
                intervals.1.into(),
                find_by_hash.into(),
                origin.into(),
                checkpoint_interval.into(),
                verify_interval.into(),
            ],
        );
        if find_by_hash == Some(false) {
            hash_index::delete(session, &log, None);
        }
        if new_name.is_some() {
            Jobs::of(&[log.id]).renew(session);
        }
        // The administration log's own row is on no record.
        if log.id != administration::ADMINISTRATION {
            administration::record(session, Act::LogAltered { log_id: log.id });
        }
        Ok(())
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn enable_log(name: Option<&str>) -> Result<(), ErrorReport> {
    set_enabled(name, true)
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn disable_log(name: Option<&str>) -> Result<(), ErrorReport> {
    set_enabled(name, false)
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn pause_log(name: Option<&str>) -> Result<(), ErrorReport> {
    set_paused(name, true)
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn resume_log(name: Option<&str>) -> Result<(), ErrorReport> {
    set_paused(name, false)
}

fn set_paused(name: Option<&str>, paused: bool) -> Result<(), ErrorReport> {
    Session::write(name, |session| {
        let log = logs::by_name(session, Snapshot::Fresh, log_name("name", name)?)?;
        logs::check_not_administration(&log)?;
        session.execute(
            "UPDATE @extschema@.verification_logs SET paused = $2 WHERE log_id = $1",
            &[log.id.into(), paused.into()],
        );
        let log_id = log.id;
        let act = match paused {
            true => Act::LogPaused { log_id },
            false => Act::LogResumed { log_id },
        };
        administration::record(session, act);
        xact::after_commit(super::worker::wake);
        Ok(())
    })
}

fn set_enabled(name: Option<&str>, enabled: bool) -> Result<(), ErrorReport> {
    Session::write(name, |session| {
        let log = logs::by_name(session, Snapshot::Fresh, log_name("name", name)?)?;
        logs::check_not_administration(&log)?;
        session.execute(
            "UPDATE @extschema@.verification_logs SET enabled = $2 WHERE log_id = $1",
            &[log.id.into(), enabled.into()],
        );
        let log_id = log.id;
        let act = match enabled {
            true => Act::LogEnabled { log_id },
            false => Act::LogDisabled { log_id },
        };
        administration::record(session, act);
        Ok(())
    })
}

#[pg_extern(parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn drop_log(
    name: Option<&str>,
    confirm: default!(Option<bool>, false),
) -> Result<String, ErrorReport> {
    Session::write(name, |session| {
        let log = logs::lock_and_wait(session, log_name("name", name)?)?;
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
        let head = heads::latest(session, Snapshot::Fresh, &log);
        let act = Act::LogDropped {
            log_id: log.id,
            log_name: log.name.clone(),
            tree_size: head.as_ref().map_or(0, |h| h.tree_size),
            root: head.ok().map(|h| h.root),
        };
        administration::record(session, act);
        for source in sources::all(session, &log) {
            guard::uninstall(session, &source)?;
        }
        // A slice of a verification that is under way ends first; none begins any more.
        let sql = "DELETE FROM @extschema@.verification_logs WHERE log_id = $1";
        session.execute(sql, &[log.id.into()]);
        for table in [
            "merkle_source_state",
            "merkle_redacted_key",
            "verification_source_partitions",
            "verification_source_definitions",
            "merkle_ddl_command",
            "verification_source_retirements",
            "verification_source_columns",
            "verification_source_versions",
            "merkle_order_index",
            "merkle_set_aside",
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
            "merkle_late_entry",
            "merkle_hash_index",
            "merkle_sealed_range",
            "merkle_sealed_key",
            "merkle_pending",
            "merkle_finding",
            "merkle_verification",
        ] {
            let sql = format!("DELETE FROM @extschema@.{table} WHERE log_id = $1");
            session.execute(&sql, &[log.id.into()]);
        }
        gather::drop_log(log.id);
        Jobs::of(&[log.id]).remove(session);
        session.logs_changed()?;
        Ok(format!(
            "dropped log \"{}\" with {entries} entries, {sources} sources and {heads} tree heads",
            log.name
        ))
    })
}

fn valid_name(name: Option<&str>) -> Result<String, Error> {
    let name = required("name", name)?;
    let problem = match name.len() {
        0 => "it is empty",
        n if n > MAX_NAME => "it is longer than 63 bytes",
        _ if name == administration::ADMINISTRATION_NAME => {
            return Err(Error::Reserved(name.to_owned()));
        }
        _ if name.chars().any(char::is_control) => "it has a control character",
        _ => return Ok(name.to_owned()),
    };
    Err(Error::LogName {
        name: shortened(name),
        problem,
    })
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
    let run = run.map(|run| {
        let must = "an interval of 10 ms to 100 years";
        valid_interval("run_interval", must, MIN_RUN_INTERVAL, run)
    });
    let reconcile = reconcile.map(|reconcile| {
        let must = "an interval of zero (never) to 100 years";
        valid_interval("reconcile_interval", must, 0, reconcile)
    });
    Ok((run.transpose()?, reconcile.transpose()?))
}

fn valid_checkpoint_interval(interval: Interval) -> Result<Interval, Error> {
    let must = "an interval of zero (never) to 100 years";
    valid_interval("checkpoint_interval", must, 0, interval)
}

fn valid_verify_interval(interval: Interval) -> Result<Interval, Error> {
    let must = "an interval of zero (never) to 100 years";
    valid_interval("verify_interval", must, 0, interval)
}

fn valid_settle(settle: Interval) -> Result<Interval, Error> {
    valid_interval("settle", "an interval of zero to 100 years", 0, settle)
}

/// An interval that can be added to and subtracted from any time that a clock shows.
fn valid_interval(
    name: &'static str,
    must: &'static str,
    least: i128,
    interval: Interval,
) -> Result<Interval, Error> {
    let parts = [
        i128::from(interval.months()) * DAYS_OF_MONTH * MICROS_OF_DAY,
        i128::from(interval.days()) * MICROS_OF_DAY,
        i128::from(interval.micros()),
    ];
    // Parts that cancel each other out are still added one by one.
    let small = parts.iter().all(|part| part.abs() <= MAX_INTERVAL);
    match small && (least..=MAX_INTERVAL).contains(&interval.as_micros()) {
        true => Ok(interval),
        false => Err(Error::Argument {
            name,
            must,
            value: interval.to_string(),
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
