//! What an emulation is made of.

use std::path::PathBuf;
use std::time::Duration;

use choria_security::keys::KeyKind;

/// Nodes that may be on the way to their first connection at the same time, unless told otherwise. Thousands of TLS
/// handshakes at once on a few processors wait for one another until their time is over, and are then done again: machines
/// that boot have a processor each.
pub const STARTING: usize = 100;

/// How the nodes begin.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Blank, with a name and a provisioning token: they wait to be provisioned.
    Waiting {
        /// The token.
        provisioning_jwt: PathBuf,
    },
    /// As members of a fleet that exists.
    Members(Membership),
}

/// What every node shall be in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Connected, announced, and left alone: nothing provisions here.
    Waiting,
    /// A member of the fleet.
    Member,
}

/// What makes members.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Directory of the certificate authority that the fleet trusts, as `choria ca init` makes it.
    pub authority: PathBuf,
    /// Brokers, as `HOST:PORT`.
    pub brokers: Vec<String>,
    /// Collectives to join; `mcollective` when empty.
    pub collectives: Vec<String>,
}

/// An emulation.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// Identities, with `{}` in place of the number, which counts from 1.
    pub names: String,
    /// Directory for a directory per node. Nodes that have one keep what is in it, so that an emulation can go on where
    /// another stopped.
    pub directory: PathBuf,
    /// How they begin.
    pub kind: Kind,
    /// What they shall be; who is something else at the end is lost. Default: members.
    pub goal: Goal,
    /// Kind of the keys they make.
    pub key: KeyKind,
    /// Nodes started per second; all as fast as [`Options::starting`] allows when absent.
    pub rate: Option<f64>,
    /// Nodes that may be on the way to their first connection at the same time; 0 sets no bound. Default [`STARTING`].
    pub starting: usize,
    /// How long nodes may take to say goodbye at the end.
    pub goodbye: Duration,
}

impl Options {
    /// Nodes that wait to be provisioned, with defaults for everything else.
    pub fn new(nodes: usize, directory: impl Into<PathBuf>, kind: Kind) -> Self {
        Self {
            nodes,
            names: "node{}.emulated".to_owned(),
            directory: directory.into(),
            kind,
            goal: Goal::Member,
            key: KeyKind::default(),
            rate: None,
            starting: STARTING,
            goodbye: Duration::from_secs(5),
        }
    }

    /// The identity of node number `index`, which counts from 0.
    pub fn identity(&self, index: usize) -> String {
        self.names.replace("{}", &(index + 1).to_string())
    }

    /// How many files such an emulation has open at the same time, at most: a connection each, and a few while files are
    /// written.
    pub fn open_files(&self) -> u64 {
        self.nodes as u64 + 256
    }
}
