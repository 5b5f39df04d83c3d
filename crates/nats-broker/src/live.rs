//! What may change while the broker runs: settings, accounts and authenticator, replaced as one consistent whole.
//!
//! Whoever works on received bytes loads it once for all of them ([`crate::shared::Shared::live`]); nothing in it changes
//! under their feet.

use std::sync::Arc;
use std::time::SystemTime;

use crate::account::{self, Account, AccountNames};
use crate::auth::{Authenticator, PublishGuard};
use crate::config::{AccountConfig, BrokerConfig, StartError};

/// Everything that is configured.
pub(crate) struct Live {
    /// Goes up with every reload.
    pub(crate) generation: u64,
    /// Since when it is in force.
    pub(crate) loaded: SystemTime,
    pub(crate) config: BrokerConfig,
    /// By number. Those that are no longer configured keep their place.
    pub(crate) accounts: Vec<Account>,
    /// What the accounts were made of, in its order, for monitoring.
    pub(crate) configs: Vec<AccountConfig>,
    pub(crate) names: AccountNames,
    pub(crate) authenticator: Arc<dyn Authenticator>,
}

impl Live {
    /// Checks settings and accounts. Accounts of `before` keep their numbers and their state.
    ///
    /// # Errors
    /// What does not fit together.
    pub(crate) fn new(
        config: BrokerConfig,
        accounts: &[AccountConfig],
        authenticator: Arc<dyn Authenticator>,
        guards: &[Arc<dyn PublishGuard>],
        before: Option<&Self>,
    ) -> Result<Self, StartError> {
        if config.max_payload > config.max_pending {
            return Err(StartError::PayloadAbovePending {
                max_payload: config.max_payload,
                max_pending: config.max_pending,
            });
        }
        let known = before.map_or(&[][..], |before| &before.accounts);
        let (built, names) = account::build(&config, accounts, guards, known)?;
        let generation = before.map_or(0, |before| before.generation + 1);
        let loaded = SystemTime::now();
        Ok(Self { generation, loaded, config, accounts: built, configs: accounts.to_vec(), names, authenticator })
    }

    /// Number of the system account.
    pub(crate) fn system_account(&self) -> Option<u32> {
        let number = self.accounts.iter().position(|account| account.is_system)?;
        u32::try_from(number).ok()
    }

    /// Number of a configured account.
    pub(crate) fn account_number(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }
}
