//! Typed access to the configuration tree: strict types, letter case ignored in keys, unknown keys told with
//! the nearest known name.

use std::path::Path;

use super::yaml::{Node, Value};
use super::{ConfigError, Position};

/// A value with its place in the file.
#[derive(Debug, Clone)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) at: Position,
}

/// One mapping of the file.
pub(crate) struct Section<'a> {
    path: &'a Path,
    /// `features.` for the inner section, empty at the top.
    prefix: &'static str,
    entries: Vec<(String, Node)>,
}

impl<'a> Section<'a> {
    /// Wraps the entries. Of several spellings of a key the last of the sorted ones counts, so `interval`
    /// beats `INTERVAL`; of exact duplicates the last (spec 04 §3).
    pub(crate) fn new(path: &'a Path, prefix: &'static str, mut entries: Vec<(String, Node)>) -> Self {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Self { path, prefix, entries }
    }

    /// Tells of keys that are not in `known` and of keys that are set more than once.
    pub(crate) fn audit(&self, known: &[&str], warnings: &mut Vec<String>) {
        for (index, (key, node)) in self.entries.iter().enumerate() {
            let at = self.position(node);
            let lower = key.to_lowercase();
            if !known.contains(&lower.as_str()) {
                let hint = nearest(&lower, known).map(|k| format!(", did you mean {}{k}?", self.prefix));
                warnings.push(format!(
                    "{at}: unknown key {}{key} has no effect{}",
                    self.prefix,
                    hint.unwrap_or_default()
                ));
            } else if self.entries[index + 1..].iter().any(|(other, _)| other.to_lowercase() == lower) {
                warnings.push(format!("{at}: {}{key} is set more than once, this one does not count", self.prefix));
            }
        }
    }

    /// For files in which nothing may be ignored: the first key that is not in `known` or is set twice, as an error.
    pub(crate) fn refuse_unknown(&self, known: &[&str], what: &str) -> Result<(), ConfigError> {
        for (index, (key, node)) in self.entries.iter().enumerate() {
            let lower = key.to_lowercase();
            let reason = if !known.contains(&lower.as_str()) {
                let hint = nearest(&lower, known)
                    .map_or_else(|| format!("known are {}", known.join(", ")), |near| format!("did you mean {near}?"));
                format!("unknown key {key} in {what}, {hint}")
            } else if self.entries[index + 1..].iter().any(|(other, _)| other.to_lowercase() == lower) {
                format!("{key} is set more than once in {what}")
            } else {
                continue;
            };
            return Err(ConfigError::Invalid { at: self.position(node), reason });
        }
        Ok(())
    }

