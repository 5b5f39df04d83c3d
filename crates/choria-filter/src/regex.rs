//! Regular expressions as the original understands them: Go's RE2 dialect over Rust's `regex`, which differs in a few
//! places (spec 10 §7).
//!
//! | Written | Go | here |
//! |---|---|---|
//! | `\d \w \s \b` | ASCII | made ASCII |
//! | `\Q...\E` | literal text | escaped |
//! | `{` that begins no repetition | literal | escaped |
//! | `[` `&&` `--` `~~` in a class | literal | escaped |
//! | `\<` `\>` | literal | made literal |
//! | repetitions above 1000, `(?x)` | refused | refused |
//!
//! What is still different: `\C` and octal escapes are refused; `a**` is accepted.

use regex::{Regex, RegexBuilder};

/// Longest expression that is compiled, in bytes.
pub const MAX_LENGTH: usize = 4096;
/// Memory of a compiled expression and of its cache, in bytes.
const SIZE_LIMIT: usize = 2 * 1024 * 1024;
/// Largest count in `{n,m}`, as in Go.
const MAX_REPEAT: u32 = 1000;

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a valid regular expression: {detail}")]
pub struct RegexError {
    /// The expression, cut short when it is long.
    pub pattern: String,
    /// What is wrong.
    pub detail: String,
}

/// Compiles an expression, letter case mattering.
///
/// # Errors
/// [`RegexError`], also for expressions that are too long or compile to too much.
pub fn go_regex(pattern: &str) -> Result<Regex, RegexError> {
    build(pattern, false)
}

/// Compiles an expression, letter case not mattering unless the expression says `(?-i)`.
///
/// # Errors
/// As [`go_regex`].
pub fn go_regex_ignoring_case(pattern: &str) -> Result<Regex, RegexError> {
    build(pattern, true)
}

fn build(pattern: &str, ignore_case: bool) -> Result<Regex, RegexError> {
    let refuse = |detail: String| RegexError { pattern: pattern.chars().take(80).collect(), detail };
    if pattern.len() > MAX_LENGTH {
        return Err(refuse(format!("longer than {MAX_LENGTH} bytes")));
    }
    let translated = Translator { chars: pattern.chars().collect(), at: 0, out: String::new() }
        .translate()
        .map_err(|detail| refuse(detail.to_owned()))?;
    RegexBuilder::new(&translated)
        .case_insensitive(ignore_case)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .nest_limit(100)
        .build()
        .map_err(|error| {
            // The library draws the expression with a mark below; its last line says what is wrong.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            refuse(last.strip_prefix("error: ").unwrap_or(last).to_owned())
        })
}

/// The inside of `/.../`: all leading and trailing slashes removed, as the original does.
pub fn strip_slashes(text: &str) -> &str {
    text.trim_matches('/')
}

struct Translator {
    chars: Vec<char>,
    at: usize,
    out: String,
}

