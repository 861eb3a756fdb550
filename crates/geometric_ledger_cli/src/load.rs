//! `bench`: how fast a ledger would be on this machine, and this directory's disk.

use crate::follow::serve_metrics;
use crate::output::{Failure, bar, say, spinner};
use crate::stop;
use clap::Args;
use geometric_ledger::{Account, Durability, Key, Options};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Load {
    /// A directory for the ledger, which must not be there
    directory: PathBuf,
    /// Accounts to begin with
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    accounts: u64,
    /// Updates in one batch
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    batch: u64,
    /// For so many seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Do not wait for the disk
    #[arg(long)]
    no_sync: bool,
    /// Serve metrics for Prometheus on this address meanwhile
    #[arg(long)]
    metrics: Option<SocketAddr>,
}

impl Load {
    pub fn run(&self, options: Options) -> Result<(), Failure> {
        if self.directory.exists() {
            return Err(Failure::new(format!(
                "{} is there already",
                self.directory.display()
            )));
        }
        if let Some(address) = self.metrics {
            serve_metrics(address)?;
        }
        let options = match self.no_sync {
            true => options.durability(Durability::None),
            false => options,
        };
        let ledger = options.open(&self.directory)?;
        stop::listen()?;
        let progress = bar(self.accounts);
        let start = Instant::now();
        for from in (0..self.accounts).step_by(self.batch as usize) {
            let to = (from + self.batch).min(self.accounts);
            let batch: Vec<_> = (from..to)
                .map(|number| (key(number), Account::with_balance(1)))
                .collect();
            ledger.update_batch(&batch)?;
            progress.inc(to - from);
            stop::check()?;
        }
        progress.finish_and_clear();
        say!(
            "insert  {:.0}/s",
            self.accounts as f64 / start.elapsed().as_secs_f64()
        )?;
        let spinner = spinner("accounts are updated");
        let (start, end) = (Instant::now(), Duration::from_secs(self.seconds));
        let (mut number, mut times) = (0u64, Vec::new());
        while times.is_empty() || (start.elapsed() < end && !stop::asked()) {
            let mut next = || {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (number >> 16) % self.accounts
            };
            let batch: Vec<_> = (0..self.batch)
                .map(|nonce| {
                    (
                        key(next()),
                        Account {
                            nonce,
                            ..Account::with_balance(2)
                        },
                    )
                })
                .collect();
            let begun = Instant::now();
            ledger.update_batch(&batch)?;
            times.push(begun.elapsed());
        }
        let busy: Duration = times.iter().sum();
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        spinner.finish_and_clear();
        say!(
            "update  {:.0}/s, a batch of {} takes {:?} (p99 {:?})",
            self.batch as f64 * times.len() as f64 / busy.as_secs_f64(),
            self.batch,
            at(0.5),
            at(0.99)
        )?;
        ledger.close()?;
        Ok(())
    }
}

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}
