//! Inputs typed on a command line become values of the DDL's types (spec 05 §5.3).

use serde_json::{Map, Number, Value};

use crate::ddl::{Action, Input, InputKind};

/// Why inputs from a command line were refused. The texts are the original's; a client puts `invalid input: ` before them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Not `KEY=VALUE`.
    #[error("expected KEY=VALUE got '{0}'")]
    NotAPair(String),
    /// An input the DDL does not know.
    #[error("input '{0}' has not been declared")]
    Undeclared(String),
    /// An input is missing.
    #[error("input '{0}' is required")]
    Required(String),
    /// A value that cannot be converted or does not pass the checks.
    #[error("invalid value for '{name}': {reason}")]
    Invalid {
        /// The input.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// Splits `KEY=VALUE` at the first `=`; `KEY:VALUE` is understood when there is no `=`. The original splits at whichever
/// comes first, so that `url:8080=x` names an input `url` (spec 05 §12 row 29).
///
/// # Errors
/// [`ConvertError::NotAPair`].
pub fn parse_pair(text: &str) -> Result<(String, String), ConvertError> {
    let (key, value) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(|| ConvertError::NotAPair(text.to_owned()))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Action {
    /// Converts and checks inputs given as text, and adds the declared defaults. Names match exactly, else in any letter
    /// case (the original lower-cases them, so that declared capitals cannot be reached: spec 05 §12 row 30). Of repeated
    /// inputs the last counts.
    ///
    /// # Errors
    /// The first problem.
    pub fn convert_cli_inputs<'a>(
        &self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Map<String, Value>, ConvertError> {
        let mut data = Map::new();
        for (given, text) in pairs {
            let (name, input) = self
                .input
                .get_key_value(given)
                .or_else(|| self.input.iter().find(|(name, _)| name.eq_ignore_ascii_case(given)))
                .ok_or_else(|| ConvertError::Undeclared(given.to_lowercase()))?;
            let invalid = |reason| ConvertError::Invalid { name: name.clone(), reason };
            let value = input.convert(text).map_err(invalid)?;
            input.validate(&value).map_err(invalid)?;
            data.insert(name.clone(), value);
        }
        self.fill_input_defaults(&mut data);
        match self.input.iter().find(|(name, input)| !input.optional && !data.contains_key(*name)) {
            Some((name, _)) => Err(ConvertError::Required(name.clone())),
            None => Ok(data),
        }
    }
}

impl Input {
    /// Converts a text to the input's type.
    fn convert(&self, text: &str) -> Result<Value, String> {
        let refuse = |what: &str| Err(format!("'{text}' is not a valid {what}"));
        match &self.kind {
            InputKind::String | InputKind::List => Ok(Value::String(text.to_owned())),
            InputKind::Integer => match text.parse::<i64>() {
                Ok(number) => Ok(Value::from(number)),
                Err(_) => refuse("integer"),
            },
            InputKind::Float | InputKind::Number => match float(text) {
                Some(number) => Ok(Value::Number(number)),
                None => refuse("float"),
            },
            InputKind::Boolean => match text {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
                _ => refuse("boolean"),
            },
            InputKind::Hash => match serde_json::from_str::<Map<String, Value>>(text) {
                Ok(map) => Ok(Value::Object(map)),
                Err(_) => refuse("JSON string with a hash inside"),
            },
            InputKind::Array => match serde_json::from_str::<Vec<Value>>(text) {
                Ok(items) => Ok(Value::Array(items)),
                Err(_) => refuse("JSON string with an array inside"),
            },
            InputKind::Other(word) => Err(format!("unsupported type '{word}'")),
        }
    }
}

/// A finite number in Go's notation: decimal, with digits grouped by `_`, or hexadecimal with a binary exponent.
fn float(text: &str) -> Option<Number> {
    let plain = without_groups(text)?;
    let number = match hexadecimal(&plain) {
        Some(number) => number,
        // The words Rust takes for numbers (`inf`, `nan`) cannot be sent.
        None if plain.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => plain.parse().ok()?,
        None => return None,
    };
    Number::from_f64(number)
}

/// The text without `_`, each of which must stand between digits.
fn without_groups(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_hexdigit);
    let grouped = |at: usize| digit(at.checked_sub(1)) && digit(Some(at + 1));
    let fine = bytes.iter().enumerate().all(|(at, byte)| *byte != b'_' || grouped(at));
    fine.then(|| text.replace('_', ""))
}

/// `0x1p-2`, `-0x1.8p3`
fn hexadecimal(text: &str) -> Option<f64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let rest = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"))?;
    let (mantissa, exponent) = rest.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut number = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        number = number * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let shift = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    let number = sign * number * 2_f64.powi(exponent.parse::<i32>().ok()?.checked_sub(shift)?);
    number.is_finite().then_some(number)
}
