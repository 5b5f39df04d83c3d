//! What the rules would say about a node, and why, without touching one (spec 04 §14 row 16).

use std::collections::BTreeMap;

use choria_filter::facts;
use choria_tokens::ProvisioningClaims;
use serde::Serialize;
use serde_json::Value;

use super::decide::{Mismatch, Verdict, lacks};
use super::rules::{Comparison, Provision, Rule, RuleSet};
use super::template::{Template, View};
use super::{claims, empty, settings};
use crate::answer;
use crate::config::Position;
use crate::config::reader::Located;

/// Longest value of a fact that is shown.
const SHOWN: usize = 60;

/// A node as it could be.
#[derive(Debug, Clone, Default)]
pub struct Imagined {
    /// Its name.
    pub identity: String,
    /// Its facts, an object.
    pub facts: Value,
    /// Claims of its token.
    pub claims: Option<ProvisioningClaims>,
    /// Where it would keep its certificates; `None` without `features.pki`.
    pub ssldir: Option<String>,
}

/// What becomes of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Simulation {
    /// The node.
    pub identity: String,
    /// The rules in their order, up to the one that decides.
    pub rules: Vec<Considered>,
    /// `provision`, `defer`, `shutdown` or `deny`.
    pub decision: &'static str,
    /// Why, unless it is provisioned.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it gets, when it is provisioned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gets: Option<Gets>,
}

/// One rule and the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Name and place of the rule.
    pub rule: String,
    /// Whether it is for this node.
    pub matches: bool,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub because: String,
}

/// What a node gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gets {
    /// Its settings.
    pub configuration: BTreeMap<String, String>,
    /// Action policies: file name to text.
    pub action_policies: BTreeMap<String, String>,
    /// Rego policies: file name to text.
    pub opa_policies: BTreeMap<String, String>,
    /// Its certificate, with `features.pki`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// What is wrong with the settings: the node would refuse them, or they would be refused on the way to it.
    pub problems: Vec<String>,
}

/// What its certificate would say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// How long it is valid.
    pub validity_seconds: u64,
    /// Names beside the identity.
    pub dns_names: Vec<String>,
}

/// Judges a node by the rules.
pub fn simulate(rules: &RuleSet, node: &Imagined) -> Simulation {
    let claims = node.claims.as_ref().map_or_else(empty, claims);
    let view = View { identity: &node.identity, ssldir: node.ssldir.as_deref(), facts: &node.facts, claims: &claims };
    let mut considered = Vec::new();
    for rule in &rules.rules {
        let mismatch = rule.mismatch(&view);
        let because = mismatch.as_ref().map(|mismatch| because(mismatch, &view)).unwrap_or_default();
        let last = matches!(mismatch, None | Some(Mismatch::Unclear(_)));
        considered.push(Considered { rule: rule.to_string(), matches: mismatch.is_none(), because });
        if last {
            break;
        }
    }
    let (decision, reason, gets) = match rules.judge(&view) {
        Verdict::Defer(reason) => ("defer", reason, None),
        Verdict::Shutdown(reason) => ("shutdown", reason, None),
        Verdict::Deny(reason) => ("deny", reason, None),
        Verdict::Provision(rule, given) => match gets(rule, given, &view) {
            Ok(gets) => ("provision", String::new(), Some(gets)),
            Err(reason) => ("defer", reason, None),
        },
    };
    Simulation { identity: node.identity.clone(), rules: considered, decision, reason, gets }
}

fn because(mismatch: &Mismatch<'_>, node: &View<'_>) -> String {
    match mismatch {
        Mismatch::Identity => "it is for other identities".to_owned(),
        Mismatch::Fact(comparison) => fails("fact", comparison, node.facts),
        Mismatch::Claim(comparison) => fails("claim", comparison, node.claims),
        Mismatch::Unclear(error) => error.to_string(),
    }
}

fn fails(kind: &str, Comparison { written, path, .. }: &Comparison, values: &Value) -> String {
    match facts::lookup(values, path) {
        None => format!("{kind} {written} does not hold, the node has no {path}"),
        Some(value) => {
            let text = value.to_string();
            let shown: String = text.chars().take(SHOWN).collect();
            let more = if shown.len() < text.len() { "..." } else { "" };
            format!("{kind} {written} does not hold, the node has {shown}{more}")
        }
    }
}

