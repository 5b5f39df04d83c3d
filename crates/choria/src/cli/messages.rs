//! Flags of the commands that show and send single messages: `choria tool sub|pub`, also as `choria broker sub|pub`
//! (spec 05 §7.4, §10.1).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct SubArgs {
    /// Subject to listen to; * and > are wildcards.
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Only the bodies, one per line and byte by byte; on a terminal what could harm it is escaped.
    #[arg(short = 'r', long)]
    pub raw: bool,
    /// One JSON document per line.
    #[arg(short = 'j', long, conflicts_with = "raw")]
    pub json: bool,
    /// Share the messages with everybody who listens in this queue group.
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<String>,
    /// Stop after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Longest time to wait for a connection to a broker.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "5s")]
    pub connect_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct PubArgs {
    /// Subject to publish to.
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// The message; read from --input or stdin when it is not given.
    #[arg(value_name = "BODY", conflicts_with = "input")]
    pub body: Option<String>,
    /// File with the message; - reads stdin.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Accepted for older scripts: stdin is read whenever no message is given.
    #[arg(long, hide = true)]
    pub force_stdin: bool,
    /// Longest time to wait for a connection to a broker.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "5s")]
    pub connect_timeout: Duration,
}
