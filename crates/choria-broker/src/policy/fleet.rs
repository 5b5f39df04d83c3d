//! Fleet members: whoever proved a certificate of our CA, and connections inside this process (spec 02 §5.2 D, §6.4).

use std::net::SocketAddr;

use super::{Account, ConnectFacts, Origin, PolicyGrant, PolicyInputs, claim_key, permissions};
use nats_broker::Permissions;

/// Grants account `choria`.
///
/// Without `client_hosts` everybody may do everything, as on a plain mTLS network. With it an address in
/// the list is a client without limits and any other is a server; `deny_server_connections` then leaves
/// servers with no subject at all. In-process connections are exempt.
///
/// A server connects under its identity, which is its certificate's name: as long as it lives, no holder of the
/// provisioning token gets that name, nor a certificate for it.
pub(super) fn grant(inputs: &PolicyInputs, facts: &ConnectFacts<'_>) -> PolicyGrant {
    let limits = limits(inputs, facts.origin, facts.remote);
    let grant = PolicyGrant::new(Account::Choria, facts.user.map(str::to_owned), limits);
    PolicyGrant { presence: facts.proven_name().map(claim_key), ..grant }
}

/// What a fleet member at `remote` may do.
pub(super) fn limits(inputs: &PolicyInputs, origin: Origin, remote: Option<SocketAddr>) -> Permissions {
    if origin == Origin::InProcess || inputs.client_hosts.is_client(remote) {
        Permissions::unlimited()
    } else if inputs.deny_server_connections {
        permissions::deny_all()
    } else {
        permissions::certificate_server()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inputs};
    use super::super::{ClientHosts, Tls, decide};
    use super::*;

    fn from(address: &str) -> ConnectFacts<'static> {
        ConnectFacts { tls: Tls::Verified, remote: Some(address.parse().unwrap()), ..facts() }
    }

    #[test]
    fn design6_client_hosts_entries_are_compared_with_the_peer() {
        let listed = PolicyInputs { client_hosts: ClientHosts::parse(&["127.0.0.2"]).unwrap(), ..inputs() };
        let strict = PolicyInputs { deny_server_connections: true, ..listed.clone() };
        let cases = [
            (inputs(), "127.0.0.1:1", Permissions::unlimited()),
            (listed.clone(), "127.0.0.2:1", Permissions::unlimited()),
            (listed, "127.0.0.1:1", permissions::certificate_server()),
            (strict.clone(), "127.0.0.2:1", Permissions::unlimited()),
            (strict, "127.0.0.1:1", permissions::deny_all()),
            // Without a list nobody is known to be a server.
            (PolicyInputs { deny_server_connections: true, ..inputs() }, "127.0.0.1:1", Permissions::unlimited()),
        ];
        for (inputs, address, expected) in cases {
            let grant = decide(&inputs, &from(address), 0).unwrap();
            assert_eq!((grant.account, grant.permissions), (Account::Choria, expected), "{address} {inputs:?}");
        }
    }

    #[test]
    fn in_process_connections_are_exempt_from_client_hosts() {
        let inputs = PolicyInputs {
            client_hosts: ClientHosts::parse(&["127.0.0.2"]).unwrap(),
            deny_server_connections: true,
            ..inputs()
        };
        let facts = ConnectFacts { origin: Origin::InProcess, tls: Tls::Clear, remote: None, ..facts() };
        assert_eq!(decide(&inputs, &facts, 0).unwrap().permissions, Permissions::unlimited());
    }
}
