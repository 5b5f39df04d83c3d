//! Authenticators for tests and small embedders.

use async_trait::async_trait;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::auth::{Authenticator, ConnectRequest, Grant, Permissions, Refusal};

/// Lets everybody into one account, also without CONNECT. For tests and embedding on trusted links only.
#[derive(Debug, Clone)]
pub struct OpenAuthenticator {
    account: String,
}

impl OpenAuthenticator {
    /// Everybody lands in this account.
    pub fn new(account: impl Into<String>) -> Self {
        Self { account: account.into() }
    }

    fn grant(&self) -> Grant {
        Grant::new(self.account.as_str())
    }
}

impl Default for OpenAuthenticator {
    /// Everybody lands in `$G`, as in a nats-server without configuration.
    fn default() -> Self {
        Self::new("$G")
    }
}

#[async_trait]
impl Authenticator for OpenAuthenticator {
    async fn authenticate(&self, _request: ConnectRequest) -> Result<Grant, Refusal> {
        Ok(self.grant())
    }

    fn auth_required(&self) -> bool {
        false
    }

    fn before_connect(&self) -> Option<Grant> {
        Some(self.grant())
    }

    /// Those who came without a credential stay; who had one belongs to settings that are gone.
    fn reconsider(&self, _cid: u64, present: &Grant) -> Result<Grant, Refusal> {
        if present.user.is_none() && present.proof.is_none() {
            return Ok(self.grant());
        }
        Err(gone(present, "logins are no longer asked for"))
    }
}

/// A user of a [`StaticAuthenticator`].
#[derive(Debug, Clone)]
struct StaticUser {
    user: String,
    password: String,
    grant: Grant,
}

/// A fixed list of users and tokens. Passwords are compared in constant time; nothing is hashed, so keep the list out
/// of files that others can read.
#[derive(Debug, Clone, Default)]
pub struct StaticAuthenticator {
    users: Vec<StaticUser>,
    tokens: Vec<(String, Grant)>,
    no_auth_user: Option<Grant>,
}

impl StaticAuthenticator {
    /// Nobody may connect.
    pub fn new() -> Self {
        Self::default()
    }

    /// A user with a password lands in an account with these permissions.
    #[must_use]
    pub fn user(mut self, user: &str, password: &str, account: &str, permissions: Permissions) -> Self {
        self.users.push(StaticUser {
            user: user.to_owned(),
            password: password.to_owned(),
            grant: grant(Some(user), password, account, permissions),
        });
        self
    }

    /// Whoever shows the token lands in an account with these permissions.
    #[must_use]
    pub fn token(mut self, token: &str, account: &str, permissions: Permissions) -> Self {
        self.tokens.push((token.to_owned(), grant(None, token, account, permissions)));
        self
    }

    /// Who shows no credential at all counts as this user, which must have been added before.
    #[must_use]
    pub fn no_auth_user(mut self, user: &str) -> Self {
        let known = self.users.iter().find(|known| known.user == user);
        // Nothing was proven.
        self.no_auth_user = known.map(|known| Grant { proof: None, ..known.grant.clone() });
        self
    }

    /// Changes the grant of a user, for expiry, claims and tags.
    #[must_use]
    pub fn with_grant(mut self, user: &str, change: impl Fn(&mut Grant)) -> Self {
        self.users.iter_mut().filter(|known| known.user == user).for_each(|known| change(&mut known.grant));
        self
    }
}

fn grant(user: Option<&str>, secret: &str, account: &str, permissions: Permissions) -> Grant {
    let digest = digest::digest(&digest::SHA256, secret.as_bytes());
    let proof = URL_SAFE_NO_PAD.encode(digest.as_ref());
    Grant { user: user.map(str::to_owned), permissions, proof: Some(proof.into()), ..Grant::new(account) }
}

/// The refusal of a connection whose login is not worth anything any more.
fn gone(present: &Grant, detail: &str) -> Refusal {
    Refusal { reason: "login_changed", detail: detail.to_owned(), claimed: present.user.clone() }
}

/// Compares without telling by its time how much was right.
fn is_same(given: &str, wanted: &str) -> bool {
    use subtle::ConstantTimeEq;
    given.as_bytes().ct_eq(wanted.as_bytes()).into()
}

#[async_trait]
impl Authenticator for StaticAuthenticator {
    async fn authenticate(&self, request: ConnectRequest) -> Result<Grant, Refusal> {
        let connect = &request.connect;
        let has_credentials = [&connect.user, &connect.pass, &connect.auth_token, &connect.nkey, &connect.jwt]
            .iter()
            .any(|text| !text.is_empty());
        if !has_credentials {
            return self.no_auth_user.clone().ok_or_else(|| refusal("no_credentials", "no credentials", connect));
        }
        if connect.user.is_empty() && !connect.auth_token.is_empty() {
            let mut found = None;
            for (token, grant) in &self.tokens {
                if is_same(&connect.auth_token, token) {
                    found = Some(grant.clone());
                }
            }
            return found.ok_or_else(|| refusal("bad_token", "the token is not known", connect));
        }
        match self.users.iter().find(|known| known.user == connect.user) {
            Some(known) if is_same(&connect.pass, &known.password) => Ok(known.grant.clone()),
            Some(_) => Err(refusal("bad_password", "wrong password", connect)),
            None => Err(refusal("unknown_user", "the user is not known", connect)),
        }
    }

    fn before_connect(&self) -> Option<Grant> {
        self.no_auth_user.clone()
    }

    /// A login stays worth what it was as long as user and password, or the token, are as they were.
    fn reconsider(&self, _cid: u64, present: &Grant) -> Result<Grant, Refusal> {
        let users = self.users.iter().map(|known| &known.grant);
        let mut known = users.chain(self.tokens.iter().map(|(_, grant)| grant)).chain(&self.no_auth_user);
        let same = known.find(|grant| grant.user == present.user && grant.proof == present.proof);
        same.cloned().ok_or_else(|| gone(present, "the login is not known any more"))
    }
}

fn refusal(reason: &'static str, detail: &str, connect: &nats_proto::Connect) -> Refusal {
    let claimed = [&connect.user, &connect.name].into_iter().find(|text| !text.is_empty()).cloned();
    Refusal { reason, detail: detail.to_owned(), claimed }
}
