//! `serve`: the gateway, which answers over HTTP what the database and exported logs have (docs/gateway.md).
//!
//! It reads, and it signs nothing. What needs SELECT on a source is shown of logs that the configuration calls public,
//! or to whoever has a token; administration has a listener and tokens of its own.

mod admin;
mod answers;
mod config;
mod connections;
mod exported;
mod gateway;
mod limits;
mod listeners;
mod metrics;
mod paced;
mod page;
mod pool;
mod problems;
mod read;
mod request;
mod room;
mod routes;
mod tls;
mod tokens;

use crate::connection::Connection;
use crate::database::block_on;
use crate::output::Failure;
use config::{Config, Tls};
use connections::Server;
use gateway::{Gateway, Live, Shared};
pub use listeners::tell_service_manager;
use listeners::{Listener, Listeners};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

#[derive(clap::Args)]
pub struct Options {
    /// The configuration (TOML); everything has a default
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, ADDRESS:PORT or unix:PATH, instead of what the configuration says
    #[arg(short, long)]
    listen: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Options {
    fn read(&self) -> Result<Config, Failure> {
        let mut config = Config::read(self.config.as_deref())?;
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        Ok(config)
    }
}

pub fn run(options: &Options, json: bool) -> Result<ExitCode, Failure> {
    report(json);
    let config = options.read()?;
    block_on(async {
        let gateway = Arc::new(Gateway::new(&config, &options.connection)?);
        let listeners = Listeners::open(&config)?;
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let tls = tls.map(|acceptor| Arc::new(RwLock::new(acceptor)));
        serve(options, gateway, listeners, tls).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Lines about what happens go to standard error; RUST_LOG says how many.
fn report(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // In a process of its own nobody else reports.
    let _ = match json {
        true => lines.json().try_init(),
        false => lines.try_init(),
    };
}

type SharedTls = Option<Arc<RwLock<TlsAcceptor>>>;

async fn serve(
    options: &Options,
    gateway: Shared,
    listeners: Listeners,
    tls: SharedTls,
) -> Result<(), Failure> {
    let (end, ending) = watch::channel(false);
    let server = |router, tls: &SharedTls| {
        Server::new(Arc::clone(&gateway), router, tls.clone(), ending.clone())
    };
    let mut running = JoinSet::new();
    let public = server(routes::public(&gateway), &tls);
    for listener in listeners.public {
        tracing::info!(address = listener.name(), "listening");
        running.spawn(public.clone().run(listener));
    }
    if let Some(listener) = listeners.admin {
        tracing::info!(address = listener.name(), "listening for administration");
        let unix = matches!(listener, Listener::Unix(_));
        let tls = tls.clone().filter(|_| !unix);
        running.spawn(server(admin::router(&gateway), &tls).run(listener));
    }
    // Ends with the runtime.
    tokio::spawn(page::history::watch(Arc::clone(&gateway)));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tell_service_manager("READY=1");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => reload(options, &gateway, tls.as_ref()),
        }
    }
    tracing::info!("ending: running requests are finished");
    tell_service_manager("STOPPING=1");
    gateway.ending.store(true, Relaxed);
    // Whoever listens ends with it.
    let _ = end.send(true);
    while running.join_next().await.is_some() {}
    tracing::info!("ended");
    Ok(())
}

/// Reads the configuration again. One that is not valid changes nothing; neither do listeners, limits and the database,
/// which are what they were at the start.
fn reload(options: &Options, gateway: &Shared, tls: Option<&Arc<RwLock<TlsAcceptor>>>) {
    tell_service_manager("RELOADING=1");
    let read = || -> Result<(Live, Option<TlsAcceptor>), Failure> {
        let config = options.read()?;
        let files = config.tls.as_ref().filter(|_: &&Tls| tls.is_some());
        Ok((Live::of(&config)?, files.map(tls::acceptor).transpose()?))
    };
    match read() {
        Ok((live, acceptor)) => {
            gateway.reload(live);
            if let (Some(tls), Some(acceptor)) = (tls, acceptor) {
                *tls.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
            }
            gateway.metrics.reloads.fetch_add(1, Relaxed);
            tracing::info!("the configuration was reloaded");
        }
        Err(failure) => {
            gateway.metrics.reloads_failed.fetch_add(1, Relaxed);
            let why = match failure {
                Failure::Said(why) => why,
                Failure::Unheard => String::new(),
            };
            tracing::error!(
                why,
                "the configuration was not reloaded, and stays as it was"
            );
        }
    }
    tell_service_manager("READY=1");
}
