//! `authorization`, users and permissions.

use super::{Entry, Key, Reader};
use crate::nkey::{self, Owner};
use crate::settings::{Authorization, Permissions, Responses, Secret, SubjectLists, User};
use crate::value::{Kind, Value};
use crate::{Located, Position, subject};

const KEYS: &[Key<Authorization>] = &[
    Key { names: &["user", "username"], read: |a, e, r| a.user = r.text(e) },
    Key { names: &["password", "pass"], read: |a, e, r| a.password = r.secret(e) },
    Key { names: &["token"], read: |a, e, r| a.token = r.secret(e) },
    Key { names: &["timeout"], read: |a, e, r| a.timeout = r.seconds(e) },
    Key { names: &["users"], read: |a, e, r| a.users = users(e, r) },
    Key {
        names: &["default_permissions", "default_permission", "permissions"],
        read: |a, e, r| a.default_permissions = permissions(e, r),
    },
    Key { names: &["auth_callout"], read: |_, e, r| r.unsupported("authorization.auth_callout", e.at) },
    Key { names: &["proxy_required"], read: |_, e, r| proxy_required("authorization.proxy_required", e, r) },
];

/// `authorization` of a WebSocket listener has no users of its own.
const WEBSOCKET_KEYS: &[Key<Authorization>] = &[
    Key { names: &["user", "username"], read: |a, e, r| a.user = r.text(e) },
    Key { names: &["password", "pass"], read: |a, e, r| a.password = r.secret(e) },
    Key { names: &["token"], read: |a, e, r| a.token = r.secret(e) },
    Key { names: &["timeout"], read: |a, e, r| a.timeout = r.seconds(e) },
];

const PERMISSIONS_KEYS: &[Key<Permissions>] = &[
    Key { names: &["publish", "pub", "import"], read: |p, e, r| p.publish = lists(e, r, false) },
    Key { names: &["subscribe", "sub", "export"], read: |p, e, r| p.subscribe = lists(e, r, true) },
    Key { names: &["allow_responses", "publish_allow_responses"], read: |p, e, r| p.responses = responses(e, r) },
];

const RESPONSES_KEYS: &[Key<Responses>] = &[
    Key { names: &["max", "max_msgs", "max_messages"], read: |s, e, r| s.max = answers(e, r) },
    Key { names: &["expires", "expiration", "ttl"], read: |s, e, r| s.expires = r.duration_text(e) },
];

/// Kinds of connections that the reference knows, and whether this broker has them.
const CONNECTION_TYPES: [(&str, bool); 8] = [
    ("STANDARD", true),
    ("WEBSOCKET", true),
    ("IN_PROCESS", true),
    ("LEAFNODE", false),
    ("LEAFNODE_WS", false),
    ("MQTT", false),
    ("MQTT_WS", false),
    ("PROXY", false),
];

