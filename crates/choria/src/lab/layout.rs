//! Everything a lab has on disk: authority, keys, token, configurations.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use choria_config::Mode;
use choria_security::atomic;
use choria_security::ca::{CertificateAuthority, IssueRequest};
use choria_security::keys::{KeyKind, write_private_key};
use choria_security::provider::Surroundings;
use choria_tokens::keyfile::Seed;
use choria_tokens::{ProvisioningRequest, SigningKey, issue_provisioning, keyfile};
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// File that tells the helper where everything is.
const PLAN: &str = "lab.json";
/// File of the built-in helper.
const RULES: &str = "provisioner/rules.yaml";
/// Certname of the provisioner: it signs requests, so nodes and broker must know it as a caller.
pub(crate) const PROVISIONER: &str = "provisioner.mcollective";

/// Ports on the loopback address.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// The broker's.
    pub broker: u16,
    /// The broker's statistics.
    pub statistics: u16,
    /// The provisioner's metrics.
    pub metrics: u16,
}

/// What a lab is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    /// To be looked at: nodes have facts, status files, audit logs, and directories made beforehand.
    Demo,
    /// To be measured: nodes have what a fleet needs and make their directories themselves.
    Bench,
}

impl Purpose {
    /// The last part of all names.
    fn domain(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Bench => "bench",
        }
    }
}

/// The names of a lab's nodes: `node1.demo` to `nodeN.demo`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Names {
    domain: String,
    count: u32,
}

impl Names {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.count).map(|number| self.pattern().replace("{}", &number.to_string()))
    }

    /// The names with `{}` in place of the number.
    pub(crate) fn pattern(&self) -> String {
        format!("node{{}}.{}", self.domain)
    }

    /// Whether this is one of them.
    pub(crate) fn contains(&self, identity: &str) -> bool {
        let number = identity.strip_prefix("node").and_then(|rest| rest.strip_suffix(&self.domain)?.strip_suffix('.'));
        number.is_some_and(|text| !text.starts_with(['0', '+']) && text.parse().is_ok_and(|n: u32| n <= self.count))
    }
}

/// How the lab's provisioner decides about nodes.
#[derive(Debug, Clone)]
pub(crate) struct HelperPlan {
    /// Lines of its configuration.
    lines: String,
    /// What goes into the file of rules.
    rules: Option<String>,
}

impl HelperPlan {
    /// Long-lived processes of this command.
    pub(crate) fn persistent(command: &str, processes: usize) -> Self {
        let command = yaml_text(command);
        let lines = format!("helper: {command}\nhelper_mode: persistent\nhelper_processes: {processes}\n");
        Self { lines, rules: None }
    }

    /// One process of this command per node.
    pub(crate) fn process(command: &str) -> Self {
        Self { lines: format!("helper: {}\nhelper_mode: process\n", yaml_text(command)), rules: None }
    }

    /// Nobody is provisioned: the provisioner itself puts every node off.
    pub(crate) fn defers(layout: &Layout) -> Self {
        Self::by_rule(layout, &serde_json::json!({"identity": "*", "defer": "nobody is provisioned here"}))
    }

    /// The provisioner itself, by rules that say what the lab's helper says.
    pub(crate) fn builtin(layout: &Layout) -> Self {
        let rule = serde_json::json!({
            "identity": layout.nodes.pattern().replace("{}", "*"),
            "configuration": layout.settings(),
            "action_policies": layout.policies(),
        });
        Self::by_rule(layout, &rule)
    }

    fn by_rule(layout: &Layout, rule: &serde_json::Value) -> Self {
        let path = |relative: &str| yaml_text(&layout.path(relative).display().to_string());
        Self {
            lines: format!("helper_mode: builtin\nrules: {}\nca_directory: {}\n", path(RULES), path("ca")),
            rules: Some(serde_json::json!({"rules": [rule]}).to_string()),
        }
    }
}

/// Where everything is. Also read back by the helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// What it is for.
    pub purpose: Purpose,
    /// The lab's directory, absolute.
    pub directory: PathBuf,
    /// Ports.
    pub ports: Ports,
    /// Certname of the client that may do things on the nodes.
    pub client: String,
    /// The nodes' identities.
    pub nodes: Names,
}

impl Layout {
    /// Chooses names and ports. Nothing is written yet.
    pub(crate) fn plan(purpose: Purpose, directory: &Path, nodes: u32, port: u16) -> Result<Self, Failure> {
        let directory = std::path::absolute(directory)?;
        let [broker, statistics, metrics] = free_ports(port)?;
        // Clients act under their user's name; the certificate must be for that name.
        let fallback = format!("{}.mcollective", purpose.domain());
        let client = Surroundings::from_process().certname(Mode::Client, &fallback).unwrap_or(fallback);
        Ok(Self {
            purpose,
            directory,
            ports: Ports { broker, statistics, metrics },
            client,
            nodes: Names { domain: purpose.domain().to_owned(), count: nodes },
        })
    }

    /// Reads the plan of a lab that exists.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(PLAN);
        let text = atomic::read_text(&path, 16 * 1024 * 1024)?;
        serde_json::from_str(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    }

