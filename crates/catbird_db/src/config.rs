//! Where the database is and how much of it to use, from the environment.

use crate::{Error, Result};
use sqlx::postgres::PgConnectOptions;
use std::env;
use std::str::FromStr;
use std::time::Duration;

/// `.env.example` lists the variables.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`: the primary.
    pub url: String,
    /// `DATABASE_READ_URL`: a streaming replica for pages, lists and counts.
    pub read_url: Option<String>,
    /// Of each pool.
    pub max_connections: u32,
    pub min_connections: u32,
    /// After this a caller without a connection gets [`Error::PoolExhausted`].
    pub acquire_timeout: Duration,
    /// Connections idle for longer are closed, down to `min_connections`.
    pub idle_timeout: Duration,
    /// After this a statement ends with [`Error::TimedOut`].
    pub statement_timeout: Duration,
    /// The same, of the time that a statement waits for a lock.
    pub lock_timeout: Duration,
}

impl Config {
    /// The defaults, with this primary.
    pub fn new(url: impl Into<String>) -> Config {
        Config {
            url: url.into(),
            read_url: None,
            max_connections: 10,
            min_connections: 2,
            acquire_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
        }
    }

    /// # Errors
    /// [`Error::Invalid`] if `DATABASE_URL` is missing, or a number is none.
    pub fn from_env() -> Result<Config> {
        Config::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Config> {
        let url = get("DATABASE_URL")
            .ok_or_else(|| Error::invalid("environment", "DATABASE_URL is not set"))?;
        let mut config = Config::new(url);
        config.read_url = get("DATABASE_READ_URL");
        let number = |name: &'static str, default: u32| match get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| Error::invalid(name, format!("{text:?} is no number"))),
        };
        let seconds = |name, default: Duration| {
            number(name, default.as_secs() as u32).map(|s| Duration::from_secs(s.into()))
        };
        config.max_connections = number("DATABASE_MAX_CONNECTIONS", config.max_connections)?;
        config.min_connections = number("DATABASE_MIN_CONNECTIONS", config.min_connections)?;
        config.acquire_timeout = seconds("DATABASE_ACQUIRE_TIMEOUT", config.acquire_timeout)?;
        config.idle_timeout = seconds("DATABASE_IDLE_TIMEOUT", config.idle_timeout)?;
        config.statement_timeout = seconds("DATABASE_STATEMENT_TIMEOUT", config.statement_timeout)?;
        config.lock_timeout = seconds("DATABASE_LOCK_TIMEOUT", config.lock_timeout)?;
        Ok(config)
    }

    pub(crate) fn connection(&self, url: &str) -> Result<PgConnectOptions> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| Error::invalid("database URL", error.to_string()))?;
        let milliseconds =
            |name: &'static str, limit: Duration| match i32::try_from(limit.as_millis()) {
                Ok(limit) => Ok(limit.to_string()),
                Err(_) => Err(Error::invalid(
                    name,
                    format!("{limit:?} is more than the server can wait"),
                )),
            };
        Ok(options.options([
            (
                "statement_timeout",
                milliseconds("statement timeout", self.statement_timeout)?,
            ),
            (
                "lock_timeout",
                milliseconds("lock timeout", self.lock_timeout)?,
            ),
            // Whoever hung up is found to have done so also while their statement waits for a lock.
            ("client_connection_check_interval", "250ms".to_owned()),
            // A transaction that its holder forgot must not keep its locks.
            (
                "idle_in_transaction_session_timeout",
                milliseconds("statement timeout", 2 * self.statement_timeout)?,
            ),
            // What the locks are made for.
            ("default_transaction_isolation", "read committed".to_owned()),
            // Times in keys of the transparency log are text.
            ("timezone", "UTC".to_owned()),
            ("datestyle", "ISO".to_owned()),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_leaves_out_has_the_documented_default() {
        let config = Config::from_variables(|name| (name == "DATABASE_URL").then(|| "x".into()));
        let config = config.unwrap();
        assert_eq!((config.max_connections, config.min_connections), (10, 2));
        assert_eq!(config.acquire_timeout, Duration::from_secs(30));
        assert_eq!(config.idle_timeout, Duration::from_secs(600));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        assert!(
            Config::from_variables(|_| None)
                .unwrap_err()
                .to_string()
                .contains("DATABASE_URL")
        );
        let error = Config::from_variables(|_| Some("many".into())).unwrap_err();
        assert!(
            error.to_string().contains("DATABASE_MAX_CONNECTIONS"),
            "{error}"
        );
    }

    #[test]
    fn a_limit_that_the_server_cannot_keep_is_refused_by_name() {
        let mut config = Config::new("postgres://nobody@127.0.0.1:1/none");
        config.statement_timeout = Duration::from_secs(u32::MAX.into());
        let error = config.connection(&config.url).unwrap_err().to_string();
        assert!(error.contains("statement timeout"), "{error}");
    }
}
