use choria_protocol::rpc::ReplyBody;
use choria_protocol::v1::{Headers, Reply, ReplyEnvelope};
use serde_json::json;

use super::*;

const CALLER: &str = "choria=provisioner.choria";
const ID: &str = "e6910c5ac6f148f392acd9bcf98ff18a";

fn reply(sender: &str, request_id: &str, agent: &str) -> Vec<u8> {
    let body = ReplyBody { action: "jwt".into(), statuscode: 0, statusmsg: "OK".into(), data: json!({"jwt": "x"}) };
    encode(sender, request_id, agent, body.to_text())
}

fn encode(sender: &str, request_id: &str, agent: &str, message: String) -> Vec<u8> {
    let envelope =
        ReplyEnvelope { request_id: request_id.into(), sender_id: sender.into(), agent: agent.into(), time: 1 };
    let headers = Headers { mc_sender: Some(sender.to_owned()), ..Headers::default() };
    v1::encode_reply(&Reply { message, envelope }, &headers)
}

fn expect(node: &str) -> Expectation {
    Expectation { flow: 1, call: 2, identity: Arc::from(node), agent: "choria_provision", request_id: Arc::from(ID) }
}

fn reason(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Reply { body: Ok(_), .. } => "ok",
        Verdict::Reply { body: Err(_), .. } => "undecodable",
        Verdict::Discovered { .. } => "discovered",
        Verdict::Refused { reason, .. } => reason,
    }
}

#[test]
fn subjects_are_below_the_callers_prefix_and_hold_128_bits() {
    let mut inbox = Inbox::new(CALLER);
    assert_eq!(inbox.subscription(), "provisioning.reply.662918bbfa929745e3742f3c2ca949f7.>");
    let subject = inbox.open(expect("n1"), 0xab);
    assert_eq!(subject, "provisioning.reply.662918bbfa929745e3742f3c2ca949f7.000000000000000000000000000000ab");
}

#[test]
fn design6_replies_count_only_on_their_subject_with_every_name_right() {
    let now = Instant::now();
    for (sender, request_id, agent, expected) in [
        ("n1", ID, "choria_provision", "ok"),
        ("n2", ID, "choria_provision", "reply_sender"),
        ("N1", ID, "choria_provision", "reply_sender"),
        ("n1", "00000000000000000000000000000000", "choria_provision", "reply_request_id"),
        ("n1", ID, "rpcutil", "reply_agent"),
    ] {
        let mut inbox = Inbox::new(CALLER);
        let subject = inbox.open(expect("n1"), 7);
        let verdict = inbox.accept(&subject, &reply(sender, request_id, agent), now);
        assert_eq!(reason(&verdict), expected, "{sender} {request_id} {agent}");
        if expected != "ok" {
            let good = inbox.accept(&subject, &reply("n1", ID, "choria_provision"), now);
            assert_eq!(reason(&good), "ok", "a forged reply does not close the subject");
        }
    }
}

#[test]
fn design6_a_good_reply_on_another_nodes_subject_does_not_count() {
    let (mut inbox, now) = (Inbox::new(CALLER), Instant::now());
    let mine = inbox.open(expect("n1"), 1);
    let other = inbox.open(expect("n2"), 2);
    assert_eq!(reason(&inbox.accept(&other, &reply("n1", ID, "choria_provision"), now)), "reply_sender");
    for subject in
        ["provisioning.reply.662918bbfa929745e3742f3c2ca949f7.00000000000000000000000000000003", "x", &mine[..60]]
    {
        assert_eq!(reason(&inbox.accept(subject, &reply("n1", ID, "choria_provision"), now)), "reply_subject");
    }
    assert_eq!(reason(&inbox.accept(&mine, &reply("n1", ID, "choria_provision"), now)), "ok");
}

