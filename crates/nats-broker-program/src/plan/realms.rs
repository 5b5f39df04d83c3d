//! Users of the settings, sorted by the listeners that they count on.

use std::sync::Arc;
use std::time::Duration;

use nats_broker::{Grant, Permissions, ResponseBudget, SubjectRules};
use nats_config::settings::{self, Authorization, SubjectLists};
use nats_config::{Located, Position, Settings};

use super::listeners::Listeners;
use super::{PlanError, accounts};
use crate::operator::Operator;
use crate::users::nkey::is_user_key;
use crate::users::{Kinds, ListenerRules, Realm, Secret, User, Users};

/// The account of users that name none.
pub(super) const GLOBAL: &str = "$G";
/// How long answers are taken unless the settings say otherwise (spec 07 §7).
const RESPONSE_TIME: Duration = Duration::from_secs(120);

pub(super) fn make(
    settings: &Settings,
    operator: Option<Arc<Operator>>,
    listeners: &Listeners,
    warnings: &mut Vec<String>,
) -> Result<Users, PlanError> {
    let maps = |number: usize| listeners.tls.get(number).and_then(Option::as_ref).is_some_and(|tls| tls.maps_users);
    let mut main = match operator {
        Some(operator) => Realm::operated(operator),
        None => main_realm(settings, warnings)?,
    };
    main.map_certificates(maps(0));
    let mut realms = vec![main];
    let mut rules = Vec::new();
    for (number, listener) in listeners.listen.iter().enumerate() {
        let realm = match &settings.websocket {
            Some(websocket) if listener.websocket.is_some() => {
                let mut realm = websocket_realm(settings, websocket, &realms[0])?;
                realm.map_certificates(maps(number));
                realms.push(realm);
                realms.len() - 1
            }
            _ => 0,
        };
        rules.push(ListenerRules { realm, certificate_may_lack: listener.allow_non_tls && listener.tls_verify });
    }
    if realms.iter().any(Realm::has_plain_secrets) {
        warnings.push("Plaintext passwords detected, use nkeys or bcrypt".to_owned());
    }
    Ok(Users::new(realms, rules))
}

/// Users of `authorization` and of the accounts.
fn main_realm(settings: &Settings, warnings: &mut Vec<String>) -> Result<Realm, PlanError> {
    let mut realm = Realm::default();
    let mut is_empty = true;
    if let Some(authorization) = &settings.authorization {
        is_empty &= !add_single(&mut realm, authorization)?;
        for user in &authorization.users {
            is_empty = false;
            add(&mut realm, user, GLOBAL, authorization.default_permissions.as_ref())?;
        }
    }
    for account in &settings.accounts {
        for user in &account.users {
            is_empty = false;
            add(&mut realm, user, &account.name, account.default_permissions.as_ref())?;
        }
    }
    if let Some(name) = &settings.no_auth_user {
        set_no_auth_user(&mut realm, name)?;
    }
    if is_empty {
        let who = settings.authorization.as_ref().map(|authorization| ("authorization", &authorization.at));
        let accounts = settings.accounts.first().map(|account| ("accounts", &account.name.at));
        if let Some((name, at)) = who.or(accounts) {
            warnings.push(format!("{at}: {name} without any user: everybody may connect, in account {GLOBAL}"));
        }
        return Ok(Realm::open(Grant::new(GLOBAL)));
    }
    // With users of the system account only, the others are as free as without a file (spec 07 §7).
    let system = settings.system_account.as_ref().map_or(accounts::SYSTEM, |name| name.value.as_str());
    let has_others = settings.accounts.iter().any(|account| account.name.value != system);
    if settings.authorization.is_none() && !has_others {
        realm.set_anonymous(Grant::new(GLOBAL));
    }
    Ok(realm)
}

