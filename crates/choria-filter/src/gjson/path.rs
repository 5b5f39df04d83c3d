//! Taking paths apart.

use std::borrow::Cow;

use super::modifiers;

/// What follows a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next<'p> {
    End,
    /// `.rest`: goes on inside the value.
    Dot(&'p str),
    /// `|rest`, or a `.` before a modifier, literal or multipath: starts anew on the value.
    Pipe(&'p str),
}

/// One key or index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Component<'p> {
    /// As written, escapes included.
    pub(super) text: &'p str,
    /// Has `*` or `?` outside of escapes.
    pub(super) wild: bool,
    escaped: bool,
    pub(super) next: Next<'p>,
}

impl<'p> Component<'p> {
    /// The key without its escapes.
    pub(super) fn key(&self) -> Cow<'p, str> {
        if !self.escaped {
            return Cow::Borrowed(self.text);
        }
        let mut chars = self.text.chars();
        let mut key = String::with_capacity(self.text.len());
        while let Some(c) = chars.next() {
            if c == '\\' {
                key.extend(chars.next());
            } else {
                key.push(c);
            }
        }
        Cow::Owned(key)
    }
}

/// The first component of `path`.
pub(super) fn component(path: &str) -> Component<'_> {
    let (mut wild, mut escaped) = (false, false);
    let mut bytes = path.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                escaped = true;
                bytes.next();
            }
            b'*' | b'?' => wild = true,
            b'.' | b'|' => {
                let rest = &path[at + 1..];
                let next = if byte == b'|' || starts_anew(rest) { Next::Pipe(rest) } else { Next::Dot(rest) };
                return Component { text: &path[..at], wild, escaped, next };
            }
            _ => {}
        }
    }
    Component { text: path, wild, escaped, next: Next::End }
}

fn starts_anew(rest: &str) -> bool {
    match rest.as_bytes().first() {
        Some(b'@') => modifier(rest).is_some(),
        Some(b'[' | b'{' | b'!') => true,
        _ => false,
    }
}

/// Reads `@name`, `@name:argument` of a known modifier; also gives the rest of the path.
pub(super) fn modifier(path: &str) -> Option<(&str, &str, &str)> {
    let body = path.strip_prefix('@')?;
    let end = body.find([':', '|', '.']).unwrap_or(body.len());
    let (name, rest) = body.split_at(end);
    if !modifiers::is_known(name) {
        return None;
    }
    let Some(rest) = rest.strip_prefix(':') else { return Some((name, "", rest)) };
    let argument_end = match rest.as_bytes().first() {
        Some(b'{' | b'[' | b'"') => balanced(rest).unwrap_or(rest.len()),
        _ => rest.find('|').unwrap_or(rest.len()),
    };
    let (argument, rest) = rest.split_at(argument_end);
    Some((name, argument, rest))
}

/// A JSON literal at the start of `text`, and the rest of the path.
pub(super) fn literal(text: &str) -> (&str, &str) {
    let end = match text.as_bytes().first() {
        Some(b'{' | b'[' | b'"') => balanced(text),
        _ => text.find(['.', '|']),
    };
    text.split_at(end.unwrap_or(text.len()))
}

/// Where the string or bracket that opens `text` has closed.
fn balanced(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                if at >= bytes.len() {
                    return None;
                }
            }
            b'\\' => at += 1,
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return (at <= bytes.len() && text.is_char_boundary(at)).then_some(at);
        }
    }
    None
}

/// Splits at the first `|` outside of brackets, strings and escapes.
pub(super) fn split_pipe(path: &str) -> (&str, Option<&str>) {
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' | b'[' | b'(' => {
                // An unclosed bracket hides no pipe; the rest is one component.
                let Some(length) = balanced(&path[at..]) else { return (path, None) };
                at += length;
                continue;
            }
            b'|' => return (&path[..at], Some(&path[at + 1..])),
            _ => {}
        }
        at += 1;
    }
    (path, None)
}

/// One member of a multipath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selector<'p> {
    name: Option<&'p str>,
    pub(super) path: &'p str,
}

impl Selector<'_> {
    /// The key in the object: the name given, else the last component if it is a plain one.
    pub(super) fn key(&self) -> String {
        if let Some(name) = self.name {
            return serde_json::from_str(name).unwrap_or_else(|_| name.to_owned());
        }
        let last = self.path.rsplit(['.', '|']).next().unwrap_or_default();
        let plain = !last.is_empty() && !last.contains(|c: char| c < ' ' || "[]{}()#|!".contains(c));
        if plain { last.to_owned() } else { "_".to_owned() }
    }
}

/// Reads the `[...]` or `{...}` at the start of `path`; also gives the rest.
pub(super) fn selectors(path: &str) -> Option<(Vec<Selector<'_>>, &str)> {
    let end = balanced(path)?;
    let inner = &path[1..end - 1];
    let bytes = inner.as_bytes();
    let mut selectors = Vec::new();
    let (mut start, mut colon, mut modifier, mut at) = (0, None, false, 0);
    let push = |selectors: &mut Vec<_>, start: usize, colon: Option<usize>, end: usize| {
        selectors.push(match colon {
            Some(colon) => Selector { name: Some(&inner[start..colon]), path: &inner[colon + 1..end] },
            None => Selector { name: None, path: &inner[start..end] },
        });
    };
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'@' if at > start && matches!(bytes[at - 1], b'.' | b'|') => modifier = true,
            b':' if !modifier => colon = Some(at),
            b',' => {
                push(&mut selectors, start, colon, at);
                (start, colon, modifier) = (at + 1, None, false);
            }
            b'"' | b'[' | b'(' | b'{' => {
                at += balanced(&inner[at..])?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    push(&mut selectors, start, colon, inner.len());
    Some((selectors, &path[end..]))
}
