//! Filters: which nodes shall act on a request (spec 01 §7).
//!
//! This module holds the form on the wire and the text forms of the command line. Deciding whether a node matches is
//! the work of `choria-filter`.

mod parse;

use std::fmt;

use serde_json::{Map, Value};

use crate::json::{push_list, push_string, value_text};
use crate::tree::{At, Node};
use crate::v1::{Error, Problem};
pub use parse::{ParseError, parse_fact, parse_mixed};

// Nodes judge filters of whoever may send requests. These bounds keep one filter from keeping a node busy for longer
// than a moment; a request with a larger filter is refused.

/// Identities in one filter.
pub const MAX_IDENTITIES: usize = 10_000;
/// Classes, and agents, in one filter.
pub const MAX_NAMES: usize = 1_000;
/// Facts in one filter.
pub const MAX_FACTS: usize = 100;
/// Regular expressions in one filter, of all kinds together.
pub const MAX_REGEXES: usize = 100;
/// Compound expressions in one filter. The original's client sends one.
pub const MAX_COMPOUND: usize = 10;

/// Comparison in a fact filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FactOperator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl FactOperator {
    /// All operators.
    pub const ALL: [Self; 7] = [
        Self::Equal,
        Self::NotEqual,
        Self::Matches,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
    ];

    /// The operator as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// Reads an operator as it is sent: `=` and other short forms of the command line are not understood here.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operator| operator.as_str() == text)
    }
}

impl fmt::Display for FactOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One comparison of a fact with a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FactFilter {
    /// Path of the fact in GJSON syntax.
    pub fact: String,
    /// Comparison.
    pub operator: FactOperator,
    /// What to compare with; for `=~` a regular expression with or without slashes around it.
    pub value: String,
}

impl fmt::Display for FactFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.fact, self.operator, self.value)
    }
}

/// One member of a compound filter as it came. Only an object with exactly the key `expr` is an expression; all else
/// (call stacks of old Ruby clients) is kept, and matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompoundEntry(Map<String, Value>);

impl CompoundEntry {
    /// An expression.
    pub fn expression(expr: impl Into<String>) -> Self {
        Self(Map::from_iter([("expr".to_owned(), Value::String(expr.into()))]))
    }

    /// The expression, if this is one.
    pub fn expr(&self) -> Option<&str> {
        if self.0.len() == 1 { self.0.get("expr")?.as_str() } else { None }
    }
}

/// Which nodes shall act. Empty lists ask for nothing, so the empty filter matches every node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Facts, all must match.
    pub fact: Vec<FactFilter>,
    /// Classes or `/regex/`, all must match.
    pub cf_class: Vec<String>,
    /// Agents or `/regex/`, all must match.
    pub agent: Vec<String>,
    /// Identities or `/regex/`, one must match.
    pub identity: Vec<String>,
    /// Compound expressions, all must be true.
    pub compound: Vec<Vec<CompoundEntry>>,
}

