//! `configure` with a kill after every operation on the disk, or with a disk that is full from then on: after the next
//! start, or at once, all files are old or all are new.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use choria_security::ca::{IssueRequest, Issued};
use choria_security::keys::KeyKind;
use choria_security::transfer::{TransferKey, encrypt_key};
use choria_server::ServerSettings;
use choria_server::files::Metadata;
use choria_server::provision::configure::{ConfigureRequest, Context, Disk, Files, ProviderCheck, configure};
use choria_testkit::TestCa;
use common::{NOW, token};
use serde_json::json;
use tempfile::TempDir;

/// What happens to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The process is killed: nothing works any more.
    Killed,
    /// The disk is full: nothing new can be written, the rest works.
    Full,
}

/// A disk that works for so many operations. A write that is cut leaves half.
struct Failing {
    fate: Fate,
    left: Cell<usize>,
    torn: bool,
}

impl Failing {
    fn step(&self, needs_room: bool) -> io::Result<()> {
        match (self.left.get().checked_sub(1), self.fate) {
            (Some(left), _) => self.left.set(left),
            (None, Fate::Killed) => return Err(io::Error::other("killed")),
            (None, Fate::Full) if needs_room => return Err(io::ErrorKind::StorageFull.into()),
            (None, Fate::Full) => {}
        }
        Ok(())
    }
}

impl Files for Failing {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.step(true)?;
        Disk.create_dir(path, mode)
    }
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        if self.left.get() == 0 && self.torn {
            fs::write(path, &bytes[..bytes.len() / 2])?;
        }
        self.step(true)?;
        let _ = fs::remove_file(path);
        fs::write(path, bytes)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(false)?;
        Disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step(false)?;
        Disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step(false)?;
        Disk.remove_dir(path)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.step(false)
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

struct Material {
    ca: TestCa,
    issued: Issued,
    node: TransferKey,
    provisioner: TransferKey,
}

fn material() -> Material {
    let ca = TestCa::new();
    let issued = ca.issue(&IssueRequest::new("n1.lab.test", KeyKind::P256));
    Material { ca, issued, node: TransferKey::generate().unwrap(), provisioner: TransferKey::generate().unwrap() }
}

/// A node that was a member once and is being provisioned again: every file that `configure` replaces is there.
fn old_world() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("ssl")).unwrap();
    fs::create_dir_all(root.join("policies/rego")).unwrap();
    fs::create_dir(root.join("real")).unwrap();
    for (name, text) in [
        ("provisioning.jwt", token(&common::provisioning_claims()).as_str()),
        ("real/server.conf", "plugin.choria.server.provision = 1\nidentity = n1.lab.test\n"),
        ("server.jwt", "old token"),
        ("ssl/certificate.pem", "old certificate"),
        ("ssl/ca.pem", "old ca"),
        ("ssl/private.pem", "old key"),
        ("ssl/csr.pem", "old csr"),
        ("policies/old.policy", "old"),
        ("policies/groups", "g a"),
        ("policies/rego/old.rego", "old"),
    ] {
        fs::write(root.join(name), text).unwrap();
    }
    symlink("real/server.conf", root.join("server.conf")).unwrap();
    directory
}

fn run(files: &dyn Files, root: &Path, material: &Material) -> bool {
    let ssl = root.join("ssl");
    let request = ConfigureRequest {
        config: json!({
            "plugin.choria.server.provision": "false",
            "identity": "n1.lab.test",
            "plugin.security.provider": "file",
            "plugin.security.file.certificate": ssl.join("certificate.pem"),
            "plugin.security.file.key": ssl.join("private.pem"),
            "plugin.security.file.ca": ssl.join("ca.pem"),
        })
        .to_string(),
        certificate: material.issued.certificate.pem.clone(),
        ca: material.ca.certificate_pem().to_owned(),
        ssldir: ssl.display().to_string(),
        key: encrypt_key(&material.issued.key.to_pem(), &material.provisioner, &material.node.public_hex()).unwrap(),
        ecdh_public: material.provisioner.public_hex(),
        server_jwt: "new token".into(),
        action_policies: (0..5)
            .map(|number| (format!("agent{number}.policy"), "policy default allow\n".into()))
            .collect(),
        opa_policies: vec![("default.rego".into(), "package x\n".into())],
    };
    let environment = common::environment(root, "n1.lab.test");
    let context = Context {
        config_file: &root.join("server.conf"),
        environment: &environment,
        by_default: true,
        provider: ProviderCheck::Required,
        transfer: Some(&material.node),
        request_id: "1",
        caller: "choria=p.choria",
        sender: "p.choria",
        now: choria_testkit::unix_now(),
    };
    configure(files, &request, &context).is_ok()
}

