//! `export`: a log as a C2SP tlog-tiles tree of files, with its entries (docs/export.md).
//!
//! The tiles are computed from the entries as they stream in. A tree is published by its checkpoint, which is
//! written after all files that it speaks of are stored; what lies beyond it was left by an exporter that was
//! interrupted, and is written again. A tree that is not a continuation of what is published is refused.

mod directory;
pub mod object_store;
mod source;
mod target;
mod tree;

use crate::connection;
use crate::database::{Database, block_on};
use crate::output::{Failure, printable, say};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use target::Target;
use tlog::Checkpoint;

#[derive(clap::Args)]
pub struct Options {
    /// The log's name
    log: String,
    /// A directory, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX
    target: String,
    /// Go on as the log grows, until interrupted
    #[arg(long)]
    follow: bool,
    /// With --follow, how many seconds to wait before looking for new entries
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Write all files anew: after redactions, so that entries go that were exported before, or to repair a tree
    #[arg(long)]
    again: bool,
    /// Publish the newest checkpoint that is signed already, instead of having a new one signed, which needs the right to
    #[arg(long)]
    no_sign: bool,
    #[command(flatten)]
    connection: connection::Connection,
}

/// Why an export ends.
#[derive(Debug)]
pub enum Stop {
    /// What the database has is proven to be no continuation of what is published.
    Bad(String),
    Failed(Failure),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

pub fn said(what: impl Into<String>) -> Stop {
    Stop::Failed(Failure::Said(what.into()))
}

/// What one round of exporting did.
pub struct Exported {
    pub checkpoint: Checkpoint,
    /// The size of the tree that was published before.
    pub before: u64,
    pub written: u64,
    /// Entries that were written without their leaf data.
    pub withheld: u64,
    /// Whether a checkpoint was published.
    pub published: bool,
    /// Published entries that were to be written anew and are not in the database any more.
    pub not_rewritten: u64,
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    match block_on(async { Ok(export(options, json).await) })? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Stop::Failed(failure)) => Err(failure),
        Err(Stop::Bad(what)) => {
            match json {
                true => say!(
                    "{}",
                    serde_json::json!({"log": options.log, "target": options.target, "verdict": "bad", "why": what})
                )?,
                false => eprintln!("merkle-log: BAD: {}", printable(&what)),
            }
            Ok(ExitCode::from(1))
        }
    }
}

async fn export(options: &Options, json: bool) -> Result<(), Stop> {
    let database = Database::connect(&options.connection).await?;
    let mut target = Target::open(&options.target).await?;
    let exported = round(options, &database, &mut target, options.again, json).await?;
    report(options, &exported, json)?;
    match options.follow {
        true => follow(options, database, target, json).await,
        false => Ok(()),
    }
}

/// Publishes what is new, again and again. What fails is tried again, but not what is proven to be bad.
async fn follow(
    options: &Options,
    mut database: Database,
    mut target: Target,
    json: bool,
) -> Result<(), Stop> {
    let interval = Duration::from_secs(options.interval);
    let mut failures = 0;
    loop {
        tokio::time::sleep(interval * 2u32.pow(failures)).await;
        let done = async {
            if database.is_closed() {
                database = Database::connect(&options.connection).await?;
            }
            round(options, &database, &mut target, false, json).await
        };
        match done.await {
            Ok(exported) => {
                failures = 0;
                if exported.published {
                    report(options, &exported, json)?;
                }
            }
            Err(Stop::Failed(Failure::Said(what))) => {
                failures = (failures + 1).min(6);
                eprintln!("merkle-log: {}; trying again", printable(&what));
            }
            Err(stop) => return Err(stop),
        }
    }
}

async fn round(
    options: &Options,
    database: &Database,
    target: &mut Target,
    again: bool,
    json: bool,
) -> Result<Exported, Stop> {
    target.overwrite(again);
    let log = source::Log::find(database, &options.log, !options.no_sign).await?;
    let mut export = tree::Export::begin(&log, target, again).await?;
    let bar = bar(export.remaining(), json);
    let done = export.copy_entries(&bar).await;
    bar.finish_and_clear();
    done?;
    export.publish().await
}

/// On a terminal, how far the export is.
fn bar(entries: u64, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() || entries < 10_000 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(entries);
    let style = ProgressStyle::with_template(
        "{bar:30} {human_pos} of {human_len} entries, {per_sec}, {eta} left",
    );
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn report(options: &Options, exported: &Exported, json: bool) -> Result<(), Failure> {
    if exported.not_rewritten > 0 {
        eprintln!(
            "merkle-log: the first {} entries were pruned in the database, so their bundles in the target are as they were, with the leaf data of entries that were redacted since\n\
             Hint: Delete tile/entries up to there in the target if they must go.",
            exported.not_rewritten
        );
    }
    let (checkpoint, new) = (
        &exported.checkpoint,
        exported.checkpoint.size().get() - exported.before,
    );
    if json {
        return say!(
            "{}",
            serde_json::json!({
                "log": options.log,
                "target": options.target,
                "verdict": "good",
                "checkpoint": {
                    "origin": checkpoint.origin(),
                    "size": checkpoint.size().get(),
                    "root": checkpoint.root().to_string(),
                },
                "new_entries": new,
                "written_entries": exported.written,
                "withheld_entries": exported.withheld,
                "published": exported.published,
                "not_rewritten_entries": exported.not_rewritten,
            })
        );
    }
    let withheld = match exported.withheld {
        0 => String::new(),
        withheld => format!(", {withheld} of the entries written only as hashes"),
    };
    say!(
        "{}: {} entries, {new} of them new{withheld}, root {}",
        printable(checkpoint.origin()),
        checkpoint.size(),
        checkpoint.root()
    )
}
