//! The built-in helper with real files and a real authority.

use std::path::Path;
use std::sync::Arc;

use choria_security::ca::{CA_FILE, CA_KEY_FILE};
use choria_security::keys::KeyKind;
use choria_security::{cert, csr};
use choria_tokens::ProvisioningClaims;
use serde_json::json;

use super::*;
use crate::config::Helper;
use crate::helper::{CsrReply, Runner};
use crate::testing::{SECRET, world};

const NODE: &str = "web1.example.net";

/// A directory with rules, an authority and the configuration that names them.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new(rules: &str) -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        lab.write("rules.yaml", rules);
        lab.authority("ca", "Lab CA");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn authority(&self, directory: &str, name: &str) {
        CertificateAuthority::create(self.path(directory), name, KeyKind::P256, world().unix).unwrap();
    }

    fn config(&self, extra: &str) -> ProvisionerConfig {
        let dir = self.dir.path().display();
        let verify = world().signer.verification_file().display();
        let text = format!(
            "token: {SECRET}\njwt_verify_cert: {verify}\nfeatures: {{pki: true, jwt: true}}\nhelper_mode: builtin\nrules: {dir}/rules.yaml\nca_directory: {dir}/ca\n{extra}"
        );
        ProvisionerConfig::from_text(Path::new("p.yaml"), &text).unwrap()
    }

    fn load(&self) -> Builtin {
        self.try_load().unwrap()
    }

    fn try_load(&self) -> Result<Builtin, BuiltinError> {
        let config = self.config("");
        let Some(Helper::Builtin(settings)) = &config.helper else { panic!("builtin") };
        Builtin::load(settings, &config)
    }
}

fn question(identity: &str) -> Question {
    let text = world().csr(identity);
    let reply = CsrReply { csr: text.clone(), public_key: String::new(), ssldir: "/etc/choria/ssl".to_owned() };
    let facts = csr::inspect(&text).unwrap();
    Question {
        identity: Arc::from(identity),
        csr: Some((reply, CheckedCsr { facts })),
        inventory: json!({"version": "1", "facts": {"dc": "ams", "os": {"family": "Debian"}, "mem": 2048}}).to_string(),
        jwt: Some(ProvisioningClaims {
            cht: choria_tokens::Secret::new(SECRET),
            extensions: json!({"tenant": "t9"}).as_object().cloned(),
            ..ProvisioningClaims::default()
        }),
    }
}

const SMALL: &str = "rules:
  - identity: \"*.example.net\"
    configuration:
      plugin.choria.middleware_hosts: broker.example.net:4222
";

#[test]
fn the_smallest_rules_make_a_fleet_member() {
    let lab = Lab::new(SMALL);
    let answer = lab.load().answer(&question(NODE), world().unix).unwrap();
    let expected = [
        ("identity", NODE),
        ("plugin.choria.middleware_hosts", "broker.example.net:4222"),
        ("plugin.choria.server.provision", "false"),
        ("plugin.security.file.ca", "/etc/choria/ssl/ca.pem"),
        ("plugin.security.file.certificate", "/etc/choria/ssl/certificate.pem"),
        ("plugin.security.file.key", "/etc/choria/ssl/private.pem"),
        ("plugin.security.provider", "file"),
    ];
    assert_eq!(answer.configuration, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let facts = cert::first_from_pem(&answer.certificate).unwrap();
    assert_eq!((facts.common_names, facts.dns_names), (vec![NODE.to_owned()], vec![NODE.to_owned()]));
    assert_eq!(answer.ca, std::fs::read_to_string(lab.path("ca").join(CA_FILE)).unwrap());

    let other = lab.load().answer(&question("web1.elsewhere.net"), world().unix).unwrap();
    assert!(other.defer && other.msg.contains("no rule of") && other.msg.contains("rules.yaml matches"), "{other:?}");
}

#[test]
fn certificate_and_ca_are_of_one_authority_whenever_the_files_are_replaced() {
    let lab = Lab::new(SMALL);
    let builtin = lab.load();
    lab.authority("new", "New CA");
    let check = |builtin: &Builtin, expected: &str| {
        builtin.next_look.store(0, Ordering::Relaxed);
        let (answer, _) = builtin.run(&question(NODE)).unwrap();
        let issuer = cert::first_from_pem(&answer.ca).unwrap();
        assert!(issuer.subject.contains(expected), "{}", issuer.subject);
        let case = choria_security::chain::check_client_chain(
            &answer.certificate,
            &choria_security::trust::Authorities::from_pem(&answer.ca).unwrap(),
            world().unix,
        );
        assert!(case.is_ok(), "{case:?}");
    };
    check(&builtin, "Lab CA");
    std::fs::copy(lab.path("new").join(CA_FILE), lab.path("ca").join(CA_FILE)).unwrap();
    check(&builtin, "Lab CA");
    std::fs::copy(lab.path("new").join(CA_KEY_FILE), lab.path("ca").join(CA_KEY_FILE)).unwrap();
    check(&builtin, "New CA");
}

#[test]
fn a_runner_is_made_whole_or_not_at_all() {
    let lab = Lab::new(SMALL);
    assert!(Runner::new(&lab.config("")).is_ok());
    lab.write("rules.yaml", "rules:\n  - identiy: x\n");
    let error = Runner::new(&lab.config("")).unwrap_err().to_string();
    assert!(error.starts_with("rules: ") && error.contains("rules.yaml:2:14: unknown key identiy"), "{error}");
    lab.write("rules.yaml", SMALL);
    std::fs::remove_file(lab.path("ca").join(CA_KEY_FILE)).unwrap();
    let error = Runner::new(&lab.config("")).unwrap_err().to_string();
    assert!(error.contains("ca-key.pem") && error.contains("choria ca init"), "{error}");
}
