//! Anonymous client mode: encryption without knowing the peer.
//!
//! A node that is not provisioned yet has neither a certificate nor a CA, so its first connection cannot be verified
//! (spec 01 §9, §10.5). Everything about that is in this file: nothing else in the workspace accepts an unknown server.
//! The peer still has to prove that it holds the key of the certificate it shows; who it is remains unknown, so nothing
//! that is sent over such a connection is secret from an active attacker. Request verification does not depend on this
//! mode: it stays on or off by settings of its own (DESIGN section 6).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::{client_builder, default_provider};

/// A client configuration that presents no certificate and accepts any server.
///
/// # Panics
/// Never: the provider built into this program supports the protocol versions it is asked for.
pub fn anonymous_client_config() -> Arc<ClientConfig> {
    let provider = Arc::new(default_provider());
    let verifier = AcceptAnyServer { algorithms: provider.signature_verification_algorithms };
    let mut config = client_builder(provider)
        .expect("the built in provider supports TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Accepts every certificate; handshake signatures are still verified.
#[derive(Debug)]
struct AcceptAnyServer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
