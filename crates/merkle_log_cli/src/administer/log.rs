//! `log`: makes, changes, stops and drops logs.

use super::call::{Argument, Call};
use super::settings::LogSettings;
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
    /// Makes a log
    Create {
        log: String,
        #[command(flatten)]
        settings: LogSettings,
    },
    /// Changes settings of a log, or its name
    Alter {
        log: String,
        /// The new name
        #[arg(long)]
        rename: Option<String>,
        #[command(flatten)]
        settings: LogSettings,
    },
    /// Lets the background worker pass over a log; its changes are still captured
    Pause { log: String },
    /// Lets the background worker run a log again
    Resume { log: String },
    /// Lets batches run again
    Enable { log: String },
    /// Lets no batch run
    Disable { log: String },
    /// Drops a log with its entries; what was published of it cannot be gone on with
    Drop {
        log: String,
        /// Drop it though it has entries
        #[arg(long)]
        confirm: bool,
    },
}

pub fn name(log: &str) -> Argument {
    Argument::text("name", "pg_catalog.text", log)
}

impl Command {
    fn call(&self) -> Call {
        match self {
            Command::Create { log, settings } => Call::new(
                "create_log",
                [name(log)].into_iter().chain(settings.arguments()),
            ),
            Command::Alter {
                log,
                rename,
                settings,
            } => {
                let new_name = rename
                    .as_ref()
                    .map(|new| Argument::text("new_name", "pg_catalog.text", new));
                Call::new(
                    "alter_log",
                    [name(log)]
                        .into_iter()
                        .chain(new_name)
                        .chain(settings.arguments()),
                )
            }
            Command::Pause { log } => Call::new("pause_log", [name(log)]),
            Command::Resume { log } => Call::new("resume_log", [name(log)]),
            Command::Enable { log } => Call::new("enable_log", [name(log)]),
            Command::Disable { log } => Call::new("disable_log", [name(log)]),
            Command::Drop { log, confirm } => {
                let confirm = Argument::text("confirm", "pg_catalog.bool", confirm);
                Call::new("drop_log", [name(log), confirm])
            }
        }
    }
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let call = options.command.call();
    block_on(async {
        call.make(&Database::connect(&options.connection).await?)
            .await
    })?;
    call.report(json)?;
    Ok(ExitCode::SUCCESS)
}
