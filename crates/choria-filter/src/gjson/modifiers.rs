//! `@name` and `@name:argument`.

use serde_json::{Map, Value};

use choria_protocol::json::value_text;

use super::{Lookup, PathError, size};

const KNOWN: [&str; 13] = [
    "this", "valid", "ugly", "pretty", "reverse", "keys", "values", "flatten", "join", "tostr", "fromstr", "group",
    "dig",
];

pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

impl Lookup {
    /// Applies a known modifier. `None` when the result does not exist.
    pub(super) fn modify(
        &self,
        value: &Value,
        name: &str,
        argument: &str,
        depth: usize,
    ) -> Result<Option<Value>, PathError> {
        let option = |key: &str| {
            serde_json::from_str::<Value>(argument).ok().and_then(|value| value.get(key)?.as_bool()).unwrap_or(false)
        };
        self.pay(size(value))?;
        Ok(match name {
            "reverse" => Some(reverse(value)),
            "keys" => Some(keys(value)),
            "values" => Some(values(value)),
            "flatten" => Some(flatten(value, option("deep"))),
            "join" => Some(join(value)),
            "group" => group(value),
            "tostr" => {
                let text = value_text(value);
                self.pay(text.len() / 16)?;
                Some(Value::String(text))
            }
            "fromstr" => value.as_str().and_then(|text| serde_json::from_str(text).ok()),
            "dig" => {
                let mut found = Vec::new();
                self.dig(value, argument, depth + 1, &mut found)?;
                Some(Value::Array(found))
            }
            _ => Some(value.clone()),
        })
    }

    /// Everything under `path` at any depth.
    fn dig(&self, value: &Value, path: &str, depth: usize, found: &mut Vec<Value>) -> Result<(), PathError> {
        if let Some(hit) = self.get(value, path, depth)? {
            found.push(self.owned(hit)?);
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.dig(item, path, depth + 1, found)),
            Value::Object(map) => map.values().try_for_each(|item| self.dig(item, path, depth + 1, found)),
            _ => Ok(()),
        }
    }
}

fn reverse(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().rev().cloned().collect(),
        Value::Object(map) => {
            Value::Object(map.iter().rev().map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        other => other.clone(),
    }
}

fn keys(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.keys().cloned().map(Value::String).collect(),
        Value::Array(items) => items.iter().map(|_| Value::Null).collect(),
        _ => Value::Array(vec![]),
    }
}

fn values(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.values().cloned().collect(),
        Value::Array(_) => value.clone(),
        other => Value::Array(vec![other.clone()]),
    }
}

/// Lists inside a list become part of it, with `deep` at any depth. The depth of a document is bounded by its parser.
fn flatten(value: &Value, deep: bool) -> Value {
    let Value::Array(items) = value else { return value.clone() };
    let mut flat = Vec::new();
    for item in items {
        match item {
            Value::Array(_) if deep => match flatten(item, true) {
                Value::Array(inner) => flat.extend(inner),
                other => flat.push(other),
            },
            Value::Array(inner) => flat.extend(inner.iter().cloned()),
            other => flat.push(other.clone()),
        }
    }
    Value::Array(flat)
}

/// The objects of a list as one object, later keys win.
fn join(value: &Value) -> Value {
    let Value::Array(items) = value else { return value.clone() };
    let mut joined = Map::new();
    for item in items {
        if let Value::Object(map) = item {
            joined.extend(map.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    Value::Object(joined)
}

/// An object of lists as a list of objects.
fn group(value: &Value) -> Option<Value> {
    let map = value.as_object()?;
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for (key, column) in map {
        for (index, item) in column.as_array().into_iter().flatten().enumerate() {
            if rows.len() == index {
                rows.push(Map::new());
            }
            rows[index].insert(key.clone(), item.clone());
        }
    }
    Some(rows.into_iter().map(Value::Object).collect())
}
