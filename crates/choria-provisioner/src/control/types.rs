//! What travels over the control socket: one JSON line each way. Times are milliseconds since 1970 in fields named `*_ms`,
//! durations are seconds in fields named `*_s`. No field ever holds a token, a password, a key or a document.

use serde::{Deserialize, Serialize};

/// Version of what is spoken here. A side that gets another one says so and does nothing.
pub const VERSION: u32 = 1;

/// A question with the version it is asked in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`VERSION`].
    pub version: u32,
    /// The question.
    #[serde(flatten)]
    pub request: Request,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// How is it going?
    Status,
    /// What is known about a node?
    Explain {
        /// Its identity.
        node: String,
    },
    /// Start no more nodes.
    Pause,
    /// Go on.
    Resume,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`], [`Request::Pause`] and [`Request::Resume`].
    Status(Box<Status>),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// The question was not understood or cannot be answered.
    Error(Fault),
}

/// An answer with its version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerEnvelope {
    /// [`VERSION`].
    pub version: u32,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// Why there is no other answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `version`, `request`, `too_long`, `stopping`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// How a running provisioner is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who answers.
    pub process: Process,
    /// The connection to the broker.
    pub connection: Connection,
    /// Whether it was told to pause.
    pub paused: bool,
    /// Whether it is going down.
    pub draining: bool,
    /// What keeps the next node from starting: `paused`, `connection`, `draining`, `max_nodes`, `helper`, `helper_rate`,
    /// `ca_rate`. Absent when nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// How many nodes are where.
    pub nodes: Nodes,
    /// The node that waits longest for its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_waiting: Option<Waiting>,
    /// The node that is in flight longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_in_flight: Option<Waiting>,
    /// How fast it goes.
    pub rate: Rate,
    /// Counted since the start.
    pub totals: Totals,
    /// Refusals by reason, the most frequent first.
    pub refusals: Vec<RefusalCount>,
    /// The helper.
    pub helper: Helper,
    /// Bounds in force.
    pub limits: Limits,
}

/// The process that answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Its identity on the network.
    pub identity: String,
    /// Its configuration file.
    pub config: String,
    /// Value of label `site`.
    pub site: String,
    /// When it started.
    pub started_ms: i64,
    /// How long it runs.
    pub uptime_s: f64,
}

/// The connection to the broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Whether it is up.
    pub connected: bool,
    /// The broker, without credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why it is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is as it is.
    pub since_ms: i64,
    /// How often it was made again.
    pub reconnections: u64,
}

/// How many nodes are where. Every known node is in exactly one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Waiting for their first request.
    pub queued: usize,
    /// Asked, and expected to answer any moment.
    pub probing: usize,
    /// Asked, without an answer for so long that they take no place.
    pub silent: usize,
    /// Answering: between their first answer and the end of their attempt. Those at or before the helper are among them.
    pub engaged: usize,
    /// Of these, waiting for a free helper, or for `helper_rate` or `ca_rate`.
    pub waiting_for_helper: usize,
    /// Of these, with the helper.
    pub at_helper: usize,
    /// Failed or put off; start again by themselves when their rest is over.
    pub resting: usize,
    /// Failed or put off; start again when they are seen again.
    pub waiting_to_be_seen: usize,
    /// Provisioned moments ago and left alone while they restart.
    pub settling: usize,
    /// Provisioned and not yet seen as fleet members.
    pub expected_home: usize,
}

/// A node and how long it is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The node.
    pub identity: String,
    /// Since when.
    pub since_ms: i64,
    /// For how long.
    pub waited_s: f64,
}

/// How fast it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Nodes provisioned in the last 60 seconds.
    pub last_minute: u64,
    /// Nodes provisioned in the last 60 minutes.
    pub last_hour: u64,
    /// Nodes per second, over the last ten seconds.
    pub per_second: f64,
}

/// Counters since the start, as on `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Nodes added because of their startup event.
    pub by_event: u64,
    /// Nodes added because they answered a discovery.
    pub by_discovery: u64,
    /// Nodes added because of their registration data.
    pub by_registration: u64,
    /// Nodes provisioned, shutdowns on the helper's order among them.
    pub provisioned: u64,
    /// Attempts that failed, deferrals among them.
    pub errors: u64,
    /// Attempts that were put off.
    pub deferred: u64,
    /// Attempts that ended because nobody listened under the node's name.
    pub absent: u64,
    /// Nodes that were seen coming home.
    pub verified: u64,
    /// Nodes that did not come home in time.
    pub missing: u64,
    /// Nodes that came back into provisioning right after they were provisioned.
    pub returned: u64,
}

