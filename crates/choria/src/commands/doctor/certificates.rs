//! Keys and certificates: there, readable, fitting each other, valid, trusted, for the right name and purpose.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use choria_config::{Config, Key, keys};
use choria_security::atomic;
use choria_security::cert::{self, CertificateFacts};
use choria_security::chain::{self, ChainError, Purpose};
use choria_security::keys::{KeyError, PrivateKey, PublicKeyKind};
use choria_security::patterns::Patterns;
use choria_security::provider::{FileProvider, SecurityError, Surroundings};
use choria_security::sign::SignerError;
use choria_security::trust::{Authorities, TrustStore};

use super::Context;
use super::finding::Findings;
use crate::text::{distance, utc};

/// Largest certificate file that is read.
const MAX_FILE: u64 = 256 * 1024;

/// What the certificate is needed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Duty {
    /// Connects and signs requests: a client, the provisioner.
    Caller,
    /// Connects only: a node.
    Node,
    /// Is connected to, under this host name.
    Broker(String),
}

/// Checks all three files of the `file` provider. `surroundings` are those that the program's name may come from; one of
/// them must fit the certificate.
pub(super) fn check(
    findings: &mut Findings,
    context: &Context<'_>,
    config: &Config,
    duty: &Duty,
    surroundings: &[Surroundings],
) {
    let mut refused = None;
    let mut provider = |surroundings| match FileProvider::from_config_in(config, surroundings) {
        Ok(provider) => Some(provider),
        Err(error) => {
            refused = Some(error);
            None
        }
    };
    let providers: Vec<FileProvider> = surroundings.iter().filter_map(&mut provider).collect();
    if let (true, Some(error)) = (providers.is_empty(), refused) {
        let advice = match error {
            SecurityError::Provider(_) => "plugin.security.provider = file",
            _ => "set USER, or MCOLLECTIVE_CERTNAME",
        };
        findings.failed("security.provider", keys::SECURITY_PROVIDER.name(), error, advice);
        findings.skipped(&["ca.file", "certificate.file", "key.file"], "the security provider cannot be used");
        return;
    }
    let name = providers.first().map(FileProvider::certname).unwrap_or_default();
    findings.ok("security.provider", keys::SECURITY_PROVIDER.name(), format!("file, acting as {name}"));
    let authorities = authorities(findings, context, config);
    let certificate = certificate(findings, config);
    if let Some((path, text, facts)) = &certificate {
        validity(findings, context, "certificate.validity", path, facts);
        trusted(findings, context, path, text, facts, authorities.as_deref(), duty);
        match duty {
            Duty::Broker(host) => serves(findings, path, facts, host),
            Duty::Caller | Duty::Node => names(findings, config, path, facts, duty, &providers),
        }
    } else {
        let because = "the certificate cannot be read";
        findings.skipped(&["certificate.validity", "certificate.chain", "certificate.names"], because);
    }
    key(findings, config, certificate.as_ref().map(|(path, _, facts)| (path.as_path(), facts)), duty);
}

/// The path in a setting; its absence is told.
fn configured(
    findings: &mut Findings,
    config: &Config,
    setting: &Key<Option<PathBuf>>,
    id: &'static str,
) -> Option<PathBuf> {
    let path = config.get(setting);
    if path.is_none() {
        let advice = format!("{} = FILE; `choria ca issue` makes all three files", setting.name());
        findings.failed(id, setting.name(), "not set", advice);
    }
    path
}

fn authorities(findings: &mut Findings, context: &Context<'_>, config: &Config) -> Option<Arc<Authorities>> {
    let Some(path) = configured(findings, config, &keys::SECURITY_FILE_CA, "ca.file") else {
        findings.skipped(&["ca.validity"], "no CA is configured");
        return None;
    };
    let store = match TrustStore::load(&path) {
        Ok(store) => store,
        Err(error) => {
            let advice = "copy the CA certificate of the fleet there: the file that every other member has";
            findings.failed("ca.file", path.display(), error, advice);
            findings.skipped(&["ca.validity"], "the CA cannot be read");
            return None;
        }
    };
    let authorities = store.current();
    let facts: Vec<CertificateFacts> = authorities
        .certificates()
        .iter()
        .filter_map(|certificate| CertificateFacts::from_der(certificate).ok())
        .collect();
    let subjects: Vec<&str> = facts.iter().map(|facts| facts.subject.as_str()).collect();
    findings.ok("ca.file", path.display(), subjects.join("; "));
    for facts in &facts {
        validity(findings, context, "ca.validity", &path, facts);
    }
    Some(authorities)
}

