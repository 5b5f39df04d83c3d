//! `plugin.choria.network.client_hosts`: which addresses may act as clients (spec 02 §6.6).

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;

use ipnet::IpNet;

/// The addresses and networks that may act as clients.
///
/// The original never compares an entry with the peer (spec 02, sharp edge 4); here an address in the
/// list is a client and any other is a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHosts(Vec<IpNet>);

/// An entry that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is neither an IP address nor a network such as 192.0.2.0/24 or 2001:db8::/32")]
pub struct BadHost {
    /// The entry as written.
    pub entry: String,
}

impl ClientHosts {
    /// Reads the entries of the list.
    ///
    /// # Errors
    /// The first entry that is neither an address nor a network.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, BadHost> {
        let parse = |entry: &S| {
            let text = entry.as_ref().trim();
            let address = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
            IpNet::from_str(address)
                .or_else(|_| IpAddr::from_str(address).map(IpNet::from))
                .map_err(|_| BadHost { entry: text.to_owned() })
        };
        entries.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the list has no entry, so that every address is a client.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer at `remote` is a client: the list is empty, or it holds the address or a network around it.
    ///
    /// A peer without an address matches the empty list only. IPv4 peers of a dual-stack listener
    /// (`::ffff:a.b.c.d`) are compared as IPv4.
    pub fn is_client(&self, remote: Option<SocketAddr>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(remote) = remote else { return false };
        let address = remote.ip().to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec 02, conformance cases 14 and 15, and the rules of §6.6.
    #[test]
    fn addresses_and_networks_are_really_compared() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&[], "203.0.113.9:1", true),
            (&["192.0.0.0/8"], "192.0.2.1:1232", true),
            (&["192.0.0.0/8"], "193.0.2.1:1232", false),
            (&["127.0.0.2", "127.0.1.0/24"], "127.0.0.2:9", true),
            (&["127.0.0.2", "127.0.1.0/24"], "127.0.1.9:9", true),
            (&["127.0.0.2", "127.0.1.0/24"], "127.0.0.1:9", false),
            (&["2a00:1450::/32"], "[2a00:1450::1]:9", true),
            (&["2a00:1450::/32"], "[2a02:1450::1]:9", false),
            (&["[2a00:1450::1]"], "[2a00:1450::1]:9", true),
            (&["10.0.0.1"], "[::ffff:10.0.0.1]:9", true),
            (&["10.0.0.1"], "[::10.0.0.1]:9", false),
        ];
        for (list, remote, expected) in cases {
            let hosts = ClientHosts::parse(list).unwrap();
            assert_eq!(hosts.is_client(Some(remote.parse().unwrap())), *expected, "{list:?} {remote}");
        }
        assert!("192.0.2.1".parse::<SocketAddr>().is_err(), "an address without a port never gets this far");
    }

    #[test]
    fn a_peer_without_address_is_a_client_only_without_a_list() {
        assert!(ClientHosts::default().is_client(None));
        assert!(!ClientHosts::parse(&["10.0.0.1"]).unwrap().is_client(None));
    }

    #[test]
    fn an_entry_that_is_no_address_is_named() {
        for entry in ["300.0.0.0/99", "host.example.net", "10.0.0.0/33", ""] {
            let error = ClientHosts::parse(&["10.0.0.1", entry]).unwrap_err();
            assert_eq!(error.entry, entry);
        }
    }
}
