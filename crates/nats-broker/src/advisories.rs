//! What the broker tells of connections that come and go: `$SYS.ACCOUNT.<account>.CONNECT` and `…DISCONNECT`, and of refused logins
//! `$SYS.SERVER.<id>.CLIENT.AUTH.ERR`, in the system account, in the words of nats-server (spec 07 §8, §9). Another account hears
//! them when it imports them.
//!
//! They cost nothing while nobody listens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use nats_proto::Connect;
use serde::Serialize;

use crate::auth::Grant;
use crate::conn::Conn;
use crate::monitor::rfc3339;
use crate::shared::Shared;
use crate::sys::ServerObject;
use crate::sys::events::{connections_changed, event_id};
use crate::totals::Traffic;

/// Messages and bytes of one direction.
#[derive(Debug, Serialize)]
struct Data {
    msgs: u64,
    bytes: u64,
}

/// Whose connection it is.
#[derive(Debug, Serialize)]
struct Client<'a> {
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    id: u64,
    acc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    lang: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ver: &'a str,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<String>,
    name_tag: &'a str,
    kind: &'static str,
    client_type: &'static str,
}

/// An advisory. Key order is that of nats-server.
#[derive(Debug, Serialize)]
struct Advisory<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    timestamp: String,
    server: ServerObject,
    client: Client<'a>,
    #[serde(flatten)]
    ended: Option<Ended<'a>>,
}

/// What is told of a connection that ended, seen from its client.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    sent: Data,
    received: Data,
    reason: &'a str,
}

const CONNECT: &str = "io.nats.server.advisory.v1.client_connect";
const DISCONNECT: &str = "io.nats.server.advisory.v1.client_disconnect";
/// Where nats-server puts connections that have not logged in.
const NOWHERE: &str = "$G";

/// A connection was accepted into an account.
pub(crate) fn connected(shared: &Shared, conn: &Conn, account: u32, grant: &Grant) {
    connections_changed(shared, account);
    let account = Arc::clone(&shared.live().accounts[account as usize].name);
    let subject = format!("$SYS.ACCOUNT.{account}.CONNECT");
    tell(shared, conn, &subject, &account, grant.user.as_deref(), None);
}

/// An accepted connection ended. Its place in the account must have been given back.
pub(crate) fn disconnected(shared: &Shared, conn: &Conn, account: u32, grant: &Grant, reason: &str) {
    connections_changed(shared, account);
    let account = Arc::clone(&shared.live().accounts[account as usize].name);
    let subject = format!("$SYS.ACCOUNT.{account}.DISCONNECT");
    tell(shared, conn, &subject, &account, grant.user.as_deref(), Some(reason));
}

/// Keeps what a refused CONNECT said, for [`refused`] and for the list of ended connections.
pub(crate) fn note_refused(conn: &Conn, connect: &Connect) {
    let mut rare = conn.rare.lock();
    let about = rare.about.get_or_insert_default();
    about.name = connect.name.as_str().into();
    about.lang = connect.lang.as_str().into();
    about.version = connect.version.as_str().into();
    about.refused_user = connect.user.as_str().into();
}

/// A connection that was refused ended.
pub(crate) fn refused(shared: &Shared, conn: &Conn, reason: &str) {
    let user = conn.rare.lock().about.as_ref().map(|about| about.refused_user.to_string());
    let user = user.as_deref().filter(|user| !user.is_empty());
    for subject in
        [format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", shared.server_id), format!("$SYS.ACCOUNT.{NOWHERE}.DISCONNECT")]
    {
        tell(shared, conn, &subject, NOWHERE, user, Some(reason));
    }
}

/// Tells of a connection in the system account; of its end, when there is a reason.
fn tell(shared: &Shared, conn: &Conn, subject: &str, account: &str, user: Option<&str>, reason: Option<&str>) {
    let Some(system) = shared.live().system_account() else { return };
    if !shared.is_heard(system, subject) {
        return;
    }
    let now = SystemTime::now();
    let about = conn.rare.lock().about.as_deref().cloned().unwrap_or_default();
    let rtt = conn.rtt_us.load(Ordering::Relaxed);
    let advisory = Advisory {
        kind: if reason.is_some() { DISCONNECT } else { CONNECT },
        id: event_id(),
        timestamp: rfc3339(now),
        server: shared.server_object(now),
        client: Client {
            start: rfc3339(conn.started),
            host: conn.remote.map(|remote| remote.ip().to_string()),
            id: conn.cid,
            acc: account,
            user,
            name: &about.name,
            lang: &about.lang,
            ver: &about.version,
            rtt: (rtt > 0).then_some(rtt * 1000),
            stop: reason.map(|_| rfc3339(now)),
            name_tag: account,
            kind: "Client",
            client_type: conn.client_type(),
        },
        ended: reason.map(|reason| ended(conn, reason)),
    };
    let content = serde_json::to_vec(&advisory).expect("texts and integers serialise");
    shared.tell(system, subject, &content);
}

fn ended<'a>(conn: &Conn, reason: &'a str) -> Ended<'a> {
    let traffic = Traffic::of(conn);
    Ended {
        sent: Data { msgs: traffic.in_msgs, bytes: traffic.in_bytes },
        received: Data { msgs: traffic.out_msgs, bytes: traffic.out_bytes },
        reason,
    }
}
