//! Logs over HTTP, with the certificates that the system trusts.

use crate::transport::{Transport, TransportError, read_at_most};
use std::sync::Arc;
use std::time::Duration;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

/// A log below a URL.
#[derive(Debug)]
pub struct Http {
    prefix: String,
    agent: ureq::Agent,
}

/// How long one file may take, if nothing else is said.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// What speaks HTTP, for at most that long at a time.
fn config(timeout: Duration) -> ConfigBuilder<AgentScope> {
    let system = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> = system
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(timeout))
        .user_agent(concat!("merkle_log_client/", env!("CARGO_PKG_VERSION")))
}

/// What posts: every status is an answer, and nothing is sent elsewhere.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    let config = config(timeout)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false);
    config.build().into()
}

impl Http {
    /// The log whose files are below `prefix`, such as `https://example.com/orders`.
    pub fn new(prefix: &str) -> Http {
        Http::with_timeout(prefix, TIMEOUT)
    }

    /// The same, with a time that no file may take longer than.
    pub fn with_timeout(prefix: &str, timeout: Duration) -> Http {
        Http {
            prefix: prefix.trim_end_matches('/').to_owned(),
            agent: config(timeout).build().into(),
        }
    }
}

impl Transport for Http {
    fn get(&self, path: &str, limit: u64) -> Result<Vec<u8>, TransportError> {
        match self.agent.get(format!("{}/{path}", self.prefix)).call() {
            Ok(response) => read_at_most(response.into_body().into_reader(), limit),
            // A pruned file is gone.
            Err(ureq::Error::StatusCode(404 | 410)) => Err(TransportError::NotFound),
            Err(ureq::Error::StatusCode(code @ (408 | 425 | 429 | 500..))) => {
                Err(TransportError::Passing(format!("HTTP status {code}")))
            }
            Err(ureq::Error::StatusCode(code)) => {
                Err(TransportError::Lasting(format!("HTTP status {code}")))
            }
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_))) => {
                Err(TransportError::Lasting(error.to_string()))
            }
            Err(error) => Err(TransportError::Passing(error.to_string())),
        }
    }
}
