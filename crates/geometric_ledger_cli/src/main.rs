//! `geometric-ledger`: looks after a ledger from outside. Each command opens it, does one thing, and
//! closes it; those that only look open it for reading.

mod exchange;
mod key;
mod load;

use clap::{Args, Parser, Subcommand};
use geometric_ledger::{Error, Follower, GeometricLedger, Options, Publisher};
use indicatif::{ProgressBar, ProgressStyle};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(
    name = "geometric-ledger",
    version,
    about = "Looks after geometric_ledger account stores"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    key: key::Source,
}

#[derive(Args)]
struct Ledger {
    /// The ledger's directory
    ledger: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Shows what a ledger is, and what opening it would have to do
    Inspect(Ledger),
    /// Shows numbers of a ledger and of its shards
    Stats(Ledger),
    /// Reads everything and reports what is not right; exit code 1 if anything is
    Verify(Ledger),
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
    /// Puts all accounts of a .csv or .parquet file into a ledger
    Import {
        #[command(flatten)]
        at: Ledger,
        file: PathBuf,
        /// Accounts in one batch
        #[arg(long, default_value_t = 10_000)]
        batch: usize,
    },
    /// Follows another ledger, until it is told to stop
    Follow {
        #[command(flatten)]
        at: Ledger,
        /// The directory of the ledger to follow, or a copy of its files
        #[arg(long)]
        from: PathBuf,
        /// The source is a copy of the ledger's files, not the directory that the ledger is open in
        #[arg(long)]
        copy: bool,
        /// Catch up and end
        #[arg(long)]
        once: bool,
        /// Serve metrics for Prometheus on this address
        #[arg(long)]
        metrics: Option<SocketAddr>,
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

/// What the program says when it cannot do as it was told.
#[derive(Debug)]
pub struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(error.to_string())
    }
}

