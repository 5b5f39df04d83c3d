//! Operators.

use std::cmp::Ordering;

use super::ast::Operator;
use super::run::{Budget, Ran, RunError};
use super::value::{Value, as_float};

/// Longest range.
const MAX_RANGE: i64 = 100_000;

pub(super) fn binary(operator: Operator, left: &Value, right: &Value, budget: &Budget) -> Ran {
    match operator {
        Operator::Equal => left.equals(right, budget).map(Value::Bool),
        Operator::NotEqual => left.equals(right, budget).map(|equal| Value::Bool(!equal)),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let ordering = compare(left, right, budget)?.ok_or_else(|| mismatch(operator, left, right))?;
            Ok(Value::Bool(match operator {
                Operator::Less => ordering == Some(Ordering::Less),
                Operator::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
                Operator::Greater => ordering == Some(Ordering::Greater),
                _ => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
            }))
        }
        Operator::In => contained(left, right, budget),
        Operator::Contains | Operator::StartsWith | Operator::EndsWith => {
            if left.is_nil() || right.is_nil() {
                return Ok(Value::Bool(false));
            }
            let (Value::Text(text), Value::Text(part)) = (left, right) else {
                return Err(mismatch(operator, left, right));
            };
            budget.spend_text(text.len())?;
            Ok(Value::Bool(match operator {
                Operator::Contains => text.contains(part.as_ref()),
                Operator::StartsWith => text.starts_with(part.as_ref()),
                _ => text.ends_with(part.as_ref()),
            }))
        }
        Operator::Range => range(left, right, budget),
        _ => arithmetic(operator, left, right, budget),
    }
}

fn mismatch(operator: Operator, left: &Value, right: &Value) -> RunError {
    let (left, right) = (left.type_name(), right.type_name());
    RunError::new(format!("{} cannot be used between {left} and {right}", operator.as_str()))
}

