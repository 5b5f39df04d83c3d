//! Full disks and directories that cannot be written to: a clear refusal, and everything stays as it was.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/small_disk.rs"]
mod small_disk;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use choria_testkit::wait_until;
use common::{Daemon, Fleet, PATIENCE, choria_in, free_port, metric, stderr, text};
use small_disk::SmallDisk;

const NODE: &str = "n1.example.net";

/// A node whose directory is a small disk.
struct Node {
    fleet: Fleet,
    disk: SmallDisk,
}

impl Node {
    fn new() -> Option<Self> {
        let fleet = Fleet::new();
        let disk = SmallDisk::mount(fleet.lab.node_config(NODE).parent().unwrap())?;
        fs::write(fleet.lab.node_config(NODE), format!("identity = {NODE}\n")).unwrap();
        Some(Self { fleet, disk })
    }

    fn config(&self) -> String {
        fs::read_to_string(self.fleet.lab.node_config(NODE)).unwrap()
    }

    /// The node is refused with `cause`, stays as it was, and becomes a member once `heal` was done.
    fn is_provisioned_only_after(&self, cause: &str, heal: impl FnOnce(&SmallDisk)) {
        let _broker = self.fleet.broker();
        let mut provisioner = self.fleet.provisioner("");
        let mut node = self.fleet.node(NODE);
        provisioner.wait_for(cause);
        node.assert_alive();
        assert_eq!(self.config(), format!("identity = {NODE}\n"));
        heal(&self.disk);
        self.fleet.wait_for_members(&[NODE]);
        assert!(self.config().contains("plugin.security.file.certificate"));
        drop((node, provisioner));
        let left: Vec<String> = files(self.fleet.lab.node_config(NODE).parent().unwrap());
        assert!(left.iter().all(|name| !name.contains("choria-") && !name.ends_with(".tmp")), "{left:?}");
    }
}

fn files(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(files(&path));
        } else {
            names.push(path.display().to_string());
        }
    }
    names
}

#[test]
fn a_node_on_a_full_disk_is_refused_and_stays_as_it_was() {
    let Some(node) = Node::new() else { return };
    node.disk.fill(0);
    node.is_provisioned_only_after("No space left on device", SmallDisk::make_room);
}

/// There is room for a key and a request, but not for what comes after them.
#[test]
fn a_node_whose_disk_fills_up_during_configure_stays_as_it_was() {
    let Some(node) = Node::new() else { return };
    node.disk.fill(3);
    node.is_provisioned_only_after("configure failed", SmallDisk::make_room);
}

#[test]
fn a_node_on_a_read_only_disk_is_refused_and_stays_as_it_was() {
    let Some(node) = Node::new() else { return };
    node.disk.set_read_only(true);
    node.is_provisioned_only_after("Read-only file system", |disk| disk.set_read_only(false));
}

/// A log that cannot be written is no reason to leave nodes waiting.
#[test]
fn daemons_go_on_when_the_disk_of_their_log_is_full() {
    let fleet = Fleet::new();
    let Some(disk) = SmallDisk::mount(&fleet.path().join("logs")) else { return };
    let port = free_port();
    let logs = fleet.path().join("logs");
    let broker_log = logs.join("broker.log");
    let config = fleet.lab.broker_config(fleet.port, 0, &format!("logfile = {}\n", broker_log.display()));
    let mut broker = fleet.daemon("broker", &["broker", "run", "--config", text(&config)]);
    wait_until(PATIENCE, "the broker logs", || {
        fs::read_to_string(&broker_log).is_ok_and(|log| log.contains("broker started"))
    });
    let provisioner_log = logs.join("provisioner.log");
    let extra = format!("monitor_port: {port}\nlogfile: {}\n", provisioner_log.display());
    let mut provisioner = provisioner(&fleet, &extra, &[]);
    wait_until(PATIENCE, "the provisioner logs", || {
        fs::read_to_string(&provisioner_log).is_ok_and(|log| !log.is_empty())
    });
    disk.fill(0);
    let _node = fleet.node(NODE);
    fleet.wait_for_members(&[NODE]);
    broker.assert_alive();
    provisioner.assert_alive();
    assert_eq!(metric(port, "choria_provisioner_provisioned", ""), 1);
    disk.make_room();
    let before = fs::read_to_string(&provisioner_log).unwrap_or_default().len();
    let _second = fleet.node("n2.example.net");
    fleet.wait_for_members(&[NODE, "n2.example.net"]);
    wait_until(PATIENCE, "the provisioner logs again", || {
        fs::read_to_string(&provisioner_log).is_ok_and(|log| log.len() > before && log.contains("n2.example.net"))
    });
}

