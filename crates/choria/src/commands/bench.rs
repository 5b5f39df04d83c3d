//! `choria bench`: measurements that anyone can repeat, each one JSON document.

mod document;
mod idle;
mod metrics;
mod nodes;
mod place;
mod processes;
mod provisioning;
mod run;

pub(crate) use document::Document;
pub(crate) use idle::Document as IdleDocument;

use crate::cli::{BenchArgs, BenchCommand};
use crate::exit::{Failure, Outcome};

/// Runs one benchmark.
pub(crate) fn run(args: &BenchArgs, debug: bool) -> Outcome {
    match &args.command {
        BenchCommand::Provisioning(args) => provisioning::run(args, debug),
        BenchCommand::Idle(args) => idle::run(args, debug),
    }
}

fn interrupted() -> Failure {
    Failure::new("interrupted before there was a result")
}
