//! Times and durations: `now()`, `date('2023-08-14')`, `duration('1h30m')` and their methods. All times are UTC.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::functions::wrong;
use super::run::{Ran, RunError};
use super::value::{Value, as_float};

const SECOND: i64 = 1_000_000_000;

pub(super) fn now(now: Option<i64>) -> Ran {
    let now = now.ok_or_else(|| RunError::new("there is no clock here"))?;
    Timestamp::from_second(now).map(Value::Time).map_err(|_| RunError::new("time out of range"))
}

pub(super) fn date(value: &Value) -> Ran {
    let Value::Text(text) = value else { return Err(wrong("date", value)) };
    let civil = || {
        let date = text.parse::<Date>().map(|date| date.to_datetime(jiff::civil::Time::midnight()));
        date.or_else(|_| text.parse::<DateTime>()).ok()?.to_zoned(TimeZone::UTC).ok()
    };
    let time = text.parse::<Timestamp>().ok().or_else(|| civil().map(|zoned| zoned.timestamp()));
    time.map(Value::Time).ok_or_else(|| RunError::new(format!("{text:?} is not a date")))
}

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

pub(super) fn duration(value: &Value) -> Ran {
    let Value::Text(text) = value else { return Err(wrong("duration", value)) };
    let refuse = || RunError::new(format!("{text:?} is not a duration"));
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Value::Duration(0));
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| refuse())?;
        rest = &rest[end..];
        let (unit, size) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(refuse)?;
        total += number * as_float(*size);
        rest = &rest[unit.len()..];
    }
    let total = total * sign;
    if total.abs() >= as_float(i64::MAX) {
        return Err(refuse());
    }
    #[expect(clippy::cast_possible_truncation, reason = "in range, and less than a nanosecond is nothing")]
    Ok(Value::Duration(total as i64))
}

/// Go's text of a duration: `1h30m0s`, `1.5s`, `20ms`.
pub(super) fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let decimal = |number: u64, unit: u64| {
        let fraction = format!("{:09}", (number % unit) * (1_000_000_000 / unit));
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { (number / unit).to_string() } else { format!("{}.{fraction}", number / unit) }
    };
    let text = match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(total, 1_000_000)),
        _ => {
            let minute = 60_000_000_000;
            let (minutes, seconds) = (total / minute, decimal(total % minute, 1_000_000_000));
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// Methods of times and durations.
pub(super) fn method(base: &Value, name: &str, arguments: &[Value]) -> Ran {
    let unknown = || RunError::new(format!("{} has no method {name}()", base.type_name()));
    if !arguments.is_empty() {
        return Err(unknown());
    }
    match base {
        Value::Duration(nanoseconds) => {
            let unit = match name {
                "Nanoseconds" => return Ok(Value::Int(*nanoseconds)),
                "Microseconds" => return Ok(Value::Int(nanoseconds / 1_000)),
                "Milliseconds" => return Ok(Value::Int(nanoseconds / 1_000_000)),
                "String" => return Ok(Value::text(duration_text(*nanoseconds))),
                "Seconds" => SECOND,
                "Minutes" => 60 * SECOND,
                "Hours" => 3600 * SECOND,
                _ => return Err(unknown()),
            };
            Ok(Value::Float(as_float(*nanoseconds) / as_float(unit)))
        }
        Value::Time(time) => {
            let zoned = time.to_zoned(TimeZone::UTC);
            Ok(match name {
                "Year" => Value::Int(i64::from(zoned.year())),
                "Month" => Value::Int(i64::from(zoned.month())),
                "Day" => Value::Int(i64::from(zoned.day())),
                "YearDay" => Value::Int(i64::from(zoned.day_of_year())),
                "Weekday" => Value::Int(i64::from(zoned.weekday().to_sunday_zero_offset())),
                "Hour" => Value::Int(i64::from(zoned.hour())),
                "Minute" => Value::Int(i64::from(zoned.minute())),
                "Second" => Value::Int(i64::from(zoned.second())),
                "Nanosecond" => Value::Int(i64::from(zoned.subsec_nanosecond())),
                "Unix" => Value::Int(time.as_second()),
                "UnixMilli" => Value::Int(time.as_millisecond()),
                "String" => Value::text(time.to_string()),
                _ => return Err(unknown()),
            })
        }
        _ => Err(unknown()),
    }
}
