//! Replacing what is configured while the broker runs: everything is read and checked first, then put in force in one step.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use choria_config::{BuildSettings, Config, Environment, Mode};
use nats_broker::Reload;

use crate::accounts::accounts;
use crate::authenticator::PolicyAuthenticator;
use crate::error::ReloadError;
use crate::service::{Handle, broker_config, guards, log_notes};
use crate::settings::{Material, Options, Settings, changes};
use crate::trust::ClientAuthorities;

/// What is in force.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) material: Material,
    pub(crate) authorities: ClientAuthorities,
}

/// What a reload needs to read everything again.
#[derive(Debug)]
pub(crate) struct Reloader {
    pub(crate) stats_addr: Option<SocketAddr>,
    /// The configuration of the start; a file is read again, text is not.
    pub(crate) config: Config,
    pub(crate) environment: Environment,
    pub(crate) build: BuildSettings,
    pub(crate) options: Options,
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Keys whose value, or what stands in the file they name, is another one now.
    pub changed: Vec<&'static str>,
    /// Connections that lost their right to be here and were ended.
    pub connections_ended: usize,
    /// Connections that may do something else than before.
    pub connections_changed: usize,
    /// Subscriptions that were taken away from connections that stayed.
    pub subscriptions_removed: usize,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changed.is_empty() {
            f.write_str("nothing changed")?;
        } else {
            write!(f, "changed: {}", self.changed.join(", "))?;
        }
        if self.connections_ended + self.connections_changed > 0 {
            let (ended, changed, removed) =
                (self.connections_ended, self.connections_changed, self.subscriptions_removed);
            write!(f, "; {ended} connections ended, {changed} with other rights, which lost {removed} subscriptions")?;
        }
        Ok(())
    }
}

impl Reloader {
    /// Reads the configuration and every file it names.
    fn read(&self) -> Result<(Config, Settings, Material), ReloadError> {
        let config = match self.config.path() {
            Some(path) => Config::load(path, Mode::Broker, &self.environment)?,
            None => self.config.clone(),
        };
        let settings = Settings::read(&config, &self.build, self.options)?;
        let material = Material::read(&config, &self.build, self.options)?;
        Ok((config, settings, material))
    }
}

impl Handle {
    /// Reads the configuration file and every file it names again, and puts all of it in force as a whole: certificate, CA,
    /// signer, passwords, lists, time-outs, the provisioning account. Every open connection is judged by the new
    /// configuration: whoever may not be here any more gets `-ERR 'Authorization Violation'` and is ended, whoever may
    /// do something else than before does so from now on. New connections see the new certificate.
    ///
    /// One line in the log says what changed, or why nothing did.
    ///
    /// # Errors
    /// Whatever is wrong with the new configuration, or what only a restart can change; then nothing has changed.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let turn = Arc::clone(&self.reloading).acquire_owned().await.expect("the semaphore is never closed");
        let (reloader, state, broker) = (Arc::clone(&self.reloader), Arc::clone(&self.state), self.broker.clone());
        // Files and names are read, and connections judged, off the threads that move messages.
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let before = state.load_full();
            let (after, reloaded) = replace(&reloader, &before, &broker)?;
            state.store(Arc::new(after));
            Ok(reloaded)
        });
        let result = work.await.expect("reading a configuration does not panic");
        match &result {
            Ok(reloaded) => tracing::info!(component = "broker", "configuration reloaded, {reloaded}"),
            Err(error) => {
                tracing::error!(component = "broker", "reload failed, everything stays as it was: {error}");
            }
        }
        self.metrics.reload(result.as_ref().ok(), SystemTime::now());
        result
    }
}

/// Puts what is configured now in the place of `before`.
fn replace(
    reloader: &Reloader,
    before: &State,
    broker: &nats_broker::Broker,
) -> Result<(State, Reloaded), ReloadError> {
    let (config, settings, material) = reloader.read()?;
    if let Some(what) = changes::fixed(&before.settings, &settings) {
        return Err(ReloadError::NeedsRestart { what });
    }
    let changed = changes::changed((&before.settings, &before.material), (&settings, &material));
    let authorities = material.client_authorities().after(&before.authorities);
    let reloaded = broker.reload(Reload {
        config: broker_config(&settings, &material, reloader.stats_addr),
        accounts: accounts(settings.provisioning, &settings.mappings),
        authenticator: Arc::new(PolicyAuthenticator::new(material.policy.clone(), authorities.clone())),
        guards: guards(settings.provisioning),
    })?;
    log_notes(&config);
    for warning in settings.warnings.iter().filter(|warning| !before.settings.warnings.contains(warning)) {
        tracing::warn!(component = "broker", "{warning}");
    }
    let reloaded = Reloaded {
        changed,
        connections_ended: reloaded.connections_ended,
        connections_changed: reloaded.connections_changed,
        subscriptions_removed: reloaded.subscriptions_removed,
    };
    Ok((State { settings, material, authorities }, reloaded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_changed() {
        assert_eq!(Reloaded::default().to_string(), "nothing changed");
        let reloaded = Reloaded {
            changed: vec!["plugin.security.file.ca", "plugin.choria.network.auth_timeout"],
            connections_ended: 3,
            connections_changed: 2,
            subscriptions_removed: 1,
        };
        assert_eq!(
            reloaded.to_string(),
            "changed: plugin.security.file.ca, plugin.choria.network.auth_timeout; 3 connections ended, 2 with other \
             rights, which lost 1 subscriptions"
        );
    }
}
