//! Checks of what a helper made for a node, and the `configure` request that comes of it (spec 04 §6.8, §6.9).
//!
//! The node of the original writes what it gets, unchecked. So everything that could leave it broken or open
//! is caught here: values that would inject settings, policy names that leave their directory, a certificate
//! for another key or name, half a certificate set, a configuration that leads straight back into provisioning.

use std::collections::BTreeMap;
use std::time::Duration;

use choria_protocol::json;
use choria_security::cert;
use choria_security::keys::PrivateKey;
use choria_security::transfer::{TransferKey, encrypt_key};
use choria_security::trust::Authorities;
use choria_tokens::{ProvisioningClaims, Secret};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::{Map, Value};
use webpki::{EndEntityCert, KeyUsage};

use crate::helper::{CsrReply, HelperAnswer};
use crate::rules::{CheckedCsr, Refusal, check_directory};

/// The setting that decides whether a node provisions again after its restart.
pub(crate) const PROVISION: &str = "plugin.choria.server.provision";
/// All inputs together; what a broker message of 1 MiB carries after two layers of base64 and escapes.
const MAX_INPUTS: usize = 580_000;
/// Policies of one kind.
const MAX_POLICIES: usize = 1000;

/// What an answer is judged against.
#[derive(Debug)]
pub(crate) struct About<'a> {
    pub(crate) identity: &'a str,
    pub(crate) token: &'a Secret,
    pub(crate) claims: Option<&'a ProvisioningClaims>,
    pub(crate) csr: Option<(&'a CsrReply, &'a CheckedCsr)>,
    /// Hex X25519 key of the node; empty when it sent none.
    pub(crate) ecdh_public: &'a str,
    /// Unix seconds.
    pub(crate) now: i64,
}

/// A checked answer.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Inputs of `configure`, all ten keys in wire order.
    pub(crate) data: Map<String, Value>,
    /// The identity that the node will have as a fleet member.
    pub(crate) home: String,
    /// What works but looks odd.
    pub(crate) notes: Vec<String>,
}

/// Checks an answer and makes the inputs of `configure`.
pub(crate) fn plan(answer: HelperAnswer, about: &About<'_>) -> Result<Plan, Refusal> {
    let mut notes = Vec::new();
    if !answer.key.is_empty() && about.ecdh_public.is_empty() {
        let error = "private key received from helper but server did not start Diffie-Hellman exchange";
        return Err(Refusal::new("answer_key", error));
    }
    check_configuration(&answer.configuration, about, &mut notes)?;
    check_policies("action_policies", ".policy", &answer.action_policies)?;
    check_policies("opa_policies", ".rego", &answer.opa_policies)?;

    let ssldir = match about.csr {
        Some((csr, _)) if !csr.ssldir.is_empty() => csr.ssldir.clone(),
        _ => answer.ssldir.clone(),
    };
    if !ssldir.is_empty() {
        check_directory(&ssldir)
            .map_err(|why| Refusal::new("answer_ssldir", format!("ssldir {ssldir:?} of the helper {why}")))?;
    }
    let home = answer.configuration.get("identity").filter(|i| !i.is_empty());
    let home = home.map_or_else(|| about.identity.to_owned(), Clone::clone);
    check_certificate(&answer, &ssldir, &home, about, &mut notes)?;
    let (key, ecdh_public) = seal_key(&answer.key, about)?;

    let config = json::to_string(&answer.configuration).expect("a map of texts can be written as JSON");
    let parts = [&config, &answer.certificate, &answer.ca, &key, &ssldir];
    let policies = answer.action_policies.iter().chain(&answer.opa_policies);
    let size =
        parts.iter().map(|part| part.len()).sum::<usize>() + policies.map(|(k, v)| k.len() + v.len()).sum::<usize>();
    if size > MAX_INPUTS {
        let error =
            format!("the helper's answer has {size} bytes for the node, at most {MAX_INPUTS} fit into one message");
        return Err(Refusal::new("answer_size", error));
    }
    let texts =
        |map: BTreeMap<String, String>| Value::Object(map.into_iter().map(|(k, v)| (k, Value::from(v))).collect());
    let data = [
        ("action_policies", texts(answer.action_policies)),
        ("ca", Value::from(answer.ca)),
        ("certificate", Value::from(answer.certificate)),
        ("config", Value::from(config)),
        ("ecdh_public", Value::from(ecdh_public)),
        ("key", Value::from(key)),
        ("opa_policies", texts(answer.opa_policies)),
        ("server_jwt", Value::from("")),
        ("ssldir", Value::from(ssldir)),
        ("token", Value::from(about.token.expose())),
    ];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Ok(Plan { data, home, notes })
}

