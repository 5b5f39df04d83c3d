//! What a word without quotes is: a number, a size, a truth value, or a text (spec 07 §23).

use std::sync::Arc;

use crate::value::Kind;

/// Why a word cannot be used, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

fn rejected(message: impl Into<String>, hint: impl Into<String>) -> Rejected {
    Rejected { message: message.into(), hint: Some(hint.into()) }
}

/// Reads a word that has neither quotes nor escapes.
pub(crate) fn classify(word: &str) -> Result<Kind, Rejected> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => return Ok(Kind::Bool(true)),
        "false" | "no" | "off" => return Ok(Kind::Bool(false)),
        _ => {}
    }
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let negative = unsigned.len() != word.len();
    let digits = unsigned.len() - unsigned.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = unsigned.split_at(digits);
    if digits == 0 {
        return no_number(word, unsigned, negative);
    }
    if unit.is_empty() || is_size_unit(unit) {
        return integer(word, negative, number, unit);
    }
    let doubled = unit.strip_suffix(['b', 'B']);
    if doubled.is_some_and(|unit| is_size_unit(unit) && unit.len() > 1) {
        return Err(rejected(
            "this is neither a number nor a size",
            "sizes end in k, m, g or t, or in kb, mb, gb or tb",
        ));
    }
    if let Some(fraction) = unit.strip_prefix('.') {
        return float(word, negative, fraction);
    }
    if unit.starts_with('-') {
        return Err(rejected("a date stands where a value is expected", quotes()));
    }
    if negative {
        return Err(rejected("a unit that sizes do not have follows a number", quotes()));
    }
    Ok(Kind::Text(word.into()))
}

/// Words that begin like a number without being one.
fn no_number(word: &str, unsigned: &str, negative: bool) -> Result<Kind, Rejected> {
    if negative {
        return Err(rejected("a digit is expected after `-`", quotes()));
    }
    if unsigned.starts_with('.') {
        return Err(rejected("a number must begin with a digit", quotes()));
    }
    Ok(Kind::Text(word.into()))
}

fn quotes() -> &'static str {
    "put a text that begins like a number in quotes"
}

fn float(word: &str, negative: bool, fraction: &str) -> Result<Kind, Rejected> {
    let digits = fraction.len() - fraction.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if digits == 0 {
        return Err(rejected("a digit is expected after the point of a number", quotes()));
    }
    let rest = &fraction[digits..];
    if rest.is_empty() {
        return Ok(word.parse().map_or_else(|_| Kind::Text(word.into()), Kind::Float));
    }
    // An address, or a version.
    if rest.starts_with('.') && !negative {
        return Ok(Kind::Text(word.into()));
    }
    Err(rejected("a number with a fraction has no unit", "put a duration with a fraction in quotes: \"1.5h\""))
}

/// `k`, `m`, `g`, `t`, `p`, `e`, with `b`, `i` or `ib` behind, in any case.
fn is_size_unit(unit: &str) -> bool {
    let unit = unit.to_ascii_lowercase();
    let mut chars = unit.chars();
    chars.next().and_then(exponent).is_some() && matches!(chars.as_str(), "" | "b" | "i" | "ib")
}

fn exponent(unit: char) -> Option<u32> {
    "kmgtpe".find(unit).and_then(|at| u32::try_from(at + 1).ok())
}

fn integer(word: &str, negative: bool, number: &str, unit: &str) -> Result<Kind, Rejected> {
    let too_large = || Rejected { message: format!("{word} is too large"), hint: None };
    let first = unit.chars().next().map(|c| c.to_ascii_lowercase());
    let factor = match first.and_then(exponent) {
        // Alone they are powers of 1000, with a second letter powers of 1024.
        Some(exponent) if unit.len() == 1 => 1000i64.checked_pow(exponent),
        Some(exponent) => 1024i64.checked_pow(exponent),
        None => Some(1),
    };
    let number: i64 = number.parse().map_err(|_| too_large())?;
    let number = factor.and_then(|factor| number.checked_mul(factor)).ok_or_else(too_large)?;
    Ok(Kind::Integer { number: if negative { -number } else { number }, unit: Arc::from(unit) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(word: &str) -> i64 {
        match classify(word) {
            Ok(Kind::Integer { number, .. }) => number,
            other => panic!("{word}: {other:?}"),
        }
    }

    #[test]
    fn sizes() {
        for (word, value) in [
            ("0", 0),
            ("-1", -1),
            ("007", 7),
            ("1k", 1000),
            ("1K", 1000),
            ("1kb", 1024),
            ("1ki", 1024),
            ("1KiB", 1024),
            ("-5k", -5000),
            ("1m", 1_000_000),
            ("2MB", 2 << 20),
            ("1t", 1_000_000_000_000),
        ] {
            assert_eq!(number(word), value, "{word}");
        }
    }

    #[test]
    fn words_that_only_look_like_numbers() {
        for word in [
            "1e3",
            "1_000",
            "0x400",
            "+1",
            "1abc",
            "1kx",
            "1kbx",
            "1.2.3",
            "127.0.0.1:4222",
            "1h30m",
            "5ms",
            "20%",
            "y",
        ] {
            assert!(matches!(classify(word), Ok(Kind::Text(_))), "{word}");
        }
    }

    #[test]
    fn words_that_are_nothing() {
        for word in [
            "1kbb",
            "1KIBB",
            "-",
            "--1",
            "-abc",
            "-5h",
            "1.",
            ".5",
            "1.5h",
            "1-2",
            "2020-01-01",
            "99999999999999999999",
            "10000000t",
        ] {
            assert!(classify(word).is_err(), "{word}");
        }
    }
}
