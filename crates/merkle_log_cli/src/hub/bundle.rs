//! `hub bundle`: a bundle in two levels (docs/proof-format.md): a row is in its log, whose checkpoint is in the hub's log.

use crate::connection::{Connection, failed};
use crate::database::{Database, block_on};
use crate::files;
use crate::output::{Failure, say};
use std::path::PathBuf;
use std::process::ExitCode;
use tlog::ProofBundle;

#[derive(clap::Args)]
pub struct Options {
    /// The log that has the row
    log: String,
    /// The row's table
    table: String,
    /// The values of the row's key
    #[arg(required = true)]
    key: Vec<String>,
    /// The hub's database, as --dbname names the log's
    #[arg(long, value_name = "NAME")]
    hub: String,
    /// What the hub's log is called
    #[arg(long, default_value = "hub")]
    hub_log: String,
    /// Where to write the bundle, as JSON, or as CBOR if the name ends in .cbor; otherwise it is printed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// So many checkpoints of the hub are tried: the newest ones may not be entries of its log yet, or not signed.
const TRIED: i64 = 100;

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let bundle = block_on(nested(options))?;
    match &options.out {
        None => say!("{}", bundle.to_json())?,
        Some(path) => {
            let content = match path.extension().is_some_and(|name| name == "cbor") {
                true => bundle.to_cbor(),
                false => bundle.to_json().into_bytes(),
            };
            files::replace(path, &content).map_err(Failure::of(path))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn nested(options: &Options) -> Result<ProofBundle, Failure> {
    let database = Database::connect(&options.connection).await?;
    let hub = Database::connect(&Connection::default().or(Some(&options.hub))).await?;
    let sql = "SELECT leaf_index FROM @extschema@.inclusion_proof_of($1, $2::pg_catalog.text::pg_catalog.regclass, VARIADIC $3::pg_catalog.text[])";
    let index: i64 = database
        .one(sql, &[&options.log, &options.table, &options.key])
        .await?;
    let sql = "SELECT origin FROM @extschema@.merkle_log_checkpoints WHERE log_name = $1 LIMIT 1";
    let rows = database.rows(sql, &[&options.log]).await?;
    let origin: String = match rows.first() {
        Some(row) => row.try_get(0).map_err(failed)?,
        None => {
            return Err(Failure::Said(format!(
                "the log {:?} has no checkpoint",
                options.log
            )));
        }
    };
    let sql = "SELECT tree_size FROM hub.checkpoints WHERE origin = $1 AND tree_size > $2 ORDER BY tree_size DESC LIMIT $3";
    let sizes = hub.rows(sql, &[&origin, &index, &TRIED]).await?;
    let mut why = None;
    for size in &sizes {
        let size: i64 = size.try_get(0).map_err(failed)?;
        let outer = "SELECT cbor FROM @extschema@.proof_bundle_of($1, 'hub.checkpoints'::pg_catalog.regclass, VARIADIC ARRAY[$2, $3::pg_catalog.int8::pg_catalog.text])";
        let outer: Vec<u8> = match hub.one(outer, &[&options.hub_log, &origin, &size]).await {
            Ok(outer) => outer,
            // It is a row, and not an entry under a checkpoint of the hub yet.
            Err(failure) => {
                why.get_or_insert(failure);
                continue;
            }
        };
        let inner = "SELECT cbor FROM @extschema@.proof_bundle_at($1, $2, $3)";
        let inner: Vec<u8> = database.one(inner, &[&options.log, &size, &index]).await?;
        let inner = ProofBundle::from_cbor(&inner)?;
        return Ok(inner.nest(ProofBundle::from_cbor(&outer)?)?);
    }
    Err(why.unwrap_or_else(|| {
        Failure::Said(format!(
            "the hub has no checkpoint of {origin:?} yet that covers the row's entry {index}\n\
             Hint: It has one after the log's next checkpoint, and the hub's next pull."
        ))
    }))
}
