//! NATS subjects of Choria (spec 01 §6).
//!
//! The functions join words and check nothing: identities must satisfy [`crate::identity::is_valid`], collectives and
//! agent names come from configuration or from a registered agent.

use md5::{Digest, Md5};

/// Collective of servers that wait for their configuration.
pub const PROVISIONING_COLLECTIVE: &str = "provisioning";
/// Where a server in provisioning mode publishes its registration data.
pub const PROVISIONING_REGISTRATION: &str = "provisioning.registration.data";
/// Reply subject of requests that want no answer, such as registration.
pub const NO_REPLY: &str = "dev.null";
/// Transitions of autonomous agents.
pub const MACHINE_TRANSITION: &str = "choria.machine.transition";
/// All lifecycle events.
pub const LIFECYCLE_ALL: &str = "choria.lifecycle.event.>";

/// Broadcast to all nodes with an agent.
pub fn broadcast_agent(collective: &str, agent: &str) -> String {
    format!("{collective}.broadcast.agent.{agent}")
}

/// Requests to a service agent; subscribers share it with the agent's name as queue group.
pub fn broadcast_service(collective: &str, agent: &str) -> String {
    format!("{collective}.broadcast.service.{agent}")
}

/// Directed requests to one node.
pub fn node(collective: &str, identity: &str) -> String {
    format!("{collective}.node.{identity}")
}

/// The caller's part of reply subjects: lower case hex MD5 of the caller id (spec 01 §6).
pub fn caller_hash(caller_id: &str) -> String {
    hex::encode(Md5::digest(caller_id.as_bytes()))
}

/// Replies to one request of one caller.
pub fn reply(collective: &str, caller_id: &str, request_id: &str) -> String {
    format!("{collective}.reply.{}.{request_id}", caller_hash(caller_id))
}

/// Every reply subject of one caller, as a subscription.
pub fn replies_of(collective: &str, caller_id: &str) -> String {
    format!("{collective}.reply.{}.>", caller_hash(caller_id))
}

/// Prefix of NATS inboxes of a process, given its main collective.
pub fn inbox_prefix(main_collective: &str) -> String {
    format!("{main_collective}.reply")
}

/// One type of lifecycle event of one kind of component; both may be `*`.
pub fn lifecycle(kind: &str, component: &str) -> String {
    format!("choria.lifecycle.event.{kind}.{component}")
}

/// States of autonomous agents' watchers of one type.
pub fn machine_watcher_state(watcher_type: &str) -> String {
    format!("choria.machine.watcher.{watcher_type}.state")
}

/// A governor.
pub fn governor(collective: &str, name: &str) -> String {
    format!("{collective}.governor.{name}")
}

/// Messages of the submission spool.
pub fn submission(collective: &str, subject: &str) -> String {
    format!("{collective}.submission.in.{subject}")
}

/// Where federated clients publish requests for a federation cluster.
pub fn federation_requests(cluster: &str) -> String {
    format!("choria.federation.{cluster}.federation")
}

/// Where nodes behind a federation cluster send replies.
pub fn federation_replies(cluster: &str) -> String {
    format!("choria.federation.{cluster}.collective")
}

/// Whether a reply may be published to `subject`: no wildcards, blanks, control characters or empty tokens, at most
/// 1024 bytes. Requests with another reply subject are refused before the action runs (spec 01 sharp edge 32).
pub fn is_publishable(subject: &str) -> bool {
    subject.len() <= 1024
        && subject.split('.').all(|token| {
            !token.is_empty()
                && !matches!(token, "*" | ">")
                && !token.chars().any(|c| c.is_whitespace() || c.is_control())
        })
}

/// What a server subscribes to in a collective it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// `<collective>.broadcast.agent.<agent>`
    Broadcast {
        /// The collective.
        collective: &'a str,
        /// The agent.
        agent: &'a str,
    },
    /// `<collective>.broadcast.service.<agent>`
    Service {
        /// The collective.
        collective: &'a str,
        /// The agent.
        agent: &'a str,
    },
    /// `<collective>.node.<identity>`
    Node {
        /// The collective.
        collective: &'a str,
        /// The node.
        identity: &'a str,
    },
}

