//! Requests good and bad, with real signatures.

use std::cell::Cell;
use std::sync::Arc;

use choria_protocol::filter::Filter;
use choria_protocol::ids;
use choria_protocol::v1::{Headers, Request, RequestEnvelope, SecureRequest, encode_request};
use choria_security::ca::{CertificateAuthority, IssueRequest};
use choria_security::keys::KeyKind;
use choria_security::patterns::Patterns;
use choria_security::sign::RequestSigner;
use choria_security::trust::{Authorities, TrustStore};
use choria_testkit::golden;

use super::*;

const NOW: i64 = 1_795_219_200;

/// Where the requests arrive.
const SUBJECT: &str = "mcollective.broadcast.agent.discovery";

struct Lab {
    ca: CertificateAuthority,
    signer: RequestSigner,
    counters: Arc<Counters>,
    pipeline: Pipeline,
}

fn lab() -> Lab {
    let (ca, _) = CertificateAuthority::generate("lab", KeyKind::P256, NOW).unwrap();
    let signer = signer(&ca, "ops.mcollective");
    let counters = Arc::new(Counters::default());
    let trust = Arc::new(TrustStore::fixed(Authorities::from_pem(ca.certificate_pem()).unwrap()));
    let allowed = Patterns::new([r"\.mcollective$"]).unwrap();
    let privileged = Patterns::new([r"\.privileged.mcollective$"]).unwrap();
    let verification = Verification::Signed(RequestVerifier::new(trust, allowed, privileged));
    let pipeline = Pipeline::new(verification, vec!["mcollective".into(), "sub".into()], Arc::clone(&counters));
    Lab { ca, signer, counters, pipeline }
}

fn signer(ca: &CertificateAuthority, name: &str) -> RequestSigner {
    let issued = ca.issue(&IssueRequest::new(name, KeyKind::Rsa2048), NOW).unwrap();
    RequestSigner::from_pem(&issued.certificate.pem, &issued.key).unwrap()
}

fn request() -> Request {
    Request {
        message: "cGluZw==".into(),
        envelope: RequestEnvelope {
            request_id: ids::request_id(),
            sender_id: "ops.mcollective".into(),
            caller_id: "choria=ops.mcollective".into(),
            collective: "mcollective".into(),
            agent: "discovery".into(),
            ttl: 60,
            time: NOW,
            filter: Filter::default(),
        },
    }
}

fn headers(reply_to: &str) -> Headers {
    Headers { reply_to: Some(reply_to.into()), ..Headers::default() }
}

fn sign(signer: &RequestSigner, request: &Request) -> SecureRequest {
    let message = request.to_text();
    let signed = signer.sign(&message).unwrap();
    SecureRequest { message, signature: signed.signature, pubcert: signed.pubcert }
}

impl Lab {
    fn wire(&self, request: &Request) -> Vec<u8> {
        encode_request(&sign(&self.signer, request), &headers("mcollective.reply.x.1"))
    }

    fn accept(&mut self, wire: &[u8], now: i64) -> Result<DecodedRequest, Rejection> {
        self.pipeline.accept(SUBJECT, wire, now, |_| Ok(true))
    }

    /// total, unvalidated, filtered, passed, ttlexpired, validated
    fn counted(&self) -> [u64; 6] {
        let stats = self.counters.stats();
        [stats.total, stats.invalid, stats.filtered, stats.passed, stats.ttlexpired, stats.valid]
    }
}

#[test]
fn a_good_request_passes_and_is_counted() {
    let mut lab = lab();
    let wire = lab.wire(&request());
    assert_eq!(lab.accept(&wire, NOW).unwrap().request.envelope.agent, "discovery");
    assert_eq!(lab.counted(), [1, 0, 0, 1, 0, 1]);
    assert_eq!(lab.counters.last_message.load(Ordering::Relaxed), NOW);
}

