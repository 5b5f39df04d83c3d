//! The block `tls`.

use std::time::Duration;

use super::Span;
use crate::Located;

/// TLS of a listener (spec 07 §2). Files are named as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// `cert_file`
    pub cert_file: Option<Located<String>>,
    /// `key_file`
    pub key_file: Option<Located<String>>,
    /// `ca_file`
    pub ca_file: Option<Located<String>>,
    /// `verify`: clients must have a certificate of `ca_file`.
    pub verify: Option<Located<bool>>,
    /// `verify_and_map`: as `verify`, and the certificate names the user.
    pub verify_and_map: Option<Located<bool>>,
    /// `insecure`
    pub insecure: Option<Located<bool>>,
    /// `timeout` of the handshake. Zero = the usual one.
    pub timeout: Option<Located<Span>>,
    /// `handshake_first`
    pub handshake_first: Option<Located<HandshakeFirst>>,
    /// `min_version`
    pub min_version: Option<Located<TlsVersion>>,
    /// `cipher_suites` in the names of the reference.
    pub cipher_suites: Vec<Located<String>>,
    /// `curve_preferences` in the names of the reference.
    pub curve_preferences: Vec<Located<String>>,
    /// `pinned_certs`: SHA-256 of public keys of clients, 64 small hexadecimal digits each; empty = any.
    pub pinned_certs: Vec<Located<String>>,
    /// `connection_rate_limit`: handshakes per second.
    pub connection_rate_limit: Option<Located<u64>>,
}

/// Whether TLS begins before INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// `false`: after INFO.
    No,
    /// `true`: at once.
    Yes,
    /// `auto` (50 ms) or a duration: at once when the client begins within this time.
    Within(Duration),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `1.0`
    Tls10,
    /// `1.1`
    Tls11,
    /// `1.2`
    Tls12,
    /// `1.3`
    Tls13,
}