/// What a daemon cannot start without is named, with its path and the system's word.
#[test]
fn files_that_cannot_be_written_end_the_start_with_a_clear_word() {
    let fleet = Fleet::new();
    let Some(disk) = SmallDisk::mount(&fleet.path().join("sealed")) else { return };
    disk.set_read_only(true);
    let sealed = fleet.path().join("sealed");
    let (pid, log, socket) = (sealed.join("daemon.pid"), sealed.join("daemon.log"), sealed.join("control.sock"));
    let written = fleet.lab.broker_config(fleet.port, 0, &format!("logfile = {}\n", log.display()));
    let sealed_log = written.with_file_name("sealed-log.conf");
    fs::rename(written, &sealed_log).unwrap();
    let broker = fleet.lab.broker_config(fleet.port, 0, "");
    let node = fleet.lab.node_config(NODE);
    fs::write(&node, format!("identity = {NODE}\n")).unwrap();
    let token = fleet.lab.provisioning_token(fleet.port);
    let cases: BTreeMap<&str, (Vec<&str>, &Path)> = [
        ("broker, pid", (vec!["broker", "run", "--config", text(&broker), "--pid", text(&pid)], pid.as_path())),
        ("broker, log", (vec!["broker", "run", "--config", text(&sealed_log)], log.as_path())),
        (
            "node, pid",
            (
                vec!["server", "run", "--config", text(&node), "--provisioning-jwt", text(&token), "--pid", text(&pid)],
                pid.as_path(),
            ),
        ),
    ]
    .into();
    for (case, (arguments, path)) in cases {
        let output = choria_in(fleet.path(), &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{case}");
        let words = stderr(&output);
        assert!(words.contains(text(path)) && words.contains("Read-only file system"), "{case}: {words}");
    }
    for (extra, arguments, path) in [
        (String::new(), vec!["--pid", text(&pid)], &pid),
        (format!("logfile: {}\n", log.display()), vec![], &log),
        (format!("control_socket: {}\n", socket.display()), vec![], &socket),
    ] {
        let mut daemon = provisioner(&fleet, &extra, &arguments);
        assert_eq!(daemon.wait(), Some(1), "{extra}: {}", daemon.output());
        let words = daemon.output();
        assert!(words.contains(text(path)) && words.contains("Read-only file system"), "{extra}: {words}");
        drop(daemon);
        fs::remove_file(fleet.path().join("sealed-provisioner.log")).unwrap();
    }
}

/// A provisioner whose output is in `sealed-provisioner.log`, with this at the end of its configuration.
fn provisioner(fleet: &Fleet, extra: &str, arguments: &[&str]) -> Daemon {
    let config = fleet.provisioner_config("", extra);
    let choria = fleet.lab.provisioner_choria_config(fleet.port, "");
    let mut all = vec!["provisioner", "run", "--config", text(&config), "--choria-config", text(&choria)];
    all.extend(arguments);
    let mut command = choria_in(fleet.path(), &all);
    command.env("MCOLLECTIVE_CERTNAME", "provisioner.mcollective");
    Daemon::start("sealed-provisioner", command, fleet.path())
}
