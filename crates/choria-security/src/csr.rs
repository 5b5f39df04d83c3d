//! Certificate requests: making them on a node, inspecting and checking them at the provisioner (spec 03 §7.1, 04 §6.6).
//!
//! [`inspect`] decodes, [`check`] decides. The original accepts broken self-signatures, weak keys, several common names
//! and every name kind but DNS (all seen, DESIGN section 6); here each has a refusal with a countable reason.

use std::net::IpAddr;

use aws_lc_rs::signature as sig;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, string::PrintableString};
use rustls_pki_types::{AlgorithmIdentifier, alg_id};
use x509_parser::asn1_rs::{Class, Header, Tag};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::cert::ip_address;
use crate::keys::{PrivateKey, PublicKeyKind, encode_pem};
use crate::patterns::Patterns;
use crate::text::shown;

/// Longest request text that is looked at; ordinary ones are about 1 KiB.
pub const MAX_CSR_BYTES: usize = 32 * 1024;
/// Smallest RSA key that is accepted unless a policy says otherwise, in bits.
pub const MIN_RSA_BITS: usize = 2048;

/// Subject of a new request; empty fields are left out. The order on the wire is C, L, O, OU, CN (spec 03 §7.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// C, two letters.
    pub country: String,
    /// L.
    pub locality: String,
    /// O.
    pub organization: String,
    /// OU.
    pub organizational_unit: String,
    /// CN, the identity of the node.
    pub common_name: String,
}

impl Subject {
    /// A subject with a common name only.
    pub fn common_name(name: impl Into<String>) -> Self {
        Self { common_name: name.into(), ..Self::default() }
    }
}

/// A request could not be made.
#[derive(Debug, thiserror::Error)]
#[error("could not make the certificate request: {0}")]
pub struct CreateError(String);

/// Makes a request for `key`, without extensions, as PEM.
///
/// # Errors
/// When signing fails; not seen in practice.
pub fn create(key: &PrivateKey, subject: &Subject) -> Result<String, CreateError> {
    let mut name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::CountryName, &subject.country),
        (DnType::LocalityName, &subject.locality),
        (DnType::OrganizationName, &subject.organization),
        (DnType::OrganizationalUnitName, &subject.organizational_unit),
        (DnType::CommonName, &subject.common_name),
    ] {
        if !value.is_empty() {
            name.push(kind, dn_value(value));
        }
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    let request = params.serialize_request(key.pair()).map_err(|error| CreateError(error.to_string()))?;
    Ok(encode_pem("CERTIFICATE REQUEST", request.der()))
}

/// PrintableString where the characters allow it, as the original does, else UTF8String.
pub(crate) fn dn_value(text: &str) -> DnValue {
    PrintableString::try_from(text).map_or_else(|_| DnValue::Utf8String(text.to_owned()), DnValue::PrintableString)
}

/// A name in the subject alternative name extension of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlternativeName {
    /// `DNS`, `IP`, `email`, `URI`, or the name of a rarer kind.
    pub kind: &'static str,
    /// The name as text; for rarer kinds a description.
    pub value: String,
}

/// What a request says. It has been decoded, not judged: see [`check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrFacts {
    /// Subject in readable form.
    pub subject: String,
    /// Every common name, in order.
    pub common_names: Vec<String>,
    /// Every text of the subject, common names included.
    pub subject_values: Vec<String>,
    /// Every alternative name.
    pub alternative_names: Vec<AlternativeName>,
    /// Kind and size of the public key.
    pub key: PublicKeyKind,
    /// Public key as DER `SubjectPublicKeyInfo`.
    pub public_der: Vec<u8>,
    /// The request again as PEM: this block and nothing around it, safe to hand to a helper.
    pub pem: String,
    signature_is_good: bool,
    refused_extension: Option<String>,
}

/// Rules for [`check`].
#[derive(Debug, Clone)]
pub struct CsrPolicy {
    /// The identity the certificate is for.
    pub identity: String,
    /// Names that no certificate may carry.
    pub deny: Patterns,
    /// Smallest RSA key, in bits.
    pub min_rsa_bits: usize,
}

