//! Faults in configurations, keys and certificates.

use std::os::unix::fs::PermissionsExt;

use choria_security::ca::{IssueRequest, Issued};
use choria_security::keys::{KeyKind, write_private_key};
use choria_testkit::lab::CLIENT_NAME;
use choria_testkit::{TestCa, unix_now};

use crate::common::text;
use crate::stage::{Fault, Stage, arguments, check};

const DAY: i64 = 24 * 3600;

/// A client with the certificate and key of another issue.
fn client_with(stage: &Stage, issued: &Issued) -> Vec<String> {
    let certificate = stage.file("other.pem", &issued.certificate.pem, 0o644);
    let key = stage.path().join("other-key.pem");
    write_private_key(&key, &issued.key).unwrap();
    let key = text(&key);
    stage.client_arguments(&format!(
        "plugin.security.file.certificate = {certificate}\nplugin.security.file.key = {key}\n"
    ))
}

/// A client of an authority that began on another day, with a certificate that was valid for one.
fn client_from(stage: &Stage, days: i64) -> Vec<String> {
    let ca = TestCa::at(stage.path().join("another-time"), unix_now() + days * DAY);
    stage.client_arguments(&ca.client(CLIENT_NAME).config_lines())
}

#[test]
fn faults_of_configurations() {
    check(&[
        Fault {
            name: "no configuration",
            stage: |_| arguments(&["--role", "client", "--config", "nowhere.conf"]),
            id: "config.file",
            status: "failed",
            says: &["nowhere.conf", "could not be read"],
            advice: "--config FILE",
        },
        Fault {
            name: "a value that cannot be",
            stage: |stage| stage.client_arguments("plugin.choria.use_srv = perhaps\n"),
            id: "config.values",
            status: "failed",
            says: &["client.conf:9 plugin.choria.use_srv = perhaps is not valid, expected yes or no"],
            advice: "correct the value",
        },
        Fault {
            name: "a misspelt key",
            stage: |stage| {
                stage.broker("");
                stage.client_arguments("plugin.choria.midleware_hosts = b:1\n")
            },
            id: "config.keys",
            status: "warning",
            says: &[
                "client.conf:9 unknown key plugin.choria.midleware_hosts; did you mean plugin.choria.middleware_hosts?",
            ],
            advice: "correct or remove",
        },
        Fault {
            name: "a password that everybody can read",
            stage: |stage| {
                stage.broker("");
                stage.client_arguments("plugin.nats.user = u\nplugin.nats.pass = p\n")
            },
            id: "config.secrets",
            status: "warning",
            says: &["client.conf", "mode 0644", "it holds a password"],
            advice: "chmod 0640",
        },
        Fault {
            name: "the default security provider",
            stage: |stage| stage.client_arguments("plugin.security.provider = puppet\n"),
            id: "security.provider",
            status: "failed",
            says: &["security provider puppet is not available"],
            advice: "plugin.security.provider = file",
        },
    ]);
}

#[test]
fn faults_of_keys() {
    check(&[
        Fault {
            name: "no key configured",
            stage: |stage| {
                let config = stage.client("");
                let all = std::fs::read_to_string(&config).unwrap();
                let kept: String =
                    all.lines().filter(|line| !line.contains(".key =")).map(|line| format!("{line}\n")).collect();
                std::fs::write(&config, kept).unwrap();
                arguments(&["--config", text(&config)])
            },
            id: "key.file",
            status: "failed",
            says: &["plugin.security.file.key", "not set"],
            advice: "choria ca issue",
        },
        Fault {
            name: "a key that cannot be read",
            stage: |stage| {
                // Nothing is unreadable for root, but for what is no file.
                let path = stage.path().join("unreadable.pem");
                if nix::unistd::Uid::effective().is_root() {
                    std::fs::create_dir(&path).unwrap();
                } else {
                    std::fs::copy(stage.lab().ca().client(CLIENT_NAME).key, &path).unwrap();
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
                }
                stage.client_arguments(&format!("plugin.security.file.key = {}\n", text(&path)))
            },
            id: "key.file",
            status: "failed",
            says: &["unreadable.pem", "could not read"],
            advice: "readable for the user that the program runs as",
        },
        Fault {
            name: "something that is no key",
            stage: |stage| {
                let key = stage.file("garbage.pem", "no key in here\n", 0o600);
                stage.client_arguments(&format!("plugin.security.file.key = {key}\n"))
            },
            id: "key.file",
            status: "failed",
            says: &["garbage.pem", "there is no PEM private key block"],
            advice: "the private key as PEM",
        },
        Fault {
            name: "the key of another certificate",
            stage: |stage| {
                let key = stage.lab().ca().client("other.mcollective").key;
                stage.client_arguments(&format!("plugin.security.file.key = {}\n", text(&key)))
            },
            id: "key.match",
            status: "failed",
            says: &["other.mcollective-key.pem", "does not belong to the certificate", "tester.mcollective.pem"],
            advice: "key and certificate are made together",
        },
        Fault {
            name: "a key that everybody can read",
            stage: |stage| {
                let config = stage.client_arguments("");
                let key = stage.path().join("pki/tester.mcollective-key.pem");
                std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
                config
            },
            id: "key.permissions",
            status: "failed",
            says: &["tester.mcollective-key.pem", "mode 0644", "everybody on this machine can read"],
            advice: "chmod 0600",
        },
        Fault {
            name: "a key that cannot sign requests",
            stage: |stage| {
                let issued = stage.lab().ca().issue(&IssueRequest::new(CLIENT_NAME, KeyKind::P256));
                client_with(stage, &issued)
            },
            id: "key.kind",
            status: "failed",
            says: &["only be signed with an RSA key", "P-256"],
            advice: "choria ca issue",
        },
    ]);
}

