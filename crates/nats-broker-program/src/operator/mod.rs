//! Operator mode: operators sign accounts, accounts sign users, users sign the nonce (spec 07 §7).
//!
//! Accounts come from `resolver_preload` only. Everything about them is decided when the settings are read; what is left
//! for a login is the user's own token, in [`Operator::authenticate`].

mod accounts;
mod claims;
mod jwt;
mod times;
mod user;

use std::collections::{BTreeMap, BTreeSet};

use nats_config::{Located, Position, Settings};

use crate::plan::PlanError;
use crate::users::nkey;
use claims::{AccountClaims, OperatorClaims, SigningKey, UserRights};
use jwt::Claims;

/// Trusted keys and the accounts that they vouch for.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    accounts: BTreeMap<String, Account>,
    system_account: Option<String>,
}

/// An account, with who may issue its users.
#[derive(Debug, Clone)]
struct Account {
    claims: Claims<AccountClaims>,
    /// Signing keys, with the template of those that have one.
    issuers: BTreeMap<String, Option<UserRights>>,
}

impl Account {
    fn new(claims: Claims<AccountClaims>) -> Self {
        let mut issuers = BTreeMap::from([(claims.sub.clone(), None)]);
        for key in &claims.nats.signing_keys {
            match key {
                SigningKey::Plain(key) => issuers.insert(key.clone(), None),
                SigningKey::Scoped(scope) => issuers.insert(scope.key.clone(), Some(scope.template.clone())),
            };
        }
        Self { claims, issuers }
    }

    /// Whether a token of a user that was issued then counts no more.
    fn has_revoked(&self, user: &str, issued: i64) -> bool {
        let revocations = &self.claims.nats.revocations;
        [user, "*"].iter().filter_map(|key| revocations.get(*key)).any(|until| issued <= *until)
    }
}

/// The time in the tokens' seconds.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Operator {
    /// Reads operators and accounts of settings; `None`: they have no operator.
    ///
    /// # Errors
    /// A token cannot be believed, or something is missing.
    pub(crate) fn read(settings: &Settings) -> Result<Option<Self>, PlanError> {
        let Some(first) = settings.operators.first().or_else(|| settings.trusted_keys.first()) else {
            return Ok(None);
        };
        let mut trusted = BTreeSet::new();
        let mut system_account = settings.system_account.as_ref().map(|account| account.value.clone());
        for key in &settings.trusted_keys {
            if !nkey::is_operator_key(&key.value) {
                return Err(PlanError::at(&key.at, format!("{:?} is not the public key of an operator", key.value)));
            }
            trusted.insert(key.value.clone());
        }
        for operator in &settings.operators {
            let claims = operator_token(operator)?;
            if !claims.nats.strict_signing_key_usage {
                trusted.insert(claims.sub.clone());
            }
            trusted.extend(claims.nats.signing_keys.iter().cloned());
            if system_account.is_none() && !claims.nats.system_account.is_empty() {
                system_account = Some(claims.nats.system_account);
            }
        }
        if settings.resolver.is_none() {
            return Err(PlanError::at(&first.at, "operators need resolver: MEMORY and resolver_preload with accounts"));
        }
        refuse_others(settings)?;
        let mut accounts = BTreeMap::new();
        for preloaded in &settings.resolver_preload {
            let account = account_token(&preloaded.key, &preloaded.jwt, &trusted)?;
            accounts.insert(preloaded.key.value.clone(), account);
        }
        if let Some(name) = system_account.as_ref().filter(|name| !accounts.contains_key(*name)) {
            let at = settings.system_account.as_ref().map_or(&first.at, |account| &account.at);
            return Err(PlanError::at(at, format!("system account {name} is not in resolver_preload")));
        }
        Ok(Some(Self { accounts, system_account }))
    }

    /// Public key of the system account.
    pub(crate) fn system_account(&self) -> Option<&str> {
        self.system_account.as_deref()
    }
}

/// Users and accounts of the file itself would be ignored beside an operator.
fn refuse_others(settings: &Settings) -> Result<(), PlanError> {
    let mixed = |at: &Position, what: &str| Err(PlanError::at(at, format!("{what} cannot be used in operator mode")));
    if let Some(account) = settings.accounts.first() {
        return mixed(&account.name.at, "accounts");
    }
    if let Some(authorization) = &settings.authorization {
        let has_users =
            authorization.user.is_some() || authorization.token.is_some() || !authorization.users.is_empty();
        if has_users {
            return mixed(&authorization.at, "authorization with users or a token");
        }
    }
    if let Some(name) = &settings.no_auth_user {
        return mixed(&name.at, "no_auth_user");
    }
    Ok(())
}

/// An operator's token, written out or in a file.
fn operator_token(setting: &Located<String>) -> Result<Claims<OperatorClaims>, PlanError> {
    let text = setting.value.trim();
    let content;
    let token = if text.starts_with("eyJ") {
        text
    } else {
        content = std::fs::read_to_string(text)
            .map_err(|error| PlanError::at(&setting.at, format!("cannot read the operator's file {text}: {error}")))?;
        jwt::undecorated(&content)
    };
    let claims: Claims<OperatorClaims> = jwt::read(token, "operator")
        .map_err(|error| PlanError::at(&setting.at, format!("the operator's token is not believed: {error}")))?;
    // Nobody stands above an operator.
    if claims.iss != claims.sub || !nkey::is_operator_key(&claims.sub) {
        return Err(PlanError::at(&setting.at, "an operator's token must be signed by the operator itself"));
    }
    if !claims.is_valid_at(now()) {
        return Err(PlanError::at(&setting.at, "the operator's token has expired, or does not count yet"));
    }
    Ok(claims)
}

fn account_token(
    key: &Located<String>,
    token: &Located<String>,
    trusted: &BTreeSet<String>,
) -> Result<Account, PlanError> {
    let refuse = |text: String| Err(PlanError::at(&token.at, format!("token of account {}: {text}", key.value)));
    let claims: Claims<AccountClaims> = match jwt::read(token.value.trim(), "account") {
        Ok(claims) => claims,
        Err(error) => return refuse(format!("not believed: {error}")),
    };
    if claims.sub != key.value || !nkey::is_account_key(&claims.sub) {
        return refuse(format!("it is about {}", claims.sub));
    }
    if !trusted.contains(&claims.iss) {
        return refuse(format!("its issuer {} is not trusted", claims.iss));
    }
    Ok(Account::new(claims))
}
