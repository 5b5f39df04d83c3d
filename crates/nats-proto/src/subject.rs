//! Subjects and subject filters (spec 07 §4).
//!
//! A subject is one or more tokens between dots. In a filter `*` stands for exactly one token and `>`,
//! only as last token, for one or more. A `*` or `>` inside a longer token is an ordinary character.
//! Control characters are refused everywhere: the reference passes them on to the parsers of other clients.

/// Splits a subject into its tokens. An empty text has one, empty, token.
pub fn tokens(subject: &str) -> std::str::Split<'_, char> {
    subject.split('.')
}

/// Whether the bytes may stand in a subject: no blank, no control character.
pub fn has_only_subject_bytes(subject: &[u8]) -> bool {
    !subject.iter().any(|byte| *byte <= b' ' || *byte == 0x7f)
}

/// Whether all tokens of the subject have at least one character. The empty subject has none.
pub fn has_no_empty_token(subject: &str) -> bool {
    let bytes = subject.as_bytes();
    let mut at_start = true;
    for byte in bytes {
        if *byte == b'.' {
            if at_start {
                return false;
            }
            at_start = true;
        } else {
            at_start = false;
        }
    }
    !at_start
}

/// Whether any token is a wildcard of its own.
pub fn has_wildcard(subject: &str) -> bool {
    // Most subjects hold neither character.
    if !subject.bytes().any(|byte| byte == b'*' || byte == b'>') {
        return false;
    }
    tokens(subject).any(|token| token == "*" || token == ">")
}

/// Whether a message may be published to the subject: no empty token, no wildcard token, no blank or control character.
pub fn is_valid_publish(subject: &str) -> bool {
    has_no_empty_token(subject) && !has_wildcard(subject) && has_only_subject_bytes(subject.as_bytes())
}

/// Whether the text is a filter that one may subscribe to: no empty token, `>` only last, no blank or control character.
pub fn is_valid_filter(filter: &str) -> bool {
    if !has_no_empty_token(filter) || !has_only_subject_bytes(filter.as_bytes()) {
        return false;
    }
    let mut rest = tokens(filter);
    while let Some(token) = rest.next() {
        if token == ">" {
            return rest.next().is_none();
        }
    }
    true
}

/// Whether the filter matches the subject. Wildcards in the subject count as ordinary tokens, as they do in a publish.
///
/// A subject with an empty token matches nothing.
pub fn matches(filter: &str, subject: &str) -> bool {
    if !has_no_empty_token(subject) {
        return false;
    }
    let mut filters = tokens(filter);
    let mut subjects = tokens(subject);
    loop {
        match (filters.next(), subjects.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether every subject that `sub` matches is also matched by `allow`.
///
/// ```
/// use nats_proto::subject::is_subset;
/// assert!(is_subset("foo.*", "foo.>"));
/// assert!(!is_subset("foo.>", "foo.*"));
/// ```
pub fn is_subset(sub: &str, allow: &str) -> bool {
    let mut subs = tokens(sub);
    let mut allows = tokens(allow);
    loop {
        match (subs.next(), allows.next()) {
            (Some(_), Some(">")) => return true,
            (Some(">"), _) => return false,
            (Some(_), Some("*")) => {}
            (Some(token), Some(wanted)) if token == wanted => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether some subject is matched by both filters.
pub fn overlaps(left: &str, right: &str) -> bool {
    let mut lefts = tokens(left);
    let mut rights = tokens(right);
    loop {
        match (lefts.next(), rights.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_of_filters_and_publishes() {
        for (subject, filter, publish) in [
            ("foo", true, true),
            ("foo.*", true, false),
            ("foo.>", true, false),
            (">", true, false),
            ("foo.>.bar", false, false),
            ("", false, false),
            (".", false, false),
            ("a..b", false, false),
            ("a.", false, false),
            (".a", false, false),
            ("foo*", true, true),
            ("f>o", true, true),
            ("foo.>>", true, true),
            ("a b", false, false),
            ("a\rb", false, false),
            ("a\u{7f}", false, false),
            ("日本.語", true, true),
        ] {
            assert_eq!(is_valid_filter(subject), filter, "filter {subject:?}");
            assert_eq!(is_valid_publish(subject), publish, "publish {subject:?}");
        }
    }

    #[test]
    fn matching_takes_wildcards_in_subjects_as_tokens() {
        assert!(matches("foo.*", "foo.*"));
        assert!(matches("foo.>", "foo.*"));
        assert!(!matches("foo.bar", "foo.*"));
        assert!(!matches(">", "a..b"));
        assert!(!matches("foo.>", "foo"));
        assert!(matches("*.b", "a.b"));
    }

    #[test]
    fn subset_is_stricter_than_matching() {
        for (sub, allow, expected) in [
            ("foo.x", "foo.*", true),
            ("foo.*", "foo.*", true),
            ("foo.>", "foo.*", false),
            (">", "*", false),
            ("*", ">", true),
            ("c.*.>", "c.>", true),
            ("c", "c.>", false),
            ("foo.*.*", "foo.*", false),
            ("*.x", "foo.*", false),
            ("a.>", "a.>", true),
        ] {
            assert_eq!(is_subset(sub, allow), expected, "{sub} in {allow}");
        }
    }

    #[test]
    fn overlap_is_symmetric() {
        for (left, right, expected) in [
            ("a.*", "*.b", true),
            ("a.>", "*.b.c", true),
            ("a.b", "a.c", false),
            ("a", "a.>", false),
            (">", "x.y", true),
            ("a.*", "a.*.c", false),
        ] {
            assert_eq!(overlaps(left, right), expected, "{left} {right}");
            assert_eq!(overlaps(right, left), expected, "{right} {left}");
        }
    }
}
