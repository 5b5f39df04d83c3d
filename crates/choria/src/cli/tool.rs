//! Flags of `choria tool`, `buildinfo` and `completion`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::check::ProvisionArgs;
use super::identity::TokenClaims;
use super::messages::{PubArgs, SubArgs};

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub(crate) struct ToolArgs {
    /// Configuration file instead of the user's or the system's.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: ToolCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// Show lifecycle events as they happen.
    Event(EventArgs),
    /// Check a server by the status file that it writes.
    #[command(visible_alias = "check")]
    Status(StatusArgs),
    /// Show which brokers a node with this configuration would go to in order to be provisioned.
    #[command(visible_alias = "provisioner")]
    Provision(ProvisionArgs),
    /// Show the messages of a subject as they pass.
    Sub(SubArgs),
    /// Publish one message.
    Pub(PubArgs),
    /// Make or view a provisioning token: the older spelling of `choria jwt`.
    Jwt(ToolJwt),
}

/// Types of lifecycle events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventType {
    Alive,
    Governor,
    Provisioned,
    Refused,
    Shutdown,
    Startup,
    Upgraded,
}

#[derive(Debug, Args)]
pub(crate) struct EventArgs {
    /// Only events of this component.
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,
    /// Only events of this type.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<EventType>,
    /// Show each event as JSON, as it was received.
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Longest time to wait for a connection to a broker.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "5s")]
    pub connect_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The server's status file (plugin.choria.status_file_path).
    #[arg(long, visible_alias = "status", value_name = "FILE")]
    pub status_file: PathBuf,
    /// Fail when the server is not connected (on unless --no-disconnected).
    #[arg(long, alias = "check-connection", overrides_with = "no_disconnected")]
    pub disconnected: bool,
    /// Do not care whether the server is connected.
    #[arg(long, visible_alias = "no-check-connection", overrides_with = "disconnected")]
    pub no_disconnected: bool,
    /// Fail when the last message is older; 0 turns the check off.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "1h")]
    pub message_since: Duration,
    /// Fail when the file is older; 0 turns the check off.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "30m")]
    pub max_age: Duration,
    /// Fail when the certificate expires sooner; 0 turns the check off.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "24h")]
    pub certificate_age: Duration,
    /// Fail when the token expires sooner; 0 turns the check off.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "24h")]
    pub token_age: Duration,
    /// Fail unless the server is in provisioning mode.
    #[arg(long)]
    pub unprovisioned: bool,
    /// Fail when the server is in provisioning mode.
    #[arg(long)]
    pub provisioned: bool,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}

/// `choria tool jwt FILE [KEY]`: FILE exists: view it; FILE is absent: make it (spec 05 §7.8, §10.1).
#[derive(Debug, Args)]
pub(crate) struct ToolJwt {
    /// The token. It is shown when it exists, and made otherwise.
    pub file: PathBuf,
    /// Certificate or public key to check it with, or private key to sign it with.
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub claims: TokenClaims,
    /// Let the node send unsigned messages until it is provisioned.
    #[arg(long, overrides_with = "no_insecure")]
    pub insecure: bool,
    #[arg(long, hide = true, overrides_with = "insecure")]
    pub no_insecure: bool,
    /// User that the node names to the broker.
    #[arg(long, value_name = "USER")]
    pub username: Option<String>,
    /// Password for that user.
    #[arg(long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Show the claims as JSON.
    #[arg(short = 'j', long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BuildinfoArgs {
    /// Show the versions of the libraries inside, too.
    #[arg(short = 'D', long)]
    pub dependencies: bool,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell.
    pub shell: Option<clap_complete::Shell>,
    /// The same as `completion zsh`.
    #[arg(long, conflicts_with = "shell")]
    pub zsh: bool,
    /// The same as `completion bash`, which is the default.
    #[arg(long, conflicts_with_all = ["shell", "zsh"])]
    pub bash: bool,
}
