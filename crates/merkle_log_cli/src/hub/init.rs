//! `hub init`: the tables of a hub, and the log that they are sources of.

use crate::connection::{Connection, failed};
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
        // Whoever runs them has the extension's schema in the search_path.
        say!("BEGIN;\n{}\nCOMMIT;", statements(options, ""))?;
        return Ok(ExitCode::SUCCESS);
    }
    block_on(async {
        let database = Database::connect(&options.connection).await?;
        let schema = format!("{}.", database.schema());
        let all = format!("BEGIN;\n{}\nCOMMIT", statements(options, &schema));
        database.client().batch_execute(&all).await.map_err(failed)
    })?;
    say!(
        "the tables hub.checkpoints and hub.convictions are sources of the log {}",
        printable(&options.log)
    )?;
    Ok(ExitCode::SUCCESS)
}

/// All that makes a hub, with what goes before the names of the extension's functions.
fn statements(options: &Options, schema: &str) -> String {
    let log = literal(&options.log);
    let origin = options.origin.as_deref().map_or("NULL".to_owned(), literal);
    let mut statements =
        format!("{TABLES}\nSELECT {schema}create_log({log}, origin => {origin});\n");
    for table in ["hub.checkpoints", "hub.convictions"] {
        // Leaf data are stored, so that bundles show the checkpoint; the trigger misses no row.
        statements += &format!(
            "SELECT {schema}add_source({log}, '{table}', capture => 'trigger', store_leaf_data => true);\n"
        );
    }
    statements.truncate(statements.trim_end().len());
    statements
}

/// A text as a literal of SQL, whatever the server's standard_conforming_strings.
fn literal(text: &str) -> String {
    let text = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", text.replace('\\', "\\\\")),
        false => format!("'{text}'"),
    }
}
