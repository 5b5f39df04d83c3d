//! Every crafted request (`testdata/protocol/v1/crafted*`) and what this layer says about it. Which test of which room
//! judges what this layer lets pass is in `docs/differences/choria-protocol.md`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use choria_protocol::identity;
use choria_protocol::subjects::Arrival;
use choria_protocol::v1::{self, DecodedRequest};
use choria_protocol::window::{SeenRequests, TtlCheck};
use serde_json::Value;

/// What this layer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Does not decode, for this reason.
    Decode(&'static str),
    /// Cannot be answered, for this reason.
    Reply(&'static str),
    /// Age, for this reason.
    Window(&'static str),
    /// Subject and envelope disagree.
    Subject,
    /// The caller id is not one of a certificate's holder.
    Caller,
    /// Nothing to say; later layers judge.
    Passes,
}

use Verdict::{Caller, Decode, Passes, Reply, Subject, Window};

/// Verdicts of all files; `true` marks those that the original answered or executed and we refuse here.
const CRAFTED: &[(&str, Verdict, bool)] = &[
    ("1024-bit-rsa", Passes, false),
    ("action-missing", Passes, false),
    ("action-unknown", Passes, false),
    ("agent-unknown", Passes, false),
    ("agent-unknown-with-agent-filter", Passes, false),
    ("base64-with-leading-space-in-data", Decode("not_base64"), false),
    ("base64-wrapped-at-60-columns", Passes, false),
    ("body-agent-differs-from-envelope-agent", Passes, false),
    ("body-agent-missing", Passes, false),
    ("body-json-array", Passes, false),
    ("body-not-json", Passes, false),
    ("body-object-not-string", Decode("request_schema"), false),
    ("body-std64-of-valid-json", Passes, false),
    ("callerid-empty", Decode("request_schema"), false),
    ("callerid-missing", Decode("request_schema"), false),
    ("callerid-prefix-up", Caller, true),
    ("callerid-upper-prefix", Caller, false),
    ("callerid-with-trailing-at-sign-and-text", Caller, true),
    ("callerid-with-trailing-text", Caller, true),
    ("callerid-without-prefix", Caller, false),
    ("certificate-name-in-other-case", Passes, false),
    ("certificate-that-is-a-ca", Passes, false),
    ("cn-matches-san-differs", Passes, false),
    ("collective-subc-on-mcollective-subject", Subject, true),
    ("collective-unknown", Subject, false),
    ("compound-statement-key", Passes, false),
    ("compound-syntax-error", Passes, false),
    ("compound-two-true-one-false", Passes, false),
    ("data-empty", Decode("secure_not_json"), false),
    ("data-missing", Passes, false),
    ("data-not-json", Decode("secure_not_json"), false),
    ("data-null", Passes, false),
    ("data-string", Passes, false),
    ("discovery-on-broadcast-rpcutil-subject", Subject, true),
    ("discovery-payload-cgluzw", Passes, false),
    ("discovery-payload-empty", Decode("request_schema"), false),
    ("discovery-payload-plain-ping", Passes, false),
    ("discovery-payload-pong", Passes, false),
    ("discovery-payload-xpingx", Passes, false),
    ("duplicate-callerid-key-last-is-foreign", Decode("ambiguous_key"), false),
    ("duplicate-callerid-key-last-is-own", Decode("ambiguous_key"), true),
    ("ec-certificate-of-an-allowed-name", Passes, false),
    ("expired-certificate", Passes, false),
    ("fact-filter-bad-operator", Decode("request_schema"), false),
    ("filter-empty-object", Decode("request_schema"), false),
    ("filter-lists-null", Decode("request_schema"), false),
    ("filter-missing", Decode("request_schema"), false),
    ("filter-null", Decode("request_schema"), false),
    ("filter-without-agent-key", Passes, false),
    ("filter-without-compound-key", Decode("request_schema"), false),
    ("foreign-ca", Passes, false),
    ("headers-missing", Reply("no_reply_to"), true),
    ("headers-null", Decode("transport_schema"), true),
    ("headers-null-to-the-federation-broker-unsigned", Decode("transport_schema"), true),
    ("identity-filter-bad-regex", Passes, false),
    ("identity-filter-of-another-node", Passes, false),
    ("input-shellsafe-violation", Passes, false),
    ("input-too-long", Passes, false),
    ("insecure-request-in-secure-mode", Passes, false),
    ("keys-in-other-case", Decode("ambiguous_key"), false),
    ("leaf-of-intermediate-chain-leaf-first", Passes, false),
    ("mc-sender-differs-from-senderid", Passes, false),
    ("no-eku-certificate", Passes, false),
    ("node-certificate-not-on-allow-list", Passes, false),
    ("not-yet-valid-certificate", Passes, false),
    ("own-callerid-plus-foreign-key-callerid-in-other-case", Decode("ambiguous_key"), false),
    ("pretty-printed-request-signed-as-is", Passes, false),
    ("privileged-by-unescaped-dot-any-callerid", Passes, false),
    ("privileged-cert-callerid-with-no-name", Caller, false),
    ("privileged-cert-other-callerid", Passes, false),
    ("privileged-cert-own-callerid", Passes, false),
    ("privileged-cert-up-callerid", Passes, false),
    ("privileged-name-in-a-san-any-callerid", Passes, false),
    ("process-results-and-caller-ruby-extras", Passes, false),
    ("protocol-key-missing-in-transport", Decode("transport_schema"), false),
    ("protocol-unknown-in-transport", Decode("transport_schema"), false),
    ("protocol-v2-transport-id", Decode("other_protocol_version"), false),
    ("pubcert-garbage", Passes, false),
    ("pubcert-key-pem-block-first", Passes, false),
    ("pubcert-with-text-before-the-pem-block", Passes, false),
    ("replay-2-same-request-id-and-bytes", Window("replayed"), true),
    ("reply-to-a-node-request-subject", Passes, false),
    ("reply-to-missing", Reply("no_reply_to"), true),
    ("reply-to-missing-nats-reply-set", Reply("no_reply_to"), true),
    ("reply-to-with-crlf", Reply("invalid_reply_to"), true),
    ("reply-to-with-space", Reply("invalid_reply_to"), true),
    ("reply-to-with-wildcard", Reply("invalid_reply_to"), true),
    ("request-for-node1-on-subject-of-node0-no-identity-filter", Passes, false),
    ("request-protocol-wrong", Decode("request_schema"), false),
    ("requestid-32-odd-characters", Decode("request_schema"), true),
    ("requestid-33", Decode("request_schema"), false),
    ("required-input-missing", Passes, false),
    ("san-less-certificate-cn-matches", Passes, false),
    ("san-matches-cn-differs", Passes, false),
    ("seen-by-with-two-and-four-elements", Passes, false),
    ("serverauth-only-certificate", Passes, false),
    ("sha1-signature", Passes, false),
    ("sha512-signature", Passes, false),
    ("signature-base64-without-padding", Passes, false),
    ("signature-empty", Decode("secure_schema"), false),
    ("signature-is-the-literal-insecure-certificate-valid", Passes, false),
    ("signed-by-another-key", Passes, false),
    ("signed-registration-agent-request-to-a-server-no-such-agent", Passes, false),
    ("tampered-signature-one-bit", Passes, false),
    ("time-58-s-in-the-future", Passes, false),
    ("time-58-s-in-the-past", Passes, false),
    ("time-61-s-in-the-past", Window("ttl_expired"), false),
    ("time-62-s-in-the-future", Window("from_the_future"), false),
    ("time-float", Decode("request_schema"), false),
    ("time-float-integral", Decode("request_schema"), false),
    ("time-nanoseconds", Window("from_the_future"), false),
    ("transport-empty", Decode("transport_not_json"), false),
    ("transport-keys-in-other-case", Decode("ambiguous_key"), true),
    ("transport-not-json", Decode("transport_not_json"), false),
    ("transport-trailing-garbage", Decode("transport_not_json"), false),
    ("ttl-0", Decode("request_schema"), false),
    ("ttl-1e11-overflow-of-nanoseconds", Window("ttl_out_of_range"), true),
    ("ttl-1e9-with-20-year-old-time", Window("ttl_out_of_range"), true),
    ("ttl-29", Decode("request_schema"), false),
    ("ttl-30", Passes, false),
    ("ttl-60-0-float", Decode("request_schema"), false),
    ("ttl-negative", Decode("request_schema"), false),
    ("ttl-string", Decode("request_schema"), false),
    ("unknown-input-key", Passes, false),
    ("valid", Passes, false),
];

/// Protocol security is off here: caller ids are not looked at.
const CRAFTED_PROVISIONING: &[(&str, Verdict, bool)] = &[
    ("unsigned-any-callerid-form", Passes, false),
    ("unsigned-collective-mcollective", Subject, false),
    ("unsigned-empty-callerid", Decode("request_schema"), false),
    ("unsigned-expired-ttl", Window("ttl_expired"), false),
    ("unsigned-garbage-signature-and-pubcert", Passes, false),
    ("unsigned-headers-null", Decode("transport_schema"), true),
    ("unsigned-jwt-action-no-token", Passes, false),
    ("unsigned-jwt-action-right-token", Passes, false),
    ("unsigned-jwt-action-wrong-token", Passes, false),
    ("unsigned-ping", Passes, false),
    ("unsigned-rpcutil-inventory-no-token-needed", Passes, false),
    ("unsigned-signature-key-missing", Decode("secure_schema"), false),
];

fn read(folder: &str, name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/protocol/v1").join(folder).join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn judge(row: &Value, secure: bool) -> Verdict {
    let request = match v1::decode_request(row["wire"].as_str().unwrap().as_bytes()) {
        Ok(request) => request,
        Err(error) => return Decode(error.reason()),
    };
    let DecodedRequest { transport, secure: signed, request } = request;
    let envelope = &request.envelope;
    if let Err(error) = transport.headers.reply_subject() {
        return Reply(error.reason());
    }
    let arrival = Arrival::parse(row["subject"].as_str().unwrap()).unwrap();
    if !arrival.agrees_with(&envelope.collective, &envelope.agent) {
        return Subject;
    }
    // Holders of ordinary certificates are named choria=<certname>. Privileged ones name anybody, but somebody.
    let privileged = signed.pubcert.contains("CERTIFICATE") && row["case"].as_str().unwrap().contains("privileged");
    let named = if privileged {
        identity::caller_name(&envelope.caller_id).is_some()
    } else {
        identity::caller_name(&envelope.caller_id)
            .is_some_and(|name| identity::is_own_caller_id(&envelope.caller_id, name))
    };
    if secure && !named {
        return Caller;
    }
    let now = row["judged_at"].as_i64().unwrap();
    if let Err(error) = TtlCheck::default().check(envelope.time, envelope.ttl, now) {
        return Window(error.reason());
    }
    let mut seen = SeenRequests::default();
    seen.insert(&signed.message, envelope.time, envelope.ttl, now).unwrap();
    if row["case"].as_str().unwrap().starts_with("replay 2") {
        return Window(seen.insert(&signed.message, envelope.time, envelope.ttl, now).unwrap_err().reason());
    }
    Passes
}

fn check(folder: &str, table: &[(&str, Verdict, bool)], secure: bool) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/protocol/v1").join(folder);
    let files: BTreeSet<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let listed: BTreeSet<String> = table.iter().map(|(name, ..)| format!("{name}.json")).collect();
    assert_eq!(files, listed, "every file has its verdict");
    for (name, verdict, differs) in table {
        let row = read(folder, &format!("{name}.json"));
        assert_eq!(judge(&row, secure), *verdict, "{name}");
        let served = row["original"] != "refused";
        assert_eq!(*differs, served && *verdict != Passes, "{name}: a difference is marked as one");
    }
}

#[test]
fn crafted_requests_are_judged_as_listed() {
    check("crafted", CRAFTED, true);
}

#[test]
fn crafted_requests_to_a_provisioning_server_are_judged_as_listed() {
    check("crafted-provisioning", CRAFTED_PROVISIONING, false);
}

#[test]
fn design6_headers_null_is_an_error_and_no_crash() {
    for (folder, name) in [
        ("crafted", "headers-null.json"),
        ("crafted", "headers-null-to-the-federation-broker-unsigned.json"),
        ("crafted-provisioning", "unsigned-headers-null.json"),
    ] {
        let wire = read(folder, name)["wire"].as_str().unwrap().to_owned();
        let error = v1::Transport::parse(wire.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "transport does not match its schema: /headers: expected object, but got null");
        assert!(v1::decode_reply(wire.as_bytes()).is_err(), "nor on the client");
    }
}

#[test]
fn schema_refusals_name_the_place_and_the_value() {
    for (name, text) in [
        ("ttl-29", "request does not match its schema: /envelope/ttl: must be >= 30 but found 29"),
        ("ttl-string", "request does not match its schema: /envelope/ttl: expected integer, but got string"),
        ("time-float", "request does not match its schema: /envelope/time: expected integer, but got number"),
        ("callerid-missing", "request does not match its schema: /envelope: missing properties: 'callerid'"),
        ("callerid-empty", "request does not match its schema: /envelope/callerid: length must be >= 1, but got 0"),
        ("filter-null", "request does not match its schema: /envelope/filter: expected object, but got null"),
        ("filter-lists-null", "request does not match its schema: /envelope/filter/fact: expected array, but got null"),
        (
            "fact-filter-bad-operator",
            "request does not match its schema: /envelope/filter/fact/0/operator: value must be one of == != =~ < <= > >=",
        ),
        ("requestid-33", "request does not match its schema: /envelope/requestid: length must be 32, but got 33"),
        ("signature-empty", "secure request does not match its schema: /signature: length must be >= 1, but got 0"),
        ("request-protocol-wrong", "request does not match its schema: /protocol: value must be choria:request:1"),
        ("protocol-v2-transport-id", "transport is of protocol version 2, this process speaks version 1"),
    ] {
        let wire = read("crafted", &format!("{name}.json"))["wire"].as_str().unwrap().to_owned();
        assert_eq!(v1::decode_request(wire.as_bytes()).unwrap_err().to_string(), text);
    }
}

#[test]
fn a_missing_agent_list_in_the_filter_is_empty() {
    let wire = read("crafted", "filter-without-agent-key.json")["wire"].as_str().unwrap().to_owned();
    let decoded = v1::decode_request(wire.as_bytes()).unwrap();
    assert!(decoded.request.envelope.filter.agent.is_empty());
    assert!(decoded.request.to_text().contains("\"agent\":[]"), "and is written as an empty list");
}

#[test]
fn what_was_received_is_kept_byte_for_byte() {
    for name in
        ["base64-wrapped-at-60-columns", "pretty-printed-request-signed-as-is", "seen-by-with-two-and-four-elements"]
    {
        let wire = read("crafted", &format!("{name}.json"))["wire"].as_str().unwrap().to_owned();
        let decoded = v1::decode_request(wire.as_bytes()).unwrap();
        let secure: Value = serde_json::from_slice(&decoded.transport.data).unwrap();
        assert_eq!(decoded.secure.message, secure["message"].as_str().unwrap(), "{name}");
        assert!(decoded.secure.signature_bytes().is_ok(), "{name}");
        assert!(decoded.transport.headers.seen_by.iter().all(|hop| hop.len() == 3));
    }
}
