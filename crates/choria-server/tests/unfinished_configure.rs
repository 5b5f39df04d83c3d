//! A disk that fails while `configure` works and while it goes back, and works again afterwards: whatever is asked of the
//! node next, its files belong together at the next start.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use choria_config::Environment;
use choria_rpc::{Call, CallContext, Reply, StatusCode};
use choria_security::ca::SigningPolicy;
use choria_security::cert;
use choria_security::keys::PrivateKey;
use choria_server::ServerSettings;
use choria_server::control::Control;
use choria_server::files::{Disk, Files, Metadata, SharedFiles};
use choria_server::provision::actions::{Actions, Begun, Moment};
use choria_server::provision::configure::ProviderCheck;
use choria_testkit::{TestCa, unix_now};
use common::token;
use serde_json::{Value, json};
use tempfile::TempDir;

const NODE: &str = "n1.lab.test";
const WORKS: usize = usize::MAX;

/// The real disk; after so many operations every one fails.
#[derive(Clone)]
struct Failing(Arc<AtomicUsize>);

impl Failing {
    fn step(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            0 => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            WORKS => Ok(()),
            left => {
                self.0.store(left - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

impl Files for Failing {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.step()?;
        Disk.create_dir(path, mode)
    }
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.step()?;
        let _ = fs::remove_file(path);
        fs::write(path, bytes)?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        Disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.remove_dir(path)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.step()
    }
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        Disk.read(path, limit)
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        Disk.metadata(path)
    }
    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        Disk.symlink_metadata(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        Disk.list(path)
    }
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Disk.canonicalize(path)
    }
}

/// A node that waits to be provisioned, on such a disk.
struct Node {
    root: TempDir,
    environment: Environment,
    left: Arc<AtomicUsize>,
    actions: Actions,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("provisioning.jwt"), token(&common::provisioning_claims())).unwrap();
        fs::create_dir(root.path().join("policies")).unwrap();
        fs::write(root.path().join("policies/groups"), "g a").unwrap();
        let environment = common::environment(root.path(), NODE);
        let left = Arc::new(AtomicUsize::new(WORKS));
        let files = SharedFiles::new(Failing(Arc::clone(&left)));
        let settings =
            ServerSettings::load_on(files, Path::new("server.conf"), None, &environment, unix_now()).unwrap();
        assert!(settings.is_provisioning());
        let (environment_, control) = (environment.clone(), Control::default());
        let actions = Actions::new(Arc::new(settings), environment_, control, ProviderCheck::Required);
        Self { root, environment, left, actions }
    }

    fn ask(&self, action: &str, mut data: Value) -> Reply {
        data["token"] = "toomanysecrets".into();
        let context = CallContext {
            request_id: "1".into(),
            sender: "p.choria".into(),
            caller: "choria=p.choria".into(),
            collective: "provisioning".into(),
            agent: "choria_provision".into(),
            ttl: 60,
            time: unix_now(),
        };
        let call = Call { action: action.into(), data: data.as_object().unwrap().clone(), context };
        let now = Moment { mono: Instant::now(), unix: unix_now() };
        match self.actions.begin(&call, now, &mut rand::rng()) {
            Begun::Answer(reply) => reply,
            Begun::Work(work) => self.actions.work(work, now),
        }
    }

    /// Makes a key and a configuration with a certificate for it.
    fn configuration(&self, ca: &TestCa, policy: &str) -> Value {
        let reply = self.ask("gencsr", json!({"cn": NODE}));
        assert_eq!(reply.code, StatusCode::Ok, "{}", reply.message);
        let csr = reply.data["csr"].as_str().unwrap();
        let signed = ca.authority().sign_csr(csr, &SigningPolicy::new(NODE), unix_now()).unwrap();
        let ssl = self.root.path().join("ssl");
        let config = json!({
            "plugin.choria.server.provision": "false",
            "identity": NODE,
            "plugin.security.provider": "file",
            "plugin.security.file.certificate": ssl.join("certificate.pem"),
            "plugin.security.file.key": ssl.join("private.pem"),
            "plugin.security.file.ca": ssl.join("ca.pem"),
        });
        json!({
            "config": config.to_string(), "certificate": signed.pem, "ca": ca.certificate_pem(), "ssldir": ssl,
            "action_policies": {policy: "policy default deny\n"},
        })
    }

    /// What the next start makes of it: whether it is a member, after checks that everything belongs together.
    fn starts_as_member(&self, policies: &[&str]) -> bool {
        let settings = ServerSettings::load(Path::new("server.conf"), None, &self.environment, unix_now()).unwrap();
        let mut names = Vec::new();
        for directory in ["", "ssl", "policies"] {
            let entries = fs::read_dir(self.root.path().join(directory));
            names.extend(entries.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap()));
        }
        assert!(!names.iter().any(|name| name.contains("choria-")), "left over: {names:?}");
        assert!(names.contains(&"groups".to_owned()), "the policy that stays is lost");
        if settings.is_provisioning() {
            return false;
        }
        let read = |name: &str| fs::read_to_string(self.root.path().join("ssl").join(name)).unwrap();
        let key = PrivateKey::from_pem(&read("private.pem")).unwrap();
        assert!(cert::first_from_pem(&read("certificate.pem")).unwrap().belongs_to(&key), "another key's certificate");
        let found: Vec<&String> = names.iter().filter(|name| name.ends_with(".policy")).collect();
        assert!(policies.iter().any(|policy| found == [policy]), "{found:?}");
        true
    }
}

