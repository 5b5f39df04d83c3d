//! The documents that travel between provisioner and helper (spec 04 §7).
//!
//! The request is byte for byte what the original writes. The answer is read as the original reads it: names
//! match in any letter case, `null` is the zero value, repeated maps merge, of repeated keys the last counts,
//! damaged UTF-8 becomes U+FFFD, unknown keys are ignored, wrong types are errors.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use choria_tokens::ProvisioningClaims;
use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::rules::CheckedCsr;

/// What the node answered to `gencsr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CsrReply {
    /// The certificate request, PEM.
    pub csr: String,
    /// The public key, PEM.
    pub public_key: String,
    /// Where the node keeps its certificates.
    pub ssldir: String,
}

/// What is known about a node when its helper is asked. Holds secrets: `Debug` shows the node only.
#[derive(Clone, PartialEq)]
pub struct Question {
    /// The node.
    pub identity: Arc<str>,
    /// Its certificate request, and what the checks found in it, with `features.pki`.
    pub csr: Option<(CsrReply, CheckedCsr)>,
    /// Its inventory as JSON text.
    pub inventory: String,
    /// The verified claims of its provisioning token with `features.jwt`.
    pub jwt: Option<ProvisioningClaims>,
}

impl Question {
    /// The document for a helper program: one line, no newline at its end.
    pub fn to_text(&self) -> String {
        let request = HelperRequest {
            identity: &self.identity,
            csr: self.csr.as_ref().map(|(reply, _)| reply),
            ed25519_pubkey: None,
            inventory: &self.inventory,
            jwt: self.jwt.as_ref(),
        };
        request.to_text()
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What a helper is asked. Key order is the wire order.
#[derive(Debug, Serialize)]
pub struct HelperRequest<'a> {
    /// The node.
    pub identity: &'a str,
    /// Its certificate request with `features.pki`.
    pub csr: Option<&'a CsrReply>,
    /// Always null: keys of protocol version 2.
    pub ed25519_pubkey: Option<()>,
    /// The node's inventory as JSON text.
    pub inventory: &'a str,
    /// The verified claims of its provisioning token with `features.jwt`. Holds secrets.
    pub jwt: Option<&'a ProvisioningClaims>,
}

impl HelperRequest<'_> {
    /// The document: one line, no newline at its end.
    pub fn to_text(&self) -> String {
        choria_protocol::json::to_string(self).expect("texts, numbers and maps with text keys can be written as JSON")
    }
}

/// What a helper answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HelperAnswer {
    /// Stop here, the node is tried again later.
    pub defer: bool,
    /// Tell the node to shut down; `defer` wins.
    pub shutdown: bool,
    /// Why; logged with `defer` and `shutdown`.
    pub msg: String,
    /// Certificate, PEM.
    pub certificate: String,
    /// CA certificates, PEM.
    pub ca: String,
    /// The node's configuration.
    pub configuration: BTreeMap<String, String>,
    /// Private key for the node, PEM; travels encrypted.
    pub key: choria_tokens::Secret,
    /// Where the node keeps its certificates; counts only without a certificate request.
    pub ssldir: String,
    /// Action policies: file name to text.
    pub action_policies: BTreeMap<String, String>,
    /// Rego policies: file name to text.
    pub opa_policies: BTreeMap<String, String>,
    /// Version to upgrade to; `features.upgrades` is not available, so it is ignored.
    pub upgrade: String,
    /// The node is refused, with the reason. Only the built-in helper can say so.
    pub denied: Option<String>,
    /// The answer was made in this process, so its certificate is known to fit. Not part of what is read.
    pub built_in: bool,
    /// The node that the answer is for. Optional and ours: a persistent helper that echoes it is protected
    /// against answers in the wrong order.
    pub identity: String,
}

impl HelperAnswer {
    /// Reads what a helper printed.
    ///
    /// # Errors
    /// What is wrong, in the words of the JSON reader; and text that is not UTF-8, which would reach the node damaged. In the
    /// words of a deferral or shutdown, which only people read, damage is shown instead.
    pub fn parse(output: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(output);
        let mut reader = serde_json::Deserializer::from_str(&text);
        let answer = Option::<Self>::deserialize(&mut reader).and_then(|answer| reader.end().map(|()| answer));
        let answer = answer.map(Option::unwrap_or_default).map_err(|error| error.to_string())?;
        match std::str::from_utf8(output) {
            Err(damage) if !answer.defer && !answer.shutdown => {
                Err(format!("it is not UTF-8: byte {} belongs to no character", damage.valid_up_to() + 1))
            }
            _ => Ok(answer),
        }
    }
}

impl<'de> Deserialize<'de> for HelperAnswer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnswerVisitor)
    }
}

struct AnswerVisitor;

