//! Texts in the form that Go programs print and that people's scripts look for.

use std::fmt::Write;
use std::time::Duration;

/// A duration in whole seconds: `7s`, `1m5s`, `7h26m20s`.
pub(crate) fn duration(duration: Duration) -> String {
    let total = duration.as_secs();
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if total >= 60 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{seconds}s");
    text
}

/// A point in time: `2026-11-20 10:13:06 +0000 UTC`.
pub(crate) fn time(unix_seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(unix_seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// RFC 3339; `None` is Go's zero time, which stands for "does not apply".
pub(crate) fn rfc3339(unix_seconds: Option<i64>) -> String {
    let time = unix_seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let cases = [(0, "0s"), (7, "7s"), (60, "1m0s"), (65, "1m5s"), (3600, "1h0m0s"), (26_780, "7h26m20s")];
        for (seconds, text) in cases {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(time(1_795_169_586), "2026-11-20 10:13:06 +0000 UTC");
        assert_eq!(rfc3339(Some(2_054_369_204)), "2035-02-06T10:06:44Z");
        assert_eq!(rfc3339(None), "0001-01-01T00:00:00Z");
    }
}
