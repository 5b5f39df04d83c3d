//! JSON read into a small tree that still knows everything the schema checks need: exact keys, duplicates, which
//! numbers were written without a fraction, and where in the document a value stood.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use crate::v1::{Error, Layer, Problem};

/// Values in one document, beyond which it is refused: bounds the memory that a message can cost.
const MAX_NODES: usize = 200_000;

/// One JSON value. Strings borrow from the input where they have no escapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool,
    /// A whole number that was written without fraction or exponent and fits.
    Int(i64),
    /// Any other number.
    Number,
    String(Cow<'a, str>),
    Array(Vec<Self>),
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl Node<'_> {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "boolean",
            Self::Int(_) => "integer",
            Self::Number => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// Parses one document. Surrounding white space is fine, anything else around it is not.
pub(crate) fn parse(layer: Layer, bytes: &[u8]) -> Result<Node<'_>, Error> {
    let budget = Cell::new(MAX_NODES);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let node = Seed(&budget)
        .deserialize(&mut deserializer)
        .and_then(|node| deserializer.end().map(|()| node))
        .map_err(|error| Error::NotJson { layer, detail: error.to_string() })?;
    Ok(node)
}

struct Seed<'b>(&'b Cell<usize>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        let left = self.0.get();
        if left == 0 {
            return Err(D::Error::custom("too many values"));
        }
        self.0.set(left - 1);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(i64::try_from(value).map_or(Node::Number, Node::Int))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node<'de>, E> {
        Ok(Node::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Seed(self.0))? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            entries.push((key, map.next_value_seed(Seed(self.0))?));
        }
        Ok(Node::Object(entries))
    }
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }
}

/// A value together with where it stands, for checks that name the place.
pub(crate) struct At<'n, 'a> {
    layer: Layer,
    /// JSON pointer; empty for the whole document.
    path: String,
    node: &'n Node<'a>,
}

impl<'n, 'a> At<'n, 'a> {
    pub(crate) fn root(layer: Layer, node: &'n Node<'a>) -> Self {
        Self { layer, path: String::new(), node }
    }

    pub(crate) fn error(&self, problem: Problem) -> Error {
        Error::Schema { layer: self.layer, path: self.path.clone(), problem }
    }

    fn wrong_type(&self, expected: &'static str) -> Error {
        self.error(Problem::WrongType { expected, found: self.node.type_name() })
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node, Node::Null)
    }

    /// Reads the document as an object in which the `known` keys stand at most once, spelled exactly so. A key that
    /// differs from a known one only in letter case is refused too: readers that ignore case would see another value.
    pub(crate) fn object(&self, known: &'static [&'static str]) -> Result<Fields<'_, 'n, 'a>, Error> {
        let Node::Object(entries) = self.node else { return Err(self.wrong_type("object")) };
        let mut values = [None; 8];
        debug_assert!(known.len() <= values.len(), "more keys than slots");
        for (key, value) in entries {
            if let Some(index) = known.iter().position(|name| name == key) {
                if values[index].replace(value).is_some() {
                    return Err(self.error(Problem::DuplicateKey(known[index])));
                }
            } else if let Some(name) = known.iter().find(|name| folds_to(key, name)) {
                return Err(self.error(Problem::KeyInOtherCase(name)));
            }
        }
        Ok(Fields { at: self, known, values })
    }

    pub(crate) fn array(&self) -> Result<impl Iterator<Item = At<'n, 'a>> + use<'n, 'a>, Error> {
        let Node::Array(items) = self.node else { return Err(self.wrong_type("array")) };
        let (layer, path) = (self.layer, self.path.clone());
        Ok(items.iter().enumerate().map(move |(index, node)| At { layer, path: format!("{path}/{index}"), node }))
    }

    pub(crate) fn text(&self) -> Result<&'n str, Error> {
        match self.node {
            Node::String(text) => Ok(text),
            _ => Err(self.wrong_type("string")),
        }
    }

    /// A string of at least one character.
    pub(crate) fn non_empty(&self) -> Result<&'n str, Error> {
        let text = self.text()?;
        if text.is_empty() { Err(self.error(Problem::TooShort)) } else { Ok(text) }
    }

    pub(crate) fn integer(&self) -> Result<i64, Error> {
        match self.node {
            Node::Int(value) => Ok(*value),
            _ => Err(self.wrong_type("integer")),
        }
    }

    pub(crate) fn texts(&self) -> Result<Vec<String>, Error> {
        let Node::Array(items) = self.node else { return Err(self.wrong_type("array")) };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Node::String(text) => texts.push(text.as_ref().to_owned()),
                _ => return Err(self.error(Problem::WrongType { expected: "string", found: item.type_name() })),
            }
        }
        Ok(texts)
    }

    /// All entries of an object whose keys are free.
    pub(crate) fn entries(&self) -> Result<&'n [(Cow<'a, str>, Node<'a>)], Error> {
        match self.node {
            Node::Object(entries) => Ok(entries),
            _ => Err(self.wrong_type("object")),
        }
    }
}

