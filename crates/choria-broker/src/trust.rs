//! Which authority is behind a client's certificate.
//!
//! TLS has verified the chain, but by the configuration of the moment of the handshake, and it does not say by which CA.
//! While there is one CA and never was another, the answer needs no look at the chain. Otherwise the chain is verified
//! again: whoever began a handshake before a CA was taken away must not be a member after it.

use std::sync::Arc;

use choria_security::chain::client_authority;
use choria_security::trust::Authorities;
use rustls::pki_types::CertificateDer;

/// The authorities that are trusted with the certificates of clients.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientAuthorities {
    authorities: Option<Arc<Authorities>>,
    ids: Vec<String>,
    /// Other ones were trusted since the start.
    had_others: bool,
}

impl ClientAuthorities {
    /// Those of a start; `None`: clients are not asked for certificates.
    pub(crate) fn new(authorities: Option<Arc<Authorities>>) -> Self {
        let ids = authorities.as_ref().map(|authorities| authorities.ids()).unwrap_or_default();
        Self { authorities, ids, had_others: false }
    }

    /// The same as successor of `before`.
    #[must_use]
    pub(crate) fn after(self, before: &Self) -> Self {
        Self { had_others: before.had_others || before.ids != self.ids, ..self }
    }

    /// Their names.
    pub(crate) fn ids(&self) -> &[String] {
        &self.ids
    }

    /// The one behind a chain that TLS has verified, leaf first; `None`: it is not one of these any more.
    pub(crate) fn behind(&self, chain: &[CertificateDer<'_>], now: i64) -> Option<String> {
        match &self.ids[..] {
            [only] if !self.had_others => Some(only.clone()),
            _ => client_authority(chain, self.authorities.as_ref()?, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use choria_security::ca::{CertificateAuthority, IssueRequest};
    use choria_security::keys::KeyKind;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    const NOW: i64 = 1_795_219_200;

    fn authority() -> (CertificateAuthority, Arc<Authorities>) {
        let (ca, _) = CertificateAuthority::generate("CA", KeyKind::P256, NOW).unwrap();
        let authorities = Authorities::from_pem(ca.certificate_pem()).unwrap();
        (ca, Arc::new(authorities))
    }

    fn chain(ca: &CertificateAuthority) -> Vec<CertificateDer<'static>> {
        let issued = ca.issue(&IssueRequest::new("m.mcollective", KeyKind::P256), NOW).unwrap();
        vec![CertificateDer::from_pem_slice(issued.certificate.pem.as_bytes()).unwrap()]
    }

    #[test]
    fn design6_a_handshake_with_an_older_ca_proves_nothing() {
        let ((old, old_set), (new, new_set)) = (authority(), authority());
        let before = ClientAuthorities::new(Some(old_set));
        assert_eq!(before.behind(&chain(&old), NOW).as_ref(), before.ids().first());
        let after = ClientAuthorities::new(Some(new_set)).after(&before);
        assert_eq!(after.behind(&chain(&old), NOW), None);
        assert_eq!(after.behind(&chain(&new), NOW).as_ref(), after.ids().first());
        let none = ClientAuthorities::new(None).after(&after);
        assert_eq!((none.behind(&chain(&new), NOW), none.ids().len()), (None, 0));
    }

    #[test]
    fn the_same_set_again_is_no_other_set() {
        let (ca, set) = authority();
        let before = ClientAuthorities::new(Some(Arc::clone(&set)));
        let after = ClientAuthorities::new(Some(set)).after(&before);
        assert!(!after.had_others);
        assert_eq!(after.behind(&chain(&ca), NOW).as_ref(), before.ids().first());
    }
}
