//! `choria provisioner rules`: a dry run of the built-in helper.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use choria_filter::facts;
use choria_provisioner::config::{BuiltinHelper, Features, Helper, ProvisionerConfig};
use choria_provisioner::helper::builtin::RuleSet;
use choria_provisioner::helper::builtin::simulate::{Imagined, simulate};
use choria_tokens::ProvisioningClaims;
use serde_json::{Value, json};

use crate::cli::RulesArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::print::rules as print;

/// Judges a node that is described on the command line.
pub(crate) fn run(args: &RulesArgs, config: Option<&Path>) -> Outcome {
    if !choria_protocol::identity::is_valid(&args.node) {
        let message =
            format!("{:?} cannot be a node: identities are letters, digits, dots, hyphens and underscores", args.node);
        return Err(Failure::new(message));
    }
    let (path, features) = place(args, config)?;
    let rules = RuleSet::load(&path, features)?;
    rules.warnings().iter().try_for_each(|warning| writeln!(io::stderr(), "warning: {warning}"))?;
    let node = Imagined {
        identity: args.node.clone(),
        facts: args.facts.as_deref().map_or_else(|| Ok(json!({})), read_facts)?,
        claims: args.claims.as_deref().map(read_claims).transpose()?,
        ssldir: features.pki.then(|| args.ssldir.clone()),
    };
    let simulation = simulate(&rules, &node);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&simulation)?)?;
    } else {
        print::simulation(&mut out, &simulation)?;
    }
    let problems = simulation.gets.as_ref().is_some_and(|gets| !gets.problems.is_empty());
    Ok(if problems || matches!(simulation.decision, "defer" | "deny") { Exit::Failed } else { Exit::Ok })
}

/// Which rules, and what the provisioner asks of nodes: everything, when no configuration says otherwise.
fn place(args: &RulesArgs, config: Option<&Path>) -> Result<(PathBuf, Features), Failure> {
    let Some(file) = config else {
        let rules = args.rules.clone().ok_or_else(|| {
            Failure::new("which rules?")
                .hint("choria provisioner rules NODE --rules FILE, or --config FILE of a provisioner")
        })?;
        return Ok((rules, Features { pki: true, jwt: true }));
    };
    let config = ProvisionerConfig::load(file)?;
    match (&args.rules, config.helper) {
        (Some(rules), _) => Ok((rules.clone(), config.features)),
        (None, Some(Helper::Builtin(BuiltinHelper { rules, .. }))) => Ok((rules, config.features)),
        (None, _) => {
            let message = format!("{} has no rules: its helper_mode is not builtin", file.display());
            Err(Failure::new(message).hint("name the rules with --rules FILE"))
        }
    }
}

fn read_facts(path: &Path) -> Result<Value, Failure> {
    let loaded = facts::load([path]);
    match loaded.problems.into_iter().next() {
        Some(problem) => Err(Failure::new(problem)),
        None => Ok(loaded.facts),
    }
}

fn read_claims(path: &Path) -> Result<ProvisioningClaims, Failure> {
    let bad = |reason: String| Failure::new(format!("claims {}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    serde_json::from_str(&text)
        .map_err(|error| bad(error.to_string()).hint("choria jwt view TOKEN --json prints the claims of a token"))
}
