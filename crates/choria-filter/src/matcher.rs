//! Does a node match a filter (spec 01 §7).

use ::regex::Regex;
use choria_protocol::filter::{FactFilter, Filter, is_regex};
use serde_json::Value;

use crate::compound::{Compound, DataSources};
use crate::fact::FactMatcher;
use crate::regex::{go_regex, go_regex_ignoring_case, strip_slashes};

/// Why a filter could not be evaluated. Such a node does not match; the text is for its log, or for the client that
/// checks the filter before sending it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// A fact comparison.
    #[error("could not evaluate fact filter {filter}: {detail}")]
    Fact {
        /// The filter.
        filter: String,
        /// What is wrong.
        detail: String,
    },
    /// A class, agent or identity given as regular expression that does not compile.
    #[error("could not evaluate {kind} filter: {detail}")]
    Pattern {
        /// `class`, `agent` or `identity`.
        kind: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// An expression that does not compile.
    #[error("compound filter {expression:?} is not valid: {detail}")]
    Compile {
        /// The expression, cut short when it is long.
        expression: String,
        /// What is wrong, and where.
        detail: String,
    },
    /// An expression that failed on this node.
    #[error("compound filter {expression:?} failed: {detail}")]
    Run {
        /// The expression, cut short when it is long.
        expression: String,
        /// What went wrong.
        detail: String,
    },
    /// A member of a compound filter that is no expression.
    #[error("compound filter holds something else than expressions")]
    NotAnExpression,
}

impl MatchError {
    pub(crate) fn fact(filter: &FactFilter, detail: String) -> Self {
        Self::Fact { filter: filter.to_string().chars().take(200).collect(), detail }
    }

    /// A short, constant word for the cause, for counters and tests.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fact { .. } => "fact",
            Self::Pattern { .. } => "pattern",
            Self::Compile { .. } => "compile",
            Self::Run { .. } => "run",
            Self::NotAnExpression => "not_an_expression",
        }
    }
}

/// What a filter can see of a node.
#[derive(Clone, Copy)]
pub struct NodeView<'n> {
    /// The node's identity.
    pub identity: &'n str,
    /// Names of its agents.
    pub agents: &'n [String],
    /// Its classes, see [`crate::classes`].
    pub classes: &'n [String],
    /// Its facts, an object, see [`crate::facts`].
    pub facts: &'n Value,
    /// Its data plugins. Servers in provisioning mode have none (spec 01 §7.3).
    pub data: Option<&'n dyn DataSources>,
    /// Unix seconds, what `now()` gives in a compound filter.
    pub now: Option<i64>,
}

impl<'n> NodeView<'n> {
    /// A node without data plugins and clock.
    pub fn new(identity: &'n str, agents: &'n [String], classes: &'n [String], facts: &'n Value) -> Self {
        Self { identity, agents, classes, facts, data: None, now: None }
    }

    /// Adds data plugins.
    pub fn with_data(self, data: &'n dyn DataSources) -> Self {
        Self { data: Some(data), ..self }
    }

    /// Sets the clock, in unix seconds.
    pub fn at(self, now: i64) -> Self {
        Self { now: Some(now), ..self }
    }
}

impl std::fmt::Debug for NodeView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeView").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A literal or a `/regex/`.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    Literal(String),
    Regex(Regex),
    /// A regular expression that does not compile matches nothing.
    Never,
}

impl Pattern {
    fn new(text: &str, compile: fn(&str) -> Result<Regex, crate::regex::RegexError>) -> Self {
        if is_regex(text) {
            compile(strip_slashes(text)).map_or(Self::Never, Self::Regex)
        } else {
            Self::Literal(text.to_owned())
        }
    }

    /// An identity or agent: letter case matters.
    pub(crate) fn exact(text: &str) -> Self {
        Self::new(text, go_regex)
    }

