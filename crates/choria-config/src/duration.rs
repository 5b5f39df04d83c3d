//! Durations as Choria writes them (spec 03 §2.2, spec 04 §3).
//!
//! Three forms: a bare number is seconds (configuration files only); groups of number and unit with `ns us ms s m h`
//! (`1h30m`); one number with `d`/`D`, `w`/`W`, `M` (30 days) or `y`/`Y` (365 days), cut to whole hours.
//! `5m` is five minutes and `5M` five months; upper-case `S` and `H` are no units.
//!
//! Nothing negative and nothing above 292 years is a duration here: the original lets the first pass and wraps the
//! second to a negative value.

use std::time::Duration;

/// The longest duration the original can hold, in nanoseconds; a longer one would wrap in its programs.
const MAX_NANOSECONDS: u128 = i64::MAX as u128;
const HOUR: u128 = 3_600 * SECOND;
const SECOND: u128 = 1_000_000_000;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing but white space.
    #[error("the duration is empty")]
    Empty,
    /// A number without unit where one is needed.
    #[error("{0:?} has no unit; write {0}s for seconds")]
    NoUnit(String),
    /// Below zero.
    #[error("{0:?} is negative")]
    Negative(String),
    /// More than the 292 years a signed 64 bit count of nanoseconds holds.
    #[error("{0:?} is longer than 292 years")]
    TooLong(String),
    /// Anything else.
    #[error("{0:?} is not a duration; examples: 30s, 5m, 1h30m, 1d, 2w, 1M, 1y")]
    Malformed(String),
}

/// Parses a duration as configuration files hold it, where a bare number is seconds.
///
/// # Errors
/// Every text that is not one of the three forms, is negative or is longer than 292 years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds: u128 = text.parse().map_err(|_| DurationError::TooLong(text.to_owned()))?;
        return from_nanoseconds(seconds.saturating_mul(SECOND), text);
    }
    parse_with_unit(text)
}

/// Parses a duration that must name its unit, as the provisioner's file and command line flags hold it.
///
/// # Errors
/// As [`parse`], and a bare number other than `0`.
pub fn parse_with_unit(text: &str) -> Result<Duration, DurationError> {
    if text.trim().is_empty() {
        return Err(DurationError::Empty);
    }
    if text.starts_with('-') {
        return Err(DurationError::Negative(text.to_owned()));
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DurationError::NoUnit(text.to_owned()));
    }
    let body = text.strip_prefix('+').unwrap_or(text);
    let malformed = || DurationError::Malformed(text.to_owned());
    let hours_per_unit = match body.chars().last() {
        Some('d' | 'D') => 24,
        Some('w' | 'W') => 7 * 24,
        Some('M') => 30 * 24,
        Some('y' | 'Y') => 365 * 24,
        _ => return from_nanoseconds(clock_units(body).ok_or_else(malformed)?, text),
    };
    let number = Decimal::whole(&body[..body.len() - 1]).ok_or_else(malformed)?;
    // Whole hours only, as the original cuts it.
    from_nanoseconds(number.times(hours_per_unit).saturating_mul(HOUR), text)
}

/// Writes a duration in the shortest form that [`parse`] reads back: `1h30m`, `90s`, `250ms`.
#[must_use]
pub fn to_text(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, size) in
        [("h", HOUR), ("m", 60 * SECOND), ("s", SECOND), ("ms", SECOND / 1_000), ("us", SECOND / 1_000_000), ("ns", 1)]
    {
        let count = rest / size;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn from_nanoseconds(nanoseconds: u128, text: &str) -> Result<Duration, DurationError> {
    if nanoseconds > MAX_NANOSECONDS {
        return Err(DurationError::TooLong(text.to_owned()));
    }
    let seconds = u64::try_from(nanoseconds / SECOND).map_err(|_| DurationError::TooLong(text.to_owned()))?;
    let fraction = u32::try_from(nanoseconds % SECOND).map_err(|_| DurationError::TooLong(text.to_owned()))?;
    Ok(Duration::new(seconds, fraction))
}

/// Groups of number and clock unit: `1h30m`, `1.5h`, `250ms`. Saturates; the caller checks the bound.
fn clock_units(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = Decimal::whole(&rest[..digits])?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1,
            // Micro sign and Greek mu both occur.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => HOUR,
            _ => return None,
        };
        total = total.saturating_add(number.times(unit));
        rest = &rest[letters..];
    }
    Some(total)
}

