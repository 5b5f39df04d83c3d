//! The audit log: one line of JSON per authorized request (spec 03 §8.5).

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use choria_protocol::json;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::unistd::{Group, chown};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::agent::Call;

/// The agent whose inputs hold secrets (spec 03 §7).
const PROVISIONING_AGENT: &str = "choria_provision";
/// Inputs of it that are secrets; the agent takes their names in any letter case.
const SECRET_INPUTS: [&str; 3] = ["token", "key", "server_jwt"];

/// Where and how the log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// `plugin.rpcaudit.logfile`
    pub path: PathBuf,
    /// `plugin.rpcaudit.logfile.mode`, for a new file, subject to the umask.
    pub mode: u32,
    /// `plugin.rpcaudit.logfile.group`
    pub group: Option<String>,
}

/// The log. The file is opened for each line, so it may be moved away at any time.
#[derive(Debug, Clone)]
pub struct AuditLog {
    settings: AuditSettings,
}

/// Why a line was not written. The request goes on all the same.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened or written.
    #[error("could not write audit log {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The group does not exist or cannot be set.
    #[error("could not give audit log {path} to group {group}: {detail}")]
    Group {
        /// The file.
        path: PathBuf,
        /// The group.
        group: String,
        /// Why.
        detail: String,
    },
}

/// A line, in the order of its keys.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    request_id: &'a str,
    request_time: i64,
    caller: &'a str,
    sender: &'a str,
    agent: &'a str,
    action: &'a str,
    data: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<&'a str>,
}

impl AuditLog {
    /// A log with these settings.
    pub fn new(settings: AuditSettings) -> Self {
        Self { settings }
    }

    /// Writes down that a call is about to run.
    ///
    /// # Errors
    /// [`AuditError`], for the log.
    pub fn record(&self, call: &Call, now: Timestamp) -> Result<(), AuditError> {
        self.append(&self.settings.path, &line(call, now, None))
    }

    /// Writes down that a call was refused and why, in a file of its own beside the log, `<logfile>.denied`: readers of the
    /// audit log take every line for a call that ran. The original keeps nothing (spec 03 §17 row 34).
    ///
    /// # Errors
    /// [`AuditError`], for the log.
    pub fn record_denied(&self, call: &Call, reason: &str, now: Timestamp) -> Result<(), AuditError> {
        let mut name = self.settings.path.clone().into_os_string();
        name.push(".denied");
        self.append(Path::new(&name), &line(call, now, Some(reason)))
    }

    fn append(&self, path: &Path, line: &str) -> Result<(), AuditError> {
        let failed = |source| AuditError::Write { path: path.to_owned(), source };
        let mut file: File =
            OpenOptions::new().append(true).create(true).mode(self.settings.mode).open(path).map_err(failed)?;
        if let Some(group) = &self.settings.group {
            give_to_group(path, group)?;
        }
        // One write per line keeps lines of several processes apart.
        file.write_all(line.as_bytes()).map_err(failed)
    }
}

fn line(call: &Call, now: Timestamp, denied: Option<&str>) -> String {
    let context = &call.context;
    let line = Line {
        timestamp: now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.6f%z").to_string(),
        request_id: &context.request_id,
        request_time: context.time,
        caller: &context.caller,
        sender: &context.sender,
        agent: &context.agent,
        action: &call.action,
        data: &redacted(call),
        denied,
    };
    let mut text = json::to_string(&line).expect("a line holds only text, numbers and JSON");
    text.push('\n');
    text
}

/// The inputs without what must not be kept: whoever may read the log would otherwise hold the provisioning token, with which
/// nodes can be reprovisioned, and keys on their way to a node. The original writes them out.
fn redacted(call: &Call) -> Cow<'_, Map<String, Value>> {
    let secret = |name: &str| SECRET_INPUTS.iter().any(|input| input.eq_ignore_ascii_case(name));
    if call.context.agent != PROVISIONING_AGENT || !call.data.keys().any(|name| secret(name)) {
        return Cow::Borrowed(&call.data);
    }
    let mut data = call.data.clone();
    data.iter_mut().filter(|(name, _)| secret(name)).for_each(|(_, value)| *value = Value::from("*****"));
    Cow::Owned(data)
}

fn give_to_group(path: &Path, group: &str) -> Result<(), AuditError> {
    let failed = |detail: String| AuditError::Group { path: path.to_owned(), group: group.to_owned(), detail };
    match Group::from_name(group) {
        Ok(Some(found)) => chown(path, None, Some(found.gid)).map_err(|error| failed(error.to_string())),
        Ok(None) => Err(failed("no such group".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;
    use crate::agent::CallContext;

    fn call() -> Call {
        Call {
            action: "get_fact".to_owned(),
            data: Map::from_iter([("fact".to_owned(), json!("os.family"))]),
            context: CallContext {
                request_id: "6ee38d45b3b34147841c5b48481bdad0".to_owned(),
                sender: "tester.mcollective".to_owned(),
                caller: "choria=tester.mcollective".to_owned(),
                collective: "mcollective".to_owned(),
                agent: "rpcutil".to_owned(),
                ttl: 60,
                time: 1_795_170_647,
            },
        }
    }

    fn log(path: PathBuf) -> AuditLog {
        AuditLog::new(AuditSettings { path, mode: 0o640, group: None })
    }

    #[test]
    fn a_line_is_the_recorded_one() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/server/audit-log.jsonl");
        let golden = std::fs::read_to_string(golden).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let now: Timestamp = "2026-11-20T10:30:47.029297Z".parse().unwrap();
        log(path.clone()).record(&call(), now).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), golden.trim());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
    }

    #[test]
    fn provisioning_secrets_are_not_kept() {
        let mut call = call();
        call.context.agent = "choria_provision".to_owned();
        call.data = Map::from_iter([("Token".to_owned(), json!("s3cret")), ("splay".to_owned(), json!(1))]);
        let text = line(&call, Timestamp::UNIX_EPOCH, None);
        assert!(text.contains(r#""data":{"Token":"*****","splay":1}"#), "{text}");
        call.context.agent = "other".to_owned();
        assert!(line(&call, Timestamp::UNIX_EPOCH, None).contains("s3cret"));
    }

    #[test]
    fn refused_calls_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        log(path.clone()).record_denied(&call(), "no policy", Timestamp::UNIX_EPOCH).unwrap();
        assert!(!path.exists());
        let text = std::fs::read_to_string(dir.path().join("audit.log.denied")).unwrap();
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["denied"], "no policy");
        assert_eq!(line["timestamp"], "1970-01-01T00:00:00.000000+0000");
    }

    #[test]
    fn a_log_that_cannot_be_written_is_named() {
        let error = log(PathBuf::from("/nonexistent/audit.log")).record(&call(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/audit.log"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let settings = AuditSettings {
            path: dir.path().join("audit.log"),
            mode: 0o600,
            group: Some("no-such-group-here".to_owned()),
        };
        let error = AuditLog::new(settings).record(&call(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("no-such-group-here"), "{error}");
    }
}
