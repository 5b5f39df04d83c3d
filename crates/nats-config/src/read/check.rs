//! What settings must not say together.

use std::collections::{HashMap, HashSet};

use super::Reader;
use crate::parse::shown;
use crate::settings::{Account, Authorization, Import, ImportKind, Limit, Port, Settings, User};
use crate::source::Sources;
use crate::{Located, Problem};

/// The usual `max_pending` (spec 07 §6).
const MAX_PENDING: u64 = 64 << 20;
/// The usual `max_payload` (spec 07 §6).
const MAX_PAYLOAD: u64 = 1 << 20;
/// The system account that is there when none is named.
const SYSTEM: &str = "$SYS";

/// What is wrong as soon as it is read.
pub(super) fn check(settings: &Settings, reader: &mut Reader<'_>) {
    payload(settings, reader);
    listeners(settings, reader);
    authorization(settings, reader);
    users(settings, reader);
    accounts(settings, reader);
}

/// What only keeps a broker from starting: the reference lets a check of the file pass (spec 07 §23).
pub(crate) fn start_problems(settings: &Settings, sources: &Sources) -> Vec<Problem> {
    let mut problems = Vec::new();
    // In operator mode accounts and users come from tokens.
    if !settings.operators.is_empty() || !settings.trusted_keys.is_empty() {
        return problems;
    }
    let mut missing = |name: &Located<String>, message: String| {
        problems.push(sources.problem(name.at.clone(), message, None));
    };
    if let Some(name) = &settings.system_account
        && name.value != SYSTEM
        && !settings.accounts.iter().any(|account| account.name == *name)
    {
        missing(name, format!("the system account {} is not among the accounts", shown(name)));
    }
    for name in no_auth_users(settings) {
        let known = |user: &User| user.user.as_ref() == Some(name) || user.nkey.as_ref() == Some(name);
        if !all_users(settings).any(known) {
            missing(name, format!("no_auth_user: there is no user {} in a list of users", shown(name)));
        }
    }
    problems
}

fn all_users(settings: &Settings) -> impl Iterator<Item = &User> {
    let listed = settings.authorization.iter().flat_map(|block| &block.users);
    listed.chain(settings.accounts.iter().flat_map(|account| &account.users))
}

/// The users of clients without credentials.
fn no_auth_users(settings: &Settings) -> impl Iterator<Item = &Located<String>> {
    let websocket = settings.websocket.as_ref().and_then(|websocket| websocket.no_auth_user.as_ref());
    settings.no_auth_user.iter().chain(websocket)
}

fn payload(settings: &Settings, reader: &mut Reader<'_>) {
    let pending = settings
        .max_pending
        .as_ref()
        .map_or(MAX_PENDING, |pending| if **pending == 0 { MAX_PENDING } else { **pending });
    let payload = match settings.max_payload.as_deref() {
        Some(Limit::Of(payload)) if *payload > 0 => *payload,
        Some(Limit::None) => 0,
        _ => MAX_PAYLOAD,
    };
    let payload_at = settings.max_payload.as_ref().map(|payload| &payload.at);
    let at = payload_at.or_else(|| settings.max_pending.as_ref().map(|pending| &pending.at));
    if let Some(at) = at.filter(|_| payload > pending) {
        let message = format!("max_payload is {payload} and larger than max_pending, which is {pending}");
        reader.problem(at, message, None);
    }
}

fn listeners(settings: &Settings, reader: &mut Reader<'_>) {
    if let (Some(http), Some(https)) = (&settings.http, &settings.https)
        && http.port != Port::Default
        && https.port != Port::Default
    {
        reader.problem(&https.at, "monitoring is either http or https", None);
    }
    if let Some(https) = settings.https.as_ref().filter(|https| https.port != Port::Default && settings.tls.is_none()) {
        reader.problem(&https.at, "https needs a block `tls`", None);
    }
    let Some(websocket) = &settings.websocket else { return };
    let listens = websocket.port.as_ref().is_some_and(|port| **port != Port::Default);
    if listens && websocket.tls.is_none() && !websocket.no_tls.as_deref().is_some_and(|no_tls| *no_tls) {
        reader.problem(&websocket.at, "websocket needs a block `tls`", Some("write `no_tls: true` for clear text"));
    }
    if let Some(tls) = websocket.tls.as_ref().filter(|_| websocket.no_tls.as_deref() == Some(&true)) {
        reader.warn(&tls.at, "tls has no effect beside `no_tls: true`", None);
    }
}

