//! A set of credentials that count on some listeners.

use std::collections::HashMap;
use std::sync::Arc;

use nats_broker::{ConnectRequest, ConnectionKind, Grant, Refusal};

use super::secret::Secret;
use super::{certificate, nkey, refusal};
use crate::operator::Operator;

/// Kinds of connections that a user may make (`allowed_connection_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds {
    /// `STANDARD`
    pub(crate) standard: bool,
    /// `WEBSOCKET`
    pub(crate) websocket: bool,
    /// `IN_PROCESS`
    pub(crate) in_process: bool,
}

impl Kinds {
    pub(crate) const ALL: Self = Self { standard: true, websocket: true, in_process: true };

    /// Those of a list of names; an empty list means all. Kinds that this broker does not have allow nothing here.
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut kinds = Self { standard: false, websocket: false, in_process: false };
        let mut is_empty = true;
        for name in names {
            is_empty = false;
            match name.to_ascii_uppercase().as_str() {
                "STANDARD" => kinds.standard = true,
                "WEBSOCKET" => kinds.websocket = true,
                "IN_PROCESS" => kinds.in_process = true,
                _ => {}
            }
        }
        if is_empty { Self::ALL } else { kinds }
    }

    pub(crate) fn has(self, kind: ConnectionKind) -> bool {
        match kind {
            ConnectionKind::Client => self.standard,
            ConnectionKind::WebSocket => self.websocket,
            ConnectionKind::InProcess => self.in_process,
        }
    }
}

/// One user: what proves it and what it gets.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// `None`: only a certificate or key proves this user.
    pub(crate) secret: Option<Secret>,
    /// What it gets. The proof is filled in by the realm.
    pub(crate) grant: Grant,
    /// How it may connect.
    pub(crate) kinds: Kinds,
}

/// Credentials, and what they give. Built once, then only read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Realm {
    /// Users with passwords, and those that certificates name.
    users: HashMap<String, User>,
    /// Users by public key.
    nkeys: HashMap<String, User>,
    /// Whoever shows the token.
    token: Option<(Secret, Grant)>,
    /// Everybody.
    open: Option<Grant>,
    /// User of clients without any credential.
    no_auth_user: Option<String>,
    /// What clients without any credential get when no user stands for them.
    anonymous: Option<Grant>,
    /// Certificates name users.
    maps_certificates: bool,
    /// Nobody but users of an operator's accounts.
    operator: Option<Arc<Operator>>,
}

impl Realm {
    /// Everybody may come in.
    pub(crate) fn open(grant: Grant) -> Self {
        Self { open: Some(grant), ..Self::default() }
    }

    /// Nobody but users whose tokens lead to the operator.
    pub(crate) fn operated(operator: Arc<Operator>) -> Self {
        Self { operator: Some(operator), ..Self::default() }
    }

    /// Adds a user with a password or, without a secret, one that certificates name. `false`: there is one of this name.
    pub(crate) fn add_user(&mut self, name: &str, user: User) -> bool {
        self.users.insert(name.to_owned(), user).is_none()
    }

    /// Adds a user with a key. `false`: there is one with this key.
    pub(crate) fn add_nkey(&mut self, key: &str, user: User) -> bool {
        self.nkeys.insert(key.to_owned(), user).is_none()
    }

    /// Whoever shows the token gets the grant.
    pub(crate) fn set_token(&mut self, secret: Secret, grant: Grant) {
        self.token = Some((secret, grant));
    }

    /// Clients without any credential count as this user. `false`: there is no such user.
    pub(crate) fn set_no_auth_user(&mut self, name: &str) -> bool {
        let is_known = self.users.contains_key(name) || self.nkeys.contains_key(name);
        self.no_auth_user = is_known.then(|| name.to_owned());
        is_known
    }

    /// Clients without any credential get this, unless a user stands for them.
    pub(crate) fn set_anonymous(&mut self, grant: Grant) {
        self.anonymous = Some(grant);
    }

    /// Whether certificates name users.
    pub(crate) fn map_certificates(&mut self, maps: bool) {
        self.maps_certificates = maps;
    }

    /// Whether no credentials are needed at all.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether somebody is configured whom INFO must offer something to sign.
    pub(crate) fn wants_nonce(&self) -> bool {
        !self.nkeys.is_empty() || self.operator.is_some()
    }

    /// Whether a secret stands in the configuration as it is.
    pub(crate) fn has_plain_secrets(&self) -> bool {
        let mut secrets = self.users.values().filter_map(|user| user.secret.as_ref());
        secrets.any(Secret::is_plain) || self.token.as_ref().is_some_and(|(secret, _)| secret.is_plain())
    }

    /// What clients get that show nothing.
    pub(crate) fn without_credentials(&self) -> Option<Grant> {
        if let Some(grant) = &self.open {
            return Some(Grant { proof: Some("open".into()), ..grant.clone() });
        }
        let Some(name) = &self.no_auth_user else {
            let grant = self.anonymous.as_ref()?;
            return Some(Grant { proof: Some("anonymous".into()), ..grant.clone() });
        };
        let user = self.users.get(name).or_else(|| self.nkeys.get(name))?;
        Some(Grant { proof: Some(format!("none:{name}").into()), ..user.grant.clone() })
    }

