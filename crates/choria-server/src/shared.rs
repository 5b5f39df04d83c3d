//! What the servers of one process can have in common. A program that hosts one server need not think of it.

use std::sync::OnceLock;

use choria_rpc::ddl::{Ddl, embedded};

/// Descriptions of the built-in agents, read when the first call needs them: a server that nobody asks never does. Programs
/// that host many servers hand the same one to all of them, see [`ServerBuilder::shared`](crate::ServerBuilder::shared).
#[derive(Debug, Default)]
pub struct Shared {
    rpcutil: OnceLock<Option<Ddl>>,
    choria_util: OnceLock<Option<Ddl>>,
}

impl Shared {
    /// The description of `rpcutil`.
    pub(crate) fn rpcutil(&self) -> Option<&Ddl> {
        self.rpcutil.get_or_init(|| embedded("rpcutil")).as_ref()
    }

    /// The description of `choria_util`.
    pub(crate) fn choria_util(&self) -> Option<&Ddl> {
        self.choria_util.get_or_init(|| embedded("choria_util")).as_ref()
    }
}
