//! Refusals reach the log with reason, address and claimed name, and without any secret; a reload is one line.
#![allow(clippy::unwrap_used)]

#[path = "common/lab.rs"]
mod lab;
#[path = "common/raw.rs"]
mod raw;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use choria_security::tls;
use lab::Lab;
use raw::Raw;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Nothing changed, something changed, and something is wrong: one line each that says so.
async fn reload_three_times(lab: &Lab, broker: &choria_broker::Handle, lines: &Lines) {
    let reloads = || {
        let text = lines.text();
        let lines = text.lines().filter(|line| line.contains("reload") && !line.contains("connection refused"));
        lines.map(|line| line.split_once("choria_broker::reload: ").unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    broker.reload().await.unwrap();
    lab.write_config(
        "plugin.choria.network.provisioning.client_password = hunter2\nplugin.choria.network.auth_timeout = 3s\n",
    );
    broker.reload().await.unwrap();
    std::fs::write(lab.path("ca.pem"), "no certificate").unwrap();
    broker.reload().await.unwrap_err();
    let (conf, ca) = (lab.path("broker.conf"), lab.path("ca.pem"));
    assert_eq!(
        reloads(),
        [
            "configuration reloaded, nothing changed component=\"broker\"".to_owned(),
            "configuration reloaded, changed: plugin.choria.network.auth_timeout, \
             plugin.choria.network.provisioning.client_password component=\"broker\""
                .to_owned(),
            format!(
                "reload failed, everything stays as it was: {}: {} holds no CA certificate (see plugin.security.provider \
                 and plugin.security.file.certificate, .key, .ca) component=\"broker\"",
                conf.display(),
                ca.display()
            ),
        ]
    );
}

/// The only test of this program, so its subscriber sees every line of every thread down to the last detail.
#[tokio::test]
async fn design6_refusals_are_told_with_reason_and_without_secrets() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_writer(lines.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let lab = Lab::new();
    let broker = lab.start("").await;
    let good = lab.token(Duration::from_secs(600));
    let node = Raw::node(broker.client_addr, "n0.example.net", &good).await;
    let config = tls::client_config(&lab.member("p.mcollective")).unwrap();
    let bad = format!("{}AAAA", &good[..good.len() - 4]);
    for fields in [
        json!({"name": "n1.example.net", "auth_token": bad}),
        json!({"name": "", "auth_token": good}),
        json!({"name": "n2.example.net", "user": "provisioner", "pass": "hunter2"}),
        json!({"name": "n3.example.net", "user": "system", "pass": "hunter2"}),
    ] {
        let mut raw = Raw::open(broker.client_addr, config.clone()).await.unwrap();
        let mut anonymous = Raw::anonymous(broker.client_addr).await;
        assert!(anonymous.connect(fields.clone()).await.is_err());
        assert!(raw.connect(fields).await.is_err());
    }
    for _ in 0..60 {
        let mut raw = Raw::open(broker.client_addr, config.clone()).await.unwrap();
        raw.connect(json!({"user": "provisioner", "pass": "hunter2"})).await.unwrap_err();
    }
    reload_three_times(&lab, &broker, &lines).await;
    drop(node);
    broker.shutdown().await.unwrap();

    let text = lines.text();
    for expected in [
        "reason=\"token_signature_wrong\" remote=127.0.0.1:",
        "claimed=\"n1.example.net\"",
        "reason=\"node_name_missing\"",
        "reason=\"wrong_password\"",
        "claimed=\"n2.example.net\"",
        "reason=\"token_missing\"",
    ] {
        assert!(text.contains(expected), "{expected} missing in\n{text}");
    }
    let told = text.matches("reason=\"wrong_password\"").count();
    assert!((5..=40).contains(&told), "{told} lines about 62 wrong passwords");
    for secret in ["hunter2", &good[..40], lab::CLIENT_PASSWORD, lab::SYSTEM_PASSWORD, "s3cret"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
}