    /// The value that counts for a key, unless it is unset or null.
    fn find(&self, key: &str) -> Option<&Node> {
        let found = self.entries.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, node)| node).filter(|node| node.value != Value::Null)
    }

    pub(crate) fn position(&self, node: &Node) -> Position {
        Position { path: self.path.to_owned(), line: node.line, column: node.column }
    }

    fn wrong_type(&self, key: &str, node: &Node, expected: &'static str) -> ConfigError {
        // Texts that YAML takes for something else are the usual slip; say how to write them.
        let hint = match (expected, &node.value) {
            ("text", Value::Integer(_) | Value::Float(_) | Value::Bool(_)) => "; write it in quotes",
            ("a whole number" | "true or false", Value::Text(_)) => "; write it without quotes",
            _ => "",
        };
        ConfigError::WrongType {
            at: self.position(node),
            key: format!("{}{key}", self.prefix),
            expected,
            found: format!("{}{hint}", node.value.describe()),
        }
    }

    /// Whether the key is present at all.
    pub(crate) fn place(&self, key: &str) -> Option<Position> {
        self.find(key).map(|node| self.position(node))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<Located<String>>, ConfigError> {
        let Some(node) = self.find(key) else { return Ok(None) };
        match &node.value {
            Value::Text(text) => Ok(Some(Located { value: text.clone(), at: self.position(node) })),
            _ => Err(self.wrong_type(key, node, "text")),
        }
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<Located<bool>>, ConfigError> {
        let Some(node) = self.find(key) else { return Ok(None) };
        match node.value {
            Value::Bool(value) => Ok(Some(Located { value, at: self.position(node) })),
            _ => Err(self.wrong_type(key, node, "true or false")),
        }
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<Located<i128>>, ConfigError> {
        let Some(node) = self.find(key) else { return Ok(None) };
        match node.value {
            Value::Integer(value) => Ok(Some(Located { value, at: self.position(node) })),
            _ => Err(self.wrong_type(key, node, "a whole number")),
        }
    }

    /// A number with or without a fraction.
    pub(crate) fn number(&self, key: &str) -> Result<Option<Located<f64>>, ConfigError> {
        let Some(node) = self.find(key) else { return Ok(None) };
        #[expect(clippy::cast_precision_loss, reason = "limits per second are far below what a float holds")]
        let value = match node.value {
            Value::Integer(value) => value as f64,
            Value::Float(value) => value,
            _ => return Err(self.wrong_type(key, node, "a number")),
        };
        Ok(Some(Located { value, at: self.position(node) }))
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<Located<String>>>, ConfigError> {
        let Some(node) = self.find(key) else { return Ok(None) };
        let Value::List(items) = &node.value else { return Err(self.wrong_type(key, node, "a list of texts")) };
        let item = |item: &Node| match &item.value {
            Value::Text(text) => Ok(Located { value: text.clone(), at: self.position(item) }),
            _ => Err(self.wrong_type(key, item, "text")),
        };
        items.iter().map(item).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// One text, or a list of texts. Absent is the empty list.
    pub(crate) fn text_or_texts(&self, key: &str) -> Result<Vec<Located<String>>, ConfigError> {
        match self.find(key) {
            Some(Node { value: Value::List(_), .. }) => Ok(self.texts(key)?.unwrap_or_default()),
            _ => Ok(self.text(key)?.into_iter().collect()),
        }
    }

    /// The entries of a mapping, as they are in the file; `None` when the key is unset.
    pub(crate) fn entries(&self, key: &str) -> Result<Option<&[(String, Node)]>, ConfigError> {
        match self.find(key) {
            None => Ok(None),
            Some(Node { value: Value::Map(entries), .. }) => Ok(Some(entries)),
            Some(node) => Err(self.wrong_type(key, node, "a mapping")),
        }
    }

    /// The items of a list, as they are in the file; `None` when the key is unset.
    pub(crate) fn items(&self, key: &str) -> Result<Option<&[Node]>, ConfigError> {
        match self.find(key) {
            None => Ok(None),
            Some(Node { value: Value::List(items), .. }) => Ok(Some(items)),
            Some(node) => Err(self.wrong_type(key, node, "a list")),
        }
    }

    pub(crate) fn section(&self, key: &'static str, prefix: &'static str) -> Result<Self, ConfigError> {
        let entries = match self.find(key) {
            None => Vec::new(),
            Some(Node { value: Value::Map(entries), .. }) => entries.clone(),
            Some(node) => return Err(self.wrong_type(key, node, "a mapping")),
        };
        Ok(Self::new(self.path, prefix, entries))
    }
}

/// The known name that is nearest to a misspelt one, if any is near enough to be meant.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let limit = (name.len() / 3).clamp(1, 4);
    let scored = known.iter().map(|k| (distance(name, k), *k));
    scored.min().filter(|(d, _)| *d <= limit).map(|(_, k)| k)
}

/// Levenshtein distance; both texts are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_only_when_it_is_near() {
        let known = ["interval", "helper", "token"];
        assert_eq!(nearest("intervall", &known), Some("interval"));
        assert_eq!(nearest("heplr", &known), None);
        assert_eq!(nearest("helpr", &known), Some("helper"));
        assert_eq!(nearest("completely_else", &known), None);
    }
}
