//! Keys, certificates, tokens, and whom to trust (spec 01 §10.1).

use std::path::PathBuf;

use crate::key::{Kind, Spec};
use crate::keys::settings;
use crate::types::SecurityProvider;

settings! {
    SECURITY_GROUP, "Security", "Keys, certificates, tokens, and whom to trust.";
    keys {
        /// Where identities come from. This version implements `file`; programs refuse to start with any other.
        SECURITY_PROVIDER: SecurityProvider = Spec::new("plugin.security.provider", Kind::Choice(SecurityProvider::WORDS)).default("puppet");
        /// Certificate of this program, PEM.
        SECURITY_FILE_CERTIFICATE: Option<PathBuf> = Spec::new("plugin.security.file.certificate", Kind::Path);
        /// Private key of that certificate, PEM.
        SECURITY_FILE_KEY: Option<PathBuf> = Spec::new("plugin.security.file.key", Kind::Path);
        /// Certificates of the authorities that are trusted, PEM.
        SECURITY_FILE_CA: Option<PathBuf> = Spec::new("plugin.security.file.ca", Kind::Path);
        /// Accept servers whose certificate holds no subject alternative name, by their common name.
        SECURITY_SUPPORT_LEGACY_CERTIFICATES: bool = Spec::new("plugin.security.support_legacy_certificates", Kind::Boolean).default("0");
        /// Patterns of certificate names that may sign for any caller.
        SECURITY_PRIVILEGED_USERS: Vec<String> = Spec::new("plugin.choria.security.privileged_users", Kind::List)
            .default("\\.privileged.mcollective$,\\.privileged.choria$");
        /// Patterns of certificate names that may send requests.
        SECURITY_CERTNAME_WHITELIST: Vec<String> = Spec::new("plugin.choria.security.certname_whitelist", Kind::List)
            .default("\\.mcollective$,\\.choria$");
        /// TLS suites to allow, by their Go names; empty allows every suite this program has.
        SECURITY_CIPHER_SUITES: Vec<String> = Spec::new("plugin.security.cipher_suites", Kind::List).default("");
        /// Key exchange curves to allow, by their Go names; empty allows every one this program has.
        SECURITY_ECC_CURVES: Vec<String> = Spec::new("plugin.security.ecc_curves", Kind::List).default("");
        /// Directory with keys and certificates in Puppet's layout.
        SSLDIR: Option<PathBuf> = Spec::new("plugin.choria.ssldir", Kind::Path);
        /// Host of the Puppet CA.
        PUPPETCA_HOST: String = Spec::new("plugin.choria.puppetca_host", Kind::Text).default("puppet").planned();
        /// Port of the Puppet CA.
        PUPPETCA_PORT: u16 = Spec::new("plugin.choria.puppetca_port", Kind::Integer { min: 1, max: 65_535 }).default("8140").planned();
        /// Kubernetes namespace of the cert-manager provider.
        SECURITY_CERTMANAGER_NAMESPACE: String = Spec::new("plugin.security.certmanager.namespace", Kind::Text).default("choria").planned();
        /// Issuer of the cert-manager provider.
        SECURITY_CERTMANAGER_ISSUER: Option<String> = Spec::new("plugin.security.certmanager.issuer", Kind::Text).planned();
        /// Replace certificate requests that exist already.
        SECURITY_CERTMANAGER_REPLACE: bool = Spec::new("plugin.security.certmanager.replace", Kind::Boolean).default("1").planned();
        /// Further names in certificates of the cert-manager provider.
        SECURITY_CERTMANAGER_ALT_NAMES: Vec<String> = Spec::new("plugin.security.certmanager.alt_names", Kind::List).default("").planned();
        /// API version of the cert-manager provider.
        SECURITY_CERTMANAGER_API_VERSION: String = Spec::new("plugin.security.certmanager.api_version", Kind::Text).default("v1").planned();
        /// Driver library of the PKCS#11 provider.
        SECURITY_PKCS11_DRIVER_FILE: Option<PathBuf> = Spec::new("plugin.security.pkcs11.driver_file", Kind::Path).planned();
        /// Slot of the PKCS#11 provider.
        SECURITY_PKCS11_SLOT: i64 = Spec::new("plugin.security.pkcs11.slot", Kind::Integer { min: 0, max: 4_294_967_295 }).default("0").planned();
        /// Seed of the `choria` provider.
        SECURITY_CHORIA_SEED_FILE: Option<PathBuf> = Spec::new("plugin.security.choria.seed_file", Kind::Path).planned();
        /// Token of the `choria` provider.
        SECURITY_CHORIA_TOKEN_FILE: Option<PathBuf> = Spec::new("plugin.security.choria.token_file", Kind::Path).planned();
        /// Public keys that sign tokens, in hexadecimal.
        SECURITY_CHORIA_TRUSTED_SIGNERS: Vec<String> = Spec::new("plugin.security.choria.trusted_signers", Kind::List).default("").refused();
        /// TLS certificate of the `choria` provider.
        SECURITY_CHORIA_CERTIFICATE: Option<PathBuf> = Spec::new("plugin.security.choria.certificate", Kind::Path).planned();
        /// TLS key of the `choria` provider.
        SECURITY_CHORIA_KEY: Option<PathBuf> = Spec::new("plugin.security.choria.key", Kind::Path).planned();
        /// TLS authorities of the `choria` provider.
        SECURITY_CHORIA_CA: Option<PathBuf> = Spec::new("plugin.security.choria.ca", Kind::Path).planned();
        /// Sign replies with the `choria` provider.
        SECURITY_CHORIA_SIGN_REPLIES: bool = Spec::new("plugin.security.choria.sign_replies", Kind::Boolean).default("1").planned();
        /// Organisation issuers that are trusted.
        SECURITY_ISSUER_NAMES: Vec<String> = Spec::new("plugin.security.issuer.names", Kind::List).default("").refused();
        /// Servers use a token over TLS without client certificate and without verifying the broker.
        SECURITY_SERVER_ANON_TLS: bool = Spec::new("plugin.security.server_anon_tls", Kind::Boolean).default("0").planned();
        /// Clients use a token over TLS without client certificate; needs a remote signer.
        SECURITY_CLIENT_ANON_TLS: bool = Spec::new("plugin.security.client_anon_tls", Kind::Boolean).default("0").planned();
        /// Token of a server with anonymous TLS.
        SECURITY_SERVER_TOKEN_FILE: Option<PathBuf> = Spec::new("plugin.choria.security.server.token_file", Kind::Path)
            .computed("with `plugin.security.server_anon_tls`: `server.jwt` beside the file")
            .planned();
        /// Seed of a server with anonymous TLS.
        SECURITY_SERVER_SEED_FILE: Option<PathBuf> = Spec::new("plugin.choria.security.server.seed_file", Kind::Path)
            .computed("with `plugin.security.server_anon_tls`: `server.seed` beside the file")
            .planned();
        /// Address of a remote request signer.
        SECURITY_REQUEST_SIGNER_URL: Option<String> = Spec::new("plugin.choria.security.request_signer.url", Kind::Text).planned();
        /// Sign requests through the signer service on the network.
        SECURITY_REQUEST_SIGNER_SERVICE: bool = Spec::new("plugin.choria.security.request_signer.service", Kind::Boolean).default("0").planned();
        /// Token for the remote signer.
        SECURITY_REQUEST_SIGNER_TOKEN_FILE: Option<PathBuf> = Spec::new("plugin.choria.security.request_signer.token_file", Kind::Path).planned();
        /// Seed for the remote signer.
        SECURITY_REQUEST_SIGNER_SEED_FILE: Option<PathBuf> = Spec::new("plugin.choria.security.request_signer.seed_file", Kind::Path).planned();
        /// Where `choria login` signs in.
        LOGIN_AAASVC_LOGIN_URL: Vec<String> = Spec::new("plugin.login.aaasvc.login.url", Kind::List).default("").planned();
    }
    families {
        /// Public key of an organisation issuer, in hexadecimal.
        SECURITY_ISSUER_PUBLIC: Option<String> = Spec::new("plugin.security.issuer.NAME.public", Kind::Text).planned();
    }
}
