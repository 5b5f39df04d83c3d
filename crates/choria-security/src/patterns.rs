//! Lists of name patterns: who may call, who is privileged, what no certificate may say.
//!
//! A pattern is a regular expression searched anywhere in the name, as in the original, so it needs `^` and `$` of its
//! own; a value written `/like this/` loses the slashes. An expression that does not compile is an error when the list is
//! made; the original ignores it, which for a deny list means failing open.

use std::sync::{Arc, LazyLock};

use regex::{Regex, RegexBuilder};

/// Default of `plugin.choria.security.certname_whitelist`.
pub const DEFAULT_ALLOWED: [&str; 2] = [r"\.mcollective$", r"\.choria$"];
/// Default of `plugin.choria.security.privileged_users`, with the dot that the original's default forgets to escape.
pub const DEFAULT_PRIVILEGED: [&str; 2] = [r"\.privileged\.mcollective$", r"\.privileged\.choria$"];
/// Default of the provisioner's `cert_deny_list` (spec 04 §3).
pub const DEFAULT_DENIED: [&str; 4] =
    [r"\.privileged\.mcollective$", r"\.privileged\.choria$", r"\.mcollective$", r"\.choria$"];

/// Memory one compiled pattern may take.
const PATTERN_LIMIT: usize = 1 << 20;

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("pattern {pattern} is not a valid regular expression: {problem}")]
pub struct PatternError {
    /// The pattern as configured.
    pub pattern: String,
    /// What the regular expression library said.
    pub problem: String,
}

/// A compiled list of patterns; clones share it.
#[derive(Debug, Clone)]
pub struct Patterns {
    // Shared, because every copy of a `Regex` builds its own caches: policies are made per node.
    patterns: Arc<[(String, Matcher)]>,
    fold: bool,
}

/// A compiled pattern.
#[derive(Debug)]
enum Matcher {
    /// A plain ending, as nearly all patterns are: a compiled expression of it takes 15 KiB on every node.
    Ending(String),
    /// Anything else.
    Expression(Box<Regex>),
}

impl Matcher {
    fn is_match(&self, name: &str) -> bool {
        match self {
            Self::Ending(ending) => name.ends_with(ending),
            Self::Expression(regex) => regex.is_match(name),
        }
    }
}

/// The ending that an expression stands for, if it is nothing but characters that stand for themselves, and `$`.
fn plain_ending(expression: &str) -> Option<String> {
    let mut ending = String::new();
    let mut characters = expression.strip_suffix('$')?.chars();
    while let Some(character) = characters.next() {
        ending.push(match character {
            '\\' => characters.next().filter(|escaped| matches!(escaped, '.' | '-'))?,
            plain if plain.is_ascii_alphanumeric() || matches!(plain, '-' | '_' | '=') => plain,
            _ => return None,
        });
    }
    Some(ending)
}

