//! One log in a configuration file: where it is, and whose signature counts.

use super::look::Followed;
use super::sql::SqlLog;
use super::store::Store;
use crate::connection::Connection;
use crate::output::Failure;
use crate::verify::verifier_key;
use merkle_log_client::{Directory, Http, Retry, Transport};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tlog::Policy;
use tokio::runtime::Handle;

/// Where a log is, in one of three ways, and what it is verified by, in one of two.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// What it is called here.
    pub name: String,
    /// The prefix of its files over HTTP (C2SP tlog-tiles).
    pub url: Option<String>,
    /// The directory or object store of its files, as `merkle-log export` names it.
    pub tiles: Option<String>,
    /// The database that it is in, as `--dbname` names it.
    pub database: Option<String>,
    /// In the database, its name there, if it is another one.
    pub log: Option<String>,
    /// Its verifier key, or a file that holds it.
    pub key: Option<String>,
    /// A policy file (C2SP tlog-policy): logs, witnesses, quorum.
    pub policy: Option<PathBuf>,
    /// Which of the policy's logs it is, if there are several.
    pub origin: Option<String>,
    /// Seconds that one answer may take.
    #[serde(default = "LogConfig::default_timeout")]
    pub timeout_seconds: u64,
    /// Seconds without growth after which the monitor says so.
    pub stale_seconds: Option<u64>,
    /// The monitor does not take it that entries are missing.
    #[serde(default)]
    pub all_entries: bool,
}

/// How a log's files are reached, and its database if that can be asked.
type Way = (Box<dyn Transport>, Option<Arc<SqlLog>>);

impl LogConfig {
    fn default_timeout() -> u64 {
        30
    }

    /// The log, which is asked for the first time when it is looked at.
    pub fn open(&self, runtime: &Handle) -> Result<Followed, Failure> {
        let open = || {
            let (policy, origin) = self.trust()?;
            let (transport, database) = self.transport(runtime)?;
            Ok(Followed {
                name: self.name.clone(),
                transport,
                retry: Retry {
                    attempts: 3,
                    first_pause: Duration::from_millis(200),
                    longest_pause: Duration::from_secs(5),
                },
                policy,
                origin,
                database,
            })
        };
        open().map_err(|failure| match failure {
            Failure::Said(what) => Failure::Said(format!("the log {:?}: {what}", self.name)),
            unheard => unheard,
        })
    }

    fn transport(&self, runtime: &Handle) -> Result<Way, Failure> {
        let timeout = Duration::from_secs(self.timeout_seconds.max(1));
        match (&self.url, &self.tiles, &self.database) {
            (Some(url), None, None) => Ok((Box::new(Http::with_timeout(url, timeout)), None)),
            (None, Some(tiles), None) if tiles.contains("://") => {
                let store = Store::open(tiles, runtime.clone(), timeout)?;
                Ok((Box::new(store), None))
            }
            (None, Some(tiles), None) => Ok((Box::new(Directory::new(tiles)), None)),
            (None, None, Some(database)) => {
                let log = self.log.as_ref().unwrap_or(&self.name);
                let connection = Connection::default().or(Some(database));
                let sql = SqlLog::new(runtime.clone(), connection, log, timeout);
                Ok((Box::new(Arc::clone(&sql)), Some(sql)))
            }
            _ => Err(Failure::Said(
                "it needs exactly one of url, tiles and database".to_owned(),
            )),
        }
    }

    fn trust(&self) -> Result<(Policy, String), Failure> {
        let policy = match (&self.key, &self.policy) {
            (Some(key), None) => Policy::of_log(verifier_key(key)?),
            (None, Some(path)) => {
                Policy::from_bytes(&std::fs::read(path).map_err(Failure::of(path))?)?
            }
            _ => {
                return Err(Failure::Said(
                    "it needs exactly one of key and policy".to_owned(),
                ));
            }
        };
        let mut origins: Vec<_> = policy
            .logs()
            .iter()
            .map(|key| key.name().as_str())
            .collect();
        origins.dedup();
        let origin = match (&self.origin, origins.as_slice()) {
            (None, [origin]) => (*origin).to_owned(),
            (Some(origin), known) if known.contains(&origin.as_str()) => origin.clone(),
            (Some(origin), _) => {
                return Err(Failure::Said(format!("no key is known of {origin:?}")));
            }
            (None, _) => {
                return Err(Failure::Said(
                    "the policy has several logs: origin must say which one it is".to_owned(),
                ));
            }
        };
        Ok((policy, origin))
    }
}

/// That each log has a name of its own, which can be that of a directory.
pub fn check_names<'c>(names: impl Iterator<Item = &'c str>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty()
            || name.len() > 100
            || name.starts_with('.')
            || !name.chars().all(allowed)
        {
            return Err(format!(
                "{name:?} is not a name of letters, digits, dots, dashes and underscores"
            ));
        }
        if !seen.insert(name) {
            return Err(format!("two logs are called {name:?}"));
        }
    }
    match seen.is_empty() {
        true => Err("there is no log to follow: [[log]] names one".to_owned()),
        false => Ok(()),
    }
}
