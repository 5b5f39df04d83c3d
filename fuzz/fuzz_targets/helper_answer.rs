//! What a helper printed, and what a node answered on its reply subject.
#![no_main]

use std::sync::Arc;
use std::time::Instant;

use choria_provisioner::helper::HelperAnswer;
use choria_provisioner::inbox::{Expectation, Inbox, Verdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = HelperAnswer::parse(bytes);

    let mut inbox = Inbox::new("choria=provisioner.example.net");
    let request_id: Arc<str> = Arc::from("e6910c5ac6f148f392acd9bcf98ff18a");
    let expected =
        Expectation { flow: 1, call: 1, identity: Arc::from("n1"), agent: "choria_provision", request_id: Arc::clone(&request_id) };
    let (directed, discovery) = (inbox.open(expected, 1), inbox.open_discovery(request_id, 2));
    let now = Instant::now();
    if let Verdict::Discovered { identity } = inbox.accept(&discovery, bytes, now) {
        assert!(!identity.is_empty() && !identity.contains([' ', '*', '>']), "{identity:?}");
    }
    if let Verdict::Reply { body: Ok(_), .. } = inbox.accept(&directed, bytes, now) {
        // One answer closes the subject.
        assert!(!matches!(inbox.accept(&directed, bytes, now), Verdict::Reply { .. }));
    }
});
