//! The broker (spec 02 §2), its later parts, and what runs beside it.

use std::path::PathBuf;
use std::time::Duration;

use crate::key::{Kind, Spec};
use crate::keys::settings;

const PORT: Kind = Kind::Integer { min: 0, max: 65_535 };
const UP_TO_A_MINUTE: Kind = Kind::Duration { min_ms: 1, max_ms: 60_000 };
const RETENTION: Kind = Kind::Duration { min_ms: 0, max_ms: 9_223_372_036_854 };
const REPLICAS: Kind = Kind::Integer { min: -1, max: 5 };

settings! {
    BROKER_GROUP, "Broker", "Read by `choria broker run`.";
    keys {
        /// Run the network broker.
        BROKER_NETWORK: bool = Spec::new("plugin.choria.broker_network", Kind::Boolean).default("0");
        /// Address that every listener binds; `::` is every address, IPv4 included.
        NETWORK_LISTEN_ADDRESS: String = Spec::new("plugin.choria.network.listen_address", Kind::Text).default("::");
        /// Port for clients; -1 is a free port chosen at start.
        NETWORK_CLIENT_PORT: i64 = Spec::new("plugin.choria.network.client_port", Kind::Integer { min: -1, max: 65_535 })
            .default("4222")
            .zero_is_default();
        /// Address told to clients, `host:port` or `host`.
        NETWORK_PUBLIC_URL: Option<String> = Spec::new("plugin.choria.network.public_url", Kind::Address)
            .computed("`identity` and the client port");
        /// How long one write to a slow client may take before the client is closed.
        NETWORK_WRITE_DEADLINE: Duration = Spec::new("plugin.choria.network.write_deadline", Kind::Duration { min_ms: 1, max_ms: 86_400_000 })
            .default("10s")
            .zero_is_default();
        /// How long a TLS handshake may take.
        NETWORK_TLS_TIMEOUT: Duration = Spec::new("plugin.choria.network.tls_timeout", UP_TO_A_MINUTE).default("2s").zero_is_default();
        /// How long a connection may take to say who it is.
        NETWORK_AUTH_TIMEOUT: Duration = Spec::new("plugin.choria.network.auth_timeout", UP_TO_A_MINUTE).default("2s").zero_is_default();
        /// How long the broker may take to stop before it is ended.
        NETWORK_SOFT_SHUTDOWN_TIMEOUT: Duration = Spec::new("plugin.choria.network.soft_shutdown_timeout", Kind::Seconds { min: 0, max: 3_600 }).default("60");
        /// Addresses and networks that may act as clients; unset allows all.
        NETWORK_CLIENT_HOSTS: Vec<String> = Spec::new("plugin.choria.network.client_hosts", Kind::Networks).default("");
        /// Use TLS for clients even when the build or the command line turned it off.
        NETWORK_CLIENT_TLS_FORCE_REQUIRED: bool = Spec::new("plugin.choria.network.client_tls_force_required", Kind::Boolean).default("0");
        /// Let servers connect but neither publish nor subscribe.
        NETWORK_DENY_SERVER_CONNECTIONS: bool = Spec::new("plugin.choria.network.deny_server_connections", Kind::Boolean).default("0");
        /// Password of user `provisioner`; setting it creates the provisioning account.
        NETWORK_PROVISIONING_CLIENT_PASSWORD: Option<String> = Spec::new("plugin.choria.network.provisioning.client_password", Kind::Text).secret();
        /// Public key or certificate that provisioning tokens must be signed with.
        NETWORK_PROVISIONING_SIGNER_CERT: Option<PathBuf> = Spec::new("plugin.choria.network.provisioning.signer_cert", Kind::Path);
        /// Let a provisioner in by password alone on a network with organisation issuers.
        NETWORK_PROVISIONING_PROVISIONER_WITHOUT_TOKEN: bool = Spec::new("plugin.choria.network.provisioning.provisioner_without_token", Kind::Boolean).default("0").planned();
        /// Compatibility: let nodes without a usable connection name into the provisioning account, with rights for every node's subjects, as the original does. A warning at start says what that costs.
        NETWORK_PROVISIONING_ALLOW_UNBOUND_NODES: bool = Spec::new("plugin.choria.network.provisioning.allow_unbound_nodes", Kind::Boolean).default("0").own();
        /// User of the system account.
        NETWORK_SYSTEM_USER: Option<String> = Spec::new("plugin.choria.network.system.user", Kind::Text);
        /// Password of the system account.
        NETWORK_SYSTEM_PASSWORD: Option<String> = Spec::new("plugin.choria.network.system.password", Kind::Text).secret();
        /// Certificates or keys that sign tokens of clients.
        NETWORK_CLIENT_SIGNER_CERT: Vec<String> = Spec::new("plugin.choria.network.client_signer_cert", Kind::List).default("").refused();
        /// Certificates or keys that sign tokens of servers.
        NETWORK_SERVER_SIGNER_CERT: Vec<String> = Spec::new("plugin.choria.network.server_signer_cert", Kind::List).default("").refused();
        /// Address of the HTTP statistics.
        STATS_ADDRESS: String = Spec::new("plugin.choria.stats_address", Kind::Text).default("127.0.0.1");
        /// Port of the HTTP statistics; 0 turns them off.
        STATS_PORT: u16 = Spec::new("plugin.choria.stats_port", PORT).default("0");
        /// Port of the websocket listener; 0 turns it off.
        NETWORK_WEBSOCKET_PORT: u16 = Spec::new("plugin.choria.network.websocket_port", PORT).default("0");
        /// `host:port` told to websocket clients in place of the address that is listened on.
        NETWORK_WEBSOCKET_ADVERTISE: Option<String> = Spec::new("plugin.choria.network.websocket_advertise", Kind::Text);
        /// Port of the profiler.
        NETWORK_PPROF_PORT: u16 = Spec::new("plugin.choria.network.pprof_port", PORT).default("0").planned();
        /// Subject mappings in account `choria`.
        NETWORK_MAPPING_NAMES: Vec<String> = Spec::new("plugin.choria.network.mapping.names", Kind::List).default("");
    }
    families {
        /// Subject that a mapping starts from.
        NETWORK_MAPPING_SOURCE: Option<String> = Spec::new("plugin.choria.network.mapping.NAME.source", Kind::Text);
        /// Subject that a mapping leads to.
        NETWORK_MAPPING_DESTINATION: Option<String> = Spec::new("plugin.choria.network.mapping.NAME.destination", Kind::Text);
    }
}