    /// Answers a CONNECT. `needs_credentials`: showing nothing is not enough, whatever else is configured.
    pub(crate) async fn authenticate(
        &self,
        request: &ConnectRequest,
        needs_credentials: bool,
    ) -> Result<Grant, Refusal> {
        let connect = &request.connect;
        if let Some(operator) = &self.operator {
            return operator.authenticate(request);
        }
        if self.maps_certificates && request.tls.is_some() {
            return self.by_certificate(request);
        }
        let shown = [&connect.user, &connect.pass, &connect.auth_token, &connect.nkey];
        let shows_something = shown.iter().any(|text| !text.is_empty());
        if let Some(grant) = &self.open {
            // Credentials on an open server are ignored, but they are no substitute for a certificate either.
            if needs_credentials {
                return Err(refusal("no_certificate", "in clear text without a certificate".to_owned(), request));
            }
            return Ok(Grant { proof: Some("open".into()), ..grant.clone() });
        }
        if !shows_something {
            let grant = if needs_credentials { None } else { self.without_credentials() };
            return grant.ok_or_else(|| refusal("no_credentials", "no credentials".to_owned(), request));
        }
        if !connect.nkey.is_empty() {
            return self.by_key(request);
        }
        if let Some((secret, grant)) = &self.token
            && !connect.auth_token.is_empty()
        {
            if secret.is(&connect.auth_token).await {
                let proof = format!("token:{}", secret.digest()).into();
                return Ok(Grant { proof: Some(proof), ..grant.clone() });
            }
            return Err(refusal("bad_token", "the token is not known".to_owned(), request));
        }
        self.by_password(request).await
    }

    async fn by_password(&self, request: &ConnectRequest) -> Result<Grant, Refusal> {
        let connect = &request.connect;
        let user = self.users.get(&connect.user).and_then(|user| user.secret.as_ref().map(|secret| (user, secret)));
        let Some((user, secret)) = user else {
            return Err(refusal("unknown_user", "the user is not known".to_owned(), request));
        };
        check_kind(user, request)?;
        if !secret.is(&connect.pass).await {
            return Err(refusal("bad_password", "wrong password".to_owned(), request));
        }
        Ok(Grant { proof: Some(password_proof(&connect.user, secret)), ..user.grant.clone() })
    }

    fn by_key(&self, request: &ConnectRequest) -> Result<Grant, Refusal> {
        let connect = &request.connect;
        let Some(user) = self.nkeys.get(&connect.nkey) else {
            return Err(refusal("unknown_nkey", "the nkey is not known".to_owned(), request));
        };
        check_kind(user, request)?;
        let nonce = request.nonce.as_deref().unwrap_or_default();
        if nonce.is_empty() || !nkey::is_signed(&connect.nkey, nonce.as_bytes(), &connect.sig) {
            return Err(refusal("bad_signature", "the nonce is not signed by this nkey".to_owned(), request));
        }
        Ok(Grant { proof: Some(format!("nkey:{}", connect.nkey).into()), ..user.grant.clone() })
    }

    fn by_certificate(&self, request: &ConnectRequest) -> Result<Grant, Refusal> {
        let leaf = request.tls.as_ref().and_then(|tls| tls.verified_chain.first());
        let Some(leaf) = leaf else {
            return Err(refusal("no_certificate", "the client shows no certificate".to_owned(), request));
        };
        let names = certificate::names(leaf).map_err(|detail| refusal("bad_certificate", detail, request))?;
        let Some((name, user)) = certificate::find(&names, &self.users) else {
            let detail = format!("no user for the certificate of {}", names.join(", "));
            return Err(refusal("unknown_certificate", detail, request));
        };
        check_kind(user, request)?;
        Ok(Grant { proof: Some(format!("certificate:{name}").into()), ..user.grant.clone() })
    }

    /// What has become of a grant with this proof.
    pub(crate) fn reconsider(&self, proof: &str, present: &Grant) -> Option<Grant> {
        let (kind, rest) = proof.split_once(':').unwrap_or((proof, ""));
        match kind {
            "open" => self.open.clone(),
            "anonymous" if self.no_auth_user.is_none() => self.anonymous.clone(),
            "none" => {
                let user = self.users.get(rest).or_else(|| self.nkeys.get(rest));
                user.filter(|_| self.no_auth_user.as_deref() == Some(rest)).map(|user| user.grant.clone())
            }
            "token" => {
                let (secret, grant) = self.token.as_ref()?;
                (secret.digest() == rest).then(|| grant.clone())
            }
            "password" => {
                let (digest, name) = rest.split_once(':')?;
                let user = self.users.get(name)?;
                (user.secret.as_ref()?.digest() == digest).then(|| user.grant.clone())
            }
            "jwt" => self.operator.as_ref()?.reconsider(rest, present),
            "nkey" => Some(self.nkeys.get(rest)?.grant.clone()),
            "certificate" if self.maps_certificates => Some(self.users.get(rest)?.grant.clone()),
            _ => None,
        }
    }
}

fn password_proof(name: &str, secret: &Secret) -> Arc<str> {
    format!("password:{}:{name}", secret.digest()).into()
}

fn check_kind(user: &User, request: &ConnectRequest) -> Result<(), Refusal> {
    if user.kinds.has(request.kind) {
        return Ok(());
    }
    Err(refusal("connection_type", "the user may not make this kind of connection".to_owned(), request))
}
