//! Why a CONNECT was refused: a small closed set, used as metric label and in every refusal line.

/// A countable reason. The texts are stable: dashboards and alerts name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Clear text where TLS is due, or a secret offered in clear text.
    TlsRequired,
    /// Neither a verified certificate nor a token.
    NoCredentials,
    /// User `provisioner` or a node token, but this broker has no provisioning account.
    ProvisioningDisabled,
    /// User `provisioner` without a password.
    PasswordMissing,
    /// The password is not the configured one.
    WrongPassword,
    /// User `provisioner` without a certificate of our CA.
    ProvisionerNeedsVerifiedTls,
    /// The system user without a certificate and without a token.
    TokenMissing,
    /// The token's purpose does not fit the login.
    WrongPurpose,
    /// The token is not a JWT.
    MalformedToken,
    /// The signature does not verify with the configured signer.
    TokenSignatureWrong,
    /// An algorithm other than RS256, RS384, RS512 and EdDSA.
    AlgorithmNotAllowed,
    /// Algorithm and signer key are of different kinds.
    KeyTypeMismatch,
    /// The token's `exp` has passed.
    TokenExpired,
    /// The token's `nbf` has not come.
    TokenNotYetValid,
    /// A provisioning token that never expires.
    TokenWithoutExpiry,
    /// The token carries a trust chain, which only protocol v2 resolves.
    ChainNotSupported,
    /// A provisioning token or garbage sent along with a verified certificate.
    TokenOverVerifiedTls,
    /// A client token, but no signer of client tokens is configured.
    NoClientSigner,
    /// A server token, but no signer of server tokens is configured.
    NoServerSigner,
    /// An unprovisioned node that does not say its name in CONNECT.
    NodeNameMissing,
    /// An unprovisioned node whose CONNECT name cannot be an identity.
    NodeNameInvalid,
    /// A certificate of a CA that the present configuration does not name any more.
    CaNotTrusted,
    /// A reload changed the password that the connection logged in with.
    PasswordChanged,
    /// A reload changed the signer of the token that the connection logged in with.
    SignerChanged,
    /// A reload gave the connection's user another meaning, or none.
    UserChanged,
}

impl Reason {
    /// Every reason, so that counters exist before the first refusal.
    pub const ALL: [Self; 25] = [
        Self::TlsRequired,
        Self::NoCredentials,
        Self::ProvisioningDisabled,
        Self::PasswordMissing,
        Self::WrongPassword,
        Self::ProvisionerNeedsVerifiedTls,
        Self::TokenMissing,
        Self::WrongPurpose,
        Self::MalformedToken,
        Self::TokenSignatureWrong,
        Self::AlgorithmNotAllowed,
        Self::KeyTypeMismatch,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenWithoutExpiry,
        Self::ChainNotSupported,
        Self::TokenOverVerifiedTls,
        Self::NoClientSigner,
        Self::NoServerSigner,
        Self::NodeNameMissing,
        Self::NodeNameInvalid,
        Self::CaNotTrusted,
        Self::PasswordChanged,
        Self::SignerChanged,
        Self::UserChanged,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsRequired => "tls_required",
            Self::NoCredentials => "no_credentials",
            Self::ProvisioningDisabled => "provisioning_disabled",
            Self::PasswordMissing => "password_missing",
            Self::WrongPassword => "wrong_password",
            Self::ProvisionerNeedsVerifiedTls => "provisioner_needs_verified_tls",
            Self::TokenMissing => "token_missing",
            Self::WrongPurpose => "wrong_purpose",
            Self::MalformedToken => "malformed_token",
            Self::TokenSignatureWrong => "token_signature_wrong",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::KeyTypeMismatch => "key_type_mismatch",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenWithoutExpiry => "token_without_expiry",
            Self::ChainNotSupported => "token_chain_not_supported",
            Self::TokenOverVerifiedTls => "token_of_this_purpose_not_accepted_over_verified_tls",
            Self::NoClientSigner => "no_client_signer_configured",
            Self::NoServerSigner => "no_server_signer_configured",
            Self::NodeNameMissing => "node_name_missing",
            Self::NodeNameInvalid => "node_name_invalid",
            Self::CaNotTrusted => "ca_not_trusted",
            Self::PasswordChanged => "password_changed",
            Self::SignerChanged => "signer_changed",
            Self::UserChanged => "user_changed",
        }
    }
}