fn certificate(findings: &mut Findings, config: &Config) -> Option<(PathBuf, String, CertificateFacts)> {
    let path = configured(findings, config, &keys::SECURITY_FILE_CERTIFICATE, "certificate.file")?;
    let read = atomic::read_text(&path, MAX_FILE).map_err(|error| error.to_string());
    let parsed = read.and_then(|text| match cert::first_from_pem(&text) {
        Ok(facts) => Ok((text, facts)),
        Err(error) => Err(error.to_string()),
    });
    match parsed {
        Ok((text, facts)) => {
            findings.ok("certificate.file", path.display(), format!("{}, issued by {}", facts.subject, facts.issuer));
            Some((path, text, facts))
        }
        Err(reason) => {
            let advice =
                "the file must hold the certificate as PEM, and be readable for the user that the program runs as";
            findings.failed("certificate.file", path.display(), reason, advice);
            None
        }
    }
}

/// Whether now lies inside the time that a certificate is for.
fn validity(findings: &mut Findings, context: &Context<'_>, id: &'static str, path: &Path, facts: &CertificateFacts) {
    let CertificateFacts { subject, not_before, not_after, .. } = facts;
    findings.past.push((format!("the certificate {subject} in {}", path.display()), *not_before));
    let end = format!("{} ({})", utc(*not_after), distance(*not_after, context.now));
    let subject = format!("{}, {subject}", path.display());
    if context.now > *not_after {
        findings.failed(
            id,
            subject,
            format!("expired at {end}"),
            "get a new certificate from the authority that issued it",
        );
    } else if context.now < *not_before {
        let begin = format!("{} ({})", utc(*not_before), distance(*not_before, context.now));
        findings.failed(id, subject, format!("not valid before {begin}"), "is the clock of this machine right?");
    } else if context.expires_soon(*not_after) {
        findings.warning(id, subject, format!("expires at {end}"), "renew it in time");
    } else {
        findings.ok(id, subject, format!("valid until {end}"));
    }
}

fn trusted(
    findings: &mut Findings,
    context: &Context<'_>,
    path: &Path,
    text: &str,
    facts: &CertificateFacts,
    authorities: Option<&Authorities>,
    duty: &Duty,
) {
    let Some(authorities) = authorities else {
        findings.skipped(&["certificate.chain"], "the CA cannot be read");
        return;
    };
    let purpose = if matches!(duty, Duty::Broker(_)) { Purpose::Server } else { Purpose::Client };
    // Its time is a check of its own.
    let now = context.now.min(facts.not_after);
    match chain::check_chain(text, authorities, now, purpose) {
        Ok(()) => {
            findings.ok("certificate.chain", path.display(), format!("issued by {}, which is our CA", facts.issuer))
        }
        Err(error) => {
            let advice = match error {
                ChainError::Untrusted { .. } => {
                    "certificate and CA must come from the same authority: check plugin.security.file.ca, or get a \
                     certificate from that CA"
                }
                _ => "get a new certificate",
            };
            findings.failed("certificate.chain", path.display(), error, advice);
        }
    }
}

/// Whether a certificate is for whom we say we are.
fn names(
    findings: &mut Findings,
    config: &Config,
    path: &Path,
    facts: &CertificateFacts,
    duty: &Duty,
    providers: &[FileProvider],
) {
    let id = "certificate.names";
    let shown = facts.names().join(", ");
    let mut refused = None;
    for provider in providers {
        match provider.check_certname() {
            Ok(()) if *duty == Duty::Caller => return allowed(findings, config, path, provider.certname(), facts),
            Ok(()) => return findings.ok(id, path.display(), format!("for {shown}")),
            Err(error) => {
                refused.get_or_insert_with(|| (provider.certname().to_owned(), error));
            }
        }
    }
    let Some((certname, error)) = refused else { return };
    if *duty == Duty::Caller {
        findings.failed(id, path.display(), error, "MCOLLECTIVE_CERTNAME=NAME names another certificate's owner");
    } else {
        let detail = format!("for {shown}, but this node is {certname}: what it signs is not accepted");
        findings.warning(id, path.display(), detail, "get a certificate for the node's identity");
    }
}

/// Whether nodes with the usual list take requests of this name.
fn allowed(findings: &mut Findings, config: &Config, path: &Path, certname: &str, facts: &CertificateFacts) {
    let id = "certificate.names";
    let key = &keys::SECURITY_CERTNAME_WHITELIST;
    let (list, privileged) = (config.get(key), config.get(&keys::SECURITY_PRIVILEGED_USERS));
    match (Patterns::new(&list), Patterns::new(&privileged)) {
        (Err(error), _) => findings.failed(id, key.name(), error, "correct the pattern"),
        (_, Err(error)) => findings.failed(id, keys::SECURITY_PRIVILEGED_USERS.name(), error, "correct the pattern"),
        (Ok(list), Ok(privileged)) if list.is_match(certname) || privileged.is_match(certname) => {
            findings.ok(id, path.display(), format!("for {}, who may send requests", facts.names().join(", ")));
        }
        _ => findings.warning(
            id,
            path.display(),
            format!(
                "{certname} matches no pattern of {}: nodes with this list ignore its requests without a word",
                key.name()
            ),
            format!("use a name such as {certname}.mcollective, or extend the list on every node"),
        ),
    }
}

