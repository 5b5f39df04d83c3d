//! Private keys on their way from the provisioner to one node (spec 03 §7.3, 04 §6.8).
//!
//! Both ends make a fresh X25519 pair; the raw shared secret is the password of a traditional encrypted PEM
//! (`DEK-Info: AES-256-CBC`), whose key is derived with MD5 in one round and the first 8 bytes of the IV as salt. This
//! is the original's format; it protects against reading, not against changing, so the receiver parses what comes out.

use std::fmt;

use aws_lc_rs::agreement::{self, PrivateKey as AgreementKey, UnparsedPublicKey, X25519};
use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use zeroize::Zeroizing;

use crate::keys::{KeyError, PrivateKey, encode_pem, private_key_label};

/// Longest encrypted text that is looked at (the DDL says 10240).
const MAX_ENCRYPTED: usize = 64 * 1024;

/// Why a key could not be transferred. The texts are those a Choria server puts into its reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The node has no key pair because nobody called `jwt`.
    #[error("private key not set")]
    NoPrivateKey,
    /// The peer's public key is no hex.
    #[error("encoding/hex: {0}")]
    Hex(String),
    /// The peer's public key has not 32 bytes.
    #[error("crypto/ecdh: invalid public key")]
    PublicKey,
    /// The peer's public key leads to an all zero secret.
    #[error("crypto/ecdh: bad X25519 remote ECDH input: low order point")]
    LowOrderPoint,
    /// The text is not PEM.
    #[error("bad key received")]
    NotPem,
    /// The PEM block is not encrypted in the expected way.
    #[error("key is not encrypted")]
    NotEncrypted,
    /// The encryption headers are damaged.
    #[error("x509: malformed encryption header: {0}")]
    Header(&'static str),
    /// The padding is wrong, most likely the wrong peer key.
    #[error("x509: decryption password incorrect")]
    Password,
    /// What came out is no private key.
    #[error("the decrypted text is not a private key")]
    NotKey,
    /// The cryptographic library failed.
    #[error("encryption failed")]
    Failed,
}

/// One end's X25519 key for one transfer.
pub struct TransferKey {
    key: AgreementKey,
    public: [u8; 32],
}

impl TransferKey {
    /// A fresh pair.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate() -> Result<Self, TransferError> {
        Self::new(AgreementKey::generate(&X25519).map_err(|_| TransferError::Failed)?)
    }

    /// A pair from its 32 private bytes.
    ///
    /// # Errors
    /// When the library refuses them.
    pub fn from_bytes(private: &[u8; 32]) -> Result<Self, TransferError> {
        Self::new(AgreementKey::from_private_key(&X25519, private).map_err(|_| TransferError::Failed)?)
    }

    fn new(key: AgreementKey) -> Result<Self, TransferError> {
        let computed = key.compute_public_key().map_err(|_| TransferError::Failed)?;
        let public = computed.as_ref().try_into().map_err(|_| TransferError::Failed)?;
        Ok(Self { key, public })
    }

    /// The public half, 64 lower case hex characters: what travels as `ecdh_public`.
    pub fn public_hex(&self) -> String {
        hex::encode(self.public)
    }

    /// The private bytes, for keeping a pair across a restart of the process.
    ///
    /// # Errors
    /// When the library refuses to export them.
    pub fn private_bytes(&self) -> Result<Zeroizing<[u8; 32]>, TransferError> {
        let exported: Curve25519SeedBin<'_> = self.key.as_be_bytes().map_err(|_| TransferError::Failed)?;
        let bytes = exported.as_ref().try_into().map_err(|_| TransferError::Failed)?;
        Ok(Zeroizing::new(bytes))
    }

    /// The shared secret with a peer whose public key is given in hex, upper or lower case.
    ///
    /// # Errors
    /// When the peer's key is unusable.
    pub fn shared(&self, peer_hex: &str) -> Result<Zeroizing<[u8; 32]>, TransferError> {
        let peer = decode_hex(peer_hex)?;
        if peer.len() != 32 {
            return Err(TransferError::PublicKey);
        }
        let peer = UnparsedPublicKey::new(&X25519, peer);
        agreement::agree(&self.key, peer, TransferError::LowOrderPoint, |secret| {
            secret.try_into().map(Zeroizing::new).map_err(|_| TransferError::Failed)
        })
    }
}