/// A decimal number without sign or exponent, kept exact.
struct Decimal {
    integer: u128,
    fraction: u128,
    scale: u128,
}

impl Decimal {
    /// Digits with at most one dot and at least one digit. More digits than matter are cut, not refused.
    fn whole(text: &str) -> Option<Self> {
        let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits_only(integer) || !digits_only(fraction) || (integer.is_empty() && fraction.is_empty()) {
            return None;
        }
        let fraction = &fraction[..fraction.len().min(15)];
        let mut scale = 1;
        for _ in 0..fraction.len() {
            scale *= 10;
        }
        Some(Self {
            integer: if integer.is_empty() { 0 } else { integer.parse().unwrap_or(u128::MAX) },
            fraction: if fraction.is_empty() { 0 } else { fraction.parse().ok()? },
            scale,
        })
    }

    /// The product with `unit`, cut to a whole number; saturates.
    fn times(&self, unit: u128) -> u128 {
        self.integer.saturating_mul(unit).saturating_add(self.fraction.saturating_mul(unit) / self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_of_spec_03_2_2() {
        for (text, seconds) in [
            ("0", 0),
            ("5", 5),
            ("05", 5),
            ("5s", 5),
            ("5m", 300),
            ("1h30m", 5_400),
            ("1.5h", 5_400),
            (".5h", 1_800),
            ("1.h", 3_600),
            ("+5s", 5),
            ("5d", 432_000),
            ("5D", 432_000),
            ("1.04d", 86_400),
            ("0.04d", 0),
            ("5W", 3_024_000),
            ("5M", 12_960_000),
            ("5y", 157_680_000),
            ("292y", 9_208_512_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("10\u{b5}s"), Ok(Duration::from_micros(10)));
        assert_eq!(parse("1s5ns"), Ok(Duration::new(1, 5)));
    }

    #[test]
    fn refused_texts() {
        for text in [
            "",
            " ",
            "s",
            "d",
            ".",
            "5S",
            "5H",
            "5x",
            "5min",
            "1e3s",
            "5 s",
            "1d12h",
            "2d3d",
            "1h 30m",
            "1,5h",
            "five",
            "+5",
            "1.2.3s",
            "1y2d",
            "\u{ff11}s",
            "inf",
            "0x10s",
        ] {
            assert!(parse(text).is_err(), "{text:?} must be refused");
        }
    }

    /// Sharp edge 49 of spec 03: durations never wrap and never run backwards.
    #[test]
    fn negative_and_overlong_durations_are_refused() {
        assert_eq!(parse("-5m"), Err(DurationError::Negative("-5m".into())));
        assert_eq!(parse("-5"), Err(DurationError::Negative("-5".into())));
        for text in ["300y", "106752d", "99999999999999999999", "99999999999999999999999999999999999999999999d"] {
            assert_eq!(parse(text), Err(DurationError::TooLong(text.into())));
        }
    }

    #[test]
    fn a_unit_is_needed_where_the_caller_says_so() {
        assert_eq!(parse_with_unit("60"), Err(DurationError::NoUnit("60".into())));
        assert_eq!(parse_with_unit("0"), Ok(Duration::ZERO));
        assert_eq!(parse_with_unit("60s"), Ok(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,24}") {
            if let Ok(duration) = parse(&text) {
                prop_assert!(duration.as_nanos() <= MAX_NANOSECONDS);
            }
        }

        #[test]
        fn written_durations_read_back(nanoseconds in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse(&to_text(duration)), Ok(duration));
        }
    }
}
