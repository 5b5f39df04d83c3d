//! `choria req`: call an action on many nodes (spec 05 §6, §7.2).

mod render;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use choria_client::{
    Batches, Client, Limit, LimitMethod, Outcome as RequestOutcome, Progress, ReplyFilter, RpcReply, RpcRequest,
    Targets,
};
use choria_config::{Config, keys};
use choria_protocol::filter::Filter;
use choria_rpc::ddl::{self, Action, Ddl};
use serde_json::{Map, Value};

use self::render::{Mode, Renderer};
use crate::cli::ReqArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::settings::{ClientSettings, filter, selection};

/// Time an action may take when its DDL does not say (spec 05 §2.5).
const DEFAULT_TIMEOUT: u64 = 10;

/// Runs the command.
pub(crate) fn run(args: &ReqArgs, debug: bool) -> Outcome {
    let mode = Mode::of(&args.output);
    let result = request(args, mode, debug);
    match result {
        // A script that reads lines reads the failure there, too; the exit status tells it as well.
        Err(failure) if mode == Mode::Lines => {
            render::error_line(&failure)?;
            Err(failure)
        }
        Ok(exit) if args.exit_zero && exit != Exit::Interrupted => Ok(Exit::Ok),
        other => other,
    }
}

/// Everything that can be checked before anything is sent.
struct Plan {
    filter: Filter,
    limit: Option<Limit>,
    method: LimitMethod,
    source: selection::Source,
    reply_filter: Option<ReplyFilter>,
    ddl: Ddl,
    action: Action,
    data: Map<String, Value>,
    timeout: Duration,
}

impl Plan {
    fn make(args: &ReqArgs, config: &Config) -> Result<Self, Failure> {
        let limit = Limit::parse(args.limit.as_deref().unwrap_or_default()).map_err(not_performed)?;
        let seed = args.limit_seed.and_then(|seed| u64::try_from(seed).ok());
        let method = LimitMethod::parse(&config.get(&keys::RPCLIMITMETHOD).to_string(), seed).map_err(not_performed)?;
        let ddl = find_ddl(&args.agent, config)?;
        let action = ddl.action(&args.action)?.clone();
        let data = action
            .convert_cli_inputs(args.inputs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
            .map_err(|error| Failure::from(error).context("invalid input"))?;
        let discovery = config.get(&keys::DISCOVERY_TIMEOUT);
        let agent = match args.timeout.and_then(|seconds| u64::try_from(seconds).ok()) {
            None | Some(0) if ddl.metadata.timeout == 0 => DEFAULT_TIMEOUT,
            None | Some(0) => ddl.metadata.timeout,
            Some(seconds) => seconds,
        };
        Ok(Self {
            filter: filter::build(&args.filter, Some(&args.agent))?,
            limit,
            method,
            source: selection::choose(&args.selection, &args.filter)?,
            reply_filter: args.output.filter_replies.as_deref().map(ReplyFilter::compile).transpose()?,
            timeout: discovery + Duration::from_secs(agent),
            ddl,
            action,
            data,
        })
    }

    fn is_service(&self) -> bool {
        self.ddl.metadata.service
    }
}

fn not_performed(error: choria_client::LimitError) -> Failure {
    Failure::from(error).context("could not perform request")
}

/// Embedded DDLs, then the files of `libdir` and of the agent provider's own setting (spec 05 §5.2).
fn find_ddl(agent: &str, config: &Config) -> Result<Ddl, Failure> {
    let mut directories: Vec<PathBuf> = config.get(&keys::LIBDIR);
    directories.extend(config.get(&keys::AGENT_PROVIDER_MCORPC_LIBDIR));
    let found = ddl::find(agent, &directories)?;
    Ok(found.ddl)
}

fn request(args: &ReqArgs, mode: Mode, debug: bool) -> Outcome {
    let settings = ClientSettings::load(&args.connection, debug)?;
    let plan = Plan::make(args, &settings.config)?;
    settings.run(async |client| perform(args, mode, &settings.config, &plan, client).await)
}

async fn perform(args: &ReqArgs, mode: Mode, config: &Config, plan: &Plan, client: &Client) -> Outcome {
    let mut renderer = Renderer::new(args, mode, &plan.action, config.get(&keys::COLOR))?;
    let (targets, discover_time) = targets(args, config, plan, client, &mut renderer).await?;
    let request = RpcRequest {
        agent: args.agent.clone(),
        action: args.action.clone(),
        data: plan.data.clone(),
        targets,
        collective: args.filter.target.clone(),
        timeout: plan.timeout,
        batches: batches(args),
        discover_time,
    };
    if let Some(reply_to) = &args.reply_to {
        let id = client.rpc_reply_to(&request, reply_to).await?;
        writeln!(std::io::stdout(), "{id}")?;
        return Ok(Exit::Ok);
    }
    let asked = match &request.targets {
        Targets::Nodes(nodes) => nodes.len(),
        Targets::Service => 1,
    };
    renderer.begin(asked);
    let mut replies: Vec<RpcReply> = Vec::new();
    let mut written = Ok(());
    let finished = client
        .rpc(&request, |progress| {
            let Progress::Reply(reply) = progress else { return };
            renderer.replied();
            if plan.reply_filter.as_ref().is_none_or(|filter| filter.keeps(reply)) {
                if written.is_ok() {
                    written = renderer.stream(reply);
                }
                replies.push(reply.clone());
            }
        })
        .await?;
    written?;
    renderer.end(replies, &finished.stats)?;
    if finished.interrupted {
        writeln!(std::io::stderr(), "interrupted: replies that came later are missing")?;
    }
    Ok(match finished.stats.outcome(request.targets != Targets::Service) {
        RequestOutcome::AllOk => Exit::Ok,
        RequestOutcome::Partial => Exit::Partial,
        RequestOutcome::NoReplies => Exit::NoReplies,
        RequestOutcome::Nobody => Exit::Nobody,
    })
}

/// Who is asked, and how long it took to find them.
async fn targets(
    args: &ReqArgs,
    config: &Config,
    plan: &Plan,
    client: &Client,
    renderer: &mut Renderer<'_>,
) -> Result<(Targets, Duration), Failure> {
    if plan.is_service() {
        if !plan.filter.is_empty_but_agents() {
            return Err(Failure::new("service requests do not support filters: the broker chooses who answers"));
        }
        return Ok((Targets::Service, Duration::ZERO));
    }
    let method = plan.source.method();
    renderer.discovering(method)?;
    let found = match plan.source.read_without_network()? {
        Some(nodes) => choria_client::Discovered { nodes, took: Duration::ZERO, assumed: false },
        None => {
            let question = selection::broadcast(&args.selection, &args.filter, plan.filter.clone(), config)?;
            client.discover(&question).await?
        }
    };
    renderer.discovered(method, &found)?;
    if found.nodes.is_empty() {
        return Err(Failure::new("did not discover any nodes"));
    }
    let nodes = match &plan.limit {
        Some(limit) => limit.apply(found.nodes, plan.method).map_err(not_performed)?,
        None => found.nodes,
    };
    Ok((Targets::Nodes(nodes), found.took))
}

/// A batch without a pause pauses for a second; a pause without a batch means nothing (spec 05 §2.6).
fn batches(args: &ReqArgs) -> Option<Batches> {
    let size = args.batch.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0)?;
    let sleep = args.batch_sleep.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    Some(Batches { size, sleep: Duration::from_secs(sleep.unwrap_or(1)) })
}