fn websocket_realm(settings: &Settings, websocket: &settings::WebSocket, main: &Realm) -> Result<Realm, PlanError> {
    let mut realm = main.clone();
    if let Some(authorization) = &websocket.authorization {
        let mut own = Realm::default();
        if add_single(&mut own, authorization)? {
            realm = own;
        }
    }
    if let Some(name) = &websocket.no_auth_user {
        let has_own = websocket.authorization.is_some();
        if has_own {
            return Err(PlanError::at(&name.at, "no_auth_user and authorization of websocket exclude each other"));
        }
        set_no_auth_user(&mut realm, name)?;
    } else if let Some(name) = &settings.no_auth_user {
        // The same users, the same choice.
        realm.set_no_auth_user(&name.value);
    }
    Ok(realm)
}

fn set_no_auth_user(realm: &mut Realm, name: &Located<String>) -> Result<(), PlanError> {
    if realm.set_no_auth_user(&name.value) {
        return Ok(());
    }
    Err(PlanError::at(&name.at, format!("no_auth_user names {:?}, which is not among the users", name.value)))
}

/// The one user or token of an `authorization`; whether there is one.
fn add_single(realm: &mut Realm, authorization: &Authorization) -> Result<bool, PlanError> {
    let default = authorization.default_permissions.as_ref().map(permissions).unwrap_or_default();
    let mut has_one = false;
    if let Some(token) = &authorization.token {
        let grant = Grant { permissions: default.clone(), ..Grant::new(GLOBAL) };
        realm.set_token(secret(token)?, grant);
        has_one = true;
    }
    if let (Some(name), Some(password)) = (&authorization.user, &authorization.password) {
        let grant = Grant { user: Some(name.value.clone()), permissions: default, ..Grant::new(GLOBAL) };
        realm.add_user(&name.value, User { secret: Some(secret(password)?), grant, kinds: Kinds::ALL });
        has_one = true;
    }
    Ok(has_one)
}

fn secret(setting: &Located<settings::Secret>) -> Result<Secret, PlanError> {
    Secret::read(setting.expose()).map_err(|error| PlanError::at(&setting.at, error.to_string()))
}

fn add(
    realm: &mut Realm,
    user: &settings::User,
    account: &str,
    default: Option<&settings::Permissions>,
) -> Result<(), PlanError> {
    let permissions = user.permissions.as_ref().or(default).map(permissions).unwrap_or_default();
    let kinds = Kinds::of(user.allowed_connection_types.iter().map(|kind| kind.value.as_str()));
    let twice = |at: &Position, name: &str| PlanError::at(at, format!("user {name:?} is configured twice"));
    if let Some(key) = &user.nkey {
        if !is_user_key(&key.value) {
            return Err(PlanError::at(&key.at, format!("{:?} is not the public nkey of a user", key.value)));
        }
        let grant = Grant { user: Some(key.value.clone()), permissions, ..Grant::new(account) };
        return match realm.add_nkey(&key.value, User { secret: None, grant, kinds }) {
            true => Ok(()),
            false => Err(twice(&key.at, &key.value)),
        };
    }
    let Some(name) = &user.user else {
        return Err(PlanError::at(&user.at, "a user needs a name or an nkey"));
    };
    let secret = user.password.as_ref().map(secret).transpose()?;
    let grant = Grant { user: Some(name.value.clone()), permissions, ..Grant::new(account) };
    match realm.add_user(&name.value, User { secret, grant, kinds }) {
        true => Ok(()),
        false => Err(twice(&name.at, &name.value)),
    }
}

/// Permissions in the broker's words.
pub(super) fn permissions(given: &settings::Permissions) -> Permissions {
    let rules = |lists: &SubjectLists| SubjectRules {
        allow: lists.allow.as_ref().map(|allow| texts(allow)),
        deny: texts(&lists.deny),
    };
    let responses = given.responses.as_ref().map(|responses| ResponseBudget {
        max: match responses.max.as_ref().map_or(0, |max| max.value) {
            0 => Some(1),
            max => u32::try_from(max).ok(),
        },
        ttl: match responses.expires.as_ref().map_or(0, |expires| expires.value.nanos) {
            0 => Some(RESPONSE_TIME),
            nanos => u64::try_from(nanos).ok().map(Duration::from_nanos),
        },
    });
    Permissions { publish: rules(&given.publish), subscribe: rules(&given.subscribe), responses }
}

fn texts(list: &[Located<String>]) -> Vec<String> {
    list.iter().map(|text| text.value.clone()).collect()
}
