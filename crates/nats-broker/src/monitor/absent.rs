//! Pages about what this broker does not have: routes, gateways, leaf nodes, streams, internal queues. Clients and tools look
//! at them and go by what is on them.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::rfc3339;
use crate::shared::Shared;

pub(crate) fn routez(shared: &Shared) -> Value {
    json!({
        "server_id": shared.server_id,
        "server_name": shared.server_name,
        "now": rfc3339(SystemTime::now()),
        "num_routes": 0,
        "routes": [],
    })
}

pub(crate) fn gatewayz(shared: &Shared) -> Value {
    json!({
        "server_id": shared.server_id,
        "now": rfc3339(SystemTime::now()),
        "outbound_gateways": {},
        "inbound_gateways": {},
    })
}

pub(crate) fn leafz(shared: &Shared) -> Value {
    json!({ "server_id": shared.server_id, "now": rfc3339(SystemTime::now()), "leafnodes": 0, "leafs": [] })
}

/// As of a broker whose streams are switched off.
pub(crate) fn jsz(shared: &Shared) -> Value {
    json!({
        "memory": 0,
        "storage": 0,
        "reserved_memory": 0,
        "reserved_storage": 0,
        "accounts": 0,
        "ha_assets": 0,
        "api": { "level": 0, "total": 0, "errors": 0 },
        "server_id": shared.server_id,
        "now": rfc3339(SystemTime::now()),
        "disabled": true,
        "config": { "max_memory": 0, "max_storage": 0 },
        "streams": 0,
        "consumers": 0,
        "messages": 0,
        "bytes": 0,
        "total": 0,
    })
}

/// Variables of the process in the place of Go's. Of its memory only what is resident is known; arguments may be secrets.
pub(crate) fn expvarz() -> Value {
    let resident = super::process::resident_bytes();
    json!({
        "cmdline": std::env::args().take(1).collect::<Vec<_>>(),
        "memstats": { "Alloc": resident, "Sys": resident },
    })
}
