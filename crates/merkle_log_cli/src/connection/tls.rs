//! TLS as libpq's `sslmode` has it. Whom to trust is one file (`sslrootcert`, or ~/.postgresql/root.crt), never
//! the system's authorities as well, unless they are named: `sslrootcert=system`.

use super::{said, settings::Settings};
use crate::output::Failure;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    pub fn of(settings: &Settings) -> Result<Mode, Failure> {
        let system = settings.get("sslrootcert") == Some("system");
        match settings.get("sslmode") {
            None if system => Ok(Mode::VerifyFull),
            None | Some("prefer") => Ok(Mode::Prefer),
            Some("disable") => Ok(Mode::Disable),
            // As in libpq: whoever names an authority wants the certificate to be checked.
            Some("require") if root_file(settings)?.is_some() => Ok(Mode::VerifyCa),
            Some("require") => Ok(Mode::Require),
            Some("verify-ca") if system => Err(said(
                "sslmode=verify-ca with the system's authorities would accept any server\n\
                 Hint: Use sslmode=verify-full.",
            )),
            Some("verify-ca") => Ok(Mode::VerifyCa),
            Some("verify-full") => Ok(Mode::VerifyFull),
            Some(mode) => Err(said(&format!(
                "sslmode={mode} is not supported\nHint: disable, prefer, require, verify-ca and verify-full are."
            ))),
        }
    }
}

pub fn connector(settings: &Settings, mode: Mode) -> Result<MakeRustlsConnect, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match mode {
        Mode::VerifyFull => known(settings, &provider)?,
        Mode::VerifyCa => Arc::new(AnyName(known(settings, &provider)?)),
        Mode::Disable | Mode::Prefer | Mode::Require => Arc::new(Anyone(provider.clone())),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (mode, own_certificate(settings)?) {
        (Mode::Disable, _) | (_, None) => builder.with_no_client_auth(),
        (_, Some((chain, key))) => builder.with_client_auth_cert(chain, key)?,
    };
    Ok(MakeRustlsConnect::new(config))
}

/// A verifier of certificates that the named authorities have signed.
fn known(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Failure> {
    let mut roots = RootCertStore::empty();
    match root_file(settings)? {
        _ if settings.get("sslrootcert") == Some("system") => {
            let (_, _) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(file) => {
            for certificate in certificates(&file)? {
                roots.add(certificate)?;
            }
        }
        None => {
            return Err(said(
                "there is no certificate of an authority to check the server's with\n\
                 Hint: Put it into ~/.postgresql/root.crt, or name a file as sslrootcert, or the system's \
                 authorities with sslrootcert=system.",
            ));
        }
    }
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?)
}

fn root_file(settings: &Settings) -> Result<Option<PathBuf>, Failure> {
    match settings.get("sslrootcert") {
        Some("system") => Ok(None),
        Some(file) => Ok(Some(PathBuf::from(file))),
        None => Ok(default_file(settings, "root.crt")),
    }
}

fn default_file(settings: &Settings, name: &str) -> Option<PathBuf> {
    settings
        .in_home(".postgresql")
        .map(|directory| directory.join(name))
        .filter(|file| file.exists())
}

type OwnCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificate with which the program shows who it is.
fn own_certificate(settings: &Settings) -> Result<Option<OwnCertificate>, Failure> {
    let file = |setting, default| {
        settings
            .get(setting)
            .map(PathBuf::from)
            .or_else(|| default_file(settings, default))
    };
    let Some(chain) = file("sslcert", "postgresql.crt") else {
        return Ok(None);
    };
    let key = file("sslkey", "postgresql.key").ok_or_else(|| {
        said("there is a certificate of the client (sslcert), and no key for it (sslkey)")
    })?;
    let mode = std::fs::metadata(&key)
        .map_err(Failure::of(&key))?
        .permissions()
        .mode();
    // A key of root's may be readable to a group.
    if mode & 0o037 != 0 {
        return Err(said(&format!(
            "others may read the key {}\nHint: Run chmod 600 on it.",
            key.display()
        )));
    }
    let read = PrivateKeyDer::from_pem_file(&key);
    let read = read.map_err(|error| said(&format!("{}: {error}", key.display())))?;
    Ok(Some((certificates(&chain)?, read)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let wrong =
        |error: rustls::pki_types::pem::Error| said(&format!("{}: {error}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file).map_err(wrong)?;
    certificates.collect::<Result<Vec<_>, _>>().map_err(wrong)
}

/// For `verify-ca`: a known authority has signed, for whichever name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is what is checked last, so everything else was in order.
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// For `prefer` and `require`: what is sent is encrypted, and nobody knows for whom.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
