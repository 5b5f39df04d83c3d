//! Queries on lists, `#(name=="x")`, and wildcards.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::path::{Next, component};
use super::{Lookup, PathError};

/// `path operator value` of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query<'p> {
    path: &'p str,
    operator: &'p str,
    value: Cow<'p, str>,
}

/// Reads `#(...)` or `#(...)#` at the start of `path`: the query, whether all matches are wanted, and what follows.
pub(super) fn parse(path: &str) -> Option<(Query<'_>, bool, Next<'_>)> {
    let bytes = path.as_bytes();
    let (mut at, mut depth, mut operator_at) = (2, 1_usize, None);
    while at < bytes.len() {
        match bytes[at] {
            b'!' | b'=' | b'<' | b'>' | b'%' if depth == 1 && operator_at.is_none() => operator_at = Some(at),
            b'\\' => at += 1,
            b'[' | b'(' => depth += 1,
            b']' | b')' => depth -= 1,
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        at += 1;
    }
    if at >= bytes.len() {
        return None;
    }
    let query = match operator_at {
        None => Query { path: path[2..at].trim(), operator: "", value: Cow::Borrowed("") },
        Some(operator_at) => {
            let (operator, value) = split_operator(path[operator_at..at].trim());
            Query { path: path[2..operator_at].trim(), operator, value: unquote(value.trim()) }
        }
    };
    let (all, rest) = match path[at + 1..].strip_prefix('#') {
        Some(rest) => (true, rest),
        None => (false, &path[at + 1..]),
    };
    // What follows must begin with a separator; text in between makes the component unreadable.
    if rest.is_empty() {
        return Some((query, all, Next::End));
    }
    let following = component(rest);
    following.text.is_empty().then_some((query, all, following.next))
}

fn split_operator(text: &str) -> (&str, &str) {
    for (token, operator) in [("!=", "!="), ("!%", "!%"), ("<=", "<="), (">=", ">="), ("==", "=")] {
        if let Some(value) = text.strip_prefix(token) {
            return (operator, value);
        }
    }
    text.split_at(1)
}

fn unquote(text: &str) -> Cow<'_, str> {
    if text.len() >= 2 && text.starts_with('"') && text.ends_with('"') {
        match serde_json::from_str::<String>(text) {
            Ok(plain) => Cow::Owned(plain),
            Err(_) => Cow::Borrowed(&text[1..text.len() - 1]),
        }
    } else {
        Cow::Borrowed(text)
    }
}

impl Query<'_> {
    pub(super) fn matches(&self, item: &Value, lookup: &Lookup, depth: usize) -> Result<bool, PathError> {
        lookup.pay(1)?;
        let found = match item {
            Value::Object(_) | Value::Array(_) => lookup.get(item, self.path, depth + 1)?,
            _ if self.path.is_empty() => Some(Cow::Borrowed(item)),
            _ => return Ok(false),
        };
        if let Some(kind) = self.value.strip_prefix('~') {
            let truth = match kind {
                "*" => found.is_some(),
                "null" => found.as_deref().is_none_or(Value::is_null),
                "true" => found.as_deref().is_some_and(is_truthy),
                "false" => !found.as_deref().is_some_and(is_truthy),
                _ => return Ok(false),
            };
            return Ok(self.operator.is_empty() || compare_bool(truth, self.operator, "true"));
        }
        let Some(value) = found else { return Ok(false) };
        if self.operator.is_empty() {
            return Ok(true);
        }
        match value.as_ref() {
            Value::String(text) => compare_text(text, self.operator, &self.value, lookup),
            Value::Number(number) => {
                let wanted = self.value.parse::<f64>().unwrap_or(0.0);
                let number = number.as_f64().unwrap_or(0.0);
                Ok(number.partial_cmp(&wanted).is_some_and(|ordering| ordered(ordering, self.operator)))
            }
            Value::Bool(flag) => Ok(compare_bool(*flag, self.operator, &self.value)),
            _ => Ok(false),
        }
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "1" | "t" | "true"),
        _ => false,
    }
}

fn ordered(ordering: Ordering, operator: &str) -> bool {
    match operator {
        "=" => ordering.is_eq(),
        "!=" => ordering.is_ne(),
        "<" => ordering.is_lt(),
        "<=" => ordering.is_le(),
        ">" => ordering.is_gt(),
        ">=" => ordering.is_ge(),
        _ => false,
    }
}

fn compare_text(text: &str, operator: &str, wanted: &str, lookup: &Lookup) -> Result<bool, PathError> {
    match operator {
        "%" => wildcard(text, wanted, lookup),
        "!%" => wildcard(text, wanted, lookup).map(|matched| !matched),
        _ => Ok(ordered(text.cmp(wanted), operator)),
    }
}

fn compare_bool(flag: bool, operator: &str, wanted: &str) -> bool {
    match (flag, operator) {
        (true, "=") => wanted == "true",
        (true, "!=") => wanted != "true",
        (true, ">") => wanted == "false",
        (false, "=") => wanted == "false",
        (false, "!=") => wanted != "false",
        (false, "<") => wanted == "true",
        (true, ">=") | (false, "<=") => true,
        _ => false,
    }
}

/// Whether `text` fits `pattern` with `*`, `?` and escapes. Remembers only the last `*`, so the work is at most the
/// product of both lengths, and it is paid for.
pub(super) fn wildcard(text: &str, pattern: &str, lookup: &Lookup) -> Result<bool, PathError> {
    lookup.pay(1 + text.len() * pattern.len() / 256)?;
    let text: Vec<char> = text.chars().collect();
    let pattern = pattern_chars(pattern);
    let (mut t, mut p, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(Glob::Any) => {
                star = Some((p, t));
                p += 1;
            }
            Some(Glob::One) => (t, p) = (t + 1, p + 1),
            Some(Glob::Char(c)) if *c == text[t] => (t, p) = (t + 1, p + 1),
            _ => match &mut star {
                Some((after, from)) => {
                    *from += 1;
                    (p, t) = (*after + 1, *from);
                }
                None => return Ok(false),
            },
        }
    }
    Ok(pattern[p..].iter().all(|glob| *glob == Glob::Any))
}

#[derive(PartialEq, Eq)]
enum Glob {
    Any,
    One,
    Char(char),
}

fn pattern_chars(pattern: &str) -> Vec<Glob> {
    let mut chars = pattern.chars();
    let mut globs = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '*' => globs.push(Glob::Any),
            '?' => globs.push(Glob::One),
            '\\' => globs.extend(chars.next().map(Glob::Char)),
            c => globs.push(Glob::Char(c)),
        }
    }
    globs
}
