//! Broker host entries: `host:port` or `scheme://host:port` (spec 02 §2, spec 03 §2.4).
//!
//! The port is mandatory and the scheme defaults to `nats`. User information in front of the host is dropped, as the
//! original drops it. A malformed entry is an error that shows its text: the original retries it silently for ever.

use std::fmt;

/// Schemes a broker can be reached by.
const SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];

/// One broker address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostEntry {
    /// `nats`, `tls`, `ws` or `wss`.
    pub scheme: String,
    /// Host name or IP address; an IPv6 address is held without its brackets.
    pub host: String,
    /// TCP port, never 0.
    pub port: u16,
}

/// Why an entry is not a broker address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host entry {entry:?}: {problem}; expected host:port or nats://host:port")]
pub struct HostError {
    /// The entry as it was written.
    pub entry: String,
    /// What is wrong with it.
    pub problem: String,
}

impl HostEntry {
    /// Parses one entry.
    ///
    /// # Errors
    /// A missing or impossible port, an unknown scheme, a host that can be no name or address, or a path.
    pub fn parse(entry: &str) -> Result<Self, HostError> {
        let fail = |problem: String| HostError { entry: entry.to_owned(), problem };
        let text = entry.trim();
        if text.is_empty() {
            return Err(fail("it is empty".into()));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        if !SCHEMES.contains(&scheme) {
            return Err(fail(format!("unknown scheme {scheme:?}, known are {}", SCHEMES.join(", "))));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) =
                    bracketed.split_once(']').ok_or_else(|| fail("the bracket is not closed".into()))?;
                if host.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(fail(format!("{host:?} is not an IPv6 address")));
                }
                (host, after.strip_prefix(':').ok_or_else(|| fail("the port is missing".into()))?)
            }
            None => rest.rsplit_once(':').ok_or_else(|| fail("the port is missing".into()))?,
        };
        if host.contains(':') && !rest.starts_with('[') {
            return Err(fail("an IPv6 address needs brackets, as in [::1]:4222".into()));
        }
        if !(rest.starts_with('[') || is_host_name(host)) {
            return Err(fail(format!("{host:?} is not a host name")));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 && port_digits(rest) => {
                Ok(Self { scheme: scheme.to_owned(), host: host.to_owned(), port })
            }
            _ => Err(fail(format!("{port:?} is not a port between 1 and 65535"))),
        }
    }

    /// Host and port as a connection call wants them; IPv6 addresses get their brackets back.
    #[must_use]
    pub fn host_port(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host_port())
    }
}

/// Checks an address that is told to others: a bare host, or an entry with a port.
pub(crate) fn check_address(text: &str) -> Result<(), HostError> {
    if is_host_name(text) || text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    HostEntry::parse(text).map(|_| ())
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// The port is digits only: `u16::from_str` would also take a leading plus sign.
fn port_digits(rest: &str) -> bool {
    rest.rsplit(':').next().is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Parses a list of entries, each trimmed. Stops at the first bad one.
///
/// # Errors
/// As [`HostEntry::parse`].
pub fn parse_list<S: AsRef<str>>(entries: &[S]) -> Result<Vec<HostEntry>, HostError> {
    entries.iter().map(|entry| HostEntry::parse(entry.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_entries() {
        for (entry, shown) in [
            ("a.example.net:4222", "nats://a.example.net:4222"),
            (" nats://b.example.net:4223 ", "nats://b.example.net:4223"),
            ("tls://b:1", "tls://b:1"),
            ("wss://b:443/", "wss://b:443"),
            ("nats://user:secret@b:4222", "nats://b:4222"),
            ("[::1]:4222", "nats://[::1]:4222"),
            ("192.0.2.1:65535", "nats://192.0.2.1:65535"),
        ] {
            assert_eq!(HostEntry::parse(entry).map(|host| host.to_string()), Ok(shown.to_owned()), "{entry}");
        }
    }

    #[test]
    fn bad_entries_are_shown_in_the_error() {
        for entry in [
            "",
            "puppet",
            "puppet:",
            ":4222",
            "puppet:0",
            "puppet:65536",
            "puppet:+1",
            "puppet:x",
            "http://a:80",
            "::1:4222",
            "[::1]",
            "[::1:4222",
            "[zz]:1",
            "a b:4222",
            "\"b:1\"",
            "nats://a:4222/x",
        ] {
            let error = HostEntry::parse(entry).map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|text| text.contains(&format!("{entry:?}"))), "{entry}: {error:?}");
        }
    }

    #[test]
    fn a_list_stops_at_the_first_bad_entry() {
        let error = parse_list(&["a:1", "b"]);
        assert_eq!(error.map_err(|error| error.entry), Err("b".to_owned()));
    }
}