settings! {
    STREAMS_GROUP, "Streams", "Durable streams on the broker.";
    keys {
        /// Directory of the streams; setting it turns them on.
        NETWORK_STREAM_STORE: Option<PathBuf> = Spec::new("plugin.choria.network.stream.store", Kind::Path).refused();
        /// Create and update the system streams.
        NETWORK_STREAM_MANAGE_STREAMS: bool = Spec::new("plugin.choria.network.stream.manage_streams", Kind::Boolean).default("1").planned();
        /// How long lifecycle events are kept.
        NETWORK_STREAM_EVENT_RETENTION: Duration = Spec::new("plugin.choria.network.stream.event_retention", RETENTION).default("24h").planned();
        /// How long events of autonomous agents are kept.
        NETWORK_STREAM_MACHINE_RETENTION: Duration = Spec::new("plugin.choria.network.stream.machine_retention", RETENTION).default("24h").planned();
        /// How long executor events are kept.
        NETWORK_STREAM_EXECUTOR_RETENTION: Duration = Spec::new("plugin.choria.network.stream.executor_retention", RETENTION).default("24h").planned();
        /// How long advisories are kept.
        NETWORK_STREAM_ADVISORY_RETENTION: Duration = Spec::new("plugin.choria.network.stream.advisory_retention", RETENTION).default("168h").planned();
        /// How long a leader may be silent before another takes over.
        NETWORK_STREAM_LEADER_ELECTION_TTL: Duration = Spec::new("plugin.choria.network.stream.leader_election_ttl", Kind::Duration { min_ms: 1_000, max_ms: 86_400_000 }).default("1m").planned();
        /// Copies of the event stream; -1 is one per broker.
        NETWORK_STREAM_EVENT_REPLICAS: i64 = Spec::new("plugin.choria.network.stream.event_replicas", REPLICAS).default("-1").planned();
        /// Copies of the machine stream; -1 is one per broker.
        NETWORK_STREAM_MACHINE_REPLICAS: i64 = Spec::new("plugin.choria.network.stream.machine_replicas", REPLICAS).default("-1").planned();
        /// Copies of the executor stream; -1 is one per broker.
        NETWORK_STREAM_EXECUTOR_REPLICAS: i64 = Spec::new("plugin.choria.network.stream.executor_replicas", REPLICAS).default("-1").planned();
        /// Copies of the advisory stream; -1 is one per broker.
        NETWORK_STREAM_ADVISORY_REPLICAS: i64 = Spec::new("plugin.choria.network.stream.advisory_replicas", REPLICAS).default("-1").planned();
        /// Copies of the election bucket; -1 is one per broker.
        NETWORK_STREAM_LEADER_ELECTION_REPLICAS: i64 = Spec::new("plugin.choria.network.stream.leader_election_replicas", REPLICAS).default("-1").planned();
    }
    families {}
}

