//! TLS for clients, by rustls.

use super::config::Tls;
use crate::output::Failure;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// What the files hold now.
pub fn acceptor(files: &Tls) -> Result<TlsAcceptor, Failure> {
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