    /// A class: letter case does not matter. The original lower-cases only the filter, so that it never finds a class with
    /// capitals (spec 01 sharp edge 16).
    pub(crate) fn class(text: &str) -> Self {
        match Self::new(text, go_regex_ignoring_case) {
            Self::Literal(text) => Self::Literal(text.to_lowercase()),
            other => other,
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Literal(text) => text == name,
            Self::Regex(regex) => regex.is_match(name),
            Self::Never => false,
        }
    }

    pub(crate) fn matches_agent(&self, agents: &[String]) -> bool {
        agents.iter().any(|agent| self.matches(agent))
    }

    pub(crate) fn matches_class(&self, classes: &[String]) -> bool {
        match self {
            Self::Literal(text) => classes.iter().any(|class| same_class(class, text)),
            _ => classes.iter().any(|class| self.matches(class)),
        }
    }
}

/// Whether a class is the one that `lowercase` names.
fn same_class(class: &str, lowercase: &str) -> bool {
    if class.is_ascii() { class.eq_ignore_ascii_case(lowercase) } else { class.to_lowercase() == lowercase }
}

/// A filter ready to be compared with many nodes.
#[derive(Debug)]
pub struct FilterMatcher {
    identities: Vec<Pattern>,
    agents: Vec<Pattern>,
    classes: Vec<Pattern>,
    facts: Vec<Result<FactMatcher, MatchError>>,
    compound: Vec<Result<Compound, MatchError>>,
}

impl FilterMatcher {
    /// Prepares a filter. Parts that are not valid match nothing; [`Self::check`] tells about them.
    pub fn new(filter: &Filter) -> Self {
        Self {
            identities: filter.identity.iter().map(|text| Pattern::exact(text)).collect(),
            agents: filter.agent.iter().map(|text| Pattern::exact(text)).collect(),
            classes: filter.cf_class.iter().map(|text| Pattern::class(text)).collect(),
            facts: filter.fact.iter().map(FactMatcher::new).collect(),
            compound: filter.compound.iter().map(|entries| Compound::new(entries)).collect(),
        }
    }

    /// Checks a filter before it is sent: regular expressions and compound expressions must compile. The original sends
    /// them, and its users wait in vain (spec 05 §12 row 40).
    ///
    /// # Errors
    /// The first part that is not valid.
    pub fn check(filter: &Filter) -> Result<(), MatchError> {
        for (kind, list) in [("class", &filter.cf_class), ("agent", &filter.agent), ("identity", &filter.identity)] {
            for text in list.iter().filter(|text| is_regex(text)) {
                go_regex(strip_slashes(text))
                    .map_err(|error| MatchError::Pattern { kind, detail: error.to_string() })?;
            }
        }
        filter.fact.iter().try_for_each(|fact| FactMatcher::new(fact).map(drop))?;
        filter.compound.iter().try_for_each(|entries| Compound::new(entries).map(drop))
    }

    /// Whether a node matches: each kind that asks for something must. Identities are alternatives, all others must hold
    /// together. An empty filter matches.
    ///
    /// # Errors
    /// When a fact or compound filter could not be evaluated on this node; it does not match.
    pub fn matches(&self, node: &NodeView<'_>) -> Result<bool, MatchError> {
        if !self.identities.is_empty() && !self.identities.iter().any(|pattern| pattern.matches(node.identity)) {
            return Ok(false);
        }
        if !self.agents.iter().all(|pattern| pattern.matches_agent(node.agents))
            || !self.classes.iter().all(|pattern| pattern.matches_class(node.classes))
        {
            return Ok(false);
        }
        for fact in &self.facts {
            if !fact.as_ref().map_err(Clone::clone)?.matches(node.facts)? {
                return Ok(false);
            }
        }
        for compound in &self.compound {
            if !compound.as_ref().map_err(Clone::clone)?.matches(node)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a node matches a filter, see [`FilterMatcher::matches`].
///
/// # Errors
/// When the filter could not be evaluated on this node; it does not match.
pub fn matches(filter: &Filter, node: &NodeView<'_>) -> Result<bool, MatchError> {
    FilterMatcher::new(filter).matches(node)
}
