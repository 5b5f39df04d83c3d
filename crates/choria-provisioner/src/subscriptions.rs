//! What the provisioner listens to.

use std::time::Duration;

use choria_connector::{Connector, ConnectorError, Message, Subscription, Wanted};
use choria_protocol::{lifecycle, subjects};
use tokio::time::timeout;

use crate::advisory;
use crate::config::{ProvisionerConfig, VerifyRestart};
use crate::requests::Caller;

/// Replies and events that may wait for the run loop; as many as nodes that may be known.
const INCOMING: usize = 65_536;
/// How long the broker may take to confirm the subscriptions.
const CONFIRM: Duration = Duration::from_secs(5);

/// Everything that is listened to, over the one connection.
pub(crate) struct Subscriptions {
    pub(crate) replies: Subscription,
    /// What nodes say of themselves, and the broker of their connections: startup and shutdown events, registration data, ends
    /// of connections. In one queue, because a start after an end means something else than an end after a start.
    pub(crate) nodes: Subscription,
    /// Startup events of provisioners, our own among them.
    pub(crate) provisioners: Subscription,
    pub(crate) fleet: Option<Subscription>,
}

impl Subscriptions {
    pub(crate) async fn make(
        connector: &dyn Connector,
        config: &ProvisionerConfig,
        caller: &Caller,
    ) -> Result<Self, ConnectorError> {
        let component = &config.lifecycle_component;
        let replies = subjects::replies_of(subjects::PROVISIONING_COLLECTIVE, &caller.caller_id);
        let registrations = format!("{}.registration.>", subjects::PROVISIONING_COLLECTIVE);
        let fleet = if config.verify_restart == VerifyRestart::Off || component == lifecycle::SERVER {
            None
        } else {
            let subject = subjects::lifecycle("startup", lifecycle::SERVER);
            Some(connector.subscribe(&subject, None, INCOMING).await?)
        };
        let nodes = [
            Wanted::new(subjects::lifecycle("startup", component)),
            Wanted::new(subjects::lifecycle("shutdown", component)),
            Wanted::new(registrations),
            // Brokers that do not tell it to us are fine: then nobody is heard there.
            Wanted::new(advisory::SUBJECT),
        ];
        let subscriptions = Self {
            replies: connector.subscribe(&replies, None, INCOMING).await?,
            nodes: connector.subscribe_all(&nodes, INCOMING).await?,
            provisioners: connector
                .subscribe(&subjects::lifecycle("startup", lifecycle::PROVISIONER), None, 100)
                .await?,
            fleet,
        };
        // Only tells us earlier; a broker that does not answer is noticed by the connection itself.
        match timeout(CONFIRM, connector.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("could not confirm the subscriptions: {error}"),
            Err(_) => tracing::warn!("the broker did not confirm the subscriptions within {}s", CONFIRM.as_secs()),
        }
        Ok(subscriptions)
    }
}

/// The next message of a subscription that may not exist; then never.
pub(crate) async fn next_of(subscription: &mut Option<Subscription>) -> Option<Message> {
    match subscription {
        Some(subscription) => {
            let message = subscription.next().await;
            if message.is_none() {
                // The others tell that the connection is gone.
                std::future::pending::<()>().await;
            }
            message
        }
        None => std::future::pending().await,
    }
}
