//! A node and the rules. No I/O: the same answers for the daemon and for a dry run.

use std::collections::BTreeMap;

use choria_filter::MatchError;
use serde_json::Value;

use super::rules::{Comparison, Outcome, Provision, Rule, RuleSet};
use super::template::{Missing, View};
use crate::answer::PROVISION;

/// What the rules say about a node.
#[derive(Debug)]
pub(super) enum Verdict<'r> {
    Provision(&'r Rule, &'r Provision),
    /// Not now, with the reason.
    Defer(String),
    /// The node is told to stop, with the reason.
    Shutdown(String),
    /// The node is refused, with the reason.
    Deny(String),
}

/// Why a rule does not match a node.
#[derive(Debug)]
pub(super) enum Mismatch<'r> {
    Identity,
    /// A fact is missing or has another value.
    Fact(&'r Comparison),
    /// A claim is missing or has another value.
    Claim(&'r Comparison),
    /// A comparison makes no sense for what the node has.
    Unclear(MatchError),
}

impl RuleSet {
    /// What becomes of a node. A comparison that makes no sense puts the node off instead of letting it slip through to a
    /// later rule.
    pub(super) fn judge(&self, node: &View<'_>) -> Verdict<'_> {
        for rule in &self.rules {
            match rule.mismatch(node) {
                Some(Mismatch::Unclear(error)) => return Verdict::Defer(format!("{rule} cannot be judged: {error}")),
                Some(_) => {}
                None => {
                    return match &rule.outcome {
                        Outcome::Provision(given) => Verdict::Provision(rule, given),
                        Outcome::Defer(reason) => Verdict::Defer(format!("{reason}, says {rule}")),
                        Outcome::Shutdown(reason) => Verdict::Shutdown(format!("{reason}, says {rule}")),
                        Outcome::Deny(reason) => Verdict::Deny(format!("{reason}, says {rule}")),
                    };
                }
            }
        }
        Verdict::Defer(format!("no rule of {} matches", self.path.display()))
    }
}

impl Rule {
    /// Why it does not match; `None` when it does.
    pub(super) fn mismatch(&self, node: &View<'_>) -> Option<Mismatch<'_>> {
        if !self.identities.is_empty() && !self.identities.iter().any(|pattern| pattern.matches(node.identity)) {
            return Some(Mismatch::Identity);
        }
        failing(&self.facts, node.facts, Mismatch::Fact).or_else(|| failing(&self.claims, node.claims, Mismatch::Claim))
    }
}

/// The first comparison that does not hold.
fn failing<'r>(
    comparisons: &'r [Comparison],
    values: &Value,
    which: fn(&'r Comparison) -> Mismatch<'r>,
) -> Option<Mismatch<'r>> {
    comparisons.iter().find_map(|comparison| match comparison.matcher.matches(values) {
        Ok(true) => None,
        Ok(false) => Some(which(comparison)),
        Err(error) => Some(Mismatch::Unclear(error)),
    })
}

/// The reason to put off a node that lacks a variable.
pub(super) fn lacks(rule: &Rule, missing: &Missing) -> String {
    format!("{rule} needs {{{{{}}}}}: {}", missing.variable, missing.problem)
}

impl Provision {
    /// The settings of one node, with those that every node needs.
    ///
    /// # Errors
    /// The first variable without a value.
    pub(super) fn configuration(&self, node: &View<'_>) -> Result<BTreeMap<String, String>, Missing> {
        let mut settings = BTreeMap::new();
        for (key, template) in &self.configuration {
            settings.insert(key.clone(), template.fill(node)?);
        }
        set_unless(&mut settings, "identity", || node.identity.to_owned());
        set_unless(&mut settings, PROVISION, || "false".to_owned());
        let Some(ssldir) = node.ssldir else { return Ok(settings) };
        set_unless(&mut settings, "plugin.security.provider", || "file".to_owned());
        if settings.get("plugin.security.provider").is_some_and(|provider| provider == "file") {
            if ssldir.is_empty() {
                return Err(Missing { variable: "ssldir".to_owned(), problem: "the node named none" });
            }
            // The names that nodes give these files (spec 04 §6.9).
            let directory = ssldir.trim_end_matches('/');
            for (key, file) in [
                ("plugin.security.file.certificate", "certificate.pem"),
                ("plugin.security.file.key", "private.pem"),
                ("plugin.security.file.ca", "ca.pem"),
            ] {
                set_unless(&mut settings, key, || format!("{directory}/{file}"));
            }
        }
        Ok(settings)
    }

    /// Further names of one node's certificate.
    ///
    /// # Errors
    /// The first variable without a value.
    pub(super) fn dns_names(&self, node: &View<'_>) -> Result<Vec<String>, Missing> {
        self.certificate.dns_names.iter().map(|template| template.fill(node)).collect()
    }
}

fn set_unless(settings: &mut BTreeMap<String, String>, key: &str, value: impl FnOnce() -> String) {
    if !settings.keys().any(|known| known.eq_ignore_ascii_case(key)) {
        settings.insert(key.to_owned(), value());
    }
}
