//! What goes into a flow and what comes out of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use choria_protocol::rpc::ReplyBody;

use super::Action;
use crate::helper::{HelperAnswer, HelperError, Question};
use crate::metrics::Phase;
use crate::rules::Refusal;

/// The time as the cores see it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For waits.
    pub mono: Instant,
    /// Unix seconds, for tokens and messages.
    pub unix: i64,
}

/// Why a flow is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The provisioner was paused.
    Paused,
    /// The provisioner is going down.
    Draining,
    /// It answered late, and too many others are worked on.
    Crowded,
    /// The node said that it is shutting down.
    NodeGone,
}

/// Why a request could not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendFault {
    /// There is no connection now.
    NotConnected(String),
    /// It will never work, such as a request that is larger than the broker takes.
    Impossible(String),
    /// The broker took it and said that nobody listens there.
    NobodyListens,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Begin.
    Start,
    /// The reply to a call arrived on its own subject, from the node, with the right request id and agent; or
    /// something arrived there that is no reply.
    Reply {
        /// The call's number.
        call: u64,
        /// The reply, or why it is none.
        reply: Result<ReplyBody, String>,
    },
    /// A call could not be sent.
    SendFailed {
        /// The call's number.
        call: u64,
        /// Why.
        fault: SendFault,
    },
    /// The helper answered or failed.
    Helper(Result<HelperAnswer, HelperError>),
    /// Time passed; the flow looks for itself whether its timer is due.
    Timer,
    /// Stop as soon as that leaves the node whole.
    Stop(Stop),
    /// The helper was not asked yet and will not be: stop at once.
    Recall(Stop),
    /// The node started as a fleet member.
    CameHome,
    /// The node started again as one that waits: what it was asked before is lost.
    NodeRestarted,
    /// The broker says that the node's connection ended.
    Disconnected,
    /// Our connection or the node's was made anew: what was asked and answered over the old one is lost.
    ConnectedAnew,
}

/// What a flow is doing, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// About to ask the first question.
    Starting,
    /// A request is out.
    Calling {
        /// What was asked.
        action: Action,
        /// Which try it is.
        attempt: u32,
        /// Since when.
        since: Instant,
        /// How long the answer is waited for.
        until: Instant,
    },
    /// Waits before a try.
    Pausing {
        /// What will be asked.
        action: Action,
        /// Which try it will be.
        attempt: u32,
        /// When.
        until: Instant,
    },
    /// The helper has the node, or it waits for a free one.
    Helper {
        /// Since when.
        since: Instant,
    },
    /// Nothing any more.
    Over,
}

/// A document that holds secrets: never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Confidential(pub(super) Arc<str>);

impl Confidential {
    /// The document, for the wire or a helper only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Confidential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// A request to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Number of the call in this flow; later events refer to it.
    pub number: u64,
    /// What is called.
    pub action: Action,
    /// The RPC body.
    pub body: Confidential,
    /// Whether one signed document may serve this and other nodes.
    pub shared: bool,
    /// Which try of this action it is.
    pub attempt: u32,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a request; replies to earlier calls no longer count.
    Call(Call),
    /// Call [`Flow::handle`](super::Flow::handle) with [`Input::Timer`] at this time; replaces the timer before it.
    Wake(Instant),
    /// Ask the helper about the node.
    RunHelper(Arc<Question>),
    /// The node answered: it lives.
    Answered,
    /// One try of an action is over after so long.
    Tried(Action, Duration),
    /// All tries of an action failed.
    Exhausted(Action),
    /// A phase took so long.
    Phase(Phase, Duration),
    /// One try of an action failed and another one follows.
    TryFailed {
        /// The action.
        action: Action,
        /// Number of the try that failed.
        attempt: u32,
        /// Why.
        cause: String,
    },
    /// Something an operator may want to know.
    Note(String),
    /// The flow is over. Nothing follows.
    Done(Outcome),
}

/// How a flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The node has its configuration and acknowledged the restart.
    Provisioned {
        /// The identity it will have as a fleet member.
        home: String,
    },
    /// The helper had the node shut down.
    ShutDown {
        /// Whether the node agreed.
        confirmed: bool,
        /// The helper's words.
        message: String,
    },
    /// The helper put the node off.
    Deferred {
        /// The helper's words.
        message: String,
    },
    /// Another provisioner is working on the node.
    Locked,
    /// A check refused the node or what was made for it.
    Refused(Refusal),
    /// The helper failed.
    HelperFailed {
        /// Countable reason.
        reason: &'static str,
        /// The whole story.
        error: String,
    },
    /// The node did not answer or answered with errors.
    Failed {
        /// The whole story.
        error: String,
    },
    /// Broken off by us; the node is as it was found.
    Interrupted {
        /// Why.
        error: String,
    },
    /// Nobody listens under the node's name.
    Absent {
        /// The whole story.
        error: String,
    },
    /// The node is shutting down, or its connection ended and it did not come back.
    Gone,
    /// The node is silent and was seen to start as a fleet member: somebody else provisioned it.
    Home,
}