impl fmt::Debug for TransferKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferKey").field("public", &self.public_hex()).finish_non_exhaustive()
    }
}

/// Encrypts the first private key block of `key_pem` for the node with public key `peer_hex`. The label is always
/// `RSA PRIVATE KEY`, which every receiver expects.
///
/// # Errors
/// When the text is not PEM or the peer's key is unusable.
pub fn encrypt_key(key_pem: &str, own: &TransferKey, peer_hex: &str) -> Result<String, TransferError> {
    let mut iv = [0; 16];
    rand::fill(&mut iv).map_err(|_| TransferError::Failed)?;
    encrypt_key_with(key_pem, own, peer_hex, iv)
}

/// [`encrypt_key`] with the IV handed in.
///
/// # Errors
/// As [`encrypt_key`].
pub fn encrypt_key_with(
    key_pem: &str,
    own: &TransferKey,
    peer_hex: &str,
    iv: [u8; 16],
) -> Result<String, TransferError> {
    let block = pem::parse(key_pem).map_err(|_| TransferError::NotPem)?;
    encrypt_der(block.contents(), own, peer_hex, iv)
}

/// Encrypts raw DER; see [`encrypt_key`].
///
/// # Errors
/// When the peer's key is unusable.
pub fn encrypt_der(der: &[u8], own: &TransferKey, peer_hex: &str, iv: [u8; 16]) -> Result<String, TransferError> {
    let secret = own.shared(peer_hex)?;
    let key = derive(&secret, &iv)?;
    let mut body = der.to_vec();
    PaddedBlockEncryptingKey::cbc_pkcs7(key)
        .and_then(|key| key.less_safe_encrypt(&mut body, EncryptionContext::Iv128(FixedLength::from(iv))))
        .map_err(|_| TransferError::Failed)?;
    let mut text = format!(
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,{}\n\n",
        hex::encode(iv)
    );
    let body = STANDARD.encode(body);
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END RSA PRIVATE KEY-----\n");
    Ok(text)
}

/// Decrypts what [`encrypt_key`] made and returns the private key inside, in the form its file should have.
///
/// # Errors
/// When anything does not fit; a wrong peer key that happens to leave good padding (1 in 256) is noticed because the
/// result is no key.
pub fn decrypt_key(text: &str, own: &TransferKey, peer_hex: &str) -> Result<PrivateKey, TransferError> {
    let der = decrypt_der(text, own, peer_hex)?;
    let pem = Zeroizing::new(encode_pem(private_key_label(&der), &der));
    PrivateKey::from_pem(&pem).map_err(|_: KeyError| TransferError::NotKey)
}

/// Decrypts to the bytes inside, whatever they are.
///
/// # Errors
/// As [`decrypt_key`], the content is not looked at.
pub fn decrypt_der(text: &str, own: &TransferKey, peer_hex: &str) -> Result<Zeroizing<Vec<u8>>, TransferError> {
    if text.len() > MAX_ENCRYPTED {
        return Err(TransferError::NotPem);
    }
    // The original agrees on the secret before it looks at the text, and so decides which error is seen.
    let secret = own.shared(peer_hex)?;
    let block = pem::parse(text).map_err(|_| TransferError::NotPem)?;
    let Some(info) = block.headers().get("DEK-Info") else { return Err(TransferError::NotEncrypted) };
    let (mode, iv) = info.split_once(',').ok_or(TransferError::Header("DEK-Info has no IV"))?;
    if mode != "AES-256-CBC" {
        return Err(TransferError::Header("only AES-256-CBC is accepted"));
    }
    let mut bytes = [0; 16];
    hex::decode_to_slice(iv.trim(), &mut bytes).map_err(|_| TransferError::Header("the IV is not 16 bytes of hex"))?;

    let mut body = Zeroizing::new(block.contents().to_vec());
    if body.is_empty() || body.len() % 16 != 0 {
        return Err(TransferError::Password);
    }
    let context = DecryptionContext::Iv128(FixedLength::from(bytes));
    let length = PaddedBlockDecryptingKey::cbc_pkcs7(derive(&secret, &bytes)?)
        .and_then(|key| key.decrypt(&mut body, context).map(|plain| plain.len()))
        .map_err(|_| TransferError::Password)?;
    body.truncate(length);
    Ok(body)
}