pub(super) fn read(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<Authorization>> {
    let authorization = reader.map_into("authorization", entry, KEYS)?;
    check(&authorization, entry, reader);
    Some(Located::new(authorization, entry.at.clone()))
}

pub(super) fn read_websocket(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<Authorization>> {
    let authorization = reader.map_into("authorization of websocket", entry, WEBSOCKET_KEYS)?;
    check(&authorization, entry, reader);
    Some(Located::new(authorization, entry.at.clone()))
}

/// One user, or one token, or many users.
fn check(block: &Authorization, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    let single = block.user.is_some() || block.password.is_some();
    if single && block.token.is_some() {
        reader.problem(entry.at, "a user and a token cannot stand together", None);
    }
    if !block.users.is_empty() && single {
        reader.problem(entry.at, "one user and a list of users cannot stand together", Some("put all into `users`"));
    }
    if !block.users.is_empty() && block.token.is_some() {
        reader.problem(entry.at, "a token and a list of users cannot stand together", None);
    }
    if block.password.is_some() && block.user.is_none() {
        reader.problem(entry.at, "there is a password, but no user", None);
    }
    if let Some(token) = block.token.as_ref().filter(|token| token.expose().is_empty()) {
        reader.problem(&token.at, "an empty token would let everybody in", None);
    }
}

fn proxy_required(name: &str, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    if reader.bool(entry) == Some(true) {
        reader.unsupported(name, entry.at);
    }
}

/// A user that is being read.
#[derive(Default)]
struct Draft {
    user: Option<Located<String>>,
    password: Option<Located<Secret>>,
    nkey: Option<Located<String>>,
    permissions: Option<Permissions>,
    allowed_connection_types: Vec<Located<String>>,
}

const USER_KEYS: &[Key<Draft>] = &[
    Key { names: &["user", "username"], read: |u, e, r| u.user = r.text(e) },
    Key { names: &["password", "pass"], read: |u, e, r| u.password = r.secret(e) },
    Key { names: &["nkey"], read: |u, e, r| u.nkey = r.text(e) },
    Key { names: &["permissions", "permission", "authorization"], read: |u, e, r| u.permissions = permissions(e, r) },
    Key {
        names: &["allowed_connection_types", "connection_types", "clients"],
        read: |u, e, r| u.allowed_connection_types = connection_types(e, r),
    },
    Key { names: &["proxy_required"], read: |_, e, r| proxy_required("users.proxy_required", e, r) },
];

/// A list of users.
pub(super) fn users(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<User> {
    let Kind::List(values) = &entry.value.kind else {
        reader.wrong::<()>(entry, "a list of blocks in `[ ]`", None);
        return Vec::new();
    };
    values.iter().filter_map(|value| user(&Entry { value, ..*entry }, reader)).collect()
}

fn user(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<User> {
    let before = reader.problems.len();
    let Draft { user, password, nkey, permissions, allowed_connection_types } =
        reader.map_into("a user", entry, USER_KEYS)?;
    if reader.problems.len() != before {
        return None;
    }
    let at = entry.value.at.clone();
    match (&user, &nkey) {
        (_, Some(key)) if !nkey::is_public(Owner::User, key) => {
            reader.problem(&key.at, "this is not the public key of a user (`U…`)", None);
        }
        (Some(name), Some(_)) => reader.problem(&name.at, "a user with an nkey has no name", None),
        (None, Some(_)) if password.is_some() => reader.problem(&at, "a user with an nkey has no password", None),
        (None, None) => reader.problem(&at, "a user needs a name or an nkey", None),
        (Some(name), None) if name.is_empty() => reader.problem(&name.at, "a user needs a name", None),
        _ => {}
    }
    Some(User { at, user, password, nkey, permissions, allowed_connection_types })
}

fn connection_types(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<Located<String>> {
    let mut types = reader.texts(entry).unwrap_or_default();
    for kind in &mut types {
        kind.value.make_ascii_uppercase();
        match CONNECTION_TYPES.iter().find(|(known, _)| *known == kind.value) {
            Some((_, true)) => {}
            Some((known, false)) => {
                reader.warn(&kind.at, format!("this broker has no connections of type {known}"), None)
            }
            None => reader.problem(
                &kind.at,
                "no such type of connections",
                Some("there are STANDARD, WEBSOCKET and IN_PROCESS"),
            ),
        }
    }
    types
}

/// A block of permissions.
pub(super) fn permissions(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Permissions> {
    reader.map_into("permissions", entry, PERMISSIONS_KEYS)
}

/// A subject, a list of subjects, or a block of `allow` and `deny`.
fn lists(entry: &Entry<'_>, reader: &mut Reader<'_>, queues: bool) -> SubjectLists {
    const PLAIN: &[Key<SubjectLists>] = &[
        Key { names: &["allow"], read: |l, e, r| l.allow = subjects(e, r, false) },
        Key { names: &["deny"], read: |l, e, r| l.deny = subjects(e, r, false).unwrap_or_default() },
    ];
    const QUEUES: &[Key<SubjectLists>] = &[
        Key { names: &["allow"], read: |l, e, r| l.allow = subjects(e, r, true) },
        Key { names: &["deny"], read: |l, e, r| l.deny = subjects(e, r, true).unwrap_or_default() },
    ];
    if matches!(entry.value.kind, Kind::Map(_)) {
        return reader.map_into("a permission", entry, if queues { QUEUES } else { PLAIN }).unwrap_or_default();
    }
    SubjectLists { allow: subjects(entry, reader, queues), deny: Vec::new() }
}

fn subjects(entry: &Entry<'_>, reader: &mut Reader<'_>, queues: bool) -> Option<Vec<Located<String>>> {
    let mut subjects = reader.texts(entry)?;
    for entry in &mut subjects {
        let mut words = entry.value.split_whitespace();
        let (subject, queue, more) = (words.next().unwrap_or_default(), words.next(), words.next());
        let hint = match (queue, more) {
            (Some(_), None) if !queues => Some("only subscriptions have queues"),
            (_, Some(_)) => Some("write `subject` or `subject queue`"),
            _ if !subject::is_filter(subject) => Some("tokens between the points must not be empty, `>` is the last"),
            _ => None,
        };
        if let Some(hint) = hint {
            let (at, message) =
                (entry.at.clone(), format!("{:?} is not a valid subject", crate::parse::shown(&entry.value)));
            reader.problem(&at, message, Some(hint));
            continue;
        }
        let joined = queue.map_or_else(|| subject.to_owned(), |queue| format!("{subject} {queue}"));
        entry.value = joined;
    }
    Some(subjects)
}

fn responses(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Responses> {
    match &entry.value.kind {
        Kind::Bool(allowed) => allowed.then_some(Responses { max: None, expires: None }),
        Kind::Map(_) => {
            let Responses { max, expires } = reader.map_into("allow_responses", entry, RESPONSES_KEYS)?;
            // Zero stands for the usual.
            Some(Responses { max: max.filter(|max| **max != 0), expires: expires.filter(|span| span.nanos != 0) })
        }
        _ => reader.wrong(entry, "true, or a block of `max` and `expires`", None),
    }
}

fn answers(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<i64>> {
    match entry.value {
        Value { kind: Kind::Integer { number, .. }, at, .. } => Some(Located::new(*number, Position::clone(at))),
        _ => reader.wrong(entry, "a whole number", None),
    }
}
