//! DDLs: descriptions of agents, their actions, inputs and outputs, as JSON (spec 03 §9, spec 05 §5).

mod aggregate;
mod chart;
mod convert;
mod find;
mod input;
mod printf;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::agent::Metadata;
pub use aggregate::{AggregateResult, Aggregates};
pub use convert::{ConvertError, parse_pair};
pub use find::{Found, embedded, embedded_names, find, load};
pub use input::{InputKind, InputRules, Validation, ValidationError};

/// Largest DDL that is read, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Why a DDL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DdlError {
    /// Larger than [`MAX_BYTES`].
    #[error("DDL of {0} bytes is larger than the limit of {MAX_BYTES}")]
    TooLarge(usize),
    /// Not JSON, or not a DDL.
    #[error("not a DDL: {0}")]
    Parse(#[from] serde_json::Error),
    /// A file that cannot be read or parsed.
    #[error("could not read DDL {path}: {detail}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        detail: String,
    },
    /// Describes another agent than the one asked for.
    #[error("the DDL does not describe the {0} agent")]
    OtherAgent(String),
    /// Nobody knows the agent.
    #[error("could not resolve {agent} DDL in any resolver: looked in {looked}")]
    NotFound {
        /// The agent.
        agent: String,
        /// Where it was looked for.
        looked: String,
    },
    /// No such action.
    #[error("unknown action {agent}#{action}")]
    UnknownAction {
        /// The agent.
        agent: String,
        /// The action.
        action: String,
    },
}

/// Which replies are shown without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Display {
    /// Those with status 0.
    Ok,
    /// All.
    Always,
    /// Those with any other status; what a DDL without the key means.
    #[default]
    #[serde(other)]
    Failed,
}

/// One input of an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// What a person is asked.
    #[serde(default)]
    pub prompt: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: InputKind,
    /// Whether it may be left out.
    #[serde(default)]
    pub optional: bool,
    /// Value when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Check of text values.
    #[serde(default, skip_serializing_if = "Validation::is_none")]
    pub validation: Validation,
    /// Most bytes of text values; 0 is without limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub maxlength: usize,
    /// Allowed values of lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<String>,
}

/// One output of an action.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Output {
    /// What it is.
    #[serde(default)]
    pub description: String,
    /// Label.
    #[serde(default)]
    pub display_as: String,
    /// Its type, if it has always the same.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Value when a reply lacks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// A function over one output of all replies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// `summary`, `boolean_summary`, `average` or `chart`.
    pub function: String,
    /// Name of the output, then perhaps an object of options.
    #[serde(default)]
    pub args: Vec<Value>,
}

/// One action of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its name.
    #[serde(rename = "action")]
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
    /// Which replies are shown.
    #[serde(default)]
    pub display: Display,
    /// Inputs by name.
    #[serde(default)]
    pub input: BTreeMap<String, Input>,
    /// Outputs by name.
    #[serde(default)]
    pub output: BTreeMap<String, Output>,
    /// Summaries of all replies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aggregate: Vec<Aggregate>,
}

/// The description of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ddl {
    /// `https://choria.io/schemas/mcorpc/ddl/v1/agent.json`
    #[serde(rename = "$schema", default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    /// Name, author, version, timeout and so on.
    pub metadata: Metadata,
    /// Its actions.
    #[serde(default)]
    pub actions: Vec<Action>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Ddl {
    /// Reads a DDL.
    ///
    /// # Errors
    /// [`DdlError::TooLarge`] or [`DdlError::Parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DdlError> {
        if bytes.len() > MAX_BYTES {
            return Err(DdlError::TooLarge(bytes.len()));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// An action by its name.
    ///
    /// # Errors
    /// [`DdlError::UnknownAction`].
    pub fn action(&self, name: &str) -> Result<&Action, DdlError> {
        self.actions
            .iter()
            .find(|action| action.name == name)
            .ok_or_else(|| DdlError::UnknownAction { agent: self.metadata.name.clone(), action: name.to_owned() })
    }

    /// Names of the actions, sorted.
    pub fn action_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.actions.iter().map(|action| action.name.clone()).collect();
        names.sort_unstable();
        names
    }
}

impl Action {
    /// Adds the defaults of outputs that a reply lacks.
    pub fn fill_output_defaults(&self, data: &mut Map<String, Value>) {
        for (name, output) in &self.output {
            if let Some(default) = output.default.as_ref().filter(|default| !default.is_null())
                && !data.contains_key(name)
            {
                data.insert(name.clone(), default.clone());
            }
        }
    }

    /// Adds the defaults of inputs that a request lacks.
    pub fn fill_input_defaults(&self, data: &mut Map<String, Value>) {
        for (name, input) in &self.input {
            if let Some(default) = input.default.as_ref().filter(|default| !default.is_null())
                && !data.contains_key(name)
            {
                data.insert(name.clone(), default.clone());
            }
        }
    }

    /// The label of an output: what the DDL says, else its name.
    pub fn label<'a>(&'a self, output: &'a str) -> &'a str {
        self.output
            .get(output)
            .map(|output| output.display_as.as_str())
            .filter(|label| !label.is_empty())
            .unwrap_or(output)
    }
}

#[cfg(test)]
mod tests;
