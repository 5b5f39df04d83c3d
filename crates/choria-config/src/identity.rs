//! Which name a node has when its configuration gives none (spec 03 §2.4).

use crate::check;
use crate::environment::HostNames;

/// Works the name out: the host name if it holds two dots, else the name DNS gives for its first IPv4 address, else
/// facter's, else the bare host name.
pub(crate) fn from_host(hosts: &dyn HostNames) -> Option<String> {
    let host = hosts.host_name().filter(|name| !name.is_empty())?;
    if host.matches('.').count() >= 2 {
        return Some(host);
    }
    let usable = |name: String| {
        let name = name.trim_end_matches('.').to_owned();
        let local = name == "localhost" || name.starts_with("localhost.");
        (name.contains('.') && !local && check::is_name(&name)).then_some(name)
    };
    hosts
        .first_ipv4(&host)
        .and_then(|address| hosts.reverse(address))
        .and_then(usable)
        .or_else(|| hosts.facter("networking.fqdn").and_then(usable))
        .or(Some(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    struct Names {
        host: &'static str,
        reverse: Option<&'static str>,
        facter: Option<&'static str>,
    }

    impl HostNames for Names {
        fn host_name(&self) -> Option<String> {
            Some(self.host.into())
        }
        fn first_ipv4(&self, name: &str) -> Option<Ipv4Addr> {
            assert_eq!(name, self.host);
            self.reverse.map(|_| Ipv4Addr::new(192, 0, 2, 7))
        }
        fn reverse(&self, _: Ipv4Addr) -> Option<String> {
            self.reverse.map(Into::into)
        }
        fn facter(&self, fact: &str) -> Option<String> {
            assert_eq!(fact, "networking.fqdn");
            self.facter.map(Into::into)
        }
    }

    #[test]
    fn order_of_sources() {
        for (host, reverse, facter, expected) in [
            ("a.b.c", Some("x.y.z"), None, "a.b.c"),
            ("a.b", Some("a.example.net."), Some("f.example.net"), "a.example.net"),
            ("a", Some("localhost"), Some("f.example.net"), "f.example.net"),
            ("a", Some("localhost.localdomain"), None, "a"),
            ("a", None, Some("f.example.net"), "f.example.net"),
            ("a", None, None, "a"),
        ] {
            assert_eq!(from_host(&Names { host, reverse, facter }), Some(expected.to_owned()), "{host} {reverse:?}");
        }
        assert_eq!(from_host(&Names { host: "", reverse: None, facter: None }), None);
    }
}
