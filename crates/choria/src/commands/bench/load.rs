//! `choria bench pubsub`, `fanout`, `reply-storm`, `request` and `connections`: load for any NATS server.

use std::cell::Cell;
use std::io::Write;

use choria_config::hosts::HostEntry;
use choria_security::tls::{TlsMaterial, client_config};
use nats_load::connections::Connections;
use nats_load::flow::{Flow, Subscriptions};
use nats_load::request::Requests;
use nats_load::target::Login;
use nats_load::{LoadError, Report, Target};
use serde::Serialize;

use super::processes::{self, Usage};
use crate::cli::{BenchConnections, BenchFanout, BenchPubsub, BenchRequest, BenchStorm, LoadServer};
use crate::exit::{Exit, Failure, Outcome};
use crate::print::bench as print;
use crate::process;

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Document {
    /// Name of the command.
    pub load: &'static str,
    /// The server's address.
    pub server: String,
    /// Whether TLS was spoken.
    pub tls: bool,
    /// Processors of this machine.
    pub cores: usize,
    /// Connections that sent, or asked.
    pub publishers: usize,
    /// Connections that received, or answered.
    pub subscribers: usize,
    /// Subjects.
    pub subjects: usize,
    /// Bytes of a payload.
    pub size: usize,
    /// What was measured.
    #[serde(flatten)]
    pub report: Report,
    /// Processor time of the server's process while the load ran, in steps of 0.01; only with `--pid`.
    pub server_cpu_seconds: Option<f64>,
    /// The same over `messages`, in microseconds.
    pub server_cpu_us_per_message: Option<f64>,
    /// Its resident memory at the end of the load; of `connections`, while they are held.
    pub server_rss_bytes: Option<u64>,
    /// Of `connections`: what each of them added to the memory.
    pub server_rss_bytes_per_connection: Option<u64>,
}

/// Messages from one connection to another.
pub(crate) fn pubsub(args: &BenchPubsub) -> Outcome {
    let subscriptions = if args.subscribe_each { Subscriptions::Each } else { Subscriptions::One };
    let (subjects, size, messages) = (args.subjects, args.size, args.messages);
    flow("pubsub", &args.server, &Flow { publishers: 1, subscribers: 1, subjects, subscriptions, size, messages })
}

/// Messages from one connection to many.
pub(crate) fn fanout(args: &BenchFanout) -> Outcome {
    let (subscribers, size, messages) = (args.subscribers, args.size, args.messages);
    let one = Subscriptions::One;
    flow("fanout", &args.server, &Flow { publishers: 1, subscribers, subjects: 1, subscriptions: one, size, messages })
}

/// Messages from many connections to one, as the answers of a fleet come.
pub(crate) fn reply_storm(args: &BenchStorm) -> Outcome {
    let (publishers, size, messages) = (args.publishers, args.size, args.messages);
    let one = Subscriptions::One;
    flow(
        "reply-storm",
        &args.server,
        &Flow { publishers, subscribers: 1, subjects: 1, subscriptions: one, size, messages },
    )
}

fn flow(load: &'static str, server: &LoadServer, flow: &Flow) -> Outcome {
    let target = target(server)?;
    allow_connections(flow.publishers + flow.subscribers)?;
    let shape = Shape {
        load,
        publishers: flow.publishers,
        subscribers: flow.subscribers,
        subjects: flow.subjects,
        size: flow.size,
    };
    let before = Cell::new(Usage::default());
    let run = flow.run(&target, || {
        tell(server, "everybody is connected, the load runs");
        before.set(usage(server));
    });
    let report = process::large_runtime()?.block_on(run).map_err(|error| failure(server, &error))?;
    show(server, &document(server, shape, report, before.get()))
}

/// Requests and their answers.
pub(crate) fn request(args: &BenchRequest) -> Outcome {
    let target = target(&args.server)?;
    allow_connections(args.pairs * 2)?;
    let requests = Requests { pairs: args.pairs, requests: args.requests, size: args.size, pause: args.pause };
    let (publishers, subscribers, subjects) = (args.pairs, args.pairs, args.pairs);
    let shape = Shape { load: "request", publishers, subscribers, subjects, size: args.size };
    let before = Cell::new(Usage::default());
    let run = requests.run(&target, || {
        tell(&args.server, "everybody is connected, the load runs");
        before.set(usage(&args.server));
    });
    let report = process::large_runtime()?.block_on(run).map_err(|error| failure(&args.server, &error))?;
    show(&args.server, &document(&args.server, shape, report, before.get()))
}

