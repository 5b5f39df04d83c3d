//! Values of each kind.

use std::time::Duration;

use super::{Entry, Reader};
use crate::Located;
use crate::duration::{self, DurationError};
use crate::settings::{Limit, Listen, Port, Secret, Span};
use crate::value::Kind;

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;
const QUOTE_IT: &str = "put it in quotes when it is meant as text";
const DURATION: &str = "a duration such as \"30s\", \"5m\" or \"1h30m\"";

impl Reader<'_> {
    pub(super) fn text(&mut self, entry: &Entry<'_>) -> Option<Located<String>> {
        match &entry.value.kind {
            Kind::Text(text) => Some(Located::new(text.to_string(), entry.value.at.clone())),
            Kind::List(_) | Kind::Map(_) => self.wrong(entry, "a text", None),
            _ => self.wrong(entry, "a text", Some(QUOTE_IT)),
        }
    }

    pub(super) fn secret(&mut self, entry: &Entry<'_>) -> Option<Located<Secret>> {
        self.text(entry).map(|text| Located::new(Secret::new(text.value), text.at))
    }

    pub(super) fn bool(&mut self, entry: &Entry<'_>) -> Option<bool> {
        match entry.value.kind {
            Kind::Bool(value) => Some(value),
            _ => self.wrong(entry, "true or false", Some("true, yes and on are written without quotes")),
        }
    }

    pub(super) fn located_bool(&mut self, entry: &Entry<'_>) -> Option<Located<bool>> {
        self.bool(entry).map(|value| Located::new(value, entry.value.at.clone()))
    }

    fn integer(&mut self, entry: &Entry<'_>) -> Option<i64> {
        match entry.value.kind {
            Kind::Integer { number, .. } => Some(number),
            _ => self.wrong(
                entry,
                "a whole number",
                Some("numbers and sizes are written without quotes: 1024, 64KB, 8MB"),
            ),
        }
    }

    /// A number that must not be negative.
    pub(super) fn count(&mut self, entry: &Entry<'_>) -> Option<Located<u64>> {
        let number = self.integer(entry)?;
        match u64::try_from(number) {
            Ok(number) => Some(Located::new(number, entry.value.at.clone())),
            Err(_) => self.bad(entry, "the number must not be negative", None),
        }
    }

    /// A number where a negative one stands for no limit.
    pub(super) fn limit(&mut self, entry: &Entry<'_>) -> Option<Located<Limit>> {
        let number = self.integer(entry)?;
        Some(Located::new(u64::try_from(number).map_or(Limit::None, Limit::Of), entry.value.at.clone()))
    }

    /// A number of bytes on the wire.
    pub(super) fn wire_limit(&mut self, entry: &Entry<'_>) -> Option<Located<Limit>> {
        match self.limit(entry)? {
            Located { value: Limit::Of(bytes), .. } if i32::try_from(bytes).is_err() => {
                self.bad(entry, "the number is too large", Some("2147483647 is the largest"))
            }
            limit => Some(limit),
        }
    }

    pub(super) fn port(&mut self, entry: &Entry<'_>) -> Option<Located<Port>> {
        let number = self.integer(entry)?;
        let port = self.port_number(entry, number)?;
        Some(Located::new(port, entry.value.at.clone()))
    }

    fn port_number(&mut self, entry: &Entry<'_>, number: i64) -> Option<Port> {
        match (number, u16::try_from(number)) {
            (-1, _) => Some(Port::Free),
            (0, _) => Some(Port::Default),
            (_, Ok(number)) => Some(Port::Number(number)),
            _ => self.bad(entry, "ports are 1 to 65535, -1 for any free one, 0 for the usual one", None),
        }
    }

    /// `port`, `"host:port"` or `":port"`.
    pub(super) fn listen(&mut self, entry: &Entry<'_>) -> Option<Located<Listen>> {
        let text = match &entry.value.kind {
            Kind::Integer { number, .. } => {
                let port = self.port_number(entry, *number)?;
                return Some(Located::new(Listen { host: None, port }, entry.value.at.clone()));
            }
            Kind::Text(text) => text,
            _ => return self.wrong(entry, "a port or \"host:port\"", None),
        };
        let Some((host, number)) = text.rsplit_once(':') else {
            return self.bad(entry, "there is no port in it", Some("write \"host:port\", or a port without quotes"));
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.len() == host.len() && host.contains(':') {
            return self.bad(entry, "an IPv6 address needs brackets", Some("write \"[::1]:4222\""));
        }
        let Ok(number) = number.parse() else {
            return self.bad(entry, "the port is not a number", None);
        };
        let port = self.port_number(entry, number)?;
        let host = (!bare.is_empty()).then(|| bare.to_owned());
        Some(Located::new(Listen { host, port }, entry.value.at.clone()))
    }

    /// A text, or a list of texts.
    pub(super) fn texts(&mut self, entry: &Entry<'_>) -> Option<Vec<Located<String>>> {
        match &entry.value.kind {
            Kind::Text(_) => self.text(entry).map(|text| vec![text]),
            _ => self.text_list(entry),
        }
    }

    /// A list of texts.
    pub(super) fn text_list(&mut self, entry: &Entry<'_>) -> Option<Vec<Located<String>>> {
        let Kind::List(values) = &entry.value.kind else {
            return self.wrong(entry, "a list of texts in `[ ]`", None);
        };
        let before = self.problems.len();
        let texts = values.iter().filter_map(|value| self.text(&Entry { value, ..*entry })).collect();
        (self.problems.len() == before).then_some(texts)
    }

    /// A duration; a number without unit is taken as seconds with a warning.
    pub(super) fn span(&mut self, entry: &Entry<'_>) -> Option<Located<Span>> {
        let Kind::Integer { number, unit } = &entry.value.kind else {
            return self.duration_text(entry);
        };
        let nanos = self.seconds_of(entry, *number, unit)?;
        let hint = "write the unit: \"30s\"";
        self.warn_check(&entry.value.at, format!("{} is a number and taken as seconds", entry.name), Some(hint));
        Some(Located::new(Span { nanos }, entry.value.at.clone()))
    }

    /// A number of seconds, with or without a fraction, or a duration.
    pub(super) fn seconds(&mut self, entry: &Entry<'_>) -> Option<Located<Span>> {
        let nanos = match &entry.value.kind {
            Kind::Integer { number, unit } => self.seconds_of(entry, *number, unit)?,
            #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
            #[expect(clippy::cast_precision_loss, reason = "nobody counts nanoseconds in centuries")]
            Kind::Float(seconds) if seconds.abs() < (i64::MAX / SECOND) as f64 => (seconds * SECOND as f64) as i64,
            Kind::Float(_) => return self.bad(entry, "the time is too long", None),
            _ => return self.duration_text(entry),
        };
        Some(Located::new(Span { nanos }, entry.value.at.clone()))
    }

    fn seconds_of(&mut self, entry: &Entry<'_>, number: i64, unit: &str) -> Option<i64> {
        // A trap: the language reads it as five million.
        if unit.eq_ignore_ascii_case("m") {
            let minutes = number / 1_000_000;
            let hint = format!("write minutes in quotes: \"{minutes}m\"");
            return self.bad(entry, "without quotes this is a size, not a number of minutes", Some(&hint));
        }
        number.checked_mul(SECOND).or_else(|| self.bad(entry, "the time is too long", None))
    }

    /// A duration that has its unit.
    pub(super) fn duration_text(&mut self, entry: &Entry<'_>) -> Option<Located<Span>> {
        let Kind::Text(text) = &entry.value.kind else {
            return self.wrong(entry, DURATION, None);
        };
        match duration::parse(text) {
            Ok(nanos) => Some(Located::new(Span { nanos }, entry.value.at.clone())),
            Err(DurationError::NoUnit) => self.bad(entry, "the duration has no unit", Some("write \"30s\" or \"5m\"")),
            Err(DurationError::Days) => self.bad(entry, "durations have no days", Some("write hours: \"24h\"")),
            Err(DurationError::TooLong) => self.bad(entry, "the time is too long", None),
            Err(DurationError::Syntax) => self.bad(entry, &format!("expected {DURATION}"), None),
        }
    }

    /// A duration that must not be negative; a number without unit is taken as seconds with a warning.
    pub(super) fn duration(&mut self, entry: &Entry<'_>) -> Option<Located<Duration>> {
        let span = self.span(entry)?;
        self.not_negative(entry, span)
    }

    pub(super) fn not_negative(&mut self, entry: &Entry<'_>, span: Located<Span>) -> Option<Located<Duration>> {
        match span.duration() {
            Some(duration) => Some(Located::new(duration, span.at)),
            None => self.bad(entry, "the time must not be negative", None),
        }
    }

    /// Percent, 1 to 100, as a number or as text with or without `%`.
    pub(super) fn percent(&mut self, entry: &Entry<'_>) -> Option<u8> {
        let number = match &entry.value.kind {
            Kind::Integer { number, .. } => u8::try_from(*number).ok(),
            Kind::Text(text) => text.strip_suffix('%').unwrap_or(text).trim().parse().ok(),
            _ => return self.wrong(entry, "percent, 1 to 100", None),
        };
        match number {
            Some(number @ 1..=100) => Some(number),
            _ => self.bad(entry, "percent are 1 to 100", None),
        }
    }
}
