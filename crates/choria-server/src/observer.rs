//! Told what a server goes through: for programs that host servers and show or measure them.

use std::fmt;
use std::time::Duration;

use choria_protocol::lifecycle::Kind;

use crate::server::Exit;

/// What a server tells of itself while it runs. Called on the server's own task: an implementation notes and returns, it
/// never waits. Every method does nothing unless it is implemented.
pub trait Observer: Send + Sync + 'static {
    /// The connection is up, for the first time or again.
    fn connected(&self) {}

    /// The connection was lost; the server tries to get it back.
    fn disconnected(&self) {}

    /// A lifecycle event was handed to the connection. [`Kind::Startup`] comes when everything is subscribed, and
    /// [`Kind::Provisioned`] once for every configuration that was put into force.
    fn event(&self, kind: &Kind) {
        let _ = kind;
    }

    /// Somebody asked for an end of this kind, which comes after this time.
    fn ending(&self, exit: Exit, after: Duration) {
        let _ = (exit, after);
    }
}

/// Nobody looks.
pub(crate) struct Unobserved;

impl Observer for Unobserved {}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
