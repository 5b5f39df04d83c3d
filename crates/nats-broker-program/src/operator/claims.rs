//! What tokens of operators, accounts and users hold. Fields that mean nothing to this broker are not read.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Absent and `null` mean nothing.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// `nats` of an operator.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct OperatorClaims {
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) signing_keys: Vec<String>,
    #[serde(default)]
    pub(crate) system_account: String,
    /// The operator's own key signs no accounts.
    #[serde(default)]
    pub(crate) strict_signing_key_usage: bool,
}

/// `nats` of an account.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct AccountClaims {
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) imports: Vec<ImportClaim>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) exports: Vec<ExportClaim>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) limits: AccountLimits,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) signing_keys: Vec<SigningKey>,
    /// User, or `*` for all, to the time in seconds up to which their tokens are revoked.
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) revocations: BTreeMap<String, i64>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) default_permissions: PermissionClaims,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) mappings: BTreeMap<String, Vec<MappingClaim>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) tags: Vec<String>,
}

/// Limits; absent and negative = none.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct AccountLimits {
    pub(crate) conn: Option<i64>,
    pub(crate) subs: Option<i64>,
    pub(crate) payload: Option<i64>,
    #[serde(default)]
    pub(crate) disallow_bearer: bool,
}

/// A key that may issue users: any, or those of a template.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum SigningKey {
    Plain(String),
    Scoped(Box<Scope>),
}

/// A key whose users get the rights of a template.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Scope {
    pub(crate) key: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) template: UserRights,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MappingClaim {
    pub(crate) subject: String,
    #[serde(default)]
    pub(crate) weight: u8,
    #[serde(default)]
    pub(crate) cluster: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ImportClaim {
    pub(crate) subject: String,
    pub(crate) account: String,
    /// Activation token of a private export.
    #[serde(default)]
    pub(crate) token: String,
    /// Older: prefix of a stream, or remote subject of a service.
    #[serde(default)]
    pub(crate) to: String,
    #[serde(default)]
    pub(crate) local_subject: String,
    #[serde(rename = "type")]
    pub(crate) kind: ExportKind,
    #[serde(default)]
    pub(crate) share: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ExportClaim {
    pub(crate) subject: String,
    #[serde(rename = "type")]
    pub(crate) kind: ExportKind,
    /// Importers need an activation token.
    #[serde(default)]
    pub(crate) token_req: bool,
    /// Token of the subject, from 1, that must be the importing account; 0 = none.
    #[serde(default)]
    pub(crate) account_token_position: usize,
    #[serde(default)]
    pub(crate) response_type: String,
    /// Nanoseconds.
    #[serde(default)]
    pub(crate) response_threshold: u64,
    #[serde(default)]
    pub(crate) service_latency: Option<LatencyClaim>,
    /// Importing account, or `*`, to the time up to which its activations are revoked.
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) revocations: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExportKind {
    Stream,
    Service,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LatencyClaim {
    pub(crate) sampling: Sampling,
    pub(crate) results: String,
}

/// Percent, or the word `headers`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Sampling {
    Percent(u8),
    Word(SamplingWord),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SamplingWord {
    Headers,
}

/// `nats` of an activation.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ActivationClaims {
    pub(crate) subject: String,
    pub(crate) kind: Option<ExportKind>,
    #[serde(default)]
    pub(crate) issuer_account: String,
}

/// `nats` of a user.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct UserClaims {
    #[serde(flatten)]
    pub(crate) rights: UserRights,
    /// The account, when a signing key of it is the issuer.
    #[serde(default)]
    pub(crate) issuer_account: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) tags: Vec<String>,
}

/// What a user may do, and how it may connect.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct UserRights {
    #[serde(flatten)]
    pub(crate) permissions: PermissionClaims,
    #[serde(default)]
    pub(crate) bearer_token: bool,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) allowed_connection_types: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) src: Sources,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) times: Vec<TimeRange>,
    #[serde(default)]
    pub(crate) times_location: String,
}

/// Networks: a list, or a text with commas.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Sources {
    List(Vec<String>),
    Text(String),
}

impl Default for Sources {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Sources {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let texts: Vec<&str> = match self {
            Self::List(list) => list.iter().map(String::as_str).collect(),
            Self::Text(text) => text.split(',').collect(),
        };
        texts.into_iter().map(str::trim).filter(|text| !text.is_empty())
    }
}

/// Hours of a day, `15:04:05`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TimeRange {
    pub(crate) start: String,
    pub(crate) end: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct PermissionClaims {
    #[serde(default, rename = "pub", deserialize_with = "or_empty")]
    pub(crate) publish: SubjectClaims,
    #[serde(default, rename = "sub", deserialize_with = "or_empty")]
    pub(crate) subscribe: SubjectClaims,
    #[serde(default)]
    pub(crate) resp: Option<ResponseClaims>,
}

impl PermissionClaims {
    /// Nothing is said: the defaults of the account hold.
    pub(crate) fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.subscribe.is_empty() && self.resp.is_none()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct SubjectClaims {
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) allow: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) deny: Vec<String>,
}

impl SubjectClaims {
    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ResponseClaims {
    #[serde(default)]
    pub(crate) max: i64,
    /// Nanoseconds.
    #[serde(default)]
    pub(crate) ttl: i64,
}
