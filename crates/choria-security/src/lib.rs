//! Security: the file provider, message signing and verification, TLS set-up, X.509 checks, the built-in certificate authority.
