//! Reads the text of one value as its kind says. Strict: what cannot be read is refused, with what was expected.

use std::net::IpAddr;
use std::time::Duration;

use crate::duration::{self, DurationError};
use crate::hosts;
use crate::key::{Kind, Spec};
use crate::value::Value;

/// What would have been a good value, and a hint when the slip is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) expected: String,
    pub(crate) hint: Option<String>,
}

fn expected(expected: impl Into<String>) -> Expected {
    Expected { expected: expected.into(), hint: None }
}

fn expected_with_hint(text: impl Into<String>, hint: impl Into<String>) -> Expected {
    Expected { expected: text.into(), hint: Some(hint.into()) }
}

/// Separates the entries of a path list.
pub(crate) const PATH_SEPARATOR: char = if cfg!(windows) { ';' } else { ':' };

/// Reads `text` as the kind of `spec` says. `home` replaces a leading `~`.
pub(crate) fn parse(spec: &Spec, text: &str, home: Option<&str>) -> Result<Value, Expected> {
    match spec.kind {
        Kind::Text => Ok(Value::Text(text.to_owned())),
        Kind::Lines => Ok(Value::List(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })),
        Kind::Path => expand(text, home).map(Value::Text),
        Kind::LogTarget => expand(text, home).map(Value::Text),
        Kind::PathList { .. } => paths(text, home),
        Kind::Boolean => boolean(text).map(Value::Boolean).ok_or_else(|| boolean_expected(text)),
        Kind::Integer { min, max } => integer(text, min, max, "a whole number").map(Value::Integer),
        Kind::Seconds { min, max } => seconds(text, min, max),
        Kind::Duration { min_ms, max_ms } => span(text, min_ms, max_ms, spec.zero_is_default),
        Kind::List => Ok(Value::List(comma_list(text))),
        Kind::Choice(words) => choice(text, words),
        Kind::ChoiceAnyCase(words) => choice(&text.to_lowercase(), words),
        Kind::Choices(words) => {
            let chosen = comma_list(text);
            match chosen.iter().find(|word| !words.contains(&word.as_str())) {
                Some(unknown) => Err(expected_with_hint(
                    format!("a comma separated list of {}", words.join(", ")),
                    format!("{unknown:?} is not one of them"),
                )),
                None => Ok(Value::List(chosen)),
            }
        }
        Kind::Identity => name(text, "a node name of letters, digits, dots, hyphens and underscores"),
        Kind::Collective => name(text, "a collective name of letters, digits, dots, hyphens and underscores"),
        Kind::Collectives => {
            let names = comma_list(text);
            for item in &names {
                name(item, "collective names of letters, digits, dots, hyphens and underscores, separated by commas")
                    .map_err(|refused| Expected { hint: Some(format!("{item:?} is not such a name")), ..refused })?;
            }
            Ok(Value::List(names))
        }
        Kind::Hosts => {
            let entries = comma_list(text);
            match hosts::parse_list(&entries) {
                Ok(_) => Ok(Value::List(entries)),
                Err(error) => Err(expected_with_hint(
                    "broker addresses as host:port or nats://host:port, separated by commas",
                    format!("entry {:?}: {}", error.entry, error.problem),
                )),
            }
        }
        Kind::Address => match hosts::check_address(text) {
            Ok(()) => Ok(Value::Text(text.to_owned())),
            Err(error) => Err(expected_with_hint("host or host:port", error.problem)),
        },
        Kind::Networks => {
            let networks = comma_list(text);
            match networks.iter().find(|network| !is_network(network)) {
                Some(bad) => Err(expected_with_hint(
                    "IP addresses and networks such as 192.0.2.0/24, separated by commas",
                    format!("{bad:?} is neither"),
                )),
                None => Ok(Value::List(networks)),
            }
        }
        Kind::FileMode => match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Value::Integer(i64::from(mode)))
            }
            _ => Err(expected("an octal file mode such as 0600")),
        },
    }
}

/// Whether a value of this kind equals zero, for the keys where zero means the default.
pub(crate) fn is_zero(value: &Value) -> bool {
    matches!(value, Value::Integer(0)) || *value == Value::Duration(Duration::ZERO)
}

/// Reads a boolean as the original does, except that nothing else counts as false.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "true" | "y" | "t" => Some(true),
        "0" | "no" | "false" | "n" | "f" => Some(false),
        _ => None,
    }
}

/// A name that fits a subject token: what identities and collectives may hold.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn boolean_expected(text: &str) -> Expected {
    let wanted = "yes or no (also 1, true, y, t, 0, false, n, f)";
    if text.contains('#') {
        return with_comment_hint(text, wanted.to_owned());
    }
    if text.starts_with(['"', '\'']) {
        return expected_with_hint(wanted, "quotes are part of the value; leave them out");
    }
    match text.to_ascii_lowercase().as_str() {
        "on" | "enable" | "enabled" => expected_with_hint(wanted, "write yes"),
        "off" | "disable" | "disabled" | "none" => expected_with_hint(wanted, "write no"),
        _ => expected(wanted),
    }
}

fn integer(text: &str, min: i64, max: i64, what: &str) -> Result<i64, Expected> {
    let wanted = if max == i64::MAX { format!("{what}, {min} or more") } else { format!("{what} from {min} to {max}") };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(with_comment_hint(text, wanted));
    }
    match text.parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(expected(wanted)),
    }
}

fn with_comment_hint(text: &str, wanted: String) -> Expected {
    if text.contains('#') { expected_with_hint(wanted, "a comment needs a line of its own") } else { expected(wanted) }
}