fn check_configuration(
    configuration: &BTreeMap<String, String>,
    about: &About<'_>,
    notes: &mut Vec<String>,
) -> Result<(), Refusal> {
    if configuration.is_empty() {
        let error = "configuration failed: empty configuration, the helper returned none";
        return Err(Refusal::new("answer_no_configuration", error));
    }
    for (key, value) in configuration {
        check_key(key).map_err(|error| Refusal::new("answer_configuration_key", format!("the helper's {error}")))?;
        check_value(key, value)
            .map_err(|error| Refusal::new("answer_configuration_value", format!("the helper's {error}")))?;
    }
    let by_default = about.claims.is_some_and(|claims| claims.chpd);
    let setting = configuration.iter().find(|(key, _)| key.eq_ignore_ascii_case(PROVISION)).map(|(_, value)| value);
    match setting.map(|value| value.trim().to_lowercase()).as_deref() {
        None if by_default => {
            let error = format!(
                "the helper's configuration has no {PROVISION} = false, and the node's token provisions by default (chpd): it would come back for ever"
            );
            return Err(Refusal::new("answer_provision_missing", error));
        }
        None | Some("false" | "0" | "no" | "n" | "f" | "off") => {}
        Some(value) => {
            let error =
                format!("the helper set {PROVISION} = {value}, the node would refuse to restart; it must be false");
            return Err(Refusal::new("answer_provision_enabled", error));
        }
    }
    if let Some(identity) = configuration.get("identity").filter(|i| !i.is_empty() && *i != about.identity) {
        if !choria_protocol::identity::is_valid(identity) {
            let error = format!("identity {identity:?} in the helper's configuration is not a valid identity");
            return Err(Refusal::new("answer_identity", error));
        }
        notes.push(format!("the helper renames the node to {identity}"));
    }
    Ok(())
}

/// Whether the name of a setting can stand in a configuration file.
pub(crate) fn check_key(key: &str) -> Result<(), String> {
    let good = key.trim() == key
        && !key.is_empty()
        && !key.starts_with('#')
        && !key.chars().any(|c| c == '=' || c.is_control());
    if good { Ok(()) } else { Err(format!("configuration key {key:?} cannot be written to a configuration file")) }
}

/// Whether the value of a setting stays on its line.
pub(crate) fn check_value(key: &str, value: &str) -> Result<(), String> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!(
            "value of {key} holds a line end or another control character, which would inject settings"
        ));
    }
    Ok(())
}

/// Whether policies have names that a node can take.
pub(crate) fn check_policies(kind: &str, extension: &str, policies: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if policies.len() > MAX_POLICIES {
        let error = format!("the helper returned {} {kind}, at most {MAX_POLICIES} are taken", policies.len());
        return Err(Refusal::new("answer_policy", error));
    }
    for name in policies.keys() {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        let stem = name.strip_suffix(extension).unwrap_or_default();
        if !plain || stem.is_empty() || name.starts_with('.') {
            let error = format!("{kind} of the helper: {name:?} is not a file name such as rpcutil{extension}");
            return Err(Refusal::new("answer_policy", error));
        }
    }
    Ok(())
}

