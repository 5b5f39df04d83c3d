//! TLS sessions that are taken up again, so that a fleet that comes back does not cost a signature each.
//!
//! The state of a session travels as a ticket, encrypted under keys that only this process has: nothing is kept for it here.
//! Keys are exchanged every six hours and serve for six hours more. A ticket carries the client's certificates as they were
//! verified, so a resumed session gives the authenticator the same chain, which decides anew. What a full handshake would have
//! found out meanwhile is dealt with here: expiry is looked at again ([`is_in_force`]), and new TLS settings, as after a change
//! of authorities or revocation lists, come with new keys that open no older ticket.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ServerConfig};

/// Settings that hand out tickets under keys of their own. Those that have tickets already, or none wanted
/// (`send_tls13_tickets` is 0), stay as they are.
pub(crate) fn with_tickets(config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if config.ticketer.enabled() || config.send_tls13_tickets == 0 {
        return config;
    }
    let Ok(ticketer) = Ticketer::new() else {
        tracing::warn!("no keys for TLS tickets: sessions will not be resumed");
        return config;
    };
    let mut config = ServerConfig::clone(&config);
    config.ticketer = ticketer;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// Whether none of these certificates has expired. One that cannot be read counts as expired.
pub(crate) fn is_in_force(chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    chain.iter().all(|certificate| not_after(certificate).is_some_and(|end| now <= end))
}

/// The end of a certificate's time, in seconds since 1970.
fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 3, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn the_end_of_a_certificate_is_found_in_both_forms() {
        // UTCTime up to 2049, GeneralizedTime from there on.
        assert_eq!(not_after(&certificate(2049)), Some(2_498_169_600));
        assert_eq!(not_after(&certificate(2050)), Some(2_529_705_600));
        let chain = [certificate(2049), certificate(2033)];
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(is_in_force(&chain, at(1_900_000_000)));
        assert!(!is_in_force(&chain, at(2_000_000_000)));
        assert!(is_in_force(&chain[..1], at(2_000_000_000)));
        assert!(is_in_force(&[], at(2_000_000_000)));
    }

    #[test]
    fn what_is_no_certificate_is_not_in_force() {
        let whole = certificate(2050);
        for end in 0..whole.len() {
            assert_eq!(not_after(&whole[..end]), None, "{end}");
        }
        for at in 0..200 {
            for value in [0, 0x80, 0x84, 0xff] {
                let mut bytes = whole.to_vec();
                bytes[at] = value;
                let _ = not_after(&bytes);
            }
        }
    }
}
