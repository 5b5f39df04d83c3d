//! Which reply belongs to which call.
//!
//! Every call gets a reply subject of its own that nobody can guess; it stands in the transport header, outside
//! the signature, so that one signed document serves many nodes and a neighbour still learns nothing it could
//! answer with. A reply counts only on the subject given to that node, inside its window, from the right
//! sender, for the right request id and agent. Everything else is refused with a countable reason, and a second
//! answer is noticed: two machines may share one name.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_protocol::rpc::{PONG, ReplyBody};
use choria_protocol::{identity, subjects, v1};
use rustc_hash::FxHashMap;

/// How long an answered or given up call is remembered, to tell late and second answers from forged ones.
const MEMORY: Duration = Duration::from_secs(10);

/// Who may answer to a subject, and what it answers.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The flow.
    pub flow: u64,
    /// The call in that flow.
    pub call: u64,
    /// The node.
    pub identity: Arc<str>,
    /// The agent.
    pub agent: &'static str,
    /// The request id; many nodes may share it.
    pub request_id: Arc<str>,
}

/// What a message on a reply subject turned out to be.
#[derive(Debug)]
pub enum Verdict {
    /// The answer to a call, or the reason why it is none.
    Reply {
        /// The flow.
        flow: u64,
        /// The call.
        call: u64,
        /// The body.
        body: Result<ReplyBody, String>,
    },
    /// A node answered the open discovery request.
    Discovered {
        /// The node.
        identity: String,
    },
    /// Not taken.
    Refused {
        /// Countable reason.
        reason: &'static str,
        /// The node that it concerns: whose answer it claims to be.
        node: Option<Arc<str>>,
        /// For the log.
        detail: String,
    },
}

#[derive(Debug)]
enum Entry {
    Open(Expectation),
    /// Answered: a further answer means two machines of one name.
    Answered(Arc<str>),
    /// Given up: an answer comes too late.
    Late(Arc<str>),
    Discovery {
        request_id: Arc<str>,
    },
}

/// The open reply subjects of one provisioner.
#[derive(Debug)]
pub struct Inbox {
    /// `provisioning.reply.<md5 of the caller id>.`
    prefix: String,
    entries: FxHashMap<u128, Entry>,
    /// Entries to forget, in the order of their time.
    forget: VecDeque<(Instant, u128)>,
    #[cfg(feature = "planted-bug")]
    planted: Option<crate::PlantedBug>,
}

impl Inbox {
    /// An inbox for replies to this caller.
    pub fn new(caller_id: &str) -> Self {
        let wildcard = subjects::replies_of(subjects::PROVISIONING_COLLECTIVE, caller_id);
        let prefix = wildcard.trim_end_matches('>').to_owned();
        Self {
            prefix,
            entries: FxHashMap::default(),
            forget: VecDeque::new(),
            #[cfg(feature = "planted-bug")]
            planted: None,
        }
    }

    /// Takes a guard away.
    #[cfg(feature = "planted-bug")]
    pub(crate) fn plant_bug(&mut self, bug: crate::PlantedBug) {
        self.planted = Some(bug);
    }

    /// The open call that a message fits when nobody looks at its subject.
    #[cfg(feature = "planted-bug")]
    fn fitting(&self, payload: &[u8]) -> Option<u128> {
        let envelope = v1::decode_reply(payload).ok()?.reply.envelope;
        let fits = |entry: &Entry| match entry {
            Entry::Open(expected) => {
                envelope.sender_id == *expected.identity && envelope.request_id == *expected.request_id
            }
            _ => false,
        };
        self.entries.iter().filter(|(_, entry)| fits(entry)).map(|(random, _)| *random).min()
    }

    /// The one subscription that catches every reply.
    pub fn subscription(&self) -> String {
        format!("{}>", self.prefix)
    }

    /// Opens a subject for one call. `random` must be unpredictable: it is what keeps others from answering.
    pub fn open(&mut self, expectation: Expectation, random: u128) -> String {
        self.insert(Entry::Open(expectation), random)
    }

    /// Opens a subject for a discovery request; many nodes answer there, until it is closed.
    pub fn open_discovery(&mut self, request_id: Arc<str>, random: u128) -> String {
        self.insert(Entry::Discovery { request_id }, random)
    }

    fn insert(&mut self, entry: Entry, random: u128) -> String {
        self.entries.insert(random, entry);
        format!("{}{random:032x}", self.prefix)
    }

    /// Nobody listens where the call of this reply subject went: closes it and returns its flow and call, unless it was answered
    /// or given up before.
    pub fn unanswerable(&mut self, subject: &str, now: Instant) -> Option<(u64, u64)> {
        let random = self.random_of(subject)?;
        let Some(Entry::Open(expected)) = self.entries.get(&random) else { return None };
        let found = (expected.flow, expected.call);
        self.close(random, now);
        Some(found)
    }

    /// The number in one of our subjects.
    fn random_of(&self, subject: &str) -> Option<u128> {
        let token = subject.strip_prefix(&self.prefix).filter(|token| token.len() == 32)?;
        u128::from_str_radix(token, 16).ok()
    }

