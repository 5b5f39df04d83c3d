//! The real program, started as wrappers start it.

pub mod wire;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A file of the recordings.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/nats-core").join(name)
}

/// The lines of a recording.
pub fn rows(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(golden(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A command of the program under a name.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nats-broker"));
    command.arg0(name).env_remove("NATS_BROKER_SKIP_UNSUPPORTED").stdin(Stdio::null());
    command
}

/// What a program that ends says.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program to its end.
pub fn output(dir: &Path, arguments: &[&str]) -> Said {
    let output = command("nats-server").current_dir(dir).args(arguments).output().unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A program that runs; killed when it is dropped.
pub struct Running {
    pub child: Child,
    lines: mpsc::Receiver<String>,
    /// Lines of the log so far.
    pub log: Vec<String>,
}

impl Running {
    /// Starts it without waiting.
    pub fn spawn(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = command("nats-broker");
        Self::of(command.current_dir(dir).args(arguments))
    }

    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, log: Vec::new() }
    }

    /// Starts it on free ports and waits until it is ready.
    pub fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut all = vec!["-a", "127.0.0.1", "-p", "-1"];
        all.extend(arguments);
        let mut running = Self::spawn(dir, &all);
        running.wait_for("Server is ready");
        running
    }

    /// With a configuration text.
    pub fn configured(dir: &Path, config: &str) -> Self {
        std::fs::write(dir.join("test.conf"), config).unwrap();
        Self::start(dir, &["-c", "test.conf"])
    }

    /// Waits for a line of the log that holds a text.
    pub fn wait_for(&mut self, text: &str) -> String {
        let seen = self.log.len();
        self.wait_from(0, text).unwrap_or_else(|| panic!("no {text:?} in {:#?} (seen {seen})", self.log))
    }

    /// Waits for a line after the first `from` lines.
    pub fn wait_from(&mut self, from: usize, text: &str) -> Option<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut at = from;
        loop {
            if let Some(found) = self.log[at.min(self.log.len())..].iter().find(|line| line.contains(text)) {
                return Some(found.clone());
            }
            at = self.log.len();
            let left = deadline.saturating_duration_since(Instant::now());
            self.log.push(self.lines.recv_timeout(left).ok()?);
        }
    }

    /// The address behind a text of the log.
    pub fn address(&mut self, before: &str) -> SocketAddr {
        let line = self.wait_for(before);
        line.rsplit(['/', ' ']).next().unwrap().parse().unwrap()
    }

    /// Where clients are served.
    pub fn clients(&mut self) -> SocketAddr {
        self.address("Listening for client connections on ")
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the end of the process and the rest of its log.
    pub fn end(mut self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.log.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it runs on: {:#?}", self.log),
            }
        }
        let status = self.child.wait().unwrap();
        (status, std::mem::take(&mut self.log))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that sends and reads bytes.
pub struct Raw {
    pub stream: TcpStream,
    pub received: Vec<u8>,
    pub is_over: bool,
}

impl Raw {
    /// Connects and takes the first INFO.
    pub fn connect(addr: SocketAddr) -> (Self, Value) {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
        let mut raw = Self { stream, received: Vec::new(), is_over: false };
        let info = raw.line();
        let info = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        (raw, info)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // The other end may be gone, which reading shows.
        let _ = self.stream.write_all(bytes);
    }

    /// Reads what comes within a time; `false`: nothing came.
    pub fn read(&mut self, patience: Duration) -> bool {
        if self.is_over {
            return false;
        }
        self.stream.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_over = true,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => return false,
            Err(_) => self.is_over = true,
        }
        !self.is_over
    }

    /// The next line without its end.
    pub fn line(&mut self) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.read(left), "no line, only {:?}", String::from_utf8_lossy(&self.received));
        }
    }

    /// Waits for the end; what came before it.
    pub fn end(&mut self) -> String {
        let deadline = Instant::now() + DEADLINE;
        while self.read(deadline.saturating_duration_since(Instant::now())) {}
        assert!(self.is_over, "the connection stayed open");
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// A page of the monitoring server.
pub fn page(addr: SocketAddr, path: &str) -> Value {
    let mut stream = TcpStream::connect_timeout(&addr, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    serde_json::from_str(body).unwrap()
}
