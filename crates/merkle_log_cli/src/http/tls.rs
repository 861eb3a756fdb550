//! TLS for clients, by rustls.

use crate::output::Failure;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// The files of a certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, followed by those that lead to its authority (PEM).
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What encrypts connections, replaced on a reload; none: no TLS.
#[derive(Clone, Default)]
pub struct SharedTls(Option<Arc<RwLock<TlsAcceptor>>>);

impl SharedTls {
    pub fn new(files: Option<&Tls>) -> Result<SharedTls, Failure> {
        let acceptor = files.map(acceptor).transpose()?;
        Ok(SharedTls(
            acceptor.map(|acceptor| Arc::new(RwLock::new(acceptor))),
        ))
    }

    pub(super) fn current(&self) -> Option<TlsAcceptor> {
        let acceptor = self.0.as_ref()?;
        Some(
            acceptor
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }

    /// What the files hold now, to be given to `replace`. TLS does not begin or end while the program runs.
    pub fn read(&self, files: Option<&Tls>) -> Result<Option<TlsAcceptor>, Failure> {
        let files = files.filter(|_| self.0.is_some());
        files.map(acceptor).transpose()
    }

    pub fn replace(&self, acceptor: Option<TlsAcceptor>) {
        if let (Some(shared), Some(acceptor)) = (&self.0, acceptor) {
            *shared.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
        }
    }
}

fn acceptor(files: &Tls) -> Result<TlsAcceptor, Failure> {
    let wrong = |file: &std::path::Path| {
        let file = file.display().to_string();
        move |error: rustls::pki_types::pem::Error| Failure::Said(format!("{file}: {error}"))
    };
    let chain =
        CertificateDer::pem_file_iter(&files.certificate).map_err(wrong(&files.certificate))?;
    let chain = chain
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong(&files.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
