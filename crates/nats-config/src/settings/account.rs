//! Accounts: what they hold, export, import and map.

use std::time::Duration;

use super::{AccountJetStream, Limit, Permissions, User};
use crate::{Located, Position};

/// One entry of `accounts` (spec 07 §8).
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Its name.
    pub name: Located<String>,
    /// `users`
    pub users: Vec<User>,
    /// `nkey`: public key of the account (`A…`).
    pub nkey: Option<Located<String>>,
    /// `jetstream`
    pub jetstream: Option<Located<AccountJetStream>>,
    /// `exports`
    pub exports: Vec<Export>,
    /// `imports`
    pub imports: Vec<Import>,
    /// `mappings`
    pub mappings: Vec<Mapping>,
    /// `limits`
    pub limits: AccountLimits,
    /// `default_permissions` of its users without permissions of their own.
    pub default_permissions: Option<Permissions>,
    /// `msg_trace`
    pub msg_trace: Option<Located<MessageTrace>>,
}

/// `limits` of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// `max_connections` or `max_conn`
    pub max_connections: Option<Located<Limit>>,
    /// `max_subscriptions` or `max_subs`
    pub max_subscriptions: Option<Located<Limit>>,
    /// `max_payload` in bytes
    pub max_payload: Option<Located<Limit>>,
    /// `max_leafnodes`; kept, this broker has no leaf nodes.
    pub max_leafnodes: Option<Located<Limit>>,
}

/// Something that other accounts may import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Where the entry begins.
    pub at: Position,
    /// What is exported.
    pub kind: ExportKind,
    /// Filter of the subjects.
    pub subject: Located<String>,
    /// Accounts that may import; `None` = all.
    pub accounts: Option<Vec<Located<String>>>,
    /// `account_token_position`: token of the subject, from 1, that must be the importing account's name.
    pub account_token_position: Option<Located<u64>>,
}

/// What is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportKind {
    /// `stream`: messages published here.
    Stream,
    /// `service`: requests answered here.
    Service {
        /// `response_type`; `None` = the usual one, single.
        response: Option<ResponseType>,
        /// `response_threshold`: how long answers are taken.
        threshold: Option<Located<Duration>>,
        /// `latency`
        latency: Option<Located<Latency>>,
        /// `allow_trace`: traces go on here.
        allow_trace: bool,
    },
}

/// How many answers a request may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseType {
    /// One.
    Singleton,
    /// Any number.
    Stream,
    /// One in pieces.
    Chunked,
}

/// Reports of how long a service took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    /// Which requests are measured.
    pub sampling: Sampling,
    /// Subject of the reports.
    pub subject: Located<String>,
}

/// Which requests of a service are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// So many of a hundred, 1 to 100.
    Percent(u8),
    /// Those whose headers ask for it.
    Headers,
}

/// Something taken from another account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Where the entry begins.
    pub at: Position,
    /// What is imported.
    pub kind: ImportKind,
    /// The exporting account.
    pub account: Located<String>,
    /// Subject there.
    pub subject: Located<String>,
    /// `to`, or `prefix` and the subject put together; `None` = the same subject.
    pub to: Option<Located<String>>,
}

/// What is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    /// `stream`: messages published there.
    Stream {
        /// `allow_trace`: traces go on here.
        allow_trace: bool,
    },
    /// `service`: requests answered there.
    Service {
        /// `share`: the responder is told who asks.
        share: bool,
    },
}

/// A replacement of published subjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Filter of the published subjects.
    pub source: Located<String>,
    /// What they become.
    pub destinations: Vec<Destination>,
}

/// One possible outcome of a [`Mapping`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The subject.
    pub subject: Located<String>,
    /// Percent of the messages, 1 to 100.
    pub weight: u8,
    /// `cluster`: only in the cluster of this name.
    pub cluster: Option<Located<String>>,
}

/// `msg_trace` of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageTrace {
    /// `dest`: subject of the trace events.
    pub destination: Located<String>,
    /// `sampling` in percent, 1 to 100.
    pub sampling: u8,
}
