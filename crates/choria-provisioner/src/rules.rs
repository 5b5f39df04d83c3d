//! What a node must show before anything is made for it: its token and its certificate request
//! (spec 04 §6.3, §6.6, DESIGN §6).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use choria_security::csr::{self, CsrError, CsrFacts, CsrPolicy, MIN_RSA_BITS};
use choria_security::patterns::Patterns;
use choria_tokens::{ProvisioningClaims, Secret, TokenError, VerificationKey, verify_provisioning};

use crate::config::{Features, ProvisionerConfig};
use crate::helper::CsrReply;

/// Verified tokens that are remembered. A fleet shares one or a few, and a signature check costs more than all
/// other checks of a node together.
const REMEMBERED_TOKENS: usize = 64;

/// Longest directory name that is handed on.
const MAX_DIRECTORY: usize = 500;

/// Why a node, or what was made for it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// A short, constant word, label of `choria_provisioner_refused`.
    pub reason: &'static str,
    /// The whole sentence.
    pub error: String,
}

impl Refusal {
    pub(crate) fn new(reason: &'static str, error: impl Into<String>) -> Self {
        Self { reason, error: error.into() }
    }
}

/// A certificate request that was accepted. Its signature was verified, which is the dear part of signing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedCsr {
    /// What it says. A certificate must be for its `public_der`; its `pem` is safe to hand to a helper.
    pub facts: CsrFacts,
}

/// Why rules could not be made from a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// `features.jwt` without a key to verify tokens with.
    #[error(
        "features.jwt is on but jwt_verify_cert is not set: no token could be verified; set it to the certificate of the token's signer"
    )]
    NoVerifier,
    /// The key cannot be used.
    #[error("jwt_verify_cert: {0}")]
    Verifier(String),
}

/// Everything a flow checks against. One set serves all flows that start until the next reload.
#[derive(Debug)]
pub struct Rules {
    /// The secret that nodes expect in every call.
    pub token: Secret,
    /// What the flow does.
    pub features: Features,
    /// Longest time of one attempt.
    pub node_budget: Duration,
    deny: Patterns,
    verifier: Option<VerificationKey>,
    verified: Mutex<HashMap<String, ProvisioningClaims>>,
}

impl Rules {
    /// Reads the key file and checks that everything which is switched on can work.
    ///
    /// # Errors
    /// See [`RulesError`].
    pub fn new(config: &ProvisionerConfig) -> Result<Self, RulesError> {
        let verifier = config.jwt_verify_cert.as_deref().map(VerificationKey::from_path_or_hex).transpose();
        let verifier = verifier.map_err(|error| RulesError::Verifier(error.to_string()))?;
        if config.features.jwt && verifier.is_none() {
            return Err(RulesError::NoVerifier);
        }
        Ok(Self {
            token: config.token.clone(),
            features: config.features,
            node_budget: config.node_budget,
            deny: config.cert_deny_list.clone(),
            verifier,
            verified: Mutex::new(HashMap::new()),
        })
    }

    /// Verifies a provisioning token as a node sent it and compares its secret with ours.
    ///
    /// # Errors
    /// Every fault of the token, and a `cht` that is not the configured token.
    pub fn check_token(&self, token: &str, now: i64) -> Result<ProvisioningClaims, Refusal> {
        let token = token.trim();
        let Some(key) = &self.verifier else {
            let error = "no JWT verification certificate configured, cannot validate JWT";
            return Err(Refusal::new("jwt_no_verifier", error));
        };
        let claims = match self.remembered(token, now) {
            Some(claims) => claims,
            None => {
                let claims = verify_provisioning(token, key, now).map_err(token_refusal)?;
                self.remember(token, &claims);
                claims
            }
        };
        if !self.token.is_empty() && !self.token.matches(claims.cht.expose()) {
            let error = "the token's secret (cht) is not the configured token: it was made for another provisioner";
            return Err(Refusal::new("jwt_cht", error));
        }
        Ok(claims)
    }

