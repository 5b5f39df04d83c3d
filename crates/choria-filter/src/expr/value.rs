//! Values of expressions.

use std::collections::BTreeMap;
use std::sync::Arc;

use choria_protocol::json::float_text;
use serde_json::Number;

use super::run::{Budget, RunError};

/// Deepest nesting of lists and maps. Keeps every walk over a value, and dropping it, off the end of the stack.
const MAX_DEPTH: usize = 128;

/// A value in an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A map that is not there: equal to nil, and all its members are nil. What data plugins give that found nothing.
    NilMap,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating point number.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Bytes, of which only the number can be asked.
    Bytes(usize),
    /// A list.
    List(List),
    /// A map with text as keys, sorted.
    Map(Map),
    /// A point in time, nanoseconds since 1970.
    Time(jiff::Timestamp),
    /// A span of time in nanoseconds.
    Duration(i64),
}

/// Items of a list, shared.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    items: Arc<Vec<Value>>,
    size: Size,
}

/// Entries of a map, shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    entries: Arc<BTreeMap<String, Value>>,
    size: Size,
}

/// How deep and how heavy a value is, known without walking over it: parts may be shared many times over.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Size {
    depth: usize,
    weight: usize,
}

impl List {
    pub(super) fn new(items: Vec<Value>, budget: &Budget) -> Result<Self, RunError> {
        budget.spend(items.len())?;
        let size = Size::of(items.iter())?;
        Ok(Self { items: Arc::new(items), size })
    }
}

impl std::ops::Deref for List {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.items
    }
}

impl std::ops::Deref for Map {
    type Target = BTreeMap<String, Value>;

    fn deref(&self) -> &BTreeMap<String, Value> {
        &self.entries
    }
}

impl Value {
    /// Text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// A list, paid for.
    ///
    /// # Errors
    /// When the budget is spent or lists nest too deeply.
    pub fn list(items: Vec<Self>, budget: &Budget) -> Result<Self, RunError> {
        List::new(items, budget).map(Self::List)
    }

    /// A map, paid for.
    ///
    /// # Errors
    /// When the budget is spent or maps nest too deeply.
    pub fn map(entries: BTreeMap<String, Self>, budget: &Budget) -> Result<Self, RunError> {
        budget.spend(entries.len() * 2)?;
        let mut size = Size::of(entries.values())?;
        size.weight = entries.keys().fold(size.weight, |weight, key| weight.saturating_add(1 + key.len() / 16));
        Ok(Self::Map(Map { entries: Arc::new(entries), size }))
    }

    /// A JSON value. All numbers become floating point numbers, as in the original, unless `integers` asks to keep whole ones.
    ///
    /// # Errors
    /// When the budget is spent or the value nests too deeply.
    pub fn from_json(json: &serde_json::Value, integers: bool, budget: &Budget) -> Result<Self, RunError> {
        Self::from_json_at(json, integers, budget, 0)
    }

    fn from_json_at(json: &serde_json::Value, integers: bool, budget: &Budget, depth: usize) -> Result<Self, RunError> {
        use serde_json::Value as Json;
        if depth > MAX_DEPTH {
            return Err(RunError::new("value nests too deeply"));
        }
        budget.spend(1)?;
        Ok(match json {
            Json::Null => Self::Nil,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(number) => match number.as_i64() {
                Some(whole) if integers => Self::Int(whole),
                _ => Self::Float(number.as_f64().unwrap_or(0.0)),
            },
            Json::String(text) => {
                budget.spend_text(text.len())?;
                Self::text(text.as_str())
            }
            Json::Array(items) => {
                let items = items.iter().map(|item| Self::from_json_at(item, integers, budget, depth + 1));
                Self::list(items.collect::<Result<_, _>>()?, budget)?
            }
            Json::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    budget.spend_text(key.len())?;
                    Ok((key.clone(), Self::from_json_at(value, integers, budget, depth + 1)?))
                });
                Self::map(entries.collect::<Result<_, RunError>>()?, budget)?
            }
        })
    }

    /// The value as JSON; times and durations as text and nanoseconds, numbers that JSON cannot hold as null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Nil | Self::NilMap | Self::Bytes(_) => Json::Null,
            Self::Bool(flag) => Json::Bool(*flag),
            Self::Int(number) | Self::Duration(number) => Json::from(*number),
            Self::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
            Self::Text(text) => Json::String(text.as_ref().to_owned()),
            Self::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Self::Map(entries) => {
                Json::Object(entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect())
            }
            Self::Time(time) => Json::String(time.to_string()),
        }
    }

    /// Name of the type, as `type()` gives it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "string",
            Self::Bytes(_) | Self::List(_) => "array",
            Self::Map(_) | Self::NilMap => "map",
            Self::Time(_) => "time.Time",
            Self::Duration(_) => "time.Duration",
        }
    }

    /// Whether `== nil` holds.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil | Self::NilMap)
    }

    /// What `==` says: numbers compare across their types, lists and maps by content.
    pub(super) fn equals(&self, other: &Self, budget: &Budget) -> Result<bool, RunError> {
        budget.spend(1)?;
        Ok(match (self, other) {
            (Self::Int(a), Self::Float(b)) | (Self::Float(b), Self::Int(a)) => as_float(*a) == *b,
            (Self::Text(a), Self::Text(b)) => {
                budget.spend_text(a.len().min(b.len()))?;
                a == b
            }
            (Self::List(a), Self::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for ((a_key, a), (b_key, b)) in a.iter().zip(b.iter()) {
                    if a_key != b_key || !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (a, b) if a.is_nil() && b.is_nil() => true,
            (a, b) => a == b,
        })
    }

    /// What `string()` gives.
    pub(super) fn display(&self) -> String {
        match self {
            Self::Nil => "<nil>".to_owned(),
            Self::NilMap => "map[]".to_owned(),
            Self::Bool(flag) => flag.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => short_float(*number),
            Self::Text(text) => text.as_ref().to_owned(),
            Self::Bytes(_) => "[...]".to_owned(),
            Self::List(items) => format!("[{}]", items.iter().map(Self::display).collect::<Vec<_>>().join(" ")),
            Self::Map(entries) => {
                let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key}:{}", value.display())).collect();
                format!("map[{}]", entries.join(" "))
            }
            Self::Time(time) => time.to_string(),
            Self::Duration(nanoseconds) => super::temporal::duration_text(*nanoseconds),
        }
    }

    /// Rough number of values in it, for the budget.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::List(list) => list.size.weight,
            Self::Map(map) => map.size.weight,
            Self::Text(text) => 1 + text.len() / 16,
            _ => 1,
        }
    }
}

impl Size {
    /// Size of what holds these values.
    fn of<'v>(values: impl Iterator<Item = &'v Value>) -> Result<Self, RunError> {
        let mut size = Self { depth: 1, weight: 1 };
        for value in values {
            let depth = match value {
                Value::List(list) => list.size.depth,
                Value::Map(map) => map.size.depth,
                _ => 0,
            };
            size.depth = size.depth.max(depth + 1);
            size.weight = size.weight.saturating_add(value.weight());
        }
        if size.depth > MAX_DEPTH { Err(RunError::new("value nests too deeply")) } else { Ok(size) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "comparing across number types is defined through floats")]
pub(super) fn as_float(number: i64) -> f64 {
    number as f64
}

/// Go's `%v` of a float: shortest text, exponent form below 1e-4 and from 1e21 on, exponents of two digits at least.
fn short_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return float_text(number);
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}
