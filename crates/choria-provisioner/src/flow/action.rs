//! The calls of the flow: names, tries and waits (spec 04 §6.1).

use std::time::Duration;

/// One action of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Fetches the provisioning token and the node's key exchange key.
    Jwt,
    /// Fetches facts and what else is known about the node.
    Inventory,
    /// Makes the node make a key and a certificate request.
    GenCsr,
    /// Hands over the configuration.
    Configure,
    /// Makes the node restart with it.
    Restart,
    /// Makes the node end.
    Shutdown,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 6] =
        [Self::Jwt, Self::Inventory, Self::GenCsr, Self::Configure, Self::Restart, Self::Shutdown];

    /// The agent that has the action.
    pub fn agent(self) -> &'static str {
        match self {
            Self::Inventory => "rpcutil",
            _ => "choria_provision",
        }
    }

    /// The action's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Inventory => "inventory",
            Self::GenCsr => "gencsr",
            Self::Configure => "configure",
            Self::Restart => "restart",
            Self::Shutdown => "shutdown",
        }
    }

    /// `agent#action`, the value of label `rpc`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Jwt => "choria_provision#jwt",
            Self::Inventory => "rpcutil#inventory",
            Self::GenCsr => "choria_provision#gencsr",
            Self::Configure => "choria_provision#configure",
            Self::Restart => "choria_provision#restart",
            Self::Shutdown => "choria_provision#shutdown",
        }
    }

    /// How often the action is tried before the attempt fails.
    pub fn tries(self) -> u32 {
        match self {
            Self::Jwt | Self::Restart | Self::Shutdown => 3,
            Self::Inventory | Self::Configure => 5,
            Self::GenCsr => 1,
        }
    }

    /// How long one try waits for the answer: the agent's timeout and the discovery timeout of 2 s.
    pub fn wait(self) -> Duration {
        match self {
            Self::Inventory => Duration::from_secs(4),
            _ => Duration::from_secs(22),
        }
    }

    /// Whether the request is the same for every node, so that one signature serves many.
    pub fn is_same_for_all(self) -> bool {
        matches!(self, Self::Jwt | Self::Inventory | Self::Restart | Self::Shutdown)
    }

    /// Whether breaking off here leaves the node as it was found. From `configure` on it does not.
    pub fn may_be_broken_off(self) -> bool {
        matches!(self, Self::Jwt | Self::Inventory | Self::GenCsr)
    }

    /// The text that the reference puts before a failure of this action.
    pub(super) fn failed(self, cause: &str) -> String {
        match self {
            // The reference spells the agent differently here and repeats itself for configure.
            Self::Inventory => format!("rpc_util#inventory failed: {cause}"),
            Self::Configure => format!("configuration failed: choria_provision#configure failed: {cause}"),
            _ => format!("{} failed: {cause}", self.label()),
        }
    }
}
