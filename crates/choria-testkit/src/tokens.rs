//! Provisioning tokens for tests.

use std::fs;
use std::path::{Path, PathBuf};

use choria_security::ca::IssueRequest;
use choria_security::keys::KeyKind;
use choria_tokens::{ProvisioningRequest, Seed, SigningKey, VerificationKey, issue_provisioning, keyfile};

use crate::{TestCa, unix_now};

/// A signer of provisioning tokens with its files.
#[derive(Debug)]
pub struct TokenSigner {
    key: SigningKey,
    key_file: PathBuf,
    verification_file: PathBuf,
}

impl TokenSigner {
    /// An RS256 signer: a key file and the certificate that `signer_cert` and `jwt_verify_cert` name.
    pub fn rsa(ca: &TestCa) -> Self {
        let files = ca.files("token-signer", &IssueRequest::new("token-signer", KeyKind::Rsa2048));
        let key = SigningKey::from_file(&files.key).expect("the key that was just written can be read");
        Self { key, key_file: files.key, verification_file: files.certificate }
    }

    /// An EdDSA signer: a seed file and a public key file in `directory`.
    pub fn ed25519(directory: impl AsRef<Path>) -> Self {
        let seed = Seed::generate();
        let key_file = directory.as_ref().join("token-signer.seed");
        let verification_file = directory.as_ref().join("token-signer.public");
        keyfile::write_seed(&key_file, &seed, true).expect("a seed file can be written");
        keyfile::write_public(&verification_file, &seed.public(), true).expect("a public key file can be written");
        Self { key: SigningKey::from_seed(seed), key_file, verification_file }
    }

    /// The signing key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The public half.
    pub fn verification_key(&self) -> VerificationKey {
        self.key.verification_key()
    }

    /// File of the private key.
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// File of the certificate or public key.
    pub fn verification_file(&self) -> &Path {
        &self.verification_file
    }

    /// A token that provisions by default, guards the agent with `secret`, and leads to `urls`; valid from now for a day.
    pub fn token(&self, secret: &str, urls: &str) -> String {
        self.issue(&Self::request(secret, urls))
    }

    /// The request behind [`TokenSigner::token`], for tests that change something in it.
    pub fn request(secret: &str, urls: &str) -> ProvisioningRequest {
        ProvisioningRequest {
            urls: urls.to_owned(),
            provision_default: true,
            validity: Some(std::time::Duration::from_secs(24 * 3600)),
            ..ProvisioningRequest::new(secret)
        }
    }

    /// Issues any request now.
    pub fn issue(&self, request: &ProvisioningRequest) -> String {
        self.issue_at(request, unix_now())
    }

    /// Issues any request at a chosen time, for expired tokens and those not valid yet.
    pub fn issue_at(&self, request: &ProvisioningRequest, now: i64) -> String {
        issue_provisioning(request, &self.key, now).expect("the test signer can issue what tests ask for")
    }

    /// Issues and writes a token file.
    pub fn write(&self, path: impl AsRef<Path>, request: &ProvisioningRequest) -> PathBuf {
        let path = path.as_ref().to_owned();
        fs::write(&path, self.issue(request)).expect("a token file can be written");
        path
    }
}
