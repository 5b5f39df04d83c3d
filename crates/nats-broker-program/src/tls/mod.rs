//! TLS of a listener from files (spec 07 §2).

mod pinned;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nats_broker::TlsStart;
use nats_config::settings::{HandshakeFirst, Tls, TlsVersion};
use nats_config::{Located, Position};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::plan::PlanError;

/// TLS of one listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerTls {
    /// For rustls.
    pub(crate) config: Arc<ServerConfig>,
    /// When it begins.
    pub(crate) start: TlsStart,
    /// Clients must show a certificate.
    pub(crate) verify: bool,
    /// Certificates name users.
    pub(crate) maps_users: bool,
}

/// Says what a `tls` block asks for and does not get.
fn warn(tls: &Tls, warnings: &mut Vec<String>) {
    if let Some(insecure) = tls.insecure.as_ref().filter(|insecure| insecure.value) {
        warnings.push(format!(
            "{}: insecure is about connections to others, which this program does not make",
            insecure.at
        ));
    }
    if let Some(limit) = tls.connection_rate_limit.as_ref().filter(|limit| limit.value > 0) {
        warnings.push(format!(
            "{}: connection_rate_limit has no effect: handshakes take turns by what the processors can do",
            limit.at
        ));
    }
}

/// Reads the files of a `tls` block. `warnings` gets what is asked for and not done.
pub(crate) fn listener(
    tls: &Located<Tls>,
    resolve: &dyn Fn(&Located<String>) -> PathBuf,
    warnings: &mut Vec<String>,
) -> Result<ListenerTls, PlanError> {
    warn(tls, warnings);
    let maps_users = tls.verify_and_map.as_ref().is_some_and(|map| map.value);
    let verify = maps_users || tls.verify.as_ref().is_some_and(|verify| verify.value);
    let certificate = tls.cert_file.as_ref();
    let certificate = certificate.ok_or_else(|| problem(&tls.at, "TLS needs a certificate: cert_file or --tlscert"))?;
    let key = tls.key_file.as_ref();
    let key = key.ok_or_else(|| problem(&tls.at, "TLS needs the key of its certificate: key_file or --tlskey"))?;
    let chain = certificates(certificate, &resolve(certificate))?;
    let key_path = resolve(key);
    let private =
        PrivateKeyDer::from_pem_file(&key_path).map_err(|error| unusable(&key.at, "key", &key_path, &error))?;
    let provider = provider(tls, warnings)?;
    let versions: &[&rustls::SupportedProtocolVersion] = match tls.min_version.as_ref().map(|version| version.value) {
        Some(TlsVersion::Tls13) => &[&rustls::version::TLS13],
        Some(TlsVersion::Tls10 | TlsVersion::Tls11) => {
            warnings.push("TLS 1.2 is the oldest version that is spoken, whatever min_version says".to_owned());
            rustls::ALL_VERSIONS
        }
        _ => rustls::ALL_VERSIONS,
    };
    let refused = |error: &dyn std::fmt::Display| problem(&tls.at, &format!("TLS settings are refused: {error}"));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| refused(&error))?;
    let builder = if verify {
        let ca = tls.ca_file.as_ref().ok_or_else(|| {
            problem(&tls.at, "certificates of clients cannot be verified without a CA: ca_file or --tlscacert")
        })?;
        let roots = Arc::new(roots(ca, &resolve(ca))?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let verifier = verifier.build().map_err(|error| refused(&error))?;
        builder.with_client_cert_verifier(pinned::restrict(verifier, &tls.pinned_certs))
    } else if let Some(pin) = tls.pinned_certs.first() {
        return Err(problem(&pin.at, "pinned_certs says nothing without verify: nobody shows a certificate"));
    } else {
        builder.with_no_client_auth()
    };
    let config = builder
        .with_single_cert(chain, private)
        .map_err(|error| problem(&certificate.at, &format!("certificate and key do not fit: {error}")))?;
    let start = match tls.handshake_first.as_ref().map(|first| first.value) {
        None | Some(HandshakeFirst::No) => TlsStart::AfterInfo,
        Some(HandshakeFirst::Yes) => TlsStart::First,
        Some(HandshakeFirst::Within(time)) => TlsStart::FirstWithin(time),
    };
    Ok(ListenerTls { config: Arc::new(config), start, verify, maps_users })
}

fn problem(at: &Position, text: &str) -> PlanError {
    PlanError::at(at, text)
}

fn unusable(at: &Position, what: &str, path: &Path, error: &dyn std::fmt::Display) -> PlanError {
    problem(at, &format!("cannot use the {what} file {}: {error}", path.display()))
}

fn certificates(setting: &Located<String>, path: &Path) -> Result<Vec<CertificateDer<'static>>, PlanError> {
    let failed = |error: &dyn std::fmt::Display| unusable(&setting.at, "certificate", path, error);
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| failed(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| failed(&error))?;
    if chain.is_empty() {
        return Err(failed(&"it holds no certificate"));
    }
    Ok(chain)
}

/// Whom to trust. An empty set would let nobody in, or everybody, depending on who reads it: it is refused.
fn roots(setting: &Located<String>, path: &Path) -> Result<RootCertStore, PlanError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, path)? {
        roots.add(certificate).map_err(|error| unusable(&setting.at, "CA", path, &error))?;
    }
    Ok(roots)
}

/// The provider with the cipher suites and curves that are named; those that it does not have are warned about.
fn provider(tls: &Tls, warnings: &mut Vec<String>) -> Result<Arc<CryptoProvider>, PlanError> {
    let mut provider = aws_lc_rs::default_provider();
    if !tls.cipher_suites.is_empty() {
        let mut suites = Vec::new();
        for name in &tls.cipher_suites {
            let wanted = name.value.replace("TLS_AES", "TLS13_AES").replace("TLS_CHACHA20", "TLS13_CHACHA20");
            // The reference leaves the hash of these out.
            let found = aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|suite| {
                let known = format!("{:?}", suite.suite());
                known == wanted || known.strip_suffix("_SHA256") == Some(wanted.as_str())
            });
            match found {
                Some(suite) => suites.push(*suite),
                None => warnings.push(format!("{}: cipher suite {} is not spoken here", name.at, name.value)),
            }
        }
        // As in the reference the list is about TLS 1.2; the suites of 1.3 are always there.
        for suite in aws_lc_rs::DEFAULT_CIPHER_SUITES {
            if suite.tls13().is_some() && !suites.contains(suite) {
                suites.push(*suite);
            }
        }
        provider.cipher_suites = suites;
    }
    if !tls.curve_preferences.is_empty() {
        let mut groups = Vec::new();
        for name in &tls.curve_preferences {
            let wanted = match name.value.as_str() {
                "CurveP256" => "secp256r1",
                "CurveP384" => "secp384r1",
                "CurveP521" => "secp521r1",
                other => other,
            };
            let found = aws_lc_rs::ALL_KX_GROUPS.iter().find(|group| format!("{:?}", group.name()) == wanted);
            match found {
                Some(group) => groups.push(*group),
                None => warnings.push(format!("{}: curve {} is not spoken here", name.at, name.value)),
            }
        }
        let Some(last) = tls.curve_preferences.last() else { return Ok(Arc::new(provider)) };
        if groups.is_empty() {
            return Err(problem(&last.at, "none of the curves is spoken here"));
        }
        provider.kx_groups = groups;
    }
    Ok(Arc::new(provider))
}
