//! Checking inputs against a DDL (spec 03 §9).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use ::regex::Regex;
use choria_filter::regex::go_regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ddl::{Action, Input};

/// Type of an input. Letter case does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputKind {
    /// Text.
    String,
    /// One of a list of texts.
    List,
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// A number.
    Number,
    /// An object.
    Hash,
    /// An array.
    Array,
    /// A word that is no type; values of it are refused.
    Other(String),
}

impl InputKind {
    fn word(&self) -> &str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Number => "number",
            Self::Hash => "hash",
            Self::Array => "array",
            Self::Other(word) => word,
        }
    }
}

impl Serialize for InputKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for InputKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(match word.to_ascii_lowercase().as_str() {
            "string" => Self::String,
            "list" => Self::List,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "float" => Self::Float,
            "number" => Self::Number,
            "hash" => Self::Hash,
            "array" => Self::Array,
            _ => Self::Other(word),
        })
    }
}

/// Check of a text value, as the DDL writes it.
#[derive(Debug, Clone, Default)]
pub struct Validation {
    text: String,
    check: Check,
}

#[derive(Debug, Clone, Default)]
enum Check {
    #[default]
    None,
    /// `shellsafe`: nothing a shell would act on.
    ShellSafe,
    /// `ipv4address`
    Ipv4,
    /// `ipv6address`
    Ipv6,
    /// `ipaddress`
    Ip,
    /// A regular expression that must be found; one that does not compile lets no value pass. Compiled when first needed:
    /// a server holds the DDLs of all its agents, and most are never asked.
    Regex(OnceLock<Result<Regex, String>>),
    /// A name of no validator: warned about, accepted. Only a word of lower case letters, digits and `_` can be one; the
    /// original takes every text that begins with a lower case letter for one and checks nothing (spec 05 §12 row 18).
    Unknown,
}

impl Validation {
    /// Reads what a DDL says.
    pub fn new(text: &str) -> Self {
        let is_word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        let check = match text {
            "" => Check::None,
            "shellsafe" => Check::ShellSafe,
            "ipv4address" => Check::Ipv4,
            "ipv6address" => Check::Ipv6,
            "ipaddress" => Check::Ip,
            _ if is_word(text) => Check::Unknown,
            _ => Check::Regex(OnceLock::new()),
        };
        Self { text: text.to_owned(), check }
    }

    pub(super) fn is_none(&self) -> bool {
        self.text.is_empty()
    }

    /// Checks a text.
    fn check(&self, value: &str) -> Result<(), String> {
        let unless = |fine: bool, error: String| if fine { Ok(()) } else { Err(error) };
        match &self.check {
            Check::None => Ok(()),
            Check::ShellSafe => match ["`", "$", ";", "|", "&&", ">", "<"].iter().find(|bad| value.contains(**bad)) {
                Some(bad) => Err(format!("may not contain '{bad}'")),
                None => Ok(()),
            },
            Check::Ipv4 => unless(is_ipv4(value), format!("{value} is not an IPv4 address")),
            Check::Ipv6 => unless(is_ipv6(value), format!("{value} is not an IPv6 address")),
            Check::Ip => unless(value.parse::<IpAddr>().is_ok(), format!("{value} is not an IP address")),
            Check::Regex(compiled) => {
                let regex = compiled.get_or_init(|| go_regex(&self.text).map_err(|error| error.to_string()));
                let regex = regex.as_ref().map_err(Clone::clone)?;
                unless(regex.is_match(value), format!("input does not match '{}'", self.text))
            }
            Check::Unknown => {
                tracing::warn!("Unsupported validator '{}'", self.text);
                Ok(())
            }
        }
    }
}

/// IPv4 addresses may be written as IPv6 (`::ffff:1.2.3.4`), and are then none of those.
fn is_ipv4(value: &str) -> bool {
    value.parse::<Ipv4Addr>().is_ok()
        || value.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_some())
}

fn is_ipv6(value: &str) -> bool {
    value.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_none())
}