#[test]
fn design6_replays_are_served_once() {
    let mut lab = lab();
    let wire = lab.wire(&request());
    lab.accept(&wire, NOW).unwrap();
    let refused = lab.accept(&wire, NOW + 1).unwrap_err();
    assert!(matches!(refused, Rejection::Window { reason: WindowError::Replayed, .. }), "{refused}");
    // Nor with another reply subject, which lies outside of the signature.
    let decoded = v1::decode_request(&wire).unwrap();
    let moved = encode_request(&decoded.secure, &headers("attacker.inbox"));
    let refused = lab.accept(&moved, NOW + 1).unwrap_err();
    assert!(matches!(refused, Rejection::Window { reason: WindowError::Replayed, .. }), "{refused}");
    assert_eq!(lab.counted(), [3, 2, 0, 3, 0, 1]);
}

#[test]
fn design6_ttl_has_a_ceiling_and_both_ends_are_strict() {
    let cases = [
        (60, 0, true),
        (60, -59, true),
        (60, -60, false),
        (60, 59, true),
        (60, 60, false),
        (1_000_000_000, -500, false),
    ];
    for (ttl, age, served) in cases {
        let mut lab = lab();
        let mut request = request();
        request.envelope.ttl = ttl;
        request.envelope.time = NOW + age;
        let wire = lab.wire(&request);
        let outcome = lab.accept(&wire, NOW);
        assert_eq!(outcome.is_ok(), served, "ttl {ttl}, age {age}: {outcome:?}");
        assert_eq!(lab.counters.stats().ttlexpired, u64::from(!served));
    }
}

#[test]
fn design6_headers_are_checked_before_anything_acts() {
    let mut lab = lab();
    let secure = sign(&lab.signer, &request());
    let asked = Cell::new(false);
    for bad in ["", "a b", "a.*", ">", "a..b", "x\r\nPUB y 0", "a.\u{0}"] {
        let wire = encode_request(&secure, &headers(bad));
        let refused = lab.pipeline.accept(SUBJECT, &wire, NOW, |_| {
            asked.set(true);
            Ok(true)
        });
        assert!(matches!(refused, Err(Rejection::Undecodable(_))), "{bad:?}: {refused:?}");
    }
    assert!(!asked.get(), "not even the filter is looked at");
}

#[test]
fn design6_headers_null_and_ec_certificates_do_not_kill() {
    let mut lab = lab();
    let wire = String::from_utf8(lab.wire(&request())).unwrap();
    let start = wire.find("\"headers\":").unwrap();
    for headers in ["null", "[]", "5", "\"x\"", "{\"reply-to\":null}", "{\"reply-to\":5}", "{\"seen-by\":[null]}"] {
        let broken = format!("{}\"headers\":{headers}}}", &wire[..start]);
        assert!(lab.accept(broken.as_bytes(), NOW).is_err(), "{headers}");
    }
    let certificate = lab.ca.issue(&IssueRequest::new("ops.mcollective", KeyKind::P256), NOW).unwrap().certificate.pem;
    let secure = SecureRequest { pubcert: certificate, ..sign(&lab.signer, &request()) };
    let refused = lab.accept(&encode_request(&secure, &headers("r")), NOW).unwrap_err();
    assert!(matches!(refused, Rejection::Unverified { .. }), "{refused}");
    assert_eq!(lab.counters.stats().invalid, 8);
}

