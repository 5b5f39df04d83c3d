//! What the demo shows at its end.

use std::time::Duration;

use choria_client::{PingReply, RpcReply};
use serde_json::{Value, json};

use super::progress::{Node, Step};
use crate::exit::Failure;
use crate::lab::Layout;
use crate::print::ping;
use crate::text::go_millis;

/// Lists longer than this are cut.
const SHOWN: usize = 10;

/// The results.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// Where everything is.
    pub layout: &'a Layout,
    /// Each node's way.
    pub nodes: Vec<Node>,
    /// From the start of the nodes until all were members.
    pub took: Duration,
    /// Answers to a ping.
    pub answers: &'a [PingReply],
    /// Answers to `rpcutil inventory`.
    pub inventory: &'a [RpcReply],
}

impl Report<'_> {
    /// Every node must be a member that answers both.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let all = self.layout.nodes.len();
        let good = self.inventory.iter().filter(|reply| reply.is_ok()).count();
        if self.answers.len() == all && good == all {
            return Ok(());
        }
        let reason = self.inventory.iter().find(|reply| !reply.is_ok());
        let reason = reason.map(|reply| format!("; {} says: {}", reply.sender, reply.message)).unwrap_or_default();
        Err(Failure::new(format!(
            "{} of {all} nodes answered a ping and {good} the action rpcutil#inventory{reason}",
            self.answers.len()
        )))
    }

    /// For scripts.
    pub(crate) fn json(&self) -> Value {
        let ping: Vec<Value> = self
            .answers
            .iter()
            .map(|reply| json!({"sender": reply.sender, "time_ms": reply.after.as_secs_f64() * 1e3}))
            .collect();
        let inventory: Vec<Value> = self
            .inventory
            .iter()
            .map(|reply| json!({"sender": reply.sender, "statuscode": reply.code, "statusmsg": reply.message}))
            .collect();
        json!({
            "directory": self.layout.directory,
            "ports": self.layout.ports,
            "client_config": self.layout.path("client/client.conf"),
            "members": self.nodes.iter().filter(|node| node.step == Step::Member).count(),
            "seconds": (self.took.as_secs_f64() * 1e3).round() / 1e3,
            "nodes": self.nodes,
            "ping": ping,
            "inventory": inventory,
        })
    }

    /// For people. `ends` tells that the fleet goes away at once, `kept` that its files stay.
    pub(crate) fn text(&self, ends: bool, kept: bool) -> String {
        let all = self.layout.nodes.len();
        let mut out =
            format!("\n{all} nodes became fleet members in {}.\n\n$ choria ping\n", go_millis(self.took)).into_bytes();
        for reply in self.answers.iter().take(SHOWN) {
            // Writing to memory does not fail.
            let _ = ping::host(&mut out, reply);
        }
        let mut text = String::from_utf8(out).unwrap_or_default();
        if self.answers.len() > SHOWN {
            text.push_str(&format!("... and {} more\n", self.answers.len() - SHOWN));
        }
        text.push_str("\n$ choria req rpcutil inventory\n");
        text.push_str(&self.inventory_text());
        text.push_str(&self.made(ends, kept));
        if !ends {
            text.push_str(&self.next());
        }
        text
    }

    fn inventory_text(&self) -> String {
        let Some(reply) = self.inventory.iter().find(|reply| reply.is_ok()) else { return String::new() };
        let list = |name: &str| match reply.data.get(name).and_then(Value::as_array) {
            Some(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            None => String::new(),
        };
        let facts = reply.data.get("facts").map(Value::to_string).unwrap_or_default();
        format!(
            "{}\n   agents: {}\n    facts: {facts}\n... {} of {} nodes answered\n",
            reply.sender,
            list("agents"),
            self.inventory.len(),
            self.layout.nodes.len()
        )
    }

    fn made(&self, ends: bool, kept: bool) -> String {
        let directory = self.layout.directory.display();
        let stays = match (kept, ends) {
            (true, _) => "",
            (false, true) => " (removed again; --dir DIR keeps it)",
            (false, false) => " (removed at the end; --dir DIR keeps it)",
        };
        format!(
            "\nMade in {directory}{stays}:\n  \
             ca/           the certificate authority\n  \
             token/        the signed token that nodes start with, and its signer's key\n  \
             broker/       configuration, certificate and log of the broker\n  \
             provisioner/  configuration, certificate and log of the provisioner, and what its helper answered\n  \
             client/       configuration and certificate of {}\n  \
             nodes/        one directory per node: configuration, key, certificate, policies, status, log\n",
            self.layout.client
        )
    }

    fn next(&self) -> String {
        let config = self.layout.path("client/client.conf");
        let (config, ports) = (config.display(), self.layout.ports);
        let choria = program();
        format!(
            "\nThe fleet is up until you press Ctrl-C. Try, in another terminal:\n  \
             {choria} ping --config {config}\n  \
             {choria} ping --config {config} -F role=web\n  \
             {choria} req rpcutil get_fact fact=rack.name --config {config}\n  \
             {choria} tool event --config {config}\n  \
             curl http://127.0.0.1:{}/choria/prometheus\n  \
             curl http://127.0.0.1:{}/metrics\n",
            ports.statistics, ports.metrics
        )
    }
}

/// How this program is called: by its name when the shell finds it, else by its path.
fn program() -> String {
    let Ok(own) = crate::process::executable() else { return "choria".to_owned() };
    let same = |path: &std::path::Path| path.canonicalize().is_ok_and(|found| Some(found) == own.canonicalize().ok());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join("choria")).find(|path| path.is_file());
    match found {
        Some(found) if same(&found) => "choria".to_owned(),
        _ => own.display().to_string(),
    }
}