impl<'a> Arrival<'a> {
    /// Reads the subject of a request. `None` when it is no subject that requests arrive on.
    pub fn parse(subject: &'a str) -> Option<Self> {
        let (collective, rest) = subject.split_once('.')?;
        let arrival = if let Some(agent) = rest.strip_prefix("broadcast.agent.") {
            Self::Broadcast { collective, agent }
        } else if let Some(agent) = rest.strip_prefix("broadcast.service.") {
            Self::Service { collective, agent }
        } else {
            Self::Node { collective, identity: rest.strip_prefix("node.")? }
        };
        Some(arrival)
    }

    /// Whether a request's envelope belongs on this subject: same collective and, except on a node's own subject,
    /// same agent. The original never compares them (spec 01 §4); `discovery` requests travel on their own subject too.
    pub fn agrees_with(&self, collective: &str, agent: &str) -> bool {
        match self {
            Self::Broadcast { collective: c, agent: a } | Self::Service { collective: c, agent: a } => {
                *c == collective && *a == agent
            }
            Self::Node { collective: c, .. } => *c == collective,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_hashes() {
        for (caller, hash) in [
            ("choria=bob.mcollective", "706fb024b077dc395f8a1ee839771131"),
            ("up=bob", "72dc525f8fe0064c0372c1fb3d729560"),
            ("node1.example.net", "17bcfb8c80731d07482059628cf13848"),
            ("choria=rip.mcollective", "37bdf08389145a56c13096c178802d3b"),
            ("up=ann", "90ca49690db1d3348da9f38a1a0a98bb"),
            ("choria=ann.mcollective", "d09c2d5d28c634eeb5e9dd1cfd0c8782"),
        ] {
            assert_eq!(caller_hash(caller), hash);
        }
        assert_eq!(
            reply("mcollective", "choria=rip.mcollective", "abc"),
            "mcollective.reply.37bdf08389145a56c13096c178802d3b.abc"
        );
    }

    #[test]
    fn words_are_joined_as_documented() {
        assert_eq!(broadcast_agent("acme", "discovery"), "acme.broadcast.agent.discovery");
        assert_eq!(broadcast_service("acme", "aaa_signer"), "acme.broadcast.service.aaa_signer");
        assert_eq!(node("acme", "n1.example.net"), "acme.node.n1.example.net");
        assert_eq!(lifecycle("startup", "server"), "choria.lifecycle.event.startup.server");
        assert_eq!(machine_watcher_state("exec"), "choria.machine.watcher.exec.state");
        assert_eq!(governor("acme", "G"), "acme.governor.G");
        assert_eq!(submission("acme", "x"), "acme.submission.in.x");
        assert_eq!(federation_requests("london"), "choria.federation.london.federation");
        assert_eq!(federation_replies("london"), "choria.federation.london.collective");
        assert_eq!(inbox_prefix("acme"), "acme.reply");
    }

    #[test]
    fn reply_subjects_that_cannot_be_published_to() {
        for good in ["a", "mcollective.reply.x.y", "dev.null", "a.b*c.d"] {
            assert!(is_publishable(good), "{good}");
        }
        for bad in ["", "a b", "a\r\nPUB x", "a.*", "a.>", "a..b", ".a", "a.", "a\u{a0}b", &"a".repeat(1025)] {
            assert!(!is_publishable(bad), "{bad:?}");
        }
    }

    #[test]
    fn arrival_subjects() {
        let broadcast = Arrival::parse("acme.broadcast.agent.rpcutil").unwrap();
        assert!(broadcast.agrees_with("acme", "rpcutil"));
        assert!(!broadcast.agrees_with("acme", "discovery"));
        assert!(!broadcast.agrees_with("subc", "rpcutil"));
        let node = Arrival::parse("acme.node.n1.example.net").unwrap();
        assert_eq!(node, Arrival::Node { collective: "acme", identity: "n1.example.net" });
        assert!(node.agrees_with("acme", "anything"));
        assert!(!node.agrees_with("subc", "anything"));
        assert_eq!(Arrival::parse("acme.reply.x.y"), None);
        assert_eq!(Arrival::parse("acme"), None);
    }
}