/// Configures a node whose disk fails after so many operations and works again then. `None`: it took no more than that.
fn disturbed(ca: &TestCa, operations: usize) -> Option<Node> {
    let node = Node::new();
    let configuration = node.configuration(ca, "first.policy");
    node.left.store(operations, Ordering::Relaxed);
    node.ask("configure", configuration);
    let failed = node.left.swap(WORKS, Ordering::Relaxed) == 0;
    failed.then_some(node)
}

/// Whoever sent it back into provisioning may have been killed before the new configuration's name was on the disk.
#[test]
fn a_node_that_waits_builds_on_no_name_that_a_power_cut_takes_back() {
    let node = Node::new();
    node.left.store(1, Ordering::Relaxed);
    let files = SharedFiles::new(Failing(Arc::clone(&node.left)));
    let start =
        || ServerSettings::load_on(files.clone(), Path::new("server.conf"), None, &node.environment, unix_now());
    assert!(start().unwrap().is_provisioning());
    assert_eq!(node.left.load(Ordering::Relaxed), 0, "the directory was brought to the disk");
    // Where nothing can be written any more, nothing can be built either.
    assert!(start().unwrap().is_provisioning());
}

#[test]
fn a_second_configuration_takes_nothing_from_an_unfinished_one() {
    let ca = TestCa::new();
    let mut operations = 0;
    while let Some(node) = disturbed(&ca, operations) {
        let configuration = node.configuration(&ca, "second.policy");
        let reply = node.ask("configure", configuration);
        assert_eq!(reply.code, StatusCode::Ok, "after {operations} operations: {}", reply.message);
        assert!(node.starts_as_member(&["second.policy"]), "after {operations} operations");
        operations += 1;
    }
    assert!(operations > 20, "{operations}");
}

#[test]
fn a_new_key_never_comes_under_the_certificate_of_an_unfinished_configuration() {
    let ca = TestCa::new();
    let (mut operations, mut members) = (0, 0);
    while let Some(node) = disturbed(&ca, operations) {
        node.ask("gencsr", json!({"cn": NODE}));
        members += usize::from(node.starts_as_member(&["first.policy"]));
        operations += 1;
    }
    assert!(operations > 20 && members > 3, "{operations}, {members}");
}
