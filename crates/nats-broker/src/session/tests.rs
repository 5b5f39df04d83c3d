//! The engine without any socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use proptest::prelude::*;

use super::*;
use crate::OpenAuthenticator;
use crate::auth::Observer;
use crate::config::{AccountConfig, BrokerConfig};
use crate::conn::{Hub, Link};
use crate::live::Live;
use crate::outbox::Outbox;
use crate::timers::Timers;

struct Unobserved;

impl Observer for Unobserved {}

/// A broker without listeners.
fn shared() -> Arc<Shared> {
    let config = BrokerConfig::default();
    let hub = Hub {
        timers: Timers::new(),
        max_pending: AtomicUsize::new(config.max_pending),
        write_deadline_ms: AtomicU64::new(10_000),
        slow_consumers: AtomicU64::new(0),
        stale_connections: AtomicU64::new(0),
        stalled: AtomicU64::new(0),
        caught_up: tokio::sync::Notify::new(),
    };
    let open = Arc::new(OpenAuthenticator::default());
    let live = Live::new(config, &[AccountConfig::new("$G")], open, &[], None).unwrap();
    Arc::new(Shared::new(live, Arc::new(Unobserved), Arc::new(hub), crate::io::Engine::Runtime, "N1".to_owned()))
}

fn session(shared: &Arc<Shared>) -> Session {
    let conn = Conn::new(shared.next_cid(), None, Link::Detached, Arc::clone(&shared.hub), Outbox::default());
    let mut session = Session::new(Arc::clone(shared), Arc::new(conn), 0);
    let connect = Connect { verbose: false, pedantic: false, headers: true, no_responders: true, ..Connect::default() };
    assert!(session.may_go_on(b"PING"));
    session.accept_connect(&connect);
    session
}

/// Takes what waits for a connection.
fn output(conn: &Conn) -> Vec<u8> {
    let mut all = Vec::new();
    let mut outbox = conn.outbox.lock();
    outbox.blocked = false;
    while let Some(piece) = outbox.take_piece().unwrap() {
        all.extend_from_slice(&piece.bytes[piece.sent..]);
    }
    all
}

/// Feeds a stream in pieces, as the shell does, and gives what came out.
fn feed(session: &mut Session, pieces: &[&[u8]]) -> Vec<u8> {
    let mut tick = Tick::new(7);
    let mut pending = Vec::new();
    for piece in pieces {
        pending.extend_from_slice(piece);
        let fed = session.feed(&pending, &mut tick);
        pending.drain(..fed.consumed);
        tick.finish(&session.shared, &mut SmallVec::new());
        if matches!(fed.next, Next::Close) {
            break;
        }
    }
    output(&session.conn)
}

#[test]
fn a_message_reaches_its_subscriber() {
    let shared = shared();
    let mut subscriber = session(&shared);
    let mut publisher = session(&shared);
    assert_eq!(feed(&mut subscriber, &[b"SUB a.* 7\r\n"]), b"");
    assert_eq!(
        feed(&mut publisher, &[b"PUB a.b r 2\r\nhi\r\nPUB a.b 2\r\nho\r\nPUB x 0\r\n\r\nPING\r\n"]),
        b"PONG\r\n"
    );
    assert_eq!(output(&subscriber.conn), b"MSG a.b 7 r 2\r\nhi\r\nMSG a.b 7 2\r\nho\r\n");
}

#[test]
fn a_long_run_is_delivered_whole_and_in_order() {
    let shared = shared();
    let mut subscriber = session(&shared);
    let mut publisher = session(&shared);
    feed(&mut subscriber, &[b"SUB a 1\r\nUNSUB 1 150\r\n"]);
    let sent: String = (0..200).map(|number| format!("PUB a 3\r\n{number:03}\r\n")).collect();
    feed(&mut publisher, &[sent.as_bytes()]);
    let expected: String = (0..150).map(|number| format!("MSG a 1 3\r\n{number:03}\r\n")).collect();
    assert_eq!(String::from_utf8(output(&subscriber.conn)).unwrap(), expected);
    assert_eq!(shared.live().accounts[0].state.index.read().len(), 0, "an exhausted subscription is taken out");
}

