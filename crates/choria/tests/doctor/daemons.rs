//! Faults of brokers and provisioners.

use std::net::TcpListener;

use choria_security::ca::IssueRequest;
use choria_security::keys::KeyKind;

use crate::common::text;
use crate::stage::{Fault, Stage, arguments, check, found};

/// Arguments for a provisioner with these lines, and this helper.
fn provisioner(stage: &mut Stage, helper: &str, change: impl Fn(String) -> String) -> Vec<String> {
    stage.certname("provisioner.mcollective");
    let config = stage.lab().provisioner_config(helper, "");
    let content = change(std::fs::read_to_string(&config).unwrap());
    std::fs::write(&config, content).unwrap();
    let choria = stage.lab().provisioner_choria_config(stage.port(), "");
    arguments(&["--config", text(&config), "--choria-config", text(&choria)])
}

#[test]
fn faults_of_provisioners() {
    check(&[
        Fault {
            name: "a value that cannot be",
            stage: |stage| {
                let helper = stage.helper(0o755);
                provisioner(stage, &helper, |text| text.replace("interval: 1m", "interval: soon"))
            },
            id: "config.values",
            status: "failed",
            says: &["provisioner.yaml:1 ", "soon"],
            advice: "correct the value",
        },
        Fault {
            name: "a helper that cannot be run",
            stage: |stage| {
                let helper = stage.helper(0o644);
                provisioner(stage, &helper, |text| text)
            },
            id: "helper",
            status: "failed",
            // Even root may not run what nobody may.
            says: &["helper is not executable for this user"],
            advice: "correct the setting, or what it names",
        },
        Fault {
            name: "no helper at all",
            stage: |stage| provisioner(stage, "/nowhere/helper", |text| text),
            id: "helper",
            status: "failed",
            says: &["/nowhere/helper does not exist"],
            advice: "correct the setting, or what it names",
        },
        Fault {
            name: "a wrong password",
            stage: |stage| {
                stage.broker("");
                let helper = stage.helper(0o755);
                provisioner(stage, &helper, |text| text.replace("provisioner-password", "guessed"))
            },
            id: "provisioner.password",
            status: "failed",
            says: &["accepts our certificate, but not user provisioner with this password"],
            advice: "plugin.choria.network.provisioning.client_password",
        },
        Fault {
            name: "no password",
            stage: |stage| {
                stage.broker("");
                let helper = stage.helper(0o755);
                provisioner(stage, &helper, |text| {
                    text.replace("broker_provisioning_password: provisioner-password\n", "")
                })
            },
            id: "provisioner.account",
            status: "failed",
            says: &["choria, where no unprovisioned node is"],
            advice: "broker_provisioning_password",
        },
        Fault {
            name: "no key to check tokens with",
            stage: |stage| {
                let helper = stage.helper(0o755);
                provisioner(stage, &helper, |text| {
                    let lines = text.lines().filter(|line| !line.starts_with("jwt_verify_cert"));
                    lines.map(|line| format!("{line}\n")).collect()
                })
            },
            id: "token.signer",
            status: "failed",
            says: &["features.jwt is on but jwt_verify_cert is not set"],
            advice: "jwt_verify_cert",
        },
    ]);
}

#[test]
fn faults_of_servers() {
    check(&[
        Fault {
            name: "registration data that is nowhere",
            stage: |stage| {
                let config = stage.lab().member_node_config("n1", stage.port(), "registration = file_content\n");
                arguments(&["--config", text(&config)])
            },
            id: "server.settings",
            status: "failed",
            says: &["plugin.choria.registration.file_content.data"],
            advice: "correct the setting",
        },
        Fault {
            name: "a node with the certificate of another",
            stage: |stage| {
                stage.broker("");
                let other = stage.lab().ca().node("n2.example.net").config_lines();
                let config = stage.lab().member_node_config("n1.example.net", stage.port(), &other);
                stage.certname("n1.example.net");
                arguments(&["--config", text(&config)])
            },
            id: "certificate.names",
            status: "warning",
            says: &["for n2.example.net, but this node is n1.example.net"],
            advice: "get a certificate for the node's identity",
        },
        Fault {
            name: "a broken configuration",
            stage: |stage| {
                let config = stage.lab().member_node_config("n1", stage.port(), "rpcauthorization = on\n");
                arguments(&["--config", text(&config)])
            },
            id: "server.mode",
            status: "failed",
            says: &["server.conf:9: rpcauthorization = on is not valid"],
            advice: "correct the configuration",
        },
    ]);
}

