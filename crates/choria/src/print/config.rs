//! What `choria config` shows.

use std::fmt::Write;
use std::path::Path;

use choria_config::document;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::Role;
use crate::text::{Colour, Palette};

/// What was found in a configuration.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The file that was named.
    pub file: String,
    /// Who reads it.
    pub role: &'static str,
    /// Whether the role was guessed.
    pub guessed: bool,
    /// Every file that was read.
    pub files: Vec<String>,
    /// What stops the program.
    pub errors: Vec<Entry>,
    /// What does not, and deserves a look.
    pub warnings: Vec<Entry>,
    /// Settings of older releases, which have no effect.
    pub notes: Vec<Entry>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(file: &Path, role: Role, guessed: bool) -> Self {
        Self {
            file: file.display().to_string(),
            role: role.name(),
            guessed,
            files: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// One thing about a configuration, with its place.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// The file, where it is in one.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// What is to be said.
    pub text: String,
}

impl Entry {
    /// Something about the configuration as a whole.
    pub(crate) fn general(text: String) -> Self {
        Self { file: None, line: None, text }
    }

    /// A text that begins with `file:line:column: `, or with no place.
    pub(crate) fn located(text: String) -> Self {
        let place = |text: &str| {
            let (place, rest) = text.split_once(": ")?;
            let (file, line) = place.rsplit_once(':').and_then(|(place, _column)| place.rsplit_once(':'))?;
            Some(Self { file: Some(file.to_owned()), line: line.parse().ok(), text: rest.to_owned() })
        };
        place(&text).filter(|entry| entry.line.is_some()).unwrap_or_else(|| Self::general(text))
    }
}

/// One line for everything found, in the form that editors jump to, and one that sums up.
pub(crate) fn text(report: &Report, colour: bool) -> String {
    let palette = Palette(colour);
    let mut out = String::new();
    let mut list = |entries: &[Entry], word: &str, colour: Colour| {
        for entry in entries {
            let place = match (&entry.file, entry.line) {
                (Some(file), Some(line)) => format!("{file}:{line}"),
                (Some(file), None) => file.clone(),
                (None, _) => report.file.clone(),
            };
            let _ = writeln!(out, "{place}: {}: {}", palette.paint(colour, word), entry.text);
        }
    };
    list(&report.errors, "error", Colour::Red);
    list(&report.warnings, "warning", Colour::Yellow);
    list(&report.notes, "note", Colour::White);
    let count = |entries: &[Entry], word: &str| {
        let number = entries.len();
        if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
    };
    let guessed = if report.guessed { ", guessed; --role says otherwise" } else { "" };
    let _ = writeln!(
        out,
        "{}: {}, {} (as {}{guessed})",
        report.file,
        count(&report.errors, "error"),
        count(&report.warnings, "warning"),
        report.role
    );
    out
}

/// What settings are for.
pub(crate) fn explained(entries: &[document::Entry]) -> String {
    let parts: Vec<String> = entries
        .iter()
        .map(|entry| {
            let mut part = format!("{}\n  {}\n", entry.name, plain(&entry.meaning));
            let _ = writeln!(part, "  kind: {}", plain(&entry.kind));
            if !entry.default.is_empty() {
                let _ = writeln!(part, "  default: {}", plain(&entry.default));
            }
            part
        })
        .collect();
    parts.join("\n")
}

/// The same for scripts.
pub(crate) fn explained_json(entries: &[document::Entry]) -> Value {
    let entry = |entry: &document::Entry| {
        json!({
            "name": entry.name,
            "kind": plain(&entry.kind),
            "default": plain(&entry.default),
            "meaning": plain(&entry.meaning),
        })
    };
    entries.iter().map(entry).collect()
}

/// Text without the marks of a Markdown table.
fn plain(text: &str) -> String {
    text.replace("\\|", "|").replace(['`', '*'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_texts() {
        let entry = Entry::located("/a b/p.yaml:3:9: workers must be 0: none".into());
        assert_eq!((entry.file.as_deref(), entry.line), (Some("/a b/p.yaml"), Some(3)));
        assert_eq!(entry.text, "workers must be 0: none");
        for text in ["/p.yaml: choria_insecure is on", "no place at all", "file x could not be parsed: yaml: line 3"] {
            assert_eq!(Entry::located(text.into()), Entry::general(text.into()));
        }
    }
}
