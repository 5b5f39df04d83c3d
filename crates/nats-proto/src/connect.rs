//! CONNECT: the options a client names (spec 07 §2).

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Options of a client's CONNECT. A missing or `null` field has the NATS default, unknown keys are ignored,
/// key names match without regard to case, and of a repeated key the last one counts.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Connect {
    /// The broker confirms every operation with `+OK`. Default `true`.
    pub verbose: bool,
    /// The broker checks publish subjects strictly. Default `true`.
    pub pedantic: bool,
    /// The client wants its own publishes delivered to its own subscriptions. Default `true`.
    pub echo: bool,
    /// The client insists on TLS; brokers ignore it.
    pub tls_required: bool,
    /// Token; Choria puts its JWT here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_token: String,
    /// User name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pass: String,
    /// User JWT of the NATS operator mode; Choria repeats its token here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwt: String,
    /// Public nkey.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nkey: String,
    /// Signature over the nonce text, base64url without padding or standard base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sig: String,
    /// Connection name; monitoring, and the identity of unprovisioned Choria servers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Client language; monitoring only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    /// Client version; monitoring only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Protocol level: 1 understands further INFO lines. Other than 0 and 1 is an error.
    pub protocol: i64,
    /// The client understands HMSG and may send HPUB.
    pub headers: bool,
    /// The client wants a 503 when nobody listens; needs `headers`.
    pub no_responders: bool,
    /// Account wish of very old clients; refused when set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// Wish for a new account; refused when set.
    #[serde(skip_serializing_if = "is_false")]
    pub new_account: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            echo: true,
            tls_required: false,
            auth_token: String::new(),
            user: String::new(),
            pass: String::new(),
            jwt: String::new(),
            nkey: String::new(),
            sig: String::new(),
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            protocol: 0,
            headers: false,
            no_responders: false,
            account: String::new(),
            new_account: false,
        }
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens, passwords and signatures stay out of logs.
        f.debug_struct("Connect")
            .field("name", &self.name)
            .field("lang", &self.lang)
            .field("version", &self.version)
            .field("protocol", &self.protocol)
            .field("verbose", &self.verbose)
            .field("pedantic", &self.pedantic)
            .field("echo", &self.echo)
            .field("headers", &self.headers)
            .field("no_responders", &self.no_responders)
            .finish_non_exhaustive()
    }
}

/// A CONNECT argument that is not one JSON object of the right types.
#[derive(Debug, thiserror::Error)]
#[error("connect options are not valid json of the expected types: {0}")]
pub struct ConnectError(#[from] serde_json::Error);

impl Connect {
    /// Reads a CONNECT argument.
    ///
    /// # Errors
    /// Not JSON, text after the object, not an object or `null`, or a wrong value type. Brokers close silently then.
    pub fn parse(argument: &[u8]) -> Result<Self, ConnectError> {
        let mut connect = Self::default();
        connect.merge(argument)?;
        Ok(connect)
    }

    /// Reads a further CONNECT argument; options that it does not name keep their value.
    ///
    /// # Errors
    /// As [`Connect::parse`]; `self` may then be changed in part.
    pub fn merge(&mut self, argument: &[u8]) -> Result<(), ConnectError> {
        // Clients in some languages send names in other encodings; the reference takes any bytes.
        let text = String::from_utf8_lossy(argument);
        let mut json = serde_json::Deserializer::from_str(&text);
        MergeInto(self).deserialize(&mut json)?;
        json.end()?;
        Ok(())
    }

    /// The argument text of a CONNECT line.
    ///
    /// # Panics
    /// Never: plain strings, booleans and integers always serialise.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings and booleans serialises")
    }
}

impl<'de> Deserialize<'de> for Connect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut connect = Self::default();
        MergeInto(&mut connect).deserialize(deserializer)?;
        Ok(connect)
    }
}

struct MergeInto<'a>(&'a mut Connect);

impl<'de> DeserializeSeed<'de> for MergeInto<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MergeInto<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of connect options")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let to = self.0;
        while let Some(mut key) = map.next_key::<String>()? {
            key.make_ascii_lowercase();
            match key.as_str() {
                "verbose" => set(&mut to.verbose, &mut map)?,
                "pedantic" => set(&mut to.pedantic, &mut map)?,
                "echo" => set(&mut to.echo, &mut map)?,
                "tls_required" => set(&mut to.tls_required, &mut map)?,
                "auth_token" => set(&mut to.auth_token, &mut map)?,
                "user" => set(&mut to.user, &mut map)?,
                "pass" => set(&mut to.pass, &mut map)?,
                "jwt" => set(&mut to.jwt, &mut map)?,
                "nkey" => set(&mut to.nkey, &mut map)?,
                "sig" => set(&mut to.sig, &mut map)?,
                "name" => set(&mut to.name, &mut map)?,
                "lang" => set(&mut to.lang, &mut map)?,
                "version" => set(&mut to.version, &mut map)?,
                "protocol" => set(&mut to.protocol, &mut map)?,
                "headers" => set(&mut to.headers, &mut map)?,
                "no_responders" => set(&mut to.no_responders, &mut map)?,
                "account" => set(&mut to.account, &mut map)?,
                "new_account" => set(&mut to.new_account, &mut map)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Takes one value; `null` leaves what was there.
fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(to: &mut T, map: &mut A) -> Result<(), A::Error> {
    if let Some(value) = map.next_value::<Option<T>>()? {
        *to = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_options_have_the_nats_defaults() {
        for text in ["{}", "null", r#"{"verbose":null,"name":null}"#, r#"{"zzz":1,"deep":{"a":[1]}}"#] {
            assert_eq!(Connect::parse(text.as_bytes()).unwrap(), Connect::default(), "{text}");
        }
    }

    #[test]
    fn keys_match_in_any_case_and_the_last_one_counts() {
        let connect = Connect::parse(br#"{"VERBOSE":true,"verbose":false,"Auth_Token":"t"}"#).unwrap();
        assert!(!connect.verbose);
        assert_eq!(connect.auth_token, "t");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "5",
            "[]",
            "\"x\"",
            "{\"verbose\":1}",
            "{\"protocol\":1e0}",
            "{} x",
            "{\"verbose\":tru",
            "{\"name\":1}",
        ] {
            assert!(Connect::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_second_connect_keeps_what_it_does_not_name() {
        let mut connect = Connect::parse(br#"{"verbose":false,"echo":false,"headers":true}"#).unwrap();
        connect.merge(br#"{"headers":false}"#).unwrap();
        assert!(!connect.verbose && !connect.echo && !connect.headers);
    }

    #[test]
    fn invalid_utf8_is_accepted_and_secrets_are_not_shown() {
        let connect = Connect::parse(b"{\"name\":\"\xff\xfe\",\"auth_token\":\"sesame\"}").unwrap();
        assert!(!connect.name.is_empty());
        assert!(!format!("{connect:?}").contains("sesame"));
        assert_eq!(Connect::parse(connect.to_json().as_bytes()).unwrap(), connect);
    }
}
