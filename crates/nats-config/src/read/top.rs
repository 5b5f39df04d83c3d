//! The settings that stand in no block.

use std::time::Duration;

use super::{Entry, Key, Reader, account, authorization, jetstream, mapping, tls, websocket};
use crate::nkey::{self, Owner};
use crate::settings::{PreloadedAccount, Resolver, Settings};
use crate::value::Kind;
use crate::{Located, Position};

/// The shortest that the reference takes (spec 07 §6).
const MIN_LAME_DUCK: Duration = Duration::from_secs(30);

pub(super) const KEYS: &[Key<Settings>] = &[
    Key { names: &["server_name"], read: |s, e, r| s.server_name = server_name(e, r) },
    Key { names: &["server_tags"], read: |s, e, r| s.server_tags = tags(e, r) },
    Key { names: &["listen"], read: listen },
    Key { names: &["host", "net"], read: |s, e, r| s.host = r.text(e) },
    Key { names: &["port"], read: |s, e, r| s.port = r.port(e) },
    Key { names: &["client_advertise"], read: |s, e, r| s.client_advertise = r.text(e) },
    Key { names: &["http", "http_port", "monitor_port"], read: |s, e, r| s.http = r.listen(e) },
    Key { names: &["https", "https_port"], read: |s, e, r| s.https = r.listen(e) },
    Key { names: &["http_base_path"], read: |s, e, r| s.http_base_path = base_path(e, r) },
    Key { names: &["debug"], read: |s, e, r| s.debug = r.bool(e) },
    Key { names: &["trace"], read: |s, e, r| s.trace = r.bool(e) },
    Key { names: &["trace_verbose"], read: |s, e, r| s.trace_verbose = r.bool(e) },
    Key { names: &["logtime"], read: |s, e, r| s.logtime = r.bool(e) },
    Key { names: &["logtime_utc"], read: |s, e, r| s.logtime_utc = r.bool(e) },
    Key { names: &["log_file", "logfile"], read: |s, e, r| s.log_file = r.text(e) },
    Key { names: &["log_size_limit", "logfile_size_limit"], read: |s, e, r| s.log_size_limit = r.count(e) },
    Key { names: &["log_max_num", "logfile_max_num"], read: |s, e, r| s.log_max_files = r.count(e) },
    Key { names: &["pid_file", "pidfile"], read: |s, e, r| s.pid_file = r.text(e) },
    Key { names: &["ports_file_dir"], read: |s, e, r| s.ports_file_dir = r.text(e) },
    Key { names: &["max_payload"], read: |s, e, r| s.max_payload = r.wire_limit(e) },
    Key { names: &["max_control_line"], read: |s, e, r| s.max_control_line = r.wire_limit(e).and_then(|_| r.count(e)) },
    Key { names: &["max_pending"], read: |s, e, r| s.max_pending = r.count(e) },
    Key { names: &["max_connections", "max_conn"], read: |s, e, r| s.max_connections = r.limit(e) },
    Key { names: &["max_subscriptions", "max_subs"], read: |s, e, r| s.max_subscriptions = r.limit(e) },
    Key { names: &["max_sub_tokens", "max_subscription_tokens"], read: |s, e, r| s.max_sub_tokens = sub_tokens(e, r) },
    Key { names: &["max_closed_clients"], read: |s, e, r| s.max_closed_clients = r.count(e) },
    Key { names: &["write_deadline"], read: |s, e, r| s.write_deadline = r.duration(e) },
    Key { names: &["ping_interval"], read: |s, e, r| s.ping_interval = r.span(e) },
    Key { names: &["ping_max"], read: |s, e, r| s.ping_max = r.count(e) },
    Key { names: &["lame_duck_duration"], read: |s, e, r| s.lame_duck_duration = lame_duck(e, r, MIN_LAME_DUCK) },
    Key {
        names: &["lame_duck_grace_period"],
        read: |s, e, r| s.lame_duck_grace_period = lame_duck(e, r, Duration::ZERO),
    },
    Key { names: &["no_header_support"], read: |s, e, r| s.no_header_support = r.bool(e) },
    Key { names: &["disable_sublist_cache", "no_sublist_cache"], read: |s, e, r| s.disable_sublist_cache = r.bool(e) },
    Key { names: &["authorization"], read: |s, e, r| s.authorization = authorization::read(e, r) },
    Key { names: &["no_auth_user"], read: |s, e, r| s.no_auth_user = r.text(e) },
    Key { names: &["accounts"], read: |s, e, r| s.accounts = account::read(e, r) },
    Key { names: &["system_account", "system"], read: |s, e, r| s.system_account = r.text(e) },
    Key { names: &["no_system_account"], read: |s, e, r| s.no_system_account = r.bool(e) },
    Key { names: &["mappings", "maps"], read: |s, e, r| s.mappings = mapping::read(e, r) },
    Key {
        names: &["operator", "operators", "root", "roots"],
        read: |s, e, r| s.operators = r.texts(e).unwrap_or_default(),
    },
    Key { names: &["trusted_keys", "trusted"], read: |s, e, r| s.trusted_keys = trusted_keys(e, r) },
    Key { names: &["resolver", "account_resolver"], read: |s, e, r| s.resolver = resolver(e, r) },
    Key { names: &["resolver_preload"], read: |s, e, r| s.resolver_preload = preload(e, r) },
    Key { names: &["tls"], read: |s, e, r| s.tls = tls::read(e, r) },
    Key { names: &["allow_non_tls"], read: |s, e, r| s.allow_non_tls = r.located_bool(e) },
    Key { names: &["websocket", "ws"], read: |s, e, r| s.websocket = websocket::read(e, r) },
    Key { names: &["jetstream"], read: jetstream::read },
    Key { names: &["store_dir"], read: jetstream::store_dir },
    Key { names: &["cluster"], read: cluster },
    Key { names: &["gateway"], read: |_, e, r| not_here("gateway", e, r) },
    Key { names: &["leafnodes", "leaf"], read: |_, e, r| not_here("leafnodes", e, r) },
    Key { names: &["mqtt"], read: |_, e, r| not_here("mqtt", e, r) },
    // What a reader of the file counts on and would miss.
    Key { names: &["syslog"], read: |_, e, r| switch_not_here("syslog", e, r) },
    Key { names: &["remote_syslog"], read: |_, e, r| r.unsupported("remote_syslog", e.at) },
    Key { names: &["ocsp"], read: |_, e, r| r.unsupported("ocsp", e.at) },
    Key { names: &["proxies"], read: |_, e, r| r.unsupported("proxies", e.at) },
    Key { names: &["proxy_protocol"], read: |_, e, r| switch_not_here("proxy_protocol", e, r) },
    Key { names: &["default_sentinel"], read: |_, e, r| r.unsupported("default_sentinel", e.at) },
    Key { names: &["resolver_tls"], read: |_, e, r| r.unsupported("resolver_tls", e.at) },
    Key { names: &["resolver_pinned_accounts"], read: |_, e, r| r.unsupported("resolver_pinned_accounts", e.at) },
    // What changes nothing that a client would see.
    Key { names: &["trace_headers"], read: no_effect },
    Key { names: &["max_traced_msg_len"], read: no_effect },
    Key { names: &["prof_port"], read: no_effect },
    Key { names: &["prof_block_rate"], read: no_effect },
    Key { names: &["write_timeout"], read: no_effect },
    Key { names: &["connect_error_reports"], read: no_effect },
    Key { names: &["reconnect_error_reports"], read: no_effect },
    Key { names: &["no_fast_producer_stall"], read: no_effect },
    Key { names: &["default_js_domain"], read: no_effect },
    Key { names: &["ocsp_cache"], read: no_effect },
    Key { names: &["server_metadata"], read: no_effect },
    Key { names: &["feature_flags"], read: no_effect },
];

