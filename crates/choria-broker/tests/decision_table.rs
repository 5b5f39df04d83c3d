//! Every row of the recorded decision table is run, differs on purpose, or is left out for a named reason.
#![allow(clippy::unwrap_used)]

#[path = "common/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use choria_broker::policy::{ConnectFacts, Origin, PolicyGrant, PolicyRefusal, Tls, decide};
use golden::{CLIENT_PASSWORD, NOW, SYSTEM_PASSWORD, Tokens};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    network: String,
    tls: String,
    source: Option<String>,
    user: Option<String>,
    pass: Option<String>,
    token: Option<Value>,
    token_field: Option<String>,
    #[serde(rename = "sig")]
    _sig: Option<String>,
    outcome: String,
    account: Option<String>,
    reported_user: Option<String>,
    error: Option<String>,
    reason: Option<String>,
    tls_alert: Option<String>,
}

const V2_NETWORKS: [&str; 7] = [
    "issuer",
    "issuer-noca",
    "issuer-noprov",
    "issuer-without-token",
    "x509-jwt-signers",
    "deny-servers",
    "disable-tls-issuer",
];

/// Why a row is not a case of the policy function. The same words stand in `docs/differences/choria-broker.md`.
fn left_out(row: &Row) -> Option<&'static str> {
    let client_token = row.token.as_ref().is_some_and(|t| t.get("purpose") == Some(&"choria_client_id".into()));
    if V2_NETWORKS.contains(&row.network.as_str()) {
        Some("network with issuers or token signers (protocol v2)")
    } else if row.network == "client-hosts" && client_token {
        Some("client token with a client signer (protocol v2)")
    } else if row.network == "x509-signer-missing" {
        Some("such a broker does not start")
    } else if row.outcome == "tls_failure" {
        Some("decided by TLS, not by the policy")
    } else {
        None
    }
}

/// Rows where we mean to differ, with what we do instead.
fn ours(id: &str) -> Option<&'static str> {
    Some(match id {
        // A shared bearer token that never ends is refused.
        "x509-049" => "refused token_without_expiry",
        // Purpose says server; `sub` does not overrule it.
        "x509-058" => "refused no_server_signer_configured",
        // The explicit insecure mode works instead of refusing everybody (spec 02, sharp edge 5).
        "disable-tls-305" => "choria -",
        _ => return None,
    })
}

fn as_recorded(row: &Row) -> String {
    match row.outcome.as_str() {
        "accepted" => {
            let account = row.account.as_deref().unwrap();
            format!("{account} {}", row.reported_user.as_deref().unwrap_or("-"))
        }
        "refused" => {
            if let Some(error) = &row.error {
                assert_eq!(error, "-ERR 'Authorization Violation'", "{}", row.id);
            }
            format!("refused {}", row.reason.as_deref().unwrap())
        }
        other => panic!("{}: outcome {other}", row.id),
    }
}

fn as_decided(decision: &Result<PolicyGrant, PolicyRefusal>) -> String {
    match decision {
        Ok(grant) => format!("{} {}", grant.account.name(), grant.user.as_deref().unwrap_or("-")),
        Err(refusal) => format!("refused {}", refusal.reason.as_str()),
    }
}

fn run(row: &Row, tokens: &Tokens) -> Result<PolicyGrant, PolicyRefusal> {
    let inputs = tokens.network(&row.network).unwrap_or_else(|| panic!("network {}", row.network));
    let mut tls = match row.tls.as_str() {
        "verified certificate" | "certificate without extended key usage" => Tls::Verified,
        "no certificate" => Tls::Unverified,
        "no TLS" => Tls::Clear,
        other => panic!("{}: tls {other}", row.id),
    };
    if row.network == "disable-verify" && tls == Tls::Verified {
        // --disable-ssl-verification never asks for a certificate.
        tls = Tls::Unverified;
    }
    let (mut now, mut about) = (NOW, row.token.clone());
    if about.as_ref().and_then(|t| t.get("exp")) == Some(&"1 s ago".into()) {
        // No such token is in the file; the one that ends in 2036 does as well one second after its end.
        now = 2_110_530_580 + 1;
        about = Some(serde_json::json!({
            "purpose": "choria_provisioning", "alg": "RS256", "signer": "provisioning signer (RSA)", "ou": "choria"
        }));
    }
    let token = about.as_ref().map(|t| tokens.find(t).unwrap_or_else(|| panic!("{}: no token for {t}", row.id)));
    let auth_token = token.filter(|t| !t.is_empty() && row.token_field.as_deref() != Some("jwt"));
    let password = match (row.pass.as_deref(), row.user.as_deref()) {
        (None, _) => None,
        (Some("empty"), _) => Some(""),
        (Some("wrong"), _) => Some("wrong"),
        (Some("correct"), Some("provisioner")) => Some(CLIENT_PASSWORD),
        (Some("correct"), Some("system")) => Some(SYSTEM_PASSWORD),
        other => panic!("{}: password {other:?}", row.id),
    };
    let source = row.source.as_deref().unwrap_or("127.0.0.1");
    let facts = ConnectFacts {
        origin: Origin::Client,
        remote: Some(format!("{source}:40000").parse().unwrap()),
        tls,
        verified_names: &[],
        // Recorded without regard to it; in our closed account a node must give its name.
        name: Some("node1.example.net"),
        user: row.user.as_deref(),
        password,
        token: auth_token,
    };
    decide(&inputs, &facts, now)
}

/// `networks.json` says in words what stands behind each name: every name is made, or left out for its reason.
#[test]
fn every_recorded_network_is_made_or_left_out() {
    let tokens = Tokens::load();
    let networks: BTreeMap<String, String> = serde_json::from_str(&golden::text("networks.json")).unwrap();
    for (name, words) in &networks {
        let left_out = V2_NETWORKS.contains(&name.as_str()) || name == "x509-signer-missing";
        assert_eq!(tokens.network(name).is_none(), left_out, "{name}: {words}");
    }
    assert_eq!(networks.len(), 17);
}

#[test]
fn golden_decision_table() {
    let tokens = Tokens::load();
    let rows: Vec<Row> = golden::lines("decision-table.jsonl");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in &rows {
        if let Some(reason) = left_out(row) {
            *counts.entry(reason).or_default() += 1;
            continue;
        }
        assert!(row.tls_alert.is_none(), "{}: an alert is TLS business", row.id);
        let decision = run(row, &tokens);
        let expected = match ours(&row.id) {
            Some(ours) => {
                *counts.entry("run, differs on purpose").or_default() += 1;
                assert_ne!(ours, as_recorded(row), "{}: no difference after all", row.id);
                ours.to_owned()
            }
            None => {
                *counts.entry("run").or_default() += 1;
                as_recorded(row)
            }
        };
        if as_decided(&decision) != expected {
            wrong.push(format!("{}: expected {expected:?}, got {decision:?}", row.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected = BTreeMap::from([
        ("client token with a client signer (protocol v2)", 3),
        ("decided by TLS, not by the policy", 4),
        ("network with issuers or token signers (protocol v2)", 155),
        ("run", 103),
        ("run, differs on purpose", 3),
        ("such a broker does not start", 2),
    ]);
    assert_eq!(counts, expected);
    assert_eq!(counts.values().sum::<usize>(), rows.len());
}
