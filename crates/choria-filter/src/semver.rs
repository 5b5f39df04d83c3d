//! Version constraints as Masterminds/semver understands them, which the original's `semver()` uses (spec 01 §7.3,
//! spec 05 §3.5).
//!
//! | Written | Meaning |
//! |---|---|
//! | `= != > < >= <=` | comparisons; a version without minor or patch stands for all of them, so `>1` excludes 1.x |
//! | `~1.10` | 1.10.x |
//! | `^1.9` | up to the next leftmost non-zero part |
//! | `1.x` `1.10.*` `1.2` | any of these |
//! | `1.2 - 1.4` | from, up to and including |
//! | `,` or a blank, `\|\|` | and, or |
//!
//! A pre-release matches only a constraint that names one.

use semver::{BuildMetadata, Prerelease, Version};

/// Constraints in one text, beyond which it is refused.
const MAX_TERMS: usize = 100;

/// Why a version or a constraint was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SemverError {
    /// Not a version.
    #[error("{0:?} is not a version")]
    Version(String),
    /// Not a constraint.
    #[error("{0:?} is not a version constraint")]
    Constraint(String),
}

/// A version as written, which may lack minor and patch.
#[derive(Debug, Clone)]
struct Written {
    version: Version,
    /// How many of the three parts were given.
    parts: usize,
}

/// Reads `v1.2.3-rc.1+build`, with everything but the major optional. With `wildcards` a part may be `x`, `X` or `*`.
fn read(text: &str, wildcards: bool) -> Option<Written> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (rest, build) = text.split_once('+').map_or((text, ""), |(rest, build)| (rest, build));
    let (numbers, pre) = rest.split_once('-').map_or((rest, ""), |(numbers, pre)| (numbers, pre));
    if (rest.len() > numbers.len() && pre.is_empty()) || (text.len() > rest.len() && build.is_empty()) {
        return None;
    }
    let (mut found, mut parts, mut open) = ([0_u64; 3], 0, false);
    for (index, part) in numbers.split('.').enumerate() {
        if index > 2 {
            return None;
        }
        if wildcards && matches!(part, "x" | "X" | "*") {
            open = true;
        } else if !open && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            found[index] = part.parse().ok()?;
            parts = index + 1;
        } else {
            return None;
        }
    }
    if parts == 0 && !open {
        return None;
    }
    let version = Version {
        major: found[0],
        minor: found[1],
        patch: found[2],
        pre: Prerelease::new(pre).ok()?,
        build: BuildMetadata::new(build).ok()?,
    };
    Some(Written { version, parts })
}

/// Reads a version, `v1.11.0` and `1.2` included.
///
/// # Errors
/// [`SemverError::Version`].
pub fn parse_version(text: &str) -> Result<Version, SemverError> {
    read(text, false)
        .map(|written| written.version)
        .ok_or_else(|| SemverError::Version(text.chars().take(80).collect()))
}

/// A constraint ready to be compared.
#[derive(Debug, Clone)]
pub struct Constraint {
    /// Alternatives of terms that must all hold.
    alternatives: Vec<Vec<Term>>,
}

#[derive(Debug, Clone)]
struct Term {
    operator: &'static str,
    written: Written,
}

/// Operators and what they mean, longest first.
const OPERATORS: [(&str, &str); 11] = [
    ("!=", "!="),
    (">=", ">="),
    ("=>", ">="),
    ("<=", "<="),
    ("=<", "<="),
    ("~>", "~"),
    ("~", "~"),
    ("^", "^"),
    (">", ">"),
    ("<", "<"),
    ("=", "="),
];

impl Constraint {
    /// Reads a constraint.
    ///
    /// # Errors
    /// [`SemverError::Constraint`].
    pub fn parse(text: &str) -> Result<Self, SemverError> {
        let refuse = || SemverError::Constraint(text.chars().take(80).collect());
        let mut alternatives = Vec::new();
        let mut count = 0;
        for alternative in text.split("||") {
            let terms = terms(alternative).ok_or_else(refuse)?;
            count += terms.len();
            if terms.is_empty() || count > MAX_TERMS {
                return Err(refuse());
            }
            alternatives.push(terms);
        }
        Ok(Self { alternatives })
    }

    /// Whether a version satisfies the constraint.
    pub fn matches(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|terms| terms.iter().all(|term| term.matches(version)))
    }
}

fn terms(text: &str) -> Option<Vec<Term>> {
    let mut terms = Vec::new();
    for part in text.split(',') {
        let mut words = part.split_whitespace().peekable();
        words.peek()?;
        while let Some(word) = words.next() {
            let (operator, rest) = OPERATORS
                .iter()
                .find_map(|(token, meaning)| Some((*meaning, word.strip_prefix(token)?)))
                .unwrap_or(("", word));
            // The operator may stand apart from its version.
            let rest = if rest.is_empty() { words.next()? } else { rest };
            if operator.is_empty() && words.peek() == Some(&"-") {
                words.next();
                let (from, to) = (read(rest, true)?, read(words.next()?, true)?);
                terms.push(Term { operator: ">=", written: from });
                terms.push(Term { operator: "<=", written: to });
            } else {
                let operator = if operator.is_empty() { "=" } else { operator };
                terms.push(Term { operator, written: read(rest, true)? });
            }
        }
    }
    Some(terms)
}

