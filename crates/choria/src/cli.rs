//! The command line: every command and flag as clap types (spec 05 §1, §7, §10.1). Types only; what a command does is in
//! [`crate::commands`].

mod bench;
mod check;
mod fleet;
#[cfg(test)]
mod golden;
mod identity;
mod load;
mod messages;
mod run;
mod tool;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

pub(crate) use bench::{
    BenchArgs, BenchCommand, BenchHelper, BenchIdle, BenchPing, BenchProvisioning, EmulateArgs, NodeKey, Until,
};
pub(crate) use check::{
    ConfigArgs, ConfigCommand, ConfigExplain, ConfigValidate, DoctorArgs, ManArgs, ProvisionArgs, Role,
};
pub(crate) use fleet::{
    ConnectionArgs, DiscoverArgs, Display, FilterArgs, Method, OutputArgs, PingArgs, ReqArgs, SelectionArgs,
};
pub(crate) use identity::{
    CaArgs, CaCommand, CaInit, CaIssue, CaShow, CaSign, JwtArgs, JwtCommand, JwtKeys, JwtProvisioning, JwtView,
    KeyType, TokenClaims,
};
pub(crate) use load::{BenchConnections, BenchFanout, BenchPubsub, BenchRequest, BenchStorm, LoadServer};
pub(crate) use messages::{PubArgs, SubArgs};
pub(crate) use run::{
    BrokerArgs, BrokerCommand, BrokerRun, ControlArgs, DemoArgs, ExplainArgs, LabHelperArgs, ProvisionerArgs,
    ProvisionerCommand, RulesArgs, ServerArgs, ServerRun,
};
pub(crate) use tool::{
    BuildinfoArgs, CompletionArgs, EventArgs, EventType, StatusArgs, ToolArgs, ToolCommand, ToolJwt,
};

use crate::exit::EXIT_CODES;

/// Choria: broker, server, provisioner, client and tools in one program.
#[derive(Debug, Parser)]
#[command(name = "choria", version, max_term_width = 100, disable_help_subcommand = false)]
#[command(after_help = "Data goes to stdout, everything else to stderr. Exit statuses: choria help exit-codes")]
pub(crate) struct Cli {
    /// Log at debug level.
    #[arg(long, global = true)]
    pub debug: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask the fleet who is there.
    Ping(PingArgs),
    /// Call an action of an agent on many nodes.
    #[command(visible_aliases = ["rpc", "request"])]
    Req(Box<ReqArgs>),
    /// List the nodes that a filter finds.
    #[command(visible_alias = "find")]
    Discover(DiscoverArgs),
    /// Run a network broker.
    #[command(visible_alias = "b")]
    Broker(BrokerArgs),
    /// Run the server, the agent of a node.
    Server(ServerArgs),
    /// Run the provisioner, which makes unconfigured nodes fleet members.
    Provisioner(ProvisionerArgs),
    /// Make and view provisioning tokens and keys.
    Jwt(JwtArgs),
    /// A small certificate authority for fleets that have none.
    Ca(CaArgs),
    /// Show a whole fleet coming to life on this machine.
    Demo(DemoArgs),
    /// Run many nodes in this one process, to try out and to measure broker and provisioner.
    Emulate(EmulateArgs),
    /// Measure this program on this machine.
    Bench(BenchArgs),
    /// Tools for finding out what is going on.
    #[command(visible_alias = "t")]
    Tool(ToolArgs),
    /// Find out what is wrong here, and what to do about it.
    Doctor(DoctorArgs),
    /// Check configuration files, and look settings up.
    Config(ConfigArgs),
    /// Show the settings that this program was built with.
    Buildinfo(BuildinfoArgs),
    /// Print a script that completes commands in your shell.
    Completion(CompletionArgs),
    /// Print the manual page of a command, or write those of all commands.
    Man(ManArgs),
    /// Exit statuses of all commands.
    #[command(hide = true, long_about = EXIT_CODES)]
    ExitCodes,
    /// The provisioning helper of `choria demo` and `choria bench`.
    #[command(hide = true)]
    LabHelper(LabHelperArgs),
}

/// The same program under the name `choria-provisioner`.
#[derive(Debug, Parser)]
#[command(name = "choria-provisioner", version, max_term_width = 100)]
#[command(about = "Makes unconfigured nodes fleet members")]
pub(crate) struct ProvisionerCli {
    /// Log at debug level.
    #[arg(long, global = true)]
    pub debug: bool,
    #[command(flatten)]
    pub args: ProvisionerArgs,
}

/// What was asked for, whatever name the program was called by.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// `--debug`.
    pub debug: bool,
    /// The command; none shows the usage.
    pub command: Option<Command>,
}

/// Reads the command line. `program` is the file name that the program was called by.
pub(crate) fn parse(program: &str, arguments: Vec<String>) -> Result<Invocation, clap::Error> {
    let provisioner = program == "choria-provisioner" || program == "choria-provisioner.exe";
    let command = if provisioner { ProvisionerCli::command() } else { Cli::command() };
    let arguments = crate::values::expand_files(arguments, |flag| flag_takes_value(&command, flag))
        .map_err(|message| command.clone().error(clap::error::ErrorKind::Io, message))?;
    if provisioner {
        let cli = ProvisionerCli::try_parse_from(arguments)?;
        return Ok(Invocation { debug: cli.debug, command: Some(Command::Provisioner(cli.args)) });
    }
    let cli = Cli::try_parse_from(arguments)?;
    Ok(Invocation { debug: cli.debug, command: cli.command })
}

/// The default of a `--config` flag that names a file which must exist.
pub(crate) fn existing_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.exists() { Ok(path) } else { Err(format!("path '{text}' does not exist")) }
}

/// Whether any command has this flag with a value; `-jF` counts by its last letter.
fn flag_takes_value(command: &clap::Command, flag: &str) -> bool {
    let takes = |argument: &clap::Arg| {
        let named = match flag.strip_prefix("--") {
            Some(long) => {
                argument.get_long() == Some(long) || argument.get_all_aliases().is_some_and(|all| all.contains(&long))
            }
            None => flag.chars().next_back() == argument.get_short(),
        };
        named && argument.get_action().takes_values()
    };
    command.get_arguments().any(takes) || command.get_subcommands().any(|sub| flag_takes_value(sub, flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        ProvisionerCli::command().debug_assert();
    }

    #[test]
    fn values_of_flags_are_known() {
        let command = Cli::command();
        for (flag, takes) in
            [("-F", true), ("-jF", true), ("--wf", true), ("--with-fact", true), ("-v", false), ("--json", false)]
        {
            assert_eq!(flag_takes_value(&command, flag), takes, "{flag}");
        }
    }
}