impl CsrPolicy {
    /// The default rules for `identity`: the default deny list and RSA of at least 2048 bits.
    pub fn new(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), deny: Patterns::default_deny(), min_rsa_bits: MIN_RSA_BITS }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// There is no request.
    #[error("no CSR received")]
    Missing,
    /// The text is too large.
    #[error("CSR of {bytes} bytes is larger than the {MAX_CSR_BYTES} bytes allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The text is not PEM.
    #[error("could not parse CSR: it is not PEM")]
    NotPem,
    /// The PEM block has another label.
    #[error("could not parse CSR: the PEM block is {label}, not CERTIFICATE REQUEST")]
    Label {
        /// The label, made safe for showing.
        label: String,
    },
    /// There is more than one block; different tools would use different ones.
    #[error("CSR holds more than one PEM block")]
    SecondBlock,
    /// The block is no PKCS#10 request.
    #[error("could not parse CSR: {0}")]
    Undecodable(&'static str),
    /// The subject has no common name.
    #[error("CSR has no common name, expected {identity}")]
    NoCommonName {
        /// What it should be.
        identity: String,
    },
    /// The subject has several common names.
    #[error("CSR has {count} common names, exactly one is allowed")]
    SeveralCommonNames {
        /// How many.
        count: usize,
    },
    /// The common name is not the identity.
    #[error("common name {name} does not match identity {identity}")]
    CommonName {
        /// What the request says.
        name: String,
        /// What it should be.
        identity: String,
    },
    /// A name is on the deny list.
    #[error("{name} matches denied certificate pattern {pattern}")]
    Denied {
        /// The name.
        name: String,
        /// The pattern.
        pattern: String,
    },
    /// An alternative name is not the identity.
    #[error("alternative name {kind}:{name} is not the identity {identity}")]
    ForeignName {
        /// Kind of the name.
        kind: &'static str,
        /// The name.
        name: String,
        /// What is allowed.
        identity: String,
    },
    /// The key is too small.
    #[error("CSR has a {kind} key, RSA keys need at least {minimum} bits")]
    WeakKey {
        /// Kind and size.
        kind: PublicKeyKind,
        /// What is needed.
        minimum: usize,
    },
    /// The key is of a kind that is not accepted.
    #[error("CSR has a key of {kind}; RSA, P-256, P-384 and Ed25519 are accepted")]
    KeyKind {
        /// Kind of the key.
        kind: PublicKeyKind,
    },
    /// The self-signature does not verify, so the sender may not hold the key.
    #[error("the CSR's signature does not verify, the sender does not hold the key")]
    Signature,
    /// It asks for an extension that a node's certificate must not have.
    #[error("CSR asks for {0}")]
    Extension(String),
}

impl CsrError {
    /// A short word for metrics and events, one per kind of refusal.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooLarge { .. } => "too_large",
            Self::NotPem => "not_pem",
            Self::Label { .. } => "label",
            Self::SecondBlock => "second_block",
            Self::Undecodable(_) => "undecodable",
            Self::NoCommonName { .. } => "no_common_name",
            Self::SeveralCommonNames { .. } => "several_common_names",
            Self::CommonName { .. } => "common_name",
            Self::Denied { .. } => "denied_name",
            Self::ForeignName { .. } => "foreign_name",
            Self::WeakKey { .. } => "weak_key",
            Self::KeyKind { .. } => "key_kind",
            Self::Signature => "signature",
            Self::Extension(_) => "extension",
        }
    }
}

/// Decodes a PEM request; text before the block is skipped. This does not judge it, see [`check`].
///
/// # Errors
/// When the text is empty, too large, not PEM, has another label or a second block, or cannot be decoded.
pub fn inspect(text: &str) -> Result<CsrFacts, CsrError> {
    if text.trim().is_empty() {
        return Err(CsrError::Missing);
    }
    if text.len() > MAX_CSR_BYTES {
        return Err(CsrError::TooLarge { bytes: text.len() });
    }
    if text.matches("-----BEGIN").count() > 1 {
        return Err(CsrError::SecondBlock);
    }
    let block = pem::parse(text).map_err(|_| CsrError::NotPem)?;
    if !matches!(block.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err(CsrError::Label { label: shown(block.tag()) });
    }
    decode(block.contents())
}

fn decode(der: &[u8]) -> Result<CsrFacts, CsrError> {
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| CsrError::Undecodable("not a PKCS#10 request"))?;
    if !rest.is_empty() {
        return Err(CsrError::Undecodable("bytes follow the request"));
    }
    let info = &request.certification_request_info;
    let mut facts = CsrFacts {
        subject: shown(&info.subject.to_string()),
        common_names: Vec::new(),
        subject_values: Vec::new(),
        alternative_names: Vec::new(),
        key: PublicKeyKind::of(&info.subject_pki),
        public_der: info.subject_pki.raw.to_vec(),
        pem: encode_pem("CERTIFICATE REQUEST", der),
        signature_is_good: signature_is_good(der, &request),
        refused_extension: None,
    };
    facts.read_subject(&info.subject)?;
    let mut requests = 0;
    for attribute in info.attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(request) => {
                requests += 1;
                facts.read_extensions(&request.extensions)?;
            }
            ParsedCriAttribute::ChallengePassword(_) => {}
            ParsedCriAttribute::UnsupportedAttribute => facts.refuse(format!("attribute {}", attribute.oid)),
        }
    }
    if requests > 1 {
        facts.refuse("extensions twice".to_owned());
    }
    Ok(facts)
}