impl Translator {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn translate(mut self) -> Result<String, &'static str> {
        while let Some(c) = self.peek(0) {
            match c {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '{' => self.brace()?,
                '(' => self.group()?,
                _ => {
                    self.out.push(c);
                    self.at += 1;
                }
            }
        }
        Ok(self.out)
    }

    /// A backslash and what it escapes.
    fn escape(&mut self, in_class: bool) -> Result<(), &'static str> {
        let Some(c) = self.peek(1) else { return Err("ends with a backslash") };
        self.at += 2;
        let ascii = match (c, in_class) {
            ('d', false) => "[0-9]",
            ('w', false) => "[0-9A-Za-z_]",
            ('s', false) => r"[\t\n\f\r ]",
            ('d', true) => "0-9",
            ('w', true) => "0-9A-Za-z_",
            ('s', true) => r"\t\n\f\r ",
            ('D', _) => "[^0-9]",
            ('W', _) => "[^0-9A-Za-z_]",
            ('S', _) => r"[^\t\n\f\r ]",
            ('b', false) => r"(?-u:\b)",
            ('<', _) => "<",
            ('>', _) => ">",
            ('Q', false) => {
                self.quoted();
                return Ok(());
            }
            ('E', false) => "",
            ('b' | 'C', _) => return Err("unknown escape"),
            ('x' | 'p' | 'P', _) => {
                self.out.extend(['\\', c]);
                if self.peek(0) == Some('{') {
                    while let Some(c) = self.peek(0) {
                        self.out.push(c);
                        self.at += 1;
                        if c == '}' {
                            break;
                        }
                    }
                }
                return Ok(());
            }
            _ => {
                self.out.extend(['\\', c]);
                return Ok(());
            }
        };
        self.out.push_str(ascii);
        Ok(())
    }

    /// What follows `\Q`, up to `\E` or the end.
    fn quoted(&mut self) {
        while let Some(c) = self.peek(0) {
            if c == '\\' && self.peek(1) == Some('E') {
                self.at += 2;
                return;
            }
            self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
            self.at += 1;
        }
    }

    /// A bracket expression.
    fn class(&mut self) -> Result<(), &'static str> {
        self.out.push('[');
        self.at += 1;
        if self.peek(0) == Some('^') {
            self.out.push('^');
            self.at += 1;
        }
        let mut first = true;
        while let Some(c) = self.peek(0) {
            match c {
                ']' if !first => {
                    self.out.push(']');
                    self.at += 1;
                    return Ok(());
                }
                '[' if self.peek(1) == Some(':') => self.named_class(),
                '\\' => self.escape(true)?,
                ']' | '[' | '&' | '~' => {
                    self.out.extend(['\\', c]);
                    self.at += 1;
                }
                '-' if self.peek(1) == Some('-') => {
                    self.out.push_str(r"\-");
                    self.at += 1;
                }
                _ => {
                    self.out.push(c);
                    self.at += 1;
                }
            }
            first = false;
        }
        Err("missing closing ]")
    }

    /// `[:alpha:]`, or a bracket that only looks like it.
    fn named_class(&mut self) {
        let rest = &self.chars[self.at + 2..];
        let length = rest.iter().take_while(|c| c.is_ascii_lowercase() || **c == '^').count();
        if rest.get(length) == Some(&':') && rest.get(length + 1) == Some(&']') {
            let end = self.at + 2 + length + 2;
            self.out.extend(&self.chars[self.at..end]);
            self.at = end;
        } else {
            self.out.push_str(r"\[");
            self.at += 1;
        }
    }

    /// `{n}`, `{n,}`, `{n,m}`; any other brace is itself.
    fn brace(&mut self) -> Result<(), &'static str> {
        let rest = &self.chars[self.at + 1..];
        let Some(length) = rest.iter().position(|c| *c == '}') else {
            self.out.push_str(r"\{");
            self.at += 1;
            return Ok(());
        };
        let body: String = rest[..length].iter().collect();
        let (low, high) = body.split_once(',').unwrap_or((&body, ""));
        let is_count = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_count(low) || !(high.is_empty() || is_count(high)) {
            self.out.push_str(r"\{");
            self.at += 1;
            return Ok(());
        }
        let too_big = |text: &str| !text.is_empty() && text.parse::<u32>().map_or(true, |count| count > MAX_REPEAT);
        if too_big(low) || too_big(high) {
            return Err("repetition above 1000");
        }
        self.out.extend(&self.chars[self.at..self.at + length + 2]);
        self.at += length + 2;
        Ok(())
    }

    fn group(&mut self) -> Result<(), &'static str> {
        if self.peek(1) == Some('?') {
            let flags = self.chars[self.at + 2..].iter().take_while(|c| c.is_ascii_alphabetic() || **c == '-');
            let is_flags = matches!(self.chars.get(self.at + 2 + flags.clone().count()), Some(':' | ')'));
            if is_flags && flags.clone().any(|c| !matches!(c, 'i' | 'm' | 's' | 'U' | '-')) {
                return Err("unknown flag");
            }
        }
        self.out.push('(');
        self.at += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (pattern, text, matched) in [
            ("^we", "web1", true),
            ("WE", "web1", false),
            ("(?i)WE", "web1", true),
            (r"web\.1", "web.1", true),
            (r"\d", "٣", false),
            (r"\D", "٣", true),
            (r"^\w+$", "zoë", false),
            (r"\s", "\u{a0}", false),
            (r"\S", "\u{a0}", true),
            (r"\S", "\t", false),
            (r"[\d]", "٣", false),
            (r"[\D]", "7", false),
            (r"[^\w]", "_", false),
            (r"\bweb\b", "a web b", true),
            (r"\Qa.b\E.c", "a.bxc", true),
            (r"\Qa.b", "axb", false),
            ("a{", "a{", true),
            ("a{,2}", "a{,2}", true),
            ("a{x}", "a{x}", true),
            ("^a{2}$", "aa", true),
            ("^a{2,}$", "aaa", true),
            ("[[]", "[", true),
            ("[]a]", "]", true),
            ("[^]a]", "]", false),
            ("[a&&b]", "&", true),
            ("[[:alpha:]]", "x", true),
            ("[[:^alpha:]]", "x", false),
            ("[[:x]", ":", true),
            ("[a-c--]", "-", true),
            (r"\<a\>", "<a>", true),
            (r"[\<]", "<", true),
            (r"\x41", "A", true),
            (r"\x{41}", "A", true),
            (r"\p{Greek}", "α", true),
            (r"\pN", "4", true),
            ("(?P<n>a)", "a", true),
            ("(?<n>a)", "a", true),
            ("(?s:.)", "\n", true),
            ("a$", "a\n", false),
            (r"\/", "/", true),
            ("", "anything", true),
        ] {
            let regex = go_regex(pattern).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(regex.is_match(text), matched, "{pattern} on {text:?}");
        }
    }

    #[test]
    fn expressions_go_refuses() {
        for pattern in [
            "(",
            "[",
            "[a",
            "a{1001}",
            "a{2,5000}",
            "a{99999999999}",
            "(?x)a",
            "(?=a)",
            "(?!a)",
            r"\C",
            "\\",
            "*",
            r"\8",
        ] {
            assert!(go_regex(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn case_is_ignored_unless_told_otherwise() {
        assert!(go_regex_ignoring_case("^MT$").unwrap().is_match("mt"));
        assert!(!go_regex_ignoring_case("(?-i)MT").unwrap().is_match("mt"));
        assert_eq!(strip_slashes("//etc/hosts/"), "etc/hosts");
    }

    #[test]
    fn design6_expressions_that_need_too_much_are_refused() {
        for pattern in
            ["((a{1000}){1000}){1000}".to_owned(), "a".repeat(MAX_LENGTH + 1), "(".repeat(2000) + &")".repeat(2000)]
        {
            assert!(go_regex(&pattern).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in r"[a-z\\\[\](){}^$.|?*+,:0-9é&~<>QEx-]{0,24}", text in ".{0,16}") {
            if let Ok(regex) = go_regex(&pattern) {
                let _ = regex.is_match(&text);
            }
        }

        #[test]
        fn quoted_text_matches_itself(text in r"[^\\]{0,16}") {
            let pattern = format!("^\\Q{text}\\E$");
            prop_assert!(go_regex(&pattern).unwrap().is_match(&text));
        }
    }
}
