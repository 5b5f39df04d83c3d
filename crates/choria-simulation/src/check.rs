//! What must hold, as functions over what was seen: requests, replies, files.

use std::collections::BTreeMap;
use std::path::Path;

use choria_protocol::rpc::RequestBody;
use choria_protocol::v1;
use choria_security::atomic::TEMPORARY_PREFIX;
use choria_security::cert;
use choria_security::keys::PrivateKey;
use serde_json::{Map, Value};

use crate::disk::MemoryDisk;
use crate::helper::{ATTEMPT, Attempt};
use crate::material::TOKEN_SECRET;
use crate::provisioner::Given;

/// Everything a machine has lies below.
pub(crate) const ROOT: &str = "/simulated";
/// A machine's configuration.
pub(crate) const CONFIG: &str = "/simulated/choria/server.conf";
/// Its provisioning token.
pub(crate) const TOKEN: &str = "/simulated/choria/provisioning.jwt";
/// Its policies.
const POLICIES: &str = "/simulated/choria/policies/";

/// What a `configure` call shall be judged by: every file but keys, requests for certificates and the token. The line that
/// tells when a configuration was written is left out.
pub(crate) type Snapshot = BTreeMap<String, String>;

/// The files of a disk.
pub(crate) fn snapshot(disk: &MemoryDisk) -> Snapshot {
    let mut found = Snapshot::new();
    for (name, bytes) in disk.tree(Path::new(ROOT)) {
        let path = format!("{ROOT}/{name}");
        let last = name.rsplit('/').next().unwrap_or_default();
        if path == TOKEN || matches!(last, "private.pem" | "csr.pem") || last.starts_with(TEMPORARY_PREFIX) {
            continue;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let text = if path == CONFIG { without_first_comment(&text).to_owned() } else { text };
        found.insert(path, text);
    }
    found
}

fn without_first_comment(text: &str) -> &str {
    match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("# ") => rest,
        _ => text,
    }
}

/// The value of a setting in a configuration.
pub(crate) fn setting<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a str> {
    let lines = snapshot.get(CONFIG)?.lines();
    lines.filter_map(|line| line.split_once('=')).find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim())
}

/// Number of the attempt that made this configuration.
pub(crate) fn attempt_of(snapshot: &Snapshot) -> Option<usize> {
    setting(snapshot, ATTEMPT)?.parse().ok()
}

/// What the files must be after a `configure` call with these inputs.
pub(crate) fn after_configure(before: &Snapshot, data: &Map<String, Value>) -> Snapshot {
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
    let texts = |key: &str| data.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut after = before.clone();
    let settings: Map<String, Value> = serde_json::from_str(text("config")).unwrap_or_default();
    let lines = settings.iter().map(|(key, value)| format!("{key}={}\n", value.as_str().unwrap_or_default()));
    after.insert(CONFIG.to_owned(), lines.collect());
    if !text("certificate").is_empty() {
        for (file, key) in [("certificate.pem", "certificate"), ("ca.pem", "ca")] {
            after.insert(format!("{}/{file}", text("ssldir")), text(key).to_owned());
        }
    }
    let (action, rego) = (texts("action_policies"), texts("opa_policies"));
    let in_rego = |path: &str| path.starts_with(&format!("{POLICIES}rego/"));
    if !action.is_empty() {
        after.retain(|path, _| !path.starts_with(POLICIES) || in_rego(path) || path == &format!("{POLICIES}groups"));
    }
    if !rego.is_empty() {
        after.retain(|path, _| !in_rego(path));
    }
    for (directory, files) in [(POLICIES.to_owned(), action), (format!("{POLICIES}rego/"), rego)] {
        for (name, content) in files {
            after.insert(format!("{directory}{name}"), content.as_str().unwrap_or_default().to_owned());
        }
    }
    after
}

/// Whether a member's files are of one attempt, made for this node, and fit its key.
pub(crate) fn is_whole_member(
    disk: &MemoryDisk,
    snapshot: &Snapshot,
    identity: &str,
    attempts: &[Attempt],
) -> Result<usize, String> {
    let number = attempt_of(snapshot).ok_or("its configuration is not of any attempt")?;
    let attempt = attempts.get(number).ok_or_else(|| format!("there was no attempt {number}"))?;
    if attempt.identity != identity || setting(snapshot, "identity") != Some(identity) {
        return Err(format!("its configuration was made for {}", attempt.identity));
    }
    let file = |key: &str| {
        let path = setting(snapshot, key).ok_or_else(|| format!("{key} is not set"))?;
        let bytes = disk.tree(Path::new(ROOT)).remove(path.trim_start_matches(ROOT).trim_start_matches('/'));
        let bytes = bytes.ok_or_else(|| format!("{path} is not there"))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("{path} is no text"))
    };
    let (certificate, ca) = (file("plugin.security.file.certificate")?, file("plugin.security.file.ca")?);
    if certificate != attempt.certificate || ca != attempt.ca {
        return Err(format!("certificate or CA are not those of attempt {number}"));
    }
    let facts = cert::first_from_pem(&certificate).map_err(|error| error.to_string())?;
    let key = PrivateKey::from_pem(&file("plugin.security.file.key")?).map_err(|error| error.to_string())?;
    if !facts.belongs_to(&key) {
        return Err(format!("its key is not the one that attempt {number} was made for"));
    }
    if !facts.names().iter().any(|name| name == identity) {
        return Err(format!("its certificate is for {:?}", facts.names()));
    }
    let tag = format!("# attempt {number}\n");
    match snapshot.get(&format!("{POLICIES}simulation.policy")) {
        Some(policy) if policy.starts_with(&tag) => Ok(number),
        _ => Err(format!("its policies are not those of attempt {number}")),
    }
}

