//! Replies as they are shown, word for word.

use std::collections::BTreeMap;

use choria_client::{RequestStats, RpcReply};
use choria_protocol::v1;
use serde_json::{Value, json};

use super::{Line, Shown, Summary, Which, document, line, senders, senders_json, table, text};
use crate::text::Palette;

fn reply(sender: &str, code: u8, message: &str, data: Value) -> RpcReply {
    RpcReply {
        sender: sender.to_owned(),
        action: "status".to_owned(),
        code,
        message: message.to_owned(),
        data,
        time: 1_714_557_600,
        envelope: v1::Reply {
            message: "{}".to_owned(),
            envelope: v1::ReplyEnvelope {
                request_id: "4df150d6aa304e969e0380f82979a4b2".to_owned(),
                sender_id: sender.to_owned(),
                agent: "service".to_owned(),
                time: 1_714_557_600,
            },
        },
    }
}

fn replies() -> Vec<RpcReply> {
    vec![
        reply("n1.acme.net", 0, "OK", json!({"status": "running", "ports": [80, 443], "extra": {"b": 1, "a": "<x>"}})),
        reply("n2.acme.net", 1, "Could not find service foo", json!({})),
        reply("n3.acme.net", 5, "", json!({})),
        reply("n4.acme.net", 77, "odd", json!({})),
    ]
}

fn stats() -> RequestStats {
    RequestStats {
        request_id: "4df150d6aa304e969e0380f82979a4b2".to_owned(),
        no_responses: ["n5.acme.net", "n6.acme.net", "n7.acme.net", "long-name-8.acme.net"].map(str::to_owned).to_vec(),
        unexpected_responses: vec!["stranger.acme.net".to_owned()],
        discovered: 8,
        failed: 3,
        ok: 1,
        responses: 4,
        publish_time: 1_200_000,
        request_time: 95_000_000,
        discover_time: 2_001_000_000,
        start_time_utc: "2024-05-01T10:00:00.1Z".to_owned(),
    }
}

fn summary() -> Vec<Summary> {
    vec![
        Summary {
            output: "status".to_owned(),
            label: "Service Status".to_owned(),
            lines: vec!["running: 2".to_owned(), "stopped: 1".to_owned()],
            value: json!({"running": 2, "stopped": 1}),
        },
        Summary { output: "version".to_owned(), label: "Version".to_owned(), lines: Vec::new(), value: json!({}) },
    ]
}

/// Runs a printer over the same replies.
fn shown(print: impl Fn(&Shown<'_>) -> String) -> String {
    let labels =
        BTreeMap::from([("status".to_owned(), "Service Status".to_owned()), ("ports".to_owned(), "Ports".to_owned())]);
    let (replies, summaries, stats) = (replies(), summary(), stats());
    print(&Shown {
        agent: "service",
        action: "status",
        labels: &labels,
        replies: &replies,
        summaries: &summaries,
        stats: &stats,
    })
}

#[test]
fn text_shows_what_is_asked_for() {
    insta::assert_snapshot!("all", shown(|shown| text(shown, Which::All, false, Palette(false))));
    insta::assert_snapshot!("failed", shown(|shown| text(shown, Which::Failed, false, Palette(false))));
    let none = shown(|shown| text(shown, Which::None, false, Palette(false)));
    assert!(!none.contains("Request Aborted") && none.contains("Summary of Service Status:"), "{none}");
    let ok = shown(|shown| text(shown, Which::Ok, false, Palette(false)));
    assert!(ok.contains("running") && !ok.contains("Could not find"), "{ok}");
}

/// Spec 05 §12 row 47: the status message of failed replies is shown with -v, too.
#[test]
fn verbose_text_shows_data_message_and_figures() {
    let text = shown(|shown| text(shown, Which::All, true, Palette(false)));
    assert!(text.contains("    Could not find service foo"), "{text}");
    insta::with_settings!({filters => vec![(r"Start Time: .*", "Start Time: [local time]")]}, {
        insta::assert_snapshot!("verbose", text);
    });
}

/// Spec 05 §12 row 4: the reference colours the wrong way round.
#[test]
fn colours_appear_only_when_they_are_on() {
    let plain = shown(|shown| text(shown, Which::All, false, Palette(false)));
    let coloured = shown(|shown| text(shown, Which::All, false, Palette(true)));
    assert!(!plain.contains('\u{1b}'));
    assert!(coloured.contains("\u{1b}[31mRequest Aborted\u{1b}[0m"), "{coloured}");
    assert!(coloured.contains("\u{1b}[33m4\u{1b}[0m / \u{1b}[33m8\u{1b}[0m"), "{coloured}");
}

#[test]
fn json_is_the_documented_document() {
    let text = shown(document);
    assert!(text.contains("\\u003cx\\u003e"), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["agent", "action", "replies", "request_stats", "summaries"]);
    insta::assert_snapshot!("json", text);
    assert_eq!(shown(senders_json), "[\n  \"n1.acme.net\"\n]\n");
    assert_eq!(shown(senders), "n1.acme.net\n");
}

/// Spec 05 §12 row 46: lists and objects do not break the box.
#[test]
fn tables_stay_boxes() {
    insta::assert_snapshot!("table", shown(table));
}

#[test]
fn lines_are_documents_of_their_own() {
    let (replies, summaries, stats) = (replies(), summary(), stats());
    let lines = [
        line(&Line::Discovering { method: "mc" }),
        line(&Line::Discovered { method: "mc", count: 8, seconds: 2.001 }),
        line(&Line::Reply(&replies[0])),
        line(&Line::Summaries(&summaries)),
        line(&Line::Stats(&stats)),
        line(&Line::Error("did not discover any nodes")),
    ];
    for line in &lines {
        assert_eq!(line.lines().count(), 1);
        serde_json::from_str::<Value>(line).unwrap();
    }
    insta::assert_snapshot!("jsonl", lines.concat());
}
