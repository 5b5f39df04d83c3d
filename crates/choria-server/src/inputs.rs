//! Inputs of an action as Go agents read them: names in any letter case, null and absent are the zero value, a wrong
//! type is status 4 (spec 03 §7).

use choria_rpc::{Call, Reply, StatusCode};
use serde_json::{Map, Value};

/// The inputs of one call.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    agent: &'a str,
    action: &'a str,
    data: &'a Map<String, Value>,
}

impl<'a> Inputs<'a> {
    /// The inputs of `call`, which went to `agent`.
    pub fn of(agent: &'a str, call: &'a Call) -> Self {
        Self { agent, action: &call.action, data: &call.data }
    }

    /// A text; absent is empty.
    ///
    /// # Errors
    /// The reply to send when it is of another type.
    pub fn text(&self, name: &str) -> Result<&'a str, Reply> {
        match self.find(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong(name, other, "a string")),
        }
    }

    /// A whole number without fraction or exponent; absent is 0.
    ///
    /// # Errors
    /// As [`Inputs::text`].
    pub fn integer(&self, name: &str) -> Result<i64, Reply> {
        match self.find(name) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or_else(|| self.wrong(name, value, "a whole number")),
        }
    }

    /// A map of texts in the order they came; absent is empty, null among its values is empty text.
    ///
    /// # Errors
    /// As [`Inputs::text`].
    pub fn texts(&self, name: &str) -> Result<Vec<(&'a str, &'a str)>, Reply> {
        let map = match self.find(name) {
            None => return Ok(Vec::new()),
            Some(Value::Object(map)) => map,
            Some(other) => return Err(self.wrong(name, other, "a map of strings")),
        };
        map.iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.as_str(), text.as_str())),
                Value::Null => Ok((key.as_str(), "")),
                other => Err(self.wrong(name, other, "a map of strings")),
            })
            .collect()
    }

    /// The last input of that name in any letter case; null counts as absent.
    fn find(&self, name: &str) -> Option<&'a Value> {
        self.data.iter().rev().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null()).map(|(_, v)| v)
    }

    fn wrong(&self, name: &str, value: &Value, wanted: &str) -> Reply {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        let Self { agent, action, .. } = self;
        Reply::fail(
            StatusCode::InvalidData,
            format!("Could not parse request data for {agent}#{action}: input {name} must be {wanted} and is {found}"),
        )
    }
}