    /// A file below the lab's directory.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.directory.join(relative)
    }

    /// The directory of one node.
    pub(crate) fn node(&self, identity: &str) -> PathBuf {
        self.directory.join("nodes").join(identity)
    }

    /// The directory of the authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.path("ca")
    }

    /// What the helper of a demo answered, one line per node.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.path("provisioner/helper.jsonl")
    }

    /// Writes it all.
    pub(crate) fn make(&self, helper: &HelperPlan, now: i64) -> Result<(), Failure> {
        for part in ["broker", "provisioner", "client", "token"] {
            make_directory(&self.path(part))?;
        }
        let authority = CertificateAuthority::create(self.authority(), "Choria Lab CA", KeyKind::P256, now)?;
        let mut broker = IssueRequest::new(self.broker_name(), KeyKind::P256);
        broker.dns_names = vec!["localhost".to_owned()];
        broker.ip_addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        self.member("broker", &broker, &authority, now)?;
        self.member("provisioner", &IssueRequest::new(PROVISIONER, KeyKind::Rsa2048), &authority, now)?;
        self.member("client", &IssueRequest::new(&self.client, KeyKind::Rsa2048), &authority, now)?;

        let (secret, password) = (random_text(), random_text());
        self.token(&secret, now)?;
        self.write("broker/broker.conf", &self.broker_config(&password))?;
        self.write("provisioner/provisioner.yaml", &self.provisioner_config(helper, &secret, &password))?;
        if let Some(rules) = &helper.rules {
            self.write(RULES, rules)?;
        }
        self.write("provisioner/choria.conf", &self.member_config("provisioner", PROVISIONER))?;
        self.write("client/client.conf", &self.member_config("client", &self.client))?;
        self.write(PLAN, &serde_json::to_string_pretty(self)?)?;
        if self.purpose == Purpose::Bench {
            return Ok(());
        }
        for (index, identity) in self.nodes.iter().enumerate() {
            make_directory(&self.node(&identity))?;
            // All that an unconfigured node knows: a name, and the token.
            self.write(&format!("nodes/{identity}/server.conf"), &format!("identity = {identity}\n"))?;
            self.write(&format!("nodes/{identity}/facts.json"), &facts(index))?;
        }
        Ok(())
    }

    /// Settings of a member that are the same for every node; those of TLS are the node's own.
    pub(crate) fn settings(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("collectives", "mcollective".to_owned()),
            ("plugin.choria.server.provision", "false".to_owned()),
            ("plugin.choria.middleware_hosts", format!("127.0.0.1:{}", self.ports.broker)),
            ("plugin.choria.use_srv", "false".to_owned()),
            ("rpcauthorization", "1".to_owned()),
            ("rpcauthprovider", "action_policy".to_owned()),
        ])
    }

    /// Only the lab's client may do things, and only on the agents named here.
    pub(crate) fn policies(&self) -> BTreeMap<&'static str, String> {
        let policy = format!("policy default deny\nallow\tchoria={}\t*\t*\t*\n", self.client);
        BTreeMap::from([("rpcutil.policy", policy.clone()), ("choria_util.policy", policy)])
    }

    fn broker_name(&self) -> String {
        format!("broker.{}", self.purpose.domain())
    }

    /// Certificate, key and CA of one part, in its directory.
    fn member(
        &self,
        part: &str,
        request: &IssueRequest,
        authority: &CertificateAuthority,
        now: i64,
    ) -> Result<(), Failure> {
        let issued = authority.issue(request, now)?;
        write_private_key(self.path(part).join("key.pem"), &issued.key)?;
        self.write(&format!("{part}/certificate.pem"), &issued.certificate.pem)?;
        self.write(&format!("{part}/ca.pem"), authority.certificate_pem())
    }

    fn token(&self, secret: &str, now: i64) -> Result<(), Failure> {
        let seed = Seed::generate();
        keyfile::write_seed(self.path("token/signer.seed"), &seed, false)?;
        keyfile::write_public(self.path("token/signer.public"), &seed.public(), false)?;
        let mut request = ProvisioningRequest::new(secret);
        request.urls = format!("127.0.0.1:{}", self.ports.broker);
        request.provision_default = true;
        let token = issue_provisioning(&request, &SigningKey::from_seed(seed), now)?;
        keyfile::write_token(self.path("token/provisioning.jwt"), &token, false)?;
        Ok(())
    }

    fn broker_config(&self, password: &str) -> String {
        format!(
            "# The network broker: TLS for everybody, certificates for members, tokens for nodes that wait.\n\
             identity = {}\n\
             plugin.choria.broker_network = true\n\
             plugin.choria.network.listen_address = 127.0.0.1\n\
             plugin.choria.network.client_port = {}\n\
             plugin.choria.stats_address = 127.0.0.1\n\
             plugin.choria.stats_port = {}\n\
             plugin.choria.network.provisioning.signer_cert = {}\n\
             plugin.choria.network.provisioning.client_password = {password}\n{}",
            self.broker_name(),
            self.ports.broker,
            self.ports.statistics,
            self.path("token/signer.public").display(),
            self.security("broker"),
        )
    }

    fn provisioner_config(&self, helper: &HelperPlan, secret: &str, password: &str) -> String {
        format!(
            "# Makes waiting nodes members of the fleet.\n\
             {}\
             token: {secret}\n\
             broker_provisioning_password: {password}\n\
             jwt_verify_cert: {}\n\
             interval: 1m\n\
             loglevel: info\n\
             control_socket: {}\n\
             monitor_address: 127.0.0.1\n\
             monitor_port: {}\n\
             features:\n  jwt: true\n  pki: true\n",
            helper.lines,
            yaml_text(&self.path("token/signer.public").display().to_string()),
            yaml_text(&self.path("provisioner/control.sock").display().to_string()),
            self.ports.metrics,
        )
    }

    fn member_config(&self, part: &str, identity: &str) -> String {
        format!(
            "identity = {identity}\n\
             plugin.choria.middleware_hosts = 127.0.0.1:{}\n\
             plugin.choria.use_srv = false\n{}",
            self.ports.broker,
            self.security(part)
        )
    }

    fn security(&self, part: &str) -> String {
        let file = |name: &str| self.path(part).join(name).display().to_string();
        format!(
            "plugin.security.provider = file\n\
             plugin.security.file.certificate = {}\n\
             plugin.security.file.key = {}\n\
             plugin.security.file.ca = {}\n",
            file("certificate.pem"),
            file("key.pem"),
            file("ca.pem")
        )
    }

    fn write(&self, relative: &str, text: &str) -> Result<(), Failure> {
        Ok(atomic::write_file(self.path(relative), text.as_bytes(), 0o600)?)
    }
}