impl CsrFacts {
    fn refuse(&mut self, what: String) {
        self.refused_extension.get_or_insert(what);
    }

    fn read_subject(&mut self, subject: &X509Name<'_>) -> Result<(), CsrError> {
        for attribute in subject.iter_attributes() {
            let value = attribute
                .as_str()
                .map_err(|_| CsrError::Undecodable("the subject has text in an unusual encoding"))?
                .to_owned();
            if *attribute.attr_type() == oid::OID_X509_COMMON_NAME {
                self.common_names.push(value.clone());
            }
            self.subject_values.push(value);
        }
        Ok(())
    }

    fn read_extensions(&mut self, extensions: &[X509Extension<'_>]) -> Result<(), CsrError> {
        for extension in extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    self.alternative_names.extend(names.general_names.iter().map(alternative_name));
                }
                ParsedExtension::BasicConstraints(constraints) if !constraints.ca => {}
                ParsedExtension::BasicConstraints(_) => self.refuse("a CA certificate".to_owned()),
                ParsedExtension::KeyUsage(usage) if !usage.key_cert_sign() && !usage.crl_sign() => {}
                ParsedExtension::KeyUsage(_) => self.refuse("the right to sign certificates".to_owned()),
                ParsedExtension::ExtendedKeyUsage(usage)
                    if !(usage.any
                        || usage.code_signing
                        || usage.email_protection
                        || usage.time_stamping
                        || usage.ocsp_signing
                        || !usage.other.is_empty()) => {}
                ParsedExtension::ExtendedKeyUsage(_) => {
                    self.refuse("an extended key usage other than server or client authentication".to_owned());
                }
                ParsedExtension::SubjectKeyIdentifier(_) => {}
                ParsedExtension::ParseError { .. } => {
                    return Err(CsrError::Undecodable("an extension is damaged"));
                }
                _ => self.refuse(format!("extension {}", extension.oid)),
            }
        }
        Ok(())
    }
}

