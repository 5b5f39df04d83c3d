//! Functions that apply an expression to each item of a list.

use std::collections::BTreeMap;

use super::ast::{Ast, Closure};
use super::functions::count;
use super::run::{Frame, Ran, RunError, Runner};
use super::value::{List, Value};
use super::{lists, ops};

impl Runner<'_> {
    pub(super) fn closure(
        &mut self,
        function: Closure,
        list: &Ast,
        predicate: Option<&Ast>,
        extra: Option<&Ast>,
    ) -> Ran {
        let items = match self.run(list)? {
            Value::List(items) => items,
            // Text is a list of its bytes, as in the original.
            Value::Text(text) => {
                List::new(text.bytes().map(|byte| Value::Int(i64::from(byte))).collect(), &self.budget)?
            }
            other => {
                let (name, found) = (function.name(), other.type_name());
                return Err(RunError::new(format!("{name}() needs a list, this is {found}")));
            }
        };
        let extra = extra.map(|extra| self.run(extra)).transpose()?;
        match function {
            Closure::Sum => self.sum(&items, predicate),
            Closure::SortBy => self.sort_by(&items, predicate, extra.as_ref()),
            Closure::Reduce => self.reduce(&items, predicate, extra),
            Closure::GroupBy => self.group_by(&items, predicate),
            Closure::Map => {
                let mapped = (0..items.len()).map(|index| self.apply(&items, index, predicate));
                let mapped = mapped.collect::<Result<_, _>>()?;
                Value::list(mapped, &self.budget)
            }
            _ => self.search(function, &items, predicate),
        }
    }

    /// The predicate's value for one item; the item itself without a predicate.
    fn apply(&mut self, items: &List, index: usize, predicate: Option<&Ast>) -> Ran {
        let Some(predicate) = predicate else { return Ok(items[index].clone()) };
        self.frames.push(Frame { item: items[index].clone(), index, accumulator: Value::Nil });
        let result = self.run(predicate);
        self.frames.pop();
        result
    }

    fn holds(&mut self, items: &List, index: usize, predicate: Option<&Ast>) -> Result<bool, RunError> {
        match self.apply(items, index, predicate)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(RunError::new(format!("a predicate needs a boolean, this is {}", other.type_name()))),
        }
    }

    /// What only asks which items satisfy the predicate.
    fn search(&mut self, function: Closure, items: &List, predicate: Option<&Ast>) -> Ran {
        let backwards = matches!(function, Closure::FindLast | Closure::FindLastIndex);
        let mut hits = Vec::new();
        for step in 0..items.len() {
            let index = if backwards { items.len() - 1 - step } else { step };
            let holds = self.holds(items, index, predicate)?;
            match (function, holds) {
                (Closure::All, false) | (Closure::None, true) => return Ok(Value::Bool(false)),
                (Closure::Any, true) => return Ok(Value::Bool(true)),
                (Closure::Find | Closure::FindLast, true) => return Ok(items[index].clone()),
                (Closure::FindIndex | Closure::FindLastIndex, true) => return Ok(count(index)),
                (_, true) => hits.push(index),
                (_, false) => {}
            }
        }
        Ok(match function {
            Closure::All | Closure::None => Value::Bool(true),
            Closure::Any => Value::Bool(false),
            Closure::One => Value::Bool(hits.len() == 1),
            Closure::Count => count(hits.len()),
            Closure::Filter => {
                return Value::list(hits.into_iter().map(|index| items[index].clone()).collect(), &self.budget);
            }
            _ => Value::Nil,
        })
    }

    fn sum(&mut self, items: &List, predicate: Option<&Ast>) -> Ran {
        let (mut whole, mut fraction) = (Some(0_i64), 0.0);
        for index in 0..items.len() {
            let value = self.apply(items, index, predicate)?;
            let Some(number) = ops::float(&value) else {
                return Err(RunError::new(format!("sum() needs numbers, this is {}", value.type_name())));
            };
            fraction += number;
            whole = match (whole, value) {
                (Some(sum), Value::Int(number)) => Some(sum.wrapping_add(number)),
                _ => None,
            };
        }
        Ok(whole.map_or(Value::Float(fraction), Value::Int))
    }

    fn sort_by(&mut self, items: &List, predicate: Option<&Ast>, order: Option<&Value>) -> Ran {
        let keys = (0..items.len()).map(|index| self.apply(items, index, predicate)).collect::<Result<Vec<_>, _>>()?;
        let order = lists::order(&keys, order, &self.budget)?;
        Value::list(order.into_iter().map(|index| items[index].clone()).collect(), &self.budget)
    }

    fn reduce(&mut self, items: &List, predicate: Option<&Ast>, initial: Option<Value>) -> Ran {
        let Some(predicate) = predicate else { return Err(RunError::new("reduce() needs a predicate")) };
        let skip = usize::from(initial.is_none());
        let mut accumulator = match initial {
            Some(initial) => initial,
            None => items.first().cloned().ok_or_else(|| RunError::new("reduce() of an empty list"))?,
        };
        for index in skip..items.len() {
            self.frames.push(Frame { item: items[index].clone(), index, accumulator });
            let result = self.run(predicate);
            self.frames.pop();
            accumulator = result?;
        }
        Ok(accumulator)
    }

    fn group_by(&mut self, items: &List, predicate: Option<&Ast>) -> Ran {
        let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for index in 0..items.len() {
            let key = self.apply(items, index, predicate)?;
            self.budget.spend(key.weight())?;
            groups.entry(key.display()).or_default().push(items[index].clone());
        }
        let groups = groups.into_iter().map(|(key, group)| Ok((key, Value::list(group, &self.budget)?)));
        Value::map(groups.collect::<Result<_, RunError>>()?, &self.budget)
    }
}
