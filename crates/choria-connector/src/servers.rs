//! Where a fleet member finds its brokers: configuration, then SRV records, then the well-known default
//! (spec 03 §2.4, spec 01 §12).

use std::sync::Arc;

use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

use crate::options::ServerResolver;
use crate::srv::{self, Resolver, SrvError};
use crate::target::Target;

/// Record names of brokers in the order to ask, without the domain.
pub const BROKER_SRV: [&str; 2] = ["_mcollective-server._tcp", "_x-puppet-mcollective._tcp"];

/// Record name of provisioning brokers, without the domain.
pub const PROVISIONER_SRV: &str = "_choria-provisioner._tcp";

/// Host that a fleet member tries when nothing else is known. Never used while provisioning (DESIGN §6).
pub const DEFAULT_BROKER: (&str, u16) = ("puppet", 4222);

/// Resolves the brokers of a fleet member before every pass.
pub struct MiddlewareServers {
    /// `plugin.choria.middleware_hosts`, already parsed; if not empty nothing else is asked.
    pub hosts: Vec<Target>,
    /// Try the hosts in random order, as the original's client library does.
    pub shuffle: bool,
    /// SRV domain, if SRV is in use.
    pub srv_domain: Option<String>,
    /// Asks for SRV records.
    pub resolver: Arc<dyn Resolver>,
}

impl std::fmt::Debug for MiddlewareServers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MiddlewareServers")
            .field("hosts", &self.hosts)
            .field("srv_domain", &self.srv_domain)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ServerResolver for MiddlewareServers {
    async fn servers(&self) -> Result<Vec<Target>, String> {
        if !self.hosts.is_empty() {
            let mut hosts = self.hosts.clone();
            if self.shuffle {
                hosts.shuffle(&mut SmallRng::from_os_rng());
            }
            return Ok(hosts);
        }
        if let Some(domain) = &self.srv_domain {
            for name in BROKER_SRV {
                match srv_targets(&*self.resolver, name, domain).await {
                    Ok(targets) if !targets.is_empty() => return Ok(targets),
                    Ok(_) => {}
                    Err(error) => tracing::debug!("{error}"),
                }
            }
        }
        let (host, port) = DEFAULT_BROKER;
        Ok(Target::new(host, port).into_iter().collect())
    }
}

/// Ordered brokers of `<name>.<domain>`; empty if there is no such record.
pub async fn srv_targets(resolver: &dyn Resolver, name: &str, domain: &str) -> Result<Vec<Target>, SrvError> {
    let records = resolver.srv(&format!("{name}.{}", domain.trim_matches('.'))).await?;
    Ok(srv::targets(&srv::order(records, &mut SmallRng::from_os_rng())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srv::SrvRecord;

    struct Fixed(&'static str, Vec<SrvRecord>);

    #[async_trait]
    impl Resolver for Fixed {
        async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, SrvError> {
            Ok(if name == self.0 { self.1.clone() } else { Vec::new() })
        }
    }

    fn servers(hosts: &[&str], domain: Option<&str>, record: &'static str) -> MiddlewareServers {
        let answer = vec![SrvRecord { priority: 1, weight: 1, port: 4223, target: "srv.example.net.".into() }];
        MiddlewareServers {
            hosts: hosts.iter().map(|host| Target::parse(host).unwrap()).collect(),
            shuffle: false,
            srv_domain: domain.map(Into::into),
            resolver: Arc::new(Fixed(record, answer)),
        }
    }

    async fn shown(servers: MiddlewareServers) -> Vec<String> {
        servers.servers().await.unwrap().iter().map(Target::to_string).collect()
    }

    #[tokio::test]
    async fn order_of_sources() {
        let record = "_x-puppet-mcollective._tcp.example.net";
        assert_eq!(shown(servers(&["a:1", "b:2"], Some("example.net"), record)).await, ["a:1", "b:2"]);
        assert_eq!(shown(servers(&[], Some("example.net"), record)).await, ["srv.example.net:4223"]);
        assert_eq!(shown(servers(&[], Some("other.net"), record)).await, ["puppet:4222"]);
        assert_eq!(shown(servers(&[], None, record)).await, ["puppet:4222"]);
    }
}
