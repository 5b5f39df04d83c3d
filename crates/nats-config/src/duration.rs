//! Durations as Go writes them: `1h30m`, `1.5s`, `500ms`, `-1s`.

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DurationError {
    /// It is nothing of the kind.
    Syntax,
    /// A number has no unit.
    NoUnit,
    /// Days, which the language does not have.
    Days,
    /// More than 292 years.
    TooLong,
}

/// Nanoseconds of a text.
pub(crate) fn parse(text: &str) -> Result<i64, DurationError> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(DurationError::Syntax);
    }
    let (mut rest, mut total) = (unsigned, 0i128);
    while !rest.is_empty() {
        let part;
        (part, rest) = one(rest)?;
        total = total.checked_add(part).ok_or(DurationError::TooLong)?;
    }
    let total = if text.starts_with('-') { -total } else { total };
    i64::try_from(total).map_err(|_| DurationError::TooLong)
}

/// The first number with its unit, and what follows.
fn one(text: &str) -> Result<(i128, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Syntax);
    }
    let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let unit: i128 = match unit {
        "ns" => 1,
        // With either of the two letters that look like a micro sign.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err(DurationError::NoUnit),
        "d" => return Err(DurationError::Days),
        _ => return Err(DurationError::Syntax),
    };
    let number =
        |digits: &str| if digits.is_empty() { Ok(0i128) } else { digits.parse().map_err(|_| DurationError::TooLong) };
    // Digits behind the nanoseconds of an hour say nothing.
    let fraction = &fraction[..fraction.len().min(15)];
    let scale = u32::try_from(fraction.len()).map_or(1, |digits| 10i128.pow(digits));
    let whole = number(whole)?.checked_mul(unit).ok_or(DurationError::TooLong)?;
    whole.checked_add(number(fraction)? * unit / scale).map(|nanos| (nanos, rest)).ok_or(DurationError::TooLong)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("-1s", -1_000_000_000),
            ("1000us", 1_000_000),
            ("1µs", 1_000),
            ("1.0000000000000000000001h", 3_600_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
        for (text, error) in [
            ("", DurationError::Syntax),
            ("5", DurationError::NoUnit),
            ("1s5", DurationError::NoUnit),
            ("1d", DurationError::Days),
            ("5 s", DurationError::Syntax),
            ("abc", DurationError::Syntax),
            (".s", DurationError::Syntax),
            ("9999999999h", DurationError::TooLong),
            ("99999999999999999999999999999999999999999h", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