/// Connections that do nothing.
pub(crate) fn connections(args: &BenchConnections) -> Outcome {
    let server = &args.server;
    let target = target(server)?;
    allow_connections(args.connections)?;
    let before = usage(server);
    let connections = Connections { count: args.connections, subscriptions: args.subscriptions };
    let measured = process::large_runtime()?.block_on(async {
        tell(server, "connecting");
        let held = connections.open(&target).await?;
        tell(server, "all are connected, and held");
        tokio::time::sleep(args.hold).await;
        Ok((held.report, usage(server)))
    });
    let (report, after) = measured.map_err(|error: LoadError| failure(server, &error))?;
    let (subscribers, subjects) = (args.connections, args.connections + args.subscriptions.saturating_sub(1));
    let shape = Shape { load: "connections", publishers: 0, subscribers, subjects, size: 0 };
    let mut document = document(server, shape, report, before);
    document.server_rss_bytes = server.pid.map(|_| after.rss);
    let each = after.rss.saturating_sub(before.rss) / (args.connections as u64).max(1);
    document.server_rss_bytes_per_connection = server.pid.map(|_| each);
    show(server, &document)
}

/// What is said about a load beside its figures.
struct Shape {
    load: &'static str,
    publishers: usize,
    subscribers: usize,
    subjects: usize,
    size: usize,
}

fn document(server: &LoadServer, shape: Shape, report: Report, before: Usage) -> Document {
    let after = usage(server);
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let each = (cpu * 1e6 / report.messages.max(1) as f64 * 1e3).round() / 1e3;
    let Shape { load, publishers, subscribers, subjects, size } = shape;
    Document {
        load,
        server: server.server.clone(),
        tls: server.ca.is_some(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        publishers,
        subscribers,
        subjects,
        size,
        report,
        server_cpu_seconds: server.pid.map(|_| cpu),
        server_cpu_us_per_message: server.pid.map(|_| each),
        server_rss_bytes: server.pid.map(|_| after.rss),
        server_rss_bytes_per_connection: None,
    }
}

/// How far it is, for people.
fn tell(server: &LoadServer, what: &str) {
    if !server.json {
        // Nobody is left to be told when the terminal is gone.
        let _ = writeln!(std::io::stderr(), "{}: {what}", server.server);
    }
}

fn usage(server: &LoadServer) -> Usage {
    server.pid.map(processes::usage).unwrap_or_default()
}

fn target(server: &LoadServer) -> Result<Target, Failure> {
    let entry = HostEntry::parse(&server.server).map_err(|error| Failure::from_error(&error))?;
    if server.pid.is_some_and(|pid| processes::usage(pid).rss == 0) {
        return Err(Failure::new(format!("there is no process {} to measure", server.pid.unwrap_or_default()))
            .hint("--pid is the process id of the server, and only works on its machine"));
    }
    let tls = match &server.ca {
        Some(ca) => {
            let (certificate, key) = (server.cert.clone(), server.key.clone());
            let material = TlsMaterial { certificate, key, ca: Some(ca.clone()), ..TlsMaterial::default() };
            Some(client_config(&material).map_err(|error| Failure::from_error(&error))?)
        }
        None => None,
    };
    let user = server.user.clone().zip(server.password.clone());
    let login = Login { user, token: server.token.clone() };
    Ok(Target { host: entry.host, port: entry.port, tls, login, patience: server.timeout })
}

fn allow_connections(count: usize) -> Result<(), Failure> {
    // Some are open anyway.
    process::allow_open_files(count as u64 + 64, "one for each connection of the load")
}

fn failure(server: &LoadServer, error: &LoadError) -> Failure {
    let failure = Failure::from_error(error).context(format!("load on {}", server.server));
    match error {
        LoadError::Connect { .. } if server.ca.is_none() => {
            failure.hint("name the server with --server URL; for one that speaks TLS, its authority with --ca FILE")
        }
        LoadError::Connect { .. } => failure.hint("name the server with --server URL, as its certificate has it"),
        LoadError::Refused { .. } => failure.hint("--user and --password, --token, or --cert and --key log in"),
        LoadError::Late { .. } => failure.hint("--timeout allows more time"),
        _ => failure,
    }
}

fn show(server: &LoadServer, document: &Document) -> Outcome {
    let mut out = std::io::stdout().lock();
    if server.json {
        writeln!(out, "{}", serde_json::to_string(document)?)?;
    } else {
        write!(out, "{}", print::load(document))?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}
