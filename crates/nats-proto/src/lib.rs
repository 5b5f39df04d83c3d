//! Sans-io NATS client protocol: parser, encoder, INFO and CONNECT, headers, subjects and the subject trie.

use serde::{Deserialize, Serialize};

/// Options of a client's CONNECT (spec 07 §2). Unknown keys are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// Connection name; monitoring, and the identity of unprovisioned Choria servers.
    pub name: String,
    /// Token; Choria puts its JWT here.
    pub auth_token: String,
}