impl Term {
    fn matches(&self, version: &Version) -> bool {
        let wanted = &self.written.version;
        if !version.pre.is_empty() && wanted.pre.is_empty() {
            return false;
        }
        let precedence = version.cmp_precedence(wanted);
        let whole = self.written.parts == 3;
        match self.operator {
            "=" if whole => precedence.is_eq(),
            "=" => self.within(version),
            "!=" if whole => precedence.is_ne(),
            "!=" => !self.within(version),
            ">" if whole => precedence.is_gt(),
            ">" => precedence.is_gt() && !self.within(version),
            "<" => precedence.is_lt(),
            ">=" => precedence.is_ge(),
            "<=" if whole => precedence.is_le(),
            "<=" => precedence.is_lt() || self.within(version),
            "~" => precedence.is_ge() && self.tilde(version),
            _ => precedence.is_ge() && self.caret(version),
        }
    }

    /// Whether the parts that were written are the same.
    fn within(&self, version: &Version) -> bool {
        let wanted = &self.written.version;
        let parts = self.written.parts;
        (parts < 1 || version.major == wanted.major)
            && (parts < 2 || version.minor == wanted.minor)
            && (parts < 3 || version.patch == wanted.patch)
    }

    fn tilde(&self, version: &Version) -> bool {
        let wanted = &self.written.version;
        // `~0.0.0` takes everything, as does `~*`.
        if (wanted.major, wanted.minor, wanted.patch) == (0, 0, 0) && !matches!(self.written.parts, 1 | 2) {
            return true;
        }
        version.major == wanted.major && (self.written.parts < 2 || version.minor == wanted.minor)
    }

    fn caret(&self, version: &Version) -> bool {
        let wanted = &self.written.version;
        match self.written.parts {
            0 => true,
            1 => version.major == wanted.major,
            _ if wanted.major > 0 => version.major == wanted.major,
            _ if version.major > 0 => false,
            2 => version.minor == wanted.minor,
            _ if wanted.minor > 0 => version.minor == wanted.minor,
            _ => version.minor == 0 && version.patch == wanted.patch,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn satisfies(version: &str, constraint: &str) -> bool {
        Constraint::parse(constraint).unwrap().matches(&parse_version(version).unwrap())
    }

    #[test]
    fn constraints() {
        for (constraint, inside, outside) in [
            (">1", vec!["2.0.0"], vec!["1.0.0", "1.2.3", "1.9"]),
            (">1.2", vec!["1.3.0", "2.0.0"], vec!["1.2.9", "1.2.0"]),
            ("> 1, < 2", vec![], vec!["1.5.0", "2.0.0"]),
            (">= 1.10.0", vec!["1.10.0", "1.10.1", "v1.11.0", "10.0.0"], vec!["1.9.3", "1.2", "2.0.0-rc1"]),
            (">= 2.0.0-0", vec!["2.0.0-rc1", "10.0.0"], vec!["1.10.1"]),
            ("1.x", vec!["1.2", "1.10.0"], vec!["2.0.0", "0.9.0"]),
            ("1.10.*", vec!["1.10.0", "1.10.9"], vec!["1.11.0"]),
            ("=1.2", vec!["1.2", "1.2.9"], vec!["1.3.0"]),
            ("1.2.3", vec!["1.2.3", "1.2.3+build"], vec!["1.2.4"]),
            ("~1.10", vec!["1.10.0", "1.10.1"], vec!["1.11.0", "1.9.3"]),
            ("~1", vec!["1.0.0", "1.99.0"], vec!["2.0.0"]),
            ("~>1.2.3", vec!["1.2.3", "1.2.9"], vec!["1.3.0", "1.2.2"]),
            ("^1.9", vec!["1.9.0", "1.99.0"], vec!["1.8.0", "2.0.0"]),
            ("^0.2.3", vec!["0.2.3", "0.2.9"], vec!["0.3.0", "1.0.0"]),
            ("^0.0.3", vec!["0.0.3"], vec!["0.0.4", "0.1.0"]),
            ("^0.0", vec!["0.0.1"], vec!["0.1.0"]),
            ("^0", vec!["0.0.1", "0.9.0"], vec!["1.0.0"]),
            ("*", vec!["0.0.1", "9.9.9"], vec!["1.0.0-rc1"]),
            ("!=1.2", vec!["1.3.0", "2.0.0"], vec!["1.2.0", "1.2.9"]),
            ("!=1.2.3", vec!["1.2.4"], vec!["1.2.3"]),
            ("<1.2", vec!["1.1.9"], vec!["1.2.0"]),
            ("<=1.2", vec!["1.2.9", "1.0.0"], vec!["1.3.0"]),
            ("=<1", vec!["1.9.0"], vec!["2.0.0"]),
            ("1.10.0 || 10.0.0", vec!["1.10.0", "10.0.0"], vec!["1.10.1"]),
            ("1.2 - 1.4.5", vec!["1.2.0", "1.4.5"], vec!["1.4.6", "1.1.0"]),
            (">=1.0.0 <2.0.0", vec!["1.5.0"], vec!["2.0.0"]),
            ("~0.0.0", vec!["0.0.0", "5.0.0"], vec![]),
        ] {
            for version in inside {
                assert!(satisfies(version, constraint), "{version} in {constraint}");
            }
            for version in outside {
                assert!(!satisfies(version, constraint), "{version} not in {constraint}");
            }
        }
    }

    #[test]
    fn texts_that_are_neither() {
        for text in ["bad", "", "1.2.3.4", "v", "1.-2", "1.2.3-", "1..2", "x"] {
            assert!(parse_version(text).is_err(), "{text}");
        }
        for text in ["bad", "", ">", "1.2 ||", ", 1", "1 - ", ">>1", "1.x.3", "1.2.3.4"] {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
        assert!(Constraint::parse(&"1 ".repeat(MAX_TERMS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(constraint in "[0-9xv.*<>=!~^, |a-]{0,24}", version in "[0-9v.a+-]{0,12}") {
            if let (Ok(constraint), Ok(version)) = (Constraint::parse(&constraint), parse_version(&version)) {
                let _ = constraint.matches(&version);
            }
        }
    }
}
