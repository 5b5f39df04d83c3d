//! Replies for scripts: one document, or one line per thing that happens (spec 05 §6.3, §6.4).

use std::collections::BTreeMap;

use choria_client::{RequestStats, RpcReply};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::{Shown, Summary};

/// One reply. Key order is part of the form.
#[derive(Debug, Serialize)]
struct Document<'a> {
    agent: &'a str,
    action: &'a str,
    replies: Vec<DocumentReply<'a>>,
    request_stats: &'a RequestStats,
    summaries: BTreeMap<&'a str, &'a Value>,
}

#[derive(Debug, Serialize)]
struct DocumentReply<'a> {
    sender: &'a str,
    action: &'a str,
    statuscode: u8,
    statusmsg: &'a str,
    data: &'a Value,
    time_utc: String,
}

/// `--json`: three blanks of indentation, and `<`, `>`, `&` escaped as the reference escapes them.
pub(crate) fn document(shown: &Shown<'_>) -> String {
    let replies = shown
        .replies
        .iter()
        .map(|reply| DocumentReply {
            sender: &reply.sender,
            action: &reply.action,
            statuscode: reply.code,
            statusmsg: &reply.message,
            data: &reply.data,
            time_utc: time(reply.time),
        })
        .collect();
    let document = Document {
        agent: shown.agent,
        action: shown.action,
        replies,
        request_stats: shown.stats,
        summaries: summaries(shown.summaries),
    };
    let mut out = indented(&document, b"   ");
    out.push('\n');
    out
}

/// `--senders --json`: the identities of nodes where it worked.
pub(crate) fn senders_json(shown: &Shown<'_>) -> String {
    let senders: Vec<&str> =
        shown.replies.iter().filter(|reply| reply.is_ok()).map(|reply| reply.sender.as_str()).collect();
    let mut out = indented(&senders, b"  ");
    out.push('\n');
    out
}

/// What can happen, for `--jsonl`.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    /// Discovery begins.
    Discovering {
        /// Method.
        method: &'a str,
    },
    /// Discovery is done.
    Discovered {
        /// Method.
        method: &'a str,
        /// How many nodes.
        count: usize,
        /// Seconds it took.
        seconds: f64,
    },
    /// A reply.
    Reply(&'a RpcReply),
    /// The summaries.
    Summaries(&'a [Summary]),
    /// The figures.
    Stats(&'a RequestStats),
    /// It failed.
    Error(&'a str),
}

/// `--jsonl`: one line.
pub(crate) fn line(line: &Line<'_>) -> String {
    let mut text = match line {
        Line::Discovering { method } => object(&[("k", "discovery".into()), ("dm", (*method).into())]),
        Line::Discovered { method, count, seconds } => object(&[
            ("k", "discovery".into()),
            ("count", (*count).into()),
            ("dt", (*seconds).into()),
            ("dm", (*method).into()),
        ]),
        Line::Reply(reply) => result(reply),
        Line::Summaries(all) => {
            let agg = serde_json::to_value(summaries(all)).unwrap_or_default();
            object(&[("k", "summaries".into()), ("agg", agg)])
        }
        Line::Stats(stats) => {
            let stat = serde_json::to_value(stats).unwrap_or_default();
            object(&[("k", "stats".into()), ("stat", stat)])
        }
        Line::Error(message) => object(&[("k", "error".into()), ("err", (*message).into())]),
    };
    text.push('\n');
    text
}

fn result(reply: &RpcReply) -> String {
    // The protocol reply is its own JSON text already; taken apart and put together again it stays the same value.
    let protocol: Value = serde_json::from_str(&reply.envelope.to_text()).unwrap_or_default();
    let rpc = serde_json::json!({
        "action": reply.action,
        "statuscode": reply.code,
        "statusmsg": reply.message,
        "data": reply.data,
        "sender": reply.sender,
        "time_utc": time(reply.time),
    });
    object(&[("k", "result".into()), ("pr", protocol), ("rr", rpc)])
}

fn object(entries: &[(&str, Value)]) -> String {
    let map: serde_json::Map<String, Value> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    escaped(&Value::Object(map).to_string())
}

fn summaries(all: &[Summary]) -> BTreeMap<&str, &Value> {
    all.iter().map(|summary| (summary.output.as_str(), &summary.value)).collect()
}

fn indented(value: &impl Serialize, indent: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(indent));
    // Writing plain values to memory does not fail.
    let _ = value.serialize(&mut serializer);
    escaped(&String::from_utf8_lossy(&bytes))
}

/// These three characters only occur inside JSON texts, so they can be replaced in the finished document.
fn escaped(json: &str) -> String {
    json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}
