//! `choria bench provisioning`: a lab, broker, provisioner and emulated nodes as processes of this program, and one document.

use std::io::Write;
use std::time::Duration;

use choria_security::keys::KeyKind;
use tokio_util::sync::CancellationToken;

use super::document::Document;
use super::place;
use super::run::{self, Plan};
use crate::cli::{BenchHelper, BenchProvisioning};
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::{HelperPlan, Layout, Purpose, helper};
use crate::print::bench as print;

/// Runs the benchmark.
pub(crate) fn run(args: &BenchProvisioning, debug: bool) -> Outcome {
    let measure = |layout: &Layout, shutdown: CancellationToken| {
        let layout = layout.clone();
        async move {
            let plan = Plan {
                layout: &layout,
                key: choria_emulator::key_name(args.key.into()),
                rate: args.rate,
                wait_all_first: args.wait_all_first,
                limit: args.timeout.unwrap_or_else(|| patience(args)),
                quiet: args.json,
            };
            let measured = run::run(&plan, &shutdown).await?;
            Ok(Document::new(args, &layout, &measured))
        }
    };
    place::run(
        &place::Wish { purpose: Purpose::Bench, nodes: args.nodes, dir: args.dir.as_deref(), debug },
        |layout| helper_plan(args, layout),
        measure,
        |document| show(args, document),
    )
}

fn show(args: &BenchProvisioning, document: &Document) -> Outcome {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(document)?)?;
    } else {
        write!(out, "{}", print::provisioning(document))?;
    }
    out.flush()?;
    Ok(if document.lost == 0 && document.duplicated == 0 { Exit::Ok } else { Exit::Failed })
}

/// Long enough for a small machine: a fixed part, and what the slowest key takes for each node.
fn patience(args: &BenchProvisioning) -> Duration {
    let per_node = match args.key.into() {
        KeyKind::Rsa2048 => Duration::from_millis(400),
        KeyKind::P256 | KeyKind::Ed25519 => Duration::from_millis(100),
    };
    Duration::from_secs(60) + per_node * args.nodes
}

fn helper_plan(args: &BenchProvisioning, layout: &Layout) -> Result<HelperPlan, Failure> {
    let command = match &args.helper_command {
        Some(command) => filled(command, layout)?,
        None => helper::command(layout)?,
    };
    Ok(match args.helper {
        BenchHelper::Builtin => HelperPlan::builtin(layout),
        BenchHelper::Exec => HelperPlan::process(&command),
        BenchHelper::Persistent => HelperPlan::persistent(&command, args.helper_processes.into()),
    })
}

/// A command with what only this lab knows in place of `{ca}`, `{broker}` and `{client}`.
fn filled(command: &str, layout: &Layout) -> Result<String, Failure> {
    let authority = helper::quoted(&layout.authority())?;
    Ok(command
        .replace("{ca}", &authority)
        .replace("{broker}", &format!("127.0.0.1:{}", layout.ports.broker))
        .replace("{client}", &layout.client))
}
