//! Tokens: whatever the text, reading and verifying end with an answer; text without our signature never verifies.
#![no_main]

use choria_tokens::{Seed, SigningKey, read_provisioning_unverified, verify_provisioning, view};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let key = SigningKey::from_seed(Seed::from_bytes([9; 32])).verification_key();
    let now = 1_795_219_200;
    let _ = read_provisioning_unverified(text);
    let _ = view::view(text, None, now);
    assert!(verify_provisioning(text, &key, now).is_err());
});
