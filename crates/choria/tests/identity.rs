//! Tokens, keys and certificates from the command line.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use choria_tokens::{ProvisioningRequest, SigningKey, issue_provisioning};
use common::{choria_in, stderr, stdout};
use serde_json::Value;

/// A directory to work in.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        choria_in(self.path(), arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stdout(&output));
        stderr(&output)
    }

    fn mode(&self, file: &str) -> u32 {
        fs::metadata(self.path().join(file)).unwrap().permissions().mode() & 0o777
    }

    fn claims(&self, file: &str) -> Value {
        serde_json::from_str(&self.ok(&["jwt", "view", file, "--json"])).unwrap()
    }
}

/// Spec 05 §11: the seed's form makes the token when FILE is absent and views it when it is there.
#[test]
fn the_old_form_makes_and_views() {
    let bench = Bench::new();
    bench.ok(&["jwt", "keys", "a.seed", "a.public"]);
    bench.ok(&["jwt", "keys", "b.seed", "b.public"]);
    let made = bench.ok(&["tool", "jwt", "t.jwt", "a.seed", "--urls", "a:4222,b:4222", "--token", "x", "--insecure"]);
    assert_eq!(made, "Saved token to t.jwt, use 'choria jwt view t.jwt' to view it\n");
    let claims = bench.claims("t.jwt");
    assert_eq!(
        (&claims["chu"], &claims["chs"], &claims["cht"], &claims["chpd"]),
        (&Value::from("a:4222,b:4222"), &Value::from(false), &Value::from("x"), &Value::from(false))
    );
    let viewed = bench.ok(&["tool", "jwt", "t.jwt", "a.public"]);
    assert!(viewed.starts_with("JWT Token t.jwt\n\n"), "{viewed}");
    assert!(viewed.contains("                          URLS: a:4222, b:4222\n"), "{viewed}");
    assert!(bench.refused(&["tool", "jwt", "t.jwt", "b.public"]).contains("token validation failed"));
    // Without --insecure it is secure.
    bench.ok(&["t", "jwt", "s.jwt", "a.seed", "--srv", "example.net", "--token", "x"]);
    assert_eq!(bench.claims("s.jwt")["chs"], true);
    assert!(bench.refused(&["tool", "jwt", "absent.jwt"]).contains("without a private key"));
}

