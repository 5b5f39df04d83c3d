//! The built-in helper over a real broker, with nodes that make keys and are sent certificates.

use std::path::Path;
use std::sync::Arc;

use choria_protocol::rpc::RequestBody;
use choria_protocol::v1;
use choria_security::ca::{CA_FILE, CA_KEY_FILE, CertificateAuthority};
use choria_security::chain::check_client_chain;
use choria_security::csr::{self, Subject};
use choria_security::keys::{KeyKind, PrivateKey};
use choria_security::trust::Authorities;
use choria_testkit::unix_now;
use serde_json::{Map, Value, json};

use crate::common::*;

/// What nodes were sent to configure themselves, as it comes.
struct Configured {
    requests: choria_connector::Subscription,
}

impl Configured {
    async fn next(&mut self) -> (String, Map<String, Value>) {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.requests.next()).await.unwrap().unwrap();
            let request = v1::decode_request(&message.payload).unwrap();
            let body = RequestBody::parse(request.request.message.as_bytes()).unwrap();
            if body.action == "configure" {
                let identity = message.subject.strip_prefix("provisioning.node.").unwrap().to_owned();
                return (identity, body.data);
            }
        }
    }

    /// The next node's settings and the subject of the CA that it was sent, after checking that its certificate leads there.
    async fn next_checked(&mut self) -> (Value, String) {
        let (_, data) = self.next().await;
        let text = |key: &str| data[key].as_str().unwrap().to_owned();
        let authorities = Authorities::from_pem(&text("ca")).unwrap();
        assert_eq!(check_client_chain(&text("certificate"), &authorities, unix_now()), Ok(()));
        let ca = choria_security::cert::first_from_pem(&text("ca")).unwrap();
        (serde_json::from_str(&text("config")).unwrap(), ca.subject)
    }
}

fn authority(directory: &Path, name: &str) {
    CertificateAuthority::create(directory, name, KeyKind::P256, unix_now()).unwrap();
}

/// Nodes that share a key, which saves the time to make them.
async fn swarm(network: &Network, world: &World) -> Swarm {
    let (token, key) = (world.token.clone(), Arc::new(PrivateKey::generate(KeyKind::P256).unwrap()));
    let answer: Answer = Box::new(move |identity, action| {
        Some(Ok(match action {
            "gencsr" => json!({
                "csr": csr::create(&key, &Subject::common_name(identity)).unwrap(),
                "public_key": key.public_pem(), "ssldir": "/etc/choria/ssl"
            }),
            action => good_data(action, &token),
        }))
    });
    Swarm::new(network.addr, answer).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_and_authority_change_under_a_running_provisioner() {
    let (world, network) = (World::new(), Network::new().await);
    let swarm = swarm(&network, &world).await;
    let mut configured = Configured { requests: swarm.listen("provisioning.node.>").await };
    let dir = tempfile::tempdir().unwrap();
    let rules = |text: &str| std::fs::write(dir.path().join("rules.yaml"), text).unwrap();
    let (ca, new) = (dir.path().join("ca"), dir.path().join("new"));
    authority(&ca, "Old CA");
    authority(&new, "New CA");
    rules("rules: [{identity: '*.lab.test', configuration: {collectives: '{{facts.dc}}'}}]");
    let config = dir.path().join("provisioner.yaml");
    let text = format!(
        "token: {SECRET}\nchoria_insecure: true\nbroker_provisioning_password: pw\ncontrol_socket: ''\n\
         jwt_verify_cert: {}\nfeatures: {{jwt: true, pki: true}}\n\
         helper_mode: builtin\nrules: {1}/rules.yaml\nca_directory: {1}/ca\n",
        world.signer.verification_file().display(),
        dir.path().display(),
    );
    std::fs::write(&config, text).unwrap();
    let running = Running::start(&config, network.addr).await;

    for index in 0..20 {
        swarm.announce(&format!("n{index}.lab.test")).await;
    }
    swarm.announce("n1.elsewhere.test").await;
    for _ in 0..20 {
        let (settings, ca) = configured.next_checked().await;
        assert_eq!(settings["collectives"], "ams");
        assert_eq!(settings["plugin.security.file.key"], "/etc/choria/ssl/private.pem");
        assert!(ca.contains("Old CA"), "{ca}");
    }
    running.provisioned(20).await;
    running.wait("a node that no rule matches is put off", |metrics| metrics.deferred.get() >= 1).await;

    // Rules that cannot be read change nothing, and a new authority needs no reload.
    rules("rules: [{identiy: x}]");
    running.reload.notify_one();
    for file in [CA_FILE, CA_KEY_FILE] {
        std::fs::copy(new.join(file), ca.join(file)).unwrap();
    }
    let mut index = 0;
    let mut next = async || {
        index += 1;
        swarm.announce(&format!("m{index}.lab.test")).await;
        configured.next_checked().await
    };
    loop {
        let (settings, ca) = next().await;
        assert_eq!(settings["collectives"], "ams");
        if ca.contains("New CA") {
            break;
        }
    }
    rules("rules: [{configuration: {collectives: new}}]");
    running.reload.notify_one();
    while next().await.0["collectives"] != "new" {}
    running.stop().await;
}
