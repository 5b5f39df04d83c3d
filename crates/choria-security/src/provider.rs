//! The `file` security provider: certificate, key and CA named one by one in the configuration (spec 01 §10.2, §10.3).
//!
//! The certname decides the caller id, `choria=<certname>`. `MCOLLECTIVE_CERTNAME` sets it for everybody. Without it,
//! servers and brokers use the configured identity, also when they do not run as root: the original takes
//! `$USER.mcollective` there, which is never what the certificate says (spec 01, sharp edge 14). Clients use the identity
//! as root and `$USER.<suffix>` otherwise.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use choria_config::{BuildSettings, Config, Environment, Mode, SecurityProvider, keys};

use crate::atomic::{self, FileError};
use crate::cert::{self, CertificateError};
use crate::patterns::{PatternError, Patterns};
use crate::sign::{MAX_CERTIFICATE_FILE, RequestSigner, SignerError};
use crate::tls::{TlsError, TlsMaterial};
use crate::trust::{TrustError, TrustStore};
use crate::verify::RequestVerifier;

/// Why security could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The configured provider is not `file`.
    #[error("security provider {0} is not available in this version, set plugin.security.provider = file")]
    Provider(String),
    /// A client's name cannot be told.
    #[error(
        "could not determine client identity, ensure USER environment variable is set, or set MCOLLECTIVE_CERTNAME to the name in the certificate"
    )]
    NoUser,
    /// Files are not configured or missing; the text lists all of them.
    #[error("security setup is not valid, {} errors encountered: {}", .0.len(), .0.join(", "))]
    Setup(Vec<String>),
    /// The certificate is for somebody else.
    #[error(
        "the certificate {certificate} is for {names}, but requests are made as {certname}: receivers would drop them silently; set MCOLLECTIVE_CERTNAME or use another certificate"
    )]
    Certname {
        /// The certificate file.
        certificate: PathBuf,
        /// Names it holds.
        names: String,
        /// The name requests would be made under.
        certname: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate cannot be read.
    #[error("{path}: {source}")]
    Certificate {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Requests cannot be signed.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The CA file is unusable.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A list of names is unusable.
    #[error("{setting}: {source}")]
    Pattern {
        /// The configuration key.
        setting: &'static str,
        /// What is wrong.
        source: PatternError,
    },
}

/// What the certname may depend on besides the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `USER`, `USERNAME` on Windows.
    pub user: Option<String>,
    /// `MCOLLECTIVE_CERTNAME`.
    pub certname: Option<String>,
    /// Running as root, or on Windows.
    pub root: bool,
    /// Build setting: what is appended to the user's name.
    pub suffix: String,
}

impl Surroundings {
    /// Those of this process.
    pub fn from_process() -> Self {
        Self::from_environment(&Environment::from_process())
    }

    /// Those of an environment that was handed in; whether this is root is asked of the system.
    pub fn from_environment(environment: &Environment) -> Self {
        let BuildSettings { client_identity_suffix, .. } = environment.build_settings();
        let variable = |name| environment.variable(name).filter(|value| !value.is_empty()).map(str::to_owned);
        Self {
            user: variable(if cfg!(windows) { "USERNAME" } else { "USER" }),
            certname: variable("MCOLLECTIVE_CERTNAME"),
            root: is_root(),
            suffix: client_identity_suffix.clone(),
        }
    }

    /// The certname of a program running in `mode` with the configured `identity`.
    ///
    /// # Errors
    /// When a client's user is not known.
    pub fn certname(&self, mode: Mode, identity: &str) -> Result<String, SecurityError> {
        if let Some(certname) = &self.certname {
            return Ok(certname.clone());
        }
        if self.root || mode != Mode::Client {
            return Ok(identity.to_owned());
        }
        let user = self.user.as_deref().ok_or(SecurityError::NoUser)?;
        Ok(format!("{user}.{}", self.suffix))
    }
}

