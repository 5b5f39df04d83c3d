//! The helper: signs with the real authority and makes a configuration, or does what helpers do when they are broken.
//!
//! Everything it makes carries the number of its attempt, so that mixtures are seen.

use std::collections::BTreeMap;
use std::time::Duration;

use choria_provisioner::helper::{HelperAnswer, HelperError};
use choria_security::ca::{CertificateAuthority, IssueRequest, SigningPolicy};
use choria_security::keys::KeyKind;
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Map, Value, json};

use crate::material::{BEGINNING, Material};
use crate::scenario::pick;
use crate::stats::Stats;
use crate::trace::Time;

/// Where the helper puts keys that it makes itself: a directory that no machine has.
pub(crate) const HELPER_SSLDIR: &str = "/simulated/var/lib/choria/ssl";
/// Key of a configuration that holds the number of the attempt. One that is known: the search for what an unknown one might
/// have meant would take more time than all else.
pub(crate) const ATTEMPT: &str = "plugin.nats.user";

/// What one helper call made.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) identity: String,
    pub(crate) certificate: String,
    pub(crate) ca: String,
}

/// How a helper misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mischief {
    Fails,
    Crashes,
    TimesOut,
    Garbage,
    Defers,
    ShutsDown,
    /// A certificate for a key of somebody else.
    ForeignKey,
    /// A certificate for another node.
    ForeignName,
    /// The certificate of one authority, the CA certificate of another.
    OtherAuthority,
    /// Half of what belongs together.
    Half,
    NoConfiguration,
    /// A value that would be two settings.
    Injection,
    /// A configuration that leads straight back.
    ProvisionAgain,
    /// Keys that the node will not find, which the provisioner cannot know.
    MissingKey,
}

const MISCHIEF: [Mischief; 14] = [
    Mischief::Fails,
    Mischief::Crashes,
    Mischief::TimesOut,
    Mischief::Garbage,
    Mischief::Defers,
    Mischief::ShutsDown,
    Mischief::ForeignKey,
    Mischief::ForeignName,
    Mischief::OtherAuthority,
    Mischief::Half,
    Mischief::NoConfiguration,
    Mischief::Injection,
    Mischief::ProvisionAgain,
    Mischief::MissingKey,
];

/// All helpers of a history: they share their books.
#[derive(Debug, Default)]
pub(crate) struct Helper {
    /// Which authority signs now.
    pub(crate) authority: usize,
    /// What was made, by number of the attempt.
    pub(crate) attempts: Vec<Attempt>,
}

/// How one call goes.
pub(crate) struct Run {
    pub(crate) takes: Time,
    pub(crate) result: Result<HelperAnswer, HelperError>,
    /// For the history.
    pub(crate) what: &'static str,
    /// Number of the attempt, if something was made.
    pub(crate) attempt: Option<usize>,
}

fn command() -> String {
    "/simulated/helper".to_owned()
}

