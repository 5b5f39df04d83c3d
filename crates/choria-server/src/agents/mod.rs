//! The agents that every server has (spec 03 §10). `discovery` is no RPC agent: the host answers it by itself.

mod choria_util;
mod rpcutil;

use choria_rpc::Metadata;

pub use choria_util::ChoriaUtil;
pub use rpcutil::RpcUtil;

/// Description of a built-in agent.
fn built_in(name: &str, timeout: u64, url: &str, description: &str, version: &str) -> Metadata {
    Metadata {
        license: "Apache-2.0".to_owned(),
        author: crate::AUTHOR.to_owned(),
        timeout,
        name: name.to_owned(),
        version: version.to_owned(),
        url: url.to_owned(),
        description: description.to_owned(),
        provider: None,
        service: false,
    }
}

/// Description of the agent `discovery`.
pub(crate) fn discovery(version: &str) -> Metadata {
    built_in(choria_protocol::rpc::DISCOVERY_AGENT, 2, crate::PROJECT_URL, "Discovery Agent", version)
}
