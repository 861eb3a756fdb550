//! The configuration file of the hub (TOML).

use crate::follow::{LogConfig, check_names};
use crate::output::Failure;
use serde::Deserialize;
use std::path::Path;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The hub's database, as `--dbname` names it, which goes before it.
    pub database: Option<String>,
    /// The hub's log.
    #[serde(default = "Config::default_log")]
    pub hub: String,
    /// Where /metrics and /health are, ADDRESS:PORT.
    pub listen: Option<String>,
    /// Seconds between two pulls of a log.
    #[serde(default = "Config::default_interval")]
    pub interval_seconds: u64,
    /// Seconds that a statement in the hub's database may take.
    #[serde(default = "Config::default_statement")]
    pub statement_seconds: u64,
    /// Run batches of the hub's log. Otherwise the background worker does.
    #[serde(default = "Config::yes")]
    pub batch: bool,
    /// Have the hub's log signed. Otherwise the background worker does (`checkpoint_interval`).
    #[serde(default = "Config::yes")]
    pub sign: bool,
    #[serde(rename = "log")]
    pub logs: Vec<LogConfig>,
}

impl Config {
    fn default_log() -> String {
        "hub".to_owned()
    }

    fn default_interval() -> u64 {
        60
    }

    fn default_statement() -> u64 {
        60
    }

    fn yes() -> bool {
        true
    }

    pub fn read(file: &Path) -> Result<Config, Failure> {
        let text = std::fs::read_to_string(file).map_err(Failure::of(file))?;
        Config::parse(&text).map_err(|what| Failure::Said(format!("{}: {what}", file.display())))
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        check_names(config.logs.iter().map(|log| log.name.as_str()))?;
        match config.interval_seconds == 0 || config.statement_seconds == 0 {
            true => Err("interval_seconds or statement_seconds is 0".to_owned()),
            false => Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read_and_what_is_unknown_is_refused() {
        let example = include_str!("../../../../examples/hub/hub.toml");
        let config = Config::parse(example).unwrap();
        assert!(config.logs.len() == 3 && config.batch && config.sign);
        assert!(Config::parse(&format!("nonsense = 1\n{example}")).is_err());
        assert!(Config::parse("hub = 'hub'").is_err());
    }
}
