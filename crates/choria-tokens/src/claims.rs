//! Claims of every token purpose, in the order the original writes them (spec 01 §13.1, §13.2).
//!
//! Reading is tolerant where the original is: unknown claims are ignored, `null` is the zero value, `exp`, `nbf`,
//! `iat` and `issexp` may be fractional or numeric text. A claim that appears twice or has another type is an error.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{DEFAULT_ORGANIZATION, PURPOSE_PROVISIONING, Secret};

/// Seconds of the last day of year 9999; a time beyond it is a mistake, not a date.
const LAST_TIME: f64 = 253_402_300_799.0;

/// Claims of a provisioning token, what an unprovisioned node holds (spec 01 §13.2).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvisioningClaims {
    /// The token that guards the `choria_provision` agent.
    #[serde(deserialize_with = "or_default")]
    pub cht: Secret,
    /// Whether protocol security stays on while provisioning.
    #[serde(deserialize_with = "or_default")]
    pub chs: bool,
    /// Comma separated broker URLs.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub chu: String,
    /// Domain whose SRV records name the brokers.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub chsrv: String,
    /// Whether a node without configuration provisions by default.
    #[serde(deserialize_with = "or_default")]
    pub chpd: bool,
    /// File with registration data to publish while provisioning.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub chrd: String,
    /// File with facts to use while provisioning.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub chf: String,
    /// Broker user name.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub chusr: String,
    /// Broker password.
    #[serde(skip_serializing_if = "Secret::is_empty", deserialize_with = "or_default")]
    pub chpwd: Secret,
    /// Free form data for helpers; written as `null` when there is none.
    pub extensions: Option<Map<String, Value>>,
    /// Organization unit; empty reads as `choria`, see [`ProvisioningClaims::organization`].
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub ou: String,
    /// Whether the node should speak protocol v2 while provisioning.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub v2: bool,
    /// Whether the provisioner may upgrade the node's binary.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub update: bool,
    /// Purpose, `choria_provisioning`; 2019 tokens have `sub` only.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub purpose: String,
    /// Trust chain signature; provisioning tokens should have none (spec 01 §13.4).
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub tcs: String,
    /// Hex Ed25519 key of the holder.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub public_key: String,
    /// Expiry of the chain issuer, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub issexp: Option<i64>,
    /// Issuer text.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub iss: String,
    /// Subject, `choria_provisioning`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub sub: String,
    /// Expiry, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub exp: Option<i64>,
    /// Not valid before, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub nbf: Option<i64>,
    /// Time of issue, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub iat: Option<i64>,
    /// Token id, a KSUID built from the time of issue.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub jti: String,
}

/// Why a provisioning token cannot be used by a node although it can be read (spec 01 §13.2; the texts are the original's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProvisioningUseError {
    /// Neither `purpose` nor `sub` says provisioning.
    #[error("not a provisioning token")]
    NotProvisioning,
    /// `cht` is empty.
    #[error("no auth token")]
    NoAuthToken,
    /// Neither `chu` nor `chsrv` is set.
    #[error("no srv domain or urls")]
    NoTarget,
    /// Both `chu` and `chsrv` are set.
    #[error("both srv domain and URLs supplied")]
    BothTargets,
}

impl ProvisioningClaims {
    /// True when `purpose` or `sub`, either alone, says provisioning (spec 04 §6.3).
    pub fn is_provisioning(&self) -> bool {
        self.purpose == PURPOSE_PROVISIONING || self.sub == PURPOSE_PROVISIONING
    }

    /// The organization unit, `choria` when the token names none.
    pub fn organization(&self) -> &str {
        if self.ou.is_empty() { DEFAULT_ORGANIZATION } else { &self.ou }
    }

    /// Broker URLs of `chu`, trimmed, empty items left out (spec 03 §6.1).
    pub fn broker_urls(&self) -> Vec<&str> {
        self.chu.split(',').map(str::trim).filter(|url| !url.is_empty()).collect()
    }