fn check_certificate(
    answer: &HelperAnswer,
    ssldir: &str,
    home: &str,
    about: &About<'_>,
    notes: &mut Vec<String>,
) -> Result<(), Refusal> {
    let incomplete = |what: &str| {
        Refusal::new(
            "answer_certificate_set",
            format!("the helper's certificate set is incomplete: {what}; the node would drop it silently"),
        )
    };
    match (answer.certificate.is_empty(), answer.ca.is_empty()) {
        (true, true) if !answer.key.is_empty() => return Err(incomplete("a key without certificate and ca")),
        (true, true) => return without_certificate(answer, about, notes),
        (true, false) => return Err(incomplete("ca without certificate")),
        (false, true) => return Err(incomplete("certificate without ca")),
        (false, false) if ssldir.is_empty() => return Err(incomplete("there is no ssldir to put it into")),
        // Made a moment ago for this key and this name, by the authority beside it. Verifying it would cost as much as
        // all else of the answer.
        (false, false) if answer.built_in => return Ok(()),
        (false, false) => {}
    }
    let refuse = |error: String| Refusal::new("answer_certificate", format!("certificate of the helper: {error}"));
    let facts = cert::first_from_pem(&answer.certificate).map_err(|error| refuse(error.to_string()))?;
    let names = || facts.common_names.iter().chain(&facts.dns_names);
    if !names().any(|name| name == about.identity || name == home) {
        let found: Vec<&String> = names().collect();
        return Err(refuse(format!("it is for {found:?}, not for {}", about.identity)));
    }
    if !facts.is_valid_at(about.now) {
        return Err(refuse(format!(
            "it is valid from {} to {}, now is {}",
            facts.not_before, facts.not_after, about.now
        )));
    }
    if !answer.key.is_empty() {
        let key = PrivateKey::from_pem(answer.key.expose())
            .map_err(|error| Refusal::new("answer_key", format!("bad key received: {error}")))?;
        if !facts.belongs_to(&key) {
            return Err(refuse("it is not for the key that came with it".to_owned()));
        }
    } else if let Some((_, csr)) = about.csr
        && facts.public_der != csr.facts.public_der
    {
        return Err(refuse("it is not for the key of the node's certificate request".to_owned()));
    }
    check_chain(answer, about.now, notes).map_err(refuse)
}

/// No certificate at all: fine for networks that get theirs elsewhere, worth a word after a CSR was made.
fn without_certificate(answer: &HelperAnswer, about: &About<'_>, notes: &mut Vec<String>) -> Result<(), Refusal> {
    if about.csr.is_none() {
        return Ok(());
    }
    if answer.configuration.get("plugin.security.provider").is_some_and(|provider| provider.trim() == "file") {
        let error = "features.pki is on and the configuration uses the file security provider, but the helper returned no certificate";
        return Err(Refusal::new("answer_no_certificate", error));
    }
    notes.push("features.pki is on but the helper returned no certificate".to_owned());
    Ok(())
}

/// The certificate must lead to the CA that came with it, or the node cannot join its own fleet. Forms that our
/// library does not judge (version 1, old algorithms) are left to the fleet, with a word.
fn check_chain(answer: &HelperAnswer, now: i64, notes: &mut Vec<String>) -> Result<(), String> {
    use webpki::Error as E;
    let authorities = Authorities::from_pem(&answer.ca).map_err(|error| format!("its ca: {error}"))?;
    let anchors = authorities.anchors_at(now);
    let mut blocks = pem::parse_many(&answer.certificate).map_err(|error| error.to_string())?.into_iter();
    let leaf = blocks.next().ok_or("there is no PEM certificate")?;
    let leaf = CertificateDer::from(leaf.into_contents());
    let intermediates: Vec<CertificateDer<'_>> = blocks
        .filter(|block| block.tag() == "CERTIFICATE")
        .take(8)
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
    let verified = EndEntityCert::try_from(&leaf).and_then(|leaf| {
        let usage = KeyUsage::client_auth();
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &intermediates, time, usage, None, None)
            .map(|_| ())
    });
    let why = match verified {
        Ok(()) => return Ok(()),
        Err(E::UnknownIssuer | E::InvalidSignatureForPublicKey) => "it was not signed by the ca that came with it",
        Err(E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension) => {
            "its extended key usage does not include client authentication"
        }
        Err(E::CaUsedAsEndEntity) => "it is a CA certificate",
        Err(E::CertExpired { .. } | E::CertNotValidYet { .. }) => "a certificate of its chain is not valid now",
        Err(error) => {
            notes.push(format!("the helper's certificate could not be judged ({error:?}); brokers may refuse it"));
            return Ok(());
        }
    };
    Err(why.to_owned())
}

/// Encrypts the helper's key for the node. Empty in, empty out.
fn seal_key(key: &Secret, about: &About<'_>) -> Result<(String, String), Refusal> {
    if key.is_empty() {
        return Ok((String::new(), String::new()));
    }
    let refuse = |error: String| Refusal::new("answer_key", error);
    let own = TransferKey::generate().map_err(|error| refuse(error.to_string()))?;
    let sealed = encrypt_key(key.expose(), &own, about.ecdh_public).map_err(|error| refuse(error.to_string()))?;
    Ok((sealed, own.public_hex()))
}

#[cfg(test)]
mod tests;
