//! Why TLS handshakes fail, sorted into a few causes that can be counted.
//!
//! The network broker tells the cause in words, its own or those of rustls. What they are is held by a test with real
//! handshakes (`tests/tls_failures.rs`).

/// A countable cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// The handshake took longer than `plugin.choria.network.tls_timeout`.
    Timeout,
    /// The peer went away.
    PeerLeft,
    /// What came is not TLS.
    NotTls,
    /// The peer's certificate is not from the CA, is not valid now, or is not for clients.
    PeerCertificate,
    /// The peer refused: mostly our certificate.
    PeerAlert,
    /// No version, cipher suite or curve in common.
    Incompatible,
    /// Something else.
    Other,
}

/// How the words of each cause begin.
const BEGINNINGS: [(&str, TlsFailure); 8] = [
    ("the handshake did not end in time", TlsFailure::Timeout),
    ("the peer left", TlsFailure::PeerLeft),
    ("the connection was closed", TlsFailure::PeerLeft),
    ("received corrupt message", TlsFailure::NotTls),
    ("invalid peer certificate", TlsFailure::PeerCertificate),
    ("received fatal alert", TlsFailure::PeerAlert),
    ("peer is incompatible", TlsFailure::Incompatible),
    ("peer misbehaved", TlsFailure::Incompatible),
];

impl TlsFailure {
    /// Every cause, so that counters exist before the first failure.
    pub(crate) const ALL: [Self; 7] = [
        Self::Timeout,
        Self::PeerLeft,
        Self::NotTls,
        Self::PeerCertificate,
        Self::PeerAlert,
        Self::Incompatible,
        Self::Other,
    ];

    /// The cause behind the words of a refusal.
    pub(crate) fn of(detail: &str) -> Self {
        let found = BEGINNINGS.iter().find(|(beginning, _)| detail.starts_with(beginning));
        found.map_or(Self::Other, |(_, cause)| *cause)
    }

    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::PeerLeft => "peer_left",
            Self::NotTls => "not_tls",
            Self::PeerCertificate => "peer_certificate",
            Self::PeerAlert => "peer_alert",
            Self::Incompatible => "incompatible",
            Self::Other => "other",
        }
    }
}
