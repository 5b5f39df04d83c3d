//! The provisioning token as a node uses it: unverified, read anew at every connection try (spec 03 §6.1).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use choria_config::BuildSettings;
use choria_connector::servers::{PROVISIONER_SRV, srv_targets};
use choria_connector::srv::Resolver;
use choria_connector::{CredentialSource, Credentials, ServerResolver, Target};
use choria_tokens::{ProvisioningClaims, Secret, read_provisioning_unverified};

use super::decision::{Build, Token};
use crate::files::{SharedFiles, read_text};

/// Largest token file that is read.
const MAX_TOKEN: u64 = 128 * 1024;

/// Extension of a token that names the one node it is for.
pub const IDENTITY_EXTENSION: &str = "identity";

/// Extension of a token that chooses the kind of key a node makes: `p256`, `ed25519` or `rsa`.
pub const KEY_TYPE_EXTENSION: &str = "key_type";

/// A token that a node can use.
#[derive(Clone)]
pub struct UsableToken {
    /// The text, trimmed: what CONNECT and the action `jwt` carry.
    pub text: String,
    /// What it says. Nobody has verified it; the broker does.
    pub claims: ProvisioningClaims,
    targets: Targets,
}

impl std::fmt::Debug for UsableToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsableToken").field("targets", &self.targets).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum Targets {
    Brokers(Vec<Target>),
    Srv(String),
}

impl UsableToken {
    /// Reads the text of a token file.
    ///
    /// # Errors
    /// Why a node cannot use it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains(char::is_whitespace) {
            return Err("token is malformed: there is more than one token in the file".to_owned());
        }
        let claims = read_provisioning_unverified(text).map_err(|error| error.to_string())?;
        claims.check_node_use().map_err(|error| error.to_string())?;
        let targets = if claims.chsrv.trim().is_empty() {
            let urls = claims.broker_urls();
            let list = urls.iter().map(|url| Target::parse(url)).collect::<Result<Vec<_>, _>>();
            Targets::Brokers(list.map_err(|error| format!("its broker list (chu) is wrong: {error}"))?)
        } else {
            Targets::Srv(claims.chsrv.trim().to_owned())
        };
        if let Targets::Brokers(list) = &targets
            && list.is_empty()
        {
            return Err("its broker list (chu) is empty".to_owned());
        }
        Ok(Self { text: text.to_owned(), claims, targets })
    }

    /// The node this token is for, if it is for one only.
    pub fn node(&self) -> Option<&str> {
        self.extension(IDENTITY_EXTENSION)
    }

    /// A text among the token's extensions.
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.claims.extensions.as_ref()?.get(name)?.as_str().filter(|text| !text.is_empty())
    }
}

/// The token file, its last good content, and what the build says in its place.
#[derive(Debug)]
pub struct ProvisioningToken {
    path: Option<PathBuf>,
    files: SharedFiles,
    build: Arc<BuildSettings>,
    /// Kept when the file goes away: the agent stays active until the next start.
    last: Mutex<Option<Arc<UsableToken>>>,
}

impl ProvisioningToken {
    /// The token at `path` on the real disk; nothing is read yet.
    pub fn new(path: Option<PathBuf>, build: Arc<BuildSettings>) -> Self {
        Self::on(SharedFiles::default(), path, build)
    }

    /// The same on another disk.
    pub fn on(files: SharedFiles, path: Option<PathBuf>, build: Arc<BuildSettings>) -> Self {
        Self { path, files, build, last: Mutex::new(None) }
    }

    /// The token file, if one is configured.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads the file anew and remembers it if it is usable.
    pub fn refresh(&self) -> Token {
        let Some(path) = &self.path else { return Token::NotConfigured };
        let unusable = |reason: String| Token::Unusable { path: path.clone(), reason };
        let text = match self.text() {
            Ok(Some(text)) => text,
            Ok(None) => return Token::NotConfigured,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Token::Missing(path.clone()),
            Err(error) => return unusable(error.to_string()),
        };
        // Read again at every turn, parsed again only when it has changed.
        if let Some(known) = self.current().filter(|known| known.text == text.trim()) {
            return Token::Usable { by_default: known.claims.chpd };
        }
        match UsableToken::parse(&text) {
            Ok(token) => {
                let by_default = token.claims.chpd;
                *self.lock() = Some(Arc::new(token));
                Token::Usable { by_default }
            }
            Err(reason) => unusable(reason),
        }
    }

