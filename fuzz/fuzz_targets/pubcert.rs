//! The secure layer of a request: certificate chain, signature and caller, all from a stranger.
#![no_main]

use std::sync::{Arc, LazyLock};

use choria_security::ca::CertificateAuthority;
use choria_security::keys::KeyKind;
use choria_security::patterns::{DEFAULT_ALLOWED, DEFAULT_PRIVILEGED, Patterns};
use choria_security::trust::{Authorities, TrustStore};
use choria_security::verify::RequestVerifier;
use libfuzzer_sys::fuzz_target;

const NOW: i64 = 1_795_219_200;

static VERIFIER: LazyLock<RequestVerifier> = LazyLock::new(|| {
    let (ca, _) = CertificateAuthority::generate("ca", KeyKind::P256, NOW).expect("an authority can be made");
    let authorities = Authorities::from_pem(ca.certificate_pem()).expect("its certificate can be read");
    let patterns = |list: [&str; 2]| Patterns::new(list).expect("the default patterns compile");
    let trust = Arc::new(TrustStore::fixed(authorities));
    RequestVerifier::new(trust, patterns(DEFAULT_ALLOWED), patterns(DEFAULT_PRIVILEGED))
});

fuzz_target!(|input: (&[u8], &str, &str)| {
    let (certificate, signature, caller) = input;
    let judge = |pubcert: &str| assert!(VERIFIER.verify_parts("text", signature, pubcert, caller, NOW).is_err());
    if let Ok(text) = std::str::from_utf8(certificate) {
        judge(text);
    }
    judge(&pem::encode(&pem::Pem::new("CERTIFICATE", certificate)));
});
