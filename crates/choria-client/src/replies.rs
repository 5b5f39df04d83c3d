//! Who answered, who did not, and which answers count (spec 05 §2.5).
//!
//! Sans-io. A reply counts when it carries the id of this request, names the agent that was asked and comes from a node
//! that was asked and has not answered before. Nothing that a replier sends can do more than be counted as refused.

use std::collections::{BTreeSet, HashSet};

use choria_protocol::rpc::ReplyBody;
use choria_protocol::v1;
use serde::Serialize;
use serde_json::Value;

/// One answer to an RPC request.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcReply {
    /// Identity of the node.
    pub sender: String,
    /// Action as the node names it.
    pub action: String,
    /// Status code; 0 is success. A body that cannot be decoded has [`RpcReply::UNDECODABLE`].
    pub code: u8,
    /// `OK` or why not.
    pub message: String,
    /// What the action gave.
    pub data: Value,
    /// Unix seconds at which the node answered.
    pub time: i64,
    /// The protocol message as received, for `--jsonl`.
    pub envelope: v1::Reply,
}

impl RpcReply {
    /// The code given to a reply whose body is no RPC reply: `unknown error` (spec 01 §5.2).
    pub const UNDECODABLE: u8 = 5;

    /// Whether the action worked.
    pub fn is_ok(&self) -> bool {
        self.code == 0
    }
}

/// Which senders a request expects.
#[derive(Debug, Clone)]
pub enum Expected {
    /// These nodes, each once.
    Nodes(Vec<String>),
    /// Whoever answers, each once: service requests and broadcasts.
    Anyone,
}

/// Why an incoming message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no reply of protocol v1, or its hash does not fit.
    #[error("it is not a valid reply: {0}")]
    Undecodable(String),
    /// It answers another request.
    #[error("{sender:?} answered request {got:?} instead of {wanted:?}")]
    OtherRequest {
        /// Who sent it.
        sender: String,
        /// Its request id.
        got: String,
        /// Ours.
        wanted: String,
    },
    /// It comes from another agent.
    #[error("{sender:?} answered as agent {got:?} instead of {wanted:?}")]
    OtherAgent {
        /// Who sent it.
        sender: String,
        /// The agent it names.
        got: String,
        /// The agent that was asked.
        wanted: String,
    },
    /// That node was not asked, or answers a second time.
    #[error("{0:?} was not asked or had answered before")]
    Unexpected(String),
}

/// The books of one request.
#[derive(Debug)]
pub struct ReplySet {
    request_id: String,
    agent: String,
    anyone: bool,
    outstanding: HashSet<String>,
    answered: HashSet<String>,
    unexpected: BTreeSet<String>,
    refused: usize,
}

impl ReplySet {
    /// Starts the books of a request.
    pub fn new(request_id: impl Into<String>, agent: impl Into<String>, expected: Expected) -> Self {
        let (outstanding, anyone) = match expected {
            Expected::Nodes(nodes) => (nodes.into_iter().collect(), false),
            Expected::Anyone => (HashSet::new(), true),
        };
        Self {
            request_id: request_id.into(),
            agent: agent.into(),
            anyone,
            outstanding,
            answered: HashSet::new(),
            unexpected: BTreeSet::new(),
            refused: 0,
        }
    }

    /// Checks one message as it came from the connection and returns the reply inside when it counts.
    pub fn take(&mut self, payload: &[u8]) -> Result<v1::Reply, Refused> {
        let decoded = match v1::decode_reply(payload) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.refused += 1;
                return Err(Refused::Undecodable(error.to_string()));
            }
        };
        let reply = decoded.reply;
        let sender = reply.envelope.sender_id.clone();
        if reply.envelope.request_id != self.request_id {
            self.refused += 1;
            return Err(Refused::OtherRequest {
                sender,
                got: reply.envelope.request_id,
                wanted: self.request_id.clone(),
            });
        }
        if reply.envelope.agent != self.agent {
            self.refused += 1;
            return Err(Refused::OtherAgent { sender, got: reply.envelope.agent, wanted: self.agent.clone() });
        }
        let first = if self.anyone { !self.answered.contains(&sender) } else { self.outstanding.remove(&sender) };
        if !first {
            self.unexpected.insert(sender.clone());
            return Err(Refused::Unexpected(sender));
        }
        self.answered.insert(sender);
        Ok(reply)
    }

    /// Whether every expected node has answered. Never true when anyone may answer.
    pub fn is_complete(&self) -> bool {
        !self.anyone && self.outstanding.is_empty()
    }

    /// How many counted replies came.
    pub fn answered(&self) -> usize {
        self.answered.len()
    }

    /// Messages that were no reply to this request at all.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Nodes that were asked and did not answer, sorted.
    pub fn no_responses(&self) -> Vec<String> {
        let mut nodes: Vec<String> = self.outstanding.iter().cloned().collect();
        nodes.sort_unstable();
        nodes
    }

    /// Nodes that answered unasked or twice, sorted.
    pub fn unexpected_responses(&self) -> Vec<String> {
        self.unexpected.iter().cloned().collect()
    }

    /// Adds the next batch of nodes that are asked.
    pub fn expect(&mut self, nodes: &[String]) {
        self.outstanding.extend(nodes.iter().filter(|node| !self.answered.contains(*node)).cloned());
    }
}

