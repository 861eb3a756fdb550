//! Logs of others, as the monitor and the hub follow them: asked over HTTP, for files, or in SQL; believed only where
//! signatures and proofs hold.

mod config;
pub mod files;
pub mod heartbeat;
mod look;
mod sql;
mod store;

pub use config::{LogConfig, check_names};
pub use look::{Followed, Newest, Refusal};

pub use crate::serve::tell_service_manager;

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Lines about what happens go to standard error; RUST_LOG says how many.
pub fn report(json: bool) {
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
