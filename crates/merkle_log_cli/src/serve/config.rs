//! The configuration file (TOML). Everything has a default: without a file, the gateway serves hashes and proofs of
//! all logs on loopback, and rows of none.

use crate::http::{self, Tls};
use crate::output::Failure;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen: ADDRESS:PORT or unix:PATH. Sockets that systemd hands over go before these.
    pub listen: Vec<String>,
    /// The database, as `--dbname` names it, which goes before it.
    pub database: Option<String>,
    /// Logs whose rows, keys and leaf data are for everyone.
    pub public_logs: BTreeSet<String>,
    /// A file of tokens; whoever has one is shown the rows of all logs.
    pub read_tokens: Option<PathBuf>,
    pub tls: Option<Tls>,
    pub admin: Option<Admin>,
    pub limits: Limits,
    /// By log, the directory that `merkle-log export` writes: tiles and checkpoint come from there.
    pub tiles: BTreeMap<String, PathBuf>,
    /// Reverse proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<std::net::IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// unix:PATH, or an address of loopback; another address needs TLS.
    #[serde(default = "Admin::default_listen")]
    pub listen: String,
    /// A file of tokens.
    pub tokens: PathBuf,
    /// The database with a role that may administer logs, if it is not the gateway's own.
    pub database: Option<String>,
}

impl Admin {
    fn default_listen() -> String {
        "127.0.0.1:8081".to_owned()
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections to the database.
    pub database_connections: usize,
    /// Requests that use the database at once, those that wait for a connection included.
    pub concurrent_proofs: usize,
    /// Milliseconds to wait for a connection to the database.
    pub wait_ms: u64,
    /// Milliseconds that a statement may take.
    pub statement_ms: u64,
    /// Milliseconds that a request may take.
    pub request_ms: u64,
    /// Connections of clients, of all and of one.
    pub connections: usize,
    pub connections_per_client: usize,
    /// Requests a second of one client, and how many at once after a pause.
    pub rate_per_client: u32,
    pub burst_per_client: u32,
    /// Bytes of the head and of the body of a request.
    pub header_bytes: usize,
    pub body_bytes: usize,
    /// Seconds in which the head of a request must arrive, and without progress of an answer.
    pub header_seconds: u64,
    pub stalled_seconds: u64,
    /// Seconds after which a connection is ended.
    pub connection_seconds: u64,
    /// Megabytes of large answers that are on their way at once.
    pub answers_mb: usize,
    /// Seconds that running requests have when the gateway is told to end.
    pub shutdown_seconds: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        let http = http::Limits::default();
        Limits {
            database_connections: 16,
            concurrent_proofs: 256,
            wait_ms: 2_000,
            statement_ms: 10_000,
            request_ms: http.request_ms,
            connections: http.connections,
            connections_per_client: http.connections_per_client,
            rate_per_client: http.rate_per_client,
            burst_per_client: http.burst_per_client,
            header_bytes: http.header_bytes,
            body_bytes: http.body_bytes,
            header_seconds: http.header_seconds,
            stalled_seconds: http.stalled_seconds,
            connection_seconds: http.connection_seconds,
            answers_mb: 256,
            shutdown_seconds: http.shutdown_seconds,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec!["127.0.0.1:8080".to_owned()],
            database: None,
            public_logs: BTreeSet::new(),
            read_tokens: None,
            tls: None,
            admin: None,
            limits: Limits::default(),
            tiles: BTreeMap::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

impl Config {
    pub fn read(file: Option<&Path>) -> Result<Config, Failure> {
        let Some(file) = file else {
            return Ok(Config::default());
        };
        let text = std::fs::read_to_string(file).map_err(Failure::of(file))?;
        let config = Config::parse(&text);
        config.map_err(|what| Failure::Said(format!("{}: {what}", file.display())))
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.limits.check()?;
        Ok(config)
    }
}

impl Limits {
    /// Those that are of every program that answers over HTTP.
    pub fn http(&self) -> http::Limits {
        http::Limits {
            request_ms: self.request_ms,
            connections: self.connections,
            connections_per_client: self.connections_per_client,
            rate_per_client: self.rate_per_client,
            burst_per_client: self.burst_per_client,
            header_bytes: self.header_bytes,
            body_bytes: self.body_bytes,
            header_seconds: self.header_seconds,
            stalled_seconds: self.stalled_seconds,
            connection_seconds: self.connection_seconds,
            shutdown_seconds: self.shutdown_seconds,
        }
    }

    fn check(&self) -> Result<(), String> {
        self.http().check()?;
        let zero = [
            ("database_connections", self.database_connections as u64),
            ("concurrent_proofs", self.concurrent_proofs as u64),
            ("wait_ms", self.wait_ms),
            ("statement_ms", self.statement_ms),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, value)| *value == 0) {
            return Err(format!(
                "limits.{name} is 0, so that nothing would be served"
            ));
        }
        // The largest answer, an entry bundle, must have room.
        if self.answers_mb < 32 || self.answers_mb > 1 << 20 {
            return Err("limits.answers_mb is not from 32 to 1048576".to_owned());
        }
        let most = tokio::sync::Semaphore::MAX_PERMITS;
        if self.concurrent_proofs > most {
            return Err(format!("limits.concurrent_proofs is at most {most}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_default_and_what_is_unknown_is_refused() {
        let config = Config::parse("").unwrap();
        assert_eq!(config.listen, ["127.0.0.1:8080"]);
        assert!(config.public_logs.is_empty() && config.admin.is_none() && config.tls.is_none());
        assert!(Config::parse("public_log = ['a']").is_err());
        assert!(Config::parse("[limits]\nrate = 3").is_err());
    }

    #[test]
    fn limits_under_which_nothing_is_served_are_refused() {
        for limit in [
            "rate_per_client = 0",
            "database_connections = 0",
            "header_bytes = 100",
            "answers_mb = 1",
        ] {
            assert!(
                Config::parse(&format!("[limits]\n{limit}")).is_err(),
                "{limit}"
            );
        }
    }

    #[test]
    fn the_example_is_read() {
        let example = include_str!("../../../../examples/gateway/merkle-log.toml");
        let config = Config::parse(example).unwrap();
        assert!(config.admin.is_some() && !config.public_logs.is_empty());
    }
}
