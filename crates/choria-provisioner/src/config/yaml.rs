//! A YAML document as a tree in which every value knows where it was written.
//!
//! The typed reader in [`super::reader`] works on this tree, so that an error about a value can name line and
//! column. Spec 04 §3: `yes` and `no` are booleans, anchors and JSON are accepted, of exact duplicates the
//! last one counts, and only the first document is read.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

/// A value with the place where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// What was written.
    pub(crate) value: Value,
    /// Line, from 1; 0 when unknown.
    pub(crate) line: u64,
    /// Column, from 1; 0 when unknown.
    pub(crate) column: u64,
}

/// The kinds of YAML values that a configuration may hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Value {
    /// The kind with its value, in words for error texts.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(b) => format!("the boolean {b}"),
            Self::Integer(n) => format!("the number {n}"),
            Self::Float(n) => format!("the number {n}"),
            Self::Text(text) => format!("the text {text:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Why a text is not YAML.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) reason: String,
}

/// Parses all documents of `text`; the caller takes the first. Of keys that appear twice the last counts.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    parse_with(text, options)
}

/// The same for files in which nothing may be ignored: a key that appears twice is an error.
pub(crate) fn parse_strict(text: &str) -> Result<Vec<Node>, SyntaxError> {
    parse_with(text, serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::Error })
}

fn parse_with(text: &str, options: serde_saphyr::Options) -> Result<Vec<Node>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_saphyr::from_multiple_with_options::<Node>(text, options).map_err(|error| {
        let location = error.location();
        let reason = error.without_snippet().to_string();
        SyntaxError {
            line: location.map_or(0, |l| l.line()),
            column: location.map_or(0, |l| l.column()),
            reason: reason.lines().next().unwrap_or_default().to_owned(),
        }
    })
}

/// How a scalar that YAML took for a number or a boolean was written in `source`, such as `10` or `yes`. `None` when that
/// cannot be told for sure (aliases, odd notations).
pub(crate) fn written<'s>(source: &'s str, node: &Node) -> Option<&'s str> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let line = source.lines().nth(usize::try_from(node.line.checked_sub(1)?).ok()?)?;
    let (start, _) = line.char_indices().nth(usize::try_from(node.column.checked_sub(1)?).ok()?)?;
    let rest = &line[start..];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_');
    let word = &rest[..rest.find(|c| !is_plain(c)).unwrap_or(rest.len())];
    let same = parse(word).ok()?.into_iter().next()?.value == node.value;
    same.then_some(word)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), column: spanned.referenced.column(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element::<Node>()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<String, Node>()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_place_and_kind() {
        let docs = parse("a: 1m\nb:\n  c: yes\n  d: [x, 5]\n").unwrap();
        let Value::Map(top) = &docs[0].value else { panic!("a mapping") };
        assert_eq!((top[0].1.line, top[0].1.column), (1, 4));
        assert_eq!(top[0].1.value, Value::Text("1m".to_owned()));
        let Value::Map(inner) = &top[1].1.value else { panic!("a mapping") };
        assert_eq!(inner[0].1.value, Value::Bool(true));
        assert_eq!(inner[0].1.line, 3);
        let Value::List(list) = &inner[1].1.value else { panic!("a list") };
        assert_eq!(list[1].value, Value::Integer(5));
    }

    #[test]
    fn a_quoted_word_is_text() {
        let docs = parse("a: 'true'\nb: '4'\nc: ''\n").unwrap();
        let Value::Map(top) = &docs[0].value else { panic!("a mapping") };
        for (_, node) in top {
            assert!(matches!(node.value, Value::Text(_)), "{node:?}");
        }
    }

    #[test]
    fn a_fault_names_its_line() {
        let fault = parse("a: 1\nb: [\n").unwrap_err();
        assert!(fault.line >= 2, "{fault:?}");
    }
}
