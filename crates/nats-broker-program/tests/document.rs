//! What docs/nats-broker.md shows is what the program takes.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unreachable_pub)]
mod common;

use std::path::Path;

use common::output;
use nats_broker_program::flags::{Command, parse};
use rcgen::{CertificateParams, KeyPair};

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/nats-broker.md")).unwrap()
}

/// The blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let page = page();
    let mut rest = page.as_str();
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once(&format!("\n```{language}\n")) {
        let (block, after) = after.split_once("\n```").unwrap();
        found.push(block.to_owned());
        rest = after;
    }
    found
}

#[test]
fn commands_are_understood() {
    let mut ran = 0;
    let text = [blocks("sh"), blocks("ini")].concat().join("\n");
    for line in text.lines() {
        let line = line.strip_prefix("ExecStart=/usr/local/bin/").unwrap_or(line);
        let Some(arguments) = line.strip_prefix("nats-broker") else { continue };
        let arguments = arguments.split('#').next().unwrap().split_whitespace().map(str::to_owned);
        assert!(matches!(parse(arguments), Ok(Command::Run(_))), "{line}");
        ran += 1;
    }
    assert_eq!(ran, 6);
}

#[test]
fn configurations_would_start() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    for name in ["server.pem", "ca.pem"] {
        std::fs::write(dir.path().join(name), certificate.pem()).unwrap();
    }
    std::fs::write(dir.path().join("server-key.pem"), key.serialize_pem()).unwrap();
    let blocks = blocks("conf");
    assert_eq!(blocks.len(), 1);
    for block in blocks {
        std::fs::write(dir.path().join("c.conf"), block).unwrap();
        let said = output(dir.path(), &["-t", "-c", "c.conf"]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

#[test]
fn every_flag_of_the_usage_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let usage = output(dir.path(), &["--help"]).stdout;
    let mut seen = 0;
    for word in usage.split([' ', ',', '\n', ';', '(', ')']) {
        let name = word.trim_start_matches('-').split('=').next().unwrap();
        let is_flag = word.starts_with('-') && word != "-1" && !name.is_empty() && name != "x" && name != "--x";
        if !is_flag {
            continue;
        }
        // A value that serves every kind of flag: switches take it after the sign, too.
        let known = ["1", "true"].iter().any(|value| parse([format!("-{name}={value}")]).is_ok());
        assert!(known, "{word}");
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}
