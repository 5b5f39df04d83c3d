//! What a broker lets the program do once it is connected. Asked with subjects of the right form that nobody listens to.

use choria_connector::{Probe, Right, Target};
use choria_protocol::{ids, subjects};
use serde::Deserialize;

use super::finding::Findings;

/// A node and an agent that do not exist: nobody hears what is published to them.
const NOBODY: &str = "choria-doctor-asks-for-nobody";

/// Where a NATS broker tells a connection who it is.
const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// What whoever asks the fleet needs.
pub(super) fn caller(collectives: &[String], main: &str, caller_id: &str) -> Vec<Right> {
    let mut rights = vec![Right::Subscribe(subjects::reply(main, caller_id, &ids::request_id()))];
    for collective in collectives {
        rights.push(Right::Publish(subjects::broadcast_agent(collective, NOBODY)));
        rights.push(Right::Publish(subjects::node(collective, NOBODY)));
    }
    rights
}

/// What a node needs to hear requests and to answer them.
pub(super) fn node(collectives: &[String], identity: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for collective in collectives {
        rights.push(Right::Subscribe(subjects::node(collective, identity)));
        rights.push(Right::Subscribe(subjects::broadcast_agent(collective, choria_protocol::rpc::DISCOVERY_AGENT)));
        rights.push(Right::Publish(subjects::reply(collective, NOBODY, &ids::request_id())));
    }
    rights
}

/// What a provisioner needs: to hear nodes announce themselves, to ask them, to hear their answers.
pub(super) fn provisioner(component: &str, caller_id: &str) -> Vec<Right> {
    let collective = subjects::PROVISIONING_COLLECTIVE;
    vec![
        Right::Subscribe(subjects::lifecycle("*", component)),
        Right::Subscribe(subjects::reply(collective, caller_id, &ids::request_id())),
        Right::Publish(subjects::node(collective, NOBODY)),
    ]
}

/// Asks for each right and tells what came back.
pub(super) async fn check(findings: &mut Findings, target: &Target, probe: &mut Probe, rights: &[Right]) {
    for right in rights {
        let (id, subject) = match right {
            Right::Subscribe(subject) => ("rights.subscribe", subject),
            Right::Publish(subject) => ("rights.publish", subject),
        };
        match probe.ask(right).await {
            Ok(None) => findings.ok(id, subject, format!("granted by {target}")),
            Ok(Some(words)) => {
                let advice = "the broker's configuration limits this connection: see \
                 plugin.choria.network.client_hosts and plugin.choria.network.deny_server_connections there";
                findings.failed(id, subject, format!("{target} says {words}"), advice);
            }
            Err(failure) => {
                findings.failed(id, subject, failure, "see the broker's log for the reason");
                return;
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct UserInfo {
    data: UserData,
}

#[derive(Debug, Deserialize)]
struct UserData {
    #[serde(default)]
    account: String,
}

/// The account that the connection is in, where the broker tells.
pub(super) async fn account(probe: &mut Probe, inbox_prefix: &str) -> Option<String> {
    let inbox = format!("{inbox_prefix}.{}", ids::request_id());
    let answer = probe.request(USER_INFO, &inbox).await.ok()??;
    let info: UserInfo = serde_json::from_slice(&answer).ok()?;
    Some(info.data.account).filter(|account| !account.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_hears_what_is_asked_for() {
        let collectives = ["mcollective".to_owned(), "emea".to_owned()];
        let publish = |rights: Vec<Right>| {
            rights.into_iter().filter_map(|right| match right {
                Right::Publish(subject) => Some(subject),
                Right::Subscribe(_) => None,
            })
        };
        let asked: Vec<String> = publish(caller(&collectives, "mcollective", "choria=a.mcollective"))
            .chain(publish(provisioner("provision_mode_server", "choria=p.mcollective")))
            .collect();
        assert_eq!(asked.len(), 5);
        assert!(asked.iter().all(|subject| subject.ends_with(NOBODY)), "{asked:?}");
        let replies: Vec<String> = publish(node(&collectives, "n1")).collect();
        assert!(replies.iter().all(|subject| subject.contains(&subjects::caller_hash(NOBODY))), "{replies:?}");
    }

    #[test]
    fn the_account_is_read_from_the_answer_of_a_nats_broker() {
        let answer = r#"{"server":{"name":"b"},"data":{"user":"provisioner","account":"provisioning"}}"#;
        assert_eq!(serde_json::from_str::<UserInfo>(answer).unwrap().data.account, "provisioning");
    }
}
