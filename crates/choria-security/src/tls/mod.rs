//! TLS for both ends: the only place that configures rustls.
//!
//! - [`client_config`]: mutual TLS towards a broker whose certificate the configured CA must have issued.
//! - [`server_config`]: a broker that verifies clients if they present a certificate (spec 01 §10.5); "verified" means
//!   that the connection has peer certificates.
//! - [`anonymous_client_config`]: no certificate, no verification, for unprovisioned nodes only ([`anonymous`]).
//!
//! TLS 1.2 is the floor, aws-lc-rs the explicit provider, the configured CA file the only source of trust: platform roots
//! are never used. Session resumption is off on both ends: tens of thousands of idle sessions would cost memory, and a
//! resumed session would outlive the certificate it was verified with.

pub mod anonymous;
mod legacy;
mod names;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use crate::atomic::{self, FileError};
use crate::cert::CertificateFacts;
use crate::sign::MAX_CERTIFICATE_FILE;
use crate::trust::{Authorities, TrustError, TrustStore};

pub use anonymous::anonymous_client_config;
pub use names::NameError;

/// Files and choices a TLS configuration is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsMaterial {
    /// Certificate file, leaf first, intermediates after it. Clients may go without.
    pub certificate: Option<PathBuf>,
    /// Key file of that certificate.
    pub key: Option<PathBuf>,
    /// CA file: whom to trust. A server without one asks nobody for a certificate.
    pub ca: Option<PathBuf>,
    /// `plugin.security.cipher_suites`: Go names, empty for all.
    pub cipher_suites: Vec<String>,
    /// `plugin.security.ecc_curves`: Go names, empty for all.
    pub ecc_curves: Vec<String>,
    /// `plugin.security.support_legacy_certificates`: accept broker certificates without SAN by their common name.
    pub legacy_certificates: bool,
}

impl TlsMaterial {
    /// Material of three files with all other choices at their default.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>, ca: impl Into<PathBuf>) -> Self {
        Self { certificate: Some(certificate.into()), key: Some(key.into()), ca: Some(ca.into()), ..Self::default() }
    }
}

/// What a TLS server was made of, for who must tell later whether one of it has changed.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The configuration.
    pub config: Arc<ServerConfig>,
    /// Its certificate chain, leaf first; never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom it asks about the certificates of clients; without them no client has one.
    pub authorities: Option<Arc<Authorities>>,
}

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA file is unusable.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A cipher suite or curve is unknown, or none is left.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Something that is needed is not configured.
    #[error("{0} is not configured")]
    Missing(&'static str),
    /// A certificate or key file holds nothing usable.
    #[error("{path} is unusable: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// rustls refused the configuration.
    #[error("TLS configuration refused: {0}")]
    Refused(String),
}

/// Client configuration: presents the certificate if there is one, verifies the broker against the CA.
///
/// # Errors
/// When a file is unusable, certificate and key do not fit, or no CA is configured.
pub fn client_config(material: &TlsMaterial) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = names::provider(&material.cipher_suites, &material.ecc_curves)?;
    let ca = material.ca.as_ref().ok_or(TlsError::Missing("the CA"))?;
    let roots = Arc::new(root_store(ca)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| TlsError::Refused(error.to_string()))?;
    let builder = client_builder(provider.clone())?;
    let builder = if material.legacy_certificates {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(legacy::CommonNameVerifier::new(verifier, roots, &provider)))
    } else {
        builder.with_webpki_verifier(verifier)
    };
    let mut config = match identity(material)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| key_error(material, &error))?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Server configuration: clients without a certificate are let in and are simply not verified; clients with one must
/// have it from the CA, anything else ends the handshake.
///
/// # Errors
/// When certificate or key are missing or unusable, or the CA file is.
pub fn server_config(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    build_server(material, material.ca.as_ref()).map(|server| server.config)
}

/// As [`server_config`], with what it was made of.
///
/// # Errors
/// As [`server_config`].
pub fn server(material: &TlsMaterial) -> Result<ServerTls, TlsError> {
    build_server(material, material.ca.as_ref())
}

/// Server configuration that asks nobody for a certificate, so that no client is ever verified; for a broker started
/// with TLS verification off.
///
/// # Errors
/// When certificate or key are missing or unusable.
pub fn server_config_without_client_certificates(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    build_server(material, None).map(|server| server.config)
}

/// Names a peer's certificate speaks for: common name and DNS names. Empty when it cannot be read, which cannot happen
/// for a chain that TLS has verified.
pub fn certificate_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    CertificateFacts::from_der(certificate).map(|facts| facts.names()).unwrap_or_default()
}

fn build_server(material: &TlsMaterial, ca: Option<&PathBuf>) -> Result<ServerTls, TlsError> {
    let provider = names::provider(&material.cipher_suites, &material.ecc_curves)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Refused(error.to_string()))?;
    let authorities = ca.map(|ca| Ok::<_, TlsError>((ca, TrustStore::load(ca)?.current()))).transpose()?;
    let builder = match &authorities {
        Some((ca, authorities)) => {
            let roots = Arc::new(roots(ca, authorities)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::Refused(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = identity(material)?.ok_or(TlsError::Missing("the certificate of the server"))?;
    let mut config = builder.with_single_cert(chain.clone(), key).map_err(|error| key_error(material, &error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(ServerTls { config: Arc::new(config), chain, authorities: authorities.map(|(_, authorities)| authorities) })
}

/// The provider with everything switched on. As in the original, AES-128 comes first in TLS 1.3: it is as safe as anything
/// that is known, and its SHA-256, which processors compute by themselves, makes the keys of a handshake in a third of the
/// time that SHA-384 takes.
pub(crate) fn default_provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| *suite != aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// A client builder with an explicit provider and TLS 1.2 and 1.3.
pub(crate) fn client_builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Refused(error.to_string()))
}

fn root_store(ca: &Path) -> Result<RootCertStore, TlsError> {
    roots(ca, &TrustStore::load(ca)?.current())
}

fn roots(ca: &Path, authorities: &Authorities) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities.certificates() {
        roots
            .add(certificate.clone())
            .map_err(|error| TlsError::Content { path: ca.to_owned(), problem: error.to_string() })?;
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(material: &TlsMaterial) -> Result<Option<Identity>, TlsError> {
    let (certificate, key) = match (&material.certificate, &material.key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(TlsError::Missing("the private key of the certificate")),
        (None, Some(_)) => return Err(TlsError::Missing("the certificate of the private key")),
    };
    let content = |path: &PathBuf, problem: &str| TlsError::Content { path: path.clone(), problem: problem.to_owned() };
    let text = atomic::read_text(certificate, MAX_CERTIFICATE_FILE)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| content(certificate, "a PEM certificate in it is damaged"))?;
    if chain.is_empty() {
        return Err(content(certificate, "there is no PEM certificate in it"));
    }
    let text = Zeroizing::new(atomic::read_text(key, MAX_CERTIFICATE_FILE)?);
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| content(key, "there is no unencrypted PEM private key in it"))?;
    Ok(Some((chain, key)))
}

fn key_error(material: &TlsMaterial, error: &rustls::Error) -> TlsError {
    let path = material.key.clone().unwrap_or_default();
    let problem = match error {
        rustls::Error::InconsistentKeys(_) => {
            let certificate = material.certificate.clone().unwrap_or_default();
            format!("the key does not belong to the certificate {}", certificate.display())
        }
        other => other.to_string(),
    };
    TlsError::Content { path, problem }
}
