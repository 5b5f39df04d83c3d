//! The body of a request: a JSON object of options and of filters on brokers, judged as nats-server judges it.

use serde_json::{Map, Value};

use crate::shared::Shared;

/// Options by name, of any case.
#[derive(Debug, Default)]
pub(super) struct Body {
    fields: Map<String, Value>,
    /// Name of the options in error texts.
    options: &'static str,
}

impl Body {
    /// Reads a body; an empty one has no options.
    ///
    /// # Errors
    /// What is wrong with it, in nats-server's words.
    pub(super) fn parse(body: &[u8], options: &'static str) -> Result<Self, String> {
        if body.is_empty() {
            return Ok(Self { fields: Map::new(), options });
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self { fields, options }),
            Ok(Value::Null) => Ok(Self { fields: Map::new(), options }),
            Ok(other) => Err(format!("json: cannot unmarshal {} into Go value of type server.{options}", kind(&other))),
            Err(error) => Err(syntax_error(body, &error)),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let exact = self.fields.get(key);
        let found = exact
            .or_else(|| self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value));
        found.filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> String {
        format!("json: cannot unmarshal {} into Go struct field {}.{key} of type {wanted}", kind(value), self.options)
    }

    /// A text; empty when it is not there.
    pub(super) fn text(&self, key: &str) -> Result<&str, String> {
        match self.get(key) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong(key, other, "string")),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.wrong(key, other, "bool")),
        }
    }

    /// An integer; 0 when it is not there.
    pub(super) fn integer(&self, key: &str, wanted: &str) -> Result<i64, String> {
        match self.get(key) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or_else(|| self.wrong(key, value, wanted)),
        }
    }

    /// A count; what is below 0 counts as 0.
    pub(super) fn count(&self, key: &str) -> Result<usize, String> {
        Ok(usize::try_from(self.integer(key, "int")?).unwrap_or(0))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&str>, String> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                list.iter().map(|value| value.as_str().ok_or_else(|| self.wrong(key, value, "string"))).collect()
            }
            Some(other) => Err(self.wrong(key, other, "[]string")),
        }
    }

    /// Whether the filters on brokers let this one answer.
    pub(super) fn is_for(&self, shared: &Shared) -> Result<bool, String> {
        let is_exact = self.boolean("exact_match")?;
        let fits = |wanted: &str, have: &str| match wanted {
            "" => true,
            wanted if is_exact => wanted == have,
            wanted => have.contains(wanted),
        };
        let live = shared.live();
        let cluster = live.config.cluster_name.as_deref().unwrap_or_default();
        let tags = self.texts("tags")?;
        let has = |tag: &&str| live.config.server_tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
        Ok(fits(self.text("server_name")?, &shared.server_name)
            && fits(self.text("host")?, &shared.host())
            && fits(self.text("cluster")?, cluster)
            && self.text("domain")?.is_empty()
            && tags.iter().all(has))
    }
}

/// Go's word for the kind of a JSON value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let found = text.chars().nth(error.column().saturating_sub(1)).unwrap_or(' ');
    let what = error.to_string();
    let place = match &*what {
        what if what.starts_with("trailing characters") => "after top-level value",
        what if what.starts_with("key must be a string") => "looking for beginning of object key string",
        what if what.starts_with("expected `:`") => "after object key",
        what if what.starts_with("expected `,` or `}`") => "after object key:value pair",
        what if what.starts_with("expected `,` or `]`") => "after array element",
        _ => "looking for beginning of value",
    };
    format!("invalid character '{found}' {place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_refused_in_the_words_of_the_reference() {
        for (body, text) in [
            ("junk", "invalid character 'j' looking for beginning of value"),
            (" ", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            ("{\"a\":1", "unexpected end of JSON input"),
            ("{\"a\":}", "invalid character '}' looking for beginning of value"),
            ("{}x", "invalid character 'x' after top-level value"),
            ("[]", "json: cannot unmarshal array into Go value of type server.VarzEventOptions"),
            ("5", "json: cannot unmarshal number into Go value of type server.VarzEventOptions"),
        ] {
            assert_eq!(Body::parse(body.as_bytes(), "VarzEventOptions").unwrap_err(), text, "{body}");
        }
        assert!(Body::parse(b"null", "VarzEventOptions").is_ok() && Body::parse(b"", "VarzEventOptions").is_ok());
        assert!(Body::parse("[".repeat(10_000).as_bytes(), "VarzEventOptions").is_err(), "depth is bounded");
    }

    #[test]
    fn options_have_types_and_names_of_any_case() {
        let body = Body::parse(br#"{"Limit":3,"offset":-1,"sort":5,"tags":"x","auth":true,"cid":null}"#, "O").unwrap();
        assert_eq!((body.count("limit"), body.count("offset"), body.boolean("auth")), (Ok(3), Ok(0), Ok(true)));
        assert_eq!(body.integer("cid", "uint64"), Ok(0));
        assert_eq!(
            body.text("sort").unwrap_err(),
            "json: cannot unmarshal number into Go struct field O.sort of type string"
        );
        assert_eq!(
            body.texts("tags").unwrap_err(),
            "json: cannot unmarshal string into Go struct field O.tags of type []string"
        );
    }
}
