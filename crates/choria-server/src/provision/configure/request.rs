//! The inputs of `configure`.

use choria_rpc::Reply;

use crate::inputs::Inputs;

/// Inputs of one `configure` call; empty texts stand for absent ones.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConfigureRequest {
    /// JSON object of configuration keys and texts.
    pub config: String,
    /// Certificate of the node, PEM, leaf first.
    pub certificate: String,
    /// Certificates of the CA, PEM.
    pub ca: String,
    /// Directory for certificate, CA and key.
    pub ssldir: String,
    /// Private key, encrypted for this node (spec 03 §7.3).
    pub key: String,
    /// Public key of the sender's half of the agreement, hex.
    pub ecdh_public: String,
    /// Server token.
    pub server_jwt: String,
    /// Policy files: names and texts.
    pub action_policies: Vec<(String, String)>,
    /// Rego files: names and texts.
    pub opa_policies: Vec<(String, String)>,
}

impl std::fmt::Debug for ConfigureRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys, tokens and passwords inside the configuration stay out of logs.
        f.debug_struct("ConfigureRequest").field("ssldir", &self.ssldir).finish_non_exhaustive()
    }
}

impl ConfigureRequest {
    /// Reads the inputs.
    ///
    /// # Errors
    /// The reply to send when one has another type.
    pub fn read(inputs: Inputs<'_>) -> Result<Self, Reply> {
        let text = |name| inputs.text(name).map(str::to_owned);
        let texts = |name| {
            let list = inputs.texts(name)?;
            Ok::<_, Reply>(list.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
        };
        Ok(Self {
            config: text("config")?,
            certificate: text("certificate")?,
            ca: text("ca")?,
            ssldir: text("ssldir")?,
            key: text("key")?,
            ecdh_public: text("ecdh_public")?,
            server_jwt: text("server_jwt")?,
            action_policies: texts("action_policies")?,
            opa_policies: texts("opa_policies")?,
        })
    }
}
