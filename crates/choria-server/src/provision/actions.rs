//! What the actions of `choria_provision` do (spec 03 §7), without network, threads and clocks: time and randomness come
//! in, the disk is the settings' own.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use choria_config::{Environment, keys};
use choria_rpc::{Call, CallContext, Reply, StatusCode};
use choria_security::csr::{self, Subject};
use choria_security::keys::PrivateKey;
use choria_security::transfer::TransferKey;
use choria_tokens::Seed;
use rand::{Rng, RngCore};
use serde_json::json;
use zeroize::Zeroizing;

use super::agent::NAME;
use super::configure::{self, ConfigureRequest, Context, ProviderCheck, Recovered};
use super::lock::ProvisioningLock;
use crate::control::Control;
use crate::files::{create_dir_all, load_config, read_text, replace_file};
use crate::go_text;
use crate::inputs::Inputs;
use crate::server::Exit;
use crate::settings::ServerSettings;

/// Largest key or seed file that is read.
const MAX_SECRET: u64 = 256 * 1024;

/// Longest splay of a restart, in seconds. A day's splay would leave a node in between for a day.
pub const MAX_SPLAY: i64 = 3600;

/// Splay of a restart that names none.
const DEFAULT_SPLAY: i64 = 10;

/// Seconds before any restart, so that the reply gets out.
const RESTART_PAUSE: u64 = 2;

const WRONG_TOKEN: &str = "Incorrect provision token supplied";
const LOCKED: &str = "Could not obtain provisioning lock";
const LEAVING: &str = "This server is configured and about to restart";
const NOT_PROVISIONING: &str = "Cannot reconfigure a server that is not in provisioning mode";

/// The time of a call.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For waits.
    pub mono: Instant,
    /// Unix seconds.
    pub unix: i64,
}

/// What became of a call.
#[derive(Debug)]
pub enum Begun {
    /// It is answered.
    Answer(Reply),
    /// It was admitted and changes files: hand it to [`Actions::work`], one at a time.
    Work(Work),
}

/// An admitted call.
#[derive(Debug)]
pub struct Work(Kind);

#[derive(Debug)]
enum Kind {
    Gen25519 { nonce: String },
    GenCsr(Subject),
    Configure(Box<(ConfigureRequest, CallContext)>),
}

impl Work {
    /// Whether success deserves the event `provisioned`.
    pub fn is_configure(&self) -> bool {
        matches!(self.0, Kind::Configure(_))
    }
}

/// The actions of one server process.
#[derive(Debug)]
pub struct Actions {
    settings: Arc<ServerSettings>,
    environment: Environment,
    control: Control,
    provider: ProviderCheck,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lock: ProvisioningLock,
    /// Made by `jwt`, used by `configure`.
    transfer: Option<Arc<TransferKey>>,
    /// The last `configure` that was carried out, and what it was answered.
    carried_out: Option<(ConfigureRequest, String)>,
}

impl Actions {
    /// The actions of a server with these settings. `environment` is what its next start will load the configuration with,
    /// `control` ends it, `provider` says what a new configuration must hold.
    pub fn new(
        settings: Arc<ServerSettings>,
        environment: Environment,
        control: Control,
        provider: ProviderCheck,
    ) -> Self {
        Self { settings, environment, control, provider, state: Mutex::default() }
    }

    /// Answers a call, or admits it. Every input is read before anything else, so that a wrong type answers the same
    /// whoever asks.
    pub fn begin(&self, call: &Call, now: Moment, random: &mut dyn RngCore) -> Begun {
        match self.decide(call, now, random) {
            Ok(begun) => begun,
            Err(refusal) => Begun::Answer(refusal),
        }
    }

