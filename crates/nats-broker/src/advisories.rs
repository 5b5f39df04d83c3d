//! What the broker tells by itself: `$SYS.ACCOUNT.<account>.CONNECT` and `…DISCONNECT`, in the system account, in the words of
//! nats-server (spec 07 §9). Another account hears them when it imports them.
//!
//! They cost nothing while nobody listens.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use nats_proto::encode;
use rand::Rng;
use rand::distr::Alphanumeric;
use serde::Serialize;
use serde_json::Value;
use smallvec::SmallVec;

use crate::auth::Grant;
use crate::conn::Conn;
use crate::live::Live;
use crate::monitor::rfc3339;
use crate::route::{Message, Router, Run, Tick};
use crate::shared::Shared;

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
    server: Value,
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

/// A connection was accepted into an account.
pub(crate) fn connected(shared: &Shared, conn: &Conn, account: u32, grant: &Grant) {
    let kind = "io.nats.server.advisory.v1.client_connect";
    tell(shared, conn, account, grant, "CONNECT", kind, None);
}

/// An accepted connection ended.
pub(crate) fn disconnected(shared: &Shared, conn: &Conn, account: u32, grant: &Grant, reason: &str) {
    let kind = "io.nats.server.advisory.v1.client_disconnect";
    tell(shared, conn, account, grant, "DISCONNECT", kind, Some(reason));
}

fn tell(
    shared: &Shared,
    conn: &Conn,
    account: u32,
    grant: &Grant,
    word: &str,
    kind: &'static str,
    reason: Option<&str>,
) {
    let live = shared.live();
    let Some(system) = live.system_account() else { return };
    let account = &*live.accounts[account as usize].name;
    let subject = format!("$SYS.ACCOUNT.{account}.{word}");
    if !is_heard(&live, system, &subject) {
        return;
    }
    let now = SystemTime::now();
    let about = conn.rare.lock().about.as_deref().cloned().unwrap_or_default();
    let rtt = conn.rtt_us.load(Ordering::Relaxed);
    let advisory = Advisory {
        kind,
        id: rand::rng().sample_iter(Alphanumeric).take(22).map(char::from).collect(),
        timestamp: rfc3339(now),
        server: shared.server_object(now),
        client: Client {
            start: rfc3339(conn.started),
            host: conn.remote.map(|remote| remote.ip().to_string()),
            id: conn.cid,
            acc: account,
            user: grant.user.as_deref(),
            name: &about.name,
            lang: &about.lang,
            ver: &about.version,
            rtt: (rtt > 0).then_some(rtt * 1000),
            stop: reason.map(|_| rfc3339(now)),
            name_tag: account,
            kind: "Client",
            client_type: "nats",
        },
        ended: reason.map(|reason| ended(conn, reason)),
    };
    let content = serde_json::to_vec(&advisory).expect("texts and integers serialise");
    publish(shared, &live, system, &subject, &content);
}

fn ended<'a>(conn: &Conn, reason: &'a str) -> Ended<'a> {
    let (msgs, bytes) = (conn.in_messages.load(Ordering::Relaxed), conn.in_bytes.load(Ordering::Relaxed));
    let outbox = conn.outbox.lock();
    let received = Data { msgs: outbox.messages, bytes: outbox.bytes };
    drop(outbox);
    Ended { sent: Data { msgs, bytes }, received, reason }
}

/// Whether anybody listens to a subject of an account, there or in an account that imports it.
fn is_heard(live: &Live, account: u32, subject: &str) -> bool {
    let has_match = |account: u32, subject: &str| {
        let mut found = false;
        live.accounts[account as usize].state.index.read().for_each_match(subject, |_| found = true);
        found
    };
    let imported = |edge: &crate::account::StreamEdge| {
        edge.map.to_local(subject).is_some_and(|local| has_match(edge.to_account, &local))
    };
    has_match(account, subject) || live.accounts[account as usize].streams.iter().any(imported)
}

/// Publishes a word of the broker.
fn publish(shared: &Shared, live: &Live, account: u32, subject: &str, content: &[u8]) {
    let mut tail = Vec::with_capacity(content.len() + 16);
    encode::message_tail(&mut tail, None, None, content);
    let message = Message { reply: None, header_len: 0, content, tail: &tail };
    // A tick of its own: connections come and go while others are being served.
    let mut tick = Tick::new(rand::random());
    tick.now = shared.hub.timers.now();
    let run = Run { subject, messages: std::slice::from_ref(&message) };
    Router { shared, live, tick: &mut tick, source: None, echo: true }.route(account, &mut None, &run, 1);
    tick.finish(shared, &mut SmallVec::new());
}