impl PartialEq for Validation {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for Validation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Validation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&Option::<String>::deserialize(deserializer)?.unwrap_or_default()))
    }
}

/// How strictly a request must fit its DDL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputRules {
    /// Exact names, nothing undeclared: clients, and agents in other processes.
    Strict,
    /// Names in any letter case, undeclared inputs ignored, null is absent: what compiled-in agents of the original take
    /// (spec 03 §7).
    Lenient,
}

/// Why a request does not fit its DDL. The texts are the original's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    /// An input is missing.
    #[error("input '{0}' is required")]
    Required(String),
    /// An input's value is wrong.
    #[error("validation failed for input '{name}': {reason}")]
    Invalid {
        /// The input.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Inputs for an action that has none.
    #[error("request contains inputs while none are declared in the DDL")]
    NoneDeclared,
    /// An input the DDL does not know.
    #[error("request contains an input '{name}' that is not declared in the DDL. Valid inputs are: {valid}")]
    Undeclared {
        /// The input.
        name: String,
        /// What there is.
        valid: String,
    },
}

/// Sent by Ruby clients with every request, ignored everywhere.
const PROCESS_RESULTS: &str = "process_results";

impl Action {
    /// Checks the inputs of a request.
    ///
    /// # Errors
    /// The first problem; answer status 4 `Validation failed: ...`.
    pub fn validate_inputs(&self, data: &Map<String, Value>, rules: InputRules) -> Result<(), ValidationError> {
        if rules == InputRules::Strict {
            let mut given = data.keys().filter(|name| *name != PROCESS_RESULTS);
            if self.input.is_empty() && given.clone().next().is_some() {
                return Err(ValidationError::NoneDeclared);
            }
            if let Some(name) = given.find(|name| !self.input.contains_key(*name)) {
                let valid = self.input.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(ValidationError::Undeclared { name: name.clone(), valid });
            }
        }
        for (name, input) in &self.input {
            let mut found = false;
            let values = data.iter().filter(|(key, value)| match rules {
                InputRules::Strict => *key == name,
                InputRules::Lenient => key.eq_ignore_ascii_case(name) && !value.is_null(),
            });
            for (_, value) in values {
                found = true;
                let invalid = |reason| ValidationError::Invalid { name: name.clone(), reason };
                input.validate(value).map_err(invalid)?;
            }
            if !found && !input.optional {
                return Err(ValidationError::Required(name.clone()));
            }
        }
        Ok(())
    }
}

impl Input {
    /// Checks one value.
    ///
    /// # Errors
    /// What is wrong, in the original's words.
    pub fn validate(&self, value: &Value) -> Result<(), String> {
        let unless = |fine: bool, error: &str| if fine { Ok(()) } else { Err(error.to_owned()) };
        match &self.kind {
            InputKind::String => {
                let Some(text) = value.as_str() else { return Err("is not a string".to_owned()) };
                if self.maxlength > 0 && text.len() > self.maxlength {
                    return Err(format!("is longer than {} characters", self.maxlength));
                }
                self.validation.check(text)
            }
            InputKind::Integer => unless(is_whole(value), "is not an integer"),
            InputKind::Number => unless(value.is_number(), "is not a number"),
            InputKind::Float => unless(value.is_number(), "is not a float"),
            InputKind::Boolean => unless(value.is_boolean(), "is not a boolean"),
            InputKind::List if self.list.is_empty() => {
                Err("input type of list without a valid list of items in DDL".to_owned())
            }
            InputKind::List => {
                let fits = value.as_str().is_some_and(|text| self.list.iter().any(|item| item == text));
                if fits { Ok(()) } else { Err(format!("should be one of {}", self.list.join(", "))) }
            }
            InputKind::Hash => unless(value.is_object(), "is not a hash map"),
            InputKind::Array => unless(value.is_array(), "is not an array"),
            InputKind::Other(word) => Err(format!("unsupported type '{word}'")),
        }
    }
}

/// Whether a number has no fraction; `10.0` has none.
fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}
