//! Users, and what they may do.

use std::fmt;

use super::Span;
use crate::{Located, Position};

/// A password or token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Not for logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// The block `authorization` (spec 07 §7). It has one user, or one token, or a list of users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorization {
    /// `user` or `username`
    pub user: Option<Located<String>>,
    /// `password` or `pass`: plain, or a bcrypt hash.
    pub password: Option<Located<Secret>>,
    /// `token`: plain, or a bcrypt hash.
    pub token: Option<Located<Secret>>,
    /// `timeout` from connecting to CONNECT. Zero = the usual one.
    pub timeout: Option<Located<Span>>,
    /// `users`
    pub users: Vec<User>,
    /// `default_permissions` of users without permissions of their own.
    pub default_permissions: Option<Permissions>,
}

/// A user of `authorization` or of an account: a name with a password, or a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Where the entry begins.
    pub at: Position,
    /// `user` or `username`; absent when there is `nkey`.
    pub user: Option<Located<String>>,
    /// `password` or `pass`: plain, or a bcrypt hash. Always there when `user` is, but for users that a TLS certificate
    /// names (`verify_and_map`).
    pub password: Option<Located<Secret>>,
    /// `nkey`: public key of a user (`U…`).
    pub nkey: Option<Located<String>>,
    /// `permissions`; `None` = the `default_permissions` of the block.
    pub permissions: Option<Permissions>,
    /// `allowed_connection_types`, in capitals as `STANDARD`, `WEBSOCKET`; empty = all.
    pub allowed_connection_types: Vec<Located<String>>,
}

/// What a user may publish and subscribe (spec 07 §7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// `publish`
    pub publish: SubjectLists,
    /// `subscribe`; entries may be `subject queue`.
    pub subscribe: SubjectLists,
    /// `allow_responses`
    pub responses: Option<Responses>,
}

/// The lists of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubjectLists {
    /// What is allowed; `None` = everything, an empty list = nothing. (The reference takes an empty list for everything.)
    pub allow: Option<Vec<Located<String>>>,
    /// What is denied; wins.
    pub deny: Vec<Located<String>>,
}

/// Leave to answer requests on their reply subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Responses {
    /// Answers per request; `None` = the usual number, 1; negative = no limit.
    pub max: Option<Located<i64>>,
    /// How long; `None` = the usual time, 2 min; negative = no limit.
    pub expires: Option<Located<Span>>,
}