impl<'de> Visitor<'de> for AnswerVisitor {
    type Value = HelperAnswer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HelperAnswer, A::Error> {
        let mut answer = HelperAnswer::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.to_lowercase().as_str() {
                "defer" => set(&mut map, &mut answer.defer, "defer")?,
                "shutdown" => set(&mut map, &mut answer.shutdown, "shutdown")?,
                "msg" => set(&mut map, &mut answer.msg, "msg")?,
                "certificate" => set(&mut map, &mut answer.certificate, "certificate")?,
                "ca" => set(&mut map, &mut answer.ca, "ca")?,
                "key" => set(&mut map, &mut answer.key, "key")?,
                "ssldir" => set(&mut map, &mut answer.ssldir, "ssldir")?,
                "upgrade" => set(&mut map, &mut answer.upgrade, "upgrade")?,
                "identity" => set(&mut map, &mut answer.identity, "identity")?,
                "configuration" => merge(&mut map, &mut answer.configuration, "configuration")?,
                "action_policies" => merge(&mut map, &mut answer.action_policies, "action_policies")?,
                "opa_policies" => merge(&mut map, &mut answer.opa_policies, "opa_policies")?,
                "server_claims" => {
                    // Claims of protocol version 2 server tokens: checked for type as the original does, unused.
                    map.next_value::<Option<ServerClaims>>().map_err(|e| within("server_claims", e))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(answer)
    }
}

/// Names the key in an error; a `null` leaves the value alone.
fn set<'de, A: MapAccess<'de>, T: de::DeserializeOwned>(
    map: &mut A,
    value: &mut T,
    key: &'static str,
) -> Result<(), A::Error> {
    if let Some(new) = map.next_value::<Option<T>>().map_err(|e| within(key, e))? {
        *value = new;
    }
    Ok(())
}

fn merge<'de, A: MapAccess<'de>>(
    map: &mut A,
    value: &mut BTreeMap<String, String>,
    key: &'static str,
) -> Result<(), A::Error> {
    if let Some(new) = map.next_value::<Option<BTreeMap<String, Option<String>>>>().map_err(|e| within(key, e))? {
        value.extend(new.into_iter().map(|(k, v)| (k, v.unwrap_or_default())));
    }
    Ok(())
}

fn within<E: de::Error>(key: &'static str, error: E) -> E {
    E::custom(format_args!("{key}: {error}"))
}

/// `server_claims`, read only to refuse what the original refuses.
struct ServerClaims;

impl<'de> Deserialize<'de> for ServerClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor(PhantomData<ServerClaims>);
        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = ServerClaims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ServerClaims, A::Error> {
                while let Some(key) = map.next_key::<String>()? {
                    match key.to_lowercase().as_str() {
                        "exp" => {
                            map.next_value::<Option<f64>>().map_err(|e| within("exp", e))?;
                        }
                        "collectives" | "pub_subjects" => {
                            map.next_value::<Option<Vec<String>>>().map_err(|e| within("collectives", e))?;
                        }
                        "ou" => {
                            map.next_value::<Option<String>>().map_err(|e| within("ou", e))?;
                        }
                        "permissions" => {
                            map.next_value::<Option<BTreeMap<String, IgnoredAny>>>()
                                .map_err(|e| within("permissions", e))?;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(ServerClaims)
            }
        }
        deserializer.deserialize_map(ClaimsVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HelperAnswer, String> {
        HelperAnswer::parse(text.as_bytes())
    }

    #[test]
    fn names_match_in_any_letter_case_and_the_last_counts() {
        let answer = parse(r#"{"DEFER":true,"Msg":"up","defer":false,"CONFIGURATION":{"A":"b"}}"#).unwrap();
        assert!(!answer.defer);
        assert_eq!(answer.msg, "up");
        assert_eq!(answer.configuration["A"], "b");
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        assert_eq!(parse("null").unwrap(), HelperAnswer::default());
        let answer =
            parse(r#"{"defer":null,"configuration":{"a":null},"server_claims":null,"opa_policies":null}"#).unwrap();
        assert_eq!(answer.configuration["a"], "");
    }

    #[test]
    fn repeated_maps_merge() {
        let answer = parse(r#"{"configuration":{"a":"1"},"configuration":{"b":"2","a":"3"}}"#).unwrap();
        assert_eq!(answer.configuration.len(), 2);
        assert_eq!(answer.configuration["a"], "3");
    }

    #[test]
    fn damaged_utf8_is_shown_in_messages_and_refused_elsewhere() {
        let answer = HelperAnswer::parse(b"{\"defer\":true,\"msg\":\"a\xffb\"}").unwrap();
        assert_eq!(answer.msg, "a\u{fffd}b");
        let error = HelperAnswer::parse(b"{\"configuration\":{\"a\xff\":\"b\"}}").unwrap_err();
        assert_eq!(error, "it is not UTF-8: byte 21 belongs to no character");
    }

    #[test]
    fn an_error_names_the_key() {
        let error = parse(r#"{"configuration":{"a":1}}"#).unwrap_err();
        assert!(error.contains("configuration"), "{error}");
        assert!(parse("{} {}").is_err());
        assert!(parse("[]").is_err());
        assert!(parse("\u{feff}{}").is_err());
    }
}
