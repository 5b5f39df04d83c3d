//! Registration: what a node publishes about itself without being asked (spec 03 §12).

mod schedule;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use choria_config::{Config, keys};
use choria_connector::Status as Connection;
use choria_protocol::filter::Filter;
use choria_protocol::registration::{AGENT, FileContent, InventoryContent};
use choria_protocol::{identity, ids, subjects, v1};
use choria_security::sign::RequestSigner;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::context::ServerContext;
pub use schedule::{Rhythm, Schedule};

/// Largest file that is published: more does not fit through a broker with the default payload limit.
const MAX_FILE: u64 = 512 * 1024;

/// One source of registration data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugin {
    /// The content of a file.
    FileContent {
        /// The file.
        path: PathBuf,
        /// Subject in place of the registration agent's.
        target: Option<String>,
        /// Compress with gzip.
        compress: bool,
    },
    /// What `rpcutil#inventory` and the status file show.
    InventoryContent {
        /// Subject in place of the registration agent's.
        target: Option<String>,
        /// Compress with gzip.
        compress: bool,
    },
}

/// Why registration cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// `file_content` without a file.
    #[error("registration = file_content needs plugin.choria.registration.file_content.data")]
    NoFile,
    /// A target that cannot be published to.
    #[error("registration target {0:?} is not a subject that can be published to")]
    Target(String),
}

/// The plugins that a configuration asks for.
///
/// # Errors
/// One is not complete.
pub fn plugins(config: &Config) -> Result<Vec<Plugin>, RegistrationError> {
    let mut list = Vec::new();
    for name in config.get(&keys::REGISTRATION) {
        // The configuration accepts these two names only.
        let plugin = if name == "file_content" {
            Plugin::FileContent {
                path: config.get(&keys::REGISTRATION_FILE_CONTENT_DATA).ok_or(RegistrationError::NoFile)?,
                target: config.get(&keys::REGISTRATION_FILE_CONTENT_TARGET),
                compress: config.get(&keys::REGISTRATION_FILE_CONTENT_COMPRESSION),
            }
        } else {
            Plugin::InventoryContent {
                target: config.get(&keys::REGISTRATION_INVENTORY_CONTENT_TARGET),
                compress: config.get(&keys::REGISTRATION_INVENTORY_CONTENT_COMPRESSION),
            }
        };
        if let Some(target) = plugin.target().filter(|target| !subjects::is_publishable(target)) {
            return Err(RegistrationError::Target(target.to_owned()));
        }
        if !list.contains(&plugin) {
            list.push(plugin);
        }
    }
    Ok(list)
}

/// The rhythm that a configuration asks for.
pub fn rhythm(config: &Config) -> Rhythm {
    Rhythm {
        interval: config.get(&keys::REGISTERINTERVAL),
        splay: config.get(&keys::REGISTRATION_SPLAY),
        size_trigger: u64::try_from(config.get(&keys::REGISTRATION_SIZE_TRIGGER)).unwrap_or(0),
        size_interval: config.get(&keys::REGISTRATION_SIZE_INTERVAL),
    }
}

impl Plugin {
    fn target(&self) -> Option<&str> {
        match self {
            Self::FileContent { target, .. } | Self::InventoryContent { target, .. } => {
                target.as_deref().filter(|target| !target.is_empty())
            }
        }
    }
}

/// How registration requests are protected.
#[derive(Debug)]
pub enum Seal {
    /// Signed with the node's RSA key.
    Signed(RequestSigner),
    /// The documented unsigned form of nodes without a certificate, or with a key that v1 cannot sign with.
    UnsignedRegistration,
    /// Protocol security is off: a provisioning node whose token says `chs` false.
    Insecure,
}

impl Seal {
    fn seal(&self, text: String) -> Result<v1::SecureRequest, String> {
        match self {
            Self::Insecure => Ok(v1::SecureRequest::unsigned(text)),
            Self::UnsignedRegistration => Ok(v1::SecureRequest::unsigned_registration(text)),
            Self::Signed(signer) => {
                let signed = signer.sign(&text).map_err(|error| error.to_string())?;
                Ok(v1::SecureRequest { message: text, signature: signed.signature, pubcert: signed.pubcert })
            }
        }
    }
}

/// Publishes the data of one plugin again and again.
#[derive(Debug)]
pub struct Registration {
    context: Arc<ServerContext>,
    plugin: Plugin,
    rhythm: Rhythm,
    seal: Arc<Seal>,
    schedule: Schedule,
    /// Change time of the file at the last publication.
    last_change: Option<i64>,
    /// The last problem, so that it is logged once.
    problem: Option<String>,
}

