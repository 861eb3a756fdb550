//! Logs of others, as the monitor and the hub follow them: asked over HTTP, for files, or in SQL; believed only where
//! signatures and proofs hold.

mod config;
pub mod heartbeat;
mod look;
mod sql;
mod store;

pub use config::{LogConfig, check_names};
pub use look::{Followed, Newest, Refusal};

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
