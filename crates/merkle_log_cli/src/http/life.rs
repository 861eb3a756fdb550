//! From start to end: what is told to people and to the service manager, and which signals do what.

use super::listeners::tell_service_manager;
use super::{Listener, Metrics, Server};
use crate::output::Failure;
use std::sync::atomic::Ordering::Relaxed;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Lines about what happens go to standard error; RUST_LOG says how many.
pub fn report(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // What a database has to say besides its answers is its own, and would stand here as if it were said by us.
    let filter = match "tokio_postgres=warn".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
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

/// Serves until SIGTERM or SIGINT, calls `on_hang_up` at each SIGHUP and `on_end` once, and then finishes what runs.
/// `end` is what the servers wait for.
pub async fn until_ended(
    serving: Vec<(Server, Listener)>,
    end: watch::Sender<bool>,
    on_hang_up: impl Fn(),
    on_end: impl FnOnce(),
) -> Result<(), Failure> {
    let mut running = JoinSet::new();
    for (server, listener) in serving {
        running.spawn(server.run(listener));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tell_service_manager("READY=1");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => on_hang_up(),
        }
    }
    tracing::info!("ending: running requests are finished");
    tell_service_manager("STOPPING=1");
    on_end();
    // Whoever listens ends with it.
    let _ = end.send(true);
    while running.join_next().await.is_some() {}
    tracing::info!("ended");
    Ok(())
}

/// Reads the configuration again, by `read`. One that is not valid must change nothing.
pub fn reload(metrics: &Metrics, read: impl FnOnce() -> Result<(), Failure>) {
    tell_service_manager("RELOADING=1");
    match read() {
        Ok(()) => {
            metrics.reloads.fetch_add(1, Relaxed);
            tracing::info!("the configuration was reloaded");
        }
        Err(failure) => {
            metrics.reloads_failed.fetch_add(1, Relaxed);
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