/// Reads the RPC body of a reply. A body that is none becomes a failed reply that says so.
pub fn rpc_reply(envelope: v1::Reply) -> RpcReply {
    let sender = envelope.envelope.sender_id.clone();
    let time = envelope.envelope.time;
    match ReplyBody::parse(envelope.message.as_bytes()) {
        Ok(body) => RpcReply {
            sender,
            action: body.action,
            code: body.statuscode,
            message: body.statusmsg,
            data: body.data,
            time,
            envelope,
        },
        Err(error) => RpcReply {
            sender,
            action: String::new(),
            code: RpcReply::UNDECODABLE,
            message: format!("the reply could not be decoded: {error}"),
            data: Value::Object(serde_json::Map::new()),
            time,
            envelope,
        },
    }
}

/// Figures of one finished request: the `request_stats` of `--json` (spec 05 §6.3). Times are nanoseconds, lists are sorted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestStats {
    /// Request id.
    #[serde(rename = "requestid")]
    pub request_id: String,
    /// Asked, but silent.
    pub no_responses: Vec<String>,
    /// Not asked, or answered twice.
    pub unexpected_responses: Vec<String>,
    /// How many nodes were asked.
    pub discovered: usize,
    /// Replies with a status other than 0.
    pub failed: usize,
    /// Replies with status 0.
    pub ok: usize,
    /// Replies that count.
    pub responses: usize,
    /// Publishing.
    pub publish_time: u64,
    /// From the first publish to the end.
    pub request_time: u64,
    /// Finding the nodes.
    pub discover_time: u64,
    /// When the request began, RFC 3339 in UTC.
    pub start_time_utc: String,
}

/// How a request ended: what the exit status tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every node that was asked answered with status 0.
    AllOk,
    /// Some failed or stayed silent.
    Partial,
    /// Nodes were asked and none answered.
    NoReplies,
    /// Nobody in particular was asked and nobody answered.
    Nobody,
}

impl RequestStats {
    /// Sums up. `asked` is false for service requests.
    pub fn outcome(&self, asked: bool) -> Outcome {
        if self.responses == 0 {
            return if asked { Outcome::NoReplies } else { Outcome::Nobody };
        }
        if self.failed > 0 || !self.no_responses.is_empty() { Outcome::Partial } else { Outcome::AllOk }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Nothing that a replier sends can do more than be refused.
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut set = ReplySet::new("id", "rpcutil", Expected::Nodes(vec!["n1".to_owned()]));
            prop_assert!(set.take(&bytes).is_err());
            prop_assert_eq!((set.answered(), set.refused()), (0, 1));
        }

        /// A body of any text becomes a reply, good or failed.
        #[test]
        fn any_body_is_survived(message in ".*") {
            let envelope = v1::ReplyEnvelope {
                request_id: "0".repeat(32),
                sender_id: "n1".to_owned(),
                agent: "rpcutil".to_owned(),
                time: 1,
            };
            let reply = rpc_reply(v1::Reply { message, envelope });
            prop_assert_eq!(reply.sender, "n1");
        }
    }

    fn stats(discovered: usize, ok: usize, failed: usize) -> RequestStats {
        RequestStats {
            request_id: String::new(),
            no_responses: vec!["x".to_owned(); discovered - ok - failed],
            unexpected_responses: Vec::new(),
            discovered,
            failed,
            ok,
            responses: ok + failed,
            publish_time: 0,
            request_time: 0,
            discover_time: 0,
            start_time_utc: String::new(),
        }
    }

    /// Spec 05 §11, exit statuses.
    #[test]
    fn outcomes_follow_the_table() {
        assert_eq!(stats(3, 3, 0).outcome(true), Outcome::AllOk);
        assert_eq!(stats(3, 2, 1).outcome(true), Outcome::Partial);
        assert_eq!(stats(3, 2, 0).outcome(true), Outcome::Partial);
        assert_eq!(stats(3, 0, 0).outcome(true), Outcome::NoReplies);
        assert_eq!(stats(0, 0, 0).outcome(false), Outcome::Nobody);
    }
}
