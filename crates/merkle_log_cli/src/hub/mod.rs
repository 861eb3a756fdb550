//! `hub`: pulls checkpoints of logs into a table that is a source of a log of its own (docs/hub.md): one timeline over
//! many databases.

mod bundle;
mod config;
mod database;
mod init;
mod metrics;
mod pull;

use crate::connection::Connection;
use crate::follow::{Followed, heartbeat};
use crate::http::report;
use crate::output::{Failure, printable, say};
use config::Config;
use database::Hub;
use metrics::{Program, Standing};
use pull::{Outcome, pull};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration (TOML)
    #[arg(short, long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Pull every log once, and end: 0 good, 1 proven bad, 2 could not tell
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Makes the hub's tables and its log
    Init(init::Options),
    /// Proves that a row is in its log, and the log's checkpoint in the hub's log
    Bundle(bundle::Options),
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    match (&options.command, &options.config) {
        (Some(Command::Init(options)), _) => init::run(options),
        (Some(Command::Bundle(options)), _) => bundle::run(options),
        (None, Some(config)) => {
            report(json);
            pull_all(options, Config::read(config)?, json)
        }
        (None, None) => Err(Failure::Said("--config names a file".to_owned())),
    }
}

fn pull_all(options: &Options, config: Config, json: bool) -> Result<ExitCode, Failure> {
    let runtime = Runtime::new()?;
    let hub = Hub::new(
        runtime.handle().clone(),
        options.connection.or(config.database.as_deref()),
        &config.hub,
        config.statement_seconds,
    );
    let logs = config.logs.iter().map(|log| log.open(runtime.handle()));
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    match options.once {
        true => once(&config, &hub, &logs, json),
        false => follow(config, hub, logs, &runtime),
    }
}

/// What is new becomes part of the hub's log, and is signed.
fn append(config: &Config, hub: &Hub) -> Result<(), Failure> {
    if config.batch {
        hub.batch()?;
    }
    match config.sign {
        true => hub.sign(),
        false => Ok(()),
    }
}

fn once(config: &Config, hub: &Hub, logs: &[Followed], json: bool) -> Result<ExitCode, Failure> {
    // One that is slow does not hold up the others.
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = logs
            .iter()
            .map(|log| scope.spawn(|| pull(hub, log)))
            .collect();
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Undone("the pull panicked".to_owned()),
        });
        joined.collect()
    });
    for (log, outcome) in logs.iter().zip(&outcomes) {
        let (name, origin) = (&log.name, &log.origin);
        let verdict = match outcome {
            Outcome::Kept { .. } => "good",
            Outcome::Bad(_) => "bad",
            Outcome::Undone(_) => "unknown",
        };
        match json {
            true => say!(
                "{}",
                serde_json::json!({"log": name, "origin": origin, "verdict": verdict, "why": outcome.to_string()})
            )?,
            false => say!("{name}: {}", printable(&outcome.to_string()))?,
        }
    }
    let appended = append(config, hub);
    if outcomes
        .iter()
        .any(|outcome| matches!(outcome, Outcome::Bad(_)))
    {
        if let Err(Failure::Said(why)) = appended {
            tracing::error!(why = printable(&why), "the hub's log was not signed");
        }
        return Ok(ExitCode::from(1));
    }
    appended?;
    let all = outcomes
        .iter()
        .all(|outcome| matches!(outcome, Outcome::Kept { .. }));
    Ok(ExitCode::from(if all { 0 } else { 2 }))
}

fn follow(
    config: Config,
    hub: Hub,
    logs: Vec<Followed>,
    runtime: &Runtime,
) -> Result<ExitCode, Failure> {
    let (hub, interval) = (Arc::new(hub), Duration::from_secs(config.interval_seconds));
    let standings: Vec<_> = logs.iter().map(|log| Arc::new(Standing::of(log))).collect();
    let program = Arc::new(Program::new(standings.clone()));
    let address = config.listen.clone();
    for (log, standing) in logs.into_iter().zip(standings) {
        let hub = Arc::clone(&hub);
        std::thread::spawn(move || keep_pulling(&hub, &log, &standing, interval));
    }
    let signing = Arc::clone(&program);
    std::thread::spawn(move || keep_appending(&config, &hub, &signing));
    runtime.block_on(heartbeat::until_ended(
        address.as_deref(),
        metrics::PREFIX,
        program,
    ))?;
    // The threads end with the process.
    std::process::exit(0)
}

fn keep_pulling(hub: &Hub, log: &Followed, standing: &Standing, interval: Duration) {
    let (name, origin) = (&log.name, &log.origin);
    loop {
        let started = Instant::now();
        let outcome = pull(hub, log);
        // Each is said once, until it changes.
        if standing.set(&outcome) {
            let what = outcome.to_string();
            let what = printable(&what);
            match &outcome {
                Outcome::Kept { unbelieved: 0, .. } => {
                    tracing::info!(log = name, origin, what, "pulled");
                }
                Outcome::Kept { .. } => tracing::warn!(log = name, origin, what, "pulled"),
                Outcome::Bad(_) => tracing::error!(log = name, origin, what, "proven bad"),
                Outcome::Undone(_) => tracing::warn!(log = name, origin, what, "not pulled"),
            }
        }
        std::thread::sleep(interval.saturating_sub(started.elapsed()));
    }
}

fn keep_appending(config: &Config, hub: &Hub, program: &Program) {
    loop {
        let appended = append(config, hub).map_err(|failure| match failure {
            Failure::Said(why) => why,
            Failure::Unheard => "nobody listens".to_owned(),
        });
        if program.appended(&appended) {
            match &appended {
                Ok(()) => tracing::info!(hub = hub.log, "the hub's log goes on"),
                Err(why) => {
                    let why = printable(why);
                    tracing::error!(hub = hub.log, why, "the hub's log does not go on");
                }
            }
        }
        std::thread::sleep(Duration::from_secs(config.interval_seconds));
    }
}