/// ASCII case, plus the two characters that Unicode folds to ASCII letters (long s and the Kelvin sign).
fn folds_to(key: &str, name: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name);
    }
    let plain: String = key
        .chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c,
        })
        .collect();
    plain.eq_ignore_ascii_case(name)
}

/// The known keys of an object.
pub(crate) struct Fields<'f, 'n, 'a> {
    at: &'f At<'n, 'a>,
    known: &'static [&'static str],
    values: [Option<&'n Node<'a>>; 8],
}

impl<'n, 'a> Fields<'_, 'n, 'a> {
    /// The value of a key that may be absent. `name` is one of the known keys.
    pub(crate) fn optional(&self, name: &'static str) -> Option<At<'n, 'a>> {
        let index = self.known.iter().position(|known| *known == name)?;
        let node = self.values[index]?;
        Some(At { layer: self.at.layer, path: format!("{}/{name}", self.at.path), node })
    }

    /// As [`Self::optional`], with null taken as absent.
    pub(crate) fn present(&self, name: &'static str) -> Option<At<'n, 'a>> {
        self.optional(name).filter(|at| !at.is_null())
    }

    /// The value of a key that must be there.
    pub(crate) fn required(&self, name: &'static str) -> Result<At<'n, 'a>, Error> {
        self.optional(name).ok_or_else(|| self.at.error(Problem::Missing(name)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_keep_how_they_were_written() {
        for (text, node) in [
            ("60", Node::Int(60)),
            ("-1", Node::Int(-1)),
            ("9223372036854775807", Node::Int(i64::MAX)),
            ("9223372036854775808", Node::Number),
            ("60.0", Node::Number),
            ("6e1", Node::Number),
        ] {
            assert_eq!(parse(Layer::Request, text.as_bytes()).unwrap(), node, "{text}");
        }
    }

    #[test]
    fn keys_of_other_case_and_duplicates_are_refused() {
        for (text, fine) in [
            (r#"{"callerid":"a","x":1,"x":2,"X":3}"#, true),
            (r#"{"callerid":"a","callerid":"a"}"#, false),
            (r#"{"callerid":"a","CallerID":"b"}"#, false),
            (r#"{"callerid":"a","caller\u0069d":"b"}"#, false),
            ("{\"callerid\":\"a\",\"tok\u{212a}en\":\"b\"}", true),
            ("{\"\u{17f}enderid\":\"b\"}", false),
        ] {
            let node = parse(Layer::Request, text.as_bytes()).unwrap();
            assert_eq!(At::root(Layer::Request, &node).object(&["callerid", "senderid"]).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        assert!(parse(Layer::Transport, "[".repeat(100_000).as_bytes()).is_err());
        let many = format!("[{}0]", "0,".repeat(MAX_NODES));
        let error = parse(Layer::Transport, many.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("too many values"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Layer::Transport, &bytes);
        }
    }
}