fn seconds(text: &str, min: i64, max: i64) -> Result<Value, Expected> {
    let number = integer(text, min, max, "a whole number of seconds").map_err(|refused| {
        let hint = match duration::parse_with_unit(text) {
            Ok(span) if !span.is_zero() && span.subsec_nanos() == 0 => {
                Some(format!("this key takes no unit; write {}", span.as_secs()))
            }
            _ => refused.hint,
        };
        Expected { hint, ..refused }
    })?;
    Ok(Value::Duration(Duration::from_secs(u64::try_from(number).unwrap_or(0))))
}

fn span(text: &str, min_ms: u64, max_ms: u64, zero: bool) -> Result<Value, Expected> {
    let (shortest, longest) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
    let wanted = format!(
        "a duration from {} to {}, such as 30s, 5m, 1h30m or 2d",
        duration::to_text(shortest),
        duration::to_text(longest)
    );
    match duration::parse(text) {
        Ok(span) if (shortest..=longest).contains(&span) || (zero && span.is_zero()) => Ok(Value::Duration(span)),
        Ok(_) => Err(expected(wanted)),
        Err(DurationError::Malformed(_)) => Err(with_comment_hint(text, wanted)),
        Err(error) => Err(expected_with_hint(wanted, error.to_string())),
    }
}

fn choice(text: &str, words: &[&str]) -> Result<Value, Expected> {
    if words.contains(&text) {
        return Ok(Value::Text(text.to_owned()));
    }
    let wanted = format!("one of {}", words.join(", "));
    let folded = text.to_lowercase();
    let near = words.iter().min_by_key(|word| strsim::damerau_levenshtein(&folded, word));
    Err(match near {
        Some(word) if strsim::damerau_levenshtein(&folded, word) <= 2 => {
            expected_with_hint(wanted, format!("did you mean {word}?"))
        }
        _ => expected(wanted),
    })
}

fn name(text: &str, wanted: &str) -> Result<Value, Expected> {
    if is_name(text) { Ok(Value::Text(text.to_owned())) } else { Err(expected(wanted)) }
}

fn is_network(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let longest = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|length| length <= longest))
}

fn comma_list(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|item| item.trim().to_owned()).collect()
}

fn paths(text: &str, home: Option<&str>) -> Result<Value, Expected> {
    let mut list = Vec::new();
    for item in text.split(PATH_SEPARATOR).map(str::trim) {
        // An empty item would be the working directory, which nobody means by `/a::/b`.
        if !item.is_empty() {
            list.push(expand(item, home)?);
        }
    }
    Ok(Value::List(list))
}

/// Replaces a leading `~` by the home directory.
fn expand(text: &str, home: Option<&str>) -> Result<String, Expected> {
    let Some(rest) = text.strip_prefix('~') else {
        return Ok(text.to_owned());
    };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Err(expected_with_hint("a path", "only ~ and ~/ are understood, not the home of another user"));
    }
    match home {
        Some(home) => Ok(format!("{home}{rest}")),
        None => Err(expected_with_hint("a path", "~ needs the environment variable HOME; write the whole path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &Kind, text: &str, home: Option<&str>) -> Result<Value, Expected> {
        super::parse(&Spec::new("key", *kind), text, home)
    }

    #[test]
    fn hints_name_the_slip() {
        for (kind, text, hint) in [
            (Kind::Boolean, "on", "write yes"),
            (Kind::Boolean, "true # x", "a comment needs a line of its own"),
            (Kind::Boolean, "\"true\"", "quotes are part of the value; leave them out"),
            (Kind::Seconds { min: 0, max: 100 }, "60s", "this key takes no unit; write 60"),
            (Kind::Choice(&["debug", "warn"]), "WARN", "did you mean warn?"),
            (Kind::Choice(&["debug", "warn"]), "warning", ""),
            (Kind::Hosts, "a:1, b", "entry \"b\": the port is missing"),
            (Kind::Collectives, "a,,b", "\"\" is not such a name"),
            (Kind::Address, "\"b:1\"", "\"\\\"b\" is not a host name"),
            (Kind::Networks, "192.0.2.1, 300.0.0.0/99", "\"300.0.0.0/99\" is neither"),
            (Kind::Networks, "2001:db8::/129", "\"2001:db8::/129\" is neither"),
            (Kind::Path, "~lab/x", "only ~ and ~/ are understood, not the home of another user"),
            (Kind::Duration { min_ms: 0, max_ms: 1_000 }, "-5s", "\"-5s\" is negative"),
        ] {
            let refused = parse(&kind, text, Some("/home/lab")).map_err(|refused| refused.hint.unwrap_or_default());
            assert_eq!(refused, Err(hint.to_owned()), "{text}");
        }
    }

    #[test]
    fn bounds_are_kept() {
        let seconds = Kind::Seconds { min: 1, max: 100 };
        assert!(parse(&seconds, "0", None).is_err());
        assert!(parse(&seconds, "101", None).is_err());
        assert_eq!(parse(&seconds, "+007", None), Ok(Value::Duration(Duration::from_secs(7))));
        assert!(parse(&Kind::Duration { min_ms: 1, max_ms: 60_000 }, "61s", None).is_err());
        assert_eq!(parse(&Kind::FileMode, "0640", None), Ok(Value::Integer(0o640)));
        assert!(parse(&Kind::FileMode, "640x", None).is_err());
        assert!(parse(&Kind::FileMode, "77777", None).is_err());
    }
}
