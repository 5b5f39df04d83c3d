//! Replies to a request, in every form that `choria req` knows (spec 05 §6).

mod json;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use choria_client::{RequestStats, RpcReply};
use serde_json::Value;

pub(crate) use json::{Line, document, line, senders_json};
pub(crate) use text::text;

/// Which replies are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that worked.
    Ok,
    /// Those that failed.
    Failed,
    /// All.
    All,
    /// None.
    None,
}

impl Which {
    /// Whether this reply is shown.
    pub(crate) fn shows(self, reply: &RpcReply) -> bool {
        match self {
            Self::Ok => reply.is_ok(),
            Self::Failed => !reply.is_ok(),
            Self::All => true,
            Self::None => false,
        }
    }
}

/// One summary over all replies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    /// Name of the output.
    pub output: String,
    /// What people call it.
    pub label: String,
    /// For people.
    pub lines: Vec<String>,
    /// For scripts.
    pub value: Value,
}

/// What there is to show.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    /// Agent.
    pub agent: &'a str,
    /// Action.
    pub action: &'a str,
    /// What people call each output, by its name.
    pub labels: &'a BTreeMap<String, String>,
    /// The replies, in the order they are shown.
    pub replies: &'a [RpcReply],
    /// Summaries, sorted by output.
    pub summaries: &'a [Summary],
    /// Figures.
    pub stats: &'a RequestStats,
}

impl Shown<'_> {
    fn label<'l>(&'l self, output: &'l str) -> &'l str {
        self.labels.get(output).map_or(output, String::as_str)
    }

    /// Discovery and request together.
    fn total(&self) -> Duration {
        Duration::from_nanos(self.stats.request_time.saturating_add(self.stats.discover_time))
    }
}

/// The identities of nodes where it worked, one per line.
pub(crate) fn senders(shown: &Shown<'_>) -> String {
    shown.replies.iter().filter(|reply| reply.is_ok()).map(|reply| format!("{}\n", reply.sender)).collect()
}

/// A box of the replies that worked, one column per declared output. Lists and objects are compact JSON, so that the box
/// stays a box (spec 05 §12 row 46).
pub(crate) fn table(shown: &Shown<'_>) -> String {
    let mut heading = vec!["Sender".to_owned()];
    heading.extend(shown.labels.values().cloned());
    let rows: Vec<Vec<String>> = shown
        .replies
        .iter()
        .filter(|reply| reply.is_ok())
        .map(|reply| {
            let cells = shown.labels.keys().map(|output| reply.data.get(output).map(plain).unwrap_or_default());
            std::iter::once(reply.sender.clone()).chain(cells).collect()
        })
        .collect();
    format!("{}\n", crate::text::table(&heading, &rows))
}

/// A value as people read it: texts as they are, everything else as compact JSON.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
