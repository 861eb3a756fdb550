//! `witness`: cosigns checkpoints of logs that it has seen grow, and keeps what convicts one that did not
//! (docs/witness.md; C2SP tlog-witness).

mod answers;
mod config;
mod evidence;
mod log;
mod metrics;
mod routes;
mod state;

use crate::database::block_on;
use crate::http::{self, HandedOver, Listener, Server, SharedTls};
use crate::output::Failure;
use config::{Config, Live};
use state::Witness;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::watch;

#[derive(clap::Args)]
pub struct Options {
    /// The configuration (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Where to listen, ADDRESS:PORT or unix:PATH, instead of what the configuration says
    #[arg(short, long)]
    listen: Vec<String>,
}

impl Options {
    fn read(&self) -> Result<Config, Failure> {
        let mut config = Config::read(&self.config)?;
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        Ok(config)
    }
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    http::report(json);
    let config = options.read()?;
    block_on(async {
        let witness = Arc::new(Witness::open(&config)?);
        let listeners = listeners(&config)?;
        let tls = SharedTls::new(config.tls.as_ref())?;
        serve(options, witness, listeners, tls).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Sockets from systemd go before those of the configuration.
fn listeners(config: &Config) -> Result<Vec<Listener>, Failure> {
    let handed_over: Vec<_> = HandedOver::all()?
        .into_iter()
        .map(|handed_over| handed_over.listener)
        .collect();
    match handed_over.is_empty() {
        false => Ok(handed_over),
        true => config
            .listen
            .iter()
            .map(|wanted| Listener::bind(wanted))
            .collect(),
    }
}

async fn serve(
    options: &Options,
    witness: Arc<Witness>,
    listeners: Vec<Listener>,
    tls: SharedTls,
) -> Result<(), Failure> {
    let (end, ending) = watch::channel(false);
    let admission = Arc::clone(&witness.admission);
    let server = Server::new(admission, routes::router(&witness), tls.clone(), ending);
    let mut serving = Vec::new();
    for listener in listeners {
        tracing::info!(address = listener.name(), key = %witness.verifier_key(), "listening");
        serving.push((server.clone(), listener));
    }
    let on_hang_up = || {
        http::reload(&witness.admission.metrics, || {
            reload(options, &witness, &tls)
        })
    };
    let on_end = || witness.ending.store(true, Relaxed);
    http::until_ended(serving, end, on_hang_up, on_end).await
}

/// Reads the configuration and the policy again. Listeners, limits, state and key are what they were at the start.
fn reload(options: &Options, witness: &Witness, tls: &SharedTls) -> Result<(), Failure> {
    let config = options.read()?;
    let live = Live::of(&config)?;
    let acceptor = tls.read(config.tls.as_ref())?;
    witness.reload(live)?;
    tls.replace(acceptor);
    witness.admission.trust(&config.trusted_proxies);
    Ok(())
}