    /// Checks what a node needs before it may use the token: purpose, `cht`, and exactly one of `chu` and `chsrv`.
    ///
    /// # Errors
    /// The first rule that is broken; the node then leaves its build settings unchanged (spec 03 §6.1).
    pub fn check_node_use(&self) -> Result<(), ProvisioningUseError> {
        if !self.is_provisioning() {
            return Err(ProvisioningUseError::NotProvisioning);
        }
        if self.cht.is_empty() {
            return Err(ProvisioningUseError::NoAuthToken);
        }
        match (self.chu.trim().is_empty(), self.chsrv.trim().is_empty()) {
            (true, true) => Err(ProvisioningUseError::NoTarget),
            (false, false) => Err(ProvisioningUseError::BothTargets),
            _ => Ok(()),
        }
    }
}

/// Claims of a client token, for viewing (spec 01 §13.2).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientClaims {
    /// Who the holder is, for example `up=bob`.
    #[serde(deserialize_with = "or_default")]
    pub callerid: String,
    /// Agents and actions the AAA service may sign for.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub agents: Vec<String>,
    /// Organization unit.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub ou: String,
    /// Free form properties of the user.
    #[serde(skip_serializing_if = "Map::is_empty", deserialize_with = "or_default")]
    pub user_properties: Map<String, Value>,
    /// Open Policy Agent policy of the AAA service.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub opa_policy: String,
    /// Permissions; written as `{}` by the command line, left out by the library when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<ClientPermissions>,
    /// Further subjects the holder may publish to.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub pub_subjects: Vec<String>,
    /// Further subjects the holder may subscribe to.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub sub_subjects: Vec<String>,
    /// Claims every token has.
    #[serde(flatten)]
    pub standard: StandardClaims,
}

/// Claims of a server token, for viewing (spec 01 §13.2).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerClaims {
    /// Identity of the server.
    #[serde(deserialize_with = "or_default")]
    pub identity: String,
    /// Collectives it belongs to.
    #[serde(deserialize_with = "or_default")]
    pub collectives: Vec<String>,
    /// Permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<ServerPermissions>,
    /// Organization unit.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub ou: String,
    /// Further subjects the server may publish to.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub pub_subjects: Vec<String>,
    /// Claims every token has.
    #[serde(flatten)]
    pub standard: StandardClaims,
}

/// Claims that follow the own claims of client and server tokens (spec 01 §13.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StandardClaims {
    /// Purpose of the token.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub purpose: String,
    /// Trust chain signature.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub tcs: String,
    /// Hex Ed25519 key of the holder.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub public_key: String,
    /// Expiry of the chain issuer, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub issexp: Option<i64>,
    /// Issuer text.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub iss: String,
    /// Subject.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub sub: String,
    /// Expiry, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub exp: Option<i64>,
    /// Not valid before, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub nbf: Option<i64>,
    /// Time of issue, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "date")]
    pub iat: Option<i64>,
    /// Token id.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub jti: String,
}

macro_rules! permissions {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $field:ident),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$inner])* #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")] pub $field: bool,)+
        }

        impl $name {
            /// Names of the permissions that are granted, in the order they are written.
            pub fn granted(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$field { names.push(stringify!($field)); })+
                names
            }
        }
    };
}

permissions! {
    /// Permissions of a client token; false values are not written (spec 01 §13.2).
    ClientPermissions {
        /// May administer Choria Streams.
        streams_admin,
        /// May use Choria Streams.
        streams_user,
        /// May view events.
        events_viewer,
        /// May take part in elections.
        election_user,
        /// May access the system account.
        system_user,
        /// May use Governors.
        governor,
        /// May do everything in the organization.
        org_admin,
        /// May make fleet requests.
        fleet_management,
        /// May make fleet requests that a delegator signed.
        signed_fleet_management,
        /// May hold long lived tokens in the AAA service.
        service,
        /// May sign requests of others.
        authentication_delegator,
        /// May provision servers.
        provisioner,
    }
}

