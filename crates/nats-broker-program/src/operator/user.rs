//! Logins with a user's token.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use nats_broker::{ConnectRequest, Grant, Permissions, Refusal};

use super::claims::{PermissionClaims, SubjectClaims, UserClaims, UserRights};
use super::jwt::{self, Claims};
use super::{Account, Operator, accounts, now, times};
use crate::users::{Kinds, nkey, refusal};

impl Operator {
    /// Answers a CONNECT with the user's token in it.
    pub(crate) fn authenticate(&self, request: &ConnectRequest) -> Result<Grant, Refusal> {
        let connect = &request.connect;
        let refuse = |reason, detail: String| refusal(reason, detail, request);
        if connect.jwt.is_empty() {
            return Err(refuse("no_credentials", "no user token".to_owned()));
        }
        let user: Claims<UserClaims> = jwt::read(&connect.jwt, "user")
            .map_err(|error| refuse("bad_token", format!("the user's token is not believed: {error}")))?;
        let name = &user.sub;
        if !nkey::is_user_key(name) {
            return Err(refuse("bad_token", format!("{name:?} is not the key of a user")));
        }
        let (account, rights) = self.vouched(&user).map_err(|detail| refuse("bad_issuer", detail))?;
        let time = now();
        if !user.is_valid_at(time) {
            return Err(refuse("expired", "the user's token has expired, or does not count yet".to_owned()));
        }
        if !account.claims.is_valid_at(time) {
            return Err(refuse("expired", "the account's token has expired, or does not count yet".to_owned()));
        }
        if account.has_revoked(name, user.iat) {
            return Err(refuse("revoked", format!("tokens of user {name} were revoked")));
        }
        if !Kinds::of(rights.allowed_connection_types.iter().map(String::as_str)).has(request.kind) {
            return Err(refuse("connection_type", "the user may not make this kind of connection".to_owned()));
        }
        check_source(&rights, request).map_err(|detail| refuse("source_address", detail))?;
        check_signature(&rights, account, name, request).map_err(|detail| refuse("bad_signature", detail))?;
        let until = times::allowed(&rights.times, &rights.times_location, jiff::Timestamp::now())
            .map_err(|detail| refuse("time_of_day", detail))?;
        Ok(grant(&user, account, &rights, until))
    }

    /// The account of a user, and what the user gets there.
    fn vouched(&self, user: &Claims<UserClaims>) -> Result<(&Account, UserRights), String> {
        let key = if user.nats.issuer_account.is_empty() { &user.iss } else { &user.nats.issuer_account };
        let account = self.accounts.get(key).ok_or_else(|| format!("there is no account {key}"))?;
        let template = account
            .issuers
            .get(&user.iss)
            .ok_or_else(|| format!("{} may not issue users of account {key}", user.iss))?;
        match template {
            None => Ok((account, user.nats.rights.clone())),
            Some(_) if !user.nats.rights.permissions.is_empty() => {
                Err("the issuer gives the rights of its template, but the token has rights of its own".to_owned())
            }
            Some(template) => {
                let mut rights = template.clone();
                rights.permissions = filled(&template.permissions, user, account);
                Ok((account, rights))
            }
        }
    }

    /// What has become of a grant whose proof [`proof`] made: the token itself is not here any more.
    pub(crate) fn reconsider(&self, proof: &str, present: &Grant) -> Option<Grant> {
        let mut parts = proof.split(':');
        let (user, account) = (parts.next()?, parts.next()?);
        let (issuer, issued) = (parts.next()?, parts.next()?.parse().ok()?);
        let account = self.accounts.get(account)?;
        let holds = account.issuers.contains_key(issuer)
            && !account.has_revoked(user, issued)
            && account.claims.is_valid_at(now());
        holds.then(|| present.clone())
    }
}

fn grant(user: &Claims<UserClaims>, account: &Account, rights: &UserRights, until: Option<jiff::Timestamp>) -> Grant {
    let claims = &rights.permissions;
    let claims = if claims.is_empty() { &account.claims.nats.default_permissions } else { claims };
    let permissions: Permissions = accounts::permissions(claims);
    let ends = [user.exp, account.claims.exp, until.map_or(0, jiff::Timestamp::as_second)];
    let end = ends.into_iter().filter(|end| *end > 0).min();
    let proof = format!("jwt:{}:{}:{}:{}", user.sub, account.claims.sub, user.iss, user.iat);
    Grant {
        user: Some(user.sub.clone()),
        permissions,
        expires_at: end
            .and_then(|end| u64::try_from(end).ok())
            .and_then(|end| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end))),
        proof: Some(proof.into()),
        ..Grant::new(account.claims.sub.clone())
    }
}