settings! {
    CLUSTER_GROUP, "Clusters, gateways and leafnodes", "Several brokers as one. The embedded broker is a single one: it refuses to start with peers set.";
    keys {
        /// All brokers of the cluster.
        NETWORK_PEERS: Vec<String> = Spec::new("plugin.choria.network.peers", Kind::Hosts).default("").refused();
        /// Port for other brokers; 0 is 5222 once there are peers.
        NETWORK_PEER_PORT: u16 = Spec::new("plugin.choria.network.peer_port", PORT).default("0").refused();
        /// User that brokers show each other.
        NETWORK_PEER_USER: Option<String> = Spec::new("plugin.choria.network.peer_user", Kind::Text).planned();
        /// Password that brokers show each other.
        NETWORK_PEER_PASSWORD: Option<String> = Spec::new("plugin.choria.network.peer_password", Kind::Text).secret().planned();
        /// Port for other clusters; 0 turns gateways off.
        NETWORK_GATEWAY_PORT: u16 = Spec::new("plugin.choria.network.gateway_port", PORT).default("0").refused();
        /// Name of this cluster.
        NETWORK_GATEWAY_NAME: String = Spec::new("plugin.choria.network.gateway_name", Kind::Text).default("CHORIA");
        /// Other clusters.
        NETWORK_GATEWAY_REMOTES: Vec<String> = Spec::new("plugin.choria.network.gateway_remotes", Kind::List).default("").refused();
        /// Port for leafnodes; 0 turns them off.
        NETWORK_LEAFNODE_PORT: u16 = Spec::new("plugin.choria.network.leafnode_port", PORT).default("0").refused();
        /// Brokers that this one joins as a leafnode.
        NETWORK_LEAFNODE_REMOTES: Vec<String> = Spec::new("plugin.choria.network.leafnode_remotes", Kind::List).default("").refused();
    }
    families {
        /// Addresses of another cluster.
        NETWORK_GATEWAY_REMOTE_URLS: Vec<String> = Spec::new("plugin.choria.network.gateway_remote.NAME.urls", Kind::Hosts).default("").planned();
        /// TLS certificate for that cluster.
        NETWORK_GATEWAY_REMOTE_TLS_CERT: Option<PathBuf> = Spec::new("plugin.choria.network.gateway_remote.NAME.tls.cert", Kind::Path).planned();
        /// TLS key for that cluster.
        NETWORK_GATEWAY_REMOTE_TLS_KEY: Option<PathBuf> = Spec::new("plugin.choria.network.gateway_remote.NAME.tls.key", Kind::Path).planned();
        /// TLS authorities for that cluster.
        NETWORK_GATEWAY_REMOTE_TLS_CA: Option<PathBuf> = Spec::new("plugin.choria.network.gateway_remote.NAME.tls.ca", Kind::Path).planned();
        /// Verify that cluster.
        NETWORK_GATEWAY_REMOTE_TLS_VERIFY: bool = Spec::new("plugin.choria.network.gateway_remote.NAME.tls.verify", Kind::Boolean).default("1").planned();
        /// Speak to that cluster without TLS.
        NETWORK_GATEWAY_REMOTE_TLS_DISABLE: bool = Spec::new("plugin.choria.network.gateway_remote.NAME.tls.disable", Kind::Boolean).default("0").planned();
        /// Addresses of the leafnode's broker.
        NETWORK_LEAFNODE_REMOTE_URL: Vec<String> = Spec::new("plugin.choria.network.leafnode_remote.NAME.url", Kind::Hosts).default("").planned();
        /// Local account of the leafnode.
        NETWORK_LEAFNODE_REMOTE_ACCOUNT: String = Spec::new("plugin.choria.network.leafnode_remote.NAME.account", Kind::Text).default("choria").planned();
        /// NATS credentials file of the leafnode.
        NETWORK_LEAFNODE_REMOTE_CREDENTIALS: Option<PathBuf> = Spec::new("plugin.choria.network.leafnode_remote.NAME.credentials", Kind::Path).planned();
        /// TLS certificate for the leafnode's broker.
        NETWORK_LEAFNODE_REMOTE_TLS_CERT: Option<PathBuf> = Spec::new("plugin.choria.network.leafnode_remote.NAME.tls.cert", Kind::Path).planned();
        /// TLS key for the leafnode's broker.
        NETWORK_LEAFNODE_REMOTE_TLS_KEY: Option<PathBuf> = Spec::new("plugin.choria.network.leafnode_remote.NAME.tls.key", Kind::Path).planned();
        /// TLS authorities for the leafnode's broker.
        NETWORK_LEAFNODE_REMOTE_TLS_CA: Option<PathBuf> = Spec::new("plugin.choria.network.leafnode_remote.NAME.tls.ca", Kind::Path).planned();
        /// Verify the leafnode's broker.
        NETWORK_LEAFNODE_REMOTE_TLS_VERIFY: bool = Spec::new("plugin.choria.network.leafnode_remote.NAME.tls.verify", Kind::Boolean).default("1").planned();
        /// Speak to the leafnode's broker without TLS.
        NETWORK_LEAFNODE_REMOTE_TLS_DISABLE: bool = Spec::new("plugin.choria.network.leafnode_remote.NAME.tls.disable", Kind::Boolean).default("0").planned();
    }
}

