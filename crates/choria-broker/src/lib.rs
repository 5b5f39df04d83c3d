//! The Choria broker: authentication policy, accounts, statistics over the embeddable NATS broker.
