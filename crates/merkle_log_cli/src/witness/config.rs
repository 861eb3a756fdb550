//! The configuration file (TOML), and what a reload replaces.

use crate::http::{Limits, Tls};
use crate::output::Failure;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tlog::{Policy, SigningKey};
use zeroize::Zeroizing;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen: ADDRESS:PORT or unix:PATH. Sockets that systemd hands over go before these.
    #[serde(default = "Config::default_listen")]
    pub listen: Vec<String>,
    /// The logs and their keys: the `log` lines of a policy file (C2SP tlog-policy).
    pub policy: PathBuf,
    /// The key that cosigns, as `merkle-log keygen --cosigner` makes it.
    pub key: PathBuf,
    /// A directory of this witness alone: what it has cosigned, and evidence.
    pub state: PathBuf,
    pub tls: Option<Tls>,
    #[serde(default)]
    pub limits: Limits,
    /// Reverse proxies whose X-Forwarded-For is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<IpAddr>,
}

impl Config {
    fn default_listen() -> Vec<String> {
        vec!["127.0.0.1:8090".to_owned()]
    }

    pub fn read(file: &Path) -> Result<Config, Failure> {
        let text = std::fs::read_to_string(file).map_err(Failure::of(file))?;
        let config = Config::parse(&text);
        config.map_err(|what| Failure::Said(format!("{}: {what}", file.display())))
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.limits.check()?;
        Ok(config)
    }

    /// The key that cosigns.
    pub fn signing_key(&self) -> Result<SigningKey, Failure> {
        let file = &self.key;
        let metadata = std::fs::metadata(file).map_err(Failure::of(file))?;
        // A file of root's may be readable to a group.
        if metadata.permissions().mode() & 0o037 != 0 {
            return Err(Failure::Said(format!(
                "others may read the key in {}\nHint: Run chmod 600 on it.",
                file.display()
            )));
        }
        let content = Zeroizing::new(std::fs::read(file).map_err(Failure::of(file))?);
        let key = SigningKey::from_file(&content)
            .map_err(|error| Failure::Said(format!("{}: {error}", file.display())))?;
        match key.verifier_key().signature_type().is_cosignature() {
            true => Ok(key),
            false => Err(Failure::Said(format!(
                "the key in {} signs logs, and does not cosign\nHint: Make one with merkle-log keygen --cosigner.",
                file.display()
            ))),
        }
    }
}

/// What SIGHUP replaces as a whole.
pub struct Live {
    /// The logs that are cosigned, with their keys.
    pub policy: Policy,
    pub origins: BTreeSet<String>,
}

impl Live {
    pub fn of(config: &Config) -> Result<Live, Failure> {
        let file = &config.policy;
        let bytes = std::fs::read(file).map_err(Failure::of(file))?;
        let policy = Policy::from_bytes(&bytes)
            .map_err(|error| Failure::Said(format!("{}: {error}", file.display())))?;
        let origins = policy.logs().iter().map(|key| key.name().to_string());
        Ok(Live {
            origins: origins.collect(),
            policy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read_and_what_is_unknown_is_refused() {
        let example = include_str!("../../../../examples/witness/witness.toml");
        let config = Config::parse(example).unwrap();
        assert_eq!(config.listen, Config::default_listen());
        assert!(Config::parse(&format!("{example}\nkeys = 1")).is_err());
        assert!(Config::parse(&format!("{example}\n[limits]\nheader_bytes = 1")).is_err());
        assert!(Config::parse("policy = 'p'\nkey = 'k'").is_err());
    }
}