    /// What the file holds now, whether or not it is usable; nothing when none is configured.
    ///
    /// # Errors
    /// The system's answer.
    pub fn text(&self) -> io::Result<Option<String>> {
        self.path.as_ref().map(|path| read_text(&*self.files, path, MAX_TOKEN)).transpose()
    }

    /// The last usable content.
    pub fn current(&self) -> Option<Arc<UsableToken>> {
        self.lock().clone()
    }

    /// The secret that every provisioning action must name: `cht` of the token, else the build's.
    pub fn action_token(&self) -> Option<Secret> {
        let from_file = self.current().map(|token| token.claims.cht.clone());
        from_file.or_else(|| self.build.provision_token.as_deref().map(Secret::from)).filter(|token| !token.is_empty())
    }

    /// What the decision needs to know of the build.
    pub(super) fn build_facts(&self) -> Build {
        Build {
            has_targets: !self.build.provision_broker_urls.is_empty()
                || self.build.provision_broker_srv_domain.is_some(),
            by_default: self.build.provision_mode_default,
            has_token: self.build.provision_token.as_deref().is_some_and(|token| !token.is_empty()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<UsableToken>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the token for a connection try. The text says what is missing.
    fn for_connection(&self) -> Result<Option<Arc<UsableToken>>, String> {
        match self.refresh() {
            Token::Usable { .. } => Ok(self.current()),
            _ if self.current().is_none() && self.build_facts().has_token && self.build_facts().has_targets => Ok(None),
            Token::NotConfigured => Err("waiting to be provisioned: no provisioning token is configured".to_owned()),
            Token::Missing(path) => {
                Err(format!("waiting to be provisioned: there is no provisioning token {}", path.display()))
            }
            Token::Unusable { path, reason } => Err(format!(
                "waiting to be provisioned: the provisioning token {} cannot be used: {reason}",
                path.display()
            )),
        }
    }
}

/// Brokers and credentials of a server that waits to be provisioned. It knows no other source of brokers.
pub struct ProvisioningSource {
    /// The token.
    pub token: Arc<ProvisioningToken>,
    /// Asks for SRV records.
    pub resolver: Arc<dyn Resolver>,
}

impl std::fmt::Debug for ProvisioningSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProvisioningSource").field("token", &self.token.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl ServerResolver for ProvisioningSource {
    async fn servers(&self) -> Result<Vec<Target>, String> {
        let domain = match self.token.for_connection()? {
            Some(token) => match &token.targets {
                Targets::Brokers(targets) => return Ok(targets.clone()),
                Targets::Srv(domain) => domain.clone(),
            },
            None => {
                let build = &self.token.build;
                let urls: Result<Vec<Target>, _> = build.provision_broker_urls.iter().map(|url| url.parse()).collect();
                let urls = urls.map_err(|error| format!("the build's provisioning brokers are wrong: {error}"))?;
                match &build.provision_broker_srv_domain {
                    Some(domain) if urls.is_empty() => domain.clone(),
                    _ => return Ok(urls),
                }
            }
        };
        let targets = srv_targets(&*self.resolver, PROVISIONER_SRV, &domain).await;
        let targets = targets.map_err(|error| format!("waiting to be provisioned: {error}"))?;
        if targets.is_empty() {
            return Err(format!(
                "waiting to be provisioned: DNS has no SRV record {PROVISIONER_SRV}.{domain}, which the token names"
            ));
        }
        Ok(targets)
    }
}

impl CredentialSource for ProvisioningSource {
    fn credentials(&self) -> Result<Credentials, String> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let build = &self.token.build;
        let mut credentials = Credentials {
            token: None,
            user: build.provisioning_broker_username.clone(),
            password: build.provisioning_broker_password.clone(),
        };
        if let Some(token) = self.token.for_connection()? {
            credentials.token = Some(token.text.clone());
            if let (Some(user), Some(password)) = (given(&token.claims.chusr), given(token.claims.chpwd.expose())) {
                (credentials.user, credentials.password) = (Some(user), Some(password));
            }
        }
        Ok(credentials)
    }
}
