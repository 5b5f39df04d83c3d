//! The parts that every lab has: broker and provisioner.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::layout::{Layout, PROVISIONER};
use super::parts::{Part, Parts, Start};
use crate::exit::Failure;

/// How long the broker may take to accept connections.
pub(crate) const BROKER_START: Duration = Duration::from_secs(20);

/// Longest answer that is read from a statistics port.
const MAX_PAGE: u64 = 4 * 1024 * 1024;

/// Starts the broker. It must be the first of the parts.
pub(crate) fn broker(layout: &Layout) -> Result<Part, Failure> {
    Part::start(&Start {
        name: "broker",
        arguments: &["broker", "run", "--config", "broker.conf", "--pid", "broker.pid"],
        directory: &layout.path("broker"),
        log: "broker.log",
        variables: &[],
        answers: false,
    })
}

/// Starts the provisioner. It must be the second of the parts.
pub(crate) fn provisioner(layout: &Layout) -> Result<Part, Failure> {
    let arguments = [
        "provisioner",
        "run",
        "--config",
        "provisioner.yaml",
        "--choria-config",
        "choria.conf",
        "--pid",
        "provisioner.pid",
    ];
    Part::start(&Start {
        name: "provisioner",
        arguments: &arguments,
        directory: &layout.path("provisioner"),
        log: "provisioner.log",
        variables: &[("MCOLLECTIVE_CERTNAME", PROVISIONER)],
        answers: false,
    })
}

/// Waits until the broker accepts clients, which it does once it answers on its statistics port. Knocking at the client
/// port itself would show up as a refused connection in its log.
pub(crate) async fn wait_for_broker(
    layout: &Layout,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let deadline = Instant::now() + BROKER_START;
    loop {
        parts.check()?;
        if page(layout.ports.statistics, "/healthz").is_ok() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let failure = parts.0.first().map(|broker| broker.explain("does not accept connections"));
            return Err(failure.unwrap_or_else(|| Failure::new("the broker was not started")));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            () = shutdown.cancelled() => return Err(Failure::new("interrupted")),
        }
    }
}

/// A page of a statistics port on this machine, its HTTP head included.
pub(crate) fn page(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.take(MAX_PAGE).read_to_string(&mut text)?;
    if text.starts_with("HTTP/1.") { Ok(text) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}
