//! Whether a certificate is good for a member of ours: what a server asks before it puts one into force, and what
//! diagnosis asks of any.

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::cert::{self, CertificateError, CertificateFacts};
use crate::trust::{Authorities, authority_id};
use crate::verify::chain_problem;

/// Why a certificate is not good for a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// It has expired.
    #[error("the certificate of {subject} has expired")]
    Expired {
        /// Its subject.
        subject: String,
    },
    /// It does not lead to the CA.
    #[error("the certificate of {subject} is not trusted: {problem}")]
    Untrusted {
        /// Its subject.
        subject: String,
        /// Why.
        problem: &'static str,
    },
}

/// What a certificate is used for in a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// By whoever connects: nodes, people, the provisioner.
    Client,
    /// By a broker.
    Server,
}

/// [`check_chain`] for a TLS client.
///
/// # Errors
/// As [`check_chain`].
pub fn check_client_chain(chain_pem: &str, authorities: &Authorities, now: i64) -> Result<(), ChainError> {
    check_chain(chain_pem, authorities, now, Purpose::Client)
}

/// Checks that the first certificate of `chain_pem` leads to `authorities`, over the ones after it, and may be used in
/// that way. `now` in Unix seconds.
///
/// A clock that is behind is forgiven: a node that is being born often has no time yet.
///
/// # Errors
/// The first check that fails.
pub fn check_chain(chain_pem: &str, authorities: &Authorities, now: i64, purpose: Purpose) -> Result<(), ChainError> {
    let mut chain = cert::blocks(chain_pem)?.into_iter().map(CertificateDer::from);
    let leaf = chain.next().ok_or(CertificateError::NotPem)?;
    let intermediates: Vec<_> = chain.collect();
    let facts = CertificateFacts::from_der(&leaf)?;
    if now > facts.not_after {
        return Err(ChainError::Expired { subject: facts.subject });
    }
    let at = now.max(facts.not_before);
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at).unwrap_or_default()));
    let anchors = authorities.anchors_at(at);
    let key_usage = match purpose {
        Purpose::Client => KeyUsage::client_auth(),
        Purpose::Server => KeyUsage::server_auth(),
    };
    EndEntityCert::try_from(&leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &intermediates, time, key_usage, None, None)
                .map(|_| ())
        })
        .map_err(|error| ChainError::Untrusted { subject: facts.subject, problem: problem(&error, purpose) })
}

/// Which of `authorities` a chain of a TLS client leads to, leaf first: its name in [`Authorities::ids`]. `None`: to none of
/// them, or it is not valid at `now` (Unix seconds). Does the whole verification of a TLS handshake.
pub fn client_authority(chain: &[CertificateDer<'_>], authorities: &Authorities, now: i64) -> Option<String> {
    let (leaf, intermediates) = chain.split_first()?;
    let leaf = EndEntityCert::try_from(leaf).ok()?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now).unwrap_or_default()));
    let (anchors, usage) = (authorities.anchors(), KeyUsage::client_auth());
    let path =
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, intermediates, time, usage, None, None).ok()?;
    Some(authority_id(path.anchor()))
}

fn problem(error: &webpki::Error, purpose: Purpose) -> &'static str {
    match (chain_problem(error), purpose) {
        (("certificate_usage", _), Purpose::Server) => "its extended key usage does not include server authentication",
        ((_, text), _) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{CertificateAuthority, IssueRequest};
    use crate::keys::KeyKind;

    const NOW: i64 = 1_795_219_200;

    fn authority(name: &str) -> (CertificateAuthority, Authorities) {
        let (ca, _) = CertificateAuthority::generate(name, KeyKind::P256, NOW).unwrap();
        let authorities = Authorities::from_pem(ca.certificate_pem()).unwrap();
        (ca, authorities)
    }

    #[test]
    fn the_authority_behind_a_certificate_is_named_by_its_key() {
        // Two authorities of one name, as after a new key was made for the old name.
        let ((one, of_one), (two, of_two)) = (authority("CA"), authority("CA"));
        let both = format!("{}{}", one.certificate_pem(), two.certificate_pem());
        let both = Authorities::from_pem(&both).unwrap();
        assert_eq!((of_one.ids().len(), both.ids().len()), (1, 2));
        assert_ne!(of_one.ids(), of_two.ids());
        for (ca, id) in [(&one, &of_one.ids()[0]), (&two, &of_two.ids()[0])] {
            let issued = ca.issue(&IssueRequest::new("n1.example.net", KeyKind::P256), NOW).unwrap();
            let der = cert::blocks(&issued.certificate.pem).unwrap();
            let chain: Vec<_> = der.into_iter().map(CertificateDer::from).collect();
            assert_eq!(client_authority(&chain, &both, NOW).as_ref(), Some(id));
            let alone = if *id == of_one.ids()[0] { [&of_one, &of_two] } else { [&of_two, &of_one] };
            assert_eq!(client_authority(&chain, alone[0], NOW).as_ref(), Some(id));
            assert_eq!(client_authority(&chain, alone[1], NOW), None);
            assert_eq!(client_authority(&chain, &both, i64::MAX / 2), None, "expired");
        }
        assert_eq!(client_authority(&[], &both, NOW), None);
        assert_eq!(client_authority(&[CertificateDer::from(vec![1, 2, 3])], &both, NOW), None);
    }

    #[test]
    fn only_living_certificates_of_the_ca_pass() {
        let (ca, ours) = authority("ours");
        let (_, others) = authority("others");
        let issued = ca.issue(&IssueRequest::new("n1.example.net", KeyKind::P256), NOW).unwrap();
        let pem = &issued.certificate.pem;
        assert_eq!(check_client_chain(pem, &ours, NOW), Ok(()));
        assert_eq!(check_client_chain(pem, &ours, 0), Ok(()), "a node without a clock");
        assert!(matches!(check_client_chain(pem, &others, NOW), Err(ChainError::Untrusted { .. })));
        assert!(matches!(check_client_chain(pem, &ours, i64::MAX / 2), Err(ChainError::Expired { .. })));
        assert!(matches!(check_client_chain("x", &ours, NOW), Err(ChainError::Certificate(_))));
        assert_eq!(check_chain(pem, &ours, NOW, Purpose::Server), Ok(()));
        assert!(matches!(check_chain(pem, &others, NOW, Purpose::Server), Err(ChainError::Untrusted { .. })));
    }
}
