//! Faults of provisioning tokens, seen from the node, the broker and the provisioner.

use choria_testkit::lab::PROVISIONING_SECRET;
use choria_testkit::{TokenSigner, unix_now};

use crate::common::text;
use crate::stage::{Fault, Stage, arguments, check};

/// Arguments for an unprovisioned node with this token.
fn node(stage: &Stage, token: &str) -> Vec<String> {
    let token = stage.file("node.jwt", token, 0o600);
    let config = stage.lab().node_config("n1.example.net");
    std::fs::write(&config, "identity = n1.example.net\nplugin.choria.server.provision = true\n").unwrap();
    arguments(&["--role", "server", "--config", text(&config), "--provisioning-jwt", &token])
}

fn urls(stage: &Stage) -> String {
    format!("nats://localhost:{}", stage.port())
}

/// A token made at another time, valid for a day.
fn token_of_day(stage: &Stage, days: i64) -> String {
    let request = TokenSigner::request(PROVISIONING_SECRET, &urls(stage));
    stage.lab().signer().issue_at(&request, unix_now() + days * 24 * 3600)
}

/// A token of a signer that nobody knows.
fn strange_token(stage: &Stage) -> String {
    TokenSigner::ed25519(stage.path()).token(PROVISIONING_SECRET, &urls(stage))
}

#[test]
fn faults_of_tokens_on_nodes() {
    check(&[
        Fault {
            name: "a token that has expired",
            stage: |stage| {
                let token = token_of_day(stage, -3);
                node(stage, &token)
            },
            id: "token.validity",
            status: "failed",
            says: &["node.jwt", "expired at", "2 days ago"],
            advice: "choria jwt provisioning",
        },
        Fault {
            name: "a token from the future",
            stage: |stage| {
                let token = token_of_day(stage, 3);
                node(stage, &token)
            },
            id: "clock",
            status: "failed",
            says: &["the token", "node.jwt", "in the future"],
            advice: "set the clock",
        },
        Fault {
            name: "a damaged token",
            stage: |stage| {
                let token = token_of_day(stage, 0);
                node(stage, &token[..token.len() / 2].replace('.', "!"))
            },
            id: "token.content",
            status: "failed",
            says: &["node.jwt", "a node cannot use it", "malformed"],
            advice: "choria jwt view",
        },
        Fault {
            name: "a token of another signer, where the signer is known",
            stage: |stage| {
                let token = strange_token(stage);
                let signer = text(stage.lab().signer().verification_file()).to_owned();
                [node(stage, &token), arguments(&["--signer", &signer])].concat()
            },
            id: "token.signature",
            status: "failed",
            says: &["node.jwt", "EdDSA"],
            advice: "the same key pair",
        },
        Fault {
            name: "a token that the broker does not accept",
            stage: |stage| {
                stage.broker("");
                let token = strange_token(stage);
                node(stage, &token)
            },
            id: "broker.connect",
            status: "failed",
            says: &["localhost", "Authorization Violation"],
            advice: "does not accept our token",
        },
        Fault {
            name: "no token where one is needed",
            stage: |stage| {
                let config = stage.lab().node_config("n1.example.net");
                arguments(&[
                    "--role",
                    "server",
                    "--config",
                    text(&config),
                    "--provisioning-jwt",
                    "/nowhere/provisioning.jwt",
                ])
            },
            id: "server.mode",
            status: "failed",
            says: &["was not found and provisioning is disabled", "/nowhere/provisioning.jwt"],
            advice: "choria buildinfo",
        },
        Fault {
            name: "a token that everybody can read",
            stage: |stage| {
                stage.broker("");
                let token = token_of_day(stage, 0);
                let arguments = node(stage, &token);
                stage.file("node.jwt", &token, 0o644);
                arguments
            },
            id: "token.permissions",
            status: "warning",
            says: &["node.jwt", "mode 0644", "pose as an unprovisioned node"],
            advice: "chmod 0640",
        },
    ]);
}

#[test]
fn faults_of_tokens_elsewhere() {
    check(&[
        Fault {
            name: "a token that the broker's key does not fit",
            stage: |stage| {
                let token = stage.file("node.jwt", &strange_token(stage), 0o600);
                let config = stage.lab().broker_config(stage.port(), 0, "");
                arguments(&["--config", text(&config), "--provisioning-jwt", &token])
            },
            id: "token.signature",
            status: "failed",
            says: &["node.jwt", "EdDSA"],
            advice: "plugin.choria.network.provisioning.signer_cert",
        },
        Fault {
            name: "a signer's key that is none",
            stage: |stage| {
                let garbage = stage.file("garbage.pem", "no key\n", 0o644);
                let extra = format!("plugin.choria.network.provisioning.signer_cert = {garbage}\n");
                let config = stage.lab().broker_config(stage.port(), 0, &extra);
                arguments(&["--config", text(&config)])
            },
            id: "token.signer",
            status: "failed",
            says: &["garbage.pem"],
            advice: "public key or certificate",
        },
        Fault {
            name: "a token with another secret than the provisioner's",
            stage: |stage| {
                stage.broker("");
                stage.certname("provisioner.mcollective");
                let token = stage.lab().signer().token("another secret", &urls(stage));
                let token = stage.file("node.jwt", &token, 0o600);
                let config = stage.lab().provisioner_config(&stage.helper(0o755), "");
                let choria = stage.lab().provisioner_choria_config(stage.port(), "");
                arguments(&["--config", text(&config), "--choria-config", text(&choria), "--provisioning-jwt", &token])
            },
            id: "token.accepted",
            status: "failed",
            says: &["node.jwt", "the token's secret (cht) is not the configured token"],
            advice: "belong together",
        },
    ]);
}