#[test]
fn faults_of_certificates() {
    check(&[
        Fault {
            name: "a certificate that has expired",
            stage: |stage| client_from(stage, -10),
            id: "certificate.validity",
            status: "failed",
            says: &["another-time/tester.mcollective.pem", "expired at", "9 days ago"],
            advice: "get a new certificate",
        },
        Fault {
            name: "a certificate that is not valid yet",
            stage: |stage| client_from(stage, 10),
            id: "certificate.validity",
            status: "failed",
            says: &["another-time/tester.mcollective.pem", "not valid before"],
            advice: "clock",
        },
        Fault {
            name: "a clock that is behind",
            stage: |stage| client_from(stage, 10),
            id: "clock",
            status: "failed",
            says: &["CN=tester.mcollective", "which is in the future"],
            advice: "set the clock",
        },
        Fault {
            name: "a certificate that expires soon",
            stage: |stage| {
                stage.broker("");
                [stage.client_arguments(""), arguments(&["--expiry-warning", "7d"])].concat()
            },
            id: "certificate.validity",
            status: "warning",
            says: &["expires at", "hours)"],
            advice: "renew it in time",
        },
        Fault {
            name: "a certificate of another authority",
            stage: |stage| {
                let issued = TestCa::new().issue(&IssueRequest::new(CLIENT_NAME, KeyKind::Rsa2048));
                client_with(stage, &issued)
            },
            id: "certificate.chain",
            status: "failed",
            says: &["other.pem", "is not trusted"],
            advice: "plugin.security.file.ca",
        },
        Fault {
            name: "a certificate of somebody else",
            stage: |stage| {
                stage.certname("lisa.mcollective");
                stage.client_arguments("")
            },
            id: "certificate.names",
            status: "failed",
            says: &["is for tester.mcollective, but requests are made as lisa.mcollective"],
            advice: "MCOLLECTIVE_CERTNAME",
        },
        Fault {
            name: "a name that nodes do not listen to",
            stage: |stage| {
                stage.broker("");
                stage.certname("lisa.example.net");
                let issued = stage.lab().ca().issue(&IssueRequest::new("lisa.example.net", KeyKind::Rsa2048));
                client_with(stage, &issued)
            },
            id: "certificate.names",
            status: "warning",
            says: &["lisa.example.net matches no pattern", "without a word"],
            advice: "extend the list on every node",
        },
        Fault {
            name: "something that is no certificate",
            stage: |stage| {
                let garbage = stage.file("garbage.pem", "no certificate in here\n", 0o644);
                stage.client_arguments(&format!("plugin.security.file.certificate = {garbage}\n"))
            },
            id: "certificate.file",
            status: "failed",
            says: &["garbage.pem", "no PEM certificate"],
            advice: "PEM",
        },
        Fault {
            name: "no CA file",
            stage: |stage| stage.client_arguments("plugin.security.file.ca = /nowhere/ca.pem\n"),
            id: "ca.file",
            status: "failed",
            says: &["could not read /nowhere/ca.pem"],
            advice: "copy the CA certificate",
        },
        Fault {
            name: "an empty CA file",
            stage: |stage| {
                let empty = stage.file("empty.pem", "", 0o644);
                stage.client_arguments(&format!("plugin.security.file.ca = {empty}\n"))
            },
            id: "ca.file",
            status: "failed",
            says: &["empty.pem holds no CA certificate"],
            advice: "copy the CA certificate",
        },
    ]);
}
