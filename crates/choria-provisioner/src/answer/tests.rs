use std::time::Duration;

use choria_security::ca::{IssueRequest, SigningPolicy, Usage};
use choria_security::csr::{self, Subject};
use choria_security::keys::KeyKind;
use choria_security::transfer::{TransferKey, decrypt_key};
use choria_testkit::TestCa;

use super::*;
use crate::testing::{SECRET, world};

const NODE: &str = "n1.lab.test";

struct Case {
    claims: Option<ProvisioningClaims>,
    csr: Option<(CsrReply, CheckedCsr)>,
    ecdh_public: String,
}

impl Case {
    fn bare() -> Self {
        Self { claims: None, csr: None, ecdh_public: String::new() }
    }

    fn pki() -> Self {
        let text = world().csr(NODE);
        let facts = csr::inspect(&text).unwrap();
        let reply = CsrReply { csr: text, public_key: String::new(), ssldir: "/etc/choria/ssl".to_owned() };
        Self { csr: Some((reply, CheckedCsr { facts })), ..Self::bare() }
    }

    fn plan(&self, answer: HelperAnswer) -> Result<Plan, Refusal> {
        self.plan_at(answer, world().unix)
    }

    fn plan_at(&self, answer: HelperAnswer, now: i64) -> Result<Plan, Refusal> {
        let token = Secret::new(SECRET);
        let about = About {
            identity: NODE,
            token: &token,
            claims: self.claims.as_ref(),
            csr: self.csr.as_ref().map(|(reply, checked)| (reply, checked)),
            ecdh_public: &self.ecdh_public,
            now,
        };
        plan(answer, &about)
    }

    fn reason(&self, answer: HelperAnswer) -> &'static str {
        self.plan(answer).map_or_else(|refusal| refusal.reason, |_| "ok")
    }
}

fn with(key: &str, value: &str) -> HelperAnswer {
    let mut answer = world().plain_answer(NODE);
    answer.configuration.insert(key.to_owned(), value.to_owned());
    answer
}

#[test]
fn all_ten_inputs_are_sent_with_sorted_and_escaped_configuration() {
    let plan = Case::bare().plan(with("a", "<&>\u{2028}")).unwrap();
    assert_eq!(
        plan.data["config"],
        r#"{"a":"\u003c\u0026\u003e\u2028","identity":"n1.lab.test","plugin.choria.server.provision":"false"}"#
    );
    assert_eq!(plan.data.len(), 10);
    assert_eq!(plan.data["token"], SECRET);
    assert_eq!(plan.data["action_policies"], Value::Object(Map::new()));
}

#[test]
fn design6_a_line_end_in_a_value_cannot_inject_settings() {
    let case = Case::bare();
    for value in ["b\nc=d", "b\rc=d", "a\0", "\u{1b}[31m"] {
        assert_eq!(case.reason(with("a", value)), "answer_configuration_value", "{value:?}");
    }
    for key in ["k\ne", "a=b", "", " a", "a ", "#a"] {
        assert_eq!(case.reason(with(key, "v")), "answer_configuration_key", "{key:?}");
    }
    for (key, value) in [("a", "tab\tinside"), ("a", ""), ("plugin.x", "a = b # c"), ("a\u{fffd}", "b")] {
        assert_eq!(case.reason(with(key, value)), "ok", "{key:?} {value:?}");
    }
}

#[test]
fn design6_policy_names_stay_in_their_directory() {
    let case = Case::bare();
    for (name, good) in [
        ("rpcutil.policy", true),
        ("a_b-c.policy", true),
        ("../x.policy", false),
        ("sub/x.policy", false),
        ("x.rego", false),
        ("rpcutil", false),
        (".policy", false),
        ("..policy", false),
        ("", false),
        ("a\nb.policy", false),
    ] {
        let mut answer = world().plain_answer(NODE);
        answer.action_policies.insert(name.to_owned(), "text".to_owned());
        assert_eq!(case.reason(answer), if good { "ok" } else { "answer_policy" }, "{name:?}");
    }
    let mut answer = world().plain_answer(NODE);
    answer.opa_policies.insert("default.rego".to_owned(), "text".to_owned());
    let plan = case.plan(answer).unwrap();
    assert_eq!(plan.data["opa_policies"]["default.rego"], "text");
}