#[test]
fn undecodable_layers_and_bodies_are_told_to_the_flow_at_once() {
    let now = Instant::now();
    let mut broken_hash = reply("n1", ID, "choria_provision");
    let at = broken_hash.len() / 2;
    broken_hash[at] ^= 1;
    for payload in [
        b"hello".to_vec(),
        b"{}".to_vec(),
        Vec::new(),
        broken_hash,
        encode("n1", ID, "choria_provision", "pong".into()),
        encode("n1", ID, "choria_provision", r#"{"statuscode":"0"}"#.into()),
        encode("n1", ID, "choria_provision", r#"{"statuscode":-1,"statusmsg":"OK","data":{}}"#.into()),
    ] {
        let mut inbox = Inbox::new(CALLER);
        let subject = inbox.open(expect("n1"), 7);
        assert_eq!(reason(&inbox.accept(&subject, &payload, now)), "undecodable");
    }
}

#[test]
fn design6_a_second_answer_is_noticed_and_named() {
    let (mut inbox, now) = (Inbox::new(CALLER), Instant::now());
    let subject = inbox.open(expect("n1"), 7);
    let payload = reply("n1", ID, "choria_provision");
    assert_eq!(reason(&inbox.accept(&subject, &payload, now)), "ok");
    match inbox.accept(&subject, &payload, now) {
        Verdict::Refused { reason: "reply_second", node, detail } => {
            assert_eq!(node.as_deref(), Some("n1"));
            assert!(detail.contains("n1") && detail.contains("two machines"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    inbox.advance(now + MEMORY);
    assert!(inbox.is_empty(), "memory is bounded");
}

#[test]
fn design6_a_late_reply_does_not_count_and_is_told_from_a_forged_one() {
    let (mut inbox, now) = (Inbox::new(CALLER), Instant::now());
    let subject = inbox.open(expect("n1"), 7);
    inbox.close(7, now);
    let payload = reply("n1", ID, "choria_provision");
    assert_eq!(reason(&inbox.accept(&subject, &payload, now)), "reply_late");
    assert_eq!(inbox.next_timer(), Some(now + MEMORY));
    inbox.advance(now + MEMORY);
    assert_eq!(reason(&inbox.accept(&subject, &payload, now)), "reply_subject");
}

#[test]
fn discovery_takes_many_answers_with_valid_names_only() {
    let (mut inbox, now) = (Inbox::new(CALLER), Instant::now());
    let subject = inbox.open_discovery(Arc::from(ID), 9);
    let pong = |sender: &str, id: &str| encode(sender, id, "discovery", PONG.to_owned());
    for sender in ["n1", "n2", "n1"] {
        assert_eq!(reason(&inbox.accept(&subject, &pong(sender, ID), now)), "discovered");
    }
    for bad in ["a b", "*", ">", "x.*", "../../etc", ""] {
        assert_eq!(reason(&inbox.accept(&subject, &pong(bad, ID), now)), "identity", "{bad}");
    }
    let other = "00000000000000000000000000000000";
    assert_eq!(reason(&inbox.accept(&subject, &pong("n1", other), now)), "discovery_reply");
    assert_eq!(reason(&inbox.accept(&subject, &reply("n1", ID, "discovery"), now)), "discovery_reply");
    assert_eq!(reason(&inbox.accept(&subject, b"x", now)), "discovery_reply");
    inbox.close(9, now);
    assert_eq!(reason(&inbox.accept(&subject, &pong("n1", ID), now)), "reply_subject");
}

proptest::proptest! {
    #[test]
    fn any_message_is_judged(subject in ".{0,100}", payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut inbox = Inbox::new(CALLER);
        let open = inbox.open(expect("n1"), 7);
        let _ = inbox.accept(&subject, &payload, Instant::now());
        let _ = inbox.accept(&open, &payload, Instant::now());
    }
}

#[test]
fn a_call_that_nobody_hears_is_closed_and_no_other() {
    let (mut inbox, now) = (Inbox::new(CALLER), Instant::now());
    let subject = inbox.open(expect("n1"), 7);
    for other in ["", "x", &subject[..subject.len() - 1], &inbox.prefix.clone(), &format!("{}{:032x}", inbox.prefix, 8)]
    {
        assert_eq!(inbox.unanswerable(other, now), None, "{other}");
    }
    assert!(inbox.unanswerable(&subject, now).is_some());
    assert_eq!(inbox.unanswerable(&subject, now), None);
    assert_eq!(reason(&inbox.accept(&subject, &reply("n1", ID, "choria_provision"), now)), "reply_late");
    let answered = inbox.open(expect("n1"), 9);
    inbox.accept(&answered, &reply("n1", ID, "choria_provision"), now);
    assert_eq!(inbox.unanswerable(&answered, now), None, "an answer counts");
}
