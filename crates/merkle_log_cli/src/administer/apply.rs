//! `apply`: logs and sources as a file declares them. What the file does not name is left as it is.

use super::call::{Argument, Call};
use super::settings::{LogSettings, SourceSettings};
use super::{log, source};
use crate::connection;
use crate::database::{Database, block_on};
use crate::output::{Failure, say};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    /// Logs and sources (TOML): [logs.NAME], and [logs.NAME.sources."SCHEMA.TABLE"]
    file: PathBuf,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Also remove the sources of a declared log that the file does not name. Logs are never dropped
    #[arg(long)]
    remove_sources: bool,
    #[command(flatten)]
    connection: connection::Connection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    #[serde(default)]
    logs: BTreeMap<String, DeclaredLog>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredLog {
    batch_size: Option<u32>,
    settle: Option<String>,
    run_interval: Option<String>,
    reconcile_interval: Option<String>,
    find_by_hash: Option<bool>,
    origin: Option<String>,
    checkpoint_interval: Option<String>,
    enabled: Option<bool>,
    paused: Option<bool>,
    #[serde(default)]
    sources: BTreeMap<String, SourceSettings>,
}

impl DeclaredLog {
    fn settings(&self) -> LogSettings {
        LogSettings {
            batch_size: self.batch_size,
            settle: self.settle.clone(),
            run_interval: self.run_interval.clone(),
            reconcile_interval: self.reconcile_interval.clone(),
            find_by_hash: self.find_by_hash,
            origin: self.origin.clone(),
            checkpoint_interval: self.checkpoint_interval.clone(),
        }
    }
}

/// What can be changed of a source that is there.
const ALTERABLE: [&str; 6] = [
    "columns",
    "hash_column",
    "append_only",
    "allow_truncate",
    "store_leaf_data",
    "record_statement",
];

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let text = std::fs::read_to_string(&options.file).map_err(Failure::of(&options.file))?;
    let declared: Declared = toml::from_str(&text)
        .map_err(|error| Failure::Said(format!("{}: {error}", options.file.display())))?;
    block_on(async {
        let database = Database::connect(&options.connection).await?;
        // All of it, or nothing.
        database.batch("BEGIN").await?;
        let calls = difference(&database, &declared, options.remove_sources).await?;
        for call in &calls {
            if !options.dry_run {
                call.make(&database).await?;
            }
        }
        database
            .batch(if options.dry_run {
                "ROLLBACK"
            } else {
                "COMMIT"
            })
            .await?;
        for call in &calls {
            call.report(json)?;
        }
        match calls.is_empty() && !json {
            true => say!("everything is as declared"),
            false => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn difference(
    database: &Database,
    declared: &Declared,
    remove: bool,
) -> Result<Vec<Call>, Failure> {
    let mut calls = Vec::new();
    for (name, log) in &declared.logs {
        let sql =
            "SELECT l.enabled, l.paused FROM @extschema@.verification_logs l WHERE l.log_name = $1";
        let found = database.rows(sql, &[name]).await?;
        let (enabled, paused) = match found.first() {
            Some(found) => {
                let row = "@extschema@.verification_logs WHERE log_name = $1";
                let changed = changed(database, row, &[name], log.settings().arguments()).await?;
                if !changed.is_empty() {
                    calls.push(Call::new(
                        "alter_log",
                        [log::name(name)].into_iter().chain(changed),
                    ));
                }
                calls.extend(sources(database, name, &log.sources, remove).await?);
                (found.get(0), found.get(1))
            }
            None => {
                calls.push(Call::new(
                    "create_log",
                    [log::name(name)]
                        .into_iter()
                        .chain(log.settings().arguments()),
                ));
                calls.extend(
                    log.sources
                        .iter()
                        .map(|(table, settings)| add(name, table, settings)),
                );
                (true, false)
            }
        };
        for (wanted, is, functions) in [
            (log.enabled, enabled, ["disable_log", "enable_log"]),
            (log.paused, paused, ["resume_log", "pause_log"]),
        ] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
                calls.push(Call::new(functions[usize::from(wanted)], [log::name(name)]));
            }
        }
    }
    Ok(calls)
}

fn add(log: &str, table: &str, settings: &SourceSettings) -> Call {
    Call::new(
        "add_source",
        source::named(log, table)
            .into_iter()
            .chain(settings.arguments()),
    )
}

/// Of the sources of a log that is there.
async fn sources(
    database: &Database,
    log: &str,
    declared: &BTreeMap<String, SourceSettings>,
    remove: bool,
) -> Result<Vec<Call>, Failure> {
    let (mut calls, mut kept) = (Vec::new(), Vec::new());
    let active = "FROM @extschema@.merkle_log_sources WHERE log_name = $1 AND removed_at IS NULL";
    for (table, settings) in declared {
        let sql = format!(
            "SELECT relation::pg_catalog.text {active} AND relation = $2::pg_catalog.text::pg_catalog.regclass"
        );
        let found = database.rows(&sql, &[&log, table]).await?;
        let Some(name) = found.first().map(|row| row.get::<_, String>(0)) else {
            calls.push(add(log, table, settings));
            continue;
        };
        let row = "@extschema@.merkle_log_sources WHERE log_name = $1 AND removed_at IS NULL AND relation::pg_catalog.text = $2";
        let changed = changed(database, row, &[log, &name], settings.lasting()).await?;
        if let Some(fixed) = changed
            .iter()
            .find(|argument| !ALTERABLE.contains(&argument.name))
        {
            return Err(Failure::Said(format!(
                "{} of the source {table} of log {log} is declared otherwise than it is, and cannot be changed\n\
                 Hint: Remove the source and add it again; its entries stay.",
                fixed.name
            )));
        }
        if !changed.is_empty() {
            calls.push(Call::new(
                "alter_source",
                source::named(log, table).into_iter().chain(changed),
            ));
        }
        kept.push(name);
    }
    if remove {
        let rows = database
            .rows(
                &format!("SELECT relation::pg_catalog.text {active} ORDER BY 1"),
                &[&log],
            )
            .await?;
        let names = rows
            .iter()
            .map(|row| row.get::<_, String>(0))
            .filter(|name| !kept.contains(name));
        calls.extend(names.map(|name| Call::new("remove_source", source::named(log, &name))));
    }
    Ok(calls)
}

/// Those settings that a row has not yet. An interval of zero is none.
async fn changed(
    database: &Database,
    row: &str,
    key: &[&str],
    settings: Vec<Argument>,
) -> Result<Vec<Argument>, Failure> {
    let mut changed = Vec::new();
    for setting in settings {
        let none = match setting.name {
            "checkpoint_interval" => "'0'",
            "hash_column" => "''",
            "columns" => "'{}'",
            _ => "NULL",
        };
        let sql = format!(
            "SELECT COALESCE({}, {none}) IS NOT DISTINCT FROM {} FROM {row}",
            setting.name,
            setting.parameter(key.len() + 1)
        );
        let key = key
            .iter()
            .map(|part| part as &(dyn tokio_postgres::types::ToSql + Sync));
        let parameters: Vec<_> = key.chain([setting.to_sql()]).collect();
        if !database.one::<bool>(&sql, &parameters).await? {
            changed.push(setting);
        }
    }
    Ok(changed)
}
