//! The `configure` input that the original provisioner made for a helper's key.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use choria_security::transfer::{TransferKey, decrypt_der, encrypt_der};
use serde_json::Value;

#[test]
fn the_originals_encrypted_key_is_read_and_made_again() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/provisioner/configure-key.json"));
    let golden: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let data = &golden["configure_data"];
    let (key, peer) = (text(&data["key"]), text(&data["ecdh_public"]));

    let private: [u8; 32] = hex::decode(text(&golden["node_x25519_private"])).unwrap().try_into().unwrap();
    let node = TransferKey::from_bytes(&private).unwrap();
    let shared = node.shared(&peer).unwrap();
    assert_eq!(hex::encode(*shared), text(&golden["shared"]));
    let plain = decrypt_der(&key, &node, &peer).unwrap();
    assert_eq!(hex::encode(&*plain), text(&golden["plaintext_der_hex"]));

    // Both ends derive the same secret, so encrypting at the node's end gives the text the provisioner sent.
    let iv = key.split("AES-256-CBC,").nth(1).unwrap().lines().next().unwrap();
    let iv: [u8; 16] = hex::decode(iv).unwrap().try_into().unwrap();
    assert_eq!(encrypt_der(&plain, &node, &peer, iv).unwrap(), key);
}
