//! `monitor`: follows logs, checks all that they show, and tells when something is wrong (docs/monitor.md).
//!
//! It trusts nobody but the keys of its configuration. What it cannot look at is never good, and never called tampering.

mod check;
mod config;
mod event;
mod metrics;
mod state;
mod tell;

use crate::files;
use crate::follow::heartbeat;
use crate::http::report;
use crate::output::{Failure, printable, say};
use crate::rehash::Wanted;
use check::{Undone, Watched};
use config::Config;
use metrics::Program;
use state::State;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tell::Teller;
use tokio::runtime::Runtime;

#[derive(clap::Args)]
pub struct Options {
    /// The configuration (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Check every log once, tell what was found, and end: 0 good, 1 proven bad, 2 could not tell
    #[arg(long)]
    once: bool,
}

/// How often what time alone makes wrong is looked at.
const WATCH: Duration = Duration::from_secs(1);

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    report(json);
    let config = Config::read(&options.config)?;
    let runtime = Runtime::new()?;
    // No other process writes there as long as this one lives.
    let _lock = files::lock(&config.state)?;
    let tellers = Teller::all(&config.tell, runtime.handle())?;
    let logs = watched(&config, &tellers, &runtime)?;
    match options.once {
        true => once(&config, &logs, &tellers, json),
        false => follow(config, logs, tellers, &runtime),
    }
}

fn watched(
    config: &Config,
    tellers: &[Teller],
    runtime: &Runtime,
) -> Result<Vec<Arc<Watched>>, Failure> {
    let names = || tellers.iter().map(|teller| teller.name.clone()).collect();
    let open = |log: &crate::follow::LogConfig| {
        let followed = log.open(runtime.handle())?;
        let state = State::open(&config.state, &log.name, &followed.origin, names())?;
        Ok(Arc::new(Watched {
            followed,
            state: Mutex::new(state),
            wanted: match log.all_entries {
                true => Wanted::AllButPruned,
                false => Wanted::Served,
            },
            stale_seconds: log.stale_seconds,
            interval: Duration::from_secs(config.interval_seconds),
            quorum_seconds: config.quorum_seconds,
        }))
    };
    config.logs.iter().map(open).collect()
}

/// Checks a log in every way that is due; `time` is for reading everything again.
fn check(log: &Watched, config: &Config, time: Duration) -> Result<(), Undone> {
    log.check()?;
    log.reread(config.reread_seconds, time).map(drop)
}

fn once(
    config: &Config,
    logs: &[Arc<Watched>],
    tellers: &[Teller],
    json: bool,
) -> Result<ExitCode, Failure> {
    let check = |log: &Arc<Watched>| {
        let done = check(log, config, Duration::MAX)
            .and_then(|()| log.verify(config.verify_seconds, config.verify_limit_seconds));
        log.watch(config.unreachable_seconds, config.verify_seconds)?;
        Ok::<_, Failure>(done.err())
    };
    // One that is slow holds up neither the others nor what is told of them.
    let patience = Duration::from_secs(config.deliver_seconds);
    let are_checked = AtomicBool::new(false);
    let undone = std::thread::scope(|scope| {
        for teller in tellers {
            let are_checked = &are_checked;
            scope.spawn(move || teller.run_until(logs, are_checked, patience));
        }
        let started: Vec<_> = logs.iter().map(|log| scope.spawn(|| check(log))).collect();
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => Err(Failure::Said("a check panicked".to_owned())),
        });
        let undone: Vec<_> = joined.collect();
        are_checked.store(true, SeqCst);
        undone.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    let mut worst = 0;
    for (log, undone) in logs.iter().zip(&undone) {
        let code = conclude(log, undone.as_ref(), json)?;
        worst = match (worst, code) {
            (1, _) | (_, 1) => 1,
            (a, b) => a.max(b),
        };
    }
    Ok(ExitCode::from(worst))
}

/// Says how a log stands; the exit code that this means.
fn conclude(log: &Watched, undone: Option<&Undone>, json: bool) -> Result<u8, Failure> {
    let state = log.state();
    let conditions = &state.recorded.conditions;
    let (code, verdict) = match (conditions.values().any(|c| c.proven), undone) {
        (true, _) => (1, "bad"),
        (false, None) if conditions.is_empty() => (0, "good"),
        _ => (2, "unknown"),
    };
    let why: Vec<_> = conditions
        .iter()
        .map(|(kind, condition)| format!("{kind}: {}", condition.detail))
        .chain(undone.map(|undone| undone.0.clone()))
        .collect();
    let (size, entries) = (state.recorded.size, state.recorded.entries);
    match json {
        true => say!(
            "{}",
            serde_json::json!({
                "log": state.log, "origin": state.origin, "verdict": verdict,
                "size": size, "entries": entries, "conditions": conditions, "why": why,
            })
        )?,
        false => {
            let shown = match verdict {
                "good" => format!("good, {size} entries, {entries} of them hashed"),
                "bad" => format!("BAD: {}", why.join("; ")),
                _ => format!("could not tell: {}", why.join("; ")),
            };
            say!("{}: {}", state.log, printable(&shown))?;
        }
    }
    Ok(code)
}

fn follow(
    config: Config,
    logs: Vec<Arc<Watched>>,
    tellers: Vec<Teller>,
    runtime: &Runtime,
) -> Result<ExitCode, Failure> {
    let program = Arc::new(Program::new(logs.clone()));
    let config = Arc::new(config);
    for log in &logs {
        let (checked, settings) = (Arc::clone(log), Arc::clone(&config));
        std::thread::spawn(move || keep_checking(&checked, &settings));
        if log.followed.database.is_some() {
            let (verified, settings) = (Arc::clone(log), Arc::clone(&config));
            std::thread::spawn(move || keep_verifying(&verified, &settings));
        }
    }
    for teller in tellers {
        let logs = logs.clone();
        std::thread::spawn(move || teller.run(&logs));
    }
    let (watching, settings) = (Arc::clone(&program), Arc::clone(&config));
    std::thread::spawn(move || keep_watching(&logs, &settings, &watching));
    let address = config.listen.as_deref();
    runtime.block_on(heartbeat::until_ended(address, metrics::PREFIX, program))?;
    // The threads end with the process.
    std::process::exit(0)
}

fn keep_watching(logs: &[Arc<Watched>], config: &Config, program: &Program) {
    loop {
        program.beat();
        for log in logs {
            if let Err(Failure::Said(why)) =
                log.watch(config.unreachable_seconds, config.verify_seconds)
            {
                let name = &log.followed.name;
                tracing::error!(log = name, why, "the state cannot be kept");
            }
        }
        std::thread::sleep(WATCH);
    }
}

fn keep_checking(log: &Watched, config: &Config) {
    let interval = Duration::from_secs(config.interval_seconds);
    loop {
        let started = Instant::now();
        if let Err(Undone(why)) = check(log, config, interval) {
            let name = &log.followed.name;
            tracing::warn!(
                log = name,
                why = printable(&why),
                "the check was not completed"
            );
            log.state().undone = Some(why);
        }
        std::thread::sleep(interval.saturating_sub(started.elapsed()));
    }
}

fn keep_verifying(log: &Watched, config: &Config) {
    let interval = Duration::from_secs(config.interval_seconds);
    loop {
        if let Err(Undone(why)) = log.verify(config.verify_seconds, config.verify_limit_seconds) {
            let name = &log.followed.name;
            tracing::warn!(
                log = name,
                why = printable(&why),
                "entries were not compared with rows"
            );
        }
        std::thread::sleep(interval);
    }
}
