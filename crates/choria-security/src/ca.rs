//! The built-in certificate authority, for fleets that have none.
//!
//! A directory holds `ca.pem` (0644) and `ca-key.pem` (0600). Certificates for nodes are signed from their requests after
//! [`csr::check`]; nothing of a request but its public key goes into the certificate, names and usages come from the
//! policy. Everybody who signs protocol v1 requests (clients, the provisioner) gets an RSA key, see [`crate::sign`].

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use time::OffsetDateTime;

use crate::atomic::{self, FileError};
use crate::cert::{self, CertificateError, CertificateFacts};
use crate::csr::{self, CsrError, CsrFacts, CsrPolicy, dn_value};
use crate::keys::{KeyError, KeyKind, PrivateKey, PublicKeyKind, encode_pem};
use crate::patterns::Patterns;
use crate::sign::MAX_CERTIFICATE_FILE;

/// File name of the CA certificate.
pub const CA_FILE: &str = "ca.pem";
/// File name of the CA key.
pub const CA_KEY_FILE: &str = "ca-key.pem";
/// Validity of a new CA.
pub const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Validity of an issued certificate when the policy names none.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates begin this long before they are made, for nodes whose clock is a little behind.
const BACKDATE: i64 = 300;

/// Why the authority could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is an authority already.
    #[error("{0} already holds a certificate authority")]
    Exists(String),
    /// The key file is unusable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate file is unusable.
    #[error("{origin}: {problem}")]
    Certificate {
        /// The file.
        origin: String,
        /// What is wrong.
        problem: CertificateError,
    },
    /// The certificate is not that of an authority, or the key belongs to another.
    #[error("{origin} cannot be used as a certificate authority: {problem}")]
    Unusable {
        /// The directory.
        origin: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A certificate beside the signing one is unusable.
    #[error("{origin}: {problem}")]
    Bundle {
        /// The file.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The request was refused.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The authority's own certificate is not valid now.
    #[error("the CA certificate is valid from {not_before} to {not_after}, not at {now}")]
    Outdated {
        /// Start of its validity.
        not_before: i64,
        /// End of its validity.
        not_after: i64,
        /// The time something was to be issued.
        now: i64,
    },
    /// A name cannot be written into a certificate.
    #[error("{0} cannot be written into a certificate")]
    Name(String),
    /// The cryptographic library failed.
    #[error("could not make the certificate: {0}")]
    Library(String),
}

impl CaError {
    /// A short word for metrics and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Csr(error) => error.reason(),
            Self::Outdated { .. } => "ca_outdated",
            Self::Name(_) => "name",
            _ => "ca",
        }
    }
}

/// What may be signed for one node.
#[derive(Debug, Clone)]
pub struct SigningPolicy {
    /// Identity of the node: common name and first DNS name.
    pub identity: String,
    /// How long the certificate is valid; never beyond the CA's own.
    pub validity: Duration,
    /// Further DNS names, chosen by the operator, never by the node.
    pub dns_names: Vec<String>,
    /// Names that no certificate may carry; also applied to `dns_names`.
    pub deny: Patterns,
    /// Smallest RSA key, in bits.
    pub min_rsa_bits: usize,
}

impl SigningPolicy {
    /// The default policy for `identity`: one year, the default deny list, RSA of at least 2048 bits.
    pub fn new(identity: impl Into<String>) -> Self {
        Self {
            identity: identity.into(),
            validity: DEFAULT_VALIDITY,
            dns_names: Vec::new(),
            deny: Patterns::default_deny(),
            min_rsa_bits: csr::MIN_RSA_BITS,
        }
    }
}

/// What an issued certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    /// Both ends of a connection; what Choria uses everywhere.
    #[default]
    ClientAndServer,
    /// Connecting and signing requests only.
    Client,
    /// Listening only.
    Server,
}

/// A certificate to be issued together with its key.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// Common name; also the first DNS name.
    pub common_name: String,
    /// Further DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses, for brokers reached by address.
    pub ip_addresses: Vec<IpAddr>,
    /// What it may be used for.
    pub usage: Usage,
    /// Kind of the key to make.
    pub key: KeyKind,
    /// How long it is valid.
    pub validity: Duration,
}

impl IssueRequest {
    /// A request for `common_name` with the default validity.
    pub fn new(common_name: impl Into<String>, key: KeyKind) -> Self {
        Self {
            common_name: common_name.into(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            usage: Usage::ClientAndServer,
            key,
            validity: DEFAULT_VALIDITY,
        }
    }
}

/// An issued certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// PEM text.
    pub pem: String,
    /// DER.
    pub der: Vec<u8>,
    /// Serial number, lower case hex.
    pub serial: String,
    /// Last second of validity, Unix time.
    pub not_after: i64,
}