impl Patterns {
    /// Compiles a list whose names are compared as written.
    ///
    /// The original's default privileged patterns, written out in a configuration, mean the safe ones:
    /// `\.privileged.mcollective$` would also match `.privilegedXmcollective` (spec 01, sharp edge 5).
    ///
    /// # Errors
    /// The first pattern that does not compile.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        Self::compile(patterns, false)
    }

    /// Compiles a deny list: letter case and a final dot of a name make no difference (DESIGN section 6).
    ///
    /// # Errors
    /// The first pattern that does not compile.
    pub fn deny<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        Self::compile(patterns, true)
    }

    /// The provisioner's default deny list.
    pub fn default_deny() -> Self {
        static COMPILED: LazyLock<Patterns> =
            LazyLock::new(|| Patterns::deny(DEFAULT_DENIED).expect("the built in patterns compile"));
        COMPILED.clone()
    }

    fn compile<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>, fold: bool) -> Result<Self, PatternError> {
        let compile = |original: S| {
            let original = original.as_ref();
            let text = match original {
                r"\.privileged.mcollective$" => DEFAULT_PRIVILEGED[0],
                r"\.privileged.choria$" => DEFAULT_PRIVILEGED[1],
                wrapped if wrapped.len() > 1 && wrapped.starts_with('/') && wrapped.ends_with('/') => {
                    wrapped.trim_matches('/')
                }
                plain => plain,
            };
            if let Some(ending) = plain_ending(text).filter(|_| !fold) {
                return Ok((original.to_owned(), Matcher::Ending(ending)));
            }
            RegexBuilder::new(text)
                .case_insensitive(fold)
                .size_limit(PATTERN_LIMIT)
                .build()
                .map(|regex| (original.to_owned(), Matcher::Expression(Box::new(regex))))
                .map_err(|error| PatternError { pattern: original.to_owned(), problem: error.to_string() })
        };
        Ok(Self { patterns: patterns.into_iter().map(compile).collect::<Result<_, _>>()?, fold })
    }

    /// The first pattern, as configured, that matches `name`.
    pub fn matching(&self, name: &str) -> Option<&str> {
        let bare = name.trim_end_matches('.');
        self.patterns
            .iter()
            .find(|(_, one)| one.is_match(name) || (self.fold && bare.len() < name.len() && one.is_match(bare)))
            .map(|(pattern, _)| pattern.as_str())
    }

    /// True when any pattern matches `name`.
    pub fn is_match(&self, name: &str) -> bool {
        self.matching(name).is_some()
    }

    /// True when the list has no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_lists_search_and_keep_the_case() {
        let allowed = Patterns::new(DEFAULT_ALLOWED).unwrap();
        for (name, expected) in [
            ("bob.mcollective", true),
            ("bob.choria", true),
            ("bob", false),
            ("bob.MCOLLECTIVE", false),
            ("bob.mcollective.evil", false),
            ("bobXmcollective", false),
        ] {
            assert_eq!(allowed.is_match(name), expected, "{name}");
        }
    }

    #[test]
    fn the_originals_default_privileged_patterns_are_made_safe() {
        let privileged = Patterns::new([r"\.privileged.mcollective$", r"\.privileged.choria$"]).unwrap();
        assert!(privileged.is_match("x.privileged.mcollective"));
        assert!(privileged.is_match("x.privileged.choria"));
        assert!(!privileged.is_match("a.privilegedXmcollective"));
        assert!(!privileged.is_match("a.privilegedXchoria"));
    }

    #[test]
    fn plain_endings_mean_what_the_expression_means() {
        let names =
            ["a.mcollective", "mcollective", "a.mcollective\n", "a.mcollective.", "xmcollective", "a-b", "", "A-B"];
        for expression in [r"\.mcollective$", "mcollective$", r"a\-b$", "a-b$", "$"] {
            let (ending, regex) = (plain_ending(expression).unwrap(), Regex::new(expression).unwrap());
            for name in names {
                assert_eq!(name.ends_with(&ending), regex.is_match(name), "{expression} {name:?}");
            }
        }
        for other in ["^db", "a.b$", "x+$", r"\d$", r"\.a\$", "(a|b)$", "é$", r"\$", "a"] {
            assert_eq!(plain_ending(other), None, "{other}");
        }
    }

    #[test]
    fn slashes_around_a_pattern_are_removed() {
        let denied = Patterns::deny(["/^db/"]).unwrap();
        assert!(denied.is_match("db1"));
        assert_eq!(denied.matching("DB1"), Some("/^db/"));
        assert!(!denied.is_match("adb"));
    }

    #[test]
    fn design6_deny_list_ignores_case_and_final_dots() {
        let denied = Patterns::default_deny();
        for name in ["a.choria", "a.CHORIA", "a.choria.", "a.choria..", "A.Privileged.Mcollective", "x.mcollective"] {
            assert!(denied.is_match(name), "{name}");
        }
        for name in ["choria", "a.choria.net", "node1.example.net", "mcollective"] {
            assert!(!denied.is_match(name), "{name}");
        }
    }

    #[test]
    fn design6_an_invalid_deny_pattern_is_an_error() {
        let error = Patterns::deny(["ok", "(unclosed"]).unwrap_err();
        assert!(error.to_string().contains("(unclosed"), "{error}");
    }
}
