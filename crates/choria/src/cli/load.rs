//! Flags of the loads of `choria bench` that any NATS server can be given.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

/// The server, and the way in.
#[derive(Debug, Args)]
pub(crate) struct LoadServer {
    /// Address of the server.
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    pub server: String,
    /// The server's process on this machine: measures its processor time and memory, too.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Speak TLS, with a server whose certificate is from an authority in this file.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show.
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    pub cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// User to log in as.
    #[arg(long, value_name = "NAME", requires = "password")]
    pub user: Option<String>,
    /// Password of the user.
    #[arg(long, value_name = "PASSWORD", requires = "user")]
    pub password: Option<String>,
    /// Token to log in with.
    #[arg(long, value_name = "TOKEN", conflicts_with = "user")]
    pub token: Option<String>,
    /// Longest time for a connection, and between two messages.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "10s")]
    pub timeout: Duration,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchPubsub {
    /// Messages.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub messages: u64,
    /// Bytes of each.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Subjects that the messages go round.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub subjects: usize,
    /// A subscription for each subject in place of one for all.
    #[arg(long, action = ArgAction::SetTrue)]
    pub subscribe_each: bool,
    #[command(flatten)]
    pub server: LoadServer,
}

#[derive(Debug, Args)]
pub(crate) struct BenchFanout {
    /// Connections that each get every message.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub subscribers: usize,
    /// Messages that are published.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub messages: u64,
    /// Bytes of each.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    #[command(flatten)]
    pub server: LoadServer,
}

#[derive(Debug, Args)]
pub(crate) struct BenchStorm {
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub publishers: usize,
    /// Messages of all of them together.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub messages: u64,
    /// Bytes of each.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    #[command(flatten)]
    pub server: LoadServer,
}

#[derive(Debug, Args)]
pub(crate) struct BenchRequest {
    /// Pairs of connections, one that asks and one that answers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub pairs: usize,
    /// Requests of each pair, one after the other.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub requests: u64,
    /// Bytes of a request and of an answer.
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    pub size: usize,
    /// Pause of a pair before its next request.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "0s")]
    pub pause: Duration,
    #[command(flatten)]
    pub server: LoadServer,
}

#[derive(Debug, Args)]
pub(crate) struct BenchConnections {
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub connections: usize,
    /// Subscriptions of each; a Choria server has 13.
    #[arg(long, value_name = "N", default_value_t = 13)]
    pub subscriptions: usize,
    /// How long they are held before memory is measured.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "2s")]
    pub hold: Duration,
    #[command(flatten)]
    pub server: LoadServer,
}
