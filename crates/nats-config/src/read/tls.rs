//! The block `tls`.

use super::{Entry, Key, Reader};
use crate::Located;
use crate::duration;
use crate::settings::{HandshakeFirst, Tls, TlsVersion};
use crate::value::Kind;

/// What `auto` waits for the client.
const AUTO: std::time::Duration = std::time::Duration::from_millis(50);

/// Suites of this broker in the names of the reference.
const CIPHER_SUITES: [&str; 11] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Curves of this broker in the names of the reference.
const CURVES: [&str; 4] = ["X25519", "CurveP256", "CurveP384", "X25519MLKEM768"];

const KEYS: &[Key<Tls>] = &[
    Key { names: &["cert_file"], read: |t, e, r| t.cert_file = r.text(e) },
    Key { names: &["key_file"], read: |t, e, r| t.key_file = r.text(e) },
    Key { names: &["ca_file"], read: |t, e, r| t.ca_file = r.text(e) },
    Key { names: &["verify"], read: |t, e, r| t.verify = r.located_bool(e) },
    Key { names: &["verify_and_map"], read: |t, e, r| t.verify_and_map = r.located_bool(e) },
    Key { names: &["insecure"], read: |t, e, r| t.insecure = r.located_bool(e) },
    Key { names: &["timeout"], read: |t, e, r| t.timeout = r.seconds(e) },
    Key { names: &["handshake_first", "first", "immediate"], read: |t, e, r| t.handshake_first = first(e, r) },
    Key { names: &["min_version"], read: |t, e, r| t.min_version = version(e, r) },
    Key { names: &["cipher_suites"], read: |t, e, r| t.cipher_suites = names(e, r, &CIPHER_SUITES) },
    Key { names: &["curve_preferences"], read: |t, e, r| t.curve_preferences = names(e, r, &CURVES) },
    Key { names: &["pinned_certs"], read: |t, e, r| t.pinned_certs = pinned(e, r) },
    Key { names: &["connection_rate_limit"], read: |t, e, r| t.connection_rate_limit = r.count(e) },
    Key { names: &["allow_insecure_cipher_suites"], read: super::top::no_effect },
    Key { names: &["verify_cert_and_check_known_urls"], read: |_, e, r| switch(e, r) },
    Key { names: &["ocsp_peer"], read: |_, e, r| r.unsupported("tls.ocsp_peer", e.at) },
    Key { names: &["certs"], read: |_, e, r| r.unsupported("tls.certs", e.at) },
    Key { names: &["cert_store"], read: |_, e, r| r.unsupported("tls.cert_store", e.at) },
    Key { names: &["cert_match_by"], read: |_, e, r| r.unsupported("tls.cert_match_by", e.at) },
    Key { names: &["cert_match"], read: |_, e, r| r.unsupported("tls.cert_match", e.at) },
    Key { names: &["cert_match_skip_invalid"], read: |_, e, r| r.unsupported("tls.cert_match_skip_invalid", e.at) },
    Key { names: &["ca_certs_match"], read: |_, e, r| r.unsupported("tls.ca_certs_match", e.at) },
];

pub(super) fn read(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<Tls>> {
    let tls = reader.map_into("tls", entry, KEYS)?;
    match (&tls.cert_file, &tls.key_file) {
        (Some(file), None) => reader.problem(&file.at, "there is a certificate, but no `key_file`", None),
        (None, Some(file)) => reader.problem(&file.at, "there is a key, but no `cert_file`", None),
        _ => {}
    }
    Some(Located::new(tls, entry.at.clone()))
}

fn switch(entry: &Entry<'_>, reader: &mut Reader<'_>) {
    if reader.bool(entry) == Some(true) {
        reader.unsupported("tls.verify_cert_and_check_known_urls", entry.at);
    }
}

fn first(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<HandshakeFirst>> {
    let first = match &entry.value.kind {
        Kind::Bool(true) => HandshakeFirst::Yes,
        Kind::Bool(false) => HandshakeFirst::No,
        Kind::Text(text) => match text.to_lowercase().as_str() {
            "true" | "on" => HandshakeFirst::Yes,
            "false" | "off" => HandshakeFirst::No,
            "auto" => HandshakeFirst::Within(AUTO),
            _ => match duration::parse(text).map(u64::try_from) {
                Ok(Ok(nanos)) => HandshakeFirst::Within(std::time::Duration::from_nanos(nanos)),
                _ => return reader.bad(entry, "expected true, false, auto or a duration such as \"300ms\"", None),
            },
        },
        _ => return reader.wrong(entry, "true, false, auto or a duration", None),
    };
    Some(Located::new(first, entry.value.at.clone()))
}

fn version(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Option<Located<TlsVersion>> {
    let Kind::Text(text) = &entry.value.kind else {
        return reader.wrong(entry, "\"1.2\" or \"1.3\"", Some("versions are written in quotes"));
    };
    let version = match &**text {
        "1.2" => TlsVersion::Tls12,
        "1.3" => TlsVersion::Tls13,
        "1.0" | "1.1" => return reader.bad(entry, "versions before 1.2 are not safe", None),
        _ => return reader.bad(entry, "expected \"1.2\" or \"1.3\"", None),
    };
    Some(Located::new(version, entry.value.at.clone()))
}

/// Names of which this broker may not have all.
fn names(entry: &Entry<'_>, reader: &mut Reader<'_>, known: &[&str]) -> Vec<Located<String>> {
    let names = reader.text_list(entry).unwrap_or_default();
    if matches!(&entry.value.kind, Kind::List(values) if values.is_empty()) {
        reader.problem(&entry.value.at, format!("{} is empty", entry.name), None);
    }
    for name in names.iter().filter(|name| !known.contains(&name.as_str())) {
        let message = format!("this broker does not offer {}", crate::parse::shown(name));
        // The reference has more of them, all with names of this form.
        if name.starts_with("TLS_") || name.starts_with("Curve") {
            reader.warn(&name.at, message, None);
        } else {
            reader.problem(&name.at, message, Some(&format!("there are {}", known.join(", "))));
        }
    }
    names
}

fn pinned(entry: &Entry<'_>, reader: &mut Reader<'_>) -> Vec<Located<String>> {
    let mut sums = reader.text_list(entry).unwrap_or_default();
    for sum in &mut sums {
        if sum.len() != 64 || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            reader.problem(&sum.at, "64 hexadecimal digits of a SHA-256 are expected", None);
        }
        sum.value.make_ascii_lowercase();
    }
    sums
}
