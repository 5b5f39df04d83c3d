//! Node lists from files and from the output of an earlier request (spec 05 §4).

use std::path::Path;

use serde_json::Value;

/// How a node list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One identity per line; blank lines and `#` comments are skipped.
    Text,
    /// A JSON array of texts.
    Json,
    /// A YAML list of texts.
    Yaml,
    /// The document of `choria req --json`: the senders of its replies.
    Results,
}

/// Why a node list could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeListError {
    /// The file cannot be read.
    #[error("could not read the node list {path}: {source}")]
    Read {
        /// Path as given.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The text is not what its format says.
    #[error("the node list is not {expected}: {reason}")]
    Syntax {
        /// What it should be.
        expected: &'static str,
        /// The parser's reason.
        reason: String,
    },
    /// A name that cannot be an identity (spec 05 §4).
    #[error("invalid identity string {0:?}")]
    Identity(String),
    /// The `filter` option found no list.
    #[error("query {0:?} did not result in a array of nodes")]
    Query(String),
}

impl Format {
    /// The format that a file name's extension stands for; anything unknown is text.
    pub fn of_path(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::Json,
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Text,
        }
    }

    /// The format that `--do format=NAME` stands for; anything unknown is text.
    pub fn of_name(name: &str) -> Self {
        match name {
            "json" => Self::Json,
            "yaml" | "yml" => Self::Yaml,
            "choriarpc" | "results" | "rpc" | "response" => Self::Results,
            _ => Self::Text,
        }
    }
}

/// Reads a node list from a file.
pub fn read(path: &Path, format: Format, query: Option<&str>) -> Result<Vec<String>, NodeListError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| NodeListError::Read { path: path.display().to_string(), source })?;
    parse(&text, format, query)
}

/// Reads a node list from text. `query` is a GJSON path that leads to the list inside JSON or YAML. Repeated names count once.
pub fn parse(text: &str, format: Format, query: Option<&str>) -> Result<Vec<String>, NodeListError> {
    let nodes: Vec<String> = match format {
        Format::Text => text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect(),
        Format::Results => results(text)?,
        Format::Json => list(json(text)?, query)?,
        Format::Yaml => {
            let value = serde_saphyr::from_str::<Value>(text)
                .map_err(|error| NodeListError::Syntax { expected: "YAML", reason: error.to_string() })?;
            list(value, query)?
        }
    };
    let mut seen = std::collections::HashSet::new();
    let mut unique = Vec::with_capacity(nodes.len());
    for node in nodes {
        if !is_identity(&node) {
            return Err(NodeListError::Identity(node));
        }
        if seen.insert(node.clone()) {
            unique.push(node);
        }
    }
    Ok(unique)
}

/// Whether piped text is the result document of an earlier request: request chaining (spec 05 §4 rule 3).
pub fn looks_like_results(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('{') && text.ends_with('}')
}

fn json(text: &str) -> Result<Value, NodeListError> {
    serde_json::from_str(text)
        .map_err(|error| NodeListError::Syntax { expected: "a JSON document", reason: error.to_string() })
}

fn results(text: &str) -> Result<Vec<String>, NodeListError> {
    let value = json(text)?;
    let replies = value.get("replies").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(replies.iter().filter_map(|reply| reply.get("sender")?.as_str().map(str::to_owned)).collect())
}

fn list(value: Value, query: Option<&str>) -> Result<Vec<String>, NodeListError> {
    let Some(query) = query else {
        return texts(&value).ok_or_else(|| NodeListError::Syntax {
            expected: "a list of identities",
            reason: "it must be an array of texts; lead to one inside it with --do filter=PATH".to_owned(),
        });
    };
    let found = gjson::get(&value.to_string(), query).json().to_owned();
    match serde_json::from_str::<Value>(&found) {
        Ok(Value::Array(items)) => Ok(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()),
        _ => Err(NodeListError::Query(query.to_owned())),
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Dot separated labels of letters, digits and inner dashes.
fn is_identity(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}