/// The AES key: MD5(password | salt) | MD5(first | password | salt), salt = first 8 bytes of the IV.
fn derive(secret: &[u8; 32], iv: &[u8; 16]) -> Result<UnboundCipherKey, TransferError> {
    UnboundCipherKey::new(&AES_256, derive_bytes(secret, iv).as_slice()).map_err(|_| TransferError::Failed)
}

fn derive_bytes(secret: &[u8; 32], iv: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let salt = &iv[..8];
    let first = Md5::new().chain_update(secret).chain_update(salt).finalize();
    let second = Md5::new().chain_update(first).chain_update(secret).chain_update(salt).finalize();
    let mut key = Zeroizing::new([0; 32]);
    key[..16].copy_from_slice(&first);
    key[16..].copy_from_slice(&second);
    key
}

/// Hex with the original's error texts.
fn decode_hex(text: &str) -> Result<Vec<u8>, TransferError> {
    if let Some(wrong) = text.bytes().find(|byte| !byte.is_ascii_hexdigit()) {
        let shown = char::from(wrong);
        let quoted = if shown.is_ascii_graphic() || shown == ' ' { format!(" '{shown}'") } else { String::new() };
        return Err(TransferError::Hex(format!("invalid byte: U+{wrong:04X}{quoted}")));
    }
    hex::decode(text).map_err(|_| TransferError::Hex("odd length hex string".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of spec 03 §16 and spec 04 §15.
    struct Vector {
        node: [u8; 32],
        node_public: &'static str,
        provisioner: [u8; 32],
        provisioner_public: &'static str,
        shared: &'static str,
        iv: &'static str,
        aes: &'static str,
        plain: &'static str,
        cipher: &'static str,
    }

    fn counting(start: u8) -> [u8; 32] {
        std::array::from_fn(|index| start + u8::try_from(index).unwrap())
    }

    fn vectors() -> [Vector; 2] {
        [
            Vector {
                node: [0x11; 32],
                node_public: "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13",
                provisioner: [0x22; 32],
                provisioner_public: "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20",
                shared: "9e004098efc091d4ec2663b4e9f5cfd4d7064571690b4bea97ab146ab9f35056",
                iv: "000102030405060708090a0b0c0d0e0f",
                aes: "5453eb8be45956368d0116ec09a1966c01c16c5d5545f55b9b20aaf9086ccfd6",
                plain: "not a real DER body",
                cipher: "AdoWlgxnI0ylccVdAXR/KYZ7mKxWYxxtXtwjWpd20dk=",
            },
            Vector {
                node: counting(1),
                node_public: "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c",
                provisioner: counting(0x41),
                provisioner_public: "64b101b1d0be5a8704bd078f9895001fc03e8e9f9522f188dd128d9846d48466",
                shared: "26c2c17fdb82161cb21ad16e721315355b64d1763119b10bfc962530dc7cc163",
                iv: "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
                aes: "17aa53f414629cfe9878d0159138f8b09485cf65ed34402b1248a2e6d73a83a8",
                plain: "provisioner interop vector 1",
                cipher: "6ZQwDndDevvL6Yowuo+lyJWZkDpLd4ep8aAZdAsxvpM=",
            },
        ]
    }

    #[test]
    fn known_vectors_hold_in_both_directions() {
        for vector in vectors() {
            let node = TransferKey::from_bytes(&vector.node).unwrap();
            let provisioner = TransferKey::from_bytes(&vector.provisioner).unwrap();
            assert_eq!(node.public_hex(), vector.node_public);
            assert_eq!(provisioner.public_hex(), vector.provisioner_public);
            assert_eq!(hex::encode(*node.shared(vector.provisioner_public).unwrap()), vector.shared);
            assert_eq!(hex::encode(*provisioner.shared(vector.node_public).unwrap()), vector.shared);
            let iv: [u8; 16] = hex::decode(vector.iv).unwrap().try_into().unwrap();
            let shared = provisioner.shared(vector.node_public).unwrap();
            assert_eq!(hex::encode(*derive_bytes(&shared, &iv)), vector.aes);
            let text = encrypt_der(vector.plain.as_bytes(), &provisioner, vector.node_public, iv).unwrap();
            assert_eq!(
                text,
                format!(
                    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,{}\n\n{}\n-----END RSA PRIVATE KEY-----\n",
                    vector.iv, vector.cipher
                )
            );
            let plain = decrypt_der(&text, &node, &vector.provisioner_public.to_uppercase()).unwrap();
            assert_eq!(plain.as_slice(), vector.plain.as_bytes());
        }
    }

    #[test]
    fn unusable_input_gets_the_originals_texts() {
        let node = TransferKey::from_bytes(&[0x11; 32]).unwrap();
        let peer = TransferKey::from_bytes(&[0x22; 32]).unwrap().public_hex();
        let refused = |text: &str, peer: &str| decrypt_der(text, &node, peer).unwrap_err().to_string();
        assert_eq!(refused("x", &"z".repeat(64)), "encoding/hex: invalid byte: U+007A 'z'");
        assert_eq!(refused("x", "abc"), "encoding/hex: odd length hex string");
        assert_eq!(refused("x", "abcd"), "crypto/ecdh: invalid public key");
        assert_eq!(refused("x", ""), "crypto/ecdh: invalid public key");
        assert_eq!(refused("x", &"0".repeat(64)), "crypto/ecdh: bad X25519 remote ECDH input: low order point");
        assert_eq!(refused("not pem", &peer), "bad key received");
        let plain = "-----BEGIN RSA PRIVATE KEY-----\nMAMCAQU=\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(refused(plain, &peer), "key is not encrypted");
    }

    #[test]
    fn a_wrong_peer_key_never_yields_a_private_key() {
        let provisioner = TransferKey::from_bytes(&[0x22; 32]).unwrap();
        let other = TransferKey::from_bytes(&[0x23; 32]).unwrap();
        let node = TransferKey::from_bytes(&[0x11; 32]).unwrap();
        let key = PrivateKey::generate(crate::keys::KeyKind::P256).unwrap();
        for iv in 0..=255 {
            let text = encrypt_key_with(&key.to_pem(), &provisioner, &node.public_hex(), [iv; 16]).unwrap();
            let error = decrypt_key(&text, &node, &other.public_hex()).unwrap_err();
            assert!(matches!(error, TransferError::Password | TransferError::NotKey), "{error}");
        }
    }

    #[test]
    fn every_kind_of_key_survives_the_journey() {
        let provisioner = TransferKey::generate().unwrap();
        let node = TransferKey::generate().unwrap();
        for kind in [crate::keys::KeyKind::P256, crate::keys::KeyKind::Ed25519, crate::keys::KeyKind::Rsa2048] {
            let key = PrivateKey::generate(kind).unwrap();
            let text = encrypt_key(&key.to_pem(), &provisioner, &node.public_hex()).unwrap();
            let arrived = decrypt_key(&text, &node, &provisioner.public_hex()).unwrap();
            assert_eq!(*arrived.to_pem(), *key.to_pem());
        }
        let saved = TransferKey::from_bytes(&node.private_bytes().unwrap()).unwrap();
        assert_eq!(saved.public_hex(), node.public_hex());
    }
}
