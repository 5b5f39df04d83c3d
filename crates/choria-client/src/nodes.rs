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
            let value = choria_filter::facts::parse_yaml(text)
                .map_err(|reason| NodeListError::Syntax { expected: "YAML", reason })?;
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
    match choria_filter::facts::lookup(&value, query).as_deref() {
        Some(Value::Array(items)) => Ok(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of `golden/cli/discovery/discovery.jsonl` that read node lists. Where ours differ, and why:
    /// `docs/differences/choria-client.md`.
    #[test]
    fn golden_node_lists() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/cli/discovery");
        let mut rows = 0;
        for line in std::fs::read_to_string(folder.join("discovery.jsonl")).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let arguments: Vec<&str> = row["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
            let option = |name: &str| arguments.iter().find_map(|a| a.strip_prefix(&format!("{name}=")));
            let (file, format) = match (arguments[0], arguments[1]) {
                ("--nodes", file) => (file, Format::of_path(Path::new(file))),
                ("--dm", "flatfile" | "file") => match option("file") {
                    Some(file) => (file, option("format").map_or(Format::Text, Format::of_name)),
                    None => continue,
                },
                _ => continue,
            };
            let got = read(&folder.join(file), format, option("filter"));
            let wanted = match file {
                // Blank lines and comments are skipped, repeated names count once (spec 05 §12 rows 11, 49).
                "nodes-blank.txt" => Some(vec!["web1.acme.test", "db1.acme.test"]),
                "nodes-comment.txt" | "nodes-dup.txt" => Some(vec!["web1.acme.test"]),
                _ => row["nodes"].as_array().map(|nodes| nodes.iter().map(|node| node.as_str().unwrap()).collect()),
            };
            // A bad fact is refused before the list is read; filters are tested elsewhere.
            let wanted = if arguments.contains(&"bad") { continue } else { wanted };
            assert_eq!(got.as_ref().ok().map(Vec::len), wanted.as_ref().map(Vec::len), "{line}: {got:?}");
            if let (Ok(got), Some(wanted)) = (&got, wanted) {
                assert_eq!(*got, wanted, "{line}");
            }
            rows += 1;
        }
        assert!(rows >= 30, "{rows}");
    }

    #[test]
    fn results_of_an_earlier_request_are_a_list() {
        let text = r#"{"replies":[{"sender":"n1"},{"sender":"n2"},{"statuscode":1}]}"#;
        assert!(looks_like_results(text));
        assert_eq!(parse(text, Format::Results, None).unwrap(), ["n1", "n2"]);
        assert_eq!(parse("{\"x\":1}", Format::Results, None).unwrap(), Vec::<String>::new());
    }
}
