//! `geometric-ledger`: looks after a ledger from outside.
//!
//! Commands that read work whether a process has the ledger open or not (see
//! [`geometric_ledger::Reader`]). Those that write open it, do one thing, and close it; a ledger has one
//! writer at a time.

mod accounts;
mod export;
mod follow;
mod import;
mod key;
mod load;
mod look;
mod options;
mod output;
mod parquet_file;
mod proof;
mod stop;
mod transfers;
mod write;

use clap::{Args, Parser, Subcommand, ValueEnum};
use geometric_ledger::{Key, TransferId};
use options::Tuning;
use output::Failure;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "geometric-ledger",
    version,
    about = "Looks after geometric_ledger account stores",
    after_help = "Exit codes: 0 done; 1 an account or a transfer is not there, a recorded transfer was refused, or something \
                  is not right (verify, audit, check-proof); 2 failed."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    key: key::Source,
    #[command(flatten)]
    tuning: Tuning,
    /// How the log on standard error is written; RUST_LOG says how much (info, or
    /// geometric_ledger=debug)
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Args)]
struct Ledger {
    /// The ledger's directory
    ledger: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Creates an empty ledger
    Create {
        #[command(flatten)]
        at: Ledger,
        /// A power of two up to 256; cannot be changed later
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
        shards: u16,
    },
    /// Shows accounts; exit code 1 if one is not there
    Get {
        #[command(flatten)]
        at: Ledger,
        /// Each 64 hexadecimal digits
        #[arg(required = true, value_parser = accounts::parse_key)]
        keys: Vec<Key>,
        /// As they were after this batch
        #[arg(long)]
        batch: Option<u64>,
        /// A JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Sets an account, creating it if it is not there; what is not given stays as it is
    Put {
        #[command(flatten)]
        at: Ledger,
        /// 64 hexadecimal digits
        #[arg(value_parser = accounts::parse_key)]
        key: Key,
        #[command(flatten)]
        change: write::Change,
    },
    /// Moves an amount from one account to another
    Transfer {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        transfer: write::Transfer,
    },
    /// Moves an amount from one account to another, at once or in two steps, and keeps a record of it; exit
    /// code 1 if it is refused
    Record {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        record: transfers::Record,
    },
    /// Gives what is pending, or a part of it, to its payee
    Post {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        post: transfers::Post,
    },
    /// Gives what is pending back to its payer
    Void {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        void: transfers::Void,
    },
    /// Does the recorded transfers of a file in one batch, those that are linked all or none; exit code 1
    /// if any is refused
    Submit {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        submit: transfers::Submit,
    },
    /// Shows recorded transfers; exit code 1 if one is not there
    Lookup {
        #[command(flatten)]
        at: Ledger,
        /// Each 32 hexadecimal digits
        #[arg(required = true, value_parser = transfers::parse_id)]
        ids: Vec<TransferId>,
        /// A JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Shows what recorded transfers changed of an account's balance
    Statement {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        statement: transfers::Statement,
    },
    /// Shows what an account was, newest first, as far back as the write-ahead log is kept
    History {
        #[command(flatten)]
        at: Ledger,
        /// 64 hexadecimal digits
        #[arg(value_parser = accounts::parse_key)]
        key: Key,
        /// States at the most
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// A JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Writes a proof (JSON): that a batch is in the log of batches, or that the log only grew
    Proof {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        what: proof::Wanted,
    },
    /// Checks a proof, without any ledger; exit code 1 if it proves nothing
    CheckProof(proof::Check),
    /// Shows what a ledger is, and what opening it had to do
    Inspect(Ledger),
    /// Shows numbers of a ledger and of its shards
    Stats {
        #[command(flatten)]
        at: Ledger,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Reads everything and reports what is not right; exit code 1 if anything is
    Verify(Ledger),
    /// Sums up all balances and compares with what was minted and burned; exit code 1 if they differ
    Audit(Ledger),
    /// Gives the space of deleted accounts back
    Compact(Ledger),
    /// Writes a snapshot, full or of what came after another one
    Snapshot {
        #[command(flatten)]
        at: Ledger,
        /// The file to write
        file: PathBuf,
        /// Only what came after the snapshot of this batch
        #[arg(long)]
        since: Option<u64>,
    },
    /// Makes a ledger from a full snapshot and those that add to it
    Restore {
        #[command(flatten)]
        at: Ledger,
        #[arg(required = true)]
        snapshots: Vec<PathBuf>,
    },
    /// Writes all accounts to a .csv or .parquet file
    Export {
        #[command(flatten)]
        at: Ledger,
        file: PathBuf,
    },
    /// Puts all accounts of a .csv or .parquet file into a ledger; interrupted, it is run again
    Import {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        import: import::Import,
    },
    /// Follows another ledger, until it is told to stop
    Follow {
        #[command(flatten)]
        at: Ledger,
        #[command(flatten)]
        follow: follow::Follow,
    },
    /// Publishes committed batches into a PostgreSQL table
    Publish {
        #[command(flatten)]
        at: Ledger,
        /// As libpq's: host=/run/postgresql user=ledger dbname=app
        #[arg(long)]
        to: String,
        #[arg(long, default_value = "ledger_batches")]
        table: String,
    },
    /// Seals an encrypted ledger under another key
    RotateKey {
        #[command(flatten)]
        at: Ledger,
        /// A file of 32 bytes, or of 64 hexadecimal digits
        #[arg(long)]
        new_key_file: PathBuf,
    },
    /// Measures a new ledger on this machine's disk
    Bench(load::Load),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log_format);
    run(cli).unwrap_or_else(Failure::exit)
}

/// Log lines go to standard error, which whoever runs the program keeps, and rotates: journald, say.
fn start_log(format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let key = cli.key.read()?;
    let options = cli.tuning.options(key.clone());
    let done = |()| ExitCode::SUCCESS;
    match cli.command {
        Command::Create { at, shards } => write::create(&at.ledger, options.shards(shards)),
        Command::Get {
            at,
            keys,
            batch,
            json,
        } => return look::get(look::open(&at.ledger, options)?, &keys, batch, json),
        Command::Put { at, key, change } => write::put(&at.ledger, options, key, &change),
        Command::Transfer { at, transfer } => write::transfer(&at.ledger, options, &transfer),
        Command::Record { at, record } => return transfers::record(&at.ledger, options, &record),
        Command::Post { at, post } => return transfers::post(&at.ledger, options, &post),
        Command::Void { at, void } => return transfers::void(&at.ledger, options, &void),
        Command::Submit { at, submit } => return transfers::submit(&at.ledger, options, &submit),
        Command::Lookup { at, ids, json } => {
            return transfers::lookup(look::open(&at.ledger, options)?, &ids, json);
        }
        Command::Statement { at, statement } => {
            return transfers::statement(look::open(&at.ledger, options)?, &statement);
        }
        Command::History {
            at,
            key,
            limit,
            json,
        } => return look::history(look::open(&at.ledger, options)?, &key, limit, json),
        Command::Proof { at, what } => proof::prove(look::open(&at.ledger, options)?, &what),
        Command::CheckProof(check) => return check.run(),
        Command::Inspect(at) => look::inspect(look::open(&at.ledger, options)?),
        Command::Stats { at, json } => {
            let stats = look::open(&at.ledger, options)?.stats()?;
            look::stats(&stats, json)
        }
        Command::Verify(at) => return look::verify(look::open(&at.ledger, options)?),
        Command::Audit(at) => return look::audit(look::open(&at.ledger, options)?),
        Command::Compact(at) => write::compact(&at.ledger, options),
        Command::Snapshot { at, file, since } => {
            look::snapshot(look::open(&at.ledger, options)?, &file, since)
        }
        Command::Restore { at, snapshots } => write::restore(&at.ledger, &snapshots, options),
        Command::Export { at, file } => export::export(look::open(&at.ledger, options)?, &file),
        Command::Import { at, import } => write::import(&at.ledger, options, &import),
        Command::Follow { at, follow } => follow.run(&at.ledger, options),
        Command::Publish { at, to, table } => {
            look::publish(look::open(&at.ledger, options)?, &to, &table)
        }
        Command::RotateKey { at, new_key_file } => {
            write::rotate_key(&at.ledger, key, &new_key_file)
        }
        Command::Bench(load) => load.run(options),
    }
    .map(done)
}