/// A setting of the reference that this broker has no use for.
pub(super) fn no_effect<T>(_: &mut T, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    reader.warn(entry.at, format!("{} has no effect in this broker", entry.name), None);
}

fn not_here(name: &str, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    if reader.map(entry).is_some_and(|pairs| !pairs.is_empty()) {
        reader.unsupported(name, entry.at);
    }
}

fn switch_not_here(name: &str, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    if reader.bool(entry) == Some(true) {
        reader.unsupported(name, entry.at);
    }
}

impl Reader<'_> {
    pub(super) fn without_blanks(&mut self, entry: &Entry<'_>, name: Located<String>) -> Option<Located<String>> {
        if name.contains(' ') { self.bad(entry, "the name must not contain blanks", None) } else { Some(name) }
    }
}

/// An empty name stands for the generated one.
fn server_name(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<String>> {
    let name = reader.text(entry).filter(|name| !name.is_empty())?;
    reader.without_blanks(entry, name)
}

fn tags(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<String> {
    reader.texts(entry).unwrap_or_default().into_iter().map(|tag| tag.value).collect()
}

fn listen(settings: &mut Settings, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    let Some(Located { value: listen, at }) = reader.listen(entry) else { return };
    if let Some(host) = listen.host {
        settings.host = Some(Located::new(host, at.clone()));
    }
    settings.port = Some(Located::new(listen.port, at));
}

fn base_path(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<String>> {
    let path = reader.text(entry)?;
    if path.is_empty() || path.starts_with('/') {
        return Some(path);
    }
    reader.bad(entry, "the path must begin with `/`", None)
}

fn sub_tokens(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<u64>> {
    let tokens = reader.count(entry)?;
    if *tokens > 255 {
        return reader.bad(entry, "the number is too large", Some("255 is the largest"));
    }
    Some(tokens)
}

fn lame_duck(entry: &Entry<'_>, reader: &mut Reader<'_>, least: Duration) -> Option<Located<Duration>> {
    let span = reader.duration_text(entry)?;
    let duration = reader.not_negative(entry, span)?;
    if *duration < least {
        return reader.bad(entry, &format!("the time must be at least {} seconds", least.as_secs()), None);
    }
    Some(duration)
}

fn trusted_keys(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<Located<String>> {
    let keys = reader.texts(entry).unwrap_or_default();
    for key in &keys {
        if !nkey::is_public(Owner::Operator, key) {
            reader.problem(&key.at, "this is not the public key of an operator (`O…`)", None);
        }
    }
    keys
}

fn resolver(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<Resolver>> {
    let kind = match &entry.value.kind {
        Kind::Map(pairs) => {
            pairs.iter().rev().find(|pair| pair.key.eq_ignore_ascii_case("type")).map(|pair| &pair.value.kind)
        }
        kind => Some(kind),
    };
    let Some(Kind::Text(kind)) = kind else {
        return reader.wrong(entry, "MEMORY", None);
    };
    match kind.to_lowercase().as_str() {
        "mem" | "memory" => return Some(Located::new(Resolver::Memory, entry.value.at.clone())),
        other if other.starts_with("url") || matches!(other, "full" | "cache") => {
            reader.unsupported("resolver", entry.at)
        }
        _ => return reader.bad(entry, "no such resolver", Some("MEMORY is the one that this broker has")),
    }
    None
}

fn preload(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<PreloadedAccount> {
    let mut accounts = Vec::new();
    for pair in reader.map(entry).unwrap_or_default().iter().filter(|pair| !pair.used) {
        let token = Entry { name: &pair.key, at: &pair.at, value: &pair.value };
        if !nkey::is_public(Owner::Account, &pair.key) {
            reader.problem(&pair.at, "this is not the public key of an account (`A…`)", None);
        } else if let Some(jwt) = reader.text(&token) {
            accounts.push(PreloadedAccount { key: Located::new(pair.key.to_string(), pair.at.clone()), jwt });
        }
    }
    accounts
}

/// A cluster that has only a name is none.
fn cluster(settings: &mut Settings, entry: &Entry<'_>, reader: &mut Reader<'_>) {
    let mut more: Option<&Position> = None;
    for pair in reader.map(entry).unwrap_or_default().iter().filter(|pair| !pair.used) {
        let name = Entry { name: &pair.key, at: &pair.at, value: &pair.value };
        if pair.key.eq_ignore_ascii_case("name") {
            settings.cluster_name = reader.text(&name).and_then(|text| reader.without_blanks(&name, text));
        } else {
            more = Some(entry.at);
        }
    }
    if let Some(at) = more {
        reader.unsupported("cluster", at);
    }
}