/// Order of two values: none if they have none, inner none for numbers that are not comparable (NaN).
pub(super) fn compare(left: &Value, right: &Value, budget: &Budget) -> Result<Option<Option<Ordering>>, RunError> {
    Ok(Some(match (left, right) {
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => {
            budget.spend_text(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        _ => match (float(left), float(right)) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => return Ok(None),
        },
    }))
}

pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(as_float(*number)),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

fn contained(item: &Value, container: &Value, budget: &Budget) -> Ran {
    match container {
        Value::List(items) => {
            for candidate in items.iter() {
                if candidate.equals(item, budget)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        Value::Map(entries) => match item {
            Value::Text(key) => Ok(Value::Bool(entries.contains_key(key.as_ref()))),
            Value::Nil => Ok(Value::Bool(false)),
            _ => Err(mismatch(Operator::In, item, container)),
        },
        container if container.is_nil() => Ok(Value::Bool(false)),
        _ => Err(mismatch(Operator::In, item, container)),
    }
}

fn range(from: &Value, to: &Value, budget: &Budget) -> Ran {
    let (Value::Int(from), Value::Int(to)) = (from, to) else { return Err(mismatch(Operator::Range, from, to)) };
    if to < from {
        return Value::list(Vec::new(), budget);
    }
    if to.checked_sub(*from).is_none_or(|length| length >= MAX_RANGE) {
        return Err(RunError::new(format!("range {from}..{to} is longer than {MAX_RANGE}")));
    }
    Value::list((*from..=*to).map(Value::Int).collect(), budget)
}

fn arithmetic(operator: Operator, left: &Value, right: &Value, budget: &Budget) -> Ran {
    use Operator::{Add, Divide, Modulo, Multiply, Power, Subtract};
    Ok(match (operator, left, right) {
        (Add, Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_add(*b)),
        (Subtract, Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_sub(*b)),
        (Multiply, Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_mul(*b)),
        (Modulo, Value::Int(_), Value::Int(0)) => return Err(RunError::new("division by zero")),
        (Modulo, Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_rem(*b)),
        (Modulo, ..) => return Err(mismatch(operator, left, right)),
        (Add, Value::Text(a), Value::Text(b)) => {
            budget.spend_text(a.len() + b.len())?;
            Value::text(format!("{a}{b}"))
        }
        (Add, Value::Duration(a), Value::Duration(b)) => Value::Duration(a.wrapping_add(*b)),
        (Subtract, Value::Duration(a), Value::Duration(b)) => Value::Duration(a.wrapping_sub(*b)),
        (Multiply, Value::Duration(a), Value::Int(b)) | (Multiply, Value::Int(a), Value::Duration(b)) => {
            Value::Duration(a.wrapping_mul(*b))
        }
        (Add, Value::Time(time), Value::Duration(span)) | (Add, Value::Duration(span), Value::Time(time)) => {
            moved(*time, *span)?
        }
        (Subtract, Value::Time(time), Value::Duration(span)) => moved(*time, span.wrapping_neg())?,
        (Subtract, Value::Time(a), Value::Time(b)) => {
            let span = i64::try_from(a.as_nanosecond() - b.as_nanosecond());
            Value::Duration(span.map_err(|_| RunError::new("duration out of range"))?)
        }
        _ => match (float(left), float(right)) {
            (Some(a), Some(b)) => Value::Float(match operator {
                Add => a + b,
                Subtract => a - b,
                Multiply => a * b,
                Divide => a / b,
                Power => a.powf(b),
                _ => return Err(mismatch(operator, left, right)),
            }),
            _ => return Err(mismatch(operator, left, right)),
        },
    })
}

fn moved(time: jiff::Timestamp, nanoseconds: i64) -> Ran {
    let moved = time.as_nanosecond().checked_add(i128::from(nanoseconds));
    let moved = moved.and_then(|nanoseconds| jiff::Timestamp::from_nanosecond(nanoseconds).ok());
    moved.map(Value::Time).ok_or_else(|| RunError::new("time out of range"))
}

pub(super) fn negate(value: &Value) -> Ran {
    match value {
        Value::Int(number) => Ok(Value::Int(number.wrapping_neg())),
        Value::Float(number) => Ok(Value::Float(-number)),
        Value::Duration(span) => Ok(Value::Duration(span.wrapping_neg())),
        other => Err(RunError::new(format!("{} has no sign", other.type_name()))),
    }
}

pub(super) fn number(value: Value) -> Ran {
    match value {
        Value::Int(_) | Value::Float(_) | Value::Duration(_) => Ok(value),
        other => Err(RunError::new(format!("{} has no sign", other.type_name()))),
    }
}

pub(super) fn member(base: &Value, name: &str) -> Ran {
    match base {
        Value::Map(entries) => Ok(entries.get(name).cloned().unwrap_or(Value::Nil)),
        Value::NilMap => Ok(Value::Nil),
        other => Err(RunError::new(format!("{} has no member {name}", other.type_name()))),
    }
}

pub(super) fn index(base: &Value, index: &Value) -> Ran {
    match (base, index) {
        (Value::List(items), Value::Int(wanted)) => place(items.len(), *wanted)
            .and_then(|place| items.get(place).cloned())
            .ok_or_else(|| RunError::new(format!("index {wanted} is outside a list of {}", items.len()))),
        // An item of text is a byte, as in the original.
        (Value::Text(text), Value::Int(wanted)) => place(text.len(), *wanted)
            .and_then(|place| text.as_bytes().get(place))
            .map(|byte| Value::Int(i64::from(*byte)))
            .ok_or_else(|| RunError::new(format!("index {wanted} is outside a text of {} bytes", text.len()))),
        (Value::Map(entries), Value::Text(key)) => Ok(entries.get(key.as_ref()).cloned().unwrap_or(Value::Nil)),
        (Value::NilMap, Value::Text(_)) => Ok(Value::Nil),
        _ => Err(RunError::new(format!("{} has no item by {}", base.type_name(), index.type_name()))),
    }
}

/// Where an index points; negative ones count from the end.
pub(super) fn place(length: usize, index: i64) -> Option<usize> {
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

pub(super) fn slice(base: &Value, from: Option<Value>, to: Option<Value>, budget: &Budget) -> Ran {
    let bound = |bound: Option<Value>, length: usize, default: usize| match bound {
        None => Ok(default),
        Some(Value::Int(index)) => {
            // Outside bounds are moved to the nearest end.
            let nearest = if index < 0 { 0 } else { length };
            Ok(place(length, index).unwrap_or(nearest).min(length))
        }
        Some(other) => Err(RunError::new(format!("a slice needs whole numbers, this is {}", other.type_name()))),
    };
    match base {
        Value::List(items) => {
            let (from, to) = (bound(from, items.len(), 0)?, bound(to, items.len(), items.len())?);
            Value::list(items.get(from..to).unwrap_or_default().to_vec(), budget)
        }
        Value::Text(text) => {
            budget.spend_text(text.len())?;
            let (from, to) = (bound(from, text.len(), 0)?, bound(to, text.len(), text.len())?);
            let bytes = text.as_bytes().get(from..to).unwrap_or_default();
            Ok(Value::text(String::from_utf8_lossy(bytes).into_owned()))
        }
        other => Err(RunError::new(format!("{} cannot be sliced", other.type_name()))),
    }
}