#[cfg(unix)]
fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    true
}

/// Certificate, key and CA of one program, and the name it acts under.
#[derive(Clone, PartialEq, Eq)]
pub struct FileProvider {
    identity: String,
    certname: String,
    material: TlsMaterial,
    allowed: Vec<String>,
    privileged: Vec<String>,
}

impl FileProvider {
    /// The provider a configuration asks for, in the surroundings of this process. Files are not opened yet.
    ///
    /// # Errors
    /// When another provider is configured, or a client's name cannot be told.
    pub fn from_config(config: &Config) -> Result<Self, SecurityError> {
        Self::from_config_in(config, &Surroundings::from_process())
    }

    /// The same in surroundings that are handed in.
    ///
    /// # Errors
    /// As [`FileProvider::from_config`].
    pub fn from_config_in(config: &Config, surroundings: &Surroundings) -> Result<Self, SecurityError> {
        let provider = config.get(&keys::SECURITY_PROVIDER);
        if provider != SecurityProvider::File {
            return Err(SecurityError::Provider(provider.to_string()));
        }
        let identity = config.get(&keys::IDENTITY);
        Ok(Self {
            certname: surroundings.certname(config.mode(), &identity)?,
            identity,
            material: TlsMaterial {
                certificate: config.get(&keys::SECURITY_FILE_CERTIFICATE),
                key: config.get(&keys::SECURITY_FILE_KEY),
                ca: config.get(&keys::SECURITY_FILE_CA),
                cipher_suites: config.get(&keys::SECURITY_CIPHER_SUITES),
                ecc_curves: config.get(&keys::SECURITY_ECC_CURVES),
                legacy_certificates: config.get(&keys::SECURITY_SUPPORT_LEGACY_CERTIFICATES),
            },
            allowed: config.get(&keys::SECURITY_CERTNAME_WHITELIST),
            privileged: config.get(&keys::SECURITY_PRIVILEGED_USERS),
        })
    }

    /// A provider from plain values, with the default lists of allowed and privileged names.
    pub fn new(identity: impl Into<String>, certname: impl Into<String>, material: TlsMaterial) -> Self {
        Self {
            identity: identity.into(),
            certname: certname.into(),
            material,
            allowed: crate::patterns::DEFAULT_ALLOWED.map(str::to_owned).to_vec(),
            privileged: crate::patterns::DEFAULT_PRIVILEGED.map(str::to_owned).to_vec(),
        }
    }

    /// The configured identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The name this program acts under.
    pub fn certname(&self) -> &str {
        &self.certname
    }

    /// The caller id of its requests, `choria=<certname>`.
    pub fn caller_id(&self) -> String {
        format!("choria={}", self.certname)
    }

    /// Checks that all three files are configured and exist; to be skipped when TLS and protocol security are off.
    ///
    /// # Errors
    /// [`SecurityError::Setup`] with everything that is missing, in the original's words.
    pub fn validate(&self) -> Result<(), SecurityError> {
        let problems: Vec<_> = [
            ("public certificate", &self.material.certificate),
            ("private key", &self.material.key),
            ("CA", &self.material.ca),
        ]
        .into_iter()
        .filter_map(|(name, path)| match path {
            None => Some(format!("the {name} path is not configured")),
            Some(path) if !path.exists() => Some(format!("{name} {} does not exist", path.display())),
            Some(_) => None,
        })
        .collect();
        if problems.is_empty() { Ok(()) } else { Err(SecurityError::Setup(problems)) }
    }

    /// What TLS is made of.
    ///
    /// # Errors
    /// As [`FileProvider::validate`].
    pub fn tls_material(&self) -> Result<TlsMaterial, SecurityError> {
        self.validate()?;
        Ok(self.material.clone())
    }

