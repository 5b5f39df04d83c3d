//! Writing JSON exactly as the original does, so that texts are equal byte for byte (spec 01 §1.1).
//!
//! Compact; strings escape `"`, `\`, control characters, `<`, `>`, `&` and the two Unicode line separators, and
//! leave all other text raw; floating point numbers print like Go prints them (`1`, `1e+21`).

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

/// Bytes that cannot stand raw in a string; `0xe2` starts the Unicode line separators.
const fn needs_attention(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)
}

/// Escape sequence at the start of `bytes` and how many input bytes it stands for.
fn escape_of(bytes: &[u8]) -> Option<(&'static str, usize)> {
    Some(match bytes {
        [b'"', ..] => ("\\\"", 1),
        [b'\\', ..] => ("\\\\", 1),
        [b'\n', ..] => ("\\n", 1),
        [b'\r', ..] => ("\\r", 1),
        [b'\t', ..] => ("\\t", 1),
        [0x08, ..] => ("\\b", 1),
        [0x0c, ..] => ("\\f", 1),
        [b'<', ..] => ("\\u003c", 1),
        [b'>', ..] => ("\\u003e", 1),
        [b'&', ..] => ("\\u0026", 1),
        [0xe2, 0x80, 0xa8, ..] => ("\\u2028", 3),
        [0xe2, 0x80, 0xa9, ..] => ("\\u2029", 3),
        _ => return None,
    })
}

/// Appends `text` as a JSON string with its quotes.
pub fn push_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let bytes = text.as_bytes();
    let mut clean = 0;
    let mut at = 0;
    while at < bytes.len() {
        if !needs_attention(bytes[at]) {
            at += 1;
            continue;
        }
        if let Some((escape, width)) = escape_of(&bytes[at..]) {
            out.push_str(&text[clean..at]);
            out.push_str(escape);
            at += width;
            clean = at;
        } else if bytes[at] < 0x20 {
            out.push_str(&text[clean..at]);
            out.push_str("\\u00");
            for nibble in [bytes[at] >> 4, bytes[at] & 15] {
                out.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hex digit"));
            }
            at += 1;
            clean = at;
        } else {
            at += 1;
        }
    }
    out.push_str(&text[clean..]);
    out.push('"');
}

/// Appends a list of strings.
pub(crate) fn push_list(out: &mut String, items: &[String]) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_string(out, item);
    }
    out.push(']');
}

/// The value as compact JSON text in the original's form. Key order is the order in which `value` gives its keys.
///
/// # Errors
/// Fails for what JSON cannot hold (maps with keys that are no strings). A [`serde_json::Value`] never fails.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut out = Vec::with_capacity(256);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GoFormatter))?;
    Ok(String::from_utf8(out).expect("a JSON serializer writes UTF-8"))
}

/// As [`to_string`] for a parsed value, which cannot fail.
pub fn value_text(value: &serde_json::Value) -> String {
    to_string(value).expect("a JSON value can always be written")
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(float_text(value).as_bytes())
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let bytes = fragment.as_bytes();
        let mut clean = 0;
        let mut at = 0;
        while at < bytes.len() {
            match escape_of(&bytes[at..]) {
                Some((escape, width)) => {
                    writer.write_all(&bytes[clean..at])?;
                    writer.write_all(escape.as_bytes())?;
                    at += width;
                    clean = at;
                }
                None => at += 1,
            }
        }
        writer.write_all(&bytes[clean..])
    }

    fn write_char_escape<W: io::Write + ?Sized>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

/// Shortest text that reads back as the same number, exponent form below 1e-6 and from 1e21 on. `value` is finite:
/// JSON has no other numbers and serde_json writes `null` for them before it comes here.
pub fn float_text(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
            _ => text,
        }
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn quoted(text: &str) -> String {
        let mut out = String::new();
        push_string(&mut out, text);
        out
    }

    #[test]
    fn strings_are_escaped_as_the_original_does() {
        assert_eq!(quoted("a<b>&c"), r#""a\u003cb\u003e\u0026c""#);
        assert_eq!(
            quoted("\"\\/\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}"),
            "\"\\\"\\\\/\\n\\r\\t\\b\\f\\u0001\\u001f\u{7f}\""
        );
        assert_eq!(quoted("é – 日本\u{2028}\u{2029}"), "\"é – 日本\\u2028\\u2029\"");
    }

    #[test]
    fn floats_print_like_the_original() {
        for (value, text) in [
            (1.0, "1"),
            (0.5, "0.5"),
            (-0.5, "-0.5"),
            (12_345_678_901_234_567_000.0, "12345678901234567000"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-7"),
            (0.0, "0"),
        ] {
            assert_eq!(float_text(value), text);
            assert_eq!(value_text(&json!(value)), text);
        }
    }

    proptest! {
        #[test]
        fn both_writers_agree_and_read_back(text in any::<String>()) {
            let by_hand = quoted(&text);
            prop_assert_eq!(&by_hand, &value_text(&Value::String(text.clone())));
            prop_assert_eq!(serde_json::from_str::<String>(&by_hand).unwrap(), text);
        }

        #[test]
        fn floats_read_back(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            prop_assert_eq!(float_text(value).parse::<f64>().unwrap(), value);
        }
    }
}
