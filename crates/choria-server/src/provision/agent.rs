//! The agent `choria_provision`: what a provisioner may ask of a node (spec 03 §7).

use std::sync::Arc;

use async_trait::async_trait;
use choria_config::Environment;
use choria_protocol::lifecycle::Kind;
use choria_rpc::{Agent, Call, Metadata, Reply, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::actions::{Actions, Begun, Moment, Work};
use super::configure::ProviderCheck;
use crate::clock::Clock;
use crate::control::Control;
use crate::events::Events;
use crate::settings::ServerSettings;

/// Name of the agent.
pub const NAME: &str = "choria_provision";

/// Actions in the order of the specification.
const ACTIONS: [&str; 8] =
    ["jwt", "gen25519", "gencsr", "configure", "release_update", "restart", "reprovision", "shutdown"];

/// What the agent needs of its server.
#[derive(Debug, Clone)]
pub struct ProvisionContext {
    /// The server's settings.
    pub settings: Arc<ServerSettings>,
    /// For loading configurations as the next start will.
    pub environment: Environment,
    /// Publishes `provisioned`.
    pub events: Events,
    /// Ends the server.
    pub control: Control,
    /// The clock.
    pub clock: Clock,
    /// Whether a written configuration must name a usable security provider.
    pub provider: ProviderCheck,
}

/// The agent.
#[derive(Debug)]
pub struct ProvisionAgent {
    metadata: Metadata,
    actions: Arc<Actions>,
    events: Events,
    clock: Clock,
    /// One action at a time changes files; it may outlive the call that the host gave up on.
    turn: Arc<Semaphore>,
}

impl ProvisionAgent {
    /// The agent for a server that waits to be provisioned, or was.
    pub fn new(context: ProvisionContext) -> Self {
        let ProvisionContext { settings, environment, events, control, clock, provider } = context;
        let metadata = Metadata {
            license: "Apache-2.0".to_owned(),
            author: crate::AUTHOR.to_owned(),
            timeout: 20,
            name: NAME.to_owned(),
            version: settings.build().version.clone(),
            url: crate::PROJECT_URL.to_owned(),
            description: "Choria Provisioner".to_owned(),
            provider: None,
            service: false,
        };
        let actions = Arc::new(Actions::new(settings, environment, control, provider));
        Self { metadata, actions, events, clock, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Does `work` beside the connection, so that it stays alive on slow disks, and one at a time.
    async fn do_work(&self, work: Work) -> Reply {
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else {
            return Reply::fail(StatusCode::UnknownError, "the server is ending");
        };
        let (actions, clock) = (Arc::clone(&self.actions), self.clock.clone());
        tokio::task::spawn_blocking(move || {
            let reply = actions.work(work, moment(&clock));
            drop(turn);
            reply
        })
        .await
        .unwrap_or_else(|error| Reply::fail(StatusCode::UnknownError, format!("the action broke off: {error}")))
    }
}

fn moment(clock: &Clock) -> Moment {
    Moment { mono: Instant::now().into_std(), unix: clock.now() }
}

#[async_trait]
impl Agent for ProvisionAgent {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn actions(&self) -> Vec<String> {
        ACTIONS.map(str::to_owned).to_vec()
    }

    async fn call(&self, call: Call) -> Reply {
        let begun = self.actions.begin(&call, moment(&self.clock), &mut rand::rng());
        let work = match begun {
            Begun::Answer(reply) => return reply,
            Begun::Work(work) => work,
        };
        let is_configure = work.is_configure();
        let reply = self.do_work(work).await;
        if is_configure && reply.code == StatusCode::Ok {
            self.events.publish(Kind::Provisioned).await;
        }
        reply
    }
}