type Tree = BTreeMap<String, (u32, Option<String>)>;

fn tree(root: &Path) -> Tree {
    fn walk(root: &Path, at: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                tree.insert(name, (mode, None));
                walk(root, &path, tree);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                // The first line of the configuration says when it was written.
                let text = text.lines().filter(|line| !line.starts_with("# ")).collect::<Vec<_>>().join("\n");
                // Paths hold the name of the test's own directory.
                tree.insert(name, (mode, Some(text.replace(&root.display().to_string(), "ROOT"))));
            }
        }
    }
    let mut found = Tree::new();
    walk(root, root, &mut found);
    found
}

#[test]
fn design6_configure_is_wholly_old_or_wholly_new_after_a_kill_at_any_step() {
    let material = material();
    let world = old_world();
    let before = tree(world.path());
    assert!(run(&Disk, world.path(), &material));
    let after = tree(world.path());
    assert!(world.path().join("server.conf").is_symlink(), "a link stays a link");
    assert_eq!(after["policies/groups"], before["policies/groups"]);
    assert!(!after.contains_key("ssl/csr.pem") && !after.contains_key("policies/old.policy"));
    assert!(after.keys().all(|name| !name.contains("choria-")), "{after:?}");

    let (mut steps, mut olds, mut news) = (0, 0, 0);
    loop {
        let mut finished = false;
        for torn in [false, true] {
            let world = old_world();
            let files = Failing { fate: Fate::Killed, left: Cell::new(steps), torn };
            run(&files, world.path(), &material);
            finished = files.left.get() > 0;
            // The next start: recovery comes first, then the decision sees one world or the other.
            let environment = common::environment(world.path(), "n1.lab.test");
            let settings = ServerSettings::load(Path::new("server.conf"), None, &environment, NOW).unwrap();
            let found = tree(world.path());
            if found == after {
                news += 1;
                assert!(!settings.is_provisioning(), "after {steps} steps");
            } else {
                assert_eq!(found, before, "after {steps} steps, torn {torn}");
                assert!(settings.is_provisioning(), "after {steps} steps");
                olds += 1;
            }
        }
        if finished {
            break;
        }
        steps += 1;
    }
    assert!(olds > 40 && news > 20, "{steps} steps: {olds} old, {news} new");
}

/// A full disk is no reason to restart: the node is as it was as soon as `configure` has failed.
#[test]
fn a_disk_that_fills_up_at_any_step_leaves_everything_as_it_was() {
    let material = material();
    let world = old_world();
    let before = tree(world.path());
    assert!(run(&Disk, world.path(), &material));
    let after = tree(world.path());
    let (mut steps, mut olds, mut news) = (0, 0, 0);
    let mut finished = false;
    while !finished {
        for torn in [false, true] {
            let world = old_world();
            let files = Failing { fate: Fate::Full, left: Cell::new(steps), torn };
            let is_done = run(&files, world.path(), &material);
            finished = files.left.get() > 0;
            let found = tree(world.path());
            if is_done {
                news += 1;
                assert_eq!(found, after, "after {steps} steps, torn {torn}");
            } else {
                olds += 1;
                assert_eq!(found, before, "after {steps} steps, torn {torn}");
            }
        }
        steps += 1;
    }
    assert!(olds > 20 && news > 2, "{steps} steps: {olds} old, {news} new");
}
