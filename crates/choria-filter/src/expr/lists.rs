//! Built-in functions for lists and maps.

use std::collections::BTreeMap;

use super::functions::{count, wrong};
use super::ops;
use super::run::{Budget, Ran, RunError};
use super::value::{List, Value};

/// Calls one of the functions here. `None` when the name is none of them. The number of arguments is right.
pub(super) fn call(name: &str, arguments: &[Value], budget: &Budget) -> Option<Ran> {
    let first = &arguments[0];
    Some(match name {
        "keys" | "values" | "toPairs" => entries(name, first, budget),
        "fromPairs" => list(name, first).and_then(|pairs| from_pairs(pairs, budget)),
        "first" => list(name, first).map(|items| items.first().cloned().unwrap_or(Value::Nil)),
        "last" => list(name, first).map(|items| items.last().cloned().unwrap_or(Value::Nil)),
        "take" => list(name, first).and_then(|items| take(items, &arguments[1], budget)),
        "reverse" => list(name, first).and_then(|items| Value::list(items.iter().rev().cloned().collect(), budget)),
        "flatten" => list(name, first).and_then(|items| {
            let mut flat = Vec::new();
            flatten(items, &mut flat);
            Value::list(flat, budget)
        }),
        "uniq" => list(name, first).and_then(|items| uniq(items, budget)),
        "sort" => list(name, first).and_then(|items| sort(items, arguments.get(1), budget)),
        "concat" => concat(arguments, budget),
        "indexOf" | "lastIndexOf" if matches!(first, Value::List(_)) => {
            list(name, first).and_then(|items| position(items, &arguments[1], name == "lastIndexOf", budget))
        }
        _ => return None,
    })
}

fn list<'v>(name: &str, value: &'v Value) -> Result<&'v List, RunError> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(wrong(name, other)),
    }
}

fn entries(name: &str, value: &Value, budget: &Budget) -> Ran {
    let Value::Map(map) = value else { return Err(wrong(name, value)) };
    let items = map.iter().map(|(key, value)| match name {
        "keys" => Ok(Value::text(key.as_str())),
        "values" => Ok(value.clone()),
        _ => Value::list(vec![Value::text(key.as_str()), value.clone()], budget),
    });
    Value::list(items.collect::<Result<_, _>>()?, budget)
}

fn from_pairs(pairs: &List, budget: &Budget) -> Ran {
    let mut map = BTreeMap::new();
    for pair in pairs.iter() {
        match pair {
            Value::List(pair) if pair.len() == 2 => match &pair[0] {
                Value::Text(key) => map.insert(key.as_ref().to_owned(), pair[1].clone()),
                other => return Err(wrong("fromPairs", other)),
            },
            other => return Err(wrong("fromPairs", other)),
        };
    }
    Value::map(map, budget)
}

fn take(items: &List, number: &Value, budget: &Budget) -> Ran {
    let Value::Int(number) = number else { return Err(wrong("take", number)) };
    let number = usize::try_from(*number).map_err(|_| RunError::new("take() cannot take a negative number"))?;
    Value::list(items.iter().take(number).cloned().collect(), budget)
}

fn flatten(items: &List, flat: &mut Vec<Value>) {
    for item in items.iter() {
        match item {
            Value::List(inner) => flatten(inner, flat),
            other => flat.push(other.clone()),
        }
    }
}

fn uniq(items: &List, budget: &Budget) -> Ran {
    let mut kept: Vec<Value> = Vec::new();
    'items: for item in items.iter() {
        for known in &kept {
            if known.equals(item, budget)? {
                continue 'items;
            }
        }
        kept.push(item.clone());
    }
    Value::list(kept, budget)
}

fn sort(items: &List, order_argument: Option<&Value>, budget: &Budget) -> Ran {
    let order = order(items, order_argument, budget)?;
    Value::list(order.into_iter().map(|index| items[index].clone()).collect(), budget)
}

/// Indices of `keys` in their order, which `argument` may turn around with `desc`. Equal keys stay as they are.
pub(super) fn order(keys: &[Value], argument: Option<&Value>, budget: &Budget) -> Result<Vec<usize>, RunError> {
    let descending = match argument {
        None => false,
        Some(Value::Text(text)) if matches!(text.as_ref(), "asc" | "desc") => text.as_ref() == "desc",
        Some(_) => return Err(RunError::new("the order must be 'asc' or 'desc'")),
    };
    let rounds = usize::try_from(keys.len().max(2).ilog2()).unwrap_or(0);
    let weight = keys.iter().fold(0_usize, |sum, key| sum.saturating_add(key.weight()));
    budget.spend(weight.saturating_mul(rounds))?;
    let mut order: Vec<usize> = (0..keys.len()).collect();
    let kind = |value: &Value| ops::float(value).map_or_else(|| value.type_name(), |_| "number");
    let first = keys.first().map_or("number", kind);
    if !matches!(first, "number" | "string" | "time.Time" | "time.Duration")
        || keys.iter().any(|key| kind(key) != first)
    {
        return Err(RunError::new("only numbers, text and times can be sorted, and only among themselves"));
    }
    // The order must be total, or sorting may panic: not-a-number has its place too.
    order.sort_by(|a, b| {
        let ordering = match (&keys[*a], &keys[*b]) {
            (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.cmp(b),
            (Value::Time(a), Value::Time(b)) => a.cmp(b),
            (a, b) => ops::float(a).unwrap_or(f64::NAN).total_cmp(&ops::float(b).unwrap_or(f64::NAN)),
        };
        if descending { ordering.reverse() } else { ordering }
    });
    Ok(order)
}

fn concat(arguments: &[Value], budget: &Budget) -> Ran {
    let mut joined = Vec::new();
    for argument in arguments {
        joined.extend(list("concat", argument)?.iter().cloned());
    }
    Value::list(joined, budget)
}

fn position(items: &List, wanted: &Value, last: bool, budget: &Budget) -> Ran {
    for step in 0..items.len() {
        let index = if last { items.len() - 1 - step } else { step };
        if items[index].equals(wanted, budget)? {
            return Ok(count(index));
        }
    }
    Ok(Value::Int(-1))
}