fn check_signature(rights: &UserRights, account: &Account, user: &str, request: &ConnectRequest) -> Result<(), String> {
    let connect = &request.connect;
    if rights.bearer_token {
        if account.claims.nats.limits.disallow_bearer {
            return Err("the account does not allow bearer tokens".to_owned());
        }
        return Ok(());
    }
    let nonce = request.nonce.as_deref().unwrap_or_default();
    if nonce.is_empty() || !nkey::is_signed(user, nonce.as_bytes(), &connect.sig) {
        return Err("the nonce is not signed by the user's key".to_owned());
    }
    Ok(())
}

fn check_source(rights: &UserRights, request: &ConnectRequest) -> Result<(), String> {
    let mut networks = rights.src.iter().peekable();
    if networks.peek().is_none() {
        return Ok(());
    }
    let Some(remote) = request.remote else { return Err("the user must come from a network".to_owned()) };
    // A peer of IPv4 on a socket for both.
    let ip = remote.ip().to_canonical();
    let is_inside = networks.any(|network| match network.parse::<ipnet::IpNet>() {
        Ok(network) => network.contains(&ip),
        Err(_) => network.parse::<IpAddr>() == Ok(ip),
    });
    if is_inside { Ok(()) } else { Err(format!("the user may not come from {ip}")) }
}

/// A template's subjects with the user's names in them.
fn filled(template: &PermissionClaims, user: &Claims<UserClaims>, account: &Account) -> PermissionClaims {
    let lists = |lists: &SubjectClaims| SubjectClaims {
        allow: lists.allow.iter().flat_map(|subject| fill(subject, user, account)).collect(),
        deny: lists.deny.iter().flat_map(|subject| fill(subject, user, account)).collect(),
    };
    let mut filled = template.clone();
    filled.publish = lists(&template.publish);
    filled.subscribe = lists(&template.subscribe);
    // A list whose every entry named something that the user does not have allows nothing.
    for (filled, template) in [(&mut filled.publish, &template.publish), (&mut filled.subscribe, &template.subscribe)] {
        if filled.allow.is_empty() && !template.allow.is_empty() {
            filled.deny.push(">".to_owned());
        }
    }
    filled
}

/// Subjects that one with `{{name()}}`, `{{subject()}}`, `{{account-name()}}`, `{{account-subject()}}`, `{{tag(x)}}` and
/// `{{account-tag(x)}}` stands for: one for each value of a tag.
fn fill(subject: &str, user: &Claims<UserClaims>, account: &Account) -> Vec<String> {
    let Some((before, rest)) = subject.split_once("{{") else { return vec![subject.to_owned()] };
    let Some((function, after)) = rest.split_once("}}") else { return Vec::new() };
    let function = function.trim().to_lowercase();
    let tags = |tags: &[String], prefix: &str| -> Vec<String> {
        let name = function.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(')')).unwrap_or_default().trim();
        let value = |tag: &String| tag.to_lowercase().strip_prefix(&format!("{name}:")).map(str::to_owned);
        tags.iter().filter_map(value).collect()
    };
    let values = match function.as_str() {
        "name()" => vec![user.name.clone()],
        "subject()" => vec![user.sub.clone()],
        "account-name()" => vec![account.claims.name.clone()],
        "account-subject()" => vec![account.claims.sub.clone()],
        tag if tag.starts_with("tag(") => tags(&user.nats.tags, "tag("),
        tag if tag.starts_with("account-tag(") => tags(&account.claims.nats.tags, "account-tag("),
        _ => Vec::new(),
    };
    let mut out = Vec::new();
    for value in values {
        // A name with a wildcard or a dot in it would be more than one token.
        let is_token = !value.is_empty() && !value.contains(['.', '*', '>', ' ', '\t', '\r', '\n']);
        if is_token {
            out.extend(fill(after, user, account).into_iter().map(|rest| format!("{before}{value}{rest}")));
        }
    }
    out
}
