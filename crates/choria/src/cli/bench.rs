//! Flags of `choria emulate` and `choria bench`.

use std::path::PathBuf;
use std::time::Duration;

use choria_security::keys::KeyKind;
use clap::{Args, Subcommand, ValueEnum};

use super::load::{BenchConnections, BenchFanout, BenchPubsub, BenchRequest, BenchStorm};

/// Kinds of keys that nodes make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NodeKey {
    // ECDSA on P-256: what nodes make unless told otherwise.
    P256,
    Ed25519,
    #[value(alias = "rsa")]
    Rsa2048,
}

impl From<NodeKey> for KeyKind {
    fn from(key: NodeKey) -> Self {
        match key {
            NodeKey::P256 => Self::P256,
            NodeKey::Ed25519 => Self::Ed25519,
            NodeKey::Rsa2048 => Self::Rsa2048,
        }
    }
}

/// What the nodes shall be in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    // Connected and announced, not provisioned.
    Waiting,
    // Members of the fleet.
    Members,
}

#[derive(Debug, Args)]
pub(crate) struct EmulateArgs {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: u32,
    /// Directory for a directory per node; nodes that have one go on with what is in it.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Provisioning token: the nodes are blank and wait to be provisioned.
    #[arg(long, value_name = "FILE", required_unless_present = "members")]
    pub provisioning_jwt: Option<PathBuf>,
    /// The nodes come as fleet members, with certificates made here.
    #[arg(long, requires = "ca", requires = "brokers", conflicts_with = "provisioning_jwt")]
    pub members: bool,
    /// Directory of the certificate authority that makes the members' certificates.
    #[arg(long, value_name = "DIR")]
    pub ca: Option<PathBuf>,
    /// Broker of the members.
    #[arg(long = "broker", value_name = "HOST:PORT")]
    pub brokers: Vec<String>,
    /// Collective that the members join.
    #[arg(long = "collective", value_name = "NAME")]
    pub collectives: Vec<String>,
    /// Kind of the keys that the nodes make.
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub key: NodeKey,
    /// Identities, with {} in place of the number.
    #[arg(long, value_name = "PATTERN", default_value = "node{}.emulated")]
    pub names: String,
    /// Nodes started per second; as fast as --starting lets them otherwise.
    #[arg(long, value_name = "PER-SECOND")]
    pub rate: Option<f64>,
    /// Nodes on the way to their first connection at the same time; 0 sets no bound.
    #[arg(long, value_name = "N", default_value_t = choria_emulator::options::STARTING)]
    pub starting: usize,
    /// Threads that the nodes run on; half of the processors otherwise, the others are for what is tried out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// What every node shall be; who is something else at the end is lost.
    #[arg(long, value_name = "STATE", default_value = "members")]
    pub until: Until,
    /// End as soon as every node is that; without it, stay until interrupted.
    #[arg(long)]
    pub once: bool,
    /// Longest time for --once.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "5m")]
    pub timeout: Duration,
    /// One JSON document on stdout at the end.
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Hold every node's times in the document, too.
    #[arg(long, requires = "json")]
    pub samples: bool,
    /// A line of counts on stdout whenever they changed, before the document.
    #[arg(long, hide = true, requires = "json")]
    pub follow: bool,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure how fast blank nodes become fleet members: a broker, a provisioner and emulated nodes on this machine.
    Provisioning(BenchProvisioning),
    /// Measure what connected nodes cost that do nothing: memory and processor time of broker, provisioner and nodes.
    Idle(BenchIdle),
    /// Measure how soon all members of a fleet answer a `choria ping`: a broker and emulated nodes on this machine.
    Ping(BenchPing),
    /// Load a NATS server with messages from one connection to another.
    Pubsub(BenchPubsub),
    /// Load a NATS server with messages from one connection to many.
    Fanout(BenchFanout),
    /// Load a NATS server with messages from many connections to one, as the answers of a fleet come.
    ReplyStorm(BenchStorm),
    /// Load a NATS server with requests and their answers.
    Request(BenchRequest),
    /// Load a NATS server with connections that do nothing.
    Connections(BenchConnections),
}

/// How the provisioner decides about nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchHelper {
    // The provisioner itself, by rules of a file.
    Builtin,
    // One process of --helper-command per node.
    Exec,
    // Long-lived processes of --helper-command.
    Persistent,
}

#[derive(Debug, Args)]
pub(crate) struct BenchProvisioning {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: u32,
    /// Kind of the keys that the nodes make.
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub key: NodeKey,
    /// How the provisioner decides about nodes.
    #[arg(long, value_name = "MODE", default_value = "builtin")]
    pub helper: BenchHelper,
    /// Helper to use in place of the one in this program. {ca}, {broker} and {client} stand for the directory of the
    /// authority, the broker's address and the name of a client.
    #[arg(long, value_name = "COMMAND")]
    pub helper_command: Option<String>,
    /// Processes of a persistent helper.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub helper_processes: u16,
    /// Start the provisioner when all nodes wait; the clock starts with it.
    #[arg(long)]
    pub wait_all_first: bool,
    /// Nodes started per second; as fast as the machine can otherwise.
    #[arg(long, value_name = "PER-SECOND")]
    pub rate: Option<f64>,
    /// Directory for everything that is made; it must be empty or absent. A temporary one otherwise, in memory where there
    /// is room.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Longest time until every node is a member.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration)]
    pub timeout: Option<Duration>,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchPing {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: u32,
    /// Pings, one after the other.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Kind of the nodes' keys.
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub key: NodeKey,
    /// How long the nodes may come to rest before the first ping.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "5s")]
    pub settle: Duration,
    /// Directory for everything that is made; it must be empty or absent. A temporary one otherwise, in memory where there
    /// is room.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Longest time until all are connected.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration)]
    pub timeout: Option<Duration>,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchIdle {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: u32,
    /// Members of the fleet in place of nodes that wait to be provisioned.
    #[arg(long)]
    pub members: bool,
    /// Kind of the keys of members.
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub key: NodeKey,
    /// How long the nodes may come to rest before it is measured.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "5s")]
    pub settle: Duration,
    /// How long they are watched.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration, default_value = "10s")]
    pub hold: Duration,
    /// Directory for everything that is made; it must be empty or absent. A temporary one otherwise, in memory where there
    /// is room.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Longest time until all are connected.
    #[arg(long, value_name = "DURATION", value_parser = crate::values::duration)]
    pub timeout: Option<Duration>,
    /// One JSON document on stdout.
    #[arg(short = 'j', long)]
    pub json: bool,
}
