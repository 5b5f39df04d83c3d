//! The built-in helper with real files and a real authority.

use std::path::Path;
use std::sync::Arc;

use choria_security::ca::{CA_FILE, CA_KEY_FILE};
use choria_security::chain::check_client_chain;
use choria_security::keys::KeyKind;
use choria_security::trust::Authorities;
use choria_security::{cert, csr};
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

/// The rules that the documentation shows.
#[test]
fn documented_rules_are_rules() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
    let read = |name: &str| std::fs::read_to_string(format!("{root}{name}")).unwrap();
    assert!(read("docs/provisioner.md").contains(SMALL));
    let example = Lab::new(&read("examples/helpers/rules.yaml")).load();
    assert_eq!(example.rules.warnings(), Vec::<String>::new());
    let answer = example.answer(&question("web1.example.net"), world().unix).unwrap();
    assert!(!answer.defer && answer.denied.is_none(), "{answer:?}");
    assert_eq!(answer.configuration["collectives"], "mcollective,ams");
}

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

/// Asks the helper when it is time to look at the files again; returns whose certificate the node got, after checking that
/// it leads to the CA beside it.
fn issuer(builtin: &Builtin) -> String {
    builtin.next_look.store(0, Ordering::Relaxed);
    let (answer, _) = builtin.run(&question(NODE)).unwrap();
    let authorities = Authorities::from_pem(&answer.ca).unwrap();
    assert_eq!(check_client_chain(&answer.certificate, &authorities, world().unix), Ok(()));
    cert::first_from_pem(&answer.ca).unwrap().subject
}

#[test]
fn certificate_and_ca_are_of_one_authority_when_the_files_are_replaced() {
    let lab = Lab::new(SMALL);
    let builtin = lab.load();
    lab.authority("new", "New CA");
    let check = |builtin: &Builtin, expected: &str| assert!(issuer(builtin).contains(expected));
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

#[test]
fn authorities_that_come_and_go_in_the_middle_of_a_wave_never_mix() {
    let lab = Lab::new(SMALL);
    let builtin = lab.load();
    let names = ["Lab CA", "Other CA"];
    lab.authority("other", names[1]);
    std::fs::create_dir(lab.path("first")).unwrap();
    let copy = |from: &str, to: &str, file: &str| {
        std::fs::copy(lab.path(from).join(file), lab.path(to).join(file)).unwrap();
    };
    [CA_FILE, CA_KEY_FILE].iter().for_each(|file| copy("ca", "first", file));
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !over.load(Ordering::SeqCst) {
                seen.insert(issuer(&builtin));
            }
            seen
        });
        for round in 0..6 {
            let source = if round % 2 == 0 { "other" } else { "first" };
            // Not one of the ways in which such files should be replaced.
            [CA_FILE, CA_KEY_FILE].iter().for_each(|file| copy(source, "ca", file));
            let expected = names[(round + 1) % 2];
            choria_testkit::wait_until(std::time::Duration::from_secs(20), "it is taken over", || {
                builtin.authority.as_ref().unwrap().current().facts().subject.contains(expected)
            });
        }
        over.store(true, Ordering::SeqCst);
        assert_eq!(asking.join().unwrap().len(), 2, "both signed");
    });
}

#[test]
fn variables_and_terms_reach_configuration_and_certificate() {
    let lab = Lab::new(
        "rules:
- configuration:
    identity: '{{jwt.extensions.tenant}}-{{identity}}'
    collectives: 'mcollective,{{facts.dc}}'
    plugin.security.file.ca: /etc/other/ca.pem
  certificate: {validity: 1d, dns_names: '{{jwt.extensions.tenant}}.example.net'}
  opa_policies: {default.rego: 'package x'}
",
    );
    let answer = lab.load().answer(&question(NODE), world().unix).unwrap();
    assert_eq!(answer.configuration["identity"], "t9-web1.example.net");
    assert_eq!(answer.configuration["collectives"], "mcollective,ams");
    assert_eq!(answer.configuration["plugin.security.file.ca"], "/etc/other/ca.pem");
    assert_eq!(answer.opa_policies["default.rego"], "package x");
    let facts = cert::first_from_pem(&answer.certificate).unwrap();
    assert_eq!(facts.dns_names, [NODE, "t9.example.net"]);
    assert_eq!(facts.not_after - world().unix, 86_400);
}

#[test]
fn another_security_provider_gets_no_files_of_ours() {
    let lab = Lab::new("rules: [{configuration: {plugin.security.provider: puppet}}]");
    let answer = lab.load().answer(&question(NODE), world().unix).unwrap();
    assert!(!answer.configuration.keys().any(|key| key.starts_with("plugin.security.file")), "{answer:?}");
    let mut nowhere = question(NODE);
    nowhere.csr.as_mut().unwrap().0.ssldir.clear();
    let answer = Lab::new(SMALL).load().answer(&nowhere, world().unix).unwrap();
    assert!(answer.defer && answer.msg.contains("needs {{ssldir}}: the node named none"), "{answer:?}");
}

#[test]
fn what_cannot_be_signed_fails_with_the_reason() {
    let lab = Lab::new("rules: [{configuration: {}, certificate: {dns_names: bob.mcollective}}]");
    let error = lab.load().answer(&question(NODE), world().unix).unwrap_err();
    assert_eq!(error.reason(), "helper_authority");
    assert!(error.to_string().contains("bob.mcollective matches denied certificate pattern"), "{error}");
    let later = world().unix + 11 * 365 * 86_400;
    let error = Lab::new(SMALL).load().answer(&question(NODE), later).unwrap_err().to_string();
    assert!(error.contains("the CA certificate is valid from"), "{error}");
}

#[test]
fn endings_are_told_apart() {
    let lab = Lab::new("rules: [{identity: a, defer: x}, {identity: b, shutdown: old}, {identity: c, deny: z}]");
    let builtin = lab.load();
    let answer = |name: &str| builtin.answer(&question(name), world().unix).unwrap();
    let (a, b, c) = (answer("a"), answer("b"), answer("c"));
    assert!((a.defer, a.shutdown, a.denied.is_none()) == (true, false, true) && a.msg.starts_with("x, says"));
    assert!((b.defer, b.shutdown, b.denied.is_none()) == (false, true, true) && b.msg.starts_with("old, says"));
    assert!((c.defer, c.shutdown) == (false, false) && c.denied.unwrap().starts_with("z, says"));
}