/// Refusals for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalCount {
    /// The reason, as in label `reason` of `choria_provisioner_refused`.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// When the last one was.
    pub last_ms: i64,
    /// The last one's whole sentence.
    pub last: String,
    /// The node it was about, when it was about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The helper.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Helper {
    /// What is configured, in words.
    pub kind: String,
    /// Questions with it now.
    pub busy: usize,
    /// Questions it may have at a time.
    pub capacity: usize,
    /// Nodes that wait for it.
    pub waiting: usize,
    /// What those wait for besides a free helper: `helper_rate` or `ca_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// Answers and failures so far.
    pub calls: u64,
    /// Failures so far.
    pub errors: u64,
    /// Mean time of an answer.
    pub mean_s: f64,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<HelperFailure>,
}

/// A failure of the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperFailure {
    /// When it was.
    pub at_ms: i64,
    /// The node it was about.
    pub node: String,
    /// What happened.
    pub error: String,
}

/// Bounds in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Nodes in flight at a time.
    pub max_nodes: usize,
    /// Nodes known at a time.
    pub max_known: usize,
    /// Helper calls per second; absent = no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper_rate: Option<f64>,
    /// Certificate requests handed on per second; absent = no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_rate: Option<f64>,
    /// Discovery period.
    pub interval_s: f64,
}

/// What is known about a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name that was asked for.
    pub identity: String,
    /// Where it is: `queued`, `probing`, `silent`, `engaged`, `resting`, `waiting_to_be_seen`, `settling`, `not_waiting` (known,
    /// and not in the queue now), `refused` (never was a node, only refused), `unknown`.
    pub state: String,
    /// What will happen next.
    pub next: Next,
    /// How it was seen.
    pub seen: Vec<Seen>,
    /// Attempts so far, older ones than listed among them.
    pub attempts_total: u32,
    /// Failures in a row.
    pub failures: u32,
    /// The last attempts, oldest first; the last may be under way.
    pub attempts: Vec<Attempt>,
    /// Refusals so far, older ones than listed among them.
    pub refusals_total: u32,
    /// The last refusals, oldest first.
    pub refusals: Vec<Refusal>,
    /// What else happened, oldest first.
    pub notes: Vec<Note>,
    /// For an unknown name: known names that are near.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<String>,
}

/// What will happen next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Next {
    /// For people.
    pub text: String,
    /// When, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
    /// Place in the queue, 1 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<usize>,
    /// Length of that queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<usize>,
}

/// How a node was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `event`, `discovery` or `registration`.
    pub by: String,
    /// How often.
    pub count: u32,
    /// The first time.
    pub first_ms: i64,
    /// The last time.
    pub last_ms: i64,
}

/// One attempt at a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, counted from 1.
    pub number: u32,
    /// When it began.
    pub started_ms: i64,
    /// How long it took, or takes so far.
    pub took_s: f64,
    /// `provisioned`, `shut_down`, `deferred`, `locked`, `refused`, `helper_failed`, `failed`, `absent`, `interrupted`, `gone`,
    /// `home`, `displaced`; nothing while it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Why, with the value that mattered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What was done.
    pub steps: Vec<Step>,
}

/// One step of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `agent#action`, `helper_wait` or `helper`.
    pub what: String,
    /// Which try of it.
    pub attempt: u32,
    /// Seconds after the attempt began.
    pub after_s: f64,
    /// How long it took; absent while it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_s: Option<f64>,
    /// What was wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When, or the last time when it was for the same value several times.
    pub at_ms: i64,
    /// The reason, as in label `reason` of `choria_provisioner_refused`.
    pub reason: String,
    /// The whole sentence, with the value that was refused.
    pub detail: String,
    /// How often in a row.
    pub count: u32,
}

/// Something that happened to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at_ms: i64,
    /// What.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_one_flat_object_each() {
        let ask = |request| serde_json::to_string(&Envelope { version: VERSION, request }).unwrap();
        assert_eq!(ask(Request::Status), r#"{"version":1,"ask":"status"}"#);
        let explain = ask(Request::Explain { node: "n1".into() });
        assert_eq!(explain, r#"{"version":1,"ask":"explain","node":"n1"}"#);
        assert_eq!(serde_json::from_str::<Envelope>(&explain).unwrap().request, Request::Explain { node: "n1".into() });
        let fault = Fault { code: "request".into(), message: "no".into() };
        let answer = AnswerEnvelope { version: VERSION, answer: Answer::Error(fault) };
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(text, r#"{"version":1,"error":{"code":"request","message":"no"}}"#);
        assert_eq!(serde_json::from_str::<AnswerEnvelope>(&text).unwrap(), answer);
    }
}
