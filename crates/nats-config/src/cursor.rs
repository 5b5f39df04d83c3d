//! Walking through a text, with line and column.

use std::path::Path;
use std::sync::Arc;

use crate::Position;

/// A place in a text that is being read.
pub(crate) struct Cursor<'a> {
    rest: &'a str,
    file: Arc<Path>,
    line: u32,
    column: u32,
    /// The text has no lines of its own: everything in it stands here.
    fixed: Option<Position>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str, file: Arc<Path>) -> Self {
        // Editors put a byte order mark in front; it is no part of the first key.
        Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text), file, line: 1, column: 1, fixed: None }
    }

    /// A text that is not in a file and stands for something at a place in one.
    pub(crate) fn fixed(text: &'a str, at: Position) -> Self {
        Self { rest: text, file: Arc::clone(&at.file), line: at.line, column: at.column, fixed: Some(at) }
    }

    pub(crate) fn position(&self) -> Position {
        if let Some(at) = &self.fixed {
            return at.clone();
        }
        Position { file: Arc::clone(&self.file), line: self.line, column: self.column }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a str {
        self.rest
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        if next == '\n' {
            self.line = self.line.saturating_add(1);
            self.column = 1;
        } else {
            self.column = self.column.saturating_add(1);
        }
        Some(next)
    }

    /// Takes this character when it comes next.
    pub(crate) fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// Takes characters while they are wanted.
    pub(crate) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let before = self.rest;
        while self.peek().is_some_and(&wanted) {
            self.next();
        }
        &before[..before.len() - self.rest.len()]
    }

    /// Skips blanks of one line.
    pub(crate) fn skip_blanks(&mut self) {
        self.take_while(is_blank);
    }

    /// Skips a comment, but for the end of its line.
    pub(crate) fn skip_comment(&mut self) -> bool {
        let comment = self.at_comment();
        if comment {
            self.take_while(|c| c != '\n');
        }
        comment
    }

    pub(crate) fn at_comment(&self) -> bool {
        self.rest.starts_with('#') || self.rest.starts_with("//")
    }

    /// Skips blanks, line ends and comments. Whether there was a line end among them.
    pub(crate) fn skip_space(&mut self) -> bool {
        let line = self.line;
        let mut returned = false;
        loop {
            let skipped = self.take_while(|c| is_blank(c) || is_line_end(c));
            returned |= skipped.contains('\r');
            if !self.skip_comment() {
                return returned || self.line != line;
            }
        }
    }
}

pub(crate) fn is_line_end(c: char) -> bool {
    c == '\n' || c == '\r'
}

pub(crate) fn is_blank(c: char) -> bool {
    c.is_whitespace() && !is_line_end(c)
}
