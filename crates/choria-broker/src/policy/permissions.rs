//! The permission lists of spec 02 §6 that need no v2 token.

use nats_broker::{Permissions, SubjectRules};

/// The agents that an unprovisioned node serves, the only broadcast subjects it may hear.
const PROVISIONING_AGENTS: [&str; 4] = ["discovery", "rpcutil", "choria_util", "choria_provision"];

/// Subjects that a fleet server without a token may not publish (spec 02 §6.4).
const SERVER_PUBLISH_DENY: [&str; 4] =
    ["*.broadcast.agent.>", "*.broadcast.service.>", "*.node.>", "choria.federation.*.federation"];

/// Subjects that a fleet server without a token may not subscribe (spec 02 §6.4).
const SERVER_SUBSCRIBE_DENY: [&str; 3] = ["*.reply.>", "choria.federation.>", "choria.lifecycle.>"];

fn owned(subjects: &[&str]) -> Vec<String> {
    subjects.iter().map(|s| (*s).to_owned()).collect()
}

/// Nothing may be published or subscribed (spec 02 §6.2, §6.3: deny `>` both ways).
pub fn deny_all() -> Permissions {
    let nothing = || SubjectRules { allow: None, deny: owned(&[">"]) };
    Permissions { publish: nothing(), subscribe: nothing(), ..Permissions::default() }
}

/// A fleet server that proved a certificate but no token, when `client_hosts` tells clients from servers (spec 02 §6.4).
pub fn certificate_server() -> Permissions {
    Permissions {
        publish: SubjectRules { allow: Some(owned(&[">"])), deny: owned(&SERVER_PUBLISH_DENY) },
        subscribe: SubjectRules { allow: None, deny: owned(&SERVER_SUBSCRIBE_DENY) },
        ..Permissions::default()
    }
}

fn broadcasts() -> impl Iterator<Item = String> {
    PROVISIONING_AGENTS.iter().map(|agent| format!("provisioning.broadcast.agent.{agent}"))
}

/// An unprovisioned node whose name is bound to its connection (DESIGN §6): it hears only what is sent to it or to
/// all, and announces only in the event family of unprovisioned servers.
pub fn bound_node(name: &str) -> Permissions {
    let subscribe = std::iter::once(format!("provisioning.node.{name}")).chain(broadcasts()).collect();
    let publish = owned(&[
        "choria.lifecycle.event.*.provision_mode_server",
        "provisioning.reply.>",
        "provisioning.registration.>",
    ]);
    Permissions {
        publish: SubjectRules { allow: Some(publish), deny: Vec::new() },
        subscribe: SubjectRules { allow: Some(subscribe), deny: Vec::new() },
        ..Permissions::default()
    }
}

/// The lists of the original for any holder of the shared token (spec 02 §6.1). Only behind
/// `plugin.choria.network.provisioning.allow_unbound_nodes`: its holder can read what is sent to every other node.
pub fn unbound_node() -> Permissions {
    let subscribe = std::iter::once("provisioning.node.>".to_owned()).chain(broadcasts()).collect();
    let publish = owned(&["choria.lifecycle.>", "provisioning.reply.>", "provisioning.registration.>"]);
    Permissions {
        publish: SubjectRules { allow: Some(publish), deny: Vec::new() },
        subscribe: SubjectRules { allow: Some(subscribe), deny: Vec::new() },
        ..Permissions::default()
    }
}
