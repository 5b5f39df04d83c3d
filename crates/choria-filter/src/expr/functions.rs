//! Built-in functions. Those for lists are in `lists`, those for text in `texts`.

use super::check::Type;
use super::run::{Budget, Ran, RunError};
use super::value::Value;
use super::{lists, ops, temporal, texts};

/// Fewest and most arguments and the type of the result of a built-in function.
pub(super) fn signature(name: &str) -> Option<(usize, usize, Type)> {
    use Type::{Any, Bool, Float, Int, List, Map, Text, Texts, Time};
    const MANY: usize = usize::MAX;
    Some(match name {
        "len" => (1, 1, Int),
        "indexOf" | "lastIndexOf" => (2, 2, Int),
        "type" | "lower" | "upper" | "string" | "toJSON" | "toBase64" | "fromBase64" => (1, 1, Text),
        "trim" | "trimPrefix" | "trimSuffix" => (1, 2, Text),
        "replace" => (3, 4, Text),
        "repeat" => (2, 2, Text),
        "join" => (1, 2, Text),
        "split" | "splitAfter" => (2, 3, Texts),
        "hasPrefix" | "hasSuffix" => (2, 2, Bool),
        "int" => (1, 1, Int),
        "float" | "ceil" | "floor" | "round" => (1, 1, Float),
        "abs" | "fromJSON" | "first" | "last" => (1, 1, Any),
        "max" | "min" | "mean" | "median" => (1, MANY, Any),
        "get" => (2, 2, Any),
        "take" => (2, 2, List),
        "keys" | "values" | "toPairs" | "reverse" | "flatten" | "uniq" => (1, 1, List),
        "sort" => (1, 2, List),
        "concat" => (1, MANY, List),
        "fromPairs" => (1, 1, Map),
        "now" => (0, 0, Time),
        "duration" | "date" => (1, 1, Time),
        "bitand" | "bitor" | "bitxor" | "bitnand" | "bitshl" | "bitshr" | "bitushr" => (2, 2, Int),
        "bitnot" => (1, 1, Int),
        _ => return None,
    })
}

/// Calls a built-in function. `None` when there is none of that name.
pub(super) fn call(name: &str, arguments: &[Value], now: Option<i64>, budget: &Budget) -> Option<Ran> {
    let (fewest, most, _) = signature(name)?;
    if !(fewest..=most).contains(&arguments.len()) {
        return Some(Err(RunError::new(format!("{name}() cannot take {} arguments", arguments.len()))));
    }
    // Every function may walk over its arguments.
    if let Err(error) = budget.spend(arguments.iter().fold(0, |sum, argument| sum.saturating_add(argument.weight()))) {
        return Some(Err(error));
    }
    Some(match name {
        "type" => Ok(Value::text(arguments[0].type_name())),
        "len" => length(&arguments[0]),
        "int" => int(&arguments[0]),
        "float" => to_float(&arguments[0]),
        "abs" | "ceil" | "floor" | "round" => rounded(name, &arguments[0]),
        "max" | "min" | "mean" | "median" => statistic(name, arguments, budget),
        "get" => get(&arguments[0], &arguments[1]),
        "now" => temporal::now(now),
        "duration" => temporal::duration(&arguments[0]),
        "date" => temporal::date(&arguments[0]),
        "toJSON" => {
            let text = choria_protocol::json::value_text(&arguments[0].to_json());
            budget.spend_text(text.len()).map(|()| Value::text(text))
        }
        "fromJSON" => from_json(&arguments[0], budget),
        name if name.starts_with("bit") => bits(name, arguments),
        name => match lists::call(name, arguments, budget) {
            Some(result) => result,
            None => texts::call(name, arguments, budget),
        },
    })
}

