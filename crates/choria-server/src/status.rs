//! The status file: state of the server for monitoring (spec 03 §4.1). Replaced as a whole, readers never see half.

use std::path::Path;

use choria_security::atomic::{self, FileError};
use serde::Serialize;

use crate::counters::Stats;

/// Mode of the file: monitoring runs as somebody else.
const MODE: u32 = 0o644;

/// Content of the status file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Name of the node.
    pub identity: String,
    /// Seconds since the start.
    pub uptime: i64,
    /// Broker, as `nats://host:port`; empty while not connected, `unknown` before the first connection.
    pub connected_server: String,
    /// Unix seconds of the last request, 0 before the first.
    pub last_message: i64,
    /// Whether the node waits to be provisioned.
    pub provisioning_mode: bool,
    /// Counters.
    pub stats: Stats,
    /// End of the certificate, RFC 3339; the year 1 where it does not apply.
    pub certificate_expires: String,
    /// End of the server token, likewise.
    pub token_expires: String,
    /// Why there is no connection. Not known to the original; absent while connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_error: Option<String>,
}

impl Status {
    /// Replaces the file at `path`.
    ///
    /// # Errors
    /// The file cannot be written; the old one is still there.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec(self).expect("texts and numbers always serialise");
        atomic::write_file(path, &text, MODE)
    }
}
