//! How `choria tool sub` shows a message (spec 05 §7.4).

use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Zoned;
use serde_json::{Value, json};

/// A message as it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    /// Subject that it was published to.
    pub subject: &'a str,
    /// Where an answer is wanted.
    pub reply: Option<&'a str>,
    /// Its body.
    pub payload: &'a [u8],
}

/// A heading with the time of receipt, the body, a blank line. The subject is told where it is not the one asked for.
pub(crate) fn text(out: &mut impl Write, message: &Shown<'_>, topic: &str, now: &Zoned) -> io::Result<()> {
    write!(out, "---- {}", now.strftime("%H:%M:%S"))?;
    if message.subject != topic {
        write!(out, " on topic {}", message.subject)?;
    }
    writeln!(out, "\n{}\n", safe(message.payload))
}

/// The body alone and a line end. On a terminal it is made safe, anywhere else it is what was received.
pub(crate) fn raw(out: &mut impl Write, message: &Shown<'_>, terminal: bool) -> io::Result<()> {
    if terminal {
        return writeln!(out, "{}", safe(message.payload));
    }
    out.write_all(message.payload)?;
    out.write_all(b"\n")
}

/// One line. The body is `payload` when it is text and `payload_base64` when it is not.
pub(crate) fn json(out: &mut impl Write, message: &Shown<'_>, now: &Zoned) -> io::Result<()> {
    let mut document = json!({
        "time": now.timestamp().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        "subject": message.subject,
        "reply": message.reply,
        "bytes": message.payload.len(),
    });
    let (name, value) = match std::str::from_utf8(message.payload) {
        Ok(text) => ("payload", text.to_owned()),
        Err(_) => ("payload_base64", STANDARD.encode(message.payload)),
    };
    document[name] = Value::String(value);
    writeln!(out, "{document}")
}

/// Bytes of a stranger as text that cannot steer a terminal: control characters other than line ends and tabs are escaped,
/// and so is what is not UTF-8.
fn safe(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' | '\t' => text.push(character),
                character if character.is_control() => text.extend(character.escape_default()),
                character => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Shown<'_> {
        Shown { subject: "a.b", reply: Some("r"), payload }
    }

    fn now() -> Zoned {
        "2026-11-20T12:34:56.789[UTC]".parse().unwrap()
    }

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_documented_form() {
        let hello = message(b"hello");
        assert_eq!(written(|out| text(out, &hello, "a.b", &now())), "---- 12:34:56\nhello\n\n");
        assert_eq!(written(|out| text(out, &hello, "a.*", &now())), "---- 12:34:56 on topic a.b\nhello\n\n");
        assert_eq!(written(|out| raw(out, &hello, false)), "hello\n");
    }

    #[test]
    fn what_could_steer_a_terminal_is_escaped() {
        let evil = message(b"\x1b]0;owned\x07 \xff\xfe \xc3\xa9\tz\r\n");
        let shown = "\\u{1b}]0;owned\\u{7} \\xff\\xfe é\tz\\r\n";
        assert_eq!(written(|out| raw(out, &evil, true)), format!("{shown}\n"));
        assert!(written(|out| text(out, &evil, "a.b", &now())).contains(shown));
        // A pipe gets every byte as it came.
        let mut out = Vec::new();
        raw(&mut out, &evil, false).unwrap();
        assert_eq!(out, b"\x1b]0;owned\x07 \xff\xfe \xc3\xa9\tz\r\n\n");
    }

    #[test]
    fn json_lines_hold_text_or_base64() {
        let line = |payload: &[u8]| {
            let line = written(|out| json(out, &message(payload), &now()));
            assert_eq!(line.lines().count(), 1, "{line}");
            serde_json::from_str::<Value>(&line).unwrap()
        };
        assert_eq!(
            line(b"one\ntwo"),
            json!({"time": "2026-11-20T12:34:56.789Z", "subject": "a.b", "reply": "r", "bytes": 7, "payload": "one\ntwo"})
        );
        let binary = line(b"\xff\x00");
        assert_eq!((&binary["payload_base64"], binary.get("payload")), (&json!("/wA="), None));
    }
}
