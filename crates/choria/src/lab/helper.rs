//! The provisioning helper of a lab: signs certificate requests with the lab's authority and hands out configurations.
//!
//! It speaks the contract of spec 04 §7: one JSON document in, one JSON document out, on one line each, until stdin ends.
//! It serves as example for helpers of one's own: everything that is decided about a node is decided in [`answer`].

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use choria_security::ca::{CertificateAuthority, SigningPolicy};
use serde::Deserialize;
use serde_json::{Value, json};

use super::layout::{Layout, Purpose};
use crate::cli::LabHelperArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::process;

/// What the provisioner tells about a node, as far as this helper cares.
#[derive(Debug, Deserialize)]
struct Node {
    identity: String,
    csr: Option<Csr>,
}

#[derive(Debug, Deserialize)]
struct Csr {
    csr: String,
    ssldir: String,
}

/// The command line that starts it for a lab.
pub(crate) fn command(layout: &Layout) -> Result<String, Failure> {
    Ok(format!("{} lab-helper --dir {}", quoted(process::executable()?)?, quoted(&layout.directory)?))
}

/// A path as one word of a command line.
pub(crate) fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::new(format!("{} is not UTF-8", path.display())))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// Runs until stdin ends.
pub(crate) fn run(args: &LabHelperArgs) -> Outcome {
    let layout = Layout::read(&args.dir)?;
    let authority = CertificateAuthority::load(layout.authority())?;
    let mut ledger = match layout.purpose {
        Purpose::Demo => Some(OpenOptions::new().create(true).append(true).open(layout.ledger())?),
        Purpose::Bench => None,
    };
    let requests = serde_json::Deserializer::from_reader(io::stdin().lock()).into_iter::<Node>();
    for node in requests {
        let node = node.map_err(|error| Failure::new(format!("the provisioner sent something else: {error}")))?;
        let now = jiff::Timestamp::now().as_second();
        let answer = answer(&layout, &authority, &node, now).unwrap_or_else(|reason| {
            // A deferred node is tried again; the reason shows up in the provisioner's log.
            json!({"identity": node.identity, "defer": true, "msg": reason})
        });
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
        if let Some(ledger) = &mut ledger {
            let deferred = answer.get("defer").is_some();
            // One write per line, so that the lines of several helpers do not mix.
            ledger.write_all(format!("{}\n", json!({"identity": node.identity, "deferred": deferred})).as_bytes())?;
        }
    }
    Ok(Exit::Ok)
}

/// Everything there is to decide about one node.
fn answer(layout: &Layout, authority: &CertificateAuthority, node: &Node, now: i64) -> Result<Value, String> {
    if !layout.nodes.contains(&node.identity) {
        return Err(format!("{} is not one of the nodes here", node.identity));
    }
    let csr = node.csr.as_ref().ok_or("the node sent no certificate request")?;
    let policy = SigningPolicy::new(&node.identity);
    let certificate = authority.sign_csr(&csr.csr, &policy, now).map_err(|error| error.to_string())?;
    Ok(json!({
        "identity": node.identity,
        "certificate": certificate.pem,
        "ca": authority.certificate_pem(),
        "configuration": configuration(layout, node, &csr.ssldir),
        "action_policies": layout.policies(),
    }))
}

fn configuration(layout: &Layout, node: &Node, ssldir: &str) -> BTreeMap<&'static str, String> {
    let mut settings = layout.settings();
    settings.extend([
        ("identity", node.identity.clone()),
        ("plugin.security.provider", "file".to_owned()),
        ("plugin.security.file.certificate", format!("{ssldir}/certificate.pem")),
        ("plugin.security.file.key", format!("{ssldir}/private.pem")),
        ("plugin.security.file.ca", format!("{ssldir}/ca.pem")),
    ]);
    if layout.purpose == Purpose::Demo {
        let own = layout.node(&node.identity);
        settings.extend([
            ("plugin.choria.status_file_path", own.join("status.json").display().to_string()),
            ("plugin.choria.status_update_interval", "10".to_owned()),
            ("plugin.yaml", own.join("facts.json").display().to_string()),
            ("rpcaudit", "1".to_owned()),
            ("plugin.rpcaudit.logfile", own.join("audit.log").display().to_string()),
        ]);
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::HelperPlan;
    use choria_security::csr::{self, Subject};
    use choria_security::keys::{KeyKind, PrivateKey};

    fn setup() -> (tempfile::TempDir, Layout, CertificateAuthority) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::plan(Purpose::Demo, directory.path(), 2, 0).unwrap();
        layout.make(&HelperPlan::persistent("helper", 1), jiff::Timestamp::now().as_second()).unwrap();
        let authority = CertificateAuthority::load(layout.authority()).unwrap();
        (directory, layout, authority)
    }

    fn node(identity: &str, name: &str) -> Node {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let csr = csr::create(&key, &Subject::common_name(name)).unwrap();
        Node { identity: identity.to_owned(), csr: Some(Csr { csr, ssldir: "/x/ssl".to_owned() }) }
    }

    #[test]
    fn a_known_node_gets_what_it_needs() {
        let (_directory, layout, authority) = setup();
        let now = jiff::Timestamp::now().as_second();
        let answer = answer(&layout, &authority, &node("node2.demo", "node2.demo"), now).unwrap();
        assert!(answer["certificate"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
        assert_eq!(answer["configuration"]["plugin.security.file.key"], "/x/ssl/private.pem");
        assert_eq!(answer["configuration"]["plugin.choria.server.provision"], "false");
        let policy = answer["action_policies"]["rpcutil.policy"].as_str().unwrap();
        assert!(policy.contains(&format!("choria={}", layout.client)), "{policy}");
    }

    #[test]
    fn others_are_refused() {
        let (_directory, layout, authority) = setup();
        let now = jiff::Timestamp::now().as_second();
        for bad in [node("node9.demo", "node9.demo"), node("node1.demo", "node2.demo")] {
            assert!(answer(&layout, &authority, &bad, now).is_err(), "{bad:?}");
        }
        let no_csr = Node { csr: None, ..node("node1.demo", "node1.demo") };
        assert!(answer(&layout, &authority, &no_csr, now).is_err());
    }
}
