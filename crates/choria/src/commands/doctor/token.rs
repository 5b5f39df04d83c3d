//! The provisioning token: there, readable, usable for a node, in its time, signed by whom it should be.

use std::path::Path;

use choria_server::settings::UsableToken;
use choria_tokens::{ProvisioningClaims, TokenError, VerificationKey, keyfile, verify_provisioning};

use super::Context;
use super::certificates::listed;
use super::configuration;
use super::finding::Findings;
use crate::text::{distance, utc};

const ALL: [&str; 4] = ["token.content", "token.validity", "token.signature", "token.permissions"];

/// Checks the token file. `signer` is the configuration key and the key that the signature must be made with, where that
/// is known.
pub(super) fn check(
    findings: &mut Findings,
    context: &Context<'_>,
    path: &Path,
    signer: Option<(&str, &VerificationKey)>,
) -> Option<UsableToken> {
    let text = match keyfile::read_token(path) {
        Ok(text) => text,
        Err(error) => {
            let advice = "put the token there (`choria jwt provisioning FILE KEY` makes one), or name another with \
             --provisioning-jwt";
            findings.failed("token.file", path.display(), error, advice);
            findings.skipped(&ALL, "the token cannot be read");
            return None;
        }
    };
    findings.ok("token.file", path.display(), format!("{} bytes", text.len()));
    configuration::secrets(
        findings,
        path,
        "token.permissions",
        "whoever has the token can pose as an unprovisioned node",
    );
    let token = match UsableToken::parse(&text) {
        Ok(token) => token,
        Err(reason) => {
            let advice = "put an undamaged token there; `choria jwt view FILE` shows what one says";
            findings.failed("token.content", path.display(), format!("a node cannot use it: {reason}"), advice);
            findings.skipped(&["token.validity", "token.signature"], "the token cannot be used");
            return None;
        }
    };
    content(findings, path, &token.claims);
    validity(findings, context, path, &token.claims);
    signature(findings, context, path, &token.text, signer);
    Some(token)
}

fn content(findings: &mut Findings, path: &Path, claims: &ProvisioningClaims) {
    let brokers = match claims.chsrv.trim() {
        "" => format!("brokers {}", listed(claims.broker_urls())),
        domain => format!("brokers from the SRV records of {domain}"),
    };
    let default =
        if claims.chpd { "provisions by default" } else { "provisions only where the configuration asks for it" };
    if claims.chs {
        findings.ok("token.content", path.display(), format!("{brokers}; {default}"));
    } else {
        let detail = format!("{brokers}; {default}; insecure: nodes send their messages without the secure form");
        findings.warning("token.content", path.display(), detail, "make the token without --insecure");
    }
}

fn validity(findings: &mut Findings, context: &Context<'_>, path: &Path, claims: &ProvisioningClaims) {
    for begin in [claims.nbf, claims.iat].into_iter().flatten() {
        findings.past.push((format!("the token {}", path.display()), begin));
    }
    let id = "token.validity";
    let shown = |time: i64| format!("{} ({})", utc(time), distance(time, context.now));
    if let Some(begin) = claims.nbf.filter(|nbf| context.now < *nbf) {
        findings.failed(
            id,
            path.display(),
            format!("not valid before {}", shown(begin)),
            "is the clock of this machine right?",
        );
        return;
    }
    match claims.exp {
        None => findings.warning(id, path.display(), "it never expires", "make tokens with --validity"),
        Some(end) if context.now >= end => {
            let advice =
                "make a new token with `choria jwt provisioning` and replace the old one on every node and image";
            findings.failed(id, path.display(), format!("expired at {}: brokers refuse it", shown(end)), advice);
        }
        Some(end) if context.expires_soon(end) => {
            findings.warning(id, path.display(), format!("expires at {}", shown(end)), "make a new one in time");
        }
        Some(end) => findings.ok(id, path.display(), format!("valid until {}", shown(end))),
    }
}

fn signature(
    findings: &mut Findings,
    context: &Context<'_>,
    path: &Path,
    text: &str,
    signer: Option<(&str, &VerificationKey)>,
) {
    let id = "token.signature";
    let Some((setting, key)) = signer else {
        findings.skipped(&[id], "the signer's key is not known here; --signer FILE names it");
        return;
    };
    match verify_provisioning(text, key, context.now) {
        // Its time is a check of its own, made after the signature.
        Ok(_) | Err(TokenError::Expired { .. } | TokenError::NotYetValid { .. }) => {
            findings.ok(id, path.display(), format!("made by the signer in {setting}"));
        }
        Err(error) => {
            let advice = format!(
                "token and {setting} must come from the same key pair: sign the token with the other key, or name \
                 its public key there"
            );
            findings.failed(id, path.display(), error, advice);
        }
    }
}
