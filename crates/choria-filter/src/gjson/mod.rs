//! GJSON paths over parsed facts: `os.release.major`, `net.#(if=="eth0").ip`, `tags.@reverse.0` (spec 01 §7.1).
//!
//! Written here rather than taken from a library because paths come from other machines: a short path of modifiers and
//! multipaths can ask for exponentially much, so every step and every copied value is paid from a budget, and nesting is
//! bounded. Working on the parsed document also spares writing the facts out for each comparison.
//!
//! What is understood: keys with `*` and `?`, escapes, indices, `#`, `#.key`, `#(query)` and `#(query)#`, `|`, the modifiers
//! `@this @valid @ugly @pretty @reverse @keys @values @flatten @join @tostr @fromstr @group @dig`, `[a,b]`, `{a,"b":c}`, `!literal`
//! and `..` (the document as a line of a list).

mod modifiers;
mod path;
mod query;

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::{Map, Value};

use path::{Next, Selector};

/// Longest path that is looked at, in bytes.
pub(crate) const MAX_PATH: usize = 4096;
/// Nesting of pipes, queries and multipaths.
const MAX_DEPTH: usize = 32;
/// Steps and copied values of one lookup.
const BUDGET: usize = 200_000;

/// Why a lookup was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("path is longer than {MAX_PATH} bytes")]
    Long,
    #[error("path nests too deeply")]
    Deep,
    #[error("path asks for too much")]
    Costly,
}

/// Looks `path` up in `root`. `None` when nothing is there.
pub(crate) fn get<'v>(root: &'v Value, path: &str) -> Result<Option<Cow<'v, Value>>, PathError> {
    if path.len() > MAX_PATH {
        return Err(PathError::Long);
    }
    Lookup { budget: Cell::new(BUDGET) }.get(root, path, 0)
}

/// What a walk found, and the path behind a `|` that is still to be applied.
struct Found<'v, 'p> {
    value: Option<Cow<'v, Value>>,
    pipe: Option<&'p str>,
}

impl<'v> Found<'v, '_> {
    fn value(value: &'v Value) -> Self {
        Self { value: Some(Cow::Borrowed(value)), pipe: None }
    }

    fn owned(value: Value) -> Self {
        Self { value: Some(Cow::Owned(value)), pipe: None }
    }
}

struct Lookup {
    budget: Cell<usize>,
}

impl Lookup {
    /// Pays for `amount` steps or bytes.
    fn pay(&self, amount: usize) -> Result<(), PathError> {
        let left = self.budget.get().checked_sub(amount).ok_or(PathError::Costly)?;
        self.budget.set(left);
        Ok(())
    }

    /// A copy that is paid for.
    fn copy(&self, value: &Value) -> Result<Value, PathError> {
        self.pay(size(value))?;
        Ok(value.clone())
    }

    fn owned(&self, value: Cow<'_, Value>) -> Result<Value, PathError> {
        match value {
            Cow::Borrowed(value) => self.copy(value),
            Cow::Owned(value) => Ok(value),
        }
    }

    /// Applies `path` to a value made on the way.
    fn get_owned<'v>(&self, value: &Value, path: &str, depth: usize) -> Result<Option<Cow<'v, Value>>, PathError> {
        match self.get(value, path, depth)? {
            Some(found) => Ok(Some(Cow::Owned(self.owned(found)?))),
            None => Ok(None),
        }
    }