impl Helper {
    /// Asks a helper. `mischief`: chance that it misbehaves.
    pub(crate) fn ask(
        &mut self,
        request: &str,
        now: Time,
        mischief: f64,
        random: &mut SmallRng,
        stats: &mut Stats,
    ) -> Run {
        stats.helper_calls += 1;
        let mut takes = Duration::from_millis(random.random_range(5..80));
        if mischief > 0.0 && random.random_bool(mischief / 3.0) {
            stats.helper_slow += 1;
            takes = Duration::from_millis(random.random_range(1000..9900));
        }
        let wrong = (mischief > 0.0 && random.random_bool(mischief)).then(|| *pick(random, &MISCHIEF));
        let failed = |what, result| Run { takes, result: Err(result), what, attempt: None };
        let pool = |reason: &str| HelperError::Pool { command: command(), reason: reason.to_owned() };
        let said = |text: &str| HelperAnswer::parse(text.as_bytes());
        match wrong {
            Some(Mischief::Fails) => {
                stats.helper_failures += 1;
                failed("fails", HelperError::Failed { command: command(), status: "exit status 3".to_owned() })
            }
            Some(Mischief::Crashes) => {
                stats.helper_failures += 1;
                failed("crashes", pool("ended while it had this request"))
            }
            Some(Mischief::TimesOut) => {
                stats.helper_failures += 1;
                let timeout = Duration::from_secs(10);
                let error = HelperError::TimedOut { command: command(), timeout, received: 0 };
                Run { takes: timeout, ..failed("times out", error) }
            }
            Some(Mischief::Garbage) => {
                stats.helper_garbage += 1;
                let texts =
                    ["", "{", "[]", "{} {}", "{\"configuration\":{\"a\":1}}", "\u{feff}{}", "null null", "nope"];
                let text = pick(random, &texts);
                let result = said(text);
                let result = result.map_err(|reason| HelperError::Decode { command: command(), reason });
                Run { takes, result, what: "prints garbage", attempt: None }
            }
            Some(Mischief::Defers) => {
                stats.helper_deferrals += 1;
                let result = said(r#"{"defer":true,"msg":"not yet"}"#).map_err(|reason| pool(&reason));
                Run { takes, result, what: "defers", attempt: None }
            }
            Some(Mischief::ShutsDown) => {
                stats.helper_shutdowns += 1;
                let result = said(r#"{"shutdown":true,"msg":"not here"}"#).map_err(|reason| pool(&reason));
                Run { takes, result, what: "shuts the node down", attempt: None }
            }
            other => {
                let attempt = self.attempts.len();
                let (text, what) = self.answer(request, now, other, stats);
                let result = HelperAnswer::parse(text.to_string().as_bytes()).map_err(|reason| pool(&reason));
                Run { takes, result, what, attempt: Some(attempt) }
            }
        }
    }

    /// Makes a certificate and a configuration.
    fn answer(
        &mut self,
        request: &str,
        now: Time,
        wrong: Option<Mischief>,
        stats: &mut Stats,
    ) -> (Value, &'static str) {
        let material = Material::get();
        let unix = BEGINNING + i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let request: Value = serde_json::from_str(request).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let identity = text(&request["identity"]);
        let csr = text(&request["csr"]["csr"]);
        let authority = &material.authorities[self.authority];
        let mut answer = Map::new();
        let mut ssldir = text(&request["csr"]["ssldir"]);
        let mut certificate = if csr.is_empty() {
            ssldir = HELPER_SSLDIR.to_owned();
            let issued = authority.issue(&IssueRequest::new(&identity, KeyKind::P256), unix);
            let issued = issued.expect("the authority can issue");
            answer.insert("key".into(), Value::from(issued.key.to_pem().as_str()));
            answer.insert("ssldir".into(), Value::from(ssldir.as_str()));
            issued.certificate.pem
        } else {
            // The provisioner has checked it, so it can be signed.
            authority.sign_csr(&csr, &SigningPolicy::new(&identity), unix).map(|made| made.pem).unwrap_or_default()
        };
        let mut ca = authority.certificate_pem().to_owned();
        let attempt = self.attempts.len();
        self.attempts.push(Attempt { identity: identity.clone(), certificate: certificate.clone(), ca: ca.clone() });
        let mut configuration = configuration(&identity, attempt, &ssldir);
        if wrong.is_some() {
            stats.helper_unusable += 1;
        }
        let what = match wrong {
            Some(Mischief::ForeignKey) => {
                certificate = issue(authority, &identity, unix);
                "certifies another key"
            }
            Some(Mischief::ForeignName) => {
                certificate = issue(authority, "somebody.else.test", unix);
                "certifies another node"
            }
            Some(Mischief::OtherAuthority) => {
                let other = &material.authorities[(self.authority + 1) % material.authorities.len()];
                other.certificate_pem().clone_into(&mut ca);
                "mixes authorities"
            }
            Some(Mischief::Half) => {
                ca.clear();
                "forgets the CA"
            }
            Some(Mischief::NoConfiguration) => {
                configuration.clear();
                "makes no configuration"
            }
            Some(Mischief::Injection) => {
                configuration.insert("classesfile".into(), "1\nplugin.choria.server.provision = true".into());
                "injects a setting"
            }
            Some(Mischief::ProvisionAgain) => {
                configuration.insert("plugin.choria.server.provision".into(), "true".into());
                "leads back into provisioning"
            }
            Some(Mischief::MissingKey) => {
                configuration.insert("plugin.security.file.key".into(), "/simulated/no/such.pem".into());
                "names a key that is not there"
            }
            _ => "makes a configuration",
        };
        let tag = format!("# attempt {attempt}\npolicy default allow\n");
        answer.insert("certificate".into(), Value::from(certificate));
        answer.insert("ca".into(), Value::from(ca));
        answer.insert("configuration".into(), json!(configuration));
        answer.insert("action_policies".into(), json!({ "simulation.policy": tag }));
        if attempt.is_multiple_of(3) {
            answer.insert(
                "opa_policies".into(),
                json!({ "simulation.rego": format!("# attempt {attempt}\npackage x\n") }),
            );
        }
        (Value::Object(answer), what)
    }
}

fn issue(authority: &CertificateAuthority, name: &str, unix: i64) -> String {
    let issued = authority.issue(&IssueRequest::new(name, KeyKind::P256), unix);
    issued.expect("the authority can issue").certificate.pem
}

/// The configuration of a member.
pub(crate) fn configuration(identity: &str, attempt: usize, ssldir: &str) -> BTreeMap<String, String> {
    let file = |name: &str| format!("{ssldir}/{name}");
    let settings = [
        ("identity", identity.to_owned()),
        ("plugin.choria.middleware_hosts", "broker.lab.test:4222".to_owned()),
        ("plugin.choria.server.provision", "false".to_owned()),
        ("plugin.security.provider", "file".to_owned()),
        ("plugin.security.file.certificate", file("certificate.pem")),
        ("plugin.security.file.key", file("private.pem")),
        ("plugin.security.file.ca", file("ca.pem")),
        (ATTEMPT, attempt.to_string()),
        ("plugin.nats.pass", format!("secret of {identity}")),
    ];
    settings.map(|(key, value)| (key.to_owned(), value)).into()
}