/// An issued certificate and its new key.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: PrivateKey,
}

/// A certificate authority, ready to sign. Signing takes no lock and can be done from many threads.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    facts: CertificateFacts,
}

impl CertificateAuthority {
    /// Makes a new authority in `directory` (created with mode 0700 when absent), valid for ten years from `now`.
    ///
    /// # Errors
    /// When there is one already, or files cannot be written.
    pub fn create(directory: impl AsRef<Path>, name: &str, kind: KeyKind, now: i64) -> Result<Self, CaError> {
        let directory = directory.as_ref();
        if directory.join(CA_FILE).exists() || directory.join(CA_KEY_FILE).exists() {
            return Err(CaError::Exists(directory.display().to_string()));
        }
        create_directory(directory)?;
        let (authority, key) = Self::generate(name, kind, now)?;
        // The key goes first: a crash in between leaves a directory that `create` refuses instead of one that lost its key.
        atomic::create_file(directory.join(CA_KEY_FILE), key.as_bytes(), 0o600)?;
        atomic::create_file(directory.join(CA_FILE), authority.pem.as_bytes(), 0o644)?;
        Ok(authority)
    }

    /// A new authority in memory and its key as PEM.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate(name: &str, kind: KeyKind, now: i64) -> Result<(Self, zeroize::Zeroizing<String>), CaError> {
        let key = PrivateKey::generate(kind)?;
        let key_pem = key.to_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial()?);
        params.not_before = date(now.saturating_sub(BACKDATE))?;
        params.not_after = date(now.saturating_add(seconds(CA_VALIDITY)))?;
        let certificate = params.self_signed(key.pair()).map_err(library)?;
        let pem = encode_pem("CERTIFICATE", certificate.der());
        Ok((Self::assemble(pem, key, "the new authority")?, key_pem))
    }

    /// Loads the authority of `directory`.
    ///
    /// # Errors
    /// When a file is missing or damaged, the certificate is not that of an authority, or the key is another's.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, CaError> {
        let directory = directory.as_ref();
        let key = PrivateKey::load(directory.join(CA_KEY_FILE))?;
        let file = directory.join(CA_FILE);
        let pem = atomic::read_text(&file, MAX_CERTIFICATE_FILE)?;
        Self::assemble(pem, key, &file.display().to_string())
    }

    /// An authority from PEM texts; the first certificate is the one that signs.
    ///
    /// # Errors
    /// As [`CertificateAuthority::load`].
    pub fn from_pem(certificate: &str, key: PrivateKey) -> Result<Self, CaError> {
        Self::assemble(certificate.to_owned(), key, "the CA certificate")
    }

    fn assemble(pem: String, key: PrivateKey, origin: &str) -> Result<Self, CaError> {
        let unreadable = |problem| CaError::Certificate { origin: origin.to_owned(), problem };
        let unusable = |problem| CaError::Unusable { origin: origin.to_owned(), problem };
        let der = cert::first_der(&pem).map_err(unreadable)?;
        let facts = CertificateFacts::from_der(&der).map_err(unreadable)?;
        if !facts.is_ca {
            return Err(unusable("the certificate is not a CA certificate"));
        }
        if !facts.belongs_to(&key) {
            return Err(unusable("the key does not belong to the certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(&der.into(), key.into_pair()).map_err(library)?;
        Ok(Self { issuer, pem, facts })
    }

    /// The CA certificate as PEM, what every member needs.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// What the CA certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// Checks a node's request against `policy` and signs it at `now` (Unix seconds).
    ///
    /// # Errors
    /// [`CaError::Csr`] with the reason when the request is refused; others when the authority itself cannot sign.
    pub fn sign_csr(&self, request_pem: &str, policy: &SigningPolicy, now: i64) -> Result<Certificate, CaError> {
        self.sign_request(&csr::inspect(request_pem)?, policy, now)
    }

    /// [`CertificateAuthority::sign_csr`] for a request that was inspected before: its signature, which says whether the
    /// sender holds the key, is not verified a second time.
    ///
    /// # Errors
    /// As [`CertificateAuthority::sign_csr`].
    pub fn sign_request(&self, facts: &CsrFacts, policy: &SigningPolicy, now: i64) -> Result<Certificate, CaError> {
        let rules = CsrPolicy {
            identity: policy.identity.clone(),
            deny: policy.deny.clone(),
            min_rsa_bits: policy.min_rsa_bits,
        };
        csr::check(facts, &rules)?;
        for name in &policy.dns_names {
            if let Some(pattern) = policy.deny.matching(name) {
                return Err(CsrError::Denied { name: name.clone(), pattern: pattern.to_owned() }.into());
            }
        }
        let public = SubjectPublicKeyInfo::from_der(&facts.public_der).map_err(library)?;
        let params = Leaf {
            common_name: &policy.identity,
            dns_names: &policy.dns_names,
            ip_addresses: &[],
            usage: Usage::ClientAndServer,
            validity: policy.validity,
        };
        self.sign(&params, &public, matches!(facts.key, PublicKeyKind::Rsa { .. }), now)
    }

    /// Makes a key and issues a certificate for it at `now` (Unix seconds). The operator asks for this, so the deny list
    /// does not apply.
    ///
    /// # Errors
    /// When a name cannot be written or the authority cannot sign.
    pub fn issue(&self, request: &IssueRequest, now: i64) -> Result<Issued, CaError> {
        let key = PrivateKey::generate(request.key)?;
        let certificate = self.issue_for(request, &key, now)?;
        Ok(Issued { certificate, key })
    }

    /// [`CertificateAuthority::issue`] for a key that exists; `request.key` is not looked at.
    ///
    /// # Errors
    /// As [`CertificateAuthority::issue`].
    pub fn issue_for(&self, request: &IssueRequest, key: &PrivateKey, now: i64) -> Result<Certificate, CaError> {
        let params = Leaf {
            common_name: &request.common_name,
            dns_names: &request.dns_names,
            ip_addresses: &request.ip_addresses,
            usage: request.usage,
            validity: request.validity,
        };
        self.sign(&params, key.pair(), matches!(key.kind(), PublicKeyKind::Rsa { .. }), now)
    }

    fn sign(&self, leaf: &Leaf<'_>, public: &impl PublicKeyData, rsa: bool, now: i64) -> Result<Certificate, CaError> {
        if !self.facts.is_valid_at(now) {
            let CertificateFacts { not_before, not_after, .. } = self.facts;
            return Err(CaError::Outdated { not_before, not_after, now });
        }
        let not_after = now.saturating_add(seconds(leaf.validity)).min(self.facts.not_after);
        let serial = serial()?;
        let serial_hex = hex::encode(serial.to_bytes());
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(leaf.common_name);
        params.subject_alt_names = leaf.alternative_names()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if rsa {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = match leaf.usage {
            Usage::ClientAndServer => vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial);
        params.not_before = date(now.saturating_sub(BACKDATE).max(self.facts.not_before))?;
        params.not_after = date(not_after)?;
        let certificate = params.signed_by(public, &self.issuer).map_err(library)?;
        let pem = encode_pem("CERTIFICATE", certificate.der());
        Ok(Certificate { pem, der: certificate.der().to_vec(), serial: serial_hex, not_after })
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("subject", &self.facts.subject).finish_non_exhaustive()
    }
}

/// Names and limits of a certificate about to be signed.
struct Leaf<'a> {
    common_name: &'a str,
    dns_names: &'a [String],
    ip_addresses: &'a [IpAddr],
    usage: Usage,
    validity: Duration,
}

impl Leaf<'_> {
    fn alternative_names(&self) -> Result<Vec<SanType>, CaError> {
        let mut names = Vec::new();
        for name in std::iter::once(self.common_name).chain(self.dns_names.iter().map(String::as_str)) {
            if names.iter().any(|known: &SanType| matches!(known, SanType::DnsName(known) if known == name)) {
                continue;
            }
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-*".contains(&b));
            if !is_name {
                return Err(CaError::Name(crate::text::shown(name)));
            }
            let dns = name.try_into().map_err(|_| CaError::Name(crate::text::shown(name)))?;
            names.push(SanType::DnsName(dns));
        }
        names.extend(self.ip_addresses.iter().copied().map(SanType::IpAddress));
        Ok(names)
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, dn_value(name));
    distinguished
}

/// 16 random bytes, positive and never zero.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| CaError::Library("the system random source failed".to_owned()))?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn date(unix: i64) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(unix).map_err(|error| CaError::Library(error.to_string()))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a map_err function")]
fn library(error: rcgen::Error) -> CaError {
    CaError::Library(error.to_string())
}

fn create_directory(directory: &Path) -> Result<(), CaError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    Ok(builder.create(directory).map_err(|source| FileError::new("create", directory, source))?)
}
