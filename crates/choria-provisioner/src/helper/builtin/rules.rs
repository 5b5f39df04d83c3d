//! The rules file: read as a whole, every fault with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use choria_config::duration::{self, DurationError};
use choria_filter::FactMatcher;
use choria_filter::regex::{go_regex, strip_slashes};
use choria_protocol::filter::{is_regex, parse_fact};
use choria_security::ca::DEFAULT_VALIDITY;
use regex::Regex;

use super::settings;
use super::template::{Template, Variable, check_claim};
use crate::answer;
use crate::config::reader::{Located, Section};
use crate::config::yaml::{self, Node, Value};
use crate::config::{ConfigError, Features, Position};

/// Longest rules file that is read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Longest validity of a certificate; beyond it the date is a slip.
const MAX_VALIDITY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

const TOP: [&str; 2] = ["defaults", "rules"];
const DEFAULTS: [&str; 4] = ["configuration", "action_policies", "opa_policies", "certificate"];
const RULE: [&str; 11] = [
    "name",
    "identity",
    "facts",
    "jwt",
    "configuration",
    "action_policies",
    "opa_policies",
    "certificate",
    "defer",
    "shutdown",
    "deny",
];
const CERTIFICATE: [&str; 2] = ["validity", "dns_names"];

/// An ordered list of rules: the first that matches a node decides.
#[derive(Debug)]
pub struct RuleSet {
    pub(super) path: PathBuf,
    pub(super) rules: Vec<Rule>,
    /// Whether a rule looks at facts.
    pub(super) needs_facts: bool,
    /// Whether a rule looks at claims.
    pub(super) needs_claims: bool,
    /// What works but looks odd.
    pub(super) warnings: Vec<String>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// As written, for people; absent when the rule has none.
    pub(super) name: Option<String>,
    pub(super) at: Position,
    /// One of these must match, when there are any.
    pub(super) identities: Vec<IdentityPattern>,
    /// All of these must hold.
    pub(super) facts: Vec<Comparison>,
    /// All of these must hold.
    pub(super) claims: Vec<Comparison>,
    pub(super) outcome: Outcome,
}

/// A comparison with a fact or a claim.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) written: String,
    /// What is compared, a path.
    pub(super) path: String,
    pub(super) matcher: FactMatcher,
}

/// `rule NAME (FILE:LINE)`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { path, line, .. } = &self.at;
        match &self.name {
            Some(name) => write!(f, "rule {name} ({}:{line})", path.display()),
            None => write!(f, "the rule at {}:{line}", path.display()),
        }
    }
}

/// What becomes of a node.
#[derive(Debug)]
pub(super) enum Outcome {
    Provision(Provision),
    /// Not now.
    Defer(String),
    /// The node is told to stop.
    Shutdown(String),
    /// The node is refused.
    Deny(String),
}

/// What a node gets.
#[derive(Debug, Clone, Default)]
pub(super) struct Provision {
    pub(super) configuration: BTreeMap<String, Template>,
    pub(super) action_policies: BTreeMap<String, String>,
    pub(super) opa_policies: BTreeMap<String, String>,
    pub(super) certificate: CertificateTerms,
}

/// What its certificate says.
#[derive(Debug, Clone)]
pub(super) struct CertificateTerms {
    pub(super) validity: Duration,
    pub(super) dns_names: Vec<Template>,
}

impl Default for CertificateTerms {
    fn default() -> Self {
        Self { validity: DEFAULT_VALIDITY, dns_names: Vec::new() }
    }
}

/// Which nodes a rule is for, by name.
#[derive(Debug)]
pub(super) enum IdentityPattern {
    Exact(String),
    /// `*` stands for any characters, dots included, `?` for one.
    Glob(String),
    /// Searched anywhere in the name.
    Regex(Regex),
}

impl IdentityPattern {
    fn parse(text: &str) -> Result<Self, String> {
        if is_regex(text) {
            return go_regex(strip_slashes(text)).map(Self::Regex).map_err(|error| error.to_string());
        }
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '?');
        if text.is_empty() || !text.chars().all(good) {
            return Err(format!(
                "identity {text:?} matches no node; write a name, a name with * and ?, or a /regular expression/"
            ));
        }
        Ok(if text.contains(['*', '?']) { Self::Glob(text.to_owned()) } else { Self::Exact(text.to_owned()) })
    }

    pub(super) fn matches(&self, identity: &str) -> bool {
        match self {
            Self::Exact(name) => name == identity,
            Self::Glob(pattern) => glob(pattern.as_bytes(), identity.as_bytes()),
            Self::Regex(regex) => regex.is_match(identity),
        }
    }
}