#[test]
fn tokens_are_made_with_care() {
    let bench = Bench::new();
    bench.ok(&["jwt", "keys", "a.seed", "a.public"]);
    let make = |extra: &[&str]| {
        let arguments = [&["jwt", "provisioning", "t.jwt", "a.seed", "--urls", "a:4222"], extra].concat();
        bench.run(&arguments)
    };
    // Nobody is there to ask for the secret: the original writes an empty one.
    let nobody = make(&[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(!bench.path().join("t.jwt").exists());
    assert!(stderr(&nobody).contains("--token TEXT"), "{}", stderr(&nobody));

    assert_eq!(make(&["--token", "x", "--default", "--extensions", "{\"tenant\":\"t9\"}"]).status.code(), Some(0));
    assert_eq!(bench.mode("t.jwt"), 0o600);
    let claims = bench.claims("t.jwt");
    assert_eq!((&claims["chpd"], &claims["chs"]), (&Value::from(true), &Value::from(true)), "secure by default");
    assert_eq!(claims["extensions"]["tenant"], "t9");
    let existing = make(&["--token", "y"]);
    assert!(stderr(&existing).contains("already exists"), "{}", stderr(&existing));
    assert_eq!(bench.claims("t.jwt")["cht"], "x");
    assert_eq!(make(&["--token", "y", "--force", "--insecure"]).status.code(), Some(0));
    assert_eq!((&bench.claims("t.jwt")["cht"], &bench.claims("t.jwt")["chs"]), (&"y".into(), &false.into()));

    for (arguments, wanted) in [
        (&["jwt", "prov", "n.jwt", "a.seed", "--token", "x"][..], "URLs or a SRV Domain is required"),
        (&["jwt", "p", "n.jwt", "a.seed", "--token", "x", "--urls", "a:1", "--srv", "b"], "both --urls and --srv"),
        (&["jwt", "p", "n.jwt", "absent", "--token", "x", "--urls", "a:1"], "could not read signing key"),
        (&["jwt", "p", "n.jwt", "a.public.pem", "--token", "x", "--urls", "a:1"], "could not read signing key"),
        (&["jwt", "p", "n.jwt", "a.seed", "--token", "x", "--urls", "a:1", "--extensions", "[]"], "JSON object"),
    ] {
        assert!(bench.refused(arguments).contains(wanted), "{arguments:?}");
        assert!(!bench.path().join("n.jwt").exists());
    }
}

/// The original ignores the key with `--json`, and ends an expired token without a word.
#[test]
fn views_always_verify() {
    let bench = Bench::new();
    bench.ok(&["jwt", "keys", "a.seed", "a.public"]);
    bench.ok(&["jwt", "keys", "b.seed", "b.public"]);
    bench.ok(&["jwt", "provisioning", "t.jwt", "a.seed", "--urls", "a:4222", "--token", "hunter2"]);
    let viewed = bench.ok(&["jwt", "t.jwt", "a.public"]);
    assert!(viewed.starts_with("Validated Provisioning Token t.jwt\n") && !viewed.contains("hunter2"), "{viewed}");
    assert!(bench.ok(&["jwt", "view", "t.jwt"]).starts_with("Unvalidated Provisioning Token t.jwt\n"));
    let wrong = bench.run(&["jwt", "view", "t.jwt", "b.public", "--json"]);
    assert_eq!((wrong.status.code(), stdout(&wrong)), (Some(1), String::new()), "nothing of it is shown");

    let key = SigningKey::from_file(bench.path().join("a.seed")).unwrap();
    let mut request = ProvisioningRequest::new("x");
    request.urls = "a:4222".to_owned();
    fs::write(bench.path().join("old.jwt"), issue_provisioning(&request, &key, 1_500_000_000).unwrap()).unwrap();
    for arguments in [&["jwt", "view", "old.jwt"][..], &["jwt", "view", "old.jwt", "a.public"]] {
        let old = bench.run(arguments);
        assert_eq!(old.status.code(), Some(1));
        assert!(stdout(&old).contains("(expired "), "{}", stdout(&old));
        assert!(stderr(&old).contains("expired"), "{}", stderr(&old));
    }
}

#[test]
fn keys_are_never_overwritten_by_accident() {
    let bench = Bench::new();
    let made = bench.ok(&["jwt", "keys", "a.seed", "a.public"]);
    let public = fs::read_to_string(bench.path().join("a.public")).unwrap();
    assert_eq!(made, format!("Public Key: {public}\n\nEd25519 seed saved in a.seed\n"));
    assert_eq!((bench.mode("a.seed"), public.len()), (0o600, 64));
    assert_eq!(bench.ok(&["jwt", "k", "a.seed", "--show-public"]), format!("Public Key: {public}\n"));
    assert!(bench.refused(&["jwt", "keys", "a.seed"]).contains("already exists"));
    assert!(bench.refused(&["jwt", "keys", "c.seed", "a.public"]).contains("a.public already exists"));
    assert!(!bench.path().join("c.seed").exists(), "neither file is touched");
    bench.ok(&["jwt", "keys", "a.seed", "a.public", "--force"]);
    assert_ne!(fs::read_to_string(bench.path().join("a.public")).unwrap(), public);
}

#[test]
fn the_authority_issues_signs_and_shows() {
    let bench = Bench::new();
    bench.ok(&["ca", "init", "ca", "--name", "Lab"]);
    assert_eq!(bench.mode("ca/ca-key.pem"), 0o600);
    assert!(bench.refused(&["ca", "init", "ca"]).contains("already holds a certificate authority"));

    // Callers get the only kind of key that can sign requests; everybody else a smaller one.
    let fact = |file: &str, name: &str| {
        let shown: Value = serde_json::from_str(&bench.ok(&["ca", "show", file, "--json"])).unwrap();
        shown["facts"][name].as_str().unwrap().to_owned()
    };
    let lines = bench.ok(&["ca", "issue", "ca", "lisa.mcollective", "--out", "lisa"]);
    assert!(
        lines.contains("plugin.security.file.key = ") && lines.contains("/lisa/lisa.mcollective-key.pem"),
        "{lines}"
    );
    bench.ok(&["ca", "issue", "ca", "b.example.net", "--dns", "localhost", "--ip", "127.0.0.1", "--out", "b"]);
    assert_eq!(fact("lisa/lisa.mcollective.pem", "key"), "RSA 2048");
    assert_eq!(fact("b/b.example.net.pem", "key"), "P-256");
    assert_eq!(fact("b/b.example.net.pem", "names"), "b.example.net, localhost, 127.0.0.1");
    assert_eq!(fact("ca", "authority"), "true");
    assert_eq!(bench.mode("b/b.example.net-key.pem"), 0o600);
    assert!(bench.refused(&["ca", "issue", "ca", "b.example.net", "--out", "b"]).contains("already exists"));
    assert!(bench.refused(&["ca", "issue", "nowhere", "x"]).contains("choria ca init nowhere"));

    let request = |name: &str| {
        let key = choria_security::keys::PrivateKey::generate(choria_security::keys::KeyKind::P256).unwrap();
        let subject = choria_security::csr::Subject::common_name(name);
        let file = format!("{name}.csr");
        fs::write(bench.path().join(&file), choria_security::csr::create(&key, &subject).unwrap()).unwrap();
        file
    };
    let node = request("node1.example.net");
    assert!(bench.ok(&["ca", "sign", "ca", &node]).contains("BEGIN CERTIFICATE"));
    bench.ok(&["ca", "sign", "ca", &node, "--identity", "node1.example.net", "--out", "node1.pem"]);
    assert_eq!(fact("node1.pem", "subject"), "CN=node1.example.net");
    assert_eq!(fact(&node, "key"), "P-256");
    let other = bench.refused(&["ca", "sign", "ca", &node, "--identity", "node2.example.net"]);
    assert!(other.contains("does not match identity"), "{other}");
    // A node may not have the name of a person, unless somebody says so.
    let person = request("eve.mcollective");
    assert!(bench.refused(&["ca", "sign", "ca", &person]).contains("--allow-any-name"));
    assert!(bench.ok(&["ca", "sign", "ca", &person, "--allow-any-name"]).contains("BEGIN CERTIFICATE"));
    fs::write(bench.path().join("junk.csr"), "junk").unwrap();
    assert!(bench.refused(&["ca", "sign", "ca", "junk.csr"]).contains("not PEM"));
}

#[test]
fn build_settings_are_shown() {
    let bench = Bench::new();
    let shown = bench.ok(&["buildinfo"]);
    assert!(shown.starts_with("Choria build settings:\n\nBuild Data:\n\n"), "{shown}");
    let dependencies = bench.ok(&["buildinfo", "-D"]);
    assert!(dependencies.contains("\n  rustls 0."), "{dependencies}");
    let document: Value = serde_json::from_str(&bench.ok(&["buildinfo", "--json"])).unwrap();
    assert_eq!(document["Server Settings"]["Supports Provisioning"], "false");

    bench.ok(&["jwt", "keys", "a.seed", "a.public"]);
    bench.ok(&["jwt", "provisioning", "t.jwt", "a.seed", "--urls", "a:4222", "--token", "hunter2", "--default"]);
    let output = choria_in(bench.path(), &["buildinfo"]).env("CHORIA_PROVISIONING_JWT", "t.jwt").output().unwrap();
    let shown = stdout(&output);
    assert!(shown.contains("            Provisioning Brokers: a:4222\n") && !shown.contains("hunter2"), "{shown}");
    assert_eq!(stderr(&output), "");
}
