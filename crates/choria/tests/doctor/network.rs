//! Faults between a client and its broker.

use std::io::Write;
use std::net::TcpListener;

use choria_security::ca::IssueRequest;
use choria_security::keys::{KeyKind, write_private_key};
use choria_testkit::TestCa;
use choria_testkit::lab::CLIENT_NAME;

use crate::common::text;
use crate::stage::{Fault, check};

#[test]
fn faults_of_the_way_to_the_broker() {
    check(&[
        Fault {
            name: "a broker whose name does not resolve",
            stage: |stage| stage.client_arguments("plugin.choria.middleware_hosts = broker.invalid:4222\n"),
            id: "dns",
            status: "failed",
            says: &["broker.invalid"],
            advice: "is the name written right",
        },
        Fault {
            name: "nothing listens",
            stage: |stage| stage.client_arguments(""),
            id: "broker.tcp",
            status: "failed",
            says: &["localhost", "connection refused"],
            advice: "is a broker running there",
        },
        Fault {
            name: "something else listens",
            stage: |stage| {
                let listener = TcpListener::bind(("127.0.0.1", stage.port())).unwrap();
                std::thread::spawn(move || {
                    for stream in listener.incoming() {
                        let _ = stream.and_then(|mut stream| stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n"));
                    }
                });
                stage.client_arguments("")
            },
            id: "broker.protocol",
            status: "failed",
            says: &["does not speak NATS"],
            advice: "something else on this port",
        },
        Fault {
            name: "a broker without TLS",
            stage: |stage| {
                stage.broker_with("", &["--disable-tls"]);
                stage.client_arguments("")
            },
            id: "broker.tls",
            status: "failed",
            says: &["does not offer TLS"],
            advice: "both ends must have TLS on",
        },
        Fault {
            name: "a broker with a certificate for another host",
            stage: |stage| {
                let files =
                    stage.lab().ca().files("elsewhere", &IssueRequest::new("elsewhere.example.net", KeyKind::P256));
                stage.broker(&files.config_lines());
                stage.client_arguments("")
            },
            id: "broker.tls",
            status: "failed",
            says: &["localhost", "certificate not valid for name"],
            advice: "names other hosts",
        },
        Fault {
            name: "a broker of another authority",
            stage: |stage| {
                let stranger = TestCa::in_directory(stage.path().join("stranger")).broker();
                stage.broker(&stranger.config_lines());
                stage.client_arguments("")
            },
            id: "broker.tls",
            status: "failed",
            says: &["invalid peer certificate"],
            advice: "plugin.security.file.ca",
        },
        Fault {
            name: "a certificate that the broker does not accept",
            stage: |stage| {
                stage.broker("");
                let issued = TestCa::new().issue(&IssueRequest::new(CLIENT_NAME, KeyKind::Rsa2048));
                let certificate = stage.file("stranger.pem", &issued.certificate.pem, 0o644);
                let key = stage.path().join("stranger-key.pem");
                write_private_key(&key, &issued.key).unwrap();
                stage.client_arguments(&format!(
                    "plugin.security.file.certificate = {certificate}\nplugin.security.file.key = {}\n",
                    text(&key)
                ))
            },
            id: "broker.tls",
            status: "failed",
            says: &["alert"],
            advice: "certificate",
        },
        Fault {
            name: "a broker that takes us for a server",
            stage: |stage| {
                stage.broker("plugin.choria.network.client_hosts = 192.0.2.1\n");
                stage.client_arguments("")
            },
            id: "rights.publish",
            status: "failed",
            says: &["mcollective.broadcast.agent.", "Permissions Violation for Publish"],
            advice: "plugin.choria.network.client_hosts",
        },
        Fault {
            name: "no broker configured",
            stage: |stage| stage.client_arguments("plugin.choria.middleware_hosts = puppet:4222\n"),
            id: "dns",
            status: "failed",
            says: &["puppet"],
            advice: "getent hosts",
        },
    ]);
}