fn maps_certificates(settings: &Settings) -> bool {
    let websocket = settings.websocket.as_ref().and_then(|websocket| websocket.tls.as_ref());
    let maps = |tls: &crate::settings::Tls| tls.verify_and_map.as_deref() == Some(&true);
    settings.tls.iter().chain(websocket).any(|tls| maps(tls))
}

fn authorization(settings: &Settings, reader: &mut Reader<'_>) {
    let accounts = settings.accounts.iter().any(|account| !account.users.is_empty());
    if let Some(block) = settings.authorization.as_ref().filter(|_| accounts) {
        if block.user.is_some() {
            let hint = "put it into the list of users of an account";
            reader.problem(&block.at, "one user and accounts with users cannot stand together", Some(hint));
        }
        if block.token.is_some() {
            reader.problem(&block.at, "a token and accounts with users cannot stand together", None);
        }
    }
    let mapped = maps_certificates(settings);
    let websocket = settings.websocket.as_ref().and_then(|websocket| websocket.authorization.as_ref());
    for block in settings.authorization.iter().chain(websocket) {
        single_password(block, mapped, reader);
    }
}

fn single_password(block: &Authorization, mapped: bool, reader: &mut Reader<'_>) {
    if let Some(user) = block.user.as_ref().filter(|_| !mapped) {
        password(user, block.password.as_ref().map(|password| password.expose()), reader);
    }
}

fn password(user: &Located<String>, password: Option<&str>, reader: &mut Reader<'_>) {
    let what = match password {
        Some("") => "an empty password",
        None => "no password",
        Some(_) => return,
    };
    let message = format!("the user {} has {what}: everybody could log in", shown(user));
    reader.problem(&user.at, message, None);
}

fn users(settings: &Settings, reader: &mut Reader<'_>) {
    let mapped = maps_certificates(settings);
    let mut seen = HashSet::new();
    for user in all_users(settings) {
        if let Some(name) = user.user.as_ref().or(user.nkey.as_ref())
            && !seen.insert(name.as_str())
        {
            reader.problem(&name.at, format!("the user {} is there twice", shown(name)), None);
        }
        let Some(name) = user.user.as_ref().filter(|_| !mapped) else { continue };
        // Whoever names no user becomes this one: a password would keep nobody out.
        if user.password.is_some() || !no_auth_users(settings).any(|no_auth| no_auth == name) {
            password(name, user.password.as_ref().map(|password| password.expose()), reader);
        }
    }
}

fn accounts(settings: &Settings, reader: &mut Reader<'_>) {
    let names: HashSet<&str> = settings.accounts.iter().map(|account| account.name.as_str()).collect();
    for account in &settings.accounts {
        for name in account.exports.iter().filter_map(|export| export.accounts.as_ref()).flatten() {
            if !names.contains(name.as_str()) {
                reader.problem(&name.at, format!("there is no account {}", shown(name)), None);
            }
        }
        imports(account, &names, reader);
    }
}

fn imports(account: &Account, names: &HashSet<&str>, reader: &mut Reader<'_>) {
    let mut services: HashMap<&str, &Import> = HashMap::new();
    let mut streams = HashSet::new();
    for import in &account.imports {
        if import.account == account.name {
            reader.problem(&import.account.at, "an account cannot import from itself", None);
        } else if !names.contains(import.account.as_str()) {
            reader.problem(&import.account.at, format!("there is no account {}", shown(&import.account)), None);
        }
        let twice = match import.kind {
            // Another exporter under the same subject is a second responder.
            ImportKind::Service { .. } => {
                let local = import.to.as_ref().unwrap_or(&import.subject);
                services.insert(local, import).is_some_and(|earlier| earlier.account == import.account)
            }
            ImportKind::Stream { .. } => !streams.insert((import.account.as_str(), import.subject.as_str())),
        };
        if twice {
            reader.problem(&import.at, "this import is there twice", None);
        }
    }
}
