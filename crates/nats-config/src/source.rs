//! The texts that were read, kept for showing the lines that are wrong in them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::ShownLine;
use crate::{Position, Problem};

/// Characters of a line that are shown.
const SHOWN: usize = 100;
/// Characters before the place that is meant, when the line is longer.
const SHOWN_BEFORE: usize = 60;
/// What hides a secret.
const HIDDEN: &str = "****";
/// Names whose values are not shown, in small letters.
const SECRET_NAMES: [&str; 8] = ["pass", "password", "token", "jwt", "secret", "seed", "key", "ek"];

/// The texts by file. A file that is included twice is there twice.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    texts: Vec<(Arc<Path>, Arc<str>)>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The texts hold secrets.
        f.debug_list().entries(self.texts.iter().map(|(file, _)| file)).finish()
    }
}

impl Sources {
    pub(crate) fn add(&mut self, file: Arc<Path>, text: Arc<str>) {
        self.texts.push((file, text));
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Where a place comes in the order of reading.
    pub(crate) fn order(&self, at: &Position) -> (usize, u32, u32) {
        (self.texts.iter().position(|(file, _)| *file == at.file).unwrap_or(usize::MAX), at.line, at.column)
    }

    /// Words a problem with the line it stands in.
    pub(crate) fn problem(&self, at: Position, message: String, hint: Option<String>) -> Problem {
        let line = self.line(&at);
        Problem { at, message, hint, line }
    }

    fn line(&self, at: &Position) -> Option<ShownLine> {
        let (_, text) = self.texts.iter().find(|(file, _)| *file == at.file)?;
        let number = usize::try_from(at.line).ok()?.checked_sub(1)?;
        let line = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').nth(number)?;
        if line.trim().is_empty() {
            return None;
        }
        let column = usize::try_from(at.column).ok()?.saturating_sub(1);
        let (line, column) = without_secrets(line, column);
        let skipped = if line.len() > SHOWN { column.saturating_sub(SHOWN_BEFORE) } else { 0 };
        let mut shown: String =
            line.iter().skip(skipped).take(SHOWN).map(|c| if c.is_control() { ' ' } else { *c }).collect();
        let kept = shown.trim_end().len();
        shown.truncate(kept);
        Some(ShownLine { text: shown.into(), before: column.min(line.len()) - skipped.min(line.len()) })
    }
}

/// The characters of a line without the values of passwords and tokens, and where a column of it has gone.
fn without_secrets(line: &str, column: usize) -> (Vec<char>, usize) {
    let line: Vec<char> = line.chars().collect();
    let (mut shown, mut moved) = (Vec::with_capacity(line.len()), column.min(line.len()));
    let mut at = 0;
    while at < line.len() {
        let Some(value) = secret_value(&line, at) else {
            shown.push(line[at]);
            at += 1;
            continue;
        };
        shown.extend_from_slice(&line[at..value.start]);
        if column >= value.end {
            moved = (moved + HIDDEN.len()).saturating_sub(value.len());
        } else if column > value.start {
            moved = (moved + value.start).saturating_sub(column);
        }
        shown.extend(HIDDEN.chars());
        at = value.end;
    }
    let moved = moved.min(shown.len());
    (shown, moved)
}

/// Where the value lies when a secret's name begins here.
fn secret_value(line: &[char], at: usize) -> Option<std::ops::Range<usize>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if at > 0 && is_word(line[at - 1]) {
        return None;
    }
    let name_end = at + line[at..].iter().take_while(|c| is_word(**c)).count();
    let name: String = line[at..name_end].iter().collect::<String>().to_lowercase();
    if !SECRET_NAMES.iter().any(|secret| *secret == name || name.ends_with(&format!("_{secret}"))) {
        return None;
    }
    // The quote that ends the name, what stands between, the quote that begins the value.
    let is_quote = |c: &&char| matches!(c, '"' | '\'');
    let quoted_name = at.checked_sub(1).and_then(|before| line.get(before)).filter(is_quote);
    let after_name = name_end + usize::from(quoted_name.is_some() && line.get(name_end) == quoted_name);
    let between = line[after_name..].iter().take_while(|c| c.is_whitespace() || matches!(c, ':' | '=')).count();
    let quoted = line.get(after_name + between).filter(is_quote);
    let separators = after_name - name_end + between + usize::from(quoted.is_some());
    let start = name_end + separators;
    let value = &line[start..];
    let length = match quoted {
        Some(quote) => quoted_length(value, *quote),
        None if value.first() == Some(&'[') => value.iter().take_while(|c| **c != ']').count(),
        None => value.iter().take_while(|c| !c.is_whitespace() && !matches!(c, ',' | ';' | ']' | '}')).count(),
    };
    // A block or a name that only ends so has nothing to hide.
    (separators > 0 && length > 0 && value.first() != Some(&'{')).then(|| start..start + length)
}

fn quoted_length(value: &[char], quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in value.iter().enumerate() {
        if *c == quote && !escaped {
            return at;
        }
        escaped = *c == '\\' && !escaped && quote == '"';
    }
    value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, column: usize) -> (String, usize) {
        let (line, column) = without_secrets(line, column);
        (line.into_iter().collect(), column)
    }

    #[test]
    fn secrets_are_hidden_and_the_mark_stays_under_its_place() {
        assert_eq!(shown("port: 1", 6), ("port: 1".to_owned(), 6));
        assert_eq!(shown("user: a, password: hunter2, x: 1", 28), ("user: a, password: ****, x: 1".to_owned(), 25));
        assert_eq!(shown("pass = \"a\\\"b c\" }", 2), ("pass = \"****\" }".to_owned(), 2));
        assert_eq!(shown("{\"token\":\"t\"}", 12), ("{\"token\":\"****\"}".to_owned(), 15));
        assert_eq!(shown("  'token' 'abc", 12), ("  'token' '****".to_owned(), 11));
        assert_eq!(shown("token_cookie: x", 3), ("token_cookie: x".to_owned(), 3));
        assert_eq!(shown("password: \"\" }", 12), ("password: \"\" }".to_owned(), 12));
        assert_eq!(shown("password:\"x\"}", 11), ("password:\"****\"}".to_owned(), 14));
        assert_eq!(shown("bypass: y", 3), ("bypass: y".to_owned(), 3));
    }
}