/// Refuses a directory that somebody else uses.
pub(crate) fn claim(directory: &Path) -> Result<(), Failure> {
    make_directory(directory)?;
    let mut entries = fs::read_dir(directory)?;
    if entries.next().is_some() {
        return Err(Failure::new(format!("{} is not empty", directory.display()))
            .hint("everything is made anew: name another directory, or remove this one"));
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| Failure::new(format!("could not make {}: {error}", path.display())))
}

/// Facts that make filters worth trying.
fn facts(index: usize) -> String {
    let role = ["web", "database", "cache"][index % 3];
    let facts = serde_json::json!({
        "demo": true,
        "role": role,
        "rack": {"name": format!("r{}", index / 10 + 1), "slot": index % 10 + 1},
    });
    format!("{facts:#}\n")
}

/// Three different free ports; the first one may be given. They are held together while choosing and then let go: the
/// moment until the parts bind them is short, and a collision is told by the part that meets it.
fn free_ports(first: u16) -> Result<[u16; 3], Failure> {
    let bind = |port: u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| Failure::new(format!("could not listen on 127.0.0.1:{port}: {error}")))
    };
    let listeners = [bind(first)?, bind(0)?, bind(0)?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// A secret of 128 random bits.
fn random_text() -> String {
    hex::encode(&Seed::generate().public()[..16])
}

/// A YAML text in double quotes; JSON texts are such.
fn yaml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use choria_config::{Config, Environment};
    use choria_provisioner::config::Helper;

    #[test]
    fn what_is_made_can_be_read_by_those_it_is_made_for() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::plan(Purpose::Demo, &directory.path().join("demo"), 3, 0).unwrap();
        claim(&layout.directory).unwrap();
        let helper = HelperPlan::persistent("/bin/helper --dir \"/a b\"", 2);
        layout.make(&helper, jiff::Timestamp::now().as_second()).unwrap();

        let environment = Environment::fixed("host");
        for (file, mode) in [
            ("broker/broker.conf", Mode::Broker),
            ("client/client.conf", Mode::Client),
            ("provisioner/choria.conf", Mode::Client),
            ("nodes/node3.demo/server.conf", Mode::Server),
        ] {
            let config = Config::load(layout.path(file), mode, &environment).unwrap();
            assert!(config.warnings().is_empty(), "{file}: {:?}", config.warnings());
        }
        let provisioner =
            choria_provisioner::config::ProvisionerConfig::load(&layout.path("provisioner/provisioner.yaml")).unwrap();
        assert!(provisioner.warnings.is_empty(), "{:?}", provisioner.warnings);
        let Some(Helper::Program(program)) = provisioner.helper else { panic!("{:?}", provisioner.helper) };
        assert_eq!(program.argv, ["/bin/helper", "--dir", "/a b"]);
        let names: Vec<String> = Layout::read(&layout.directory).unwrap().nodes.iter().collect();
        assert_eq!(names, ["node1.demo", "node2.demo", "node3.demo"]);
        assert!(claim(&layout.directory).is_err(), "a used directory is refused");
    }

    #[test]
    fn only_the_nodes_of_the_lab_are_known() {
        let names = Names { domain: "bench".to_owned(), count: 20 };
        assert!(names.iter().all(|name| names.contains(&name)));
        for other in
            ["node0.bench", "node21.bench", "node01.bench", "node+1.bench", "node1.demo", "node.bench", "node1bench"]
        {
            assert!(!names.contains(other), "{other}");
        }
    }
}
