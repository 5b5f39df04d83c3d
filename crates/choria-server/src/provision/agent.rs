//! The agent `choria_provision`: what a provisioner may ask of a node (spec 03 §7).

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use choria_config::{Config, Environment, Mode as ConfigMode, keys};
use choria_protocol::lifecycle::Kind;
use choria_rpc::{Agent, Call, Metadata, Reply, StatusCode};
use choria_security::atomic;
use choria_security::csr::{self, Subject};
use choria_security::keys::PrivateKey;
use choria_security::transfer::TransferKey;
use choria_tokens::{Seed, keyfile};
use rand::Rng;
use serde_json::json;
use tokio::sync::Semaphore;

use super::configure::{self, ConfigureRequest, Context, Disk, ProviderCheck};
use super::lock::ProvisioningLock;
use crate::clock::Clock;
use crate::control::Control;
use crate::events::Events;
use crate::go_text;
use crate::inputs::Inputs;
use crate::server::Exit;
use crate::settings::ServerSettings;

/// Name of the agent.
pub const NAME: &str = "choria_provision";

/// Longest splay of a restart, in seconds. A day's splay would leave a node in between for a day.
pub const MAX_SPLAY: i64 = 3600;

/// Splay of a restart that names none.
const DEFAULT_SPLAY: i64 = 10;

/// Seconds before any restart, so that the reply gets out.
const RESTART_PAUSE: u64 = 2;

const WRONG_TOKEN: &str = "Incorrect provision token supplied";
const LOCKED: &str = "Could not obtain provisioning lock";
const NOT_PROVISIONING: &str = "Cannot reconfigure a server that is not in provisioning mode";

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
    context: ProvisionContext,
    state: Arc<Mutex<State>>,
    /// One action at a time changes files; it may outlive the call that the host gave up on.
    turn: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    lock: ProvisioningLock,
    /// Made by `jwt`, used by `configure`.
    transfer: Option<Arc<TransferKey>>,
    /// `configure` was carried out: what is on disk belongs together and is what the next start uses.
    configured: bool,
}