fn gets(rule: &Rule, given: &Provision, view: &View<'_>) -> Result<Gets, String> {
    let lack = |missing| lacks(rule, &missing);
    let configuration = given.configuration(view).map_err(lack)?;
    let certificate = match view.ssldir {
        None => None,
        Some(_) => Some(Certificate {
            validity_seconds: given.certificate.validity.as_secs(),
            dns_names: given.dns_names(view).map_err(lack)?,
        }),
    };
    Ok(Gets {
        problems: problems(&configuration, &rule.at),
        configuration,
        action_policies: given.action_policies.clone(),
        opa_policies: given.opa_policies.clone(),
        certificate,
    })
}

/// What was not checked when the rules were read, because it depends on the node.
fn problems(configuration: &BTreeMap<String, String>, at: &Position) -> Vec<String> {
    let mut problems: Vec<String> =
        configuration.iter().filter_map(|(key, value)| answer::check_value(key, value).err()).collect();
    if problems.is_empty() {
        let entry =
            |(key, value): (&String, &String)| (key.clone(), Located { value: Template::fixed(value), at: at.clone() });
        let entries: Vec<_> = configuration.iter().map(entry).collect();
        // Told about every rule at start; here they would only repeat.
        let mut warnings = Vec::new();
        problems.extend(settings::check(&entries, &mut warnings).err().map(|error| error.to_string()));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::Features;

    const RULES: &str = "\
rules:
  - {name: old, identity: '*.old.net', shutdown: retired}
  - {facts: os.family=redhat, deny: not here}
  - {jwt: extensions.tenant=t1, defer: later}
  - configuration: {registerinterval: '{{facts.interval}}'}
    certificate: {validity: 1d, dns_names: ['{{jwt.extensions.tenant}}.net']}
    action_policies: {rpcutil.policy: x}
";

    fn run(facts: Value) -> Simulation {
        let rules = RuleSet::from_text(Path::new("r.yaml"), RULES, Features { pki: true, jwt: true }).unwrap();
        let claims = serde_json::from_value(json!({"extensions": {"tenant": "t9"}, "cht": "secret"})).unwrap();
        let node =
            Imagined { identity: "n1.net".into(), facts, claims: Some(claims), ssldir: Some("/etc/choria/ssl".into()) };
        simulate(&rules, &node)
    }

    #[test]
    fn it_says_what_and_why() {
        let simulation = run(json!({"os": {"family": "Debian"}, "interval": 300}));
        let told: Vec<(&str, bool, &str)> =
            simulation.rules.iter().map(|c| (c.rule.as_str(), c.matches, c.because.as_str())).collect();
        assert_eq!(
            told,
            [
                ("rule old (r.yaml:2)", false, "it is for other identities"),
                ("the rule at r.yaml:3", false, "fact os.family=redhat does not hold, the node has \"Debian\""),
                ("the rule at r.yaml:4", false, "claim extensions.tenant=t1 does not hold, the node has \"t9\""),
                ("the rule at r.yaml:5", true, ""),
            ]
        );
        assert_eq!(simulation.decision, "provision");
        let gets = simulation.gets.unwrap();
        assert_eq!(gets.configuration["registerinterval"], "300");
        assert_eq!(gets.configuration["plugin.security.file.key"], "/etc/choria/ssl/private.pem");
        let certificate = gets.certificate.unwrap();
        assert_eq!((certificate.validity_seconds, certificate.dns_names), (86_400, vec!["t9.net".to_owned()]));
        assert_eq!(gets.problems, Vec::<String>::new());
        assert!(!format!("{:?}", run(json!({}))).contains("secret"));
    }

    #[test]
    fn what_a_node_could_not_read_is_told() {
        let gets = run(json!({"interval": "often"})).gets.unwrap();
        assert!(gets.problems[0].contains("registerinterval = often is not a setting"), "{:?}", gets.problems);
        let gets = run(json!({"interval": "1\nx: y"})).gets.unwrap();
        assert!(gets.problems[0].contains("would inject settings"), "{:?}", gets.problems);
    }

    #[test]
    fn a_hole_is_a_deferral() {
        let simulation = run(json!({}));
        assert_eq!(simulation.decision, "defer");
        assert_eq!(simulation.reason, "the rule at r.yaml:5 needs {{facts.interval}}: the node has none");
        assert_eq!(simulation.rules[1].because, "fact os.family=redhat does not hold, the node has no os.family");
    }
}
