//! Crafted requests whose fate is decided by their filter (`testdata/protocol/v1/crafted`), on the node they were sent to.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use choria_filter::{NodeView, matches};
use choria_protocol::v1;
use serde_json::{Value, json};

fn request(name: &str) -> (v1::Request, Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/protocol/v1/crafted").join(name);
    let row: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let request = v1::decode_request(row["wire"].as_str().unwrap().as_bytes()).unwrap().request;
    (request, row)
}

fn matched(name: &str) -> bool {
    let facts = json!({"country": "mt", "serial": 17, "load": 1.9});
    let agents = ["choria_util", "discovery", "rpcutil", "scout"].map(str::to_owned);
    let node = NodeView::new("node0.lab.test", &agents, &[], &facts);
    matches(&request(name).0.envelope.filter, &node).unwrap_or(false)
}

#[test]
fn filters_decide_as_recorded() {
    for (name, expected) in [
        ("valid.json", true),
        ("agent-unknown-with-agent-filter.json", false),
        ("identity-filter-of-another-node.json", false),
        ("identity-filter-bad-regex.json", false),
        ("compound-statement-key.json", false),
        ("compound-syntax-error.json", false),
        ("filter-without-agent-key.json", true),
    ] {
        assert_eq!(matched(name), expected, "{name}");
        let (_, row) = request(name);
        assert_eq!(row["original"] != "refused", expected, "{name}: as the original");
    }
}

#[test]
fn two_true_and_one_false_expression_do_not_match() {
    let (_, row) = request("compound-two-true-one-false.json");
    assert_eq!(row["original"], "replied");
    assert!(!matched("compound-two-true-one-false.json"));
}
