//! `choria demo`: a whole fleet comes to life on this machine.
//!
//! Broker, provisioner, its helper and the nodes are separate processes of this same program, with real files, TLS on the
//! loopback address and ephemeral ports. The demo itself is an ordinary member: it watches lifecycle events, pings and
//! calls an action as anybody would.

mod progress;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use choria_client::{Broadcast, Client, ClientOptions, Progress as RpcProgress, RpcReply, RpcRequest, Targets, Wait};
use choria_config::{Config, Environment, Mode};
use choria_connector::Subscription;
use choria_protocol::filter::Filter;
use choria_protocol::lifecycle::Event;
use choria_protocol::subjects;
use choria_security::provider::Surroundings;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use self::progress::{Progress, Step, View};
use crate::cli::DemoArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::lab::parts::Start;
use crate::lab::start::{self, BROKER_START};
use crate::lab::{HelperPlan, Layout, Part, Parts, Purpose, helper, layout};
use crate::logging::{self, Sink};
use crate::process::{self, SignalPolicy};
use crate::text::live_stderr;

/// How often files and processes are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often nodes that said nothing are asked whether they are members.
const ASK: Duration = Duration::from_secs(2);

/// Runs the command.
pub(crate) fn run(args: &DemoArgs, debug: bool) -> Outcome {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::ERROR };
    logging::init(&Sink::Stderr, level)?;
    let (directory, temporary) = directory(args)?;
    let layout = Layout::plan(Purpose::Demo, &directory, args.nodes, args.port)?;
    let result = process::small_runtime()?.block_on(async {
        let lifetime = process::watch_signals(SignalPolicy::CLIENT.patient(), None)?;
        demo(args, &layout, &lifetime.shutdown).await
    });
    match result {
        Ok(exit) => Ok(exit),
        Err(failure) => {
            if let Some(temporary) = temporary {
                // Whoever looks into a failure needs the files.
                let _ = temporary.keep();
            }
            Err(failure.hint(format!("everything the demo made is in {}", layout.directory.display())))
        }
    }
}

fn directory(args: &DemoArgs) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    if let Some(directory) = &args.dir {
        layout::claim(directory)?;
        return Ok((directory.clone(), None));
    }
    let temporary = tempfile::Builder::new().prefix("choria-demo-").tempdir()?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

async fn demo(args: &DemoArgs, layout: &Layout, shutdown: &CancellationToken) -> Outcome {
    let started = Instant::now();
    let limit = args.timeout.unwrap_or_else(|| Duration::from_secs(30) + Duration::from_secs(1) * args.nodes);
    layout.make(&HelperPlan::persistent(&helper::command(layout)?, 2), jiff::Timestamp::now().as_second())?;
    let view = View::choose(layout.nodes.len(), live_stderr() && !args.json);
    let identities: Vec<String> = layout.nodes.iter().collect();
    let mut progress = Progress::new(&identities, view);

    let mut parts = Parts::default();
    parts.0.push(start::broker(layout)?);
    start::wait_for_broker(layout, &mut parts, shutdown).await?;
    parts.0.push(start::provisioner(layout)?);
    let client = connect(layout, shutdown).await?;
    let mut events = client.connection().subscribe(subjects::LIFECYCLE_ALL, None, 100_000).await?;
    client.connection().flush().await?;
    progress.say(&format!("broker on 127.0.0.1:{}, provisioner, {} nodes", layout.ports.broker, layout.nodes.len()));
    let nodes_started = Instant::now();
    for identity in &identities {
        parts.0.push(start_node(layout, identity)?);
    }

    let mut watch = Watch { layout, client: &client, since: nodes_started, ledger: 0, asked: nodes_started };
    watch.until_members(&mut events, &mut parts, &mut progress, shutdown, nodes_started + limit).await?;
    progress.finish();
    let took = nodes_started.elapsed();

    let answers = ping(&client, layout.nodes.len()).await?;
    let inventory = inventory(&client, layout).await?;
    let report = report::Report { layout, nodes: progress.nodes(), took, answers: &answers, inventory: &inventory };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report.json())?;
    } else {
        write!(out, "{}", report.text(args.once, args.dir.is_some()))?;
    }
    out.flush()?;
    drop(out);
    report.verdict()?;
    if !args.once {
        stay(&mut parts, &mut progress, shutdown).await?;
    }
    client.close().await;
    parts.stop();
    tracing::debug!("the demo ran {:?}", started.elapsed());
    Ok(Exit::Ok)
}

fn start_node(layout: &Layout, identity: &str) -> Result<Part, Failure> {
    let directory = layout.node(identity);
    let token = layout.path("token/provisioning.jwt");
    let (config, token) = (directory.join("server.conf"), token.display().to_string());
    let config = config.display().to_string();
    Part::start(&Start {
        name: &format!("node {identity}"),
        arguments: &["server", "run", "--config", &config, "--provisioning-jwt", &token, "--pid", "server.pid"],
        directory: &directory,
        log: "server.log",
        variables: &[],
        answers: false,
    })
}

