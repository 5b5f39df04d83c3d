//! Answers of nodes, parsed into types. Nothing here trusts a node: every field has a type and a bound, and
//! what does not fit is a text that says which field and why (spec 04 §16 rows 1 to 3 crash the original).

use serde_json::{Map, Value};

use crate::helper::CsrReply;

/// Longest token, certificate request or key that is read, in bytes.
const MAX_DOCUMENT: usize = 64 * 1024;
/// Longest inventory that is handed to a helper, in bytes.
const MAX_INVENTORY: usize = 1024 * 1024;
/// Longest path that a node may name; the DDL's limit.
const MAX_PATH: usize = 500;
/// Longest status text that is repeated in logs.
const MAX_STATUS: usize = 400;

/// Answer to `jwt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JwtReply {
    pub(super) jwt: String,
    /// Hex X25519 key of the node; empty when it has none.
    pub(super) ecdh_public: String,
    /// It carried a configuration out and only waits for its restart. Our servers say so; others leave it out.
    pub(super) configured: bool,
    /// Its certificate requests are for its identity when `gencsr` names nobody. Our servers say so; others leave it out, and
    /// would take their certificate name, which need not be their identity.
    pub(super) identity_csr: bool,
}

pub(super) fn jwt(data: &Value) -> Result<JwtReply, String> {
    let data = object(data)?;
    Ok(JwtReply {
        jwt: text(data, "jwt", MAX_DOCUMENT)?,
        ecdh_public: text(data, "ecdh_public", 128)?,
        configured: truth(data, "configured")?,
        identity_csr: truth(data, "identity_csr")?,
    })
}

pub(super) fn csr(data: &Value) -> Result<CsrReply, String> {
    let data = object(data)?;
    Ok(CsrReply {
        csr: text(data, "csr", MAX_DOCUMENT)?,
        public_key: text(data, "public_key", MAX_DOCUMENT)?,
        ssldir: text(data, "ssldir", MAX_PATH)?,
    })
}

/// Answer to `configure`, `restart` and `shutdown`: a sentence, or nothing.
pub(super) fn message(data: &Value) -> Result<String, String> {
    text(object(data)?, "message", MAX_DOCUMENT)
}

/// Answer to `inventory`, encoded again as the helper gets it: keys sorted, `upgradable` always there.
pub(super) fn inventory(data: &Value) -> Result<String, String> {
    let data = object(data)?;
    if text(data, "version", 256)?.is_empty() {
        return Err("field version is missing".to_owned());
    }
    let upgradable = truth(data, "upgradable")?;
    let mut data = data.clone();
    data.insert("upgradable".to_owned(), Value::Bool(upgradable));
    let encoded = choria_protocol::json::value_text(&sorted(Value::Object(data)));
    if encoded.len() > MAX_INVENTORY {
        return Err(format!("the inventory has {} bytes, at most {MAX_INVENTORY} are read", encoded.len()));
    }
    Ok(encoded)
}

/// A status text for the log: bounded, on one line.
pub(super) fn status(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_STATUS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_STATUS).is_some() {
        shown.push_str("...");
    }
    shown
}

fn object(data: &Value) -> Result<&Map<String, Value>, String> {
    data.as_object().ok_or_else(|| format!("data is {}, not an object", kind(data)))
}

/// A text field; missing and null are the empty text.
fn text(data: &Map<String, Value>, key: &str, limit: usize) -> Result<String, String> {
    match data.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) if text.len() <= limit => Ok(text.clone()),
        Some(Value::String(text)) => Err(format!("field {key} has {} bytes, at most {limit} are read", text.len())),
        Some(other) => Err(format!("field {key} is {}, not text", kind(other))),
    }
}

/// A true or false field; missing and null are false.
fn truth(data: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match data.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(other) => Err(format!("field {key} is {}, not true or false", kind(other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The value with the keys of all its objects sorted. Its depth is bounded by the JSON reader.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn inventory_is_sorted_at_every_depth_and_escaped_as_the_original_does() {
        let text = inventory(&json!({"version": "1", "facts": {"b": "<", "a": [{"z": 1, "y": null}]}})).unwrap();
        assert_eq!(text, r#"{"facts":{"a":[{"y":null,"z":1}],"b":"\u003c"},"upgradable":false,"version":"1"}"#);
    }

    #[test]
    fn design6_wrong_types_are_errors_and_never_end_the_daemon() {
        for data in [
            json!(null),
            json!([]),
            json!("x"),
            json!(5),
            json!({"jwt": 5}),
            json!({"jwt": {}}),
            json!({"ecdh_public": []}),
            json!({"configured": "yes"}),
            json!({"identity_csr": 1}),
        ] {
            assert!(jwt(&data).is_err(), "{data}");
        }
        for data in [json!({}), json!({"version": 5}), json!({"version": "1", "upgradable": "yes"}), json!(null)] {
            assert!(inventory(&data).is_err(), "{data}");
        }
        for data in
            [json!({"csr": 5}), json!({"csr": "x".repeat(MAX_DOCUMENT + 1)}), json!({"ssldir": "/".repeat(501)})]
        {
            assert!(csr(&data).is_err());
        }
        assert!(message(&json!({"message": 5})).is_err());
        assert_eq!(message(&json!({})).unwrap(), "");
    }

    #[test]
    fn status_texts_are_bounded_and_on_one_line() {
        assert_eq!(status("a\nb\u{1b}c"), "a b c");
        assert_eq!(status(&"x".repeat(5000)).len(), MAX_STATUS + 3);
    }
}