/// Whether `name` as a whole matches `pattern`. Time is bounded by the product of the lengths.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: one more character for the star.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (p, n) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl RuleSet {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first fault with its place in the file.
    pub fn load(path: &Path, features: Features) -> Result<Self, ConfigError> {
        let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
        let size = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ConfigError::NotFound(path.to_owned()),
            _ => unreadable(error.to_string()),
        })?;
        if size.len() > MAX_FILE {
            return Err(unreadable(format!("it has {} bytes, at most {MAX_FILE} are read", size.len())));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Self::from_text(path, &text, features)
    }

    /// The same for a text that was read elsewhere; `path` only names it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_text(path: &Path, text: &str, features: Features) -> Result<Self, ConfigError> {
        let documents = yaml::parse_strict(text).map_err(|fault| ConfigError::Syntax {
            path: path.to_owned(),
            line: fault.line,
            column: fault.column,
            reason: fault.reason,
        })?;
        let start = Position { path: path.to_owned(), line: 1, column: 1 };
        let entries = match documents.as_slice() {
            [Node { value: Value::Map(entries), .. }] => entries.clone(),
            [] | [Node { value: Value::Null, .. }] => return fault(start, NO_RULES),
            [Node { value, .. }] => {
                return fault(start, format!("the file must hold rules, found {}", value.describe()));
            }
            [_, second, ..] => {
                return fault(start.with(second), "the file holds a second document, which nobody would look at");
            }
        };
        Reader { source: text, path, features, warnings: Vec::new() }.read(&Section::new(path, "", entries))
    }

    /// What works but should be known; log it at start.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule; never after [`Self::load`].
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

const NO_RULES: &str = "the file holds no rules, so no node would ever be provisioned; a first one could be `rules: [{identity: \"*\", defer: \"not yet\"}]`";

impl Position {
    fn with(&self, node: &Node) -> Self {
        Self { path: self.path.clone(), line: node.line, column: node.column }
    }
}

fn fault<T>(at: Position, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { at, reason: reason.into() })
}

