//! `choria bench`: measurements that anyone can repeat, each one JSON document.

mod document;
mod idle;
mod load;
mod metrics;
mod nodes;
mod ping;
mod place;
mod processes;
mod provisioning;
mod run;

pub(crate) use document::Document;
pub(crate) use idle::Document as IdleDocument;
pub(crate) use load::Document as LoadDocument;
pub(crate) use ping::Document as PingDocument;

use crate::cli::{BenchArgs, BenchCommand};
use crate::exit::{Failure, Outcome};

/// Runs one benchmark.
pub(crate) fn run(args: &BenchArgs, debug: bool) -> Outcome {
    match &args.command {
        BenchCommand::Provisioning(args) => provisioning::run(args, debug),
        BenchCommand::Idle(args) => idle::run(args, debug),
        BenchCommand::Ping(args) => ping::run(args, debug),
        BenchCommand::Pubsub(args) => load::pubsub(args),
        BenchCommand::Fanout(args) => load::fanout(args),
        BenchCommand::ReplyStorm(args) => load::reply_storm(args),
        BenchCommand::Request(args) => load::request(args),
        BenchCommand::Connections(args) => load::connections(args),
    }
}

fn interrupted() -> Failure {
    Failure::new("interrupted before there was a result")
}