pub(super) fn count(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn wrong(name: &str, value: &Value) -> RunError {
    RunError::new(format!("{name}() cannot take {}", value.type_name()))
}

fn length(value: &Value) -> Ran {
    Ok(count(match value {
        Value::Text(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        Value::NilMap => 0,
        Value::Bytes(number) => *number,
        other => return Err(wrong("len", other)),
    }))
}

fn int(value: &Value) -> Ran {
    match value {
        Value::Int(number) | Value::Duration(number) => Ok(Value::Int(*number)),
        #[expect(clippy::cast_possible_truncation, reason = "int() is defined to cut the fraction off")]
        Value::Float(number) => Ok(Value::Int(*number as i64)),
        Value::Text(text) => {
            text.parse().map(Value::Int).map_err(|_| RunError::new(format!("{text:?} is not a whole number")))
        }
        other => Err(wrong("int", other)),
    }
}

fn to_float(value: &Value) -> Ran {
    match value {
        Value::Text(text) => {
            text.parse().map(Value::Float).map_err(|_| RunError::new(format!("{text:?} is not a number")))
        }
        other => ops::float(other).map(Value::Float).ok_or_else(|| wrong("float", other)),
    }
}

fn rounded(name: &str, value: &Value) -> Ran {
    if let (Value::Int(number), "abs") = (value, name) {
        return Ok(Value::Int(number.wrapping_abs()));
    }
    let number = ops::float(value).ok_or_else(|| wrong(name, value))?;
    Ok(Value::Float(match name {
        "abs" => number.abs(),
        "ceil" => number.ceil(),
        "floor" => number.floor(),
        _ => number.round(),
    }))
}

/// Numbers in arguments and in lists among them.
fn numbers(name: &str, arguments: &[Value], found: &mut Vec<Value>) -> Result<(), RunError> {
    for argument in arguments {
        match argument {
            Value::Int(_) | Value::Float(_) => found.push(argument.clone()),
            Value::List(items) => numbers(name, items, found)?,
            other => return Err(wrong(name, other)),
        }
    }
    Ok(())
}

fn statistic(name: &str, arguments: &[Value], budget: &Budget) -> Ran {
    let mut found = Vec::new();
    numbers(name, arguments, &mut found)?;
    if matches!(name, "max" | "min") {
        let mut best: Option<Value> = None;
        for value in found {
            let better = match &best {
                None => true,
                Some(best) => {
                    let ordering = ops::compare(&value, best, budget)?.flatten();
                    ordering.is_some_and(|ordering| if name == "max" { ordering.is_gt() } else { ordering.is_lt() })
                }
            };
            if better {
                best = Some(value);
            }
        }
        return Ok(best.unwrap_or(Value::Nil));
    }
    let mut found: Vec<f64> = found.iter().filter_map(ops::float).collect();
    if found.is_empty() {
        return Ok(Value::Float(0.0));
    }
    #[expect(clippy::cast_precision_loss, reason = "a list is far shorter than 2^52")]
    let length = found.len() as f64;
    if name == "mean" {
        return Ok(Value::Float(found.iter().sum::<f64>() / length));
    }
    found.sort_by(f64::total_cmp);
    let middle = found.len() / 2;
    let median =
        if found.len().is_multiple_of(2) { f64::midpoint(found[middle - 1], found[middle]) } else { found[middle] };
    Ok(Value::Float(median))
}

fn get(base: &Value, key: &Value) -> Ran {
    Ok(match (base, key) {
        (Value::List(items), Value::Int(index)) => {
            ops::place(items.len(), *index).and_then(|place| items.get(place).cloned()).unwrap_or(Value::Nil)
        }
        (Value::Map(entries), Value::Text(key)) => entries.get(key.as_ref()).cloned().unwrap_or(Value::Nil),
        (base, _) if base.is_nil() => Value::Nil,
        (base, _) => return Err(wrong("get", base)),
    })
}

fn from_json(value: &Value, budget: &Budget) -> Ran {
    let Value::Text(text) = value else { return Err(wrong("fromJSON", value)) };
    budget.spend(text.len() / 4)?;
    let json = serde_json::from_str(text).map_err(|error| RunError::new(format!("not JSON: {error}")))?;
    Value::from_json(&json, false, budget)
}

fn bits(name: &str, arguments: &[Value]) -> Ran {
    let whole = |index: usize| match arguments.get(index) {
        Some(Value::Int(number)) => Ok(*number),
        Some(other) => Err(wrong(name, other)),
        None => Ok(0),
    };
    let (a, b) = (whole(0)?, whole(1)?);
    let shift = || u32::try_from(b).map_err(|_| RunError::new("negative shift"));
    Ok(Value::Int(match name {
        "bitand" => a & b,
        "bitor" => a | b,
        "bitxor" => a ^ b,
        "bitnand" => a & !b,
        "bitnot" => !a,
        "bitshl" => a.checked_shl(shift()?).unwrap_or(0),
        "bitshr" => a >> shift()?.min(63),
        _ => {
            u64::from_ne_bytes(a.to_ne_bytes()).checked_shr(shift()?).map_or(0, |n| i64::from_ne_bytes(n.to_ne_bytes()))
        }
    }))
}
