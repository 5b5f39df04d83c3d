//! What really happened in histories: without it nobody could tell a thorough run from an empty one.

/// Defines the counters once: field, name in the summary, what it counts.
macro_rules! stats {
    ($($field:ident: $text:literal,)*) => {
        /// Counts of one history or of many.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Stats {
            $(#[doc = $text] pub $field: u64,)*
        }

        impl Stats {
            /// Every counter with its name and what it counts.
            pub fn rows(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($field), $text, self.$field),)*]
            }

            /// Adds another history's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

stats! {
    events: "events of the simulated world",
    simulated_seconds: "simulated time in seconds",
    effects: "things that provisioners wanted done",
    disk_operations: "disk operations of nodes",
    replies: "replies of nodes",
    messages: "messages that were published",
    delivered: "messages that arrived",
    lost: "messages lost by the network",
    duplicated: "messages delivered twice",
    delayed: "messages delayed by seconds, behind later ones",
    lost_with_connection: "messages in flight when a connection or process ended",
    partitions: "machines or provisioners cut off for a while",
    broker_restarts: "broker restarts",
    provisioner_kills: "provisioners killed at a random moment",
    provisioner_kills_between_effects: "provisioners killed between two effects of one step",
    provisioner_drains: "provisioners stopped with a drain and started again",
    provisioner_pauses: "provisioners paused for a while",
    provisioner_stalls: "provisioners that stood still for seconds",
    provisioner_reloads: "provisioners that read their configuration again",
    node_kills: "nodes killed at a random moment",
    node_kills_at_request: "nodes killed between a request and its reply",
    node_kills_in_disk_operation: "nodes killed between two disk operations",
    torn_writes: "writes cut in the middle",
    node_kills_in_recovery: "nodes killed while they recovered",
    power_cuts: "power cuts",
    power_cuts_with_losses: "power cuts that lost something",
    disk_failures: "disk operations made to fail, or disks full",
    recovered_old: "configurations taken back at the next start",
    recovered_new: "configurations finished at the next start",
    clock_jumps_forward: "wall clocks set forward",
    clock_jumps_backward: "wall clocks set back",
    tokens_expired: "connections ended because their token expired",
    connections_refused: "connections refused by the broker",
    names_taken_over: "names whose dead holder was replaced",
    ca_swaps: "authorities replaced",
    helper_calls: "helper calls",
    helper_slow: "helpers that took seconds",
    helper_failures: "helpers that failed, crashed or timed out",
    helper_garbage: "helpers that printed garbage",
    helper_deferrals: "helpers that deferred",
    helper_shutdowns: "helpers that shut a node down",
    helper_unusable: "helpers whose answer could not be used on the node",
    forged_events: "forged lifecycle events and registrations that reached a provisioner",
    forged_refused_by_broker: "forged messages refused by the broker",
    forged_discoveries: "forged answers to discovery",
    forged_replies: "forged replies on subjects that were guessed or belong to others",
    hostile_answers: "bad answers of hostile nodes to their own requests",
    megabyte_messages: "messages of nearly a megabyte",
    late_or_second_replies: "replies that came late or twice",
    reprovisioned: "members sent back into provisioning",
    configures: "configurations put into force",
    configures_refused: "configurations refused by the node",
    provisioned: "nodes that a provisioner saw through",
    joined: "nodes that became members",
}

impl Stats {
    /// Names of counters that are zero: what a run of many histories should have met and did not.
    pub fn missing(&self) -> Vec<&'static str> {
        self.rows().into_iter().filter(|(_, _, count)| *count == 0).map(|(name, ..)| name).collect()
    }
}
