//! Security: who may say what, and how it is proved.
//!
//! The `file` security provider, signing and verifying of protocol v1 requests, TLS set-up for both ends, X.509 requests
//! and certificates, the built-in certificate authority, key transport while provisioning, and files that matter.
//!
//! This room is the only one that configures rustls and the only one that handles private keys. It must not contain:
//! tokens (`choria-tokens`), wire formats (`choria-protocol`), decisions what an authenticated peer may do
//! (`choria-broker`, `choria-rpc`), sockets, or reads of the clock (`now` is handed in, Unix seconds).
//!
//! | Module | Holds |
//! |---|---|
//! | [`provider`] | [`provider::FileProvider`]: certificate, key and CA files, certname and caller id (spec 01 §10) |
//! | [`sign`] | [`sign::RequestSigner`]: v1 signatures, RSA only |
//! | [`verify`] | [`verify::RequestVerifier`]: v1 request verification (spec 01 §2.2) |
//! | [`trust`] | [`trust::TrustStore`]: CA certificates, loaded, checked and swapped as a whole |
//! | [`patterns`] | allow, privileged and deny lists of names |
//! | [`tls`] | client and server TLS, anonymous client mode, certificates without SAN, cipher and curve names |
//! | [`csr`] | making, inspecting and checking certificate requests |
//! | [`cert`] | facts about certificates |
//! | [`chain`] | whether a certificate is good for a node |
//! | [`ca`] | the built-in certificate authority |
//! | [`ca_store`] | the same, swapped as a whole when its files are replaced |
//! | [`keys`] | private keys and their files |
//! | [`transfer`] | private keys encrypted for one node (spec 04 §6.8) |
//! | [`atomic`] | writing files so that a crash leaves the old or the new content |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod atomic;
pub mod ca;
pub mod ca_store;
pub mod cert;
pub mod chain;
pub mod csr;
pub mod keys;
pub mod patterns;
pub mod provider;
pub mod sign;
pub mod text;
pub mod tls;
pub mod transfer;
pub mod trust;
pub mod verify;
