//! `serve`: the gateway, which answers over HTTP what the database and exported logs have (docs/gateway.md).
//!
//! It reads, and it signs nothing. What needs SELECT on a source is shown of logs that the configuration calls public,
//! or to whoever has a token; administration has a listener and tokens of its own.

mod admin;
mod answers;
mod config;
mod exported;
mod gateway;
mod listeners;
mod metrics;
mod page;
mod pool;
mod problems;
mod read;
mod request;
mod room;
mod routes;
mod tokens;

use crate::connection::Connection;
use crate::database::block_on;
use crate::http::{self, Listener, Server, SharedTls};
use crate::output::Failure;
use config::Config;
use gateway::{Gateway, Live, Shared};
use listeners::Listeners;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::watch;

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
    http::report(json);
    let config = options.read()?;
    block_on(async {
        let gateway = Arc::new(Gateway::new(&config, &options.connection)?);
        let listeners = Listeners::open(&config)?;
        let tls = SharedTls::new(config.tls.as_ref())?;
        serve(options, gateway, listeners, tls).await
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    options: &Options,
    gateway: Shared,
    listeners: Listeners,
    tls: SharedTls,
) -> Result<(), Failure> {
    let (end, ending) = watch::channel(false);
    let server = |router, tls: SharedTls| {
        let admission = Arc::clone(&gateway.admission);
        Server::new(admission, router, tls, ending.clone())
    };
    let mut serving = Vec::new();
    let public = server(routes::public(&gateway), tls.clone());
    for listener in listeners.public {
        tracing::info!(address = listener.name(), "listening");
        serving.push((public.clone(), listener));
    }
    if let Some(listener) = listeners.admin {
        tracing::info!(address = listener.name(), "listening for administration");
        let tls = match listener {
            Listener::Unix(_) => SharedTls::default(),
            Listener::Tcp(_) => tls.clone(),
        };
        serving.push((server(admin::router(&gateway), tls), listener));
    }
    // Ends with the runtime.
    tokio::spawn(page::history::watch(Arc::clone(&gateway)));
    let reload = || {
        http::reload(&gateway.admission.metrics, || {
            reload(options, &gateway, &tls)
        })
    };
    let ending = || gateway.ending.store(true, Relaxed);
    http::until_ended(serving, end, reload, ending).await
}

/// Reads the configuration again. Listeners, limits and the database are what they were at the start.
fn reload(options: &Options, gateway: &Shared, tls: &SharedTls) -> Result<(), Failure> {
    let config = options.read()?;
    let live = Live::of(&config)?;
    tls.replace(tls.read(config.tls.as_ref())?);
    gateway.reload(live);
    Ok(())
}
