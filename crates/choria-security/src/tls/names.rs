//! Cipher suites and curves by the names Choria configurations use (spec 01 §10.5).
//!
//! Names of suites and curves that Go knows and our TLS library does not have (CBC suites, P-521) are left out with a
//! warning as long as something else remains; names nobody knows are an error, where the original drops them silently.
//! As in the original, a suite list limits TLS 1.2 only and the TLS 1.3 suites are always on.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{cipher_suite as suite, kx_group as group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{ProtocolVersion, SupportedCipherSuite};

use super::default_provider;
use crate::text::shown;

/// A name in a suite or curve list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nobody knows it.
    #[error("{setting}: {name} is not a known {what}")]
    Unknown {
        /// The configuration key.
        setting: &'static str,
        /// The name.
        name: String,
        /// `cipher suite` or `curve`.
        what: &'static str,
    },
    /// Nothing that we have is left.
    #[error("{setting}: none of the listed {what}s is available here")]
    NoneLeft {
        /// The configuration key.
        setting: &'static str,
        /// `cipher suite` or `curve`.
        what: &'static str,
    },
}

const SUITES: &str = "plugin.security.cipher_suites";
const CURVES: &str = "plugin.security.ecc_curves";

/// The provider limited to the given suites and curves.
pub(super) fn provider(suites: &[String], curves: &[String]) -> Result<Arc<CryptoProvider>, NameError> {
    let mut provider = default_provider();
    if !suites.is_empty() {
        let chosen = choose(suites, SUITES, "cipher suite", find_suite)?;
        provider
            .cipher_suites
            .retain(|candidate| candidate.version().version == ProtocolVersion::TLSv1_3 || chosen.contains(candidate));
    }
    if !curves.is_empty() {
        provider.kx_groups = choose(curves, CURVES, "curve", find_curve)?;
    }
    Ok(Arc::new(provider))
}

/// What a name means.
enum Known<T> {
    /// We have it.
    Available(T),
    /// Go has it, we do not.
    Unavailable,
}

fn choose<T>(
    names: &[String],
    setting: &'static str,
    what: &'static str,
    find: fn(&str) -> Option<Known<T>>,
) -> Result<Vec<T>, NameError> {
    let mut chosen = Vec::new();
    for name in names {
        match find(name.trim()) {
            Some(Known::Available(found)) => chosen.push(found),
            Some(Known::Unavailable) => {
                tracing::warn!(setting, name = name.as_str(), "this {what} is not available here and is left out");
            }
            None => return Err(NameError::Unknown { setting, name: shown(name), what }),
        }
    }
    if chosen.is_empty() { Err(NameError::NoneLeft { setting, what }) } else { Ok(chosen) }
}

fn find_suite(name: &str) -> Option<Known<SupportedCipherSuite>> {
    Some(Known::Available(match name {
        "TLS_AES_128_GCM_SHA256" => suite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => suite::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => suite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"
        | "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"
        | "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_RC4_128_SHA"
        | "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA"
        | "TLS_RSA_WITH_RC4_128_SHA"
        | "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
        | "TLS_RSA_WITH_AES_128_CBC_SHA"
        | "TLS_RSA_WITH_AES_256_CBC_SHA"
        | "TLS_RSA_WITH_AES_128_CBC_SHA256"
        | "TLS_RSA_WITH_AES_128_GCM_SHA256"
        | "TLS_RSA_WITH_AES_256_GCM_SHA384" => return Some(Known::Unavailable),
        _ => return None,
    }))
}

fn find_curve(name: &str) -> Option<Known<&'static dyn SupportedKxGroup>> {
    Some(Known::Available(match name {
        "X25519" => group::X25519,
        "CurveP256" => group::SECP256R1,
        "CurveP384" => group::SECP384R1,
        "X25519MLKEM768" => group::X25519MLKEM768,
        "CurveP521" => return Some(Known::Unavailable),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_suite_list_limits_tls12_and_keeps_tls13() {
        let provider = provider(&list(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]), &[]).unwrap();
        let tls12: Vec<_> =
            provider.cipher_suites.iter().filter(|suite| suite.version().version == ProtocolVersion::TLSv1_2).collect();
        assert_eq!(tls12, [&suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
        assert_eq!(provider.cipher_suites.len(), 4);
    }

    #[test]
    fn curves_keep_the_configured_order() {
        let provider = provider(&[], &list(&["CurveP384", "X25519", "CurveP521"])).unwrap();
        let names: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(names, [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]);
    }

    #[test]
    fn unknown_names_are_refused_and_so_is_an_empty_choice() {
        assert!(matches!(provider(&list(&["TLS_FANCY"]), &[]), Err(NameError::Unknown { .. })));
        assert!(matches!(provider(&[], &list(&["P256"])), Err(NameError::Unknown { .. })));
        assert!(matches!(provider(&[], &list(&["CurveP521"])), Err(NameError::NoneLeft { .. })));
        assert!(matches!(provider(&list(&["TLS_RSA_WITH_AES_128_CBC_SHA"]), &[]), Err(NameError::NoneLeft { .. })));
    }
}
