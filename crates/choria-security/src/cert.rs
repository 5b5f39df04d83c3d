//! Facts about certificates: names, validity, key kind. Nothing here verifies a signature.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::keys::{PrivateKey, PublicKeyKind};
use crate::text::shown;

/// Why a certificate could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is no PEM block.
    #[error("there is no PEM certificate")]
    NotPem,
    /// The first block is something else.
    #[error("the first PEM block is {label}, not a certificate")]
    NotCertificate {
        /// Label of the block, shortened.
        label: String,
    },
    /// The block is damaged.
    #[error("the certificate cannot be decoded")]
    Undecodable,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Subject in readable form.
    pub subject: String,
    /// Issuer in readable form.
    pub issuer: String,
    /// Common names of the subject, usually one.
    pub common_names: Vec<String>,
    /// DNS names of the subject alternative name extension.
    pub dns_names: Vec<String>,
    /// IP addresses of that extension.
    pub ip_addresses: Vec<IpAddr>,
    /// E-mail addresses of that extension.
    pub emails: Vec<String>,
    /// URIs of that extension.
    pub uris: Vec<String>,
    /// True when there is a subject alternative name extension at all.
    pub has_alternative_names: bool,
    /// First second of validity, Unix time.
    pub not_before: i64,
    /// Last second of validity, Unix time.
    pub not_after: i64,
    /// Serial number, lower case hex.
    pub serial: String,
    /// Kind of the public key.
    pub key: PublicKeyKind,
    /// True when basic constraints say CA.
    pub is_ca: bool,
    /// Public key as DER `SubjectPublicKeyInfo`.
    pub public_der: Vec<u8>,
    /// SHA-256 of the certificate, lower case hex.
    pub fingerprint: String,
}

impl CertificateFacts {
    /// Reads one DER certificate.
    ///
    /// # Errors
    /// When it cannot be decoded or bytes follow it.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|_| CertificateError::Undecodable)?;
        if !rest.is_empty() {
            return Err(CertificateError::Undecodable);
        }
        let mut facts = Self {
            subject: shown(&certificate.subject().to_string()),
            issuer: shown(&certificate.issuer().to_string()),
            common_names: common_names(&certificate),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            has_alternative_names: false,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            serial: hex::encode(certificate.raw_serial()),
            key: PublicKeyKind::of(certificate.public_key()),
            is_ca: certificate.is_ca(),
            public_der: certificate.public_key().raw.to_vec(),
            fingerprint: hex::encode(Sha256::digest(der)),
        };
        facts.alternative_names(&certificate);
        Ok(facts)
    }

    fn alternative_names(&mut self, certificate: &X509Certificate<'_>) {
        for extension in certificate.extensions() {
            if extension.oid != x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME {
                continue;
            }
            self.has_alternative_names = true;
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                    GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
                    GeneralName::URI(name) => self.uris.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => self.ip_addresses.extend(ip_address(bytes)),
                    _ => {}
                }
            }
        }
    }

    /// Names the certificate speaks for: common names, then DNS names, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.common_names.iter().chain(&self.dns_names) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// True when a TLS client that connects to `host` finds it among the alternative names. Common names do not count, and
    /// `*` stands for one first label.
    pub fn serves(&self, host: &str) -> bool {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return self.ip_addresses.contains(&address);
        }
        self.dns_names.iter().any(|name| match (name.strip_prefix("*."), host.split_once('.')) {
            (Some(domain), Some((_, rest))) => rest.eq_ignore_ascii_case(domain),
            _ => name.eq_ignore_ascii_case(host),
        })
    }

    /// True when `now` lies inside the validity.
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// True when `key` is the private half of this certificate's key.
    pub fn belongs_to(&self, key: &PrivateKey) -> bool {
        key.matches(&self.public_der)
    }
}

/// Facts of the first PEM block of a text, which must be a certificate; text before it is skipped (spec 01 §2).
///
/// # Errors
/// When there is no block, it is something else, or it is damaged.
pub fn first_from_pem(text: &str) -> Result<CertificateFacts, CertificateError> {
    CertificateFacts::from_der(&first_der(text)?)
}

/// Facts of every certificate of a PEM text.
///
/// # Errors
/// As [`first_from_pem`], for any block.
pub fn all_from_pem(text: &str) -> Result<Vec<CertificateFacts>, CertificateError> {
    blocks(text)?.iter().map(|der| CertificateFacts::from_der(der)).collect()
}

/// DER of the first block.
pub(crate) fn first_der(text: &str) -> Result<Vec<u8>, CertificateError> {
    blocks(text)?.into_iter().next().ok_or(CertificateError::NotPem)
}

/// DER of every certificate; the first block must be one, later ones of other kinds are skipped.
pub(crate) fn blocks(text: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    let blocks = pem::parse_many(text).map_err(|_| CertificateError::NotPem)?;
    match blocks.first() {
        None => return Err(CertificateError::NotPem),
        Some(first) if first.tag() != "CERTIFICATE" => {
            return Err(CertificateError::NotCertificate { label: shown(first.tag()) });
        }
        Some(_) => {}
    }
    Ok(blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect())
}

fn common_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect()
}

pub(crate) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{CertificateAuthority, IssueRequest};
    use crate::keys::KeyKind;

    #[test]
    fn hosts_are_found_among_the_alternative_names() {
        const NOW: i64 = 1_795_219_200;
        let (ca, _) = CertificateAuthority::generate("ours", KeyKind::P256, NOW).unwrap();
        let mut request = IssueRequest::new("b.example.net", KeyKind::P256);
        request.dns_names = vec!["*.lab.example.net".into()];
        request.ip_addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let issued = ca.issue(&request, NOW).unwrap();
        let facts = first_from_pem(&issued.certificate.pem).unwrap();
        for host in ["b.example.net", "B.Example.NET", "x.lab.example.net", "192.0.2.1", "[2001:db8::1]"] {
            assert!(facts.serves(host), "{host}");
        }
        for host in ["example.net", "lab.example.net", "a.b.lab.example.net", "192.0.2.2", "b"] {
            assert!(!facts.serves(host), "{host}");
        }
        let bare = CertificateFacts { dns_names: Vec::new(), ..facts };
        assert!(!bare.serves("b.example.net"), "common names do not count");
    }
}
