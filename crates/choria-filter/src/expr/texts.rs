//! Built-in functions for text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::functions::{count, wrong};
use super::run::{Budget, Ran, RunError};
use super::value::Value;

/// Calls one of the functions here. The number of arguments is right.
pub(super) fn call(name: &str, arguments: &[Value], budget: &Budget) -> Ran {
    if name == "string" {
        let text = arguments[0].display();
        budget.spend_text(text.len())?;
        return Ok(Value::text(text));
    }
    if name == "join" {
        return join(arguments, budget);
    }
    let text = |index: usize| match arguments.get(index) {
        Some(Value::Text(text)) => Ok(text.as_ref()),
        Some(other) => Err(wrong(name, other)),
        None => Ok(""),
    };
    let subject = text(0)?;
    let made = match name {
        "lower" => subject.to_lowercase(),
        "upper" => subject.to_uppercase(),
        "trim" if arguments.len() == 1 => subject.trim().to_owned(),
        "trim" => {
            let set = text(1)?;
            subject.trim_matches(|c| set.contains(c)).to_owned()
        }
        "trimPrefix" => {
            let part = if arguments.len() == 1 { " " } else { text(1)? };
            subject.strip_prefix(part).unwrap_or(subject).to_owned()
        }
        "trimSuffix" => {
            let part = if arguments.len() == 1 { " " } else { text(1)? };
            subject.strip_suffix(part).unwrap_or(subject).to_owned()
        }
        "replace" => return replace(subject, text(1)?, text(2)?, arguments.get(3), budget),
        "repeat" => return repeat(subject, &arguments[1], budget),
        "split" | "splitAfter" => return split(name, subject, text(1)?, arguments.get(2), budget),
        "hasPrefix" => return Ok(Value::Bool(subject.starts_with(text(1)?))),
        "hasSuffix" => return Ok(Value::Bool(subject.ends_with(text(1)?))),
        "indexOf" => return Ok(subject.find(text(1)?).map_or(Value::Int(-1), count)),
        "lastIndexOf" => return Ok(subject.rfind(text(1)?).map_or(Value::Int(-1), count)),
        "toBase64" => STANDARD.encode(subject),
        "fromBase64" => {
            let bytes = STANDARD.decode(subject).map_err(|error| RunError::new(format!("not base64: {error}")))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => return Err(RunError::new(format!("there is no function {name}()"))),
    };
    budget.spend_text(made.len())?;
    Ok(Value::text(made))
}

fn join(arguments: &[Value], budget: &Budget) -> Ran {
    let separator = match arguments.get(1) {
        None => "",
        Some(Value::Text(text)) => text.as_ref(),
        Some(other) => return Err(wrong("join", other)),
    };
    let Value::List(items) = &arguments[0] else { return Err(wrong("join", &arguments[0])) };
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        let Value::Text(text) = item else { return Err(wrong("join", item)) };
        budget.spend_text(text.len() + separator.len())?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
    }
    Ok(Value::text(joined))
}

/// How often something is done at most; negative means without end.
fn limit(value: Option<&Value>) -> Result<usize, RunError> {
    match value {
        None => Ok(usize::MAX),
        Some(Value::Int(number)) => Ok(usize::try_from(*number).unwrap_or(usize::MAX)),
        Some(other) => Err(RunError::new(format!("a number of times cannot be {}", other.type_name()))),
    }
}

fn replace(subject: &str, from: &str, to: &str, times: Option<&Value>, budget: &Budget) -> Ran {
    let times = limit(times)?;
    let hits = subject.matches(from).take(times).count();
    budget.spend_text(subject.len().saturating_add(hits.saturating_mul(to.len())))?;
    Ok(Value::text(subject.replacen(from, to, times)))
}

fn repeat(subject: &str, times: &Value, budget: &Budget) -> Ran {
    let Value::Int(times) = times else { return Err(wrong("repeat", times)) };
    let times = usize::try_from(*times).map_err(|_| RunError::new("repeat() cannot take a negative number"))?;
    budget.spend_text(subject.len().saturating_mul(times))?;
    Ok(Value::text(subject.repeat(times)))
}

fn split(name: &str, subject: &str, separator: &str, times: Option<&Value>, budget: &Budget) -> Ran {
    let times = limit(times)?;
    budget.spend(subject.len() / 4)?;
    let parts: Vec<Value> = if separator.is_empty() {
        let mut parts: Vec<String> = subject.chars().map(String::from).collect();
        if parts.len() > times {
            let rest = parts.split_off(times.saturating_sub(1)).concat();
            parts.push(rest);
        }
        parts.into_iter().map(Value::text).collect()
    } else if times == 0 {
        Vec::new()
    } else {
        let mut parts = Vec::new();
        let mut rest = subject;
        while parts.len() + 1 < times {
            let Some(at) = rest.find(separator) else { break };
            let end = if name == "splitAfter" { at + separator.len() } else { at };
            parts.push(Value::text(&rest[..end]));
            rest = &rest[at + separator.len()..];
        }
        parts.push(Value::text(rest));
        parts
    };
    Value::list(parts, budget)
}