/// The demo's own client: what `choria ping --config client/client.conf` would be.
async fn connect(layout: &Layout, shutdown: &CancellationToken) -> Result<Client, Failure> {
    // Nothing of this machine's own Choria settings has a say in the demo.
    let environment = Environment::fixed("demo");
    let config = Config::load(layout.path("client/client.conf"), Mode::Client, &environment)
        .map_err(crate::settings::config_failure)?;
    let surroundings = Surroundings { certname: Some(layout.client.clone()), ..Surroundings::default() };
    let options = ClientOptions {
        connect_timeout: BROKER_START,
        cancel: shutdown.clone(),
        surroundings,
        ..ClientOptions::default()
    };
    Client::connect(&config, options).await.map_err(|error| crate::settings::connect_failure(&error))
}

/// Follows the nodes on their way.
struct Watch<'a> {
    layout: &'a Layout,
    client: &'a Client,
    since: Instant,
    ledger: usize,
    asked: Instant,
}

impl Watch<'_> {
    async fn until_members(
        &mut self,
        events: &mut Subscription,
        parts: &mut Parts,
        progress: &mut Progress,
        shutdown: &CancellationToken,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut tick = tokio::time::interval(TICK);
        while !progress.complete() {
            tokio::select! {
                message = events.next() => {
                    let Some(message) = message else { return Err(Failure::new("the connection to the broker ended")) };
                    if let Ok(event) = Event::parse(&message.payload) {
                        self.read_ledger(progress);
                        progress.event(&event, self.since.elapsed());
                    }
                }
                _ = tick.tick() => {
                    self.read_ledger(progress);
                    parts.check()?;
                    if Instant::now() >= deadline {
                        progress.finish();
                        return Err(self.late(parts, progress));
                    }
                    if self.asked.elapsed() >= ASK {
                        self.ask(progress).await?;
                        self.asked = Instant::now();
                    }
                }
                () = shutdown.cancelled() => {
                    progress.finish();
                    return Err(Failure::new("interrupted before every node was a fleet member"));
                }
            }
        }
        Ok(())
    }

    /// The helper notes each node that it answered for.
    fn read_ledger(&mut self, progress: &mut Progress) {
        let Ok(text) = std::fs::read_to_string(self.layout.ledger()) else { return };
        let Some(news) = text.get(self.ledger..) else { return };
        let whole = news.rfind('\n').map_or(0, |end| end + 1);
        self.ledger += whole;
        for line in news[..whole].lines() {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            if let (Some(identity), Some(false)) = (line["identity"].as_str(), line["deferred"].as_bool()) {
                progress.reached(identity, Step::Checked, self.since.elapsed());
            }
        }
    }

    /// An event may be lost on the way; a node that answers is a member all the same.
    async fn ask(&self, progress: &mut Progress) -> Result<(), Failure> {
        let request = Broadcast { wait: Wait::fixed(Duration::from_millis(200)), ..everybody() };
        let since = self.since;
        self.client.ping(&request, |reply| progress.reached(&reply.sender, Step::Member, since.elapsed())).await?;
        Ok(())
    }

    /// Says who is missing, and shows the log of the first one and of the provisioner.
    fn late(&self, parts: &Parts, progress: &Progress) -> Failure {
        let missing = progress.missing();
        let names: Vec<String> =
            missing.iter().take(10).map(|node| format!("{} ({})", node.identity, node.step.words())).collect();
        let (count, all) = (missing.len(), self.layout.nodes.len());
        let what = format!("left {count} of {all} nodes waiting: {}", names.join(", "));
        let first = missing.first().and_then(|node| parts.0.iter().find(|part| part.name.ends_with(&node.identity)));
        let provisioner = parts.0.iter().find(|part| part.name == "provisioner");
        match (provisioner, first) {
            (Some(provisioner), Some(node)) => provisioner.explain(&what).context(node.explain("is late")),
            (Some(provisioner), None) => provisioner.explain(&what),
            _ => Failure::new(what),
        }
    }
}

fn everybody() -> Broadcast {
    Broadcast { filter: Filter::default(), collective: None, wait: Wait::fixed(Duration::from_secs(5)), expect: None }
}

async fn ping(client: &Client, nodes: usize) -> Result<Vec<choria_client::PingReply>, Failure> {
    let mut answers = Vec::new();
    let request = Broadcast { expect: Some(nodes), ..everybody() };
    client.ping(&request, |reply| answers.push(reply.clone())).await?;
    Ok(answers)
}

async fn inventory(client: &Client, layout: &Layout) -> Result<Vec<RpcReply>, Failure> {
    let request = RpcRequest {
        agent: "rpcutil".to_owned(),
        action: "inventory".to_owned(),
        data: serde_json::Map::new(),
        targets: Targets::Nodes(layout.nodes.iter().collect()),
        collective: None,
        timeout: Duration::from_secs(15),
        batches: None,
        discover_time: Duration::ZERO,
    };
    let mut replies = Vec::new();
    client
        .rpc(&request, |progress| {
            if let RpcProgress::Reply(reply) = progress {
                replies.push(reply.clone());
            }
        })
        .await?;
    Ok(replies)
}

/// Keeps the fleet up until somebody ends it.
async fn stay(parts: &mut Parts, progress: &mut Progress, shutdown: &CancellationToken) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = tick.tick() => {
                for part in &mut parts.0 {
                    if let Err(failure) = part.check() {
                        if part.name == "broker" {
                            return Err(failure);
                        }
                        progress.say(&format!("warning: {failure}"));
                    }
                }
                parts.0.retain_mut(|part| part.check().is_ok());
            }
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}