permissions! {
    /// Permissions of a server token; false values are not written (spec 01 §13.2).
    ServerPermissions {
        /// May submit messages.
        submission,
        /// May use Choria Streams.
        streams,
        /// May use Governors.
        governor,
        /// May host services.
        service_host,
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// `null` reads as the zero value, as in the original.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A time claim: an integer, a fraction (rounded down) or the same as text.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    use serde::de::Error;
    let Some(value) = Option::<Value>::deserialize(deserializer)? else { return Ok(None) };
    parse_date(&value).map(Some).ok_or_else(|| D::Error::custom("not a time in unix seconds"))
}

/// Unix seconds of a time claim, or nothing when it is no number or lies outside of any calendar.
pub(crate) fn parse_date(value: &Value) -> Option<i64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    // The range check keeps the conversion exact, f64 holds every integer up to 2^53.
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked in the same expression")]
    (seconds.is_finite() && (0.0..=LAST_TIME).contains(&seconds)).then_some(seconds.floor() as i64)
}

/// Compact JSON as the original writes it: keys in field order, `<`, `>` and `&` escaped (spec 01 §1.1).
///
/// # Errors
/// When the value cannot be written as JSON; the claims of this module always can.
pub fn to_text<T: Serialize>(claims: &T) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(claims)?;
    // These characters can only stand inside JSON strings, so replacing them in the text is safe.
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_be_fractions_or_text_but_not_nonsense() {
        for (json, expected) in [
            ("5", Some(5)),
            ("5.9", Some(5)),
            ("\"5\"", Some(5)),
            ("\"5.5\"", Some(5)),
            ("1795219200", Some(1_795_219_200)),
            ("-1", None),
            ("1e300", None),
            ("\"soon\"", None),
            ("\"NaN\"", None),
            ("\"inf\"", None),
            ("[]", None),
            ("true", None),
        ] {
            assert_eq!(parse_date(&serde_json::from_str(json).unwrap()), expected, "{json}");
        }
    }

    #[test]
    fn null_claims_are_absent_claims() {
        let claims: ProvisioningClaims =
            serde_json::from_str(r#"{"cht":"x","chu":null,"chs":null,"exp":null,"extensions":null}"#).unwrap();
        assert_eq!(claims.exp, None);
        assert_eq!(claims.chu, "");
        assert!(claims.extensions.is_none());
    }

    #[test]
    fn node_use_needs_a_token_and_exactly_one_target() {
        let good = ProvisioningClaims {
            cht: "t".into(),
            chu: "nats://a:1".into(),
            purpose: PURPOSE_PROVISIONING.into(),
            ..Default::default()
        };
        assert_eq!(good.check_node_use(), Ok(()));
        let no_token = ProvisioningClaims { cht: Secret::default(), ..good.clone() };
        assert_eq!(no_token.check_node_use().unwrap_err().to_string(), "no auth token");
        let none = ProvisioningClaims { chu: String::new(), ..good.clone() };
        assert_eq!(none.check_node_use().unwrap_err().to_string(), "no srv domain or urls");
        let both = ProvisioningClaims { chsrv: "example.net".into(), ..good.clone() };
        assert_eq!(both.check_node_use().unwrap_err().to_string(), "both srv domain and URLs supplied");
        let sub_only = ProvisioningClaims { purpose: String::new(), sub: PURPOSE_PROVISIONING.into(), ..good.clone() };
        assert_eq!(sub_only.check_node_use(), Ok(()));
        let other = ProvisioningClaims { purpose: "choria_server".into(), ..good };
        assert_eq!(other.check_node_use(), Err(ProvisioningUseError::NotProvisioning));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let claims = ProvisioningClaims { cht: "toomanysecrets".into(), chpwd: "hunter2".into(), ..Default::default() };
        let text = format!("{claims:?}");
        assert!(!text.contains("toomanysecrets") && !text.contains("hunter2"), "{text}");
    }
}
