//! A small load check over raw sockets, against this broker or any other NATS server.
//!
//! `load serve ADDR` runs an open broker. `load ADDR pub SIZE SUBSCRIBERS MESSAGES` has one connection publish to
//! that many subscribers, `load ADDR req ROUNDS` sends requests one after the other, `load ADDR idle CONNECTIONS`
//! holds connections with 13 subscriptions each until the input ends.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a command for people who measure")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use nats_broker::{AccountConfig, Broker, BrokerConfig, Listener, Observer, OpenAuthenticator};

struct Unobserved;

impl Observer for Unobserved {}

fn serve(addr: &str) {
    let config = BrokerConfig { listen: vec![Listener::plain(addr.parse().unwrap())], ..BrokerConfig::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let accounts = vec![AccountConfig::new("$G")];
        let open = Arc::new(OpenAuthenticator::default());
        let _broker = Broker::start(config, accounts, open, Vec::new(), Arc::new(Unobserved)).unwrap();
        std::future::pending::<()>().await;
    });
}

/// A connection behind CONNECT and these lines.
fn client(addr: &str, lines: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_nodelay(true).unwrap();
    let options = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}";
    socket.write_all(format!("{options}\r\n{lines}PING\r\n").as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"PONG\r\n") {
        socket.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    socket
}

fn publish(addr: &str, size: usize, subscribers: usize, messages: usize) {
    let expected = messages * (format!("MSG load.x 1 {size}\r\n").len() + size + 2);
    let sockets: Vec<TcpStream> = (0..subscribers).map(|_| client(addr, "SUB load.x 1\r\n")).collect();
    let start = Instant::now();
    let readers: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 256 << 10];
                let mut seen = 0;
                while seen < expected {
                    seen += socket.read(&mut buffer).unwrap();
                }
            })
        })
        .collect();
    let mut publisher = client(addr, "");
    let block =
        format!("PUB load.x {size}\r\n{}\r\n", "x".repeat(size)).repeat((65_536 / (size + 20)).clamp(1, messages));
    let per_block = (65_536 / (size + 20)).clamp(1, messages);
    for _ in 0..messages / per_block {
        publisher.write_all(block.as_bytes()).unwrap();
    }
    let single = format!("PUB load.x {size}\r\n{}\r\n", "x".repeat(size));
    publisher.write_all(single.repeat(messages % per_block).as_bytes()).unwrap();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} deliveries/s in {seconds:.2} s", (messages * subscribers) as f64 / seconds);
}

fn request(addr: &str, rounds: usize) {
    let mut responder = client(addr, "SUB svc 1\r\n");
    std::thread::spawn(move || {
        let mut reader = BufReader::new(responder.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 0 {
            if line.starts_with("MSG svc") {
                responder.write_all(b"PUB in.1 2\r\nok\r\n").unwrap();
            }
            line.clear();
        }
    });
    let mut requester = client(addr, "SUB in.1 1\r\n");
    let mut buffer = [0; 256];
    let answer = "MSG in.1 1 2\r\nok\r\n".len();
    let start = Instant::now();
    for _ in 0..rounds {
        requester.write_all(b"PUB svc in.1 2\r\nhi\r\n").unwrap();
        let mut seen = 0;
        while seen < answer {
            seen += requester.read(&mut buffer).unwrap();
        }
    }
    println!("{:.1} µs per request", start.elapsed().as_secs_f64() * 1e6 / rounds as f64);
}

fn idle(addr: &str, connections: usize) {
    let held: Vec<TcpStream> = (0..connections)
        .map(|number| {
            let own: String =
                (0..13).map(|sub| format!("SUB idle.{sub}.{} {sub}\r\n", if sub == 0 { number } else { 0 })).collect();
            client(addr, &own)
        })
        .collect();
    println!("{} connections", held.len());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().unwrap();
    match arguments.as_slice() {
        ["serve", addr] => serve(addr),
        [addr, "pub", size, subscribers, messages] => {
            publish(addr, number(size), number(subscribers), number(messages))
        }
        [addr, "req", rounds] => request(addr, number(rounds)),
        [addr, "idle", connections] => idle(addr, number(connections)),
        _ => println!(
            "load serve ADDR | load ADDR pub SIZE SUBSCRIBERS MESSAGES | load ADDR req ROUNDS | load ADDR idle N"
        ),
    }
}