/// What differs between two snapshots.
pub(crate) fn difference(found: &Snapshot, expected: &Snapshot) -> String {
    let mut lines = Vec::new();
    for path in found.keys().chain(expected.keys().filter(|path| !found.contains_key(*path))) {
        match (found.get(path), expected.get(path)) {
            (Some(found), Some(expected)) if found == expected => {}
            (Some(_), Some(_)) => lines.push(format!("{path} differs")),
            (Some(_), None) => lines.push(format!("{path} should not be there")),
            (None, _) => lines.push(format!("{path} is missing")),
        }
    }
    lines.join(", ")
}

/// The action that a request body asks for.
pub(crate) fn action_of(message: &str) -> String {
    RequestBody::parse(message.as_bytes()).map_or_else(|_| "discovery".to_owned(), |body| body.action)
}

/// The attempt that a `configure` request was made by.
pub(crate) fn attempt_in(data: &Map<String, Value>) -> Option<usize> {
    let config: Map<String, Value> = serde_json::from_str(data.get("config")?.as_str()?).ok()?;
    config.get(ATTEMPT)?.as_str()?.parse().ok()
}

/// Whether what is sent to a node was made for it and holds nobody else's certificate or configuration.
pub(crate) fn request_is_for(identity: &str, message: &str, attempts: &[Attempt]) -> Result<(), String> {
    let body = RequestBody::parse(message.as_bytes()).map_err(|error| error.to_string())?;
    if body.action != "configure" {
        return Ok(());
    }
    let text = |key: &str| body.data.get(key).and_then(Value::as_str).unwrap_or_default();
    let attempt = attempt_in(&body.data).and_then(|number| attempts.get(number));
    let attempt = attempt.ok_or("a configuration that no helper made")?;
    if attempt.identity != identity {
        return Err(format!("the configuration of {}", attempt.identity));
    }
    if !text("config").contains(&format!("secret of {identity}\"")) {
        return Err("a configuration with another node's secret".to_owned());
    }
    if !text("certificate").is_empty() {
        let facts = cert::first_from_pem(text("certificate")).map_err(|error| error.to_string())?;
        if !facts.names().iter().any(|name| name == identity) {
            return Err(format!("a certificate for {:?}", facts.names()));
        }
    }
    Ok(())
}

/// What a text for everybody must not hold.
pub(crate) fn leaks(text: &str) -> Option<&'static str> {
    if text.contains(TOKEN_SECRET) {
        Some("the token")
    } else if text.contains("secret of ") {
        Some("a setting of a node")
    } else if text.contains("PRIVATE KEY") {
        Some("a private key")
    } else {
        None
    }
}

/// Judges what a provisioner did with a message on a reply subject. `sender` is who really sent it.
pub(crate) fn reply(accepted: bool, given: Option<&mut Given>, sender: &str, payload: &[u8]) -> Option<String> {
    if !accepted {
        return None;
    }
    let Some(given) = given else { return Some("the subject was never given away".to_owned()) };
    let Some(identity) = &given.identity else {
        // Everybody may answer discovery.
        return None;
    };
    if identity != sender {
        return Some(format!("the subject was given to {identity}"));
    }
    if std::mem::replace(&mut given.answered, true) {
        return Some("it was answered before".to_owned());
    }
    // What cannot be read is the node's own fault, and a failed try.
    let envelope = v1::decode_reply(payload).ok()?.reply.envelope;
    if envelope.sender_id != *identity {
        return Some(format!("it says that it is from {}", envelope.sender_id));
    }
    if envelope.request_id != given.request_id {
        return Some("it is for another request".to_owned());
    }
    None
}

/// The bounds of an engine's books.
pub(crate) fn bounds(in_flight: i64, waiting: i64, busy: i64) -> Option<String> {
    // The configuration of every simulated provisioner: two workers.
    if busy > 2 {
        return Some(format!("{busy} helpers run at the same time, two are allowed"));
    }
    if in_flight > waiting {
        return Some(format!("{in_flight} nodes in the flow and only {waiting} known"));
    }
    if waiting > 50_000 {
        return Some(format!("{waiting} nodes are known"));
    }
    None
}
