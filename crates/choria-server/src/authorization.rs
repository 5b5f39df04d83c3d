//! What the configuration puts between a request and its action: a policy and an audit log (spec 03 §8).

use std::sync::Arc;

use choria_config::keys;
use choria_rpc::audit::{AuditLog, AuditSettings};
use choria_rpc::authz::{ActionPolicy, ActionPolicySettings, Authorizer, Provider, ProviderError};
use choria_rpc::dispatch::Dispatcher;

use crate::settings::ServerSettings;

/// The dispatcher that the settings ask for.
///
/// # Errors
/// An authorization provider that does not exist: every call would be refused, better not to start.
pub(crate) fn dispatcher(settings: &ServerSettings) -> Result<Dispatcher, ProviderError> {
    let config = settings.config();
    let mut dispatcher = Dispatcher::default();
    if config.get(&keys::RPCAUTHORIZATION) {
        let Provider::ActionPolicy = Provider::parse(config.get(&keys::RPCAUTHPROVIDER).as_str())?;
        let policy: Arc<dyn Authorizer> = Arc::new(ActionPolicy::new(ActionPolicySettings {
            directory: settings.config_directory().unwrap_or_else(|| std::path::Path::new("/")).join("policies"),
            allow_unconfigured: config.get(&keys::ACTIONPOLICY_ALLOW_UNCONFIGURED),
            enable_default: config.get(&keys::ACTIONPOLICY_ENABLE_DEFAULT),
            default_name: config.get(&keys::ACTIONPOLICY_DEFAULT_NAME),
        }));
        dispatcher.authorizer = Some(policy);
    }
    if config.get(&keys::RPCAUDIT) {
        match config.get(&keys::RPCAUDIT_LOGFILE) {
            Some(path) => {
                let mode = config.get(&keys::RPCAUDIT_LOGFILE_MODE);
                let group = config.get(&keys::RPCAUDIT_LOGFILE_GROUP);
                dispatcher.audit = Some(Arc::new(AuditLog::new(AuditSettings { path, mode, group })));
            }
            None => tracing::warn!("rpcaudit is on but plugin.rpcaudit.logfile is not set, nothing is audited"),
        }
    }
    Ok(dispatcher)
}
