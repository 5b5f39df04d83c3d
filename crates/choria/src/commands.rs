//! One module per command. Each reads settings, calls one operation of the room that owns it, and hands the result to a
//! printer.

pub(crate) mod bench;
mod broker;
mod buildinfo;
mod ca;
mod completion;
mod config;
mod discover;
pub(crate) mod doctor;
mod emulate;
mod event;
pub(crate) mod jwt;
mod man;
mod messages;
mod ping;
pub(crate) mod provision;
mod provisioner;
mod req;
mod server;
mod status;

use std::io::Write;

use crate::cli::{BrokerCommand, Command, ToolArgs, ToolCommand};
use crate::exit::{EXIT_CODES, Exit, Outcome};

/// Runs one command to its end.
pub(crate) fn run(command: Command, debug: bool) -> Outcome {
    match command {
        Command::Ping(args) => ping::run(&args, debug),
        Command::Req(args) => req::run(&args, debug),
        Command::Discover(args) => discover::run(&args, debug),
        Command::Broker(args) => match args.command {
            BrokerCommand::Run(args) => broker::run(&args, debug),
            BrokerCommand::Sub(args) => messages::sub(&args.sub, args.config.as_deref(), debug),
            BrokerCommand::Pub(args) => messages::publish(&args.publish, args.config.as_deref(), debug),
        },
        Command::Server(args) => server::run(&args.run, debug),
        Command::Provisioner(args) => provisioner::run(&args, debug),
        Command::Jwt(args) => jwt::run(args),
        Command::Ca(args) => ca::run(args.command),
        Command::Emulate(args) => emulate::run(&args, debug),
        Command::Bench(args) => bench::run(&args, debug),
        Command::Demo(args) => crate::demo::run(&args, debug),
        Command::LabHelper(args) => crate::lab::helper::run(&args),
        Command::Tool(args) => tool(args, debug),
        Command::Buildinfo(args) => buildinfo::run(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(&args, debug),
        Command::Man(args) => man::run(&args),
        Command::ExitCodes => {
            writeln!(std::io::stdout(), "{EXIT_CODES}")?;
            Ok(Exit::Ok)
        }
    }
}

fn tool(args: ToolArgs, debug: bool) -> Outcome {
    match args.command {
        ToolCommand::Event(event) => event::run(&event, args.config.as_deref(), debug),
        ToolCommand::Status(status) => status::run(&status),
        ToolCommand::Provision(provision) => provision::run(&provision, args.config.as_deref(), debug),
        ToolCommand::Sub(sub) => messages::sub(&sub, args.config.as_deref(), debug),
        ToolCommand::Pub(publish) => messages::publish(&publish, args.config.as_deref(), debug),
        ToolCommand::Jwt(old) => jwt::run_old_form(old),
    }
}