    /// The signer of this program's requests; the key is read once.
    ///
    /// # Errors
    /// When files are missing or unusable, the key is not RSA, or the certificate is not for the certname (then every
    /// receiver would drop the requests without an answer).
    pub fn request_signer(&self) -> Result<RequestSigner, SecurityError> {
        let (certificate, key) = self.certificate_and_key()?;
        self.certificate_is_ours(certificate)?;
        Ok(RequestSigner::from_files(certificate, key, keys::SECURITY_FILE_KEY.name())?)
    }

    /// The verifier of requests that arrive here.
    ///
    /// # Errors
    /// When the CA file is unusable or a pattern does not compile.
    pub fn request_verifier(&self) -> Result<RequestVerifier, SecurityError> {
        let ca = self
            .material
            .ca
            .as_ref()
            .ok_or_else(|| SecurityError::Setup(vec!["the CA path is not configured".into()]))?;
        let trust = Arc::new(TrustStore::load(ca)?);
        let allowed = compile(&self.allowed, keys::SECURITY_CERTNAME_WHITELIST.name())?;
        Ok(RequestVerifier::new(trust, allowed, self.privileged_patterns()?))
    }

    fn privileged_patterns(&self) -> Result<Patterns, SecurityError> {
        compile(&self.privileged, keys::SECURITY_PRIVILEGED_USERS.name())
    }

    fn certificate_and_key(&self) -> Result<(&Path, &Path), SecurityError> {
        self.validate()?;
        match (&self.material.certificate, &self.material.key) {
            (Some(certificate), Some(key)) => Ok((certificate, key)),
            _ => Err(SecurityError::Setup(vec!["the public certificate path is not configured".into()])),
        }
    }

    /// Whether the certificate is for the name that this program acts under; part of [`FileProvider::request_signer`].
    ///
    /// # Errors
    /// [`SecurityError::Certname`] when it is for another one; otherwise when it is not configured or cannot be read.
    pub fn check_certname(&self) -> Result<(), SecurityError> {
        let certificate = self.material.certificate.as_deref();
        let certificate = certificate
            .ok_or_else(|| SecurityError::Setup(vec!["the public certificate path is not configured".into()]))?;
        self.certificate_is_ours(certificate)
    }

    fn certificate_is_ours(&self, certificate: &Path) -> Result<(), SecurityError> {
        let text = atomic::read_text(certificate, MAX_CERTIFICATE_FILE)?;
        let facts = cert::first_from_pem(&text)
            .map_err(|source| SecurityError::Certificate { path: certificate.to_owned(), source })?;
        let names = facts.names();
        let privileged = self.privileged_patterns()?;
        if names.contains(&self.certname) || (!names.is_empty() && names.iter().all(|name| privileged.is_match(name))) {
            return Ok(());
        }
        Err(SecurityError::Certname {
            certificate: certificate.to_owned(),
            names: crate::text::shown(&names.join(", ")),
            certname: self.certname.clone(),
        })
    }
}

impl fmt::Debug for FileProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileProvider")
            .field("identity", &self.identity)
            .field("certname", &self.certname)
            .finish_non_exhaustive()
    }
}

