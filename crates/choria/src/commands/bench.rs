//! `choria bench`: measurements that anyone can repeat, each one JSON document.

mod document;
mod metrics;
mod processes;
mod provisioning;
mod run;

pub(crate) use document::Document;

use crate::cli::{BenchArgs, BenchCommand};
use crate::exit::Outcome;

/// Runs one benchmark.
pub(crate) fn run(args: &BenchArgs, debug: bool) -> Outcome {
    match &args.command {
        BenchCommand::Provisioning(args) => provisioning::run(args, debug),
    }
}