impl ProvisionAgent {
    /// The agent for a server that waits to be provisioned, or was.
    pub fn new(context: ProvisionContext) -> Self {
        let metadata = Metadata {
            license: "Apache-2.0".to_owned(),
            author: crate::AUTHOR.to_owned(),
            timeout: 20,
            name: NAME.to_owned(),
            version: context.settings.build().version.clone(),
            url: crate::PROJECT_URL.to_owned(),
            description: "Choria Provisioner".to_owned(),
            provider: None,
            service: false,
        };
        Self { metadata, context, state: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token comes first, compared in constant time: who does not know it learns nothing and locks nobody out.
    fn check_token(&self, inputs: Inputs<'_>) -> Result<(), Reply> {
        let given = inputs.text("token")?;
        match self.context.settings.token().action_token() {
            Some(token) if token.matches(given) => Ok(()),
            // Without a token nobody may do anything (spec 03 §17 row 8).
            Some(_) | None => Err(Reply::aborted(WRONG_TOKEN)),
        }
    }

    fn check_mode(&self, text: &str) -> Result<(), Reply> {
        if self.context.settings.is_provisioning() { Ok(()) } else { Err(Reply::aborted(text)) }
    }

    fn check_lock(&self, call: &Call) -> Result<(), Reply> {
        let taken = self.state().lock.acquire(&call.context.sender, &call.context.caller, Instant::now());
        if taken { Ok(()) } else { Err(Reply::aborted(LOCKED)) }
    }

    async fn run(&self, call: &Call) -> Result<Reply, Reply> {
        let inputs = Inputs::of(NAME, call);
        // Every input is read before anything else, so that a wrong type answers the same whoever asks.
        match call.action.as_str() {
            "jwt" => {
                self.admit(inputs, call, NOT_PROVISIONING)?;
                self.jwt()
            }
            "gen25519" => {
                let nonce = inputs.text("nonce")?.to_owned();
                self.admit(inputs, call, NOT_PROVISIONING)?;
                self.blocking(move |this| this.gen25519(&nonce)).await
            }
            "gencsr" => {
                let subject = self.subject(inputs)?;
                self.admit(inputs, call, NOT_PROVISIONING)?;
                self.blocking(move |this| this.gencsr(&subject)).await
            }
            "configure" => {
                let request = ConfigureRequest::read(inputs)?;
                self.admit(inputs, call, NOT_PROVISIONING)?;
                self.configure(request, call).await
            }
            "release_update" => {
                inputs.text("repository")?;
                inputs.text("version")?;
                self.admit(inputs, call, "Cannot update a server that is not in provisioning mode")?;
                self.release_update()
            }
            "restart" => {
                let splay = inputs.integer("splay")?;
                self.check_token(inputs)?;
                self.restart(splay)
            }
            "reprovision" => {
                self.check_token(inputs)?;
                self.reprovision(call)
            }
            "shutdown" => {
                self.check_token(inputs)?;
                Ok(self.shutdown())
            }
            other => Err(Reply::fail(StatusCode::UnknownAction, format!("Unknown action {other} for agent {NAME}"))),
        }
    }

    /// Token, mode, lock: in this order for every action that changes the node.
    fn admit(&self, inputs: Inputs<'_>, call: &Call, mode_text: &str) -> Result<(), Reply> {
        self.check_token(inputs)?;
        self.check_mode(mode_text)?;
        self.check_lock(call)
    }

    /// Runs `work` beside the connection, so that it stays alive on slow disks, and one at a time.
    async fn blocking<F>(&self, work: F) -> Result<Reply, Reply>
    where
        F: FnOnce(&Self) -> Result<Reply, Reply> + Send + 'static,
    {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let this = Self {
            metadata: self.metadata.clone(),
            context: self.context.clone(),
            state: Arc::clone(&self.state),
            turn: Arc::clone(&self.turn),
        };
        tokio::task::spawn_blocking(move || {
            let result = work(&this);
            drop(turn);
            result
        })
        .await
        .unwrap_or_else(|error| Err(Reply::fail(StatusCode::UnknownError, format!("the action broke off: {error}"))))
    }

    fn jwt(&self) -> Result<Reply, Reply> {
        let Some(path) = self.context.settings.token().path() else {
            return Err(Reply::aborted("No Provisioning JWT file has been configured"));
        };
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Reply::aborted("Provisioning JWT file does not exist"),
            _ => Reply::aborted(format!("Could not read Provisioning JWT: {error}")),
        })?;
        let key = TransferKey::generate().map_err(|error| Reply::aborted(format!("Could not make a key: {error}")))?;
        let public = key.public_hex();
        self.state().transfer = Some(Arc::new(key));
        Ok(Reply::ok(json!({"jwt": text, "ecdh_public": public})))
    }