    fn decide(&self, call: &Call, now: Moment, random: &mut dyn RngCore) -> Result<Begun, Reply> {
        let inputs = Inputs::of(NAME, call);
        let kind = match call.action.as_str() {
            "jwt" => {
                self.admit(inputs, call, NOT_PROVISIONING, now)?;
                return self.jwt().map(Begun::Answer);
            }
            "gen25519" => Kind::Gen25519 { nonce: inputs.text("nonce")?.to_owned() },
            "gencsr" => Kind::GenCsr(self.subject(inputs)?),
            "configure" => Kind::Configure(Box::new((ConfigureRequest::read(inputs)?, call.context.clone()))),
            "release_update" => {
                inputs.text("repository")?;
                inputs.text("version")?;
                self.admit(inputs, call, "Cannot update a server that is not in provisioning mode", now)?;
                return self.release_update().map(Begun::Answer);
            }
            "restart" => {
                let splay = inputs.integer("splay")?;
                self.check_token(inputs)?;
                return self.restart(splay, now, random).map(Begun::Answer);
            }
            "reprovision" => {
                self.check_token(inputs)?;
                return self.reprovision(call, now, random).map(Begun::Answer);
            }
            "shutdown" => {
                self.check_token(inputs)?;
                return Ok(Begun::Answer(self.shutdown(now, random)));
            }
            other => {
                let text = format!("Unknown action {other} for agent {NAME}");
                return Err(Reply::fail(StatusCode::UnknownAction, text));
            }
        };
        self.admit(inputs, call, NOT_PROVISIONING, now)?;
        if let Kind::Configure(request) = &kind
            && let Some(message) = self.repeated(&request.0)
        {
            return Ok(Begun::Answer(Reply::ok(json!({"message": message}))));
        }
        Ok(Begun::Work(Work(kind)))
    }

    /// What the very same `configure` was answered before. A provisioner sends it again when it did not get the answer, and
    /// what was done is not done twice.
    fn repeated(&self, request: &ConfigureRequest) -> Option<String> {
        let known =
            self.state().carried_out.as_ref().filter(|(before, _)| before == request).map(|(_, said)| said.clone());
        known.filter(|_| self.waits_for_restart())
    }

    /// Does what was admitted.
    pub fn work(&self, work: Work, now: Moment) -> Reply {
        let done = self.settle().and_then(|()| match work.0 {
            Kind::Gen25519 { nonce } => self.gen25519(&nonce),
            Kind::GenCsr(subject) => self.gencsr(&subject),
            Kind::Configure(request) => self.configure(&request.0, &request.1, now.unix),
        });
        done.unwrap_or_else(|refusal| refusal)
    }

