//! `accounts`.

use std::collections::HashSet;

use super::{Entry, Key, Reader, authorization, exchange, jetstream, mapping};
use crate::nkey::{self, Owner};
use crate::parse::shown;
use crate::settings::{Account, AccountLimits, Export, Import, MessageTrace, Permissions, User};
use crate::settings::{AccountJetStream, Mapping};
use crate::value::Kind;
use crate::{Located, subject};

/// The account of everybody who is in no other.
pub(super) const GLOBAL: &str = "$G";

/// An account that is being read.
#[derive(Default)]
struct Draft {
    users: Vec<User>,
    nkey: Option<Located<String>>,
    jetstream: Option<Located<AccountJetStream>>,
    exports: Vec<Export>,
    imports: Vec<Import>,
    mappings: Vec<Mapping>,
    limits: AccountLimits,
    default_permissions: Option<Permissions>,
    msg_trace: Option<Located<MessageTrace>>,
}

const KEYS: &[Key<Draft>] = &[
    Key { names: &["users"], read: |a, e, r| a.users = authorization::users(e, r) },
    Key { names: &["nkey"], read: |a, e, r| a.nkey = account_key(e, r) },
    Key { names: &["jetstream"], read: |a, e, r| a.jetstream = jetstream::read_account(e, r) },
    Key { names: &["exports"], read: |a, e, r| a.exports = exchange::exports(e, r) },
    Key { names: &["imports"], read: |a, e, r| a.imports = exchange::imports(e, r) },
    Key { names: &["mappings", "maps"], read: |a, e, r| a.mappings = mapping::read(e, r) },
    Key { names: &["limits"], read: |a, e, r| a.limits = r.map_into("limits", e, LIMITS_KEYS).unwrap_or_default() },
    Key { names: &["default_permissions"], read: |a, e, r| a.default_permissions = authorization::permissions(e, r) },
    Key { names: &["msg_trace", "trace_dest"], read: |a, e, r| a.msg_trace = msg_trace(e, r) },
];

const LIMITS_KEYS: &[Key<AccountLimits>] = &[
    Key { names: &["max_connections", "max_conn"], read: |l, e, r| l.max_connections = r.limit(e) },
    Key { names: &["max_subscriptions", "max_subs"], read: |l, e, r| l.max_subscriptions = r.limit(e) },
    Key { names: &["max_payload", "max_pay"], read: |l, e, r| l.max_payload = r.wire_limit(e) },
    Key { names: &["max_leafnodes", "max_leafs"], read: |l, e, r| l.max_leafnodes = r.limit(e) },
];

/// The accounts of a block, or of a list of mere names.
pub(super) fn read(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<Account> {
    let mut accounts: Vec<Account> = Vec::new();
    if matches!(entry.value.kind, Kind::List(_)) {
        let mut seen = HashSet::new();
        for name in reader.text_list(entry).unwrap_or_default() {
            if !seen.insert(name.value.clone()) {
                reader.problem(&name.at, format!("the account {} is there twice", shown(&name)), None);
            } else if check_name(&name, reader) {
                accounts.push(account(name, Draft::default()));
            }
        }
        return accounts;
    }
    let pairs = reader.map(entry).unwrap_or_default();
    for pair in reader.last_of_each(pairs) {
        // A block that served as a variable is an account all the same.
        if pair.used && !matches!(pair.value.kind, Kind::Map(_)) {
            continue;
        }
        let name = Located::new(pair.key.to_string(), pair.at.clone());
        let entry = Entry { name: &pair.key, at: &pair.at, value: &pair.value };
        if check_name(&name, reader)
            && let Some(draft) = reader.map_into("an account", &entry, KEYS)
        {
            accounts.push(account(name, draft));
        }
    }
    accounts
}

fn account(name: Located<String>, draft: Draft) -> Account {
    let Draft { users, nkey, jetstream, exports, imports, mappings, limits, default_permissions, msg_trace } = draft;
    Account { name, users, nkey, jetstream, exports, imports, mappings, limits, default_permissions, msg_trace }
}

fn check_name(name: &Located<String>, reader: &mut Reader<'_>) -> bool {
    if name.value == GLOBAL {
        let hint = "its users stand in `authorization`, its mappings outside of any block";
        reader.problem(&name.at, "the account $G is always there and has no block", Some(hint));
        return false;
    }
    // Its name is a token of subjects.
    let fits = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    if !fits {
        reader.problem(&name.at, "the name of an account must not be empty and has no blanks", None);
    }
    fits
}

fn account_key(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<String>> {
    let key = reader.text(entry)?;
    if nkey::is_public(Owner::Account, &key) {
        return Some(key);
    }
    reader.bad(entry, "this is not the public key of an account (`A…`)", None)
}

#[derive(Default)]
struct TraceDraft {
    destination: Option<Located<String>>,
    sampling: Option<u8>,
}

const TRACE_KEYS: &[Key<TraceDraft>] = &[
    Key { names: &["dest"], read: |t, e, r| t.destination = trace_subject(e, r) },
    Key { names: &["sampling"], read: |t, e, r| t.sampling = r.percent(e) },
];

fn trace_subject(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<String>> {
    let text = reader.text(entry)?;
    if subject::is_literal(&text) {
        Some(text)
    } else {
        reader.bad(entry, "a subject without wildcards is expected", None)
    }
}

/// A subject, or a block of `dest` and `sampling`.
fn msg_trace(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<MessageTrace>> {
    let draft = match entry.value.kind {
        Kind::Map(_) => reader.map_into("msg_trace", entry, TRACE_KEYS)?,
        _ => TraceDraft { destination: trace_subject(entry, reader), sampling: None },
    };
    match draft {
        TraceDraft { destination: Some(destination), sampling } => {
            Some(Located::new(MessageTrace { destination, sampling: sampling.unwrap_or(100) }, entry.at.clone()))
        }
        TraceDraft { destination: None, sampling: Some(_) } => reader.bad(entry, "there is no `dest`", None),
        TraceDraft { .. } => None,
    }
}