settings! {
    FEDERATION_GROUP, "Federation broker and adapters", "What can run beside the broker or in its place.";
    keys {
        /// Run a federation broker.
        BROKER_FEDERATION: bool = Spec::new("plugin.choria.broker_federation", Kind::Boolean).default("0").refused();
        /// Name of the federation cluster it serves.
        FEDERATION_CLUSTER: String = Spec::new("plugin.choria.federation.cluster", Kind::Text)
            .default("mcollective")
            .alias("plugin.choria.broker_federation_cluster")
            .planned();
        /// Names of the adapters to run.
        ADAPTERS: Vec<String> = Spec::new("plugin.choria.adapters", Kind::List).default("").refused();
    }
    families {
        /// Kind of adapter.
        ADAPTER_TYPE: Option<String> = Spec::new("plugin.choria.adapter.NAME.type", Kind::Choice(&["choria_streams", "jetstream", "nats_stream"])).planned();
        /// Messages that wait inside the adapter.
        ADAPTER_QUEUE_LEN: i64 = Spec::new("plugin.choria.adapter.NAME.queue_len", Kind::Integer { min: 0, max: 1_000_000 }).default("1000").planned();
        /// Subject it reads.
        ADAPTER_INGEST_TOPIC: Option<String> = Spec::new("plugin.choria.adapter.NAME.ingest.topic", Kind::Text).planned();
        /// What it reads: `request` or `reply`.
        ADAPTER_INGEST_PROTOCOL: String = Spec::new("plugin.choria.adapter.NAME.ingest.protocol", Kind::Choice(&["reply", "request"])).default("reply").planned();
        /// Connections that read.
        ADAPTER_INGEST_WORKERS: i64 = Spec::new("plugin.choria.adapter.NAME.ingest.workers", Kind::Integer { min: 1, max: 1_000 }).default("10").planned();
        /// Brokers it writes to.
        ADAPTER_STREAM_SERVERS: Vec<String> = Spec::new("plugin.choria.adapter.NAME.stream.servers", Kind::Hosts).default("").planned();
        /// Subject it writes to; `%s` is the sender.
        ADAPTER_STREAM_TOPIC: Option<String> = Spec::new("plugin.choria.adapter.NAME.stream.topic", Kind::Text).computed("the adapter's name").planned();
        /// Connections that write.
        ADAPTER_STREAM_WORKERS: i64 = Spec::new("plugin.choria.adapter.NAME.stream.workers", Kind::Integer { min: 1, max: 1_000 }).default("10").planned();
        /// Cluster id of the NATS Streaming Server, which no longer exists.
        ADAPTER_STREAM_CLUSTERID: Option<String> = Spec::new("plugin.choria.adapter.NAME.stream.clusterid", Kind::Text)
            .legacy("the NATS Streaming Server it named no longer exists");
    }
}