impl Filter {
    /// Whether the filter asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.agent.is_empty() && self.is_empty_but_agents()
    }

    /// Whether nothing but agents is asked for.
    pub fn is_empty_but_agents(&self) -> bool {
        self.fact.is_empty() && self.cf_class.is_empty() && self.identity.is_empty() && self.compound.is_empty()
    }

    /// The identities asked for, if the filter holds only literal identities; agents are not looked at. Discovery
    /// then needs no network (spec 01 §5.4).
    pub fn literal_identities(&self) -> Option<&[String]> {
        let only_identities = !self.identity.is_empty()
            && self.fact.is_empty()
            && self.cf_class.is_empty()
            && self.compound.is_empty()
            && !self.identity.iter().any(|name| is_regex(name));
        only_identities.then_some(&self.identity)
    }

    /// How many regular expressions it holds.
    fn regexes(&self) -> usize {
        let names = [&self.cf_class, &self.agent, &self.identity].into_iter().flatten();
        let facts = self.fact.iter().filter(|fact| fact.operator == FactOperator::Matches);
        names.filter(|name| is_regex(name)).count() + facts.count()
    }

    /// Adds a fact comparison. Duplicates stay.
    pub fn add_fact(&mut self, fact: FactFilter) {
        self.fact.push(fact);
    }

    /// Adds a class, once.
    pub fn add_class(&mut self, class: impl Into<String>) {
        add_once(&mut self.cf_class, class.into());
    }

    /// Adds an agent, once.
    pub fn add_agent(&mut self, agent: impl Into<String>) {
        add_once(&mut self.agent, agent.into());
    }

    /// Adds an identity, once.
    pub fn add_identity(&mut self, identity: impl Into<String>) {
        add_once(&mut self.identity, identity.into());
    }

    /// Adds a compound expression.
    pub fn add_compound(&mut self, expr: impl Into<String>) {
        self.compound.push(vec![CompoundEntry::expression(expr)]);
    }

    /// Adds what `-W` says: words that are facts, others are classes.
    ///
    /// # Errors
    /// See [`parse_mixed`].
    pub fn add_mixed(&mut self, text: &str) -> Result<(), ParseError> {
        let (facts, classes) = parse_mixed(text)?;
        self.fact.extend(facts);
        classes.into_iter().for_each(|class| self.add_class(class));
        Ok(())
    }

    /// The filter as JSON text, all five keys always present.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.push_json(&mut out);
        out
    }

    pub(crate) fn push_json(&self, out: &mut String) {
        out.push_str("{\"fact\":[");
        for (index, fact) in self.fact.iter().enumerate() {
            out.push_str(if index == 0 { "{\"fact\":" } else { ",{\"fact\":" });
            push_string(out, &fact.fact);
            out.push_str(",\"operator\":");
            push_string(out, fact.operator.as_str());
            out.push_str(",\"value\":");
            push_string(out, &fact.value);
            out.push('}');
        }
        for (key, list) in
            [("],\"cf_class\":", &self.cf_class), (",\"agent\":", &self.agent), (",\"identity\":", &self.identity)]
        {
            out.push_str(key);
            push_list(out, list);
        }
        out.push_str(",\"compound\":[");
        for (index, list) in self.compound.iter().enumerate() {
            out.push_str(if index == 0 { "[" } else { ",[" });
            for (index, entry) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_entry(out, entry);
            }
            out.push(']');
        }
        out.push_str("]}");
    }

    /// Reads the filter of a request: `fact`, `cf_class`, `identity` and `compound` must be lists, `agent` may be
    /// missing (the original then acts without answering, spec 01 sharp edge 33).
    pub(crate) fn read(at: &At<'_, '_>) -> Result<Self, Error> {
        let fields = at.object(&["fact", "cf_class", "agent", "identity", "compound"])?;
        let mut filter = Self::default();
        for fact in fields.required("fact")?.array()? {
            check_count(&fact, filter.fact.len(), MAX_FACTS)?;
            filter.fact.push(FactFilter::read(&fact)?);
        }
        filter.cf_class = texts(&fields.required("cf_class")?, MAX_NAMES)?;
        filter.identity = texts(&fields.required("identity")?, MAX_IDENTITIES)?;
        if let Some(agents) = fields.optional("agent") {
            filter.agent = texts(&agents, MAX_NAMES)?;
        }
        check_count(at, filter.regexes().saturating_sub(1), MAX_REGEXES)?;
        for list in fields.required("compound")?.array()? {
            check_count(&list, filter.compound.len(), MAX_COMPOUND)?;
            let mut entries = Vec::new();
            for entry in list.array()? {
                check_count(&entry, entries.len(), MAX_COMPOUND)?;
                entries.push(read_entry(&entry)?);
            }
            filter.compound.push(entries);
        }
        Ok(filter)
    }
}

impl FactFilter {
    fn read(at: &At<'_, '_>) -> Result<Self, Error> {
        let fields = at.object(&["fact", "operator", "value"])?;
        let operator = fields.required("operator")?;
        Ok(Self {
            fact: fields.required("fact")?.text()?.to_owned(),
            operator: FactOperator::from_wire(operator.text()?)
                .ok_or_else(|| operator.error(Problem::NotAllowed("one of == != =~ < <= > >=")))?,
            value: fields.required("value")?.text()?.to_owned(),
        })
    }
}

/// Whether `text` has the form `/regex/`.
pub fn is_regex(text: &str) -> bool {
    text.starts_with('/') && text.ends_with('/')
}

fn add_once(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn check_count(at: &At<'_, '_>, count: usize, limit: usize) -> Result<(), Error> {
    if count < limit { Ok(()) } else { Err(at.error(Problem::TooLong { limit, found: count + 1 })) }
}

fn texts(at: &At<'_, '_>, limit: usize) -> Result<Vec<String>, Error> {
    let texts = at.texts()?;
    check_count(at, texts.len().saturating_sub(1), limit)?;
    Ok(texts)
}

/// An entry of a compound filter. The original reads string values only; what else stands there is kept as null, since it
/// matters only that it is not an expression.
fn read_entry(at: &At<'_, '_>) -> Result<CompoundEntry, Error> {
    let mut map = Map::new();
    for (key, node) in at.entries()? {
        let value = match node {
            Node::String(text) => Value::String(text.as_ref().to_owned()),
            _ => Value::Null,
        };
        if map.insert(key.as_ref().to_owned(), value).is_some() {
            return Err(at.error(Problem::DuplicateKey("expr")));
        }
    }
    Ok(CompoundEntry(map))
}

fn push_entry(out: &mut String, entry: &CompoundEntry) {
    out.push('{');
    for (index, (key, value)) in entry.0.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_string(out, key);
        out.push(':');
        out.push_str(&value_text(value));
    }
    out.push('}');
}
