//! `follow`: a replica, kept up to date.

use crate::output::{Failure, say, spinner, time};
use crate::stop;
use clap::Args;
use geometric_ledger::{Follower, Options};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Args)]
#[group(skip)]
pub struct Follow {
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
    /// Say every so many seconds on standard output how far the replica is behind; 0 says nothing
    #[arg(long, default_value_t = 10)]
    report: u64,
}

/// How long is waited when there is nothing new.
const IDLE: Duration = Duration::from_millis(20);
/// How often the lag is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Batches taken before the lag is looked at again.
const SOME: u64 = 1_000;

impl Follow {
    pub fn run(&self, path: &Path, options: Options) -> Result<(), Failure> {
        if let Some(address) = self.metrics {
            serve_metrics(address)?;
        }
        let follower = Follower::open(path, &self.from, options)?;
        let mut follower = if self.copy {
            follower.of_copy()
        } else {
            follower
        };
        stop::listen()?;
        let spinner = spinner("");
        let mut taken = 0;
        let (mut looked, mut reported) = (Instant::now(), Instant::now());
        loop {
            let some = follower.catch_up_some(SOME)?;
            taken += some;
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                let lag = follower.lag()?;
                spinner.set_message(lag.to_string());
                if self.report > 0 && reported.elapsed() >= Duration::from_secs(self.report) {
                    reported = Instant::now();
                    say!("{}  {lag}", time(now()))?;
                }
            }
            if stop::asked() || (self.once && some == 0) {
                break;
            }
            if some == 0 {
                std::thread::sleep(IDLE);
            }
        }
        spinner.finish_and_clear();
        let sequence = follower.ledger().view().sequence();
        follower.close()?;
        say!("{taken} batches taken, at batch {sequence}")
    }
}

fn now() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_micros() as i64)
}

pub fn serve_metrics(address: SocketAddr) -> Result<(), Failure> {
    metrics_exporter_prometheus::PrometheusBuilder::new()
        .with_http_listener(address)
        .install()?;
    geometric_ledger::describe_metrics();
    Ok(())
}
