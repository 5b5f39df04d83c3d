//! Subjects as far as a configuration must know them (spec 07 §4).

/// Whether a filter of subjects is well formed: no empty token, no blank, `>` only at the end.
pub(crate) fn is_filter(subject: &str) -> bool {
    let tokens = subject.split('.').count();
    subject.split('.').enumerate().all(|(at, token)| {
        let whole = !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
        whole && (token != ">" || at + 1 == tokens)
    })
}

/// Whether it names one subject, not many.
pub(crate) fn is_literal(subject: &str) -> bool {
    is_filter(subject) && !subject.split('.').any(|token| token == "*" || token == ">")
}

/// Whether a token stands for a wildcard of another subject (`$1`).
pub(crate) fn has_reference(subject: &str) -> bool {
    subject.split('.').any(|token| {
        token.strip_prefix('$').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in ["a", "a.b", "*", ">", "a.*.>", "a*", "a.*b", "$SYS.>", "é"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.>.b", ">.", "a b", "a\tb", "a\u{1}"] {
            assert!(!is_filter(bad), "{bad}");
        }
        assert!(is_literal("a.b") && !is_literal("a.*") && !is_literal(">"));
        assert!(has_reference("a.$1") && !has_reference("$SYS.a") && !has_reference("a.$"));
    }
}
