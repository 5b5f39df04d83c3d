//! `choria provisioner rules`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use choria_provisioner::helper::builtin::simulate::{Gets, Simulation};

use super::provisioner::clean;

/// What becomes of a node, and why.
pub(crate) fn simulation(out: &mut impl Write, simulation: &Simulation) -> io::Result<()> {
    for rule in &simulation.rules {
        match rule.matches {
            true => writeln!(out, "  yes  {}", rule.rule)?,
            false => writeln!(out, "  no   {}: {}", rule.rule, clean(&rule.because))?,
        }
    }
    let name = &simulation.identity;
    match simulation.decision {
        "provision" => writeln!(out, "{name} is provisioned")?,
        "shutdown" => writeln!(out, "{name} is told to shut down: {}", clean(&simulation.reason))?,
        "deny" => writeln!(out, "{name} is refused: {}", clean(&simulation.reason))?,
        _ => writeln!(out, "{name} is put off: {}", clean(&simulation.reason))?,
    }
    simulation.gets.as_ref().map_or(Ok(()), |gets| self::gets(out, gets))
}

fn gets(out: &mut impl Write, gets: &Gets) -> io::Result<()> {
    for (key, value) in &gets.configuration {
        writeln!(out, "  {key} = {}", clean(value))?;
    }
    if let Some(certificate) = &gets.certificate {
        let days = certificate.validity_seconds / 86_400;
        let span =
            if days > 1 { format!("{days} days") } else { format!("{} hours", certificate.validity_seconds / 3600) };
        let names = certificate.dns_names.join(", ");
        let also = if names.is_empty() { String::new() } else { format!(", also for {}", clean(&names)) };
        writeln!(out, "Certificate for {span}{also}")?;
    }
    policies(out, "Action policies", &gets.action_policies)?;
    policies(out, "Rego policies", &gets.opa_policies)?;
    gets.problems.iter().try_for_each(|problem| writeln!(out, "Problem: {}", clean(problem)))
}

fn policies(out: &mut impl Write, title: &str, policies: &BTreeMap<String, String>) -> io::Result<()> {
    if policies.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = policies.keys().map(String::as_str).collect();
    writeln!(out, "{title}: {}", names.join(", "))
}
