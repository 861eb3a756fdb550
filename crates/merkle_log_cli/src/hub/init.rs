//! `hub init`: the tables of a hub, and the log that they are sources of.

use crate::connection::Connection;
use crate::database::{Database, block_on};
use crate::output::{Failure, printable, say};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    /// What the hub's log is called
    #[arg(long, default_value = "hub")]
    log: String,
    /// The name of the hub's log outside, such as example.com/hub; otherwise merkle_log.origin_prefix and the log's name
    #[arg(long)]
    origin: Option<String>,
    /// Print the statements that make the tables, and do nothing
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    connection: Connection,
}

const TABLES: &str = include_str!("init.sql");

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    if options.print {
        say!("{}", TABLES.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    block_on(async {
        let database = Database::connect(&options.connection).await?;
        database.batch("BEGIN").await?;
        database.batch(TABLES).await?;
        let log = "SELECT @extschema@.create_log($1, origin => $2)";
        database.rows(log, &[&options.log, &options.origin]).await?;
        for table in ["hub.checkpoints", "hub.convictions"] {
            // Leaf data are stored, so that bundles show the checkpoint; the trigger misses no row.
            let source = "SELECT @extschema@.add_source($1, $2::pg_catalog.text::pg_catalog.regclass, capture => 'trigger', store_leaf_data => true)";
            database.rows(source, &[&options.log, &table]).await?;
        }
        database.batch("COMMIT").await
    })?;
    say!(
        "the tables hub.checkpoints and hub.convictions are sources of the log {}",
        printable(&options.log)
    )?;
    Ok(ExitCode::SUCCESS)
}
