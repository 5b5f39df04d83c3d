//! Choria tokens: the JWTs that say who a machine or a person is (spec 01 §13).
//!
//! This room owns the claims of every purpose, how they are encoded, which algorithms and keys may sign them, the
//! strict validation of provisioning tokens and the key files on disk. It is the only user of a JWT library.
//!
//! It must not contain: certificates and TLS (`choria-security`), the decision what a token's holder may do
//! (`choria-broker`), reading the system clock (`now` is always handed in, in Unix seconds), or logging. No secret of
//! a token (`cht`, `chpwd`, seeds, the token text itself) is ever part of a `Debug`, a `Display` or an error.
//!
//! Trust chains (a leaf signed by a chain issuer, spec 01 §13.4) belong to protocol v2 and are not resolved here:
//! such tokens can be read for viewing and are refused by every `verify_*` function with a reason of their own.
//!
//! | Module | Holds |
//! |---|---|
//! | [`claims`] | claims of provisioning, client and server tokens, in the order they are written |
//! | [`keys`] | [`SigningKey`] and [`VerificationKey`]: RSA or Ed25519, from files or text |
//! | [`keyfile`] | Ed25519 seed and public key files, token files |
//! | [`verify`] | strict validation, unverified reading, [`TokenError`] |
//! | [`issue`] | making provisioning tokens |
//! | [`view`] | what `choria jwt view` shows |
//! | [`secret`] | [`Secret`]: text that does not print itself |
//!
//! ```
//! use choria_tokens::{issue_provisioning, verify_provisioning, ProvisioningRequest, Seed, SigningKey};
//!
//! let key = SigningKey::from_seed(Seed::from_bytes([7; 32]));
//! let request = ProvisioningRequest { urls: "nats://broker.example.net:4222".into(), ..ProvisioningRequest::new("s3cret") };
//! let token = issue_provisioning(&request, &key, 1_795_219_200)?;
//!
//! let claims = verify_provisioning(&token, &key.verification_key(), 1_795_219_201)?;
//! assert!(claims.cht.matches("s3cret"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod claims;
pub mod issue;
mod jwt;
pub mod keyfile;
pub mod keys;
pub mod secret;
pub mod verify;
pub mod view;

pub use claims::{
    ClientClaims, ClientPermissions, ProvisioningClaims, ProvisioningUseError, ServerClaims, ServerPermissions,
};
pub use issue::{DEFAULT_VALIDITY, IssueError, ProvisioningRequest, issue_provisioning, issue_provisioning_with};
pub use keyfile::{KeyFileError, Seed};
pub use keys::{KeyError, SigningKey, VerificationKey};
pub use secret::Secret;
pub use verify::{
    MAX_TOKEN_BYTES, TokenError, peek_purpose, read_client_unverified, read_provisioning_unverified,
    read_server_unverified, verify_client, verify_provisioning, verify_server,
};

/// Purpose of a provisioning token (spec 01 §13.1); also accepted in `sub` by itself.
pub const PURPOSE_PROVISIONING: &str = "choria_provisioning";
/// Purpose of a client token.
pub const PURPOSE_CLIENT: &str = "choria_client_id";
/// Purpose of a server token.
pub const PURPOSE_SERVER: &str = "choria_server";
/// `iss` written when the caller names no other issuer (spec 01 §13.1).
pub const DEFAULT_ISSUER: &str = "Choria Tokens Package";
/// Organization unit written and assumed when a token has no `ou`.
pub const DEFAULT_ORGANIZATION: &str = "choria";
