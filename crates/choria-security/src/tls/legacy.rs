//! Broker certificates without a SAN extension, as old Puppet CAs made them (spec 01 §10.5).
//!
//! Only when the extension is absent the common name is compared, ignoring case, with the name that was connected to;
//! the chain is verified all the same. A certificate that has the extension is verified normally.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::cert::CertificateFacts;

/// Verifies names by SAN, or by common name when there is no SAN.
#[derive(Debug)]
pub(super) struct CommonNameVerifier {
    normal: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl CommonNameVerifier {
    pub(super) fn new(normal: Arc<WebPkiServerVerifier>, roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self { normal, roots, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for CommonNameVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let facts = CertificateFacts::from_der(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if facts.has_alternative_names {
            return self.normal.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, self.algorithms.all)?;
        match facts.common_names.as_slice() {
            [name] if name.eq_ignore_ascii_case(&server_name.to_str()) => Ok(ServerCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.normal.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.normal.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.normal.supported_verify_schemes()
    }
}
