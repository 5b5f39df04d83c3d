//! Files that tell others about the running program: process id and open ports (spec 07 §23).

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} {path}: {source}")]
pub(crate) struct FileError {
    what: &'static str,
    path: String,
    source: std::io::Error,
}

/// Writes the process id: decimal, no line end, because readers do not trim. The file stays after the end.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_pid(path: &Path) -> Result<(), FileError> {
    write_whole(path, std::process::id().to_string().as_bytes()).map_err(|source| FileError {
        what: "the pid file",
        path: path.display().to_string(),
        source,
    })
}

/// What a ports file lists: addresses as URLs, loopback in place of "every address".
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Ports {
    /// Clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nats: Vec<String>,
    /// Monitoring.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) monitoring: Vec<String>,
    /// WebSocket clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) websocket: Vec<String>,
}

/// An address as others on this machine reach it.
pub(crate) fn url(scheme: &str, mut addr: SocketAddr) -> String {
    if addr.ip().is_unspecified() {
        let loopback = match addr {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        addr.set_ip(loopback);
    }
    format!("{scheme}://{addr}")
}

/// A written ports file; removed when it is dropped, which a clean end does.
#[derive(Debug)]
pub(crate) struct PortsFile {
    path: PathBuf,
}

impl PortsFile {
    /// Writes `<dir>/nats-server_<pid>.ports`. Whoever started the program knows the pid and waits for this name,
    /// so it is the same for every name of the program.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(dir: &Path, ports: &Ports) -> Result<Self, FileError> {
        let path = dir.join(format!("nats-server_{}.ports", std::process::id()));
        let text = serde_json::to_vec(ports).unwrap_or_default();
        write_whole(&path, &text).map_err(|source| FileError {
            what: "the ports file",
            path: path.display().to_string(),
            source,
        })?;
        Ok(Self { path })
    }
}

impl Drop for PortsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Readers that poll see nothing or everything.
fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let staged = path.with_file_name(name);
    let mut file = std::fs::File::create(&staged)?;
    file.write_all(content)?;
    drop(file);
    std::fs::rename(&staged, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&staged);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_their_readers_expect() {
        let dir = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        write_pid(&dir.path().join("pid")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("pid")).unwrap(), pid.to_string());
        let ports = Ports {
            nats: vec![url("nats", "0.0.0.0:4222".parse().unwrap())],
            monitoring: vec![url("http", "[::]:8222".parse().unwrap())],
            websocket: Vec::new(),
        };
        let file = PortsFile::write(dir.path(), &ports).unwrap();
        let path = dir.path().join(format!("nats-server_{pid}.ports"));
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            r#"{"nats":["nats://127.0.0.1:4222"],"monitoring":["http://[::1]:8222"]}"#
        );
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = PortsFile::write(&dir.path().join("none"), &ports).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the ports file "), "{error}");
    }
}
