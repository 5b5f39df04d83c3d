//! Flags of the commands that ask the fleet: ping, req, discover.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::existing_file;
use crate::values::{pair, whole_number};

/// Filters: which nodes answer. All of them are sent with the request and checked by each node itself.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct FilterArgs {
    /// Nodes with this fact: country=mt, os.release.major>=9, name=/web/.
    #[arg(short = 'F', long = "wf", visible_alias = "with-fact", value_name = "FACT")]
    pub facts: Vec<String>,
    /// Nodes with this class, or a class that matches /regex/.
    #[arg(short = 'C', long = "wc", visible_alias = "with-class", value_name = "CLASS")]
    pub classes: Vec<String>,
    /// Nodes with this agent, or an agent that matches /regex/.
    #[arg(short = 'A', long = "wa", visible_alias = "with-agent", value_name = "AGENT")]
    pub agents: Vec<String>,
    /// Nodes of this identity, or whose identity matches /regex/.
    #[arg(short = 'I', long = "wi", visible_alias = "with-identity", value_name = "IDENTITY")]
    pub identities: Vec<String>,
    /// Facts and classes in one text, separated by blanks.
    #[arg(short = 'W', long = "with", value_name = "FILTER")]
    pub combined: Vec<String>,
    /// Nodes for which this expression is true.
    #[arg(short = 'S', long = "select", value_name = "EXPR")]
    pub select: Option<String>,
    /// Sub collective to ask.
    #[arg(short = 'T', long = "target", value_name = "COLLECTIVE")]
    pub target: Option<String>,
    /// Options of the discovery method.
    #[arg(long = "do", value_name = "KEY=VALUE", value_parser = pair)]
    pub discovery_options: Vec<(String, String)>,
}

/// How the nodes are found.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Discovery")]
pub(crate) struct SelectionArgs {
    /// Ask exactly the nodes in this file (.json, .yaml, anything else: one per line); - reads stdin.
    #[arg(long, value_name = "FILE", value_parser = node_file)]
    pub nodes: Option<PathBuf>,
    /// How nodes are found.
    #[arg(long = "dm", value_name = "METHOD")]
    pub method: Option<Method>,
    /// Seconds to wait for nodes to show themselves.
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    pub discovery_timeout: Option<i64>,
    /// Stop 300 ms after the last node showed itself.
    #[arg(long)]
    pub discovery_window: bool,
}

/// Discovery methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    // Ask the network.
    #[value(alias = "broadcast")]
    Mc,
    // Read a file, named with --do file=FILE.
    #[value(alias = "file")]
    Flatfile,
}

/// Connection settings of all fleet commands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Configuration file instead of the user's or the system's.
    #[arg(long, value_name = "FILE", value_parser = existing_file)]
    pub config: Option<PathBuf>,
    /// Longest time to wait for a connection to a broker.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "5s")]
    pub connect_timeout: std::time::Duration,
    /// Accepted for older scripts: one connection does the work of all.
    #[arg(long, value_name = "N", value_parser = workers, hide = true)]
    pub workers: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Show the statistics only.
    #[arg(long, overrides_with = "no_silent")]
    pub silent: bool,
    #[arg(long, hide = true, overrides_with = "silent")]
    pub no_silent: bool,
    /// Show the identities only.
    #[arg(long)]
    pub names: bool,
    /// Show one JSON document.
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Stop as soon as this many nodes answered; fewer make the exit status 2.
    #[arg(long, value_name = "N", value_parser = whole_number)]
    pub expect: Option<i64>,
    /// Seconds to wait for answers.
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    pub timeout: Option<i64>,
    /// Draw how many answers came when.
    #[arg(long)]
    pub graph: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Which replies are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Display {
    // Those that worked.
    Ok,
    // Those that failed.
    Failed,
    // All of them.
    All,
    // None.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct ReqArgs {
    /// The agent to ask.
    pub agent: String,
    /// What it shall do.
    pub action: String,
    /// Inputs of the action.
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    pub inputs: Vec<(String, String)>,
    /// Ask at most this many nodes: 3 or 10%.
    #[arg(long, value_name = "LIMIT")]
    pub limit: Option<String>,
    /// Choose the same nodes again when rpclimitmethod is random.
    #[arg(long, value_name = "SEED", value_parser = whole_number)]
    pub limit_seed: Option<i64>,
    /// Ask this many nodes at a time.
    #[arg(long, value_name = "N", value_parser = whole_number)]
    pub batch: Option<i64>,
    /// Seconds between batches.
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    pub batch_sleep: Option<i64>,
    /// Seconds that the action may take, instead of what its DDL says.
    #[arg(long, value_name = "SECONDS", value_parser = whole_number)]
    pub timeout: Option<i64>,
    /// Have the replies sent to this subject, and print the request id.
    #[arg(short = 'r', long, value_name = "SUBJECT")]
    pub reply_to: Option<String>,
    /// Accepted for older scripts: no replies are awaited with --reply-to.
    #[arg(long, hide = true)]
    pub nr: bool,
    /// Exit with 0 also when replies failed or stayed out.
    #[arg(long)]
    pub exit_zero: bool,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// How replies are shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// One JSON document.
    #[arg(short = 'j', long)]
    pub json: bool,
    /// One JSON document per line, as things happen.
    #[arg(long, conflicts_with = "json")]
    pub jsonl: bool,
    /// A table of the replies that worked.
    #[arg(long)]
    pub table: bool,
    /// The identities of the nodes where it worked.
    #[arg(long)]
    pub senders: bool,
    /// Which replies are shown; the action's DDL decides otherwise.
    #[arg(long, value_name = "WHICH")]
    pub display: Option<Display>,
    /// Order replies by identity.
    #[arg(long)]
    pub sort: bool,
    /// Keep only replies for which this expression is true: ok() && data("version") == "1".
    #[arg(long, value_name = "EXPR")]
    pub filter_replies: Option<String>,
    /// Write the replies to a file.
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output_file: Option<PathBuf>,
    /// Show replies as they are, and all figures.
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// No progress bar.
    #[arg(long)]
    pub np: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// A JSON list.
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Tell how many were found and how long it took.
    #[arg(short = 'v', long)]
    pub verbose: bool,
    #[arg(long, hide = true)]
    pub silent: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

fn workers(text: &str) -> Result<i64, String> {
    match whole_number(text)? {
        count if count > 0 => Ok(count),
        _ => Err("receivers should be more than 1".to_owned()),
    }
}

fn node_file(text: &str) -> Result<PathBuf, String> {
    if text == "-" { Ok(PathBuf::from(text)) } else { existing_file(text) }
}
