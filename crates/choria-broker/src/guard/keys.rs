//! JSON that every reader reads alike: no object has a key twice, not even in another letter case.
//!
//! Go's decoder matches keys without regard to case and lets the last one win, others take the first or only exact
//! ones. A message with both `identity` and `Identity` would pass here as one node and reach the fleet as another.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Whether `json` is one JSON document whose objects have distinct keys.
pub(super) fn are_unambiguous(json: &[u8]) -> bool {
    serde_json::from_slice::<Distinct>(json).is_ok()
}

struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Distinct {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(folded(&key)) {
                return Err(A::Error::custom("a key stands twice"));
            }
            map.next_value::<Self>()?;
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

/// Upper case first: the long s and the Kelvin sign fold to ASCII letters only that way.
fn folded(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_must_be_distinct_at_every_depth() {
        for (json, expected) in [
            (r#"{"a":1,"b":{"a":[{"a":null},{"a":1.5}]},"c":"x"}"#, true),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"a":1,"A":1}"#, false),
            (r#"{"x":[{"identity":"a","\u0049dentity":"b"}]}"#, false),
            ("{\"subject\":1,\"\u{17f}ubject\":2}", false),
            ("{\"k\":1,\"\u{212a}\":2}", false),
            ("[1,2,{}]", true),
            ("{} {}", false),
            ("", false),
        ] {
            assert_eq!(are_unambiguous(json.as_bytes()), expected, "{json}");
        }
    }
}
