//! The configuration file of the monitor (TOML).

use crate::follow::{LogConfig, check_names};
use crate::output::Failure;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory that keeps what was seen: of one monitor alone.
    pub state: PathBuf,
    /// Where /metrics and /health are, ADDRESS:PORT.
    pub listen: Option<String>,
    /// Seconds between two checks of a log.
    #[serde(default = "seconds::<60>")]
    pub interval_seconds: u64,
    /// Seconds without a complete check after which this is told.
    #[serde(default = "seconds::<900>")]
    pub unreachable_seconds: u64,
    /// Seconds that a checkpoint may be without its quorum before this is told: witnesses come after the log has signed.
    #[serde(default = "seconds::<300>")]
    pub quorum_seconds: u64,
    /// Seconds between two readings of everything, old entries and tiles included; 0: never.
    #[serde(default = "seconds::<86_400>")]
    pub reread_seconds: u64,
    /// Seconds between two comparisons of entries with rows, of logs in a database; 0: never.
    #[serde(default = "seconds::<86_400>")]
    pub verify_seconds: u64,
    /// Seconds that such a comparison may take.
    #[serde(default = "seconds::<43_200>")]
    pub verify_limit_seconds: u64,
    /// With --once, how long to try to tell what was found.
    #[serde(default = "seconds::<30>")]
    pub deliver_seconds: u64,
    #[serde(rename = "log")]
    pub logs: Vec<LogConfig>,
    /// Who is told, beside the lines on standard error.
    #[serde(default)]
    pub tell: Vec<Tell>,
}

/// One who is told. It has exactly one of `webhook`, `syslog` and `command`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tell {
    /// What it is called in the state and in the metrics.
    pub name: String,
    /// A URL that takes a POST of JSON.
    pub webhook: Option<String>,
    /// A file with a token, for `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// The socket of syslog, such as /dev/log.
    pub syslog: Option<PathBuf>,
    /// A program and its arguments, which reads the event as JSON from its standard input.
    pub command: Option<Vec<String>>,
    /// Seconds that one attempt may take.
    #[serde(default = "seconds::<10>")]
    pub timeout_seconds: u64,
}

fn seconds<const SECONDS: u64>() -> u64 {
    SECONDS
}

impl Config {
    pub fn read(file: &Path) -> Result<Config, Failure> {
        let text = std::fs::read_to_string(file).map_err(Failure::of(file))?;
        Config::parse(&text).map_err(|what| Failure::Said(format!("{}: {what}", file.display())))
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        check_names(config.logs.iter().map(|log| log.name.as_str()))?;
        if config.interval_seconds == 0 {
            return Err("interval_seconds is 0".to_owned());
        }
        let mut names = std::collections::BTreeSet::from([super::tell::OUTPUT]);
        for tell in &config.tell {
            if !names.insert(&tell.name) {
                return Err(format!("two of [[tell]] are called {:?}", tell.name));
            }
            let ways = [
                tell.webhook.is_some(),
                tell.syslog.is_some(),
                tell.command.is_some(),
            ];
            if ways.iter().filter(|way| **way).count() != 1 {
                return Err(format!(
                    "{:?} needs exactly one of webhook, syslog and command",
                    tell.name
                ));
            }
            if tell.command.as_ref().is_some_and(Vec::is_empty) {
                return Err(format!("the command of {:?} is empty", tell.name));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "state = 's'\n[[log]]\nname = 'a'\nurl = 'http://x'\nkey = 'k'\n";

    #[test]
    fn what_is_unknown_or_ambiguous_is_refused() {
        let config = Config::parse(LOG).unwrap();
        assert_eq!((config.interval_seconds, config.tell.len()), (60, 0));
        for bad in [
            "state = 's'",
            "state = 's'\n[[log]]\nname = '../a'\nurl = 'u'\nkey = 'k'",
            &format!("{LOG}nonsense = 1"),
            &format!("{LOG}[[log]]\nname = 'a'\nurl = 'http://x'\nkey = 'k'"),
            &format!("interval_seconds = 0\n{LOG}"),
            &format!("{LOG}[[tell]]\nname = 'x'"),
            &format!("{LOG}[[tell]]\nname = 'x'\nwebhook = 'u'\nsyslog = '/dev/log'"),
            &format!("{LOG}[[tell]]\nname = 'x'\ncommand = []"),
            &format!("{LOG}[[tell]]\nname = 'output'\nsyslog = '/dev/log'"),
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_example_is_read() {
        let example = include_str!("../../../../examples/monitor/monitor.toml");
        let config = Config::parse(example).unwrap();
        assert!(config.logs.len() == 3 && config.tell.len() == 3);
    }
}
