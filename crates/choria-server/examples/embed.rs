//! A program that hosts an agent of its own inside a Choria server.
//!
//! ```text
//! cargo run -p choria-server --example embed -- /etc/choria/server.conf
//! choria req thermostat set degrees=21      # as soon as the server is a fleet member and a policy allows it
//! ```
//!
//! The server does everything else: it waits to be provisioned if that is what its files say, connects, verifies, answers,
//! announces itself, and stops cleanly. `docs/embedding.md` explains each step.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use choria_config::Environment;
use choria_rpc::{Agent, Call, Metadata, Reply, StatusCode};
use choria_server::inputs::Inputs;
use choria_server::{Exit, Server, ServerSettings};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The agent: `thermostat#get` and `thermostat#set`.
#[derive(Debug)]
pub struct Thermostat {
    metadata: Metadata,
    degrees: AtomicI64,
}

impl Thermostat {
    /// A thermostat at 20 degrees.
    pub fn new() -> Self {
        let metadata = Metadata {
            license: "Apache-2.0".to_owned(),
            author: "Example Authors <authors@example.net>".to_owned(),
            timeout: 5,
            name: "thermostat".to_owned(),
            version: "1.0.0".to_owned(),
            url: "https://example.net/thermostat".to_owned(),
            description: "Reads and sets the temperature".to_owned(),
            provider: None,
            service: false,
        };
        Self { metadata, degrees: AtomicI64::new(20) }
    }
}

impl Default for Thermostat {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Agent for Thermostat {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn actions(&self) -> Vec<String> {
        vec!["get".to_owned(), "set".to_owned()]
    }

    /// The server has verified who asks, found the action and asked the policies. The inputs are this agent's affair.
    async fn call(&self, call: Call) -> Reply {
        if call.action == "set" {
            match Inputs::of("thermostat", &call).integer("degrees") {
                Ok(degrees @ 5..=30) => self.degrees.store(degrees, Ordering::Relaxed),
                Ok(degrees) => {
                    let text = format!("{degrees} degrees are not between 5 and 30");
                    return Reply::fail(StatusCode::InvalidData, text);
                }
                Err(refusal) => return refusal,
            }
        }
        Reply::ok(json!({"degrees": self.degrees.load(Ordering::Relaxed)}))
    }
}

/// Runs the server until `shutdown` is cancelled or a provisioner ends it.
pub async fn run(
    config: &Path,
    environment: &Environment,
    shutdown: CancellationToken,
) -> Result<Exit, Box<dyn Error>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    // Reads the configuration and the provisioning token, and decides which of the two counts.
    let settings = ServerSettings::load(config, None, environment, i64::try_from(now)?)?;
    let server = Server::builder(settings).agent(Arc::new(Thermostat::new())).build()?;
    Ok(server.run(shutdown).await?)
}

// One thread is enough for a server, and saves memory.
#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "the test includes this file and calls `run` itself")]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = std::env::args().nth(1).ok_or("usage: embed CONFIGURATION")?;
    let environment = Environment::from_process();
    loop {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        });
        match run(Path::new(&config), &environment, shutdown).await? {
            // A new configuration was written: the same once more.
            Exit::Restart => {}
            Exit::Stopped | Exit::Shutdown => return Ok(()),
        }
    }
}
