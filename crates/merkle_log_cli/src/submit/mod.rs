//! `submit`: has witnesses cosign new checkpoints of a database's logs, and keeps the cosignatures in the database
//! (docs/witness.md).
//!
//! Each witness has a task of its own for each log, so that one that is slow or gone holds up no other.

mod answers;
mod log;
mod source;
mod standing;

use crate::connection::Connection;
use crate::database::block_on;
use crate::http::{self, Admission, Listener, Server, SharedTls};
use crate::output::{Failure, printable, say, time};
use log::{Log, Submitter};
use merkle_log_client::{AsyncWitnessClient, Retry, WitnessClient};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tlog::Policy;
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(clap::Args)]
pub struct Options {
    /// The logs, by their names in the database
    #[arg(required = true)]
    logs: Vec<String>,
    /// The policy file (C2SP tlog-policy): the logs' keys, the witnesses with their URLs, and the quorum
    #[arg(long)]
    policy: PathBuf,
    /// Go on: submit each new checkpoint, until told to end
    #[arg(long)]
    follow: bool,
    /// Seconds between looks for new checkpoints
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Seconds that one request to a witness may take
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Seconds that a checkpoint may wait for its quorum before /health says so
    #[arg(long, default_value_t = 300)]
    late: u64,
    /// Where to answer /health and /metrics, ADDRESS:PORT or unix:PATH
    #[arg(long, requires = "follow")]
    listen: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Options {
    fn submitter(&self) -> Result<Submitter, Failure> {
        let file = std::fs::read(&self.policy).map_err(Failure::of(&self.policy))?;
        let policy = Policy::from_bytes(&file)
            .map_err(|error| Failure::Said(format!("{}: {error}", self.policy.display())))?;
        let clients = policy.witnesses().iter().filter_map(|witness| {
            let client = WitnessClient::new(witness.url.as_deref()?, witness.key.clone())
                .with_timeout(Duration::from_secs(self.timeout))
                .with_retry(Retry {
                    attempts: 2,
                    ..Retry::default()
                });
            Some((witness.name.clone(), AsyncWitnessClient::from(client)))
        });
        let clients: Vec<_> = clients.collect();
        if clients.is_empty() {
            return Err(Failure::Said(format!(
                "{}: no witness has a URL\nHint: Write witness NAME KEY URL.",
                self.policy.display()
            )));
        }
        Ok(Submitter {
            source: source::Source::new(&self.connection),
            clients,
            policy,
            interval: Duration::from_secs(self.interval),
            late: Duration::from_secs(self.late),
        })
    }

    fn logs(&self, submitter: &Submitter) -> Vec<Arc<Log>> {
        let names = self.logs.iter();
        names
            .map(|name| Arc::new(Log::new(name, &submitter.policy)))
            .collect()
    }
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    block_on(async {
        match options.follow {
            true => follow(options, json).await,
            false => once(options, json).await,
        }
    })
}

/// Submits each log's newest checkpoint once.
async fn once(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    let submitter = Arc::new(options.submitter()?);
    let mut reached = true;
    for log in options.logs(&submitter) {
        match log.look(&submitter).await {
            Ok(()) => log.submit_to_all(&submitter).await,
            Err(failure) => {
                reached = false;
                // The others are submitted all the same.
                failure.exit();
            }
        }
        reached &= report(&log, json)?;
    }
    Ok(match reached {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(2),
    })
}

/// Says how a log stands; whether its newest checkpoint has the quorum.
fn report(log: &Log, json: bool) -> Result<bool, Failure> {
    let standing = log.standing();
    let reached = standing.is_reached();
    if json {
        say!("{}", answers::of_log(&log.name, &standing, Instant::now()))?;
        return Ok(reached);
    }
    let Some(newest) = standing.newest else {
        return Ok(false);
    };
    let quorum = if reached { "has" } else { "has not" };
    say!(
        "{}: the checkpoint of {} entries {quorum} its quorum",
        printable(&log.name),
        newest.size
    )?;
    for (name, witness) in &standing.witnesses {
        let name = printable(name);
        match (
            witness.cosigned.filter(|cosigned| cosigned.head == newest),
            &witness.error,
        ) {
            (Some(cosigned), _) => say!("  {name}: cosigned at {}", time(cosigned.at))?,
            (None, Some(error)) => say!("  {name}: {}", printable(error))?,
            (None, None) => say!("  {name}: not asked, since the policy has no URL of it")?,
        }
    }
    Ok(reached)
}

/// What runs, replaced as a whole on a reload.
struct Running {
    submitter: Arc<Submitter>,
    logs: Vec<Arc<Log>>,
    /// Ends what it runs when it goes.
    _tasks: JoinSet<()>,
}

impl Running {
    fn start(options: &Options) -> Result<Running, Failure> {
        let submitter = Arc::new(options.submitter()?);
        let logs = options.logs(&submitter);
        let mut tasks = JoinSet::new();
        for log in &logs {
            tasks.spawn(Arc::clone(log).follow(Arc::clone(&submitter)));
            for client in 0..submitter.clients.len() {
                tasks.spawn(Arc::clone(log).follow_witness(Arc::clone(&submitter), client));
            }
        }
        Ok(Running {
            submitter,
            logs,
            _tasks: tasks,
        })
    }
}

async fn follow(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    http::report(json);
    let (running, now) = watch::channel(Running::start(options)?);
    let admission = Admission::new(
        http::Limits::default(),
        "merkle_log_submit",
        &[],
        answers::refused,
    );
    let (end, ending) = watch::channel(false);
    let router = answers::router(now, &admission);
    let server = Server::new(Arc::clone(&admission), router, SharedTls::default(), ending);
    let mut serving = Vec::new();
    for wanted in &options.listen {
        let listener = Listener::bind(wanted)?;
        tracing::info!(address = listener.name(), "listening");
        serving.push((server.clone(), listener));
    }
    let reload = || {
        http::reload(&admission.metrics, || {
            running.send_replace(Running::start(options)?);
            Ok(())
        })
    };
    tracing::info!("submitting");
    http::until_ended(serving, end, reload, || ()).await?;
    Ok(ExitCode::SUCCESS)
}