/// Whether clients that connect to `host` accept the certificate.
fn serves(findings: &mut Findings, path: &Path, facts: &CertificateFacts, host: &str) {
    let id = "certificate.names";
    let alternative = || {
        let addresses = facts.ip_addresses.iter().map(ToString::to_string);
        facts.dns_names.iter().cloned().chain(addresses).collect::<Vec<_>>().join(", ")
    };
    if facts.dns_names.is_empty() && facts.ip_addresses.is_empty() {
        let detail = "it has no subject alternative name; clients do not look at the common name";
        findings.failed(id, path.display(), detail, "get a certificate with the broker's host names (DNS) in it");
    } else if facts.serves(host) {
        findings.ok(id, path.display(), format!("for {}", alternative()));
    } else {
        findings.warning(
            id,
            path.display(),
            format!("for {}, not for {host}, which is what this broker calls itself", alternative()),
            "clients must connect by one of the certificate's names: use those in plugin.choria.middleware_hosts, \
             set plugin.choria.network.public_url, or get another certificate",
        );
    }
}

fn key(findings: &mut Findings, config: &Config, certificate: Option<(&Path, &CertificateFacts)>, duty: &Duty) {
    let Some(path) = configured(findings, config, &keys::SECURITY_FILE_KEY, "key.file") else {
        findings.skipped(&["key.permissions", "key.match", "key.kind"], "no key is configured");
        return;
    };
    let key = match PrivateKey::load(&path) {
        Ok(key) => key,
        Err(error) => {
            let advice = match error {
                KeyError::File(_) => {
                    "put the key there, readable for the user that the program runs as and nobody else"
                }
                _ => "the file must hold the private key as PEM, without a passphrase",
            };
            findings.failed("key.file", path.display(), error, advice);
            findings.skipped(&["key.permissions", "key.match", "key.kind"], "the key cannot be read");
            return;
        }
    };
    findings.ok("key.file", path.display(), key.kind());
    permissions(findings, &path);
    matches_certificate(findings, &path, &key, certificate);
    kind(findings, &path, key.kind(), duty);
}

fn permissions(findings: &mut Findings, path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    let id = "key.permissions";
    let others = match (mode & 0o022, mode & 0o005, mode & 0o050) {
        (0, 0, 0) => return findings.ok(id, path.display(), format!("mode {mode:04o}")),
        (0, 0, _) => {
            let detail = format!("mode {mode:04o}: a group can read this private key");
            let advice = format!("chmod 0600 {}, unless the group is there for just that", path.display());
            return findings.warning(id, path.display(), detail, advice);
        }
        (0, _, _) => "everybody on this machine can read this private key",
        _ => "others on this machine can change this private key",
    };
    let advice = "chmod 0600 it; who could read it may have copied it, so better make a new key and certificate";
    findings.failed(id, path.display(), format!("mode {mode:04o}: {others}"), advice);
}

fn matches_certificate(
    findings: &mut Findings,
    path: &Path,
    key: &PrivateKey,
    certificate: Option<(&Path, &CertificateFacts)>,
) {
    let Some((certificate, facts)) = certificate else {
        findings.skipped(&["key.match"], "the certificate cannot be read");
        return;
    };
    if facts.belongs_to(key) {
        findings.ok("key.match", path.display(), format!("belongs to {}", certificate.display()));
        return;
    }
    let detail = format!("does not belong to the certificate {}", certificate.display());
    let advice =
        "key and certificate are made together: take both from the same place, or have the certificate issued anew";
    findings.failed("key.match", path.display(), detail, advice);
}

/// Protocol v1 requests are signed with RSA keys only (DESIGN section 6).
fn kind(findings: &mut Findings, path: &Path, kind: PublicKeyKind, duty: &Duty) {
    let signs = *duty == Duty::Caller;
    match kind {
        PublicKeyKind::Rsa { bits: 2048..=8192 } => {
            findings.ok(
                "key.kind",
                path.display(),
                if signs { format!("{kind}, can sign requests") } else { kind.to_string() },
            );
        }
        kind if signs => {
            let setting = keys::SECURITY_FILE_KEY.name().to_owned();
            let advice = "`choria ca issue DIR NAME.mcollective` makes an RSA key and its certificate";
            findings.failed("key.kind", path.display(), SignerError::NotRsa { setting, kind }, advice);
        }
        kind => findings.ok("key.kind", path.display(), kind),
    }
}

/// A list of things for a sentence.
pub(super) fn listed(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
