//! Certificate requests, as PEM text and as the DER inside it.
#![no_main]

use choria_security::csr::{CsrPolicy, check, inspect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let policy = CsrPolicy::new("n1.example.net");
    let judge = |text: &str| {
        if let Ok(facts) = inspect(text)
            && check(&facts, &policy).is_ok()
        {
            assert_eq!(facts.common_names, ["n1.example.net"]);
            assert!(inspect(&facts.pem).is_ok());
        }
    };
    if let Ok(text) = std::str::from_utf8(bytes) {
        judge(text);
    }
    judge(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", bytes)));
});