    fn get<'v>(&self, value: &'v Value, path: &str, depth: usize) -> Result<Option<Cow<'v, Value>>, PathError> {
        if depth > MAX_DEPTH {
            return Err(PathError::Deep);
        }
        self.pay(1)?;
        if let Some((made, rest)) = self.made(value, path, depth)? {
            return match (made, rest.strip_prefix(['.', '|'])) {
                (Some(made), Some(rest)) => self.get_owned(&made, rest, depth + 1),
                (made, _) => Ok(made.map(Cow::Owned)),
            };
        }
        if let Some(rest) = path.strip_prefix("..") {
            let lines = Value::Array(vec![self.copy(value)?]);
            return self.get_owned(&lines, rest, depth + 1);
        }
        match self.walk(value, path, depth)? {
            Found { value: None, .. } => Ok(None),
            Found { value, pipe: None } => Ok(value),
            Found { value: Some(Cow::Borrowed(value)), pipe: Some(pipe) } => self.get(value, pipe, depth + 1),
            Found { value: Some(Cow::Owned(value)), pipe: Some(pipe) } => self.get_owned(&value, pipe, depth + 1),
        }
    }

    /// Modifiers, literals and multipaths at the start of `path`: the value they make (none if it does not exist) and
    /// the rest of the path. `None` when the path begins with none of them.
    fn made<'p>(
        &self,
        value: &Value,
        path: &'p str,
        depth: usize,
    ) -> Result<Option<(Option<Value>, &'p str)>, PathError> {
        match path.as_bytes() {
            [b'@', _, ..] => match path::modifier(path) {
                Some((name, argument, rest)) => {
                    let made = self.modify(value, name, argument, depth)?;
                    Ok(Some((made, rest)))
                }
                None => Ok(None),
            },
            [b'!', _, ..] => {
                let (text, rest) = path::literal(&path[1..]);
                Ok(Some((serde_json::from_str(text).ok(), rest)))
            }
            [b'[' | b'{', ..] => {
                let Some((selectors, rest)) = path::selectors(path) else { return Ok(None) };
                if !(rest.is_empty() || rest.starts_with(['.', '|'])) {
                    return Ok(None);
                }
                let made = self.select(value, path.starts_with('{'), &selectors, depth)?;
                Ok(Some((Some(made), rest)))
            }
            _ => Ok(None),
        }
    }

    fn select(&self, value: &Value, object: bool, list: &[Selector<'_>], depth: usize) -> Result<Value, PathError> {
        let (mut items, mut map) = (Vec::new(), Map::new());
        for selector in list {
            if let Some(found) = self.get(value, selector.path, depth + 1)? {
                let found = self.owned(found)?;
                if object {
                    map.insert(selector.key(), found);
                } else {
                    items.push(found);
                }
            }
        }
        Ok(if object { Value::Object(map) } else { Value::Array(items) })
    }

    /// Follows keys and indices.
    fn walk<'v, 'p>(&self, value: &'v Value, path: &'p str, depth: usize) -> Result<Found<'v, 'p>, PathError> {
        if depth > MAX_DEPTH {
            return Err(PathError::Deep);
        }
        match value {
            Value::Object(map) => self.walk_object(map, path, depth),
            Value::Array(items) => self.walk_array(items, path, depth),
            _ => Ok(Found { value: None, pipe: None }),
        }
    }

    fn walk_object<'v, 'p>(
        &self,
        map: &'v Map<String, Value>,
        path: &'p str,
        depth: usize,
    ) -> Result<Found<'v, 'p>, PathError> {
        let component = path::component(path);
        let none = Found { value: None, pipe: None };
        if !component.wild {
            self.pay(1)?;
            let Some(value) = map.get(component.key().as_ref()) else { return Ok(none) };
            return self.step(value, component.next, depth);
        }
        for (key, value) in map {
            self.pay(1 + key.len() / 16)?;
            if query::wildcard(key, component.text, self)? {
                let found = self.step(value, component.next, depth)?;
                if found.value.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(none)
    }

    /// Goes on from a value that a component named.
    fn step<'v, 'p>(&self, value: &'v Value, next: Next<'p>, depth: usize) -> Result<Found<'v, 'p>, PathError> {
        match next {
            Next::End => Ok(Found::value(value)),
            Next::Pipe(rest) => Ok(Found { value: Some(Cow::Borrowed(value)), pipe: Some(rest) }),
            Next::Dot(rest) => self.walk(value, rest, depth + 1),
        }
    }

    fn walk_array<'v, 'p>(&self, items: &'v [Value], path: &'p str, depth: usize) -> Result<Found<'v, 'p>, PathError> {
        if let Some(rest) = path.strip_prefix('#') {
            match rest.as_bytes().first() {
                None => return Ok(Found::owned(Value::from(items.len()))),
                Some(b'|') => {
                    return Ok(Found { pipe: Some(&rest[1..]), ..Found::owned(Value::from(items.len())) });
                }
                Some(b'.') => return self.each(items, &rest[1..], depth),
                Some(b'(' | b'[') => return self.query(items, path, depth),
                Some(_) => {}
            }
        }
        let component = path::component(path);
        let value = component.text.parse::<usize>().ok().and_then(|index| items.get(index));
        match value {
            Some(value) => self.step(value, component.next, depth),
            None => Ok(Found { value: None, pipe: None }),
        }
    }

    /// `#.path`: the path of every element, as a list of those that have it.
    fn each<'v, 'p>(&self, items: &'v [Value], path: &'p str, depth: usize) -> Result<Found<'v, 'p>, PathError> {
        let (path, pipe) = path::split_pipe(path);
        let mut found = Vec::new();
        for item in items {
            if let Some(value) = self.get(item, path, depth + 1)? {
                found.push(self.owned(value)?);
            }
        }
        Ok(Found { pipe, ..Found::owned(Value::Array(found)) })
    }

    /// `#(query)` and `#(query)#`, with what follows.
    fn query<'v, 'p>(&self, items: &'v [Value], path: &'p str, depth: usize) -> Result<Found<'v, 'p>, PathError> {
        let none = Found { value: None, pipe: None };
        let Some((query, all, next)) = query::parse(path) else { return Ok(none) };
        let (path, mut pipe) = match next {
            Next::End => (None, None),
            Next::Pipe(rest) => (None, Some(rest)),
            Next::Dot(rest) => {
                let (left, pipe) = path::split_pipe(rest);
                (Some(left), pipe)
            }
        };
        let mut found = Vec::new();
        for item in items {
            if !query.matches(item, self, depth)? {
                continue;
            }
            let value = match path {
                Some(path) => self.get(item, path, depth + 1)?,
                None => Some(Cow::Borrowed(item)),
            };
            if !all {
                return Ok(Found { value, pipe: pipe.take() });
            }
            if let Some(value) = value {
                found.push(self.owned(value)?);
            }
        }
        if all { Ok(Found { pipe, ..Found::owned(Value::Array(found)) }) } else { Ok(none) }
    }
}

/// Cost of a copy: values and, more coarsely, bytes of text.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len() / 16,
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.iter().map(|(key, value)| key.len() / 16 + size(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests;
