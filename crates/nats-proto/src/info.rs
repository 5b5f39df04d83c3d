//! INFO: what a broker tells of itself (spec 07 §2, key order as in the reference).

use serde::{Deserialize, Serialize};

/// The INFO of a broker. Flags that are `false` and texts that are empty are left out on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Unique name of this broker process.
    pub server_id: String,
    /// Configured name.
    pub server_name: String,
    /// Semantic version without `v`; clients switch features on by it.
    pub version: String,
    /// Protocol level, 1.
    pub proto: i64,
    /// Source revision, may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// Kept because clients decode it; any text.
    pub go: String,
    /// Host that clients should use.
    pub host: String,
    /// Port that clients should use.
    pub port: u16,
    /// Whether HPUB and HMSG are understood.
    pub headers: bool,
    /// Whether CONNECT must carry credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// Whether the client must start TLS now.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// Whether a client certificate is required.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// Whether the client may start TLS.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_available: bool,
    /// Largest message (headers and payload) in bytes.
    pub max_payload: i64,
    /// Whether JetStream is there.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// Connection id.
    pub client_id: u64,
    /// Address of the client as the broker sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// Text to sign, new for each connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Cluster name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Other addresses of the cluster, `host:port`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_urls: Vec<String>,
    /// Lame duck: the broker is about to stop.
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
    /// Set in the INFO that follows the first PONG.
    #[serde(skip_serializing_if = "is_false")]
    pub connect_info: bool,
    /// Account that the connection landed in; only after CONNECT.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
    /// Whether that is the system account.
    #[serde(skip_serializing_if = "is_false")]
    pub acc_is_sys: bool,
    /// JetStream API level.
    pub api_lvl: i64,
}

fn is_false(value: &bool) -> bool {
    !*value
}

impl Info {
    /// Reads the argument of an INFO line.
    ///
    /// # Errors
    /// Not a JSON object with these fields.
    pub fn parse(argument: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(argument)
    }

    /// The whole line, with the blank before CRLF that the reference sends.
    ///
    /// # Panics
    /// Never: plain strings, booleans and integers always serialise.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = b"INFO ".to_vec();
        serde_json::to_writer(&mut line, self).expect("a struct of strings and integers serialises");
        line.extend_from_slice(b" \r\n");
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_stay_absent_and_the_order_is_that_of_the_wire() {
        let info = Info { server_id: "N1".into(), max_payload: 1_048_576, headers: true, ..Info::default() };
        let line = String::from_utf8(info.to_line()).unwrap();
        assert_eq!(
            line,
            "INFO {\"server_id\":\"N1\",\"server_name\":\"\",\"version\":\"\",\"proto\":0,\"go\":\"\",\"host\":\"\",\"port\":0,\
             \"headers\":true,\"max_payload\":1048576,\"client_id\":0,\"api_lvl\":0} \r\n"
        );
        assert_eq!(Info::parse(&line.as_bytes()[5..]).unwrap(), info);
    }
}