    fn gen25519(&self, nonce: &str) -> Result<Reply, Reply> {
        let Some(directory) = self.context.settings.config_directory() else {
            return Err(Reply::aborted("Cannot determine where to store secure data, no configure file given"));
        };
        let token = directory.join("server.jwt");
        let file = directory.join("server.seed");
        if let Some(seed) = self.in_force(|| keyfile::read_seed(&file).ok()) {
            return Ok(signed_nonce(&seed, nonce, directory));
        }
        // A token of an older key must not stay beside a new one: if it cannot go, the old key stays too.
        match fs::remove_file(&token) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Reply::aborted(format!("Could not remove {}: {error}", token.display())));
            }
            _ => {}
        }
        let seed = Seed::generate();
        keyfile::write_seed(&file, &seed, true)
            .map_err(|error| Reply::aborted(format!("Could not create ed25519 keypair: {error}")))?;
        Ok(signed_nonce(&seed, nonce, directory))
    }

    /// The key that a configuration relies on which was written since the start. It is kept when a provisioner begins
    /// anew with this node, as one does that was killed before it saw the restart through: a new key beside the
    /// certificate of the old one would end the next start, and a restart may already be on its way.
    fn in_force<T>(&self, load: impl FnOnce() -> Option<T>) -> Option<T> {
        let configured = self.state().configured;
        if configured { load() } else { None }
    }

    fn subject(&self, inputs: Inputs<'_>) -> Result<Subject, Reply> {
        let text = |name| inputs.text(name).map(str::to_owned);
        // ST is an input that the original ignores.
        text("ST")?;
        let mut subject = Subject {
            country: text("C")?,
            locality: text("L")?,
            organization: text("O")?,
            organizational_unit: text("OU")?,
            common_name: text("cn")?,
        };
        if subject.common_name.is_empty() {
            subject.common_name = self.context.settings.identity();
        }
        Ok(subject)
    }

    fn gencsr(&self, subject: &Subject) -> Result<Reply, Reply> {
        let failed = |error: String| Reply::aborted(format!("Could not create CSR: {error}"));
        let Some(directory) = self.context.settings.ssl_directory() else {
            return Err(Reply::aborted(
                "Cannot determine where to store SSL data, no configure file given and no SSL directory configured",
            ));
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o751)
            .create(&directory)
            .map_err(|error| failed(format!("{}: {error}", directory.display())))?;
        let file = directory.join("private.pem");
        let kept = self.in_force(|| PrivateKey::load(&file).ok());
        let is_new = kept.is_none();
        let key = match kept {
            Some(key) => key,
            None => {
                PrivateKey::generate(self.context.settings.key_kind()).map_err(|error| failed(error.to_string()))?
            }
        };
        let request = csr::create(&key, subject).map_err(|error| failed(error.to_string()))?;
        let write = |name: &str, text: &str, mode| {
            atomic::write_file(directory.join(name), text.as_bytes(), mode).map_err(|error| failed(error.to_string()))
        };
        if is_new {
            write("private.pem", &key.to_pem(), 0o600)?;
        }
        write("csr.pem", &request, 0o644)?;
        Ok(Reply::ok(json!({
            "csr": request,
            "public_key": key.public_pem(),
            "ssldir": directory.display().to_string(),
        })))
    }

    async fn configure(&self, request: ConfigureRequest, call: &Call) -> Result<Reply, Reply> {
        let context = call.context.clone();
        let reply = self
            .blocking(move |this| {
                let Some(file) = this.context.settings.config_file() else {
                    return Err(Reply::aborted("Cannot determine the configuration file to manage"));
                };
                let transfer = this.state().transfer.clone();
                let plan = configure::configure(
                    &Disk,
                    &request,
                    &Context {
                        config_file: file,
                        environment: &this.context.environment,
                        by_default: this.provisions_by_default(),
                        provider: this.context.provider,
                        transfer: transfer.as_deref(),
                        request_id: &context.request_id,
                        caller: &context.caller,
                        sender: &context.sender,
                        now: this.context.clock.now(),
                    },
                )
                .map_err(|error| Reply::aborted(error.to_string()))?;
                this.state().configured = true;
                Ok(Reply::ok(json!({"message": format!("Wrote {} lines to {}", plan.lines, file.display())})))
            })
            .await?;
        self.context.events.publish(Kind::Provisioned).await;
        Ok(reply)
    }

    fn provisions_by_default(&self) -> bool {
        let settings = &self.context.settings;
        settings.token().current().map_or_else(|| settings.build().provision_mode_default, |token| token.claims.chpd)
    }

    fn release_update(&self) -> Result<Reply, Reply> {
        if !self.context.settings.config().get(&keys::SERVER_PROVISION_ALLOW_UPDATE) {
            return Err(Reply::aborted("Version updates is not enabled in the configuration"));
        }
        Err(Reply::aborted("This server cannot replace its own program yet, install the new version another way"))
    }

    fn restart(&self, splay: i64) -> Result<Reply, Reply> {
        if !(0..=MAX_SPLAY).contains(&splay) {
            let text = format!("splay must be from 0 to {MAX_SPLAY} seconds, not {splay}");
            return Err(Reply::fail(StatusCode::InvalidData, text));
        }
        if let Some(file) = self.context.settings.config_file() {
            self.check_next_start(file)?;
        }
        let splay = if splay == 0 { DEFAULT_SPLAY } else { splay };
        let random = rand::rng().random_range(0..u64::try_from(splay).unwrap_or(1));
        let remaining = self.end_in(RESTART_PAUSE + random, Exit::Restart);
        Ok(Reply::ok(json!({"message": format!("Restarting Choria Server after {}", go_text::duration(remaining))})))
    }

    fn check_next_start(&self, file: &Path) -> Result<(), Reply> {
        let shown = file.display();
        let config = Config::load(file, ConfigMode::Server, &self.context.environment).map_err(|error| {
            Reply::aborted(format!("Configuration {shown} could not be parsed, restart cannot continue: {error}"))
        })?;
        if config.get(&keys::SERVER_PROVISION) == Some(true) {
            let text = format!("Configuration {shown} enables provisioning, restart cannot continue");
            return Err(Reply::aborted(text));
        }
        Ok(())
    }

    fn reprovision(&self, call: &Call) -> Result<Reply, Reply> {
        let settings = &self.context.settings;
        if settings.is_provisioning() {
            return Err(Reply::aborted(
                "Server is already in provisioning mode, cannot enable provisioning mode again",
            ));
        }
        let Some(file) = settings.config_file() else {
            return Err(Reply::aborted("Cannot determine the configuration file to manage"));
        };
        let file: PathBuf = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let text = self.reprovision_config(call);
        atomic::write_file(&file, text.as_bytes(), 0o600)
            .map_err(|error| Reply::aborted(format!("Could not write reprovisioning config: {error}")))?;
        let random = rand::rng().random_range(0..10);
        let remaining = self.end_in(RESTART_PAUSE + random, Exit::Restart);
        Ok(Reply::ok(json!({"message": format!("Restarting after {}", go_text::duration(remaining))})))
    }

    /// The configuration of a node that gives up its membership but not its name (spec 03 §17 rows 17 and 18).
    fn reprovision_config(&self, call: &Call) -> String {
        let settings = &self.context.settings;
        let config = settings.config();
        let plain = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        let mut lines = vec![
            format!(
                "# configuration file written in request {} from {} ({}) at {}",
                plain(&call.context.request_id),
                plain(&call.context.caller),
                plain(&call.context.sender),
                go_text::time(self.context.clock.now())
            ),
            "plugin.choria.server.provision=1".to_owned(),
            "loglevel=debug".to_owned(),
            format!("logfile={}", config.get(&keys::LOGFILE)),
            format!("identity={}", settings.identity()),
        ];
        if let Some(path) = config.get(&keys::STATUS_FILE_PATH) {
            lines.push(format!("plugin.choria.status_file_path={}", path.display()));
        }
        if settings.build().provision_registration_data.is_none()
            && let Some(path) = config.get(&keys::REGISTRATION_FILE_CONTENT_DATA)
        {
            lines.push("registration=file_content".to_owned());
            lines.push(format!("plugin.choria.registration.file_content.data={}", path.display()));
        }
        lines.join("\n") + "\n"
    }

    fn shutdown(&self) -> Reply {
        let random = rand::rng().random_range(0..10);
        let remaining = self.end_in(random, Exit::Shutdown);
        Reply::ok(json!({"message": format!("Shutting Choria Server down after {}", go_text::duration(remaining))}))
    }

    /// Whole seconds of what is left, rounded up: an end that was asked for before may be nearer.
    fn end_in(&self, seconds: u64, exit: Exit) -> Duration {
        let remaining = self.context.control.end_in(Duration::from_secs(seconds), exit);
        Duration::from_secs(remaining.as_millis().div_ceil(1000).try_into().unwrap_or(seconds))
    }
}

fn signed_nonce(seed: &Seed, nonce: &str, directory: &Path) -> Reply {
    Reply::ok(json!({
        "public_key": seed.public_hex(),
        "directory": directory.display().to_string(),
        "signature": hex::encode(seed.sign(nonce.as_bytes())),
    }))
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
        self.run(&call).await.unwrap_or_else(|refusal| refusal)
    }
}
