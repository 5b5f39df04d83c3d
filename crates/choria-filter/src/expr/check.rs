//! Types, as far as they are known before an expression runs. Catches what cannot work, so that a client refuses it before
//! anything is sent.

use std::fmt;

use super::ast::{Ast, Closure, Kind, Operator};
use super::functions;
use super::value::Value;
use super::{CompileError, Scope};

/// Type of a value at compile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Known only when it runs.
    Any,
    /// Nothing.
    Nil,
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A floating point number.
    Float,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A list of anything.
    List,
    /// A list of text.
    Texts,
    /// A map.
    Map,
    /// A point or span of time.
    Time,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "anything",
            Self::Nil => "nil",
            Self::Bool => "a boolean",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::List => "a list",
            Self::Texts => "a list of text",
            Self::Map => "a map",
            Self::Time => "a time",
        })
    }
}

impl Type {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::Float(_) => Self::Float,
            Value::Text(_) => Self::Text,
            Value::Bytes(_) => Self::Bytes,
            Value::List(_) => Self::List,
            Value::Map(_) | Value::NilMap => Self::Map,
            Value::Time(_) | Value::Duration(_) => Self::Time,
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Float)
    }

    /// Whether `==` between the two can be true.
    fn comparable(self, other: Self) -> bool {
        self == other
            || matches!(self, Self::Any | Self::Nil)
            || matches!(other, Self::Any | Self::Nil)
            || (self.is_number() && other.is_number())
            || (matches!(self, Self::List | Self::Texts) && matches!(other, Self::List | Self::Texts))
    }

    fn accepts(self, argument: Self) -> bool {
        matches!(self, Self::Any) || matches!(argument, Self::Any | Self::Nil) || self == argument
    }
}

/// The check. Holds the variables that `let` declared.
pub(super) struct Checker<'s> {
    scope: &'s Scope,
    variables: Vec<(String, Type)>,
    items: Vec<Type>,
}

type Checked = Result<Type, CompileError>;

fn refuse(ast: &Ast, detail: impl Into<String>) -> CompileError {
    CompileError { detail: detail.into(), position: ast.at }
}

impl<'s> Checker<'s> {
    pub(super) fn new(scope: &'s Scope) -> Self {
        Self { scope, variables: Vec::new(), items: Vec::new() }
    }

