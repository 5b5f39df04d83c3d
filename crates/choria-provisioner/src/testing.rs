//! What the tests of this crate share: a CA, a token signer, rules, a node that answers, a helper that decides.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use choria_protocol::rpc::ReplyBody;
use choria_security::ca::SigningPolicy;
use choria_security::csr::{self, Subject};
use choria_security::keys::{KeyKind, PrivateKey};
use choria_testkit::{TestCa, TokenSigner, unix_now};
use serde_json::{Value, json};

use crate::config::ProvisionerConfig;
use crate::flow::{Action, Now};
use crate::helper::HelperAnswer;
use crate::rules::Rules;

pub(crate) const SECRET: &str = "toomanysecrets";

pub(crate) struct World {
    pub(crate) ca: TestCa,
    pub(crate) signer: TokenSigner,
    pub(crate) token: String,
    pub(crate) key: PrivateKey,
    pub(crate) unix: i64,
}

/// Made once: keys and certificates take time.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let ca = TestCa::new();
        let signer = TokenSigner::ed25519(ca.directory());
        let token = signer.token(SECRET, "nats://localhost:4222");
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        World { ca, signer, token, key, unix: unix_now() }
    })
}

impl World {
    pub(crate) fn csr(&self, identity: &str) -> String {
        csr::create(&self.key, &Subject::common_name(identity)).unwrap()
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: Instant::now(), unix: self.unix }
    }

    /// What a good helper answers about a node that made a certificate request.
    pub(crate) fn answer(&self, identity: &str) -> HelperAnswer {
        let signed = self.ca.authority().sign_csr(&self.csr(identity), &SigningPolicy::new(identity), self.unix);
        HelperAnswer {
            certificate: signed.unwrap().pem,
            ca: self.ca.certificate_pem().to_owned(),
            ..self.plain_answer(identity)
        }
    }

    /// The same without certificates.
    pub(crate) fn plain_answer(&self, identity: &str) -> HelperAnswer {
        let configuration = [("identity", identity), ("plugin.choria.server.provision", "false")];
        HelperAnswer {
            configuration: configuration.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..HelperAnswer::default()
        }
    }

    /// Data of a good reply.
    pub(crate) fn data(&self, action: Action, identity: &str) -> Value {
        match action {
            Action::Jwt => json!({"jwt": self.token, "ecdh_public": ""}),
            Action::Inventory => json!({
                "agents": ["choria_provision", "choria_util", "discovery", "rpcutil"], "classes": [],
                "collectives": ["provisioning"], "data_plugins": [], "facts": {"dc": "ams"}, "machines": [],
                "main_collective": "provisioning", "version": "0.30.2", "upgradable": false
            }),
            Action::GenCsr => {
                json!({"csr": self.csr(identity), "public_key": self.key.public_pem(), "ssldir": "/etc/choria/ssl"})
            }
            Action::Configure => json!({"message": "Wrote 15 lines to /etc/choria/server.conf"}),
            Action::Restart => json!({"message": "Restarting Choria Server after 2s"}),
            Action::Shutdown => json!({"message": "Shutting Choria Server down after 1s"}),
        }
    }
}

/// A configuration with this secret and these features.
pub(crate) fn config(features: &str, extra: &str) -> ProvisionerConfig {
    let verify = world().signer.verification_file().display();
    let text = format!(
        "interval: 1m\nsite: lab\ntoken: {SECRET}\njwt_verify_cert: {verify}\nfeatures: {{{features}}}\n{extra}"
    );
    ProvisionerConfig::from_text(Path::new("p.yaml"), &text).unwrap()
}

pub(crate) fn rules(features: &str) -> Arc<Rules> {
    Arc::new(Rules::new(&config(features, "")).unwrap())
}

pub(crate) fn ok(action: Action, data: Value) -> ReplyBody {
    ReplyBody { action: action.name().to_owned(), statuscode: 0, statusmsg: "OK".to_owned(), data }
}

pub(crate) fn refused(action: Action, code: u8, message: &str) -> ReplyBody {
    ReplyBody { action: action.name().to_owned(), statuscode: code, statusmsg: message.to_owned(), data: json!({}) }
}
