//! The grammar of a configuration file (spec 03 §2.1): `key = value` lines, `#` comments, nothing else.
//!
//! There are no sections, quotes, continuations, variables or comments behind a value. What is no setting is reported,
//! never guessed at.

/// Longest line in bytes. The original stops reading a file at a longer one, silently.
const MAX_LINE: usize = 65_535;

/// One line that holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'t> {
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) content: Content<'t>,
}

/// What a line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content<'t> {
    /// A setting.
    Setting { key: &'t str, value: &'t str },
    /// A key without a value: the default stays.
    NoValue { key: &'t str },
    /// Neither setting nor comment.
    Other,
    /// Longer than the original reads.
    TooLong,
    /// Not UTF-8.
    NotText,
}

/// Splits a file into lines that hold something. Empty lines and comments are left out.
pub(crate) fn lines(bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    bytes.split(|byte| *byte == b'\n').enumerate().filter_map(|(index, bytes)| {
        let content = content(bytes)?;
        Some(Line { number: index + 1, content })
    })
}

fn content(bytes: &[u8]) -> Option<Content<'_>> {
    if bytes.len() > MAX_LINE {
        return Some(Content::TooLong);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        // A comment may be in any encoding.
        return (!bytes.trim_ascii_start().starts_with(b"#")).then_some(Content::NotText);
    };
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    Some(match split(text) {
        Some((key, value)) if !value.is_empty() => Content::Setting { key, value },
        Some((key, _)) => Content::NoValue { key },
        None => Content::Other,
    })
}

/// Splits at the first `=` that has a key of at least one character before it. A leading `=` belongs to the key.
fn split(text: &str) -> Option<(&str, &str)> {
    let first = text.chars().next()?.len_utf8();
    let equals = first + text[first..].find('=')?;
    // White space around the sign is ASCII only, and no vertical tab: others belong to key and value.
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0c' | '\r');
    Some((text[..equals].trim_end_matches(blank), text[equals + 1..].trim_start_matches(blank)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(text: &str) -> Option<Content<'_>> {
        let mut found = lines(text.as_bytes());
        let first = found.next().map(|line| line.content);
        assert_eq!(found.next(), None);
        first
    }

    #[test]
    fn settings() {
        for (text, key, value) in [
            ("a=b=c", "a", "b=c"),
            ("  ttl =   30\t", "ttl", "30"),
            ("key = = z", "key", "= z"),
            ("y == z", "y", "= z"),
            ("===", "=", "="),
            ("x = y # note", "x", "y # note"),
            ("[x=y]", "[x", "y]"),
            ("ttl : = 31", "ttl :", "31"),
            ("ttl = 31\r", "ttl", "31"),
            ("\u{e9} = 1", "\u{e9}", "1"),
            ("a =\u{a0}b", "a", "\u{a0}b"),
        ] {
            assert_eq!(only(text), Some(Content::Setting { key, value }), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_setting() {
        assert_eq!(only("ttl 31"), Some(Content::Other));
        assert_eq!(only("=5"), Some(Content::Other));
        assert_eq!(only("ttl ="), Some(Content::NoValue { key: "ttl" }));
        assert_eq!(only("=="), Some(Content::NoValue { key: "=" }));
        assert_eq!(only(" # note = 1"), None);
        assert_eq!(only(" \t "), None);
    }

    #[test]
    fn long_and_undecodable_lines_are_told() {
        let fits = format!("k = {}", "x".repeat(MAX_LINE - 4));
        assert!(matches!(only(&fits), Some(Content::Setting { .. })));
        assert_eq!(only(&format!("{fits}x")), Some(Content::TooLong));
        let found: Vec<_> = lines(b"identity = caf\xe9\n# caf\xe9\n").collect();
        assert_eq!(found, [Line { number: 1, content: Content::NotText }]);
    }

    proptest! {
        #[test]
        fn any_bytes_split_into_lines(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            for line in lines(&bytes) {
                prop_assert!(line.number >= 1);
                if let Content::Setting { key, value } = line.content {
                    prop_assert!(!key.is_empty() && !value.is_empty());
                }
            }
        }

        #[test]
        fn written_settings_read_back(key in "[a-z][a-z.]{0,20}", value in "[!-~]([ -~]{0,20}[!-~])?") {
            let text = format!("{key} = {value}");
            prop_assert_eq!(only(&text), Some(Content::Setting { key: &key, value: &value }));
        }
    }
}
