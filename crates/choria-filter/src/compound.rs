//! Compound filters: expressions over a node (spec 01 §7.3).

use std::sync::LazyLock;

use choria_protocol::filter::{CompoundEntry, parse_fact};
use choria_protocol::json::value_text;
use serde_json::Value as Json;

use crate::expr::{Budget, Host, Program, RunError, Scope, Type, Value};
use crate::fact::FactMatcher;
use crate::gjson;
use crate::matcher::{MatchError, NodeView, Pattern};
use crate::semver::{Constraint, parse_version};

/// A data plugin as a function of compound filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSource {
    /// Name of the plugin and of the function.
    pub name: String,
    /// Whether it takes a query.
    pub takes_query: bool,
}

/// The data plugins of a node (spec 03 §11.3).
pub trait DataSources: Sync {
    /// What there is.
    fn sources(&self) -> &[DataSource];

    /// Asks a plugin; an object, or `None` when it failed or found nothing, which is nil in an expression.
    fn query(&self, name: &str, query: Option<&str>) -> Option<Json>;
}

/// Names every node knows. The stock data plugins are among them so that calling them wrongly is found before sending;
/// plugins of one's own are known only when an expression runs.
static SCOPE: LazyLock<Scope> = LazyLock::new(|| {
    common_scope()
        .variable("agents", Type::Texts)
        .variable("classes", Type::Texts)
        .variable("facts", Type::Bytes)
        .function("with", &[Type::Text], Type::Bool)
        .function("fact", &[Type::Text], Type::Any)
        .function("choria", &[], Type::Map)
        .function("config_item", &[Type::Text], Type::Map)
        .function("machine_state", &[Type::Text], Type::Map)
        .function("scout", &[Type::Text], Type::Map)
});

/// A list of expressions that must hold together.
#[derive(Debug)]
pub(crate) struct Compound {
    text: String,
    program: Program,
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

impl Compound {
    /// Compiles one member of a filter's compound list. Entries that are not exactly one `{"expr": text}` never match
    /// (they are call stacks of old Ruby clients).
    pub(crate) fn new(entries: &[CompoundEntry]) -> Result<Self, MatchError> {
        let [entry] = entries else { return Err(MatchError::NotAnExpression) };
        let text = entry.expr().ok_or(MatchError::NotAnExpression)?;
        let program = Program::compile(text, &SCOPE)
            .map_err(|error| MatchError::Compile { expression: shortened(text), detail: error.to_string() })?;
        Ok(Self { text: shortened(text), program })
    }

    pub(crate) fn matches(&self, node: &NodeView<'_>) -> Result<bool, MatchError> {
        self.program
            .is_true(&Node(node))
            .map_err(|error| MatchError::Run { expression: self.text.clone(), detail: error.to_string() })
    }
}

struct Node<'n>(&'n NodeView<'n>);

impl Host for Node<'_> {
    fn variable(&self, name: &str) -> Option<Value> {
        let names = |names: &[String]| {
            // The node's own lists are no burden of the expression's author.
            let items = names.iter().map(|name| Value::text(name.as_str())).collect();
            Value::list(items, &Budget::default()).ok()
        };
        match name {
            "agents" => names(self.0.agents),
            "classes" => names(self.0.classes),
            "facts" => Some(Value::Bytes(value_text(self.0.facts).len())),
            _ => None,
        }
    }

    fn call(&self, name: &str, arguments: &[Value], budget: &Budget) -> Option<Result<Value, RunError>> {
        Some(match name {
            "with" => text(name, arguments, 0).and_then(|query| self.with(query, budget)),
            "fact" => text(name, arguments, 0).and_then(|path| self.fact(path, budget)),
            _ => return common_function(name, arguments, budget).or_else(|| self.data(name, arguments, budget)),
        })
    }

    fn now(&self) -> Option<i64> {
        self.0.now
    }
}

/// The functions that compound filters share with `--filter-replies`: `include(list, value)` and `semver(version, constraint)`.
/// `None` when the name is neither. For [`Host::call`] of other environments, with signatures from [`common_scope`].
pub fn common_function(name: &str, arguments: &[Value], budget: &Budget) -> Option<Result<Value, RunError>> {
    match name {
        "include" => Some(include(arguments, budget)),
        "semver" => {
            let version = text(name, arguments, 0);
            Some(version.and_then(|version| semver(version, text(name, arguments, 1)?, budget)))
        }
        _ => None,
    }
}

