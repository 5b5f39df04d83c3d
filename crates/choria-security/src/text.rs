//! Showing text that a stranger wrote.

/// At most this many characters of foreign text go into one message.
const SHOWN: usize = 100;

/// A form of `text` that is safe in logs, errors and terminals: control characters and the like escaped, long text cut.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_and_escaped() {
        assert_eq!(shown("node1.example.net"), "node1.example.net");
        assert_eq!(shown("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(5000)).len(), 103);
    }
}