#[test]
fn a_configuration_that_leads_back_into_provisioning_is_refused() {
    let mut case = Case::bare();
    for value in ["true", "1", "yes", "TRUE", "on", "maybe"] {
        assert_eq!(case.reason(with(PROVISION, value)), "answer_provision_enabled", "{value}");
    }
    let mut without = world().plain_answer(NODE);
    without.configuration.remove(PROVISION);
    assert_eq!(case.reason(without.clone()), "ok", "fine unless the token provisions by default");
    case.claims = Some(ProvisioningClaims { chpd: true, ..ProvisioningClaims::default() });
    assert_eq!(case.reason(without), "answer_provision_missing");
    for value in ["false", "0", "no"] {
        assert_eq!(case.reason(with(PROVISION, value)), "ok", "{value}");
    }
}

#[test]
fn an_answer_without_configuration_is_refused_before_anything_is_sent() {
    assert_eq!(Case::bare().reason(HelperAnswer::default()), "answer_no_configuration");
}

#[test]
fn a_renamed_node_is_expected_under_its_new_name() {
    let plan = Case::bare().plan(with("identity", "other.lab.test")).unwrap();
    assert_eq!(plan.home, "other.lab.test");
    assert_eq!(plan.notes.len(), 1);
    assert_eq!(Case::bare().reason(with("identity", "a b")), "answer_identity");
}

#[test]
fn a_good_certificate_set_passes() {
    let plan = Case::pki().plan(world().answer(NODE)).unwrap();
    assert_eq!(plan.data["ssldir"], "/etc/choria/ssl", "the node's directory, not the helper's");
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
}

#[test]
fn half_a_certificate_set_is_refused() {
    let case = Case::pki();
    let good = || world().answer(NODE);
    let mut no_dir = Case::pki();
    no_dir.csr.as_mut().unwrap().0.ssldir.clear();
    assert_eq!(case.reason(HelperAnswer { ca: String::new(), ..good() }), "answer_certificate_set");
    assert_eq!(case.reason(HelperAnswer { certificate: String::new(), ..good() }), "answer_certificate_set");
    assert_eq!(no_dir.reason(good()), "answer_certificate_set");
    assert_eq!(no_dir.reason(HelperAnswer { ssldir: "/etc/ssl".into(), ..good() }), "ok");
    assert_eq!(no_dir.reason(HelperAnswer { ssldir: "../ssl".into(), ..good() }), "answer_ssldir");
}

#[test]
fn design6_the_certificate_must_be_for_the_nodes_key_and_name() {
    let case = Case::pki();
    let now = world().unix;
    let authority = world().ca.authority();
    let other_key = world().ca.issue(&IssueRequest::new(NODE, KeyKind::P256));
    let wrong_key = HelperAnswer { certificate: other_key.certificate.pem, ..world().answer(NODE) };
    assert_eq!(case.reason(wrong_key), "answer_certificate");

    let other_name = csr::create(&world().key, &Subject::common_name("other.lab.test")).unwrap();
    let signed = authority.sign_csr(&other_name, &SigningPolicy::new("other.lab.test"), now).unwrap();
    let wrong_name = HelperAnswer { certificate: signed.pem, ..world().answer(NODE) };
    let error = case.plan(wrong_name).unwrap_err().error;
    assert!(error.contains("other.lab.test") && error.contains("not for n1.lab.test"), "{error}");

    let short = SigningPolicy { validity: Duration::from_secs(60), ..SigningPolicy::new(NODE) };
    let expiring = authority.sign_csr(&world().csr(NODE), &short, now).unwrap().pem;
    let answer = || HelperAnswer { certificate: expiring.clone(), ..world().answer(NODE) };
    assert!(case.plan_at(answer(), now).is_ok());
    assert_eq!(case.plan_at(answer(), now + 3600).unwrap_err().reason, "answer_certificate", "expired");
    for garbage in ["C", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\0"] {
        assert_eq!(
            case.reason(HelperAnswer { certificate: garbage.into(), ..world().answer(NODE) }),
            "answer_certificate"
        );
        assert_eq!(case.reason(HelperAnswer { ca: garbage.into(), ..world().answer(NODE) }), "answer_certificate");
    }
}

