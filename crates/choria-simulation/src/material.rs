//! What all histories of a process share because making it takes time: authorities, tokens, rules.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use choria_broker::policy::{ClientHosts, PolicyInputs, ProvisioningInputs, Secret};
use choria_provisioner::config::ProvisionerConfig;
use choria_provisioner::engine::Settings;
use choria_provisioner::rules::Rules;
use choria_security::ca::CertificateAuthority;
use choria_security::keys::KeyKind;
use choria_security::trust::Authorities;
use choria_tokens::{ProvisioningRequest, Seed, SigningKey, issue_provisioning};

use crate::scenario::FlowKind;

/// Unix seconds at the beginning of every history.
pub(crate) const BEGINNING: i64 = 1_800_000_000;
/// The secret of all provisioning tokens.
pub(crate) const TOKEN_SECRET: &str = "toomanysecrets";
/// The password of the provisioning account.
pub(crate) const PASSWORD: &str = "provisioner-secret";
/// Authorities that may follow each other.
pub(crate) const AUTHORITIES: usize = 3;
/// A year, longer than any history.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// Everything that is made once.
pub(crate) struct Material {
    pub(crate) authorities: Vec<CertificateAuthority>,
    /// All of them, as a broker trusts them.
    pub(crate) trust: Authorities,
    pub(crate) policy: PolicyInputs,
    rules: Vec<(Arc<Rules>, Settings)>,
    signer: SigningKey,
    tokens: Mutex<HashMap<Duration, String>>,
}

impl Material {
    /// Made at the first call.
    pub(crate) fn get() -> &'static Self {
        static MATERIAL: OnceLock<Material> = OnceLock::new();
        MATERIAL.get_or_init(Self::make)
    }

    fn make() -> Self {
        let authorities: Vec<CertificateAuthority> = (0..AUTHORITIES)
            .map(|number| {
                let made = CertificateAuthority::generate(&format!("CA {number}"), KeyKind::P256, BEGINNING - 86_400);
                made.expect("an authority can be made").0
            })
            .collect();
        let bundle: String = authorities.iter().map(CertificateAuthority::certificate_pem).collect();
        let signer = SigningKey::from_seed(Seed::from_bytes([7; 32]));
        let verifier = Seed::from_bytes([7; 32]).public_hex();
        let rules = FlowKind::ALL.map(|kind| {
            let config = config(kind, &verifier);
            (Arc::new(Rules::new(&config).expect("the rules can be made")), Settings::of(&config))
        });
        let policy = PolicyInputs {
            insecure_clear_text: false,
            provisioning: Some(ProvisioningInputs {
                client_password: Secret::new(PASSWORD).expect("it is not empty"),
                signer: Some(Arc::new(signer.verification_key())),
                allow_unbound_nodes: false,
            }),
            system: None,
            client_hosts: ClientHosts::default(),
            deny_server_connections: false,
        };
        Self {
            trust: Authorities::from_pem(&bundle).expect("the authorities' certificates can be read"),
            authorities,
            policy,
            rules: rules.into(),
            signer,
            tokens: Mutex::default(),
        }
    }

    /// Rules and settings of a provisioner for this flow.
    pub(crate) fn provisioner(&self, kind: FlowKind) -> (Arc<Rules>, Settings) {
        let index = FlowKind::ALL.iter().position(|other| *other == kind).unwrap_or_default();
        self.rules[index].clone()
    }

    /// A provisioning token that expires this long after the beginning, or after a year.
    pub(crate) fn token(&self, lives: Option<Duration>) -> String {
        let lives = lives.map_or(LONG, |lives| Duration::from_secs(lives.as_secs().max(1)));
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let made = tokens.entry(lives).or_insert_with(|| {
            let request = ProvisioningRequest {
                urls: "nats://broker.lab.test:4222".into(),
                provision_default: true,
                validity: Some(lives),
                ..ProvisioningRequest::new(TOKEN_SECRET)
            };
            issue_provisioning(&request, &self.signer, BEGINNING).expect("a token can be made")
        });
        made.clone()
    }
}

fn config(kind: FlowKind, verifier: &str) -> ProvisionerConfig {
    let features = match kind {
        FlowKind::TokenAndRequest => "jwt: true, pki: true",
        FlowKind::Request => "pki: true",
        FlowKind::HelperKey => "jwt: true",
    };
    let text = format!(
        "interval: 1m\nworkers: 2\nmax_nodes: 20\nverify_restart: true\ntoken: {TOKEN_SECRET}\njwt_verify_cert: {verifier}\nfeatures: {{{features}}}\n"
    );
    ProvisionerConfig::from_text(Path::new("provisioner.yaml"), &text).expect("the configuration is good")
}