#[test]
fn a_wide_fan_out_reaches_everybody_once() {
    let shared = shared();
    let mut subscribers: Vec<Session> = (0..100).map(|_| session(&shared)).collect();
    for subscriber in &mut subscribers {
        feed(subscriber, &[b"SUB all 1\r\nSUB all.* 2\r\nSUB all.x q 3\r\n"]);
    }
    let mut publisher = session(&shared);
    feed(&mut publisher, &[b"PUB all 1\r\na\r\nPUB all.x 1\r\nb\r\n"]);
    let mut queued = 0;
    for subscriber in &subscribers {
        let mut got = String::from_utf8(output(&subscriber.conn)).unwrap();
        if let Some(at) = got.find("MSG all.x 3 1\r\nb\r\n") {
            queued += 1;
            got.replace_range(at..at + 18, "");
        }
        assert_eq!(got, "MSG all 1 1\r\na\r\nMSG all.x 2 1\r\nb\r\n");
    }
    assert_eq!(queued, 1);
}

#[test]
fn ending_connections_leave_nothing_behind() {
    let shared = shared();
    let mut sessions: Vec<Session> = (0..50).map(|_| session(&shared)).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        let subs: String =
            (0..40).map(|sub| format!("SUB s.{sub}.{} {sub}\r\nSUB w.*.{sub} q{sub} w{sub}\r\n", number % 7)).collect();
        feed(session, &[subs.as_bytes()]);
    }
    assert_eq!(shared.live().accounts[0].state.index.read().len(), 50 * 80);
    for session in &sessions {
        shared.end_subscriptions(&session.conn);
    }
    assert_eq!(shared.live().accounts[0].state.index.read().len(), 0);
    assert!(!shared.live().accounts[0].state.index.read().has_entries());
}

fn operation() -> impl Strategy<Value = String> {
    let subject = || "(a|b|a[.]b|a[.]c|b[.]c)";
    let filter = "(a|b|a[.]b|a[.][*]|[*]|>|a[.]>|[*][.]c)";
    prop_oneof![
        (subject(), proptest::option::of("(in|a)"), "[x-z]{0,5}").prop_map(|(subject, reply, payload)| {
            let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
            format!("PUB {subject} {reply}{}\r\n{payload}\r\n", payload.len())
        }),
        (filter, "[1-5]").prop_map(|(filter, sid)| format!("SUB {filter} {sid}\r\n")),
        ("[1-5]", proptest::option::of(1..4_u8)).prop_map(|(sid, max)| {
            let max = max.map(|max| format!(" {max}")).unwrap_or_default();
            format!("UNSUB {sid}{max}\r\n")
        }),
        Just("PING\r\n".to_owned()),
        Just("SUB in 9\r\n".to_owned()),
        subject().prop_map(|subject| format!("HPUB {subject} 12 14\r\nNATS/1.0\r\n\r\nhi\r\n")),
    ]
}

/// Lines and messages of a stream in a fixed order: several messages for one publish may come in any.
fn units(mut stream: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(Some((_, length))) = nats_proto::server_op::parse(stream, 1 << 20) {
        all.push(String::from_utf8_lossy(&stream[..length]).into_owned());
        stream = &stream[length..];
    }
    assert!(stream.is_empty(), "{stream:?}");
    all.sort();
    all
}

proptest! {
    /// Runs of one subject are a shortcut only: single operations give the same deliveries.
    #[test]
    fn pieces_of_any_size_give_the_same_deliveries(
        operations in proptest::collection::vec(operation(), 1..40),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let stream = operations.concat().into_bytes();
        let whole = units(&feed(&mut session(&shared()), &[&stream]));
        let single: Vec<&[u8]> = operations.iter().map(String::as_bytes).collect();
        prop_assert_eq!(&units(&feed(&mut session(&shared()), &single)), &whole);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        prop_assert_eq!(units(&feed(&mut session(&shared()), &pieces)), whole);
    }

    #[test]
    fn no_bytes_make_the_engine_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        feed(&mut session(&shared()), &[&bytes]);
    }
}

#[test]
fn requests_of_other_accounts_leave_room_for_those_of_the_system_account() {
    let shared = shared();
    let mut session = session(&shared);
    let ask = format!("SUB in 1\r\n{}", "PUB $SYS.REQ.SERVER.PING.CONNZ in 0\r\n\r\n".repeat(300));
    let out = String::from_utf8(feed(&mut session, &[ask.as_bytes()])).unwrap();
    // Nobody works the queue off here.
    assert_eq!(out.matches("NATS/1.0 503").count(), 300 - 128);
}
