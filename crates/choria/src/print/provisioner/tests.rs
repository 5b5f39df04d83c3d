use choria_provisioner::control::types::{
    Connection, Helper, HelperFailure, Limits, Next, Note, Process, Rate, Refusal, RefusalCount, Seen, Totals,
};

use super::*;

/// 2026-11-20 10:29:45 UTC.
const T: i64 = 1_795_170_585_000;

fn shown(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn busy() -> Status {
    Status {
        process: Process {
            pid: 4711,
            version: "1.2.3".into(),
            identity: "provisioner.choria".into(),
            config: "/etc/choria-provisioner/choria-provisioner.yaml".into(),
            site: "ams".into(),
            started_ms: T - 7_500_000,
            uptime_s: 7500.0,
        },
        connection: Connection {
            connected: true,
            server: Some("nats://broker.example.net:4222".into()),
            reason: None,
            since_ms: T - 60_000,
            reconnections: 2,
        },
        held_by: Some("ca_rate".into()),
        nodes: Nodes {
            queued: 950,
            probing: 3,
            silent: 500,
            engaged: 33,
            waiting_for_helper: 20,
            at_helper: 4,
            resting: 1,
            waiting_to_be_seen: 7,
            settling: 90,
            expected_home: 12,
        },
        oldest_waiting: Some(Waiting { identity: "web7.example.net".into(), since_ms: T - 3200, waited_s: 3.2 }),
        oldest_in_flight: Some(Waiting { identity: "web1.example.net".into(), since_ms: T - 120, waited_s: 0.12 }),
        rate: Rate { last_minute: 820, last_hour: 12_033, per_second: 14.2 },
        totals: Totals {
            by_event: 13_000,
            by_discovery: 42,
            by_registration: 0,
            provisioned: 12_033,
            errors: 543,
            deferred: 3,
            absent: 500,
            verified: 12_000,
            missing: 3,
            returned: 1,
        },
        refusals: vec![
            RefusalCount {
                reason: "csr_name".into(),
                count: 12,
                last_ms: T - 1000,
                last: "common name \"x\" does not match identity \"web3.example.net\"".into(),
                node: Some("web3.example.net".into()),
            },
            RefusalCount {
                reason: "event".into(),
                count: 1,
                last_ms: T,
                last: "not\u{1b}[31m JSON".into(),
                node: None,
            },
        ],
        helper: Helper {
            kind: "persistent processes".into(),
            busy: 4,
            capacity: 4,
            waiting: 20,
            held_by: Some("ca_rate".into()),
            calls: 12_080,
            errors: 14,
            mean_s: 0.023,
            last_error: Some(HelperFailure {
                at_ms: T - 5000,
                node: "web4.example.net".into(),
                error: "/opt/helper did not finish within 10s and was killed".into(),
            }),
        },
        limits: Limits { max_nodes: 1000, max_known: 50_000, helper_rate: None, ca_rate: Some(2.5), interval_s: 60.0 },
        ..Status::default()
    }
}

fn refused() -> Explanation {
    let step = |what: &str, attempt, after_s, took_s, fault: Option<&str>| Step {
        what: what.into(),
        attempt,
        after_s,
        took_s,
        fault: fault.map(Into::into),
    };
    Explanation {
        identity: "web3.example.net".into(),
        state: "waiting_to_be_seen".into(),
        next: Next {
            text: "starts when it is seen again, but not within the next 4.2s after 2 failures in a row".into(),
            at_ms: Some(T + 4200),
            ..Next::default()
        },
        seen: vec![
            Seen { by: "event".into(), count: 1, first_ms: T - 9000, last_ms: T - 9000 },
            Seen { by: "discovery".into(), count: 11, first_ms: T - 600_000, last_ms: T - 2000 },
        ],
        attempts_total: 2,
        failures: 2,
        attempts: vec![
            Attempt {
                number: 2,
                started_ms: T - 900,
                took_s: 0.9,
                outcome: Some("refused".into()),
                detail: Some("common name \"x\" does not match identity \"web3.example.net\"".into()),
                steps: vec![
                    step("choria_provision#jwt", 1, 0.0, Some(0.004), None),
                    step("rpcutil#inventory", 1, 0.004, Some(0.5), Some("received 0 responses")),
                    step("rpcutil#inventory", 2, 0.604, Some(0.003), None),
                    step("choria_provision#gencsr", 1, 0.607, Some(0.29), None),
                ],
            },
            Attempt {
                number: 3,
                started_ms: T,
                took_s: 1.5,
                steps: vec![step("helper", 1, 0.1, None, None)],
                ..Attempt::default()
            },
        ],
        refusals_total: 3,
        refusals: vec![Refusal {
            at_ms: T - 10,
            reason: "csr_name".into(),
            detail: "common name \"x\" does not match identity \"web3.example.net\"".into(),
            count: 3,
        }],
        notes: vec![Note { at_ms: T - 5000, text: "its connection to the broker ended".into() }],
        nearest: Vec::new(),
    }
}

#[test]
fn status_texts() {
    insta::assert_snapshot!("status", shown(|out| status(out, &busy(), &TimeZone::UTC)));
    let mut idle = Status { paused: true, held_by: Some("paused".into()), ..Status::default() };
    idle.connection.reason = Some("connection refused".into());
    idle.process.identity = "p".into();
    insta::assert_snapshot!("status_idle", shown(|out| status(out, &idle, &TimeZone::UTC)));
}

#[test]
fn explanations() {
    insta::assert_snapshot!("explain", shown(|out| explanation(out, &refused(), &TimeZone::UTC)));
    let unknown = Explanation {
        identity: "web\u{7}9".into(),
        state: "unknown".into(),
        next: Next { text: "nothing".into(), ..Next::default() },
        nearest: vec!["web1".into(), "web2".into()],
        ..Explanation::default()
    };
    insta::assert_snapshot!("explain_unknown", shown(|out| explanation(out, &unknown, &TimeZone::UTC)));
}

#[test]
fn spans_use_the_largest_units() {
    let spans = [-1.0, 0.0, 0.0304, 59.94, 61.0, 7500.0, 90_000.0, f64::MAX].map(span);
    assert_eq!(spans, ["0ms", "0ms", "30ms", "59.9s", "1m1s", "2h5m", "1d1h", "11574074d1h"]);
}