/// A scope with the signatures of [`common_function`].
pub fn common_scope() -> Scope {
    Scope::new().function("include", &[Type::List, Type::Any], Type::Bool).function(
        "semver",
        &[Type::Text, Type::Text],
        Type::Bool,
    )
}

fn text<'v>(name: &str, arguments: &'v [Value], index: usize) -> Result<&'v str, RunError> {
    match arguments.get(index) {
        Some(Value::Text(text)) => Ok(text),
        Some(other) => Err(RunError::new(format!("{name}() needs text, this is {}", other.type_name()))),
        None => Err(RunError::new(format!("{name}() lacks an argument"))),
    }
}

/// What looking into the facts of a node costs an expression.
const LOOKUP_COST: usize = 200;
/// What compiling a regular expression or constraint costs it.
const COMPILE_COST: usize = 5000;

impl Node<'_> {
    /// A fact expression, else a class, else an agent.
    fn with(&self, query: &str, budget: &Budget) -> Result<Value, RunError> {
        budget.spend(COMPILE_COST + query.len() * 64)?;
        if let Ok(fact) = parse_fact(query) {
            let matched = FactMatcher::new(&fact).and_then(|fact| fact.matches(self.0.facts));
            return matched.map(Value::Bool).map_err(|error| RunError::new(error.to_string()));
        }
        let found =
            Pattern::class(query).matches_class(self.0.classes) || Pattern::exact(query).matches_agent(self.0.agents);
        Ok(Value::Bool(found))
    }

    fn fact(&self, path: &str, budget: &Budget) -> Result<Value, RunError> {
        budget.spend(LOOKUP_COST)?;
        match gjson::get(self.0.facts, path).map_err(|error| RunError::new(error.to_string()))? {
            Some(value) => Value::from_json(&value, false, budget),
            None => Ok(Value::Nil),
        }
    }

    fn data(&self, name: &str, arguments: &[Value], budget: &Budget) -> Option<Result<Value, RunError>> {
        let data = self.0.data?;
        let source = data.sources().iter().find(|source| source.name == name)?;
        let query = match (source.takes_query, arguments) {
            (false, []) => None,
            (true, [Value::Text(query)]) => Some(query.as_ref()),
            (true, _) => return Some(Err(RunError::new(format!("{name}() takes one text")))),
            (false, _) => return Some(Err(RunError::new(format!("{name}() takes no arguments")))),
        };
        Some(budget.spend(LOOKUP_COST).and_then(|()| match data.query(name, query) {
            None | Some(Json::Null) => Ok(Value::NilMap),
            Some(value) => Value::from_json(&value, true, budget),
        }))
    }
}

/// Whether a list holds a value of the same type and content; a whole number is looked for as floating point number.
fn include(arguments: &[Value], budget: &Budget) -> Result<Value, RunError> {
    let [list, wanted] = arguments else { return Err(RunError::new("include() takes a list and a value")) };
    let wanted = match wanted {
        Value::Int(number) => {
            #[expect(clippy::cast_precision_loss, reason = "facts hold floating point numbers")]
            let number = *number as f64;
            Value::Float(number)
        }
        other => other.clone(),
    };
    match list {
        Value::List(items) => {
            budget.spend(list.weight())?;
            Ok(Value::Bool(items.contains(&wanted)))
        }
        list if list.is_nil() => Ok(Value::Bool(false)),
        other => Err(RunError::new(format!("include() needs a list, this is {}", other.type_name()))),
    }
}

fn semver(version: &str, constraint: &str, budget: &Budget) -> Result<Value, RunError> {
    budget.spend(COMPILE_COST + constraint.len())?;
    let refuse = |error: crate::semver::SemverError| RunError::new(error.to_string());
    let constraint = Constraint::parse(constraint).map_err(refuse)?;
    Ok(Value::Bool(constraint.matches(&parse_version(version).map_err(refuse)?)))
}
