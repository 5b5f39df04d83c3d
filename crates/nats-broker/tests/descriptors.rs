//! A broker that may open no more files serves those whom it has, and others when there is room again.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{CONNECT, DEADLINE, Raw};
use nats_broker::{AccountConfig, BrokerConfig, OpenAuthenticator, StaticAuthenticator};
use nix::sys::resource::{Resource, setrlimit};
use tokio::net::TcpStream;

/// Files that the broker may open, a few of which it needs itself.
const LIMIT: u64 = 64;

/// The broker: a process of its own, because the limit is one of the process.
#[test]
#[ignore = "run by the others"]
fn broker_with_few_descriptors() {
    let Some(kind) = std::env::var_os("BROKER_WITH_FEW_DESCRIPTORS") else { return };
    // The soft limit is half of it, to be raised by the broker.
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT / 2, LIMIT).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = BrokerConfig { auth_timeout: DEADLINE * 3, ..BrokerConfig::default() };
        let authenticator: std::sync::Arc<dyn nats_broker::Authenticator> = match kind.to_str() {
            Some("users") => std::sync::Arc::new(StaticAuthenticator::new().user(
                "u",
                "p",
                "$G",
                nats_broker::Permissions::unlimited(),
            )),
            _ => std::sync::Arc::new(OpenAuthenticator::default()),
        };
        let broker = common::start(config, vec![AccountConfig::new("$G")], authenticator);
        assert_eq!(nats_broker::descriptor_limit(), Some(LIMIT));
        let mut stdout = std::io::stdout();
        writeln!(stdout, "listening on {}", broker.local_addr(0).unwrap()).unwrap();
        stdout.flush().unwrap();
        // Until the other side closes our input.
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    });
}

/// Ends the process with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(kind: &str) -> (Process, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "broker_with_few_descriptors"])
        .env("BROKER_WITH_FEW_DESCRIPTORS", kind)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let addr = lines.map_while(Result::ok).find_map(|line| Some(line.split_once("listening on ")?.1.parse().unwrap()));
    (Process(child), addr.expect("the broker says where it listens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_the_established_are_served_and_others_wait() {
    let (_process, addr) = start("open");
    let mut pair = Raw::connect(addr).await;
    pair.send(format!("{CONNECT}SUB a 1\r\n")).await;
    pair.sync().await;
    // They are in the queue of the listener at least; INFO comes to those whom the broker could accept.
    let mut crowd = Vec::new();
    for _ in 0..LIMIT {
        crowd.push(Raw::over(TcpStream::connect(addr).await.unwrap()));
    }
    let mut greeted = 0;
    for raw in &mut crowd {
        if !raw.read_more(Duration::from_millis(300)).await {
            break;
        }
        greeted += 1;
    }
    assert!(greeted > 0 && greeted < LIMIT, "{greeted} of {LIMIT} were greeted");
    for _ in 0..100 {
        pair.send("PUB a 1\r\nx\r\n").await;
        pair.expect("MSG a 1 1\r\nx\r\n").await;
    }
    // The last one is let in as soon as others have gone.
    let mut last = crowd.pop().unwrap();
    drop(crowd);
    assert!(last.line().await.starts_with("INFO {"));
    last.send(CONNECT).await;
    last.sync().await;
    pair.sync().await;
}

/// Those who have not logged in make room, the oldest first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_those_who_never_log_in_make_room() {
    let (_process, addr) = start("users");
    let mut idle = Vec::new();
    for _ in 0..LIMIT {
        idle.push(TcpStream::connect(addr).await.unwrap());
    }
    let mut raw = Raw::over(TcpStream::connect(addr).await.unwrap());
    assert!(raw.line().await.starts_with("INFO {"));
    raw.send(common::connect_as("u", "p")).await;
    raw.sync().await;
}
