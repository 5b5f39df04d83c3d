//! Running a tree.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::Host;
use super::ast::{Ast, Kind, Pattern};
use super::value::Value;
use super::{functions, ops, temporal};
use crate::regex::go_regex;

/// Steps, list items and the like that one evaluation may cost.
const BUDGET: usize = 500_000;

/// Why an evaluation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct RunError {
    detail: String,
    /// A `?.` met nil: not an error, ends at the chain around it.
    ends_chain: bool,
}

impl RunError {
    /// A failure with its reason.
    pub fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ends_chain: false }
    }

    fn end_of_chain() -> Self {
        Self { detail: "nothing there".to_owned(), ends_chain: true }
    }
}

/// What one evaluation may still cost.
#[derive(Debug)]
pub struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(BUDGET))
    }
}

impl Budget {
    /// Pays for steps or items.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn spend(&self, amount: usize) -> Result<(), RunError> {
        match self.0.get().checked_sub(amount) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(RunError::new("expression asks for too much")),
        }
    }

    /// Pays for bytes of text.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn spend_text(&self, bytes: usize) -> Result<(), RunError> {
        self.spend(bytes / 16)
    }
}

/// What `#`, `#index` and `#acc` stand for.
pub(super) struct Frame {
    pub(super) item: Value,
    pub(super) index: usize,
    pub(super) accumulator: Value,
}

pub(super) struct Runner<'h> {
    host: &'h dyn Host,
    pub(super) budget: Budget,
    pub(super) frames: Vec<Frame>,
    variables: Vec<(String, Value)>,
}

pub(super) type Ran = Result<Value, RunError>;

impl<'h> Runner<'h> {
    pub(super) fn new(host: &'h dyn Host) -> Self {
        Self { host, budget: Budget::default(), frames: Vec::new(), variables: Vec::new() }
    }

    pub(super) fn run(&mut self, ast: &Ast) -> Ran {
        self.budget.spend(1)?;
        match &ast.kind {
            Kind::Constant(value) => Ok(value.clone()),
            Kind::Variable(name) => Ok(self.variable(name)),
            Kind::Item => Ok(self.frames.last().map_or(Value::Nil, |frame| frame.item.clone())),
            Kind::ItemIndex => Ok(self.frames.last().map_or(Value::Nil, |frame| functions::count(frame.index))),
            Kind::Accumulator => Ok(self.frames.last().map_or(Value::Nil, |frame| frame.accumulator.clone())),
            Kind::Member { base, name, optional } => {
                let base = self.base(base, *optional)?;
                ops::member(&base, name)
            }
            Kind::Index { base, index, optional } => {
                let base = self.base(base, *optional)?;
                let index = self.run(index)?;
                ops::index(&base, &index)
            }
            Kind::Slice { base, from, to } => {
                let base = self.run(base)?;
                let from = from.as_ref().map(|from| self.run(from)).transpose()?;
                let to = to.as_ref().map(|to| self.run(to)).transpose()?;
                ops::slice(&base, from, to, &self.budget)
            }
            Kind::Chain(inner) => match self.run(inner) {
                Err(error) if error.ends_chain => Ok(Value::Nil),
                other => other,
            },
            Kind::Not(inner) => Ok(Value::Bool(!self.boolean(inner, "not")?)),
            Kind::Minus(inner) => ops::negate(&self.run(inner)?),
            Kind::Plus(inner) => ops::number(self.run(inner)?),
            Kind::Binary { operator, left, right } => {
                let left = self.run(left)?;
                let right = self.run(right)?;
                ops::binary(*operator, &left, &right, &self.budget)
            }
            Kind::Matches { left, pattern } => self.matches(left, pattern),
            Kind::All(list) => {
                for inner in list {
                    if !self.boolean(inner, "and")? {
                        return Ok(Value::Bool(false));
                    }
                }
                Ok(Value::Bool(true))
            }
            Kind::Any(list) => {
                for inner in list {
                    if self.boolean(inner, "or")? {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            Kind::Coalesce(left, right) => {
                let left = self.run(left)?;
                if left.is_nil() { self.run(right) } else { Ok(left) }
            }
            Kind::Conditional(condition, then, otherwise) => {
                if self.boolean(condition, "a condition")? {
                    self.run(then)
                } else {
                    self.run(otherwise)
                }
            }
            Kind::Let { name, value, body } => {
                let value = self.run(value)?;
                self.variables.push((name.clone(), value));
                let result = self.run(body);
                self.variables.pop();
                result
            }
            Kind::Sequence(list) => list.iter().try_fold(Value::Nil, |_, inner| self.run(inner)),
            Kind::List(list) => {
                let items = self.all(list)?;
                Value::list(items, &self.budget)
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Call { name, arguments } => self.call(name, arguments),
            Kind::Method { base, name, arguments, optional } => {
                let base = self.base(base, *optional)?;
                let arguments = self.all(arguments)?;
                temporal::method(&base, name, &arguments)
            }
            Kind::Closure { function, list, predicate, extra } => {
                self.closure(*function, list, predicate.as_deref(), extra.as_deref())
            }
        }
    }

    fn all(&mut self, list: &[Ast]) -> Result<Vec<Value>, RunError> {
        list.iter().map(|inner| self.run(inner)).collect()
    }

    fn variable(&self, name: &str) -> Value {
        let declared = self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        declared.or_else(|| self.host.variable(name)).unwrap_or(Value::Nil)
    }

    fn base(&mut self, base: &Ast, optional: bool) -> Ran {
        let value = self.run(base)?;
        if optional && value.is_nil() { Err(RunError::end_of_chain()) } else { Ok(value) }
    }

    pub(super) fn boolean(&mut self, ast: &Ast, place: &str) -> Result<bool, RunError> {
        match self.run(ast)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(RunError::new(format!("{place} needs a boolean, this is {}", other.type_name()))),
        }
    }

    fn matches(&mut self, left: &Ast, pattern: &Pattern) -> Ran {
        let left = self.run(left)?;
        let computed;
        let regex = match pattern {
            Pattern::Constant(regex) => regex,
            Pattern::Computed(right) => match self.run(right)? {
                right if right.is_nil() => return Ok(Value::Bool(false)),
                Value::Text(text) => {
                    // Compiling costs far more than a step.
                    self.budget.spend(5000 + text.len() * 64)?;
                    computed = go_regex(&text).map_err(|error| RunError::new(error.to_string()))?;
                    &computed
                }
                other => return Err(RunError::new(format!("matches needs text, this is {}", other.type_name()))),
            },
        };
        match left {
            left if left.is_nil() => Ok(Value::Bool(false)),
            Value::Text(text) => {
                self.budget.spend(1 + text.len() / 4)?;
                Ok(Value::Bool(regex.is_match(&text)))
            }
            other => Err(RunError::new(format!("matches needs text, this is {}", other.type_name()))),
        }
    }

    fn map(&mut self, entries: &[(Ast, Ast)]) -> Ran {
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            let key = match self.run(key)? {
                Value::Text(text) => text.as_ref().to_owned(),
                other => return Err(RunError::new(format!("a key needs text, this is {}", other.type_name()))),
            };
            map.insert(key, self.run(value)?);
        }
        Value::map(map, &self.budget)
    }

    fn call(&mut self, name: &str, arguments: &[Ast]) -> Ran {
        let arguments = self.all(arguments)?;
        if let Some(result) = self.host.call(name, &arguments, &self.budget) {
            return result;
        }
        functions::call(name, &arguments, self.host.now(), &self.budget)
            .unwrap_or_else(|| Err(RunError::new(format!("there is no function {name}()"))))
    }
}
