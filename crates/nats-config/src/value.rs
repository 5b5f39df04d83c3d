//! The tree that a text becomes: values with their places, before anybody asks what they mean.

use std::sync::Arc;

use crate::Position;

/// A value. Copies share what is inside, so that a variable costs nothing to use.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) at: Position,
    pub(crate) kind: Kind,
    /// Values inside, this one included, counted as often as they are used.
    pub(crate) size: usize,
    /// Blocks and lists within each other.
    pub(crate) depth: usize,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Bool(bool),
    Integer {
        number: i64,
        /// The unit of sizes as it was written (`k`, `MB`, `kib`); empty without one.
        unit: Arc<str>,
    },
    Float(f64),
    Text(Arc<str>),
    List(Arc<[Value]>),
    Map(Arc<[Pair]>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) key: Arc<str>,
    pub(crate) at: Position,
    pub(crate) value: Value,
    /// Somebody used it as a variable, so it need not be a setting.
    pub(crate) used: bool,
}

impl Value {
    /// A value with nothing inside.
    pub(crate) fn plain(at: Position, kind: Kind) -> Self {
        Self { at, kind, size: 1, depth: 0 }
    }

    pub(crate) fn list(at: Position, values: Vec<Self>) -> Self {
        let (size, depth) = extent(values.iter());
        Self { at, kind: Kind::List(values.into()), size, depth }
    }

    pub(crate) fn map(at: Position, pairs: Vec<Pair>) -> Self {
        let (size, depth) = extent(pairs.iter().map(|pair| &pair.value));
        Self { at, kind: Kind::Map(pairs.into()), size, depth }
    }

    /// What it is, for a message about something else being expected. Never the value itself: it may be a secret.
    pub(crate) fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Bool(_) => "true or false",
            Kind::Integer { .. } => "a number",
            Kind::Float(_) => "a number with a fraction",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a block",
        }
    }
}

fn extent<'a>(inside: impl Iterator<Item = &'a Value>) -> (usize, usize) {
    inside.fold((1, 1), |(size, depth), value| {
        (value.size.saturating_add(size), depth.max(value.depth.saturating_add(1)))
    })
}