impl Failure {
    pub fn new(what: impl Into<String>) -> Self {
        Failure(what.into())
    }
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(Failure(what)) => {
            eprintln!("geometric-ledger: {what}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let options = match cli.key.read()? {
        Some(key) => Options::new().key(key),
        None => Options::new(),
    };
    let reading = || options.clone().read_only();
    match cli.command {
        Command::Inspect(at) => inspect(&reading().open(&at.ledger)?)?,
        Command::Stats(at) => stats(&reading().open(&at.ledger)?),
        Command::Verify(at) => return verify(&reading().open(&at.ledger)?),
        Command::Compact(at) => {
            let ledger = existing(&at, options)?;
            println!("{} slots reclaimed", ledger.compact()?);
            ledger.close()?;
        }
        Command::Snapshot { at, file, since } => {
            let ledger = reading().open(&at.ledger)?;
            let spinner = spinner("accounts are written");
            let info = ledger.snapshot_to(&file, since)?;
            spinner.finish_and_clear();
            println!("snapshot of batch {} in {}", info.sequence, file.display());
        }
        Command::Restore { at, snapshots } => {
            let spinner = spinner("accounts are read");
            let ledger = GeometricLedger::restore(&at.ledger, &snapshots, options)?;
            spinner.finish_and_clear();
            stats(&ledger);
            ledger.close()?;
        }
        Command::Export { at, file } => exchange::export(&reading().open(&at.ledger)?, &file)?,
        Command::Import { at, file, batch } => {
            let ledger = options.open(&at.ledger)?;
            exchange::import(&ledger, &file, batch)?;
            ledger.close()?;
        }
        Command::Follow {
            at,
            from,
            copy,
            once,
            metrics,
        } => {
            if let Some(address) = metrics {
                serve_metrics(address)?;
            }
            let follower = Follower::open(&at.ledger, &from, options)?;
            let mut follower = if copy { follower.of_copy() } else { follower };
            loop {
                let taken = follower.catch_up()?;
                if once {
                    println!(
                        "{taken} batches taken, at batch {}",
                        follower.ledger().view().sequence()
                    );
                    break;
                }
                if taken == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        Command::Publish { at, to, table } => {
            let ledger = reading().open(&at.ledger)?;
            let published = Publisher::connect(&to, &table)?.publish(&ledger)?;
            println!("{published} batches published into {table}");
        }
        Command::RotateKey { at, new_key_file } => {
            let old = cli
                .key
                .read()?
                .ok_or_else(|| Failure::new("give the present key as well"))?;
            GeometricLedger::rotate_key(&at.ledger, &old, &key::from_file(&new_key_file)?)?;
            println!("the ledger opens with the new key only");
        }
        Command::Bench(load) => load.run(options)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A ledger to be written to, which must be there.
fn existing(at: &Ledger, options: Options) -> Result<GeometricLedger, Error> {
    options.clone().read_only().open(&at.ledger).map(drop)?;
    options.open(&at.ledger)
}

pub fn serve_metrics(address: SocketAddr) -> Result<(), Failure> {
    metrics_exporter_prometheus::PrometheusBuilder::new()
        .with_http_listener(address)
        .install()?;
    geometric_ledger::describe_metrics();
    Ok(())
}

pub fn bar(len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {per_sec} {eta}");
    ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn spinner(message: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

fn inspect(ledger: &GeometricLedger) -> Result<(), Failure> {
    let (info, recovery) = (ledger.info(), ledger.recovery());
    let (size, root) = ledger.root()?;
    println!("ledger       {}", key::hex(&info.id));
    println!("format       {}", info.format);
    println!("shards       {}", info.shards);
    println!("encrypted    {}", if info.encrypted { "yes" } else { "no" });
    println!("opened       {} times for writing", info.opened);
    println!("checkpoint   after batch {}", info.checkpoint);
    println!("history      batches {:?}", ledger.history());
    println!("batches      {size}");
    println!("root         {root}");
    match recovery.clean {
        true => println!("closed       cleanly"),
        false => println!(
            "closed       not; {} batches, {} bytes of log to be done again ({:?})",
            recovery.batches, recovery.bytes, recovery.duration
        ),
    }
    if recovery.superblock_repaired {
        println!("superblock   one of its two copies is damaged; opening for writing repairs it");
    }
    if recovery.indexes_rebuilt > 0 {
        let count = recovery.indexes_rebuilt;
        println!("indexes      {count} were missing or damaged, and are made again from the slots");
    }
    if recovery.tree_rebuilt {
        println!("tree         its hashes were missing or damaged, and are made again");
    }
    Ok(())
}

fn stats(ledger: &GeometricLedger) {
    let stats = ledger.stats();
    println!("accounts     {}", stats.accounts);
    println!("batches      {}", stats.sequence);
    println!("minted       {}", stats.totals.minted);
    println!("burned       {}", stats.totals.burned);
    println!("slots        {} bytes", stats.slots_bytes);
    println!("index        {} bytes", stats.index_bytes);
    println!("log          {} bytes", stats.wal_bytes);
    let slots = || stats.shards.iter().map(|shard| shard.slots);
    let loads = || stats.shards.iter().map(|shard| shard.load);
    println!(
        "shards       {}, of {} to {} slots, loaded {:.2} to {:.2}",
        stats.shards.len(),
        slots().min().unwrap_or(0),
        slots().max().unwrap_or(0),
        loads().fold(f64::INFINITY, f64::min),
        loads().fold(0.0, f64::max),
    );
}

fn verify(ledger: &GeometricLedger) -> Result<ExitCode, Failure> {
    let findings = ledger.verify()?;
    for finding in &findings {
        println!("{finding}");
    }
    let (size, root) = ledger.root()?;
    for sequence in 1..=size.get() {
        ledger.prove_batch(sequence)?.verify()?;
    }
    println!("{size} batches lead to the root {root}");
    match ledger.audit() {
        Ok(audit) => println!(
            "{} accounts hold {}: what was minted and not burned",
            audit.accounts, audit.balances
        ),
        Err(error) => {
            println!("{error}");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
