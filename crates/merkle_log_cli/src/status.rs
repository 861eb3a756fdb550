//! `status`: what the logs of a database are doing.

use crate::connection;
use crate::database::{Database, block_on};
use crate::output::{Failure, printable, say};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {
    /// Only these logs
    logs: Vec<String>,
    #[command(flatten)]
    connection: connection::Connection,
}

/// What a log `s` of the status view is doing, in one word.
pub const STATE: &str = "
           CASE WHEN s.held_as_copy_of IS NOT NULL THEN 'held'
                WHEN NOT s.enabled THEN 'disabled'
                WHEN s.paused THEN 'paused'
                WHEN s.last_error IS NOT NULL THEN 'failing'
                WHEN s.source_problems IS NOT NULL OR s.waiting_for IS NOT NULL THEN 'waiting'
                ELSE 'running' END";

/// What keeps it from doing so.
pub const PROBLEM: &str = "pg_catalog.concat_ws('; ', s.held_as_copy_of, s.last_error, s.source_problems, s.waiting_for,
                   CASE WHEN s.open_findings > 0 THEN pg_catalog.format('%s open findings: see findings()', s.open_findings) END,
                   CASE WHEN s.verify_problem IS NOT NULL THEN 'not verified: ' || s.verify_problem END)";

/// The size of its newest checkpoint.
pub const SIGNED: &str = "
           (SELECT c.tree_size FROM @extschema@.merkle_log_checkpoints c
             WHERE c.log_name = s.log_name ORDER BY c.tree_size DESC LIMIT 1)";

fn table() -> String {
    format!(
        "SELECT s.log_name, {STATE},
                s.sources::text, s.tree_size::text, COALESCE(s.lag_rows::text, '?'),
                COALESCE(round(s.lag_seconds::numeric, 1)::text, '?'),
                COALESCE({SIGNED}::text, '-'),
                COALESCE(to_char(s.last_batch_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '-'),
                {PROBLEM}
           FROM @extschema@.merkle_log_status s"
    )
}

const HEADINGS: [&str; 9] = [
    "log",
    "state",
    "sources",
    "entries",
    "lag rows",
    "lag s",
    "signed",
    "last batch",
    "problem",
];

/// Whether a column holds numbers, which stand to the right.
const NUMBERS: std::ops::RangeInclusive<usize> = 2..=6;

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let filter = "WHERE $1::pg_catalog.text[] = '{}' OR s.log_name = ANY ($1) ORDER BY s.log_name";
    let sql = match json {
        true => format!("SELECT to_jsonb(s)::text FROM @extschema@.merkle_log_status s {filter}"),
        false => format!("{} {filter}", table()),
    };
    let rows = block_on(async {
        Database::connect(&options.connection)
            .await?
            .rows(&sql, &[&options.logs])
            .await
    })?;
    if json {
        rows.iter()
            .try_for_each(|row| say!("{}", row.get::<_, String>(0)))?;
    } else {
        let cells = |row: &tokio_postgres::Row| {
            (0..HEADINGS.len())
                .map(|column| printable(row.get(column)))
                .collect()
        };
        let mut table: Vec<Vec<String>> = vec![HEADINGS.map(str::to_owned).to_vec()];
        table.extend(rows.iter().map(cells));
        print(&table)?;
    }
    match options.logs.len() > rows.len() {
        true => Err(Failure::Said("not all of these logs exist".to_owned())),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn print(table: &[Vec<String>]) -> Result<(), Failure> {
    let width = |column: usize| {
        table
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..HEADINGS.len()).map(width).collect();
    for row in table {
        let cells =
            row.iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match NUMBERS.contains(&column) {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:width$}"),
                });
        say!("{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
