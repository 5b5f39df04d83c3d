//! Set-ups that work until a row breaks them, and what the doctor says about them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use choria_testkit::Lab;
use choria_testkit::lab::CLIENT_NAME;
use serde_json::Value;

use crate::common::{Daemon, Fleet, choria_in, stdout, text};

/// One fault: how to make it, and what must be said about it.
pub(crate) struct Fault {
    /// What is broken, for the message of a test that fails.
    pub name: &'static str,
    /// Breaks it, and answers with the arguments of the doctor.
    pub stage: fn(&mut Stage) -> Vec<String>,
    /// The check that must name it.
    pub id: &'static str,
    /// How that check must end.
    pub status: &'static str,
    /// Words that must be in what was looked at or found.
    pub says: &'static [&'static str],
    /// Words that must be in the advice.
    pub advice: &'static str,
}

/// Runs every row.
pub(crate) fn check(faults: &[Fault]) {
    for fault in faults {
        let mut stage = Stage::new();
        let arguments = (fault.stage)(&mut stage);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (status, checks) = stage.doctor(&arguments);
        let name = fault.name;
        let fits = |check: &&Value| {
            let told = format!("{} {}", check["subject"].as_str().unwrap(), check["detail"].as_str().unwrap());
            check["id"] == fault.id
                && check["status"] == fault.status
                && fault.says.iter().all(|words| told.contains(words))
                && check["advice"].as_str().is_some_and(|advice| advice.contains(fault.advice))
        };
        assert!(checks.iter().any(|check| fits(&check)), "{name}: not told in {checks:#?}");
        let wanted = if fault.status == "failed" { 1 } else { 0 };
        assert_eq!(status, Some(wanted), "{name}: {checks:#?}");
    }
}

/// Whether a check ended like this.
pub(crate) fn found(checks: &[Value], id: &str, status: &str) -> bool {
    checks.iter().any(|check| check["id"] == id && check["status"] == status)
}

/// Files of a whole network, and what runs of it.
pub(crate) struct Stage {
    fleet: Fleet,
    certname: String,
    running: Vec<Daemon>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { fleet: Fleet::new(), certname: CLIENT_NAME.to_owned(), running: Vec::new() }
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.fleet.lab
    }

    pub(crate) fn port(&self) -> u16 {
        self.fleet.port
    }

    pub(crate) fn path(&self) -> &Path {
        self.fleet.path()
    }

    /// The name that clients act under from now on.
    pub(crate) fn certname(&mut self, name: &str) {
        self.certname = name.to_owned();
    }

    /// Starts a broker whose configuration ends with these lines, and waits until it listens.
    pub(crate) fn broker(&mut self, extra: &str) {
        self.broker_with(extra, &[]);
    }

    /// The same with further flags.
    pub(crate) fn broker_with(&mut self, extra: &str, flags: &[&str]) {
        let config = self.lab().broker_config(self.port(), 0, extra);
        let mut broker = self.fleet.daemon("broker", &[&["broker", "run", "--config", text(&config)], flags].concat());
        broker.wait_for("broker started");
        self.running.push(broker);
    }

    /// What the broker logged.
    pub(crate) fn broker_output(&self) -> String {
        self.running[0].output()
    }

    /// Starts a node that has a name and the token.
    pub(crate) fn node(&self, identity: &str) -> Daemon {
        self.fleet.node(identity)
    }

    /// Configuration of the client, ending with these lines.
    pub(crate) fn client(&self, extra: &str) -> PathBuf {
        self.lab().client_config(self.port(), extra)
    }

    /// Arguments for a client with these lines.
    pub(crate) fn client_arguments(&self, extra: &str) -> Vec<String> {
        arguments(&["--config", text(&self.client(extra))])
    }

    /// A file in the lab.
    pub(crate) fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        text(&path).to_owned()
    }

    /// A helper that answers nothing.
    pub(crate) fn helper(&self, mode: u32) -> String {
        self.file("helper", "#!/bin/sh\n", mode)
    }

    /// The doctor with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = choria_in(self.path(), &[&["doctor"], arguments].concat());
        command.env("MCOLLECTIVE_CERTNAME", &self.certname);
        command
    }

    /// Its exit status and its checks.
    pub(crate) fn doctor(&self, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
        let output = self.command(&[arguments, &["--json"]].concat()).output().unwrap();
        let checks =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stdout(&output)));
        (output.status.code(), checks)
    }
}

/// Arguments of one's own.
pub(crate) fn arguments(list: &[&str]) -> Vec<String> {
    list.iter().map(|&argument| argument.to_owned()).collect()
}
