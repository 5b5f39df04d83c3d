//! Running the real program: commands that end, daemons that stay, and a lab of files for both.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr, reason = "every test file uses its own part of this")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use choria_testkit::{Lab, wait_until};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Long enough for a machine that does many other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The program.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_choria")
}

/// A command of the program that sees nothing of this machine's configuration.
pub(crate) fn choria(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent")
        .env("USER", "tester")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    choria(arguments).output().unwrap()
}

/// What a command wrote to stdout.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command wrote to stderr.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process that runs until it is dropped, in a group of its own, with its output in a file.
pub(crate) struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts a command.
    pub(crate) fn start(name: &str, mut command: Command, directory: &Path) -> Self {
        let log = directory.join(format!("{name}.log"));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), log, child }
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// SIGKILL to the process alone, as an out-of-memory killer does it.
    pub(crate) fn kill_hard(mut self) {
        kill(self.pid(), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the end and returns the exit status.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until(PATIENCE, &format!("{} ends", self.name), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// Fails when it has ended.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended with {status}:\n{}", self.name, self.output());
        }
    }

    /// Its output so far.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its output holds a text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        wait_until(PATIENCE, &format!("{} says {text:?}", self.name), || {
            self.assert_alive();
            self.output().contains(text)
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- output of {}\n{}", self.name, self.output());
        }
    }
}

/// A page of the statistics or the monitor on this port; empty while nobody answers.
pub(crate) fn page(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let mut text = String::new();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut text));
    text
}

/// The value of a metric, labels summed up that do not hold `label`; 0 while it does not exist.
pub(crate) fn metric(port: u16, name: &str, label: &str) -> u64 {
    let page = page(port, "/metrics");
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))?;
        rest.rsplit_once(' ')?.1.parse::<f64>().ok()
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters of a test are small")]
    let sum = values.sum::<f64>() as u64;
    sum
}

/// A free port on the loopback address.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A lab whose parts are processes.
pub(crate) struct Fleet {
    pub lab: Lab,
    pub port: u16,
}

impl Fleet {
    /// Files for everything; nothing runs yet.
    pub(crate) fn new() -> Self {
        Self { lab: Lab::new(), port: free_port() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.lab.directory()
    }

    /// Starts the broker and waits until it listens.
    pub(crate) fn broker(&self) -> Daemon {
        let config = self.lab.broker_config(self.port, 0, "");
        let mut broker = self.daemon("broker", &["broker", "run", "--config", text(&config)]);
        broker.wait_for("broker started");
        broker
    }

    /// Writes a helper and starts the provisioner. `before` is Python that runs before each answer.
    pub(crate) fn provisioner(&self, before: &str) -> Daemon {
        self.provisioner_with(before, "")
    }

    /// The same with more lines of configuration.
    pub(crate) fn provisioner_with(&self, before: &str, extra: &str) -> Daemon {
        let config = self.provisioner_config(before, extra);
        let choria = self.lab.provisioner_choria_config(self.port, "");
        let mut command = choria_in(
            self.path(),
            &["provisioner", "run", "--config", text(&config), "--choria-config", text(&choria)],
        );
        command.env("MCOLLECTIVE_CERTNAME", "provisioner.mcollective");
        Daemon::start("provisioner", command, self.path())
    }

    /// Writes a helper and the provisioner's configuration. It logs to stderr unless `extra` says otherwise.
    pub(crate) fn provisioner_config(&self, before: &str, extra: &str) -> PathBuf {
        let helper = self.helper(before);
        let config = self.lab.provisioner_config(text(&helper), "");
        let kept: String = std::fs::read_to_string(&config)
            .unwrap()
            .lines()
            .filter(|line| {
                let key = line.split(':').next().unwrap_or_default();
                key != "logfile" && !extra.lines().any(|more| more.split(':').next() == Some(key))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(&config, kept + extra).unwrap();
        config
    }

    /// A node that has a name and the token.
    pub(crate) fn node(&self, identity: &str) -> Daemon {
        let config = self.lab.node_config(identity);
        if !config.exists() {
            std::fs::write(&config, format!("identity = {identity}\n")).unwrap();
        }
        self.node_again(identity)
    }

    /// The same node, started once more with what is on disk.
    pub(crate) fn node_again(&self, identity: &str) -> Daemon {
        let config = self.lab.node_config(identity);
        let token = self.path().join("provisioning.jwt");
        if !token.exists() {
            self.lab.provisioning_token(self.port);
        }
        self.daemon(identity, &["server", "run", "--config", text(&config), "--provisioning-jwt", text(&token)])
    }

    /// `choria ping` until these nodes answer as fleet members.
    pub(crate) fn wait_for_members(&self, identities: &[&str]) {
        let config = self.lab.client_config(self.port, "");
        let expect = identities.len().to_string();
        let mut wanted: Vec<&str> = identities.to_vec();
        wanted.sort_unstable();
        wait_until(PATIENCE, &format!("{wanted:?} are fleet members"), || {
            let output =
                self.client(&["ping", "--config", text(&config), "--names", "--timeout", "1", "--expect", &expect]);
            let names = stdout(&output);
            let mut names: Vec<&str> = names.lines().collect();
            names.sort_unstable();
            names == wanted
        });
    }

    /// A client command, as `tester.mcollective`.
    pub(crate) fn client(&self, arguments: &[&str]) -> Output {
        let (name, value) = Lab::client_environment();
        choria_in(self.path(), arguments).env(name, value).output().unwrap()
    }

    /// A daemon of the program with its output in the lab.
    pub(crate) fn daemon(&self, name: &str, arguments: &[&str]) -> Daemon {
        Daemon::start(name, choria_in(self.path(), arguments), self.path())
    }

    /// The helper: signs with the lab's authority. It notes each call in `helper.calls`.
    fn helper(&self, before: &str) -> PathBuf {
        let path = self.path().join("helper");
        let script = include_str!("helper.py")
            .replace("PROGRAM", program())
            .replace("AUTHORITY", text(&self.lab.ca().authority_directory()))
            .replace("CALLS", text(&self.path().join("helper.calls")))
            .replace("PORT", &self.port.to_string())
            .replace("BEFORE", before);
        std::fs::write(&path, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }

    /// How often the helper was called.
    pub(crate) fn helper_calls(&self) -> usize {
        self.helped().len()
    }

    /// The nodes that the helper was called for, in order.
    pub(crate) fn helped(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.path().join("helper.calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

/// A command that runs in a directory.
pub(crate) fn choria_in(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = choria(arguments);
    command.current_dir(directory);
    command
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