/// A port that is held as long as the process runs.
fn held(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            open.push(stream);
        }
    });
}

#[test]
fn faults_of_brokers() {
    check(&[
        Fault {
            name: "a port that something else has",
            stage: |stage| {
                held(stage.port());
                arguments(&["--config", text(&stage.lab().broker_config(stage.port(), 0, ""))])
            },
            id: "listen.clients",
            status: "failed",
            says: &["127.0.0.1", "in use by something that is no broker"],
            advice: "plugin.choria.network.client_port",
        },
        Fault {
            name: "a port that another broker has",
            stage: |stage| {
                stage.broker("identity = other.example.net\n");
                arguments(&["--config", text(&stage.lab().broker_config(stage.port(), 0, ""))])
            },
            id: "listen.clients",
            status: "failed",
            says: &["in use by another broker, named \"other.example.net\""],
            advice: "ss -ltnp",
        },
        Fault {
            name: "a port for websocket clients that something else has",
            stage: |stage| {
                let websocket = crate::common::free_port();
                held(websocket);
                let extra = format!("plugin.choria.network.websocket_port = {websocket}\n");
                arguments(&["--config", text(&stage.lab().broker_config(stage.port(), 0, &extra))])
            },
            id: "listen.websocket",
            status: "failed",
            says: &["127.0.0.1"],
            advice: "plugin.choria.network.websocket_port",
        },
        Fault {
            name: "a port for statistics that something else has",
            stage: |stage| {
                let statistics = crate::common::free_port();
                held(statistics);
                arguments(&["--config", text(&stage.lab().broker_config(stage.port(), statistics, ""))])
            },
            id: "listen.statistics",
            status: "failed",
            says: &["127.0.0.1"],
            advice: "plugin.choria.stats_port",
        },
        Fault {
            name: "nothing switched on",
            stage: |stage| {
                let config = stage.lab().broker_config(stage.port(), 0, "plugin.choria.broker_network = no\n");
                arguments(&["--config", text(&config)])
            },
            id: "broker.settings",
            status: "failed",
            says: &["all broker features are disabled"],
            advice: "correct the setting",
        },
        Fault {
            name: "a part that this version does not have",
            stage: |stage| {
                let config =
                    stage.lab().broker_config(stage.port(), 0, "plugin.choria.network.peers = nats://b2:5222\n");
                arguments(&["--config", text(&config)])
            },
            id: "broker.settings",
            status: "failed",
            says: &["plugin.choria.network.peers"],
            advice: "correct the setting",
        },
        Fault {
            name: "a certificate for another host",
            stage: |stage| {
                let files =
                    stage.lab().ca().files("elsewhere", &IssueRequest::new("elsewhere.example.net", KeyKind::P256));
                arguments(&["--config", text(&stage.lab().broker_config(stage.port(), 0, &files.config_lines()))])
            },
            id: "certificate.names",
            status: "warning",
            says: &["for elsewhere.example.net, not for localhost"],
            advice: "plugin.choria.network.public_url",
        },
    ]);
}

#[test]
fn a_broker_that_runs_may_have_its_port() {
    let mut stage = Stage::new();
    stage.broker("");
    let config = stage.path().join("broker.conf");
    let (status, checks) = stage.doctor(&["--config", text(&config)]);
    assert_eq!(status, Some(0), "{checks:#?}");
    assert!(found(&checks, "listen.clients", "ok"), "{checks:#?}");
    let ours = checks.iter().find(|check| check["id"] == "listen.clients").unwrap();
    assert!(ours["detail"].as_str().unwrap().contains("this one is running"), "{ours}");
}
