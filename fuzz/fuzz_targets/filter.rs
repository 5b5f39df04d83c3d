//! Filters from the network: paths, comparisons, regular expressions and compound expressions end soon, whatever they say.
#![no_main]

use choria_filter::regex::{go_regex, go_regex_ignoring_case};
use choria_filter::semver::{Constraint, parse_version};
use choria_filter::{FilterMatcher, NodeView, facts};
use choria_protocol::filter::{FactFilter, FactOperator, Filter, parse_fact, parse_mixed};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &str| {
    let facts = json!({
        "country": "mt", "cores": 4, "load": 0.25, "prod": true, "none": null, "tags": ["a", "b"], "ports": [80, 443],
        "os": {"name": "Debian", "release": {"major": "11"}},
        "net": [{"if": "eth0", "ip": "10.0.0.1", "mtu": 1500}, {"if": "lo", "ip": "127.0.0.1", "mtu": 65536}],
    });
    let (agents, classes) = (vec!["rpcutil".to_owned()], vec!["role::web".to_owned()]);
    let node = NodeView::new("n1.example.net", &agents, &classes, &facts).at(1_795_169_188);
    let (left, right) = text.split_once('\0').unwrap_or((text, "x"));
    let mut filter = Filter::default();
    filter.add_class(text);
    filter.add_agent(text);
    filter.add_identity(text);
    let _ = FilterMatcher::new(&filter).matches(&node);
    for operator in FactOperator::ALL {
        let fact = FactFilter { fact: left.to_owned(), operator, value: right.to_owned() };
        let filter = Filter { fact: vec![fact], ..Filter::default() };
        let _ = FilterMatcher::new(&filter).matches(&node);
    }
    let mut filter = Filter::default();
    filter.add_compound(text);
    // What a client lets pass compiles on the node too.
    let checked = FilterMatcher::check(&filter);
    let matched = FilterMatcher::new(&filter).matches(&node);
    assert_eq!(checked.is_err(), matched.is_err_and(|error| error.reason() == "compile"));
    let _ = (facts::lookup(&facts, text), parse_fact(text), parse_mixed(text));
    let _ = (go_regex(text), go_regex_ignoring_case(text));
    if let (Ok(version), Ok(constraint)) = (parse_version(left), Constraint::parse(right)) {
        let _ = constraint.matches(&version);
    }
});