impl Registration {
    /// Registration with one plugin.
    pub fn new(context: Arc<ServerContext>, plugin: Plugin, rhythm: Rhythm, seal: Arc<Seal>) -> Self {
        Self { context, plugin, rhythm, seal, schedule: Schedule::default(), last_change: None, problem: None }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let started = Instant::now();
        let first = self.rhythm.first(&mut rand::rng());
        let mut next = started + first;
        loop {
            sleep_until(next).await;
            next += self.rhythm.tick();
            // Nothing is kept for later: the next tick has newer data.
            let connected = matches!(*self.context.connector.status().borrow(), Connection::Connected { .. });
            if !connected {
                continue;
            }
            match self.publish(started.elapsed()).await {
                Ok(()) => self.problem = None,
                Err(problem) => {
                    if self.problem.as_ref() != Some(&problem) {
                        tracing::warn!("registration data was not published: {problem}");
                    }
                    self.problem = Some(problem);
                }
            }
        }
    }

    async fn publish(&mut self, now: std::time::Duration) -> Result<(), String> {
        let (body, change) = self.body()?;
        let size = body.len() as u64;
        if !self.schedule.is_due(&self.rhythm, now, size) {
            return Ok(());
        }
        let (subject, message) = self.message(body)?;
        let connector = &self.context.connector;
        connector.publish(&subject, Bytes::from(message)).await.map_err(|error| error.to_string())?;
        self.schedule.published(now, size);
        self.last_change = change.or(self.last_change);
        Ok(())
    }

    /// The body, and the time of change of the file it comes from.
    fn body(&self) -> Result<(String, Option<i64>), String> {
        match &self.plugin {
            Plugin::FileContent { path, compress, .. } => {
                let shown = path.display();
                let metadata = fs::metadata(path).map_err(|_| format!("could not find data file {shown}"))?;
                match metadata.len() {
                    0 => return Err(format!("data file {shown} is empty")),
                    size if size > MAX_FILE => {
                        return Err(format!("data file {shown} has {size} bytes, the limit is {MAX_FILE}"));
                    }
                    _ => {}
                }
                let content = fs::read(path).map_err(|error| format!("data file {shown}: {error}"))?;
                let mtime = metadata.modified().map_or(0, unix_seconds);
                let file = FileContent {
                    mtime,
                    file: shown.to_string(),
                    updated: self.last_change.is_some_and(|last| mtime > last),
                    content,
                };
                Ok((file.to_text(*compress), Some(mtime)))
            }
            Plugin::InventoryContent { compress, .. } => Ok((self.inventory().to_text(*compress), None)),
        }
    }

    fn inventory(&self) -> InventoryContent {
        let context = &self.context;
        let build = context.settings.build();
        InventoryContent {
            content: json!({
                "agents": context.agents(),
                "classes": context.classes(),
                "facts": context.facts(),
                "status": context.status(),
                "collectives": context.config().get(&keys::COLLECTIVES),
                "build_info": {"version": build.version, "sha": build.sha},
                "machines": [],
            }),
        }
    }

    /// Subject and bytes of the request that carries `body`.
    fn message(&self, body: String) -> Result<(String, Vec<u8>), String> {
        let context = &self.context;
        let config = context.config();
        let name = context.settings.identity();
        let collective = config.get(&keys::REGISTRATION_COLLECTIVE);
        let subject = match self.plugin.target() {
            Some(target) => target.to_owned(),
            None => subjects::broadcast_agent(&collective, AGENT),
        };
        let request = v1::Request {
            message: body,
            envelope: v1::RequestEnvelope {
                request_id: ids::request_id(),
                sender_id: name.clone(),
                caller_id: identity::caller_id(&name),
                collective,
                agent: AGENT.to_owned(),
                ttl: i64::try_from(config.get(&keys::TTL).as_secs()).unwrap_or(60).max(v1::MIN_TTL),
                time: context.clock.now(),
                filter: Filter::default(),
            },
        };
        let mut headers = v1::Headers {
            reply_to: Some(subjects::NO_REPLY.to_owned()),
            mc_sender: Some(name.clone()),
            ..v1::Headers::default()
        };
        headers.add_hop(&context.connected_server(), &name);
        let secure = self.seal.seal(request.to_text())?;
        Ok((subject, v1::encode_request(&secure, &headers)))
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