fn compile(patterns: &[String], setting: &'static str) -> Result<Patterns, SecurityError> {
    Patterns::new(patterns).map_err(|source| SecurityError::Pattern { setting, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{CertificateAuthority, IssueRequest};
    use crate::keys::KeyKind;

    const NOW: i64 = 1_795_219_200;

    fn lisa() -> Surroundings {
        Surroundings { user: Some("lisa".into()), certname: None, root: false, suffix: "mcollective".into() }
    }

    fn config(text: &str, mode: Mode) -> Config {
        Config::from_text(text, mode, &Environment::fixed("n1.example.net")).unwrap()
    }

    #[test]
    fn certnames_follow_the_table() {
        let root = Surroundings { root: true, ..lisa() };
        let given = Surroundings { certname: Some("given.choria".into()), ..lisa() };
        let nobody = Surroundings { user: None, ..lisa() };
        let name = |who: &Surroundings, mode| who.certname(mode, "n1.example.net").map_err(|error| error.to_string());
        assert_eq!(name(&lisa(), Mode::Client).unwrap(), "lisa.mcollective");
        assert_eq!(name(&root, Mode::Client).unwrap(), "n1.example.net");
        for who in [&lisa(), &root, &nobody] {
            assert_eq!(name(who, Mode::Server).unwrap(), "n1.example.net");
            assert_eq!(name(who, Mode::Broker).unwrap(), "n1.example.net");
        }
        for mode in [Mode::Client, Mode::Server, Mode::Broker] {
            assert_eq!(name(&given, mode).unwrap(), "given.choria");
        }
        let error = name(&nobody, Mode::Client).unwrap_err();
        assert!(
            error.starts_with("could not determine client identity, ensure USER environment variable is set"),
            "{error}"
        );
    }

    #[test]
    fn missing_files_are_listed_in_the_originals_words() {
        let provider = |text: &str| {
            FileProvider::from_config_in(
                &config(&format!("plugin.security.provider = file\n{text}"), Mode::Client),
                &lisa(),
            )
            .unwrap()
        };
        assert_eq!(
            provider("").validate().unwrap_err().to_string(),
            "security setup is not valid, 3 errors encountered: the public certificate path is not configured, \
             the private key path is not configured, the CA path is not configured"
        );
        let text = "plugin.security.file.certificate = /nowhere/c.pem\nplugin.security.file.key = /nowhere/k.pem\n\
                    plugin.security.file.ca = /nowhere/ca.pem\n";
        assert_eq!(
            provider(text).validate().unwrap_err().to_string(),
            "security setup is not valid, 3 errors encountered: public certificate /nowhere/c.pem does not exist, \
             private key /nowhere/k.pem does not exist, CA /nowhere/ca.pem does not exist"
        );
        assert_eq!(provider("").caller_id(), "choria=lisa.mcollective");
    }

    #[test]
    fn other_providers_are_refused_by_name() {
        let error = FileProvider::from_config_in(&config("plugin.security.provider = puppet\n", Mode::Server), &lisa());
        assert!(error.unwrap_err().to_string().starts_with("security provider puppet is not available"));
    }

    #[test]
    fn signer_and_verifier_of_one_provider_fit_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let ca = CertificateAuthority::create(directory.path().join("ca"), "Test CA", KeyKind::P256, NOW).unwrap();
        std::fs::write(path("ca.pem"), ca.certificate_pem()).unwrap();
        let issue = |name: &str, kind| {
            let issued = ca.issue(&IssueRequest::new(name, kind), NOW).unwrap();
            std::fs::write(path("cert.pem"), &issued.certificate.pem).unwrap();
            crate::keys::write_private_key(path("key.pem"), &issued.key).unwrap();
        };
        let material = TlsMaterial::new(path("cert.pem"), path("key.pem"), path("ca.pem"));
        let provider = FileProvider::new("n1.example.net", "lisa.mcollective", material);

        issue("lisa.mcollective", KeyKind::Rsa2048);
        let signature = provider.request_signer().unwrap().sign("text").unwrap();
        let verified = provider
            .request_verifier()
            .unwrap()
            .verify_parts("text", &signature.signature, &signature.pubcert, &provider.caller_id(), NOW)
            .unwrap();
        assert_eq!(verified.name, "lisa.mcollective");

        issue("bob.mcollective", KeyKind::Rsa2048);
        assert!(matches!(provider.request_signer(), Err(SecurityError::Certname { .. })));
        assert!(matches!(provider.check_certname(), Err(SecurityError::Certname { .. })));
        issue("x.privileged.mcollective", KeyKind::Rsa2048);
        provider.request_signer().unwrap();
        issue("lisa.mcollective", KeyKind::P256);
        let error = provider.request_signer().unwrap_err().to_string();
        assert!(error.contains("plugin.security.file.key") && error.contains("P-256"), "{error}");
    }
}
