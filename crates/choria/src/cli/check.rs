//! Flags of the commands that look whether things are as they should be: `doctor`, `config`, `tool provision`, `man`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

/// What a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    // The agent of a node.
    Server,
    // The network broker.
    Broker,
    // The provisioner.
    Provisioner,
    // Commands of people.
    Client,
}

impl Role {
    /// The role as the command line writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Broker => "broker",
            Self::Provisioner => "provisioner",
            Self::Client => "client",
        }
    }
}

/// `choria doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// What to check for; guessed from the configuration file when one is named, client otherwise.
    #[arg(long, value_name = "ROLE")]
    pub role: Option<Role>,
    /// Configuration file of that role instead of its usual place.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// For a provisioner: its Choria client configuration instead of the user's or the system's.
    #[arg(long, value_name = "FILE")]
    pub choria_config: Option<PathBuf>,
    /// Provisioning token to check; a server also finds it by itself, see `choria buildinfo`.
    #[arg(long, value_name = "FILE")]
    pub provisioning_jwt: Option<PathBuf>,
    /// Public key or certificate of the token's signer; broker and provisioner find it in their configuration.
    #[arg(long, value_name = "FILE")]
    pub signer: Option<PathBuf>,
    /// Warn about certificates and tokens that expire sooner.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "30d")]
    pub expiry_warning: Duration,
    /// Do not use the network.
    #[arg(long)]
    pub offline: bool,
    /// Show only what failed or deserves a look.
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// A JSON list of the checks.
    #[arg(short = 'j', long)]
    pub json: bool,
}

/// `choria config`.
#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Tell everything that is wrong or odd in a configuration file, with its line.
    #[command(visible_alias = "check")]
    Validate(ConfigValidate),
    /// Tell what a setting is for.
    Explain(ConfigExplain),
}

/// `choria config validate`.
#[derive(Debug, Args)]
pub(crate) struct ConfigValidate {
    /// The file; what lies in plugin.d beside it is read too.
    pub file: PathBuf,
    /// Who reads the file; guessed from its name and content otherwise.
    #[arg(long, value_name = "ROLE")]
    pub role: Option<Role>,
    /// One JSON document.
    #[arg(short = 'j', long)]
    pub json: bool,
}

/// `choria config explain`.
#[derive(Debug, Args)]
pub(crate) struct ConfigExplain {
    /// The setting, or a part of its name.
    pub key: String,
    /// A JSON list.
    #[arg(short = 'j', long)]
    pub json: bool,
}

/// `choria tool provision`.
#[derive(Debug, Args)]
pub(crate) struct ProvisionArgs {
    /// Provisioning token instead of the one that this program was built to look for; the variable
    /// CHORIA_PROVISIONING_JWT does the same.
    #[arg(long, value_name = "FILE")]
    pub provisioning_jwt: Option<PathBuf>,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}

/// `choria man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// A command, to print its page; or a directory (with a / in its name), to write the pages of all commands to.
    #[arg(value_name = "COMMAND|DIR")]
    pub what: Vec<String>,
}
