//! Lifecycle events of this server (spec 03 §5). Each one is made fresh, with its own id and time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use choria_connector::Connector;
use choria_protocol::ids;
use choria_protocol::lifecycle::{Event, Kind};
use rand::Rng;

use crate::clock::Clock;
use crate::counters::Counters;
use crate::observer::Observer;

/// Time between two alive events.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// How long after the start the first alive event comes: a whole number of minutes, 0 to 29.
pub fn first_alive(rng: &mut impl Rng) -> Duration {
    Duration::from_secs(60 * rng.random_range(0..30))
}

/// Publishes events under this server's name.
#[derive(Clone)]
pub struct Events {
    connector: Arc<dyn Connector>,
    counters: Arc<Counters>,
    clock: Clock,
    identity: String,
    component: String,
    /// Only the inner object, as before CloudEvents.
    legacy: bool,
    observer: Arc<dyn Observer>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("identity", &self.identity)
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// A publisher. `legacy` is `plugin.choria.legacy_lifecycle_format`; `observer` is told of
    /// each event.
    pub fn new(
        connector: Arc<dyn Connector>,
        counters: Arc<Counters>,
        clock: Clock,
        identity: String,
        component: String,
        legacy: bool,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self { connector, counters, clock, identity, component, legacy, observer }
    }

    /// Makes and publishes one event. A failure is logged: events never stop a server.
    pub async fn publish(&self, kind: Kind) {
        let event = Event {
            kind,
            id: ids::event_id(),
            identity: self.identity.clone(),
            component: self.component.clone(),
            timestamp: self.clock.now(),
        };
        let text = if self.legacy { event.to_plain() } else { event.to_cloud_event() };
        Counters::count(&self.counters.events);
        if let Err(error) = self.connector.publish(&event.subject(), Bytes::from(text)).await {
            tracing::warn!("the {} event was not published: {error}", event.kind.name());
        }
        self.observer.event(&event.kind);
    }
}
