//! Broker addresses as Choria configurations and tokens write them (spec 03 §2.4, spec 01 §12).

use std::fmt;
use std::str::FromStr;

/// One broker to connect to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Host name, IPv4 or IPv6 address, without brackets.
    host: String,
    /// TCP port, never 0.
    port: u16,
}

/// Why a broker entry cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing between two commas.
    #[error("an empty broker entry")]
    Empty,
    /// The port is mandatory.
    #[error("broker entry {0:?} has no port, write it as host:port")]
    NoPort(String),
    /// The port is no number from 1 to 65535.
    #[error("broker entry {0:?} has an invalid port, use a number from 1 to 65535")]
    BadPort(String),
    /// The host part is empty or holds characters that no host has.
    #[error("broker entry {0:?} has no valid host name or address")]
    BadHost(String),
    /// A scheme that is not spoken.
    #[error("broker entry {0:?} has an unsupported scheme, use nats:// or tls://")]
    BadScheme(String),
}

impl Target {
    /// Joins a host and a port. `None` if the host cannot be one or the port is 0.
    pub fn new(host: &str, port: u16) -> Option<Self> {
        (port != 0 && is_host(host)).then(|| Self { host: host.to_owned(), port })
    }

    /// Parses `host:port` or `scheme://host:port`; schemes are `nats` and `tls`. Any path is refused.
    /// Credentials inside the URL are refused too: they end up in logs, the settings for them do not.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        // Whatever stands before an @ may be a password: it must not reach an error text.
        let shown = || text.rsplit_once('@').map_or(text, |(_, rest)| rest).to_owned();
        let address = match text.split_once("://") {
            Some((scheme, rest)) if ["nats", "tls"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                rest.strip_suffix('/').unwrap_or(rest)
            }
            Some(_) => return Err(TargetError::BadScheme(shown())),
            None => text,
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(|| TargetError::BadHost(shown()))?;
                (host, tail.strip_prefix(':').ok_or_else(|| TargetError::NoPort(shown()))?)
            }
            None => address.rsplit_once(':').ok_or_else(|| TargetError::NoPort(shown()))?,
        };
        if port.is_empty() {
            return Err(TargetError::NoPort(shown()));
        }
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|&port| digits && port != 0);
        let port = port.ok_or_else(|| TargetError::BadPort(shown()))?;
        let bracketed = address.starts_with('[');
        if !is_host(host) || (host.contains(':') && !bracketed) {
            return Err(TargetError::BadHost(shown()));
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// Parses a comma separated list such as `chu` of a token; items are trimmed. The first bad entry is the error.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, TargetError> {
        text.split(',').map(Self::parse).collect()
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `nats://host:port`, as status files and `seen-by` headers name a broker.
    pub fn url(&self) -> String {
        format!("nats://{self}")
    }
}

fn is_host(host: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let address = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'%');
    if host.contains(':') { host.bytes().all(address) } else { !host.is_empty() && host.bytes().all(name) }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepted_entries() {
        let cases = [
            ("broker.example.net:4222", "broker.example.net:4222"),
            ("  nats://localhost:25200 ", "localhost:25200"),
            ("tls://10.0.0.1:4222/", "10.0.0.1:4222"),
            ("NATS://a_b-c.example:1", "a_b-c.example:1"),
            ("[::1]:4222", "[::1]:4222"),
            ("nats://[fe80::1%eth0]:65535", "[fe80::1%eth0]:65535"),
        ];
        for (text, shown) in cases {
            assert_eq!(Target::parse(text).unwrap().to_string(), shown, "{text}");
        }
        assert_eq!(Target::parse("[::1]:4222").unwrap().host(), "::1");
        assert_eq!(Target::parse("h:1").unwrap().url(), "nats://h:1");
    }

    #[test]
    fn refused_entries_name_the_entry() {
        use TargetError::{BadHost, BadPort, BadScheme, Empty, NoPort};
        let cases = [
            ("", Empty),
            ("localhost", NoPort("localhost".into())),
            ("localhost:", NoPort("localhost:".into())),
            ("localhost:port", BadPort("localhost:port".into())),
            ("localhost:0", BadPort("localhost:0".into())),
            ("localhost:+1", BadPort("localhost:+1".into())),
            ("localhost:65536", BadPort("localhost:65536".into())),
            (":4222", BadHost(":4222".into())),
            ("a b:4222", BadHost("a b:4222".into())),
            ("::1:4222", BadHost("::1:4222".into())),
            ("[::1]4222", NoPort("[::1]4222".into())),
            ("[::1:4222", BadHost("[::1:4222".into())),
            ("http://a:1", BadScheme("http://a:1".into())),
            ("nats://user:secret@host:1", BadHost("host:1".into())),
        ];
        for (text, error) in cases {
            assert_eq!(Target::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn lists_are_trimmed_and_wholly_good() {
        let list = Target::parse_list("nats://127.0.0.1:25299, nats://localhost:25200").unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[1].host(), "localhost");
        assert_eq!(Target::parse_list("a:1,,b:2"), Err(TargetError::Empty));
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(text in "\\PC{0,40}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.url()).unwrap(), target);
            }
        }
    }
}
