//! What a NATS server tells about connections: the advisory `io.nats.server.advisory.v1.client_disconnect` on
//! `$SYS.ACCOUNT.<account>.DISCONNECT` (spec 07 §9). Only what is needed is read, from any server that sends it.

use serde::Deserialize;

/// Where it comes: the account in which nodes wait is named `provisioning` on every Choria broker.
pub(crate) const SUBJECT: &str = "$SYS.ACCOUNT.provisioning.DISCONNECT";

/// Longest advisory that is read, in bytes; they have about 600.
const MAX_BYTES: usize = 16 * 1024;

/// Reason of a connection that was ended because its name is used by a newer one, which lives.
pub(crate) const TAKEN_OVER: &str = "Claim Taken Over";

/// Reason of a connection that the client ended.
pub(crate) const CLIENT_CLOSED: &str = "Client Closed";

/// A connection ended.
#[derive(Debug, Deserialize)]
pub(crate) struct Disconnect {
    #[serde(rename = "type")]
    kind: String,
    /// Whose it was.
    pub(crate) client: Client,
    /// Why.
    #[serde(default)]
    pub(crate) reason: String,
}

/// The client of a connection.
#[derive(Debug, Deserialize)]
pub(crate) struct Client {
    /// Its connection name: servers connect under their identity.
    #[serde(default)]
    pub(crate) name: String,
}

impl Disconnect {
    /// Reads an advisory; `None` when it is none.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() > MAX_BYTES {
            return None;
        }
        let advisory: Self = serde_json::from_slice(payload).ok()?;
        let is_one =
            advisory.kind == "io.nats.server.advisory.v1.client_disconnect" && !advisory.client.name.is_empty();
        is_one.then_some(advisory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advisories_of_a_nats_server_are_read() {
        // As the original broker sent it, server and times left out.
        let text = r#"{"type":"io.nats.server.advisory.v1.client_disconnect","id":"mlOleY6eg4J6UnqghVpjqZ","client":{"host":"127.0.0.1","id":35,"acc":"provisioning","user":"[REDACTED]","name":"watched","rtt":42280051,"kind":"Client","client_type":"nats"},"sent":{"msgs":0,"bytes":0},"received":{"msgs":0,"bytes":0},"reason":"Client Closed"}"#;
        let advisory = Disconnect::parse(text.as_bytes()).unwrap();
        assert_eq!((&*advisory.client.name, &*advisory.reason), ("watched", "Client Closed"));
        for bad in [
            "",
            "null",
            "{}",
            r#"{"type":"io.nats.server.advisory.v1.client_connect","client":{"name":"n1"}}"#,
            r#"{"type":"io.nats.server.advisory.v1.client_disconnect","client":{}}"#,
            r#"{"type":"io.nats.server.advisory.v1.client_disconnect","client":{"name":5}}"#,
        ] {
            assert!(Disconnect::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Disconnect::parse(&vec![b' '; 20_000]).is_none());
    }
}