    /// Ends what an earlier `configure` left to the next start because the disk failed on its way there and back, as that
    /// start would. What lies about must not be taken for content of another call, nor a new key come under a certificate
    /// that is yet to get its name.
    fn settle(&self) -> Result<(), Reply> {
        let Some(directory) = self.settings.config_directory() else { return Ok(()) };
        match configure::recover(&**self.settings.files(), directory) {
            Ok(Recovered::Nothing | Recovered::Old) => Ok(()),
            // Whoever sent it was told that it failed; now it is what the next start uses.
            Ok(Recovered::New) => {
                self.control.set_configured();
                Ok(())
            }
            Err(error) => Err(Reply::aborted(format!("An earlier configuration could not be finished: {error}"))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token comes first, compared in constant time: who does not know it learns nothing and locks nobody out.
    fn check_token(&self, inputs: Inputs<'_>) -> Result<(), Reply> {
        let given = inputs.text("token")?;
        match self.settings.token().action_token() {
            Some(token) if token.matches(given) => Ok(()),
            // Without a token nobody may do anything (spec 03 §17 row 8).
            Some(_) | None => Err(Reply::aborted(WRONG_TOKEN)),
        }
    }

    fn check_mode(&self, text: &str) -> Result<(), Reply> {
        if self.settings.is_provisioning() { Ok(()) } else { Err(Reply::aborted(text)) }
    }

    fn check_lock(&self, call: &Call, now: Instant) -> Result<(), Reply> {
        let taken = self.state().lock.acquire(&call.context.sender, &call.context.caller, now);
        if taken { Ok(()) } else { Err(Reply::aborted(LOCKED)) }
    }

    /// Token, mode, lock: in this order for every action that changes the node. Once it has its configuration and is about
    /// to restart with it, nothing changes it any more.
    fn admit(&self, inputs: Inputs<'_>, call: &Call, mode_text: &str, now: Moment) -> Result<(), Reply> {
        self.check_token(inputs)?;
        self.check_mode(mode_text)?;
        if self.control.is_leaving() {
            return Err(Reply::aborted(LEAVING));
        }
        self.check_lock(call, now.mono)
    }

    fn jwt(&self) -> Result<Reply, Reply> {
        let text = self.settings.token().text().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Reply::aborted("Provisioning JWT file does not exist"),
            _ => Reply::aborted(format!("Could not read Provisioning JWT: {error}")),
        })?;
        let Some(text) = text else {
            return Err(Reply::aborted("No Provisioning JWT file has been configured"));
        };
        let key = TransferKey::generate().map_err(|error| Reply::aborted(format!("Could not make a key: {error}")))?;
        let public = key.public_hex();
        self.state().transfer = Some(Arc::new(key));
        // The last one tells our provisioner that `gencsr` needs no name, so that one signed request serves many nodes.
        let mut data = json!({"jwt": text, "ecdh_public": public, "identity_csr": true});
        if self.waits_for_restart() {
            data["configured"] = true.into();
        }
        Ok(Reply::ok(data))
    }

    /// Whether only the restart is missing: whoever configured the server was stopped before it came to that.
    fn waits_for_restart(&self) -> bool {
        let file = self.settings.config_file().filter(|_| self.control.is_configured());
        file.is_some_and(|file| self.check_next_start(file).is_ok())
    }

    fn gen25519(&self, nonce: &str) -> Result<Reply, Reply> {
        let Some(directory) = self.settings.config_directory() else {
            return Err(Reply::aborted("Cannot determine where to store secure data, no configure file given"));
        };
        let files = &**self.settings.files();
        let token = directory.join("server.jwt");
        let file = directory.join("server.seed");
        if let Some(seed) = self.in_force(|| Seed::from_hex(&self.read_secret(&file)?)) {
            return Ok(signed_nonce(&seed, nonce, directory));
        }
        // A token of an older key must not stay beside a new one: if it cannot go, the old key stays too.
        match files.remove_file(&token) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Reply::aborted(format!("Could not remove {}: {error}", token.display())));
            }
            _ => {}
        }
        let seed = Seed::generate();
        replace_file(files, &file, seed.to_hex().as_bytes(), 0o600)
            .map_err(|error| Reply::aborted(format!("Could not create ed25519 keypair: {error}")))?;
        Ok(signed_nonce(&seed, nonce, directory))
    }

    /// The key that a configuration relies on which was written since the start. It is kept when a provisioner begins
    /// anew with this node, as one does that was killed before it saw the restart through: a new key beside the
    /// certificate of the old one would end the next start, and a restart may already be on its way.
    fn in_force<T>(&self, load: impl FnOnce() -> Option<T>) -> Option<T> {
        #[cfg(feature = "planted-bug")]
        if self.settings.files().planted() == Some(crate::PlantedBug::NewKeyAfterConfigure) {
            return None;
        }
        if self.control.is_configured() { load() } else { None }
    }

    fn read_secret(&self, path: &Path) -> Option<Zeroizing<String>> {
        read_text(&**self.settings.files(), path, MAX_SECRET).ok().map(Zeroizing::new)
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
            subject.common_name = self.settings.identity();
        }
        Ok(subject)
    }

    fn gencsr(&self, subject: &Subject) -> Result<Reply, Reply> {
        let failed = |error: String| Reply::aborted(format!("Could not create CSR: {error}"));
        let Some(directory) = self.settings.ssl_directory() else {
            return Err(Reply::aborted(
                "Cannot determine where to store SSL data, no configure file given and no SSL directory configured",
            ));
        };
        let files = &**self.settings.files();
        create_dir_all(files, &directory, 0o751)
            .map_err(|error| failed(format!("{}: {error}", directory.display())))?;
        let file = directory.join("private.pem");
        let kept = self.in_force(|| PrivateKey::from_pem(&self.read_secret(&file)?).ok());
        let is_new = kept.is_none();
        let key = match kept {
            Some(key) => key,
            None => PrivateKey::generate(self.settings.key_kind()).map_err(|error| failed(error.to_string()))?,
        };
        let request = csr::create(&key, subject).map_err(|error| failed(error.to_string()))?;
        let write = |name: &str, text: &str, mode| {
            let path = directory.join(name);
            replace_file(files, &path, text.as_bytes(), mode)
                .map_err(|error| failed(format!("could not write {}: {error}", path.display())))
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

    fn configure(&self, request: &ConfigureRequest, call: &CallContext, now: i64) -> Result<Reply, Reply> {
        let Some(file) = self.settings.config_file() else {
            return Err(Reply::aborted("Cannot determine the configuration file to manage"));
        };
        // Whatever becomes of this one, the one before is not what counts any more.
        self.state().carried_out = None;
        let transfer = self.state().transfer.clone();
        let context = Context {
            config_file: file,
            environment: &self.environment,
            by_default: self.provisions_by_default(),
            provider: self.provider,
            transfer: transfer.as_deref(),
            request_id: &call.request_id,
            caller: &call.caller,
            sender: &call.sender,
            now,
        };
        let plan = configure::configure(&**self.settings.files(), request, &context)
            .map_err(|error| Reply::aborted(error.to_string()))?;
        self.control.set_configured();
        let message = format!("Wrote {} lines to {}", plan.lines, file.display());
        self.state().carried_out = Some((request.clone(), message.clone()));
        Ok(Reply::ok(json!({"message": message})))
    }

    fn provisions_by_default(&self) -> bool {
        let settings = &self.settings;
        settings.token().current().map_or_else(|| settings.build().provision_mode_default, |token| token.claims.chpd)
    }

    fn release_update(&self) -> Result<Reply, Reply> {
        if !self.settings.config().get(&keys::SERVER_PROVISION_ALLOW_UPDATE) {
            return Err(Reply::aborted("Version updates is not enabled in the configuration"));
        }
        Err(Reply::aborted("This server cannot replace its own program yet, install the new version another way"))
    }

    fn restart(&self, splay: i64, now: Moment, random: &mut dyn RngCore) -> Result<Reply, Reply> {
        if !(0..=MAX_SPLAY).contains(&splay) {
            let text = format!("splay must be from 0 to {MAX_SPLAY} seconds, not {splay}");
            return Err(Reply::fail(StatusCode::InvalidData, text));
        }
        if let Some(file) = self.settings.config_file() {
            self.check_next_start(file)?;
        }
        let splay = if splay == 0 { DEFAULT_SPLAY } else { splay };
        let pause = RESTART_PAUSE + random.random_range(0..u64::try_from(splay).unwrap_or(1));
        let remaining = self.end_in(now, pause, Exit::Restart);
        Ok(Reply::ok(json!({"message": format!("Restarting Choria Server after {}", go_text::duration(remaining))})))
    }

    fn check_next_start(&self, file: &Path) -> Result<(), Reply> {
        let shown = file.display();
        let config = load_config(&**self.settings.files(), file, &self.environment).map_err(|error| {
            Reply::aborted(format!("Configuration {shown} could not be parsed, restart cannot continue: {error}"))
        })?;
        if config.get(&keys::SERVER_PROVISION) == Some(true) {
            let text = format!("Configuration {shown} enables provisioning, restart cannot continue");
            return Err(Reply::aborted(text));
        }
        Ok(())
    }

    fn reprovision(&self, call: &Call, now: Moment, random: &mut dyn RngCore) -> Result<Reply, Reply> {
        let (settings, files) = (&self.settings, &**self.settings.files());
        if settings.is_provisioning() {
            return Err(Reply::aborted(
                "Server is already in provisioning mode, cannot enable provisioning mode again",
            ));
        }
        let Some(file) = settings.config_file() else {
            return Err(Reply::aborted("Cannot determine the configuration file to manage"));
        };
        let text = self.reprovision_config(call, now.unix);
        replace_file(files, file, text.as_bytes(), 0o600)
            .map_err(|error| Reply::aborted(format!("Could not write reprovisioning config: {error}")))?;
        let pause = RESTART_PAUSE + random.random_range(0..10);
        let remaining = self.end_in(now, pause, Exit::Restart);
        Ok(Reply::ok(json!({"message": format!("Restarting after {}", go_text::duration(remaining))})))
    }

    /// The configuration of a node that gives up its membership but not its name (spec 03 §17 rows 17 and 18).
    fn reprovision_config(&self, call: &Call, now: i64) -> String {
        let settings = &self.settings;
        let config = settings.config();
        let plain = |text: &str| text.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
        let mut lines = vec![
            format!(
                "# configuration file written in request {} from {} ({}) at {}",
                plain(&call.context.request_id),
                plain(&call.context.caller),
                plain(&call.context.sender),
                go_text::time(now)
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

    fn shutdown(&self, now: Moment, random: &mut dyn RngCore) -> Reply {
        let remaining = self.end_in(now, random.random_range(0..10), Exit::Shutdown);
        Reply::ok(json!({"message": format!("Shutting Choria Server down after {}", go_text::duration(remaining))}))
    }

    /// Whole seconds of what is left, rounded up: an end that was asked for before may be nearer.
    fn end_in(&self, now: Moment, seconds: u64, exit: Exit) -> Duration {
        let remaining = self.control.end_in(now.mono, Duration::from_secs(seconds), exit);
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
