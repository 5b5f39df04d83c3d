//! Why a connection try failed, in words that say what to do next.

use std::error::Error as _;
use std::io;

use rustls::AlertDescription;

use crate::target::Target;

/// How far a connection try came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before any connection: addresses and credentials.
    Prepare,
    /// The TCP connection.
    Dial,
    /// The broker's INFO, which it sends unasked.
    Greeting,
    /// The TLS handshake.
    Tls,
    /// CONNECT and the broker's answer.
    Connect,
}

impl Stage {
    /// The stage in a sentence that begins with what the broker did.
    fn moment(self) -> &'static str {
        match self {
            Self::Prepare | Self::Dial | Self::Greeting => "before it said anything",
            Self::Tls => "during the TLS handshake",
            Self::Connect => "before it accepted us",
        }
    }
}

/// One failed try to connect to one broker, or a failure before any could be tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// No broker address is known.
    #[error("{0}")]
    NoServers(String),
    /// The credentials could not be made, so nothing was sent.
    #[error("{0}")]
    Credentials(String),
    /// No TCP connection.
    #[error("could not connect to {target}: {reason}{}", hinted(.hint))]
    Dial {
        /// Broker.
        target: Target,
        /// The system's words.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The TLS handshake failed, on either side.
    #[error("TLS with {target} failed: {reason}{}", hinted(.hint))]
    Tls {
        /// Broker.
        target: Target,
        /// What TLS says.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// One side wants TLS and the other does not.
    #[error("{target} {reason}")]
    TlsMismatch {
        /// Broker.
        target: Target,
        /// Which side wants what.
        reason: &'static str,
    },
    /// The broker answered CONNECT with an error.
    #[error("{target} refused the connection: {reason}{}", hinted(.hint))]
    Refused {
        /// Broker.
        target: Target,
        /// Text of the broker's `-ERR`.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The connection ended or was silent before the broker accepted it.
    #[error("{target} {reason}")]
    Broken {
        /// Broker.
        target: Target,
        /// When.
        stage: Stage,
        /// What happened.
        reason: String,
    },
}

fn hinted(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!(" ({hint})") }
}

impl ConnectFailure {
    pub(crate) fn dial(target: &Target, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::ConnectionRefused => "is a broker running there and is the port right?",
            io::ErrorKind::TimedOut => "is the address right and does a firewall let it pass?",
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "is the network up?",
            _ if error.raw_os_error().is_none() => "is the host name right and does it resolve?",
            _ => "",
        };
        Self::Dial { target: target.clone(), reason: plain(error), hint }
    }

    /// Sorts an error of an established TCP connection: TLS, or the connection itself.
    pub(crate) fn io(target: &Target, stage: Stage, error: &io::Error) -> Self {
        if let Some((reason, hint)) = tls_reason(error) {
            return Self::Tls { target: target.clone(), reason, hint };
        }
        let reason = format!("closed the connection {}: {}", stage.moment(), plain(error));
        Self::Broken { target: target.clone(), stage, reason }
    }

    /// How far the try came: the stage that failed.
    pub fn stage(&self) -> Stage {
        match self {
            Self::NoServers(_) | Self::Credentials(_) => Stage::Prepare,
            Self::Dial { .. } => Stage::Dial,
            Self::Tls { .. } | Self::TlsMismatch { .. } => Stage::Tls,
            Self::Refused { .. } => Stage::Connect,
            Self::Broken { stage, .. } => *stage,
        }
    }

    pub(crate) fn refused(target: &Target, reason: &str) -> Self {
        Self::Refused { target: target.clone(), reason: reason.to_owned(), hint: refusal_hint(reason) }
    }
}

/// Words for an I/O error without the library's own framing.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::UnexpectedEof => "unexpected end of the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// The TLS part of an I/O error and what to do about it.
pub(crate) fn tls_reason(error: &io::Error) -> Option<(String, &'static str)> {
    use rustls::{CertificateError, Error};
    let tls = error.get_ref()?.downcast_ref::<Error>()?;
    let hint = match tls {
        // A bad signature is a CA of the same name with another key.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the broker's certificate is not signed by the configured CA, check plugin.security.file.ca"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the broker's certificate has expired, or the clock of this machine is wrong"
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the broker's certificate is not valid yet, or the clock of this machine is wrong"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the broker's certificate names other hosts, connect to it by one of its names",
        Error::InvalidCertificate(_) => "the broker's certificate cannot be used",
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "the broker does not know the CA of our certificate, check plugin.security.file.certificate"
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => "our certificate has expired",
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the broker asks for a certificate and we have none"
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError,
        ) => "the broker refused our certificate",
        Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure) => {
            "the broker accepts none of our TLS versions, ciphers or curves"
        }
        Error::InvalidMessage(_) => "the peer does not speak TLS here, is this a NATS port?",
        _ => "",
    };
    let mut text = tls.to_string();
    if let Some(source) = tls.source() {
        text = format!("{text}: {source}");
    }
    Some((text, hint))
}

fn refusal_hint(reason: &str) -> &'static str {
    let reason = reason.to_ascii_lowercase();
    if reason.contains("authorization violation") || reason.contains("authentication") {
        "the broker does not accept our token, certificate or password, its log says why"
    } else if reason.contains("maximum connections") {
        "the broker is full"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_broker_reason_and_hint() {
        let target = Target::parse("b.example.net:4222").unwrap();
        let refused = ConnectFailure::dial(&target, &io::ErrorKind::ConnectionRefused.into());
        let text = refused.to_string();
        assert!(text.starts_with("could not connect to b.example.net:4222: connection refused (is a broker"), "{text}");
        let text = ConnectFailure::refused(&target, "Authorization Violation").to_string();
        assert!(text.contains("refused the connection: Authorization Violation (the broker does not accept"), "{text}");
        let issuer = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let text = ConnectFailure::io(&target, Stage::Tls, &io::Error::other(issuer)).to_string();
        assert!(text.contains("plugin.security.file.ca"), "{text}");
        let name = rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName);
        let text = ConnectFailure::io(&target, Stage::Tls, &io::Error::other(name)).to_string();
        assert!(text.contains("names other hosts"), "{text}");
        let alert = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let text = ConnectFailure::io(&target, Stage::Tls, &io::Error::other(alert)).to_string();
        assert!(text.contains("plugin.security.file.certificate"), "{text}");
        let eof = ConnectFailure::io(&target, Stage::Connect, &io::ErrorKind::UnexpectedEof.into());
        assert!(matches!(eof, ConnectFailure::Broken { .. }));
        assert_eq!((refused.stage(), eof.stage()), (Stage::Dial, Stage::Connect));
        assert!(eof.to_string().contains("closed the connection before it accepted us"), "{eof}");
    }
}