#[test]
fn the_certificate_must_lead_to_the_ca_that_came_with_it() {
    let other = TestCa::new();
    let answer = HelperAnswer { ca: other.certificate_pem().to_owned(), ..world().answer(NODE) };
    let error = Case::pki().plan(answer).unwrap_err().error;
    assert!(error.contains("not signed by the ca that came with it"), "{error}");
    let server_only = IssueRequest { usage: Usage::Server, ..IssueRequest::new(NODE, KeyKind::P256) };
    let issued = world().ca.issue(&server_only);
    let answer =
        HelperAnswer { certificate: issued.certificate.pem, ssldir: "/etc/ssl".into(), ..world().answer(NODE) };
    let error = Case::bare().plan(answer).unwrap_err().error;
    assert!(error.contains("client authentication"), "{error}");
}

#[test]
fn no_certificate_after_a_csr_is_refused_only_where_it_must_fail() {
    let case = Case::pki();
    let plan = case.plan(world().plain_answer(NODE)).unwrap();
    assert_eq!(plan.notes.len(), 1);
    assert_eq!(case.reason(with("plugin.security.provider", "file")), "answer_no_certificate");
}

#[test]
fn a_key_from_the_helper_travels_encrypted_and_belongs_to_the_certificate() {
    let node = TransferKey::generate().unwrap();
    let case = Case { ecdh_public: node.public_hex(), ..Case::bare() };
    let issued = world().ca.issue(&IssueRequest::new(NODE, KeyKind::Rsa2048));
    let answer = || HelperAnswer {
        key: Secret::new(issued.key.to_pem().as_str()),
        certificate: issued.certificate.pem.clone(),
        ca: world().ca.certificate_pem().to_owned(),
        ssldir: "/etc/choria/ssl".to_owned(),
        ..world().plain_answer(NODE)
    };
    let plan = case.plan(answer()).unwrap();
    let sealed = plan.data["key"].as_str().unwrap();
    assert!(sealed.contains("Proc-Type: 4,ENCRYPTED"), "{sealed}");
    let opened = decrypt_key(sealed, &node, plan.data["ecdh_public"].as_str().unwrap()).unwrap();
    assert_eq!(opened.public_der(), issued.key.public_der());

    assert_eq!(Case::bare().reason(answer()), "answer_key", "the node sent no key exchange key");
    let other = world().ca.issue(&IssueRequest::new(NODE, KeyKind::P256));
    let mismatch = HelperAnswer { key: Secret::new(other.key.to_pem().as_str()), ..answer() };
    assert_eq!(case.reason(mismatch), "answer_certificate");
    assert_eq!(case.reason(HelperAnswer { key: Secret::new("notpem"), ..answer() }), "answer_key");
    let bad_peer = Case { ecdh_public: "00".repeat(32), ..Case::bare() };
    assert_eq!(bad_peer.reason(answer()), "answer_key", "a low order point");
}

#[test]
fn an_answer_that_fits_no_message_is_refused() {
    assert_eq!(Case::bare().reason(with("a", &"x".repeat(MAX_INPUTS))), "answer_size");
    let mut many = world().plain_answer(NODE);
    many.opa_policies = (0..=MAX_POLICIES).map(|n| (format!("p{n}.rego"), String::new())).collect();
    assert_eq!(Case::bare().reason(many), "answer_policy");
}