/// Reads one file.
struct Reader<'a> {
    source: &'a str,
    path: &'a Path,
    features: Features,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn read(mut self, top: &Section<'_>) -> Result<RuleSet, ConfigError> {
        top.refuse_unknown(&TOP, "the file")?;
        let defaults = top.section("defaults", "defaults.")?;
        defaults.refuse_unknown(&DEFAULTS, "defaults")?;
        let defaults = self.provision(&defaults, Provision::default())?;
        let items = match top.items("rules")? {
            Some(items) if !items.is_empty() => items,
            _ => return fault(Position { path: self.path.to_owned(), line: 1, column: 1 }, NO_RULES),
        };
        let mut rules: Vec<Rule> = Vec::with_capacity(items.len());
        for item in items {
            let at = top.position(item);
            let Value::Map(entries) = &item.value else {
                return fault(at, format!("a rule must be a mapping, found {}", item.value.describe()));
            };
            if let Some(last) = rules.last().filter(|rule| rule.matches_all()) {
                self.warnings.push(format!("{at}: this rule is never reached, {last} matches every node"));
            }
            let rule = Section::new(self.path, "", entries.clone());
            rules.push(self.rule(&rule, at, &defaults)?);
        }
        let needs = |is: fn(&Variable) -> bool| rules.iter().any(|rule| rule.variables().any(is));
        let needs_facts = rules.iter().any(|rule| !rule.facts.is_empty()) || needs(|v| matches!(v, Variable::Fact(_)));
        let needs_claims =
            rules.iter().any(|rule| !rule.claims.is_empty()) || needs(|v| matches!(v, Variable::Claim(_)));
        Ok(RuleSet { path: self.path.to_owned(), rules, needs_facts, needs_claims, warnings: self.warnings })
    }

    fn rule(&mut self, rule: &Section<'_>, at: Position, defaults: &Provision) -> Result<Rule, ConfigError> {
        rule.refuse_unknown(&RULE, "a rule")?;
        let mut identities = Vec::new();
        for Located { value, at } in rule.text_or_texts("identity")? {
            identities.push(IdentityPattern::parse(&value).or_else(|reason| fault(at, reason))?);
        }
        if let (Some(at), true) = (rule.place("identity"), identities.is_empty()) {
            return fault(at, "identity is an empty list, so the rule would match no node");
        }
        Ok(Rule {
            name: rule.text("name")?.map(|name| name.value),
            identities,
            facts: conditions(rule, "facts", |_| Ok(()))?,
            claims: self.claims(rule)?,
            outcome: self.outcome(rule, &at, defaults)?,
            at,
        })
    }

    fn claims(&self, rule: &Section<'_>) -> Result<Vec<Comparison>, ConfigError> {
        if let Some(at) = rule.place("jwt").filter(|_| !self.features.jwt) {
            return fault(at, "a condition on the token needs features.jwt, which fetches and verifies it");
        }
        conditions(rule, "jwt", check_claim)
    }

    fn outcome(&mut self, rule: &Section<'_>, at: &Position, defaults: &Provision) -> Result<Outcome, ConfigError> {
        let mut end = None;
        for (key, outcome) in [
            ("defer", Outcome::Defer as fn(String) -> Outcome),
            ("shutdown", Outcome::Shutdown),
            ("deny", Outcome::Deny),
        ] {
            let Some(reason) = rule.text(key)? else { continue };
            if reason.value.trim().is_empty() {
                return fault(reason.at, format!("{key} needs a reason, which is logged for every node"));
            }
            if let Some((other, _)) = end {
                return fault(reason.at, format!("a rule decides one thing, this one has {other} and {key}"));
            }
            end = Some((key, outcome(reason.value)));
        }
        let gives = DEFAULTS.iter().find_map(|key| rule.place(key).map(|at| (key, at)));
        match (end, gives) {
            (Some((end, _)), Some((key, at))) => {
                fault(at, format!("a rule decides one thing, this one has {end} and {key}"))
            }
            (Some((_, outcome)), None) => Ok(outcome),
            (None, None) => fault(
                at.clone(),
                "the rule does not say what becomes of a node: configuration, defer, shutdown or deny; `configuration: {}` gives the defaults",
            ),
            (None, Some(_)) => self.provision(rule, defaults.clone()).map(Outcome::Provision),
        }
    }

    /// What the section gives, over `base`.
    fn provision(&mut self, section: &Section<'_>, base: Provision) -> Result<Provision, ConfigError> {
        let mut given = base;
        let mut entries = Vec::new();
        for (key, node) in section.entries("configuration")?.unwrap_or_default() {
            let value = self.value(key, node, section.position(node))?;
            answer::check_key(key).or_else(|reason| fault(value.at.clone(), reason))?;
            let template =
                if key.eq_ignore_ascii_case("identity") { self.name(&value)? } else { self.template(&value)? };
            if let Some(text) = template.literal() {
                answer::check_value(key, text).or_else(|reason| fault(value.at.clone(), reason))?;
            }
            entries.push((key.clone(), Located { value: template, at: value.at }));
        }
        settings::check(&entries, &mut self.warnings)?;
        for (key, template) in entries {
            given.configuration.retain(|known, _| !known.eq_ignore_ascii_case(&key));
            given.configuration.insert(key, template.value);
        }
        self.policies(section, "action_policies", ".policy", &mut given.action_policies)?;
        self.policies(section, "opa_policies", ".rego", &mut given.opa_policies)?;
        self.certificate(section, &mut given.certificate)?;
        Ok(given)
    }

    /// The text of a setting. Numbers and booleans count as they were written.
    fn value(&self, key: &str, node: &Node, at: Position) -> Result<Located<String>, ConfigError> {
        let text = match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                yaml::written(self.source, node).map(ToOwned::to_owned)
            }
            Value::Null => return fault(at, format!("{key} has no value; write \"\" when it shall be empty")),
            Value::List(_) | Value::Map(_) => None,
        };
        match text {
            Some(value) => Ok(Located { value, at }),
            None => Err(ConfigError::WrongType {
                at,
                key: key.to_owned(),
                expected: "text",
                found: format!("{}; write the setting's text in quotes", node.value.describe()),
            }),
        }
    }

    fn template(&self, text: &Located<String>) -> Result<Template, ConfigError> {
        let template = Template::parse(&text.value).or_else(|reason| fault(text.at.clone(), reason))?;
        for variable in template.variables() {
            let needs = match variable {
                Variable::SslDir if !self.features.pki => "features.pki, with which nodes say where it is",
                Variable::Claim(_) if !self.features.jwt => "features.jwt, which fetches and verifies the token",
                _ => continue,
            };
            return fault(text.at.clone(), format!("{{{{{}}}}} needs {needs}", variable.name()));
        }
        Ok(template)
    }

    fn policies(
        &self,
        section: &Section<'_>,
        key: &'static str,
        extension: &str,
        policies: &mut BTreeMap<String, String>,
    ) -> Result<(), ConfigError> {
        let Some(entries) = section.entries(key)? else { return Ok(()) };
        for (name, node) in entries {
            let at = section.position(node);
            let Value::Text(text) = &node.value else {
                return fault(
                    at,
                    format!("{key}: {name} must be the text of a policy, found {}", node.value.describe()),
                );
            };
            policies.insert(name.clone(), text.clone());
            answer::check_policies(key, extension, policies).or_else(|refusal| fault(at, refusal.error))?;
        }
        Ok(())
    }

    fn certificate(&self, section: &Section<'_>, terms: &mut CertificateTerms) -> Result<(), ConfigError> {
        let Some(at) = section.place("certificate") else { return Ok(()) };
        if !self.features.pki {
            return fault(at, "certificate needs features.pki, with which nodes make a key and a certificate request");
        }
        let certificate = section.section("certificate", "certificate.")?;
        certificate.refuse_unknown(&CERTIFICATE, "certificate")?;
        if let Some(text) = certificate.text("validity")? {
            terms.validity = validity(&text)?;
        }
        if certificate.place("dns_names").is_some() {
            terms.dns_names =
                certificate.text_or_texts("dns_names")?.iter().map(|text| self.name(text)).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    /// What others know a node by may be fixed, or come from what the provisioner knows to be true.
    fn name(&self, text: &Located<String>) -> Result<Template, ConfigError> {
        let template = self.template(text)?;
        if let Some(Variable::Fact(path)) = template.variables().find(|v| matches!(v, Variable::Fact(_))) {
            let reason = format!(
                "facts.{path} cannot be part of a name that others know the node by: facts are what the node says of itself, it could take any name; claims of the token are signed"
            );
            return fault(text.at.clone(), reason);
        }
        Ok(template)
    }
}

fn validity(text: &Located<String>) -> Result<Duration, ConfigError> {
    match duration::parse_with_unit(&text.value) {
        Ok(validity) if !validity.is_zero() && validity <= MAX_VALIDITY => Ok(validity),
        Ok(_) | Err(DurationError::Empty | DurationError::Negative(_)) => fault(
            text.at.clone(),
            format!("validity must be longer than nothing and at most 100y, found {:?}", text.value),
        ),
        Err(error) => fault(text.at.clone(), format!("validity: {error}")),
    }
}

/// Comparisons in the form of fact filters.
fn conditions(
    rule: &Section<'_>,
    key: &str,
    check: fn(&str) -> Result<(), String>,
) -> Result<Vec<Comparison>, ConfigError> {
    let texts = rule.text_or_texts(key)?;
    let read = |Located { value, at }: &Located<String>| {
        let filter = parse_fact(value).or_else(|error| fault(at.clone(), error.to_string()))?;
        check(&filter.fact).or_else(|reason| fault(at.clone(), reason))?;
        let matcher = FactMatcher::new(&filter).or_else(|error| fault(at.clone(), error.to_string()))?;
        Ok(Comparison { written: value.clone(), path: filter.fact, matcher })
    };
    texts.iter().map(read).collect()
}

impl Rule {
    /// Whether it matches whatever comes.
    fn matches_all(&self) -> bool {
        let any_name = self.identities.is_empty()
            || self
                .identities
                .iter()
                .any(|p| matches!(p, IdentityPattern::Glob(glob) if glob.bytes().all(|b| b == b'*')));
        any_name && self.facts.is_empty() && self.claims.is_empty()
    }

    fn variables(&self) -> impl Iterator<Item = &Variable> {
        let templates: Vec<&Template> = match &self.outcome {
            Outcome::Provision(given) => given.configuration.values().chain(&given.certificate.dns_names).collect(),
            Outcome::Defer(_) | Outcome::Shutdown(_) | Outcome::Deny(_) => Vec::new(),
        };
        templates.into_iter().flat_map(Template::variables)
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
