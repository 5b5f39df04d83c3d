//! Flags of the daemons and of the demo.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::messages::{PubArgs, SubArgs};

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub(crate) struct BrokerArgs {
    #[command(subcommand)]
    pub command: BrokerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Run the broker in the foreground. SIGHUP reloads its configuration.
    Run(BrokerRun),
    /// Show the messages of a subject as they pass: the same as `choria tool sub`.
    #[command(visible_alias = "subscribe")]
    Sub(BrokerSub),
    /// Publish one message: the same as `choria tool pub`.
    #[command(visible_alias = "publish")]
    Pub(BrokerPub),
}

/// `choria broker sub`, a client command whatever the name says.
#[derive(Debug, Args)]
pub(crate) struct BrokerSub {
    #[command(flatten)]
    pub sub: SubArgs,
    /// Client configuration instead of the user's or the system's.
    #[arg(long, alias = "choria-config", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `choria broker pub`.
#[derive(Debug, Args)]
pub(crate) struct BrokerPub {
    #[command(flatten)]
    pub publish: PubArgs,
    /// Client configuration instead of the user's or the system's.
    #[arg(long, alias = "choria-config", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BrokerRun {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Write the process id to this file.
    #[arg(long, value_name = "FILE")]
    pub pid: Option<PathBuf>,
    #[command(flatten)]
    pub unsafe_tls: TestTls,
}

/// For tests only: transport without protection.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct TestTls {
    /// Plain TCP, for testing.
    #[arg(long, hide = true, global = true, visible_alias = "disable-ssl")]
    pub disable_tls: bool,
    /// Accept any certificate, for testing.
    #[arg(long, hide = true, global = true)]
    pub disable_ssl_verification: bool,
}

/// `choria server run --config F`; `run` may be left out.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub run: ServerRun,
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ServerCommand {
    /// Run the server in the foreground.
    Run,
}

#[derive(Debug, Args)]
pub(crate) struct ServerRun {
    /// Configuration file; it need not exist yet when the node can be provisioned.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Write the process id to this file.
    #[arg(long, value_name = "FILE", global = true)]
    pub pid: Option<PathBuf>,
    /// Provisioning token instead of the one that this program was built to look for; the variable
    /// CHORIA_PROVISIONING_JWT does the same.
    #[arg(long, value_name = "FILE", global = true)]
    pub provisioning_jwt: Option<PathBuf>,
    #[command(flatten)]
    pub unsafe_tls: TestTls,
}

/// `choria provisioner run --config F --choria-config F`; `run` may be left out.
#[derive(Debug, Args)]
pub(crate) struct ProvisionerArgs {
    /// Provisioner configuration (YAML).
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Choria client configuration instead of the user's or the system's.
    #[arg(long, value_name = "FILE", global = true)]
    pub choria_config: Option<PathBuf>,
    /// Write the process id to this file.
    #[arg(long, value_name = "FILE", global = true)]
    pub pid: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Option<ProvisionerCommand>,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ProvisionerCommand {
    /// Run the provisioner in the foreground. SIGHUP re-reads its configuration.
    Run,
    /// How a running provisioner is doing: nodes by state, rate, refusals by reason, helper.
    Status(ControlArgs),
    /// What a running provisioner knows about a node: what it saw, tried and refused, with the reasons, and what comes next.
    ///
    /// Ends with status 1 when it knows nothing of that name.
    Explain(ExplainArgs),
    /// Make a running provisioner start no more nodes.
    Pause(ControlArgs),
    /// Let a paused provisioner go on.
    Resume(ControlArgs),
    /// What the rules of the built-in helper would make of a node, and why. No node is touched.
    ///
    /// Ends with status 1 when the node would be put off or refused.
    Rules(RulesArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RulesArgs {
    /// Identity of the node.
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Rules, instead of those that --config names.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Facts of the node, YAML or JSON.
    #[arg(long, value_name = "FILE")]
    pub facts: Option<PathBuf>,
    /// Claims of its provisioning token, as `choria jwt view --json` prints them.
    #[arg(long, value_name = "FILE")]
    pub claims: Option<PathBuf>,
    /// Where the node would keep its certificates.
    #[arg(long, value_name = "DIR", default_value = "/etc/choria/ssl")]
    pub ssldir: String,
    /// One JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Which provisioner is asked, and how its answer is shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct ControlArgs {
    /// Control socket of the provisioner, instead of the one of --config or the default place.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// One JSON document on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// Identity of the node.
    #[arg(value_name = "NODE")]
    pub node: String,
    #[command(flatten)]
    pub control: ControlArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub nodes: u32,
    /// Directory for everything that is made; it must be empty or absent. A temporary one otherwise.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// End when every node is a fleet member, with status 0, or when that takes too long, with status 1.
    #[arg(long)]
    pub once: bool,
    /// One JSON document on stdout.
    #[arg(long)]
    pub json: bool,
    /// Port of the broker on the loopback address; 0 finds a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Longest time until every node is a member.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration)]
    pub timeout: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct LabHelperArgs {
    /// The lab's directory.
    #[arg(long)]
    pub dir: PathBuf,
}