#[test]
fn only_allowed_callers_with_their_own_certificate_pass() {
    let mut lab = lab();
    let wire = |signer: &RequestSigner, caller: &str| {
        let mut request = request();
        request.envelope.caller_id = caller.into();
        encode_request(&sign(signer, &request), &headers("r"))
    };
    let stranger = {
        let (other, _) = CertificateAuthority::generate("other", KeyKind::P256, NOW).unwrap();
        signer(&other, "ops.mcollective")
    };
    let node = signer(&lab.ca, "n1.example.net");
    for (what, wire) in [
        ("another caller", wire(&lab.signer, "choria=bob.mcollective")),
        ("a caller with more words", wire(&lab.signer, "choria=ops.mcollective admin")),
        ("another CA", wire(&stranger, "choria=ops.mcollective")),
        ("a name that is not allowed", wire(&node, "choria=n1.example.net")),
    ] {
        assert!(matches!(lab.accept(&wire, NOW), Err(Rejection::Unverified { .. })), "{what}");
    }
    let unsigned = encode_request(&SecureRequest::unsigned(request().to_text()), &headers("r"));
    assert!(lab.accept(&unsigned, NOW).is_err(), "unsigned");
    let registration = encode_request(&SecureRequest::unsigned_registration(request().to_text()), &headers("r"));
    assert!(lab.accept(&registration, NOW).is_err(), "unsigned registration");
    assert_eq!(lab.counted(), [6, 6, 0, 0, 0, 0]);
}

#[test]
fn other_collectives_and_filters() {
    let mut lab = lab();
    let mut elsewhere = request();
    elsewhere.envelope.collective = "other".into();
    let wire = lab.wire(&elsewhere);
    assert!(matches!(lab.accept(&wire, NOW), Err(Rejection::Collective { .. })));
    let wire = lab.wire(&request());
    assert!(matches!(lab.pipeline.accept(SUBJECT, &wire, NOW, |_| Ok(false)), Err(Rejection::Filtered(_))));
    // A request that was filtered is not remembered: the filter may match a moment later.
    assert!(lab.accept(&wire, NOW).is_ok());
    assert_eq!(lab.counted(), [3, 1, 1, 2, 0, 1]);
}

#[test]
fn a_request_must_be_for_the_subject_it_arrives_on() {
    for (subject, served) in [
        (SUBJECT, true),
        ("mcollective.node.n1.example.net", true),
        ("sub.broadcast.agent.discovery", false),
        ("sub.node.n1.example.net", false),
        ("mcollective.broadcast.agent.rpcutil", false),
        ("mcollective.broadcast.service.rpcutil", false),
        ("discovery", false),
    ] {
        let mut lab = lab();
        let wire = lab.wire(&request());
        let outcome = lab.pipeline.accept(subject, &wire, NOW, |_| Ok(true));
        assert_eq!(outcome.is_ok(), served, "{subject}: {outcome:?}");
        if !served {
            assert!(matches!(outcome, Err(Rejection::Subject { .. })), "{subject}: {outcome:?}");
            assert_eq!(lab.counted(), [1, 1, 0, 1, 0, 0]);
        }
    }
}

#[test]
fn provisioning_serves_unsigned_requests_and_sends_one_text_again() {
    let counters = Arc::new(Counters::default());
    let mut pipeline = Pipeline::new(Verification::Provisioning, vec!["provisioning".into()], counters);
    let mut request = request();
    request.envelope.collective = "provisioning".into();
    let secure = SecureRequest::unsigned(request.to_text());
    for reply in ["provisioning.reply.a.1", "provisioning.reply.a.2"] {
        assert!(
            pipeline
                .accept("provisioning.node.n1", &encode_request(&secure, &headers(reply)), NOW, |_| Ok(true))
                .is_ok()
        );
    }
}

#[test]
fn junk_is_counted_and_dropped() {
    let mut lab = lab();
    for junk in
        [&b""[..], b"{", b"null", b"{\"protocol\":\"choria:transport:9\",\"data\":\"\",\"headers\":{}}", &[0xff; 100]]
    {
        assert!(matches!(lab.accept(junk, NOW), Err(Rejection::Undecodable(_))));
    }
    // A real reply is no request.
    let events = golden::lines("server/lifecycle-events.jsonl");
    assert!(lab.accept(events[0].to_string().as_bytes(), NOW).is_err());
    assert_eq!(lab.counted(), [6, 6, 0, 0, 0, 0]);
}
