//! The golden rows of `testdata/broker` as the policy function's inputs.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use choria_broker::policy::{ClientHosts, PolicyInputs, ProvisioningInputs, Secret, SystemUser};
use choria_tokens::VerificationKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Unix second at which the table was recorded: after every token's `nbf` but the one meant to lie ahead.
pub const NOW: i64 = 1_795_170_700;
pub const CLIENT_PASSWORD: &str = "the password of user provisioner";
pub const SYSTEM_PASSWORD: &str = "the password of the system user";

pub fn text(name: &str) -> String {
    choria_testkit::golden::text(&format!("broker/{name}"))
}

pub fn lines<T: DeserializeOwned>(name: &str) -> Vec<T> {
    text(name)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{name}: {e}: {line}")))
        .collect()
}

#[derive(Deserialize)]
pub struct Tokens {
    pub keys: BTreeMap<String, String>,
    tokens: BTreeMap<String, Token>,
}

#[derive(Deserialize)]
struct Token {
    about: serde_json::Value,
    jwt: String,
}

impl Tokens {
    pub fn load() -> Self {
        serde_json::from_str(&text("tokens.json")).unwrap()
    }

    /// The JWT that a row describes in words.
    pub fn find(&self, about: &serde_json::Value) -> Option<&str> {
        if let Some(text) = about.get("text").and_then(serde_json::Value::as_str) {
            return if text.is_empty() {
                Some("")
            } else {
                self.tokens.values().map(|t| t.jwt.as_str()).find(|jwt| *jwt == text)
            };
        }
        self.tokens.values().find(|token| token.about == *about).map(|token| token.jwt.as_str())
    }

    pub fn named(&self, name: &str) -> &str {
        &self.tokens[name].jwt
    }

    pub fn signer(&self, key: &str) -> Arc<VerificationKey> {
        Arc::new(VerificationKey::from_text(&self.keys[key]).unwrap())
    }

    /// The policy inputs behind a network of `networks.json` that needs no v2 token.
    pub fn network(&self, name: &str) -> Option<PolicyInputs> {
        let rsa = || Some(self.signer("provisioning_signer_certificate"));
        let provisioning = |signer| {
            Some(ProvisioningInputs {
                client_password: Secret::new(CLIENT_PASSWORD).unwrap(),
                signer,
                allow_unbound_nodes: false,
            })
        };
        let x509 = PolicyInputs {
            provisioning: provisioning(rsa()),
            system: Some(SystemUser { user: "system".into(), password: Secret::new(SYSTEM_PASSWORD) }),
            ..PolicyInputs::default()
        };
        let hosts = |list: &[&str]| ClientHosts::parse(list).unwrap();
        Some(match name {
            // Without TLS there is no provisioning account; without verification nobody is verified.
            "x509" | "disable-verify" => x509,
            "x509-noprov" => PolicyInputs::default(),
            "x509-signer-only" => PolicyInputs { provisioning: None, ..x509 },
            "x509-password-only" => PolicyInputs { provisioning: provisioning(None), ..x509 },
            "x509-signer-ed25519-file" => {
                PolicyInputs { provisioning: provisioning(Some(self.signer("issuer_choria_public"))), ..x509 }
            }
            "client-hosts" => PolicyInputs { client_hosts: hosts(&["127.0.0.2", "127.0.1.0/24"]), ..x509 },
            "deny-servers-x509" => {
                PolicyInputs { client_hosts: hosts(&["127.0.0.2"]), deny_server_connections: true, ..x509 }
            }
            "disable-tls" => PolicyInputs { insecure_clear_text: true, provisioning: None, ..x509 },
            _ => return None,
        })
    }
}
