//! Whatever is encoded decodes to the same, and no bytes from outside panic.

use choria_protocol::filter::{CompoundEntry, FactFilter, FactOperator, Filter};
use choria_protocol::v1::{
    self, Federation, Headers, Reply, ReplyEnvelope, Request, RequestEnvelope, SecureReply, SecureRequest, Transport,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,12}"
}

fn filter() -> impl Strategy<Value = Filter> {
    let fact = (".{0,8}", 0..7usize, ".{0,8}").prop_map(|(fact, operator, value)| FactFilter {
        fact,
        operator: FactOperator::ALL[operator],
        value,
    });
    let entry = ".{0,8}".prop_map(CompoundEntry::expression);
    (vec(fact, 0..3), vec(".{0,8}", 0..3), vec(".{0,8}", 0..3), vec(".{0,8}", 0..3), vec(vec(entry, 0..3), 0..3))
        .prop_map(|(fact, cf_class, agent, identity, compound)| Filter { fact, cf_class, agent, identity, compound })
}

fn request() -> impl Strategy<Value = Request> {
    let names = (name(), name(), name(), name());
    (".{1,40}", "[a-zA-Z0-9]{32}", names, 30..i64::MAX, any::<i64>(), filter()).prop_map(
        |(message, request_id, (sender_id, caller_id, collective, agent), ttl, time, filter)| Request {
            message,
            envelope: RequestEnvelope { request_id, sender_id, caller_id, collective, agent, ttl, time, filter },
        },
    )
}

fn headers() -> impl Strategy<Value = Headers> {
    let text = || proptest::option::of(".{1,12}");
    let hop = (".{0,8}", ".{0,8}", ".{0,8}").prop_map(|(a, b, c)| [a, b, c]);
    let federation = (text(), text(), vec(".{0,8}", 0..3)).prop_map(|(request_id, reply_to, targets)| Federation {
        request_id,
        reply_to,
        targets,
    });
    (text(), text(), vec(hop, 0..3), proptest::option::of(federation))
        .prop_map(|(reply_to, mc_sender, seen_by, federation)| Headers { reply_to, mc_sender, seen_by, federation })
}

proptest! {
    #[test]
    fn requests_survive(request in request(), headers in headers(), signature in ".{1,20}", pubcert in ".{1,20}") {
        let secure = SecureRequest { message: request.to_text(), signature, pubcert };
        let wire = v1::encode_request(&secure, &headers);
        let decoded = v1::decode_request(&wire).unwrap();
        prop_assert_eq!(&decoded.request, &request);
        prop_assert_eq!(&decoded.secure, &secure);
        prop_assert_eq!(&decoded.transport.headers, &headers);
        prop_assert_eq!(decoded.transport.to_vec(), wire);
    }

    #[test]
    fn replies_survive(message in ".{0,40}", request_id in "[a-z0-9]{32}", sender_id in name(), agent in name(),
        time in any::<i64>(), headers in headers()) {
        let reply = Reply { message, envelope: ReplyEnvelope { request_id, sender_id, agent, time } };
        let decoded = v1::decode_reply(&v1::encode_reply(&reply, &headers)).unwrap();
        prop_assert_eq!(&decoded.reply, &reply);
        prop_assert_eq!(decoded.transport.headers, headers);
        prop_assert_eq!(&decoded.secure.message, &reply.to_text());
    }

    #[test]
    fn a_changed_reply_does_not_match_its_hash(message in ".{1,40}", other in ".{1,40}") {
        prop_assume!(message != other);
        let sealed = SecureReply::seal(message);
        let forged = SecureReply { message: other, hash: sealed.hash };
        prop_assert_eq!(SecureReply::parse(&forged.to_vec()).unwrap_err().reason(), "hash_mismatch");
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = (v1::decode_request(&bytes), v1::decode_reply(&bytes));
        let _ = (SecureRequest::parse(&bytes), SecureReply::parse(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        let _ = (Request::parse(&text), Reply::parse(&text));
        // Also as the inner layers of sound outer ones.
        let wire = Transport { data: bytes, headers: Headers::default() }.to_vec();
        let _ = (v1::decode_request(&wire), v1::decode_reply(&wire));
    }

    #[test]
    fn no_change_of_one_byte_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), request in request()) {
        let mut text = request.to_text().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let _ = Request::parse(&String::from_utf8_lossy(&text));
        let mut wire = v1::encode_request(&SecureRequest::unsigned(request.to_text()), &Headers::default());
        let at = at % wire.len();
        wire[at] = byte;
        let _ = v1::decode_request(&wire);
    }
}

#[test]
fn documented_reply_has_the_documented_hash() {
    // Spec 01, conformance case 12.
    let message = r#"{"protocol":"choria:reply:1","message":"{\"action\":\"ping\",\"statuscode\":0,\"statusmsg\":\"OK\",\"data\":{\"pong\":1750000101}}","envelope":{"requestid":"0123456789abcdef0123456789abcdef","senderid":"node1.example.net","agent":"rpcutil","time":1750000101}}"#;
    let sealed = SecureReply::seal(message.to_owned());
    assert_eq!(sealed.hash, "Vb5XqxyiCIO48ghnFn5DMo4+hektcJZwo+s6gkQfVko=");
    assert_eq!(sealed.to_vec().len(), 414);
    assert_eq!(Reply::parse(message).unwrap().to_text(), message);
}

#[test]
fn design6_filters_that_would_keep_a_node_busy_are_refused() {
    let fact = || FactFilter { fact: "a".into(), operator: FactOperator::Matches, value: "b".into() };
    let list = |count: usize, text: &str| vec![text.to_owned(); count];
    for (fits, filter) in [
        (true, Filter { fact: vec![fact(); 100], ..Filter::default() }),
        (false, Filter { fact: vec![fact(); 101], ..Filter::default() }),
        (false, Filter { fact: vec![fact(); 60], cf_class: list(41, "/x/"), ..Filter::default() }),
        (true, Filter { identity: list(10_000, "x"), cf_class: list(1000, "x"), ..Filter::default() }),
        (false, Filter { identity: list(10_001, "x"), ..Filter::default() }),
        (false, Filter { cf_class: list(1001, "x"), ..Filter::default() }),
        (false, Filter { agent: list(101, "/x/"), ..Filter::default() }),
        (true, Filter { compound: vec![vec![CompoundEntry::expression("x")]; 10], ..Filter::default() }),
        (false, Filter { compound: vec![vec![CompoundEntry::expression("x")]; 11], ..Filter::default() }),
    ] {
        let envelope = RequestEnvelope {
            request_id: "a".repeat(32),
            sender_id: String::new(),
            caller_id: "choria=a".into(),
            collective: "c".into(),
            agent: "a".into(),
            ttl: 60,
            time: 0,
            filter,
        };
        let text = Request { message: "x".into(), envelope }.to_text();
        assert_eq!(Request::parse(&text).is_ok(), fits, "{}", &text[..200]);
    }
}

#[test]
fn sizes_are_bounded() {
    let wire = vec![b' '; v1::MAX_MESSAGE_BYTES + 1];
    assert_eq!(v1::decode_request(&wire).unwrap_err().reason(), "too_large");
    let mut request = "x".repeat(10);
    request.push_str(&"[".repeat(200_000));
    assert!(Request::parse(&request).is_err());
    let hops = format!(
        r#"{{"protocol":"choria:transport:1","data":"","headers":{{"seen-by":[{}[]]}}}}"#,
        "[],".repeat(10_001)
    );
    assert_eq!(Transport::parse(hops.as_bytes()).unwrap_err().reason(), "transport_schema");
}