fn alternative_name(name: &GeneralName<'_>) -> AlternativeName {
    let (kind, value) = match name {
        GeneralName::DNSName(name) => ("DNS", (*name).to_owned()),
        GeneralName::RFC822Name(name) => ("email", (*name).to_owned()),
        GeneralName::URI(name) => ("URI", (*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            ("IP", ip_address(bytes).as_ref().map_or_else(|| hex::encode(bytes), IpAddr::to_string))
        }
        GeneralName::DirectoryName(name) => ("directory", name.to_string()),
        GeneralName::OtherName(oid, _) => ("other", oid.to_string()),
        GeneralName::RegisteredID(oid) => ("registered", oid.to_string()),
        GeneralName::X400Address(_) => ("X.400", String::new()),
        GeneralName::EDIPartyName(_) => ("EDI", String::new()),
        GeneralName::Invalid(_, bytes) => ("damaged", hex::encode(bytes)),
    };
    AlternativeName { kind, value }
}

/// Algorithms a request may be signed with, by kind of key: how the algorithm is written, and what verifies it. SHA-1,
/// MD5 and PSS are not accepted.
type Signing = (AlgorithmIdentifier, &'static dyn sig::VerificationAlgorithm);
const RSA: [Signing; 3] = [
    (alg_id::RSA_PKCS1_SHA256, &sig::RSA_PKCS1_2048_8192_SHA256),
    (alg_id::RSA_PKCS1_SHA384, &sig::RSA_PKCS1_2048_8192_SHA384),
    (alg_id::RSA_PKCS1_SHA512, &sig::RSA_PKCS1_2048_8192_SHA512),
];
const P256: [Signing; 2] =
    [(alg_id::ECDSA_SHA256, &sig::ECDSA_P256_SHA256_ASN1), (alg_id::ECDSA_SHA384, &sig::ECDSA_P256_SHA384_ASN1)];
const P384: [Signing; 2] =
    [(alg_id::ECDSA_SHA256, &sig::ECDSA_P384_SHA256_ASN1), (alg_id::ECDSA_SHA384, &sig::ECDSA_P384_SHA384_ASN1)];
const ED25519: [Signing; 1] = [(alg_id::ED25519, &sig::ED25519)];

/// Verifies that the request was signed with the key it holds. The bytes after the signed part are compared as a whole, so
/// that one request has one encoding.
fn signature_is_good(der: &[u8], request: &X509CertificationRequest<'_>) -> bool {
    let info = &request.certification_request_info;
    let key = &info.subject_pki.subject_public_key;
    let accepted: &[Signing] = match PublicKeyKind::of(&info.subject_pki) {
        PublicKeyKind::Rsa { .. } => &RSA,
        PublicKeyKind::P256 => &P256,
        PublicKeyKind::P384 => &P384,
        PublicKeyKind::Ed25519 => &ED25519,
        _ => return false,
    };
    let Some((algorithm, signature)) = after_the_signed_part(der, info.raw.len()) else { return false };
    if key.unused_bits != 0 || signature != &*request.signature_value.data {
        return false;
    }
    accepted.iter().find(|(written, _)| written.as_ref() == algorithm).is_some_and(|(_, verification)| {
        sig::UnparsedPublicKey::new(*verification, &key.data).verify(info.raw, signature).is_ok()
    })
}

/// Content of the signature algorithm and of the signature, strictly as DER and with nothing else there.
fn after_the_signed_part(der: &[u8], signed: usize) -> Option<(&[u8], &[u8])> {
    let element = |bytes: &'_ [u8], tag: Tag| -> Option<(usize, usize)> {
        let (content, header) = Header::from_der(bytes).ok()?;
        let length = header.length().definite().ok()?;
        let form = header.class() == Class::Universal && header.constructed() == (tag == Tag::Sequence);
        let fits = header.tag() == tag && form && length <= content.len();
        fits.then_some((bytes.len() - content.len(), length))
    };
    let (start, length) = element(der, Tag::Sequence)?;
    let tail = der.get(start + signed..start + length)?;
    let (start, length) = element(tail, Tag::Sequence)?;
    let (algorithm, tail) = (&tail[start..start + length], &tail[start + length..]);
    let (start, length) = element(tail, Tag::BitString)?;
    let signature = tail[start..].strip_prefix(&[0])?;
    (tail.len() == start + length).then_some((algorithm, signature))
}

/// Judges a request. Key first, then proof of possession, names, extensions.
///
/// # Errors
/// The first rule that is broken.
pub fn check(facts: &CsrFacts, policy: &CsrPolicy) -> Result<(), CsrError> {
    match facts.key {
        PublicKeyKind::Rsa { bits } if bits < policy.min_rsa_bits.max(MIN_RSA_BITS) => {
            return Err(CsrError::WeakKey { kind: facts.key, minimum: policy.min_rsa_bits.max(MIN_RSA_BITS) });
        }
        PublicKeyKind::Rsa { bits: ..=8192 } | PublicKeyKind::P256 | PublicKeyKind::P384 | PublicKeyKind::Ed25519 => {}
        kind => return Err(CsrError::KeyKind { kind }),
    }
    if !facts.signature_is_good {
        return Err(CsrError::Signature);
    }
    check_names(facts, policy)?;
    match &facts.refused_extension {
        Some(what) => Err(CsrError::Extension(what.clone())),
        None => Ok(()),
    }
}

fn check_names(facts: &CsrFacts, policy: &CsrPolicy) -> Result<(), CsrError> {
    let identity = || policy.identity.clone();
    let names = facts.subject_values.iter().chain(facts.alternative_names.iter().map(|name| &name.value));
    for name in names {
        if let Some(pattern) = denied(name, &policy.deny) {
            return Err(CsrError::Denied { name: shown(name), pattern });
        }
    }
    match facts.common_names.as_slice() {
        [] => return Err(CsrError::NoCommonName { identity: identity() }),
        [name] if *name == policy.identity => {}
        [name] => return Err(CsrError::CommonName { name: shown(name), identity: identity() }),
        names => return Err(CsrError::SeveralCommonNames { count: names.len() }),
    }
    match facts.alternative_names.iter().find(|name| name.kind != "DNS" || name.value != policy.identity) {
        Some(name) => Err(CsrError::ForeignName { kind: name.kind, name: shown(&name.value), identity: identity() }),
        None => Ok(()),
    }
}

/// The pattern that denies `name`, looking also at the host names inside e-mail addresses, URIs and directory names.
fn denied(name: &str, deny: &Patterns) -> Option<String> {
    let parts = name.split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_')));
    std::iter::once(name).chain(parts).find_map(|part| deny.matching(part)).map(str::to_owned)
}
