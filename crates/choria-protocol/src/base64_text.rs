//! std64: RFC 4648 standard alphabet with padding, line breaks tolerated (spec 01 §1.1).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Encodes without line breaks.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes strictly after removing CR and LF, wherever they are. Blanks and missing padding are refused.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let clean: Cow<'_, str> = if text.bytes().any(|byte| byte == b'\r' || byte == b'\n') {
        Cow::Owned(text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect())
    } else {
        Cow::Borrowed(text)
    };
    STANDARD.decode(clean.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_are_skipped_and_nothing_else_is() {
        assert_eq!(decode("cGlu\r\nZw\n==\n").as_deref(), Some(b"ping".as_slice()));
        assert_eq!(decode(""), Some(vec![]));
        for refused in [" cGluZw==", "cGluZw", "cGlu Zw==", "cGluZw==x", "cGlu_w=="] {
            assert_eq!(decode(refused), None, "{refused:?}");
        }
    }
}
