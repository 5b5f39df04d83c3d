//! What `choria jwt view` shows (spec 05 §7.8).

use choria_tokens::view::{AnyClaims, View};
use choria_tokens::{ClientClaims, ProvisioningClaims, ServerClaims};
use serde_json::{Map, Value};

use crate::commands::jwt::Heading;

/// Labels end in this column.
const LABELS: usize = 30;

/// The claims as JSON, secrets included: what scripts read.
pub(crate) fn json(view: &View) -> String {
    let claims = match &view.claims {
        AnyClaims::Provisioning(claims) => serde_json::to_string_pretty(claims),
        AnyClaims::Client(claims) => serde_json::to_string_pretty(claims),
        AnyClaims::Server(claims) => serde_json::to_string_pretty(claims),
        AnyClaims::Unknown(claims) => serde_json::to_string_pretty(claims),
    };
    // Claims came from JSON and hold nothing that JSON cannot say.
    claims.unwrap_or_default()
}

/// The claims for people, secrets masked.
pub(crate) fn text(view: &View, file: &str, heading: Heading, now: i64) -> String {
    let mut out = match heading {
        Heading::Seed => format!("JWT Token {file}\n\n"),
        Heading::Today => {
            let checked = if view.validated { "Validated" } else { "Unvalidated" };
            format!("{checked} {} {file}\n\n", view.title())
        }
    };
    let mut rows = Vec::new();
    if let Some(expires) = view.expires() {
        rows.push(("Expires At".to_owned(), expiry(expires, now)));
    }
    match &view.claims {
        AnyClaims::Provisioning(claims) => provisioning(&mut rows, claims),
        AnyClaims::Client(claims) => client(&mut rows, claims),
        AnyClaims::Server(claims) => server(&mut rows, claims),
        AnyClaims::Unknown(_) => {
            let claims = serde_json::to_string_pretty(&view.redacted()).unwrap_or_default();
            out.push_str(&claims);
            out.push('\n');
            return out;
        }
    }
    for (label, value) in rows {
        let mut lines = value.lines();
        out.push_str(&format!("{label:>LABELS$}: {}\n", lines.next().unwrap_or_default()));
        for line in lines {
            out.push_str(&format!("{:LABELS$}  {line}\n", ""));
        }
    }
    out
}

type Rows = Vec<(String, String)>;

fn row(rows: &mut Rows, label: &str, value: impl ToString) {
    rows.push((label.to_owned(), value.to_string()));
}

fn row_if_set(rows: &mut Rows, label: &str, value: &str) {
    if !value.is_empty() {
        row(rows, label, value);
    }
}

fn provisioning(rows: &mut Rows, claims: &ProvisioningClaims) {
    row(rows, "Token", if claims.cht.is_empty() { "not set" } else { "*****" });
    row(rows, "Secure", claims.chs);
    row_if_set(rows, "SRV Domain", &claims.chsrv);
    if !claims.chu.is_empty() {
        row(rows, "URLS", claims.broker_urls().join(", "));
    }
    row(rows, "Provisioning by default", claims.chpd);
    row_if_set(rows, "Provisioning Registration Data", &claims.chrd);
    row_if_set(rows, "Provisioning Facts", &claims.chf);
    row_if_set(rows, "Broker Username", &claims.chusr);
    if !claims.chpwd.is_empty() {
        row(rows, "Broker Password", "*****");
    }
    row(rows, "Using version 2 Protocol", claims.v2);
    row(rows, "Server Version Upgrades", claims.update);
    if let Some(extensions) = &claims.extensions {
        row(rows, "Extensions", pretty(&Value::Object(extensions.clone())));
    }
    row(rows, "Standard Claims", standard(claims));
}

fn client(rows: &mut Rows, claims: &ClientClaims) {
    row(rows, "Caller ID", &claims.callerid);
    row_if_set(rows, "Organization Unit", &claims.ou);
    row_if_set(rows, "Public Key", &claims.standard.public_key);
    row_if_set(rows, "Allowed Agents", &claims.agents.join(", "));
    row_if_set(rows, "Additional Publish Subjects", &claims.pub_subjects.join(", "));
    row_if_set(rows, "Additional Subscribe Subjects", &claims.sub_subjects.join(", "));
    let granted = claims.permissions.as_ref().map(|permissions| permissions.granted()).unwrap_or_default();
    row_if_set(rows, "Permissions", &granted.join("\n"));
    row(rows, "Standard Claims", standard(&claims.standard));
}

fn server(rows: &mut Rows, claims: &ServerClaims) {
    row(rows, "Identity", &claims.identity);
    row_if_set(rows, "Collectives", &claims.collectives.join(", "));
    row_if_set(rows, "Organization Unit", &claims.ou);
    row_if_set(rows, "Public Key", &claims.standard.public_key);
    row_if_set(rows, "Additional Publish Subjects", &claims.pub_subjects.join(", "));
    let granted = claims.permissions.as_ref().map(|permissions| permissions.granted()).unwrap_or_default();
    row_if_set(rows, "Permissions", &granted.join("\n"));
    row(rows, "Standard Claims", standard(&claims.standard));
}

/// The claims that tokens of all purposes share, those that are set.
fn standard(claims: &impl serde::Serialize) -> String {
    const NAMES: [&str; 9] = ["exp", "iat", "iss", "issexp", "jti", "nbf", "public_key", "purpose", "sub"];
    let all = serde_json::to_value(claims).unwrap_or_default();
    let kept: Map<String, Value> = NAMES
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), all.get(name)?.clone())))
        .filter(|(_, value)| !value.is_null() && value != "")
        .collect();
    pretty(&Value::Object(kept))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn expiry(expires: i64, now: i64) -> String {
    let time = jiff::Timestamp::from_second(expires)
        .map_or_else(|_| expires.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
    let left = crate::text::go_duration(std::time::Duration::from_secs(expires.abs_diff(now)));
    if expires > now { format!("{time} (in {left})") } else { format!("{time} (expired {left} ago)") }
}