    pub(super) fn check(&mut self, ast: &Ast) -> Checked {
        match &ast.kind {
            Kind::Constant(value) => Ok(Type::of(value)),
            Kind::Variable(name) => Ok(self.variable(name)),
            Kind::Item => Ok(self.items.last().copied().unwrap_or(Type::Any)),
            Kind::ItemIndex => Ok(Type::Int),
            Kind::Accumulator => Ok(Type::Any),
            Kind::Member { base, name, .. } => self.member(ast, base, name),
            Kind::Index { base, index, .. } => self.index(ast, base, index),
            Kind::Slice { base, from, to } => self.slice(ast, base, from.as_deref(), to.as_deref()),
            Kind::Chain(inner) => self.check(inner).map(|_| Type::Any),
            Kind::Not(inner) => {
                self.boolean(inner, "not")?;
                Ok(Type::Bool)
            }
            Kind::Minus(inner) | Kind::Plus(inner) => match self.check(inner)? {
                kind if kind.is_number() || kind == Type::Any => Ok(kind),
                kind => Err(refuse(ast, format!("{kind} has no sign"))),
            },
            Kind::Binary { operator, left, right } => self.binary(ast, *operator, left, right),
            Kind::Matches { left, pattern } => {
                self.text(left, "matches")?;
                if let super::ast::Pattern::Computed(right) = pattern {
                    self.text(right, "matches")?;
                }
                Ok(Type::Bool)
            }
            Kind::All(list) => list.iter().try_for_each(|inner| self.boolean(inner, "and")).map(|()| Type::Bool),
            Kind::Any(list) => list.iter().try_for_each(|inner| self.boolean(inner, "or")).map(|()| Type::Bool),
            Kind::Coalesce(left, right) => {
                let (left, right) = (self.check(left)?, self.check(right)?);
                Ok(if left == right || left == Type::Nil { right } else { Type::Any })
            }
            Kind::Conditional(condition, then, otherwise) => {
                self.boolean(condition, "a condition")?;
                let (then, otherwise) = (self.check(then)?, self.check(otherwise)?);
                Ok(if then == otherwise { then } else { Type::Any })
            }
            Kind::Let { name, value, body } => {
                let kind = self.check(value)?;
                self.variables.push((name.clone(), kind));
                let result = self.check(body);
                self.variables.pop();
                result
            }
            Kind::Sequence(list) => list.iter().try_fold(Type::Nil, |_, inner| self.check(inner)),
            Kind::List(list) => {
                list.iter().try_for_each(|inner| self.check(inner).map(drop))?;
                Ok(Type::List)
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    self.text(key, "a key")?;
                    self.check(value)?;
                }
                Ok(Type::Map)
            }
            Kind::Call { name, arguments } => self.call(ast, name, arguments),
            Kind::Method { base, arguments, .. } => {
                self.check(base)?;
                arguments.iter().try_for_each(|inner| self.check(inner).map(drop))?;
                Ok(Type::Any)
            }
            Kind::Closure { function, list, predicate, extra } => {
                self.closure(*function, list, predicate.as_deref(), extra.as_deref())
            }
        }
    }

    fn variable(&self, name: &str) -> Type {
        let declared = self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, kind)| *kind);
        // Unknown variables are nil, but so might a host's be that is not in the scope.
        declared.or_else(|| self.scope.variable_type(name)).unwrap_or(Type::Any)
    }

    fn boolean(&mut self, ast: &Ast, place: &str) -> Result<(), CompileError> {
        match self.check(ast)? {
            Type::Bool | Type::Any => Ok(()),
            kind => Err(refuse(ast, format!("{place} needs a boolean, this is {kind}"))),
        }
    }

    fn text(&mut self, ast: &Ast, place: &str) -> Result<(), CompileError> {
        match self.check(ast)? {
            Type::Text | Type::Any | Type::Nil => Ok(()),
            kind => Err(refuse(ast, format!("{place} needs text, this is {kind}"))),
        }
    }

    fn whole(&mut self, ast: &Ast, place: &str) -> Result<(), CompileError> {
        match self.check(ast)? {
            Type::Int | Type::Any => Ok(()),
            kind => Err(refuse(ast, format!("{place} needs a whole number, this is {kind}"))),
        }
    }

    fn member(&mut self, ast: &Ast, base: &Ast, name: &str) -> Checked {
        match self.check(base)? {
            Type::Map | Type::Any => Ok(Type::Any),
            Type::Bytes => Err(refuse(ast, format!("facts are raw bytes here: write fact('{name}')"))),
            kind => Err(refuse(ast, format!("{kind} has no member {name}"))),
        }
    }

    fn index(&mut self, ast: &Ast, base: &Ast, index: &Ast) -> Checked {
        let base = self.check(base)?;
        match base {
            Type::List | Type::Texts => {
                self.whole(index, "an index")?;
                Ok(if base == Type::Texts { Type::Text } else { Type::Any })
            }
            Type::Map => self.text(index, "a key").map(|()| Type::Any),
            Type::Any => self.check(index).map(|_| Type::Any),
            kind => Err(refuse(ast, format!("{kind} has no items"))),
        }
    }

    fn slice(&mut self, ast: &Ast, base: &Ast, from: Option<&Ast>, to: Option<&Ast>) -> Checked {
        for bound in [from, to].into_iter().flatten() {
            self.whole(bound, "a slice")?;
        }
        match self.check(base)? {
            kind @ (Type::List | Type::Texts | Type::Text | Type::Any) => Ok(kind),
            kind => Err(refuse(ast, format!("{kind} cannot be sliced"))),
        }
    }

    fn binary(&mut self, ast: &Ast, operator: Operator, left: &Ast, right: &Ast) -> Checked {
        let (l, r) = (self.check(left)?, self.check(right)?);
        let mismatch = || Err(refuse(ast, format!("{} cannot be used between {l} and {r}", operator.as_str())));
        let unknown = l == Type::Any || r == Type::Any;
        match operator {
            Operator::Equal | Operator::NotEqual => {
                if l.comparable(r) {
                    Ok(Type::Bool)
                } else {
                    mismatch()
                }
            }
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                let ordered = |kind: Type| kind.is_number() || matches!(kind, Type::Text | Type::Time | Type::Any);
                if ordered(l) && ordered(r) && l.comparable(r) { Ok(Type::Bool) } else { mismatch() }
            }
            Operator::In => match r {
                Type::List | Type::Texts | Type::Map | Type::Any | Type::Nil => Ok(Type::Bool),
                _ => mismatch(),
            },
            Operator::Contains | Operator::StartsWith | Operator::EndsWith => {
                self.text(left, operator.as_str())?;
                self.text(right, operator.as_str())?;
                Ok(Type::Bool)
            }
            Operator::Range => {
                self.whole(left, "a range")?;
                self.whole(right, "a range")?;
                Ok(Type::List)
            }
            Operator::Add if l == Type::Text && r == Type::Text => Ok(Type::Text),
            Operator::Add | Operator::Subtract if l == Type::Time && r == Type::Time => Ok(Type::Time),
            Operator::Modulo if l == Type::Float || r == Type::Float => mismatch(),
            _ if unknown => Ok(Type::Any),
            Operator::Multiply if l == Type::Time && r.is_number() || l.is_number() && r == Type::Time => {
                Ok(Type::Time)
            }
            _ if l.is_number() && r.is_number() => Ok(match operator {
                Operator::Divide | Operator::Power => Type::Float,
                _ if l == Type::Int && r == Type::Int => Type::Int,
                _ => Type::Float,
            }),
            _ => mismatch(),
        }
    }

    fn call(&mut self, ast: &Ast, name: &str, arguments: &[Ast]) -> Checked {
        let kinds = arguments.iter().map(|argument| self.check(argument)).collect::<Result<Vec<_>, _>>()?;
        if let Some((parameters, result)) = self.scope.signature(name) {
            if parameters.len() != kinds.len() {
                let (wanted, found) = (parameters.len(), kinds.len());
                return Err(refuse(ast, format!("{name}() takes {wanted} arguments, {found} given")));
            }
            for ((parameter, kind), argument) in parameters.iter().zip(&kinds).zip(arguments) {
                if *parameter == Type::List && *kind == Type::Texts {
                    let hint = "use 'x' in the list instead";
                    return Err(refuse(argument, format!("{name}() needs a list of anything, this is {kind}: {hint}")));
                }
                if !parameter.accepts(*kind) {
                    return Err(refuse(argument, format!("{name}() needs {parameter} here, this is {kind}")));
                }
            }
            return Ok(result);
        }
        if let Some((fewest, most, result)) = functions::signature(name) {
            if !(fewest..=most).contains(&kinds.len()) {
                return Err(refuse(ast, format!("{name}() cannot take {} arguments", kinds.len())));
            }
            return Ok(result);
        }
        Ok(Type::Any)
    }

    fn closure(&mut self, function: Closure, list: &Ast, predicate: Option<&Ast>, extra: Option<&Ast>) -> Checked {
        let item = match self.check(list)? {
            Type::Texts => Type::Text,
            Type::List | Type::Any | Type::Map => Type::Any,
            kind => return Err(refuse(list, format!("{}() needs a list, this is {kind}", function.name()))),
        };
        if let Some(extra) = extra {
            self.check(extra)?;
        }
        if let Some(predicate) = predicate {
            self.items.push(item);
            let checked = match function {
                Closure::Map | Closure::Sum | Closure::GroupBy | Closure::SortBy | Closure::Reduce => {
                    self.check(predicate).map(drop)
                }
                _ => self.boolean(predicate, "a predicate"),
            };
            self.items.pop();
            checked?;
        }
        Ok(match function {
            Closure::All | Closure::None | Closure::Any | Closure::One => Type::Bool,
            Closure::Filter | Closure::SortBy | Closure::Map => Type::List,
            Closure::Count | Closure::FindIndex | Closure::FindLastIndex => Type::Int,
            Closure::GroupBy => Type::Map,
            Closure::Sum | Closure::Find | Closure::FindLast | Closure::Reduce => Type::Any,
        })
    }
}
