//! The accounts of a Choria broker and what crosses between them (spec 02 §4).
//!
//! ```text
//! provisioning --- choria.lifecycle.> (no reply subject) ----------------------> choria
//! provisioning <-- choria.lifecycle.event.{startup,shutdown}.server (no reply) -- choria
//! provisioning <-- $SYS.ACCOUNT.provisioning.DISCONNECT (no reply) -------------- system
//! ```
//!
//! The second and third row are ours: they let the provisioner see that a node really came home, and that one which waited is
//! not there any more. Unprovisioned nodes may subscribe neither, their permissions name every subject they hear.

use nats_broker::{AccountConfig, StreamExport, StreamImport, SubjectMapping};

use crate::policy::Account;

/// Events of unprovisioned nodes that the fleet sees.
const PROVISIONING_EVENTS: &str = "choria.lifecycle.>";
/// Events of fleet members that the provisioner sees.
const FLEET_EVENTS: [&str; 2] = ["choria.lifecycle.event.startup.server", "choria.lifecycle.event.shutdown.server"];

/// Ends of connections of unprovisioned nodes, as the network broker tells them in the system account.
const ENDS: &str = "$SYS.ACCOUNT.provisioning.DISCONNECT";

/// Accounts `system`, `choria` and, when it is configured, `provisioning`.
///
/// Reply subjects are dropped at both imports: with them whoever publishes an event could make a subscriber of the
/// other account publish to a subject of his choice (spec 02, sharp edge 26).
/// `mappings` are those of account `choria`.
pub(crate) fn accounts(provisioning: bool, mappings: &[SubjectMapping]) -> Vec<AccountConfig> {
    let system = AccountConfig::new(Account::System.name());
    let choria = AccountConfig { mappings: mappings.to_vec(), ..AccountConfig::new(Account::Choria.name()) };
    if !provisioning {
        return vec![system, choria];
    }
    let (fleet, nodes) = (Account::Choria.name(), Account::Provisioning.name());
    let only = |subject: &str, account: &str| StreamExport {
        accounts: Some(vec![account.to_owned()]),
        ..StreamExport::new(subject)
    };
    let mut choria = choria.import(StreamImport::new(nodes, PROVISIONING_EVENTS).drop_reply());
    let mut unprovisioned = AccountConfig::new(nodes).export(only(PROVISIONING_EVENTS, fleet));
    for subject in FLEET_EVENTS {
        choria = choria.export(only(subject, nodes));
        unprovisioned = unprovisioned.import(StreamImport::new(fleet, subject).drop_reply());
    }
    let system = system.export(only(ENDS, nodes));
    unprovisioned = unprovisioned.import(StreamImport::new(Account::System.name(), ENDS).drop_reply());
    vec![system, choria, unprovisioned]
}

#[cfg(test)]
mod tests {
    use nats_broker::Import;

    use super::*;

    #[test]
    fn account_provisioning_exists_only_when_configured() {
        let names = |provisioning| accounts(provisioning, &[]).into_iter().map(|a| a.name).collect::<Vec<_>>();
        assert_eq!(names(false), ["system", "choria"]);
        assert_eq!(names(true), ["system", "choria", "provisioning"]);
    }

    #[test]
    fn design6_every_import_drops_the_reply_subject() {
        let imports: Vec<_> = accounts(true, &[]).into_iter().flat_map(|account| account.imports).collect();
        assert_eq!(imports.len(), 4);
        for import in imports {
            assert!(matches!(&import, Import::Stream(stream) if stream.drop_reply), "{import:?}");
        }
    }
}
