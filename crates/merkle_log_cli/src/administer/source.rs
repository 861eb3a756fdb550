//! `source`: adds tables to logs, and removes them.

use super::call::{Argument, Call};
use super::settings::SourceSettings;
use crate::connection;
use crate::database::{Database, block_on};
use crate::output::Failure;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: connection::Connection,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lets the rows of a table feed a log
    Add {
        log: String,
        /// The table, as SQL names it: public.orders
        table: String,
        #[command(flatten)]
        settings: Box<SourceSettings>,
    },
    /// Lets a table feed a log no more; its entries stay
    Remove { log: String, table: String },
}

/// The arguments that name a source.
pub fn named(log: &str, table: &str) -> [Argument; 2] {
    [
        Argument::text("log", "pg_catalog.text", log),
        Argument::text("source_table", "pg_catalog.regclass", table),
    ]
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let call = match &options.command {
        Command::Add {
            log,
            table,
            settings,
        } => Call::new(
            "add_source",
            named(log, table).into_iter().chain(settings.arguments()),
        ),
        Command::Remove { log, table } => Call::new("remove_source", named(log, table)),
    };
    block_on(async {
        call.make(&Database::connect(&options.connection).await?)
            .await
    })?;
    call.report(json)?;
    Ok(ExitCode::SUCCESS)
}