    /// Claims of a token whose signature was good before and whose times still are.
    fn remembered(&self, token: &str, now: i64) -> Option<ProvisioningClaims> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = verified.get(token)?;
        let current = claims.exp.is_none_or(|exp| now < exp) && claims.nbf.is_none_or(|nbf| now >= nbf);
        (current && claims.tcs.is_empty()).then(|| claims.clone())
    }

    fn remember(&self, token: &str, claims: &ProvisioningClaims) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED_TOKENS {
            verified.clear();
        }
        verified.insert(token.to_owned(), claims.clone());
    }

    /// Checks a certificate request: form, key, proof of possession, every name.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check_csr(&self, reply: &CsrReply, identity: &str) -> Result<CheckedCsr, Refusal> {
        let policy = CsrPolicy { identity: identity.to_owned(), deny: self.deny.clone(), min_rsa_bits: MIN_RSA_BITS };
        let facts = csr::inspect(&reply.csr).map_err(csr_refusal)?;
        csr::check(&facts, &policy).map_err(csr_refusal)?;
        if !reply.ssldir.is_empty() {
            check_directory(&reply.ssldir)
                .map_err(|why| Refusal::new("ssldir", format!("ssldir {:?} of the node {why}", reply.ssldir)))?;
        }
        Ok(CheckedCsr { facts })
    }
}

/// Whether a directory name can be handed on: absolute, without `..`, printable, of sane length.
///
/// # Errors
/// What is wrong, to follow the name in a sentence.
pub(crate) fn check_directory(path: &str) -> Result<(), &'static str> {
    let bytes = path.as_bytes();
    let drive =
        bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' && matches!(bytes[2], b'/' | b'\\');
    if path.len() > MAX_DIRECTORY {
        return Err("is longer than 500 characters");
    }
    if path.chars().any(char::is_control) {
        return Err("holds control characters");
    }
    if !path.starts_with('/') && !drive {
        return Err("is not an absolute path");
    }
    if path.split(['/', '\\']).any(|part| part == "..") {
        return Err("holds ..");
    }
    Ok(())
}

fn token_refusal(error: TokenError) -> Refusal {
    let reason = match error.reason() {
        "missing" => "jwt_missing",
        "too_large" => "jwt_too_large",
        "malformed" => "jwt_malformed",
        "algorithm" => "jwt_algorithm",
        "key_type" => "jwt_key_type",
        "signature" => "jwt_signature",
        "expired" => "jwt_expired",
        "not_yet_valid" => "jwt_not_yet_valid",
        "purpose" => "jwt_purpose",
        "chain_issuer" => "jwt_chain_issuer",
        "chain_expired" => "jwt_chain_expired",
        _ => "jwt_invalid",
    };
    match error {
        // These two stand alone in the reference.
        TokenError::Missing | TokenError::Purpose { .. } => Refusal::new(reason, error.to_string()),
        error => Refusal::new(reason, format!("could not parse provisioner token: {error}")),
    }
}

fn csr_refusal(error: CsrError) -> Refusal {
    let reason = match error.reason() {
        "missing" => "csr_missing",
        "too_large" => "csr_too_large",
        "not_pem" => "csr_not_pem",
        "label" => "csr_label",
        "second_block" => "csr_second_block",
        "undecodable" => "csr_undecodable",
        "no_common_name" => "csr_no_common_name",
        "several_common_names" => "csr_several_common_names",
        "common_name" => "csr_common_name",
        "denied_name" => "csr_denied_name",
        "foreign_name" => "csr_foreign_name",
        "weak_key" => "csr_weak_key",
        "key_kind" => "csr_key_kind",
        "signature" => "csr_signature",
        "extension" => "csr_extension",
        _ => "csr_invalid",
    };
    Refusal::new(reason, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        for good in ["/etc/choria/ssl", "/tmp/a b", "C:\\choria\\ssl", "/a..b/c"] {
            assert_eq!(check_directory(good), Ok(()), "{good}");
        }
        for bad in ["", "ssl", "../ssl", "/etc/../root", "/etc/ssl\n", "C:ssl", "/x/.."] {
            assert!(check_directory(bad).is_err(), "{bad:?}");
        }
        assert!(check_directory(&format!("/{}", "x".repeat(600))).is_err());
    }
}