    /// Closes a subject whose window is over.
    pub fn close(&mut self, random: u128, now: Instant) {
        match self.entries.get_mut(&random) {
            Some(entry @ Entry::Open(_)) => {
                let Entry::Open(expectation) = entry else { return };
                *entry = Entry::Late(Arc::clone(&expectation.identity));
                self.forget.push_back((now + MEMORY, random));
            }
            Some(Entry::Discovery { .. }) => {
                self.entries.remove(&random);
            }
            Some(Entry::Answered(_) | Entry::Late(_)) | None => {}
        }
    }

    /// Forgets what is long over.
    pub fn advance(&mut self, now: Instant) {
        while let Some((due, random)) = self.forget.front().copied() {
            if due > now {
                return;
            }
            self.forget.pop_front();
            self.entries.remove(&random);
        }
    }

    /// When [`Self::advance`] has something to do next.
    pub fn next_timer(&self) -> Option<Instant> {
        self.forget.front().map(|(due, _)| *due)
    }

    /// Subjects that are open or remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is open or remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Looks at a message on a reply subject.
    pub fn accept(&mut self, subject: &str, payload: &[u8], now: Instant) -> Verdict {
        let Some(random) = self.random_of(subject) else {
            return refused("reply_subject", None, format!("reply on {subject:?}, which was given to nobody"));
        };
        #[cfg(feature = "planted-bug")]
        let random = match self.planted {
            Some(crate::PlantedBug::AnyReplySubject) => self.fitting(payload).unwrap_or(random),
            _ => random,
        };
        match self.entries.get(&random) {
            None => refused("reply_subject", None, format!("reply on {subject}, which is not open")),
            Some(Entry::Late(identity)) => {
                refused("reply_late", Some(identity), format!("reply of {identity} arrived after its time"))
            }
            Some(Entry::Answered(identity)) => {
                let from = sender_of(payload);
                let detail = format!(
                    "second answer to one request, to {identity}, sent by {from}: two machines may share this name"
                );
                refused("reply_second", Some(identity), detail)
            }
            Some(Entry::Discovery { request_id }) => discovered(payload, request_id),
            Some(Entry::Open(expected)) => {
                let verdict = judge(payload, expected);
                #[cfg(feature = "planted-bug")]
                if self.planted == Some(crate::PlantedBug::ReplySubjectStaysOpen) {
                    return verdict;
                }
                if matches!(verdict, Verdict::Reply { .. }) {
                    let identity = Arc::clone(&expected.identity);
                    self.entries.insert(random, Entry::Answered(identity));
                    self.forget.push_back((now + MEMORY, random));
                }
                verdict
            }
        }
    }
}

fn refused(reason: &'static str, node: Option<&Arc<str>>, detail: String) -> Verdict {
    Verdict::Refused { reason, node: node.cloned(), detail }
}

/// A message on the subject of an open call.
fn judge(payload: &[u8], expected: &Expectation) -> Verdict {
    let reply = |body| Verdict::Reply { flow: expected.flow, call: expected.call, body };
    let decoded = match v1::decode_reply(payload) {
        Ok(decoded) => decoded,
        // Only the node was given this subject: it is its answer, and it is unusable.
        Err(error) => return reply(Err(error.to_string())),
    };
    let envelope = &decoded.reply.envelope;
    let node = &expected.identity;
    if envelope.sender_id != **node {
        return refused(
            "reply_sender",
            Some(node),
            format!("reply on the subject given to {node} says that it is from {:?}", envelope.sender_id),
        );
    }
    if envelope.request_id != *expected.request_id {
        return refused(
            "reply_request_id",
            Some(node),
            format!("reply of {node} is for request {}, not {}", envelope.request_id, expected.request_id),
        );
    }
    if envelope.agent != expected.agent {
        return refused(
            "reply_agent",
            Some(node),
            format!("reply of {node} is from agent {:?}, not {}", envelope.agent, expected.agent),
        );
    }
    reply(ReplyBody::parse(decoded.reply.message.as_bytes()).map_err(|error| error.to_string()))
}

/// A message on the subject of a discovery request.
fn discovered(payload: &[u8], request_id: &str) -> Verdict {
    let decoded = match v1::decode_reply(payload) {
        Ok(decoded) => decoded,
        Err(error) => return refused("discovery_reply", None, format!("discovery reply is unusable: {error}")),
    };
    let reply = decoded.reply;
    let name = reply.envelope.sender_id;
    if reply.envelope.request_id != request_id || reply.message != PONG {
        return refused(
            "discovery_reply",
            None,
            format!("discovery reply of {name:?} is not an answer to our request"),
        );
    }
    if decoded.transport.headers.mc_sender.is_some_and(|sender| sender != name) {
        return refused("discovery_reply", None, format!("discovery reply names two senders, {name:?} is one of them"));
    }
    if !identity::is_valid(&name) {
        return refused("identity", None, format!("discovery reply from {name:?}, which is not a valid identity"));
    }
    Verdict::Discovered { identity: name }
}

/// Who a message says it is from, for the log only.
fn sender_of(payload: &[u8]) -> String {
    match v1::decode_reply(payload) {
        Ok(decoded) => {
            let hop = decoded.transport.headers.seen_by.last().map(|hop| format!(" over {:?}", hop[0]));
            format!("{:?}{}", decoded.reply.envelope.sender_id, hop.unwrap_or_default())
        }
        Err(_) => "an unreadable message".to_owned(),
    }
}

#[cfg(test)]
mod tests;
