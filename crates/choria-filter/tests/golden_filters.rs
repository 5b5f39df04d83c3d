//! Filters of the original's client over eight nodes (`testdata/cli/filters.jsonl`), and of its server over one
//! (`testdata/server/filter-matches.jsonl`). Rows that differ on purpose are in `docs/differences/choria-filter.md`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use choria_filter::{DataSource, DataSources, FilterMatcher, MatchError, NodeView, classes, facts, matches};
use choria_protocol::filter::{CompoundEntry, FactFilter, FactOperator, Filter, parse_fact};
use serde_json::{Value, json};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(testdata(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

struct Node {
    identity: String,
    collectives: Vec<String>,
    agents: Vec<String>,
    classes: Vec<String>,
    facts: Value,
    sources: Vec<DataSource>,
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn nodes() -> Vec<Node> {
    let document: Value = serde_json::from_slice(&std::fs::read(testdata("cli/nodes.json")).unwrap()).unwrap();
    let source = |(name, takes_query): (&str, bool)| DataSource { name: name.to_owned(), takes_query };
    document["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| Node {
            identity: node["identity"].as_str().unwrap().to_owned(),
            collectives: strings(&node["collectives"]),
            agents: strings(&node["agents"]),
            classes: classes::parse(&strings(&node["classes"]).join("\n")),
            facts: facts::normalized(node["facts"].clone()),
            sources: [("choria", false), ("config_item", true), ("machine_state", true), ("scout", true)]
                .map(source)
                .to_vec(),
        })
        .collect()
}

/// What the stock data plugins of the recorded nodes said, as far as the rows ask for it.
impl DataSources for Node {
    fn sources(&self) -> &[DataSource] {
        &self.sources
    }

    fn query(&self, name: &str, query: Option<&str>) -> Option<Value> {
        match (name, query) {
            ("choria", None) => Some(json!({
                "agents": self.agents, "agents_count": self.agents.len(), "classes": self.classes,
                "classes_count": self.classes.len(), "configfile": format!("/etc/{}/server.conf", self.identity),
                "connected_broker": "nats://localhost:25400", "machines": [], "machines_count": 0, "uptime": 100,
                "version": "0.30.2",
            })),
            ("config_item", Some(key)) => {
                let value = match key {
                    "loglevel" => json!("info"),
                    "collectives" => json!(self.collectives),
                    "main_collective" => json!(self.collectives[0]),
                    "registerinterval" => json!(300),
                    _ => return Some(json!({"present": false, "value": null})),
                };
                Some(json!({"present": true, "value": value}))
            }
            ("scout", Some(_)) => Some(json!({"name": null, "state": null, "history": null})),
            _ => None,
        }
    }
}

/// The filter and target collective of a command line, or the client's error.
fn parse(args: &[String]) -> Result<(Filter, Option<String>), String> {
    let (mut filter, mut target) = (Filter::default(), None);
    for pair in args.chunks(2) {
        let [flag, value] = pair else { return Err("odd arguments".to_owned()) };
        if value.is_empty() {
            continue;
        }
        let wrap = |error: choria_protocol::filter::ParseError| format!("could not parse filters: {error}");
        match flag.as_str() {
            "-F" => filter.add_fact(parse_fact(value).map_err(wrap)?),
            "-C" => filter.add_class(value.as_str()),
            "-A" => filter.add_agent(value.as_str()),
            "-I" => filter.add_identity(value.as_str()),
            "-W" => filter.add_mixed(value).map_err(wrap)?,
            "-S" => filter.add_compound(value.as_str()),
            "-T" => target = Some(value.clone()),
            other => return Err(format!("unknown flag {other}")),
        }
    }
    Ok((filter, target))
}

/// What we make of a row.
#[derive(Debug, PartialEq, Eq, Default)]
struct Outcome {
    nodes: BTreeSet<String>,
    compile_error: bool,
    run_errors: BTreeSet<String>,
    fact_errors: BTreeSet<String>,
}

fn evaluate(nodes: &[Node], filter: &Filter, target: Option<&str>) -> Outcome {
    let mut outcome = Outcome::default();
    let matcher = FilterMatcher::new(filter);
    for node in nodes.iter().filter(|node| target.is_none_or(|target| node.collectives.iter().any(|c| c == target))) {
        let view =
            NodeView::new(&node.identity, &node.agents, &node.classes, &node.facts).with_data(node).at(1_795_169_188);
        let identity = node.identity.clone();
        match matcher.matches(&view) {
            Ok(true) => drop(outcome.nodes.insert(identity)),
            Ok(false) => {}
            Err(MatchError::Compile { .. } | MatchError::NotAnExpression) => outcome.compile_error = true,
            Err(MatchError::Run { .. }) => drop(outcome.run_errors.insert(identity)),
            Err(MatchError::Fact { .. } | MatchError::Pattern { .. }) => drop(outcome.fact_errors.insert(identity)),
        }
    }
    outcome
}

/// Rows whose result is another one here, with the words that `docs/differences/choria-filter.md` has for it.
const DIFFERENT: &[(&str, &str)] = &[
    // Fact operators (spec 01 sharp edge 15, spec 05 §12 row 37).
    ("-F cores>4.0", "> with a decimal value"),
    ("-F mem>8.5", "> with a decimal value"),
    ("-F load>0.0", "> with a decimal value"),
    ("-F prod!=true", "!= on false"),
    ("-F prod!=TRUE", "!= on false"),
    ("-F prod!=tRuE", "!= on false"),
    ("-F prod!=false", "!= on false"),
    ("-F prod!=0", "!= on false"),
    ("-F prod!=yes", "!= on false"),
    ("-F beta!=true", "!= on false"),
    ("-F prod=/true/", "slashes around a boolean"),
    ("-F prod=/tRuE/", "slashes around a boolean"),
    // Classes (spec 01 sharp edge 16, spec 03 §17 row 50).
    ("-C Roles::Edge", "class with capitals"),
    ("-C roles::edge", "class with capitals"),
    ("-S with('Roles::Edge')", "class with capitals"),
    ("-C /^$/", "class without name"),
    ("-C /", "class without name"),
    ("-C //", "class without name"),
    ("-S len(classes) == 0", "class without name"),
    ("-S all(classes, # matches '^[a-z]')", "class without name"),
    ("-S classes[0] == 'apache'", "class without name"),
    ("-S classes == []", "class without name"),
    // Refused before sending.
    ("-W country =mt", "blank beside an operator"),
    // Found out before looking for the fact, so nodes without it log it too.
    ("-F country=/(/", "regular expression that does not compile"),
    ("-F country=~[", "regular expression that does not compile"),
];

#[test]
fn command_lines_match_the_nodes_they_matched() {
    let nodes = nodes();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let (mut ran, mut left_out) = (0, 0);
    for row in lines("cli/filters.jsonl") {
        let args = strings(&row["args"]);
        let name = args.join(" ");
        // What the command line parser of the original refuses is not a matter of filters; whether a collective is known
        // is one of the client's configuration.
        if row.get("usage_error").is_some() || name == "-T nosuch" {
            left_out += 1;
            continue;
        }
        ran += 1;
        let found = match parse(&args) {
            Err(error) => {
                if row.get("client_error").and_then(Value::as_str) != Some(&error) {
                    seen.insert(name.clone());
                    if !DIFFERENT.iter().any(|(row, _)| *row == name) {
                        wrong.push(format!("{name}: {error}"));
                    }
                }
                continue;
            }
            Ok((filter, target)) => {
                assert!(row.get("client_error").is_none(), "{name} is refused before it is sent");
                evaluate(&nodes, &filter, target.as_deref())
            }
        };
        let listed = |kind: &str| -> BTreeSet<String> {
            let errors = row.get("node_error").and_then(|errors| errors.get(kind));
            errors.filter(|value| value.is_array()).map(strings).unwrap_or_default().into_iter().collect()
        };
        let expected = Outcome {
            nodes: row.get("nodes").map(strings).unwrap_or_default().into_iter().collect(),
            compile_error: row.pointer("/node_error/compile").is_some(),
            run_errors: listed("run"),
            fact_errors: listed("fact"),
        };
        let different = DIFFERENT.iter().any(|(row, _)| *row == name);
        if found != expected {
            seen.insert(name.clone());
        }
        if (found != expected) != different {
            wrong.push(format!("{name}:\n  found    {found:?}\n  expected {expected:?}"));
        }
    }
    assert_eq!((ran, left_out), (541, 5));
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    let listed: BTreeSet<String> = DIFFERENT.iter().map(|(row, _)| (*row).to_owned()).collect();
    assert_eq!(seen, listed, "the list of differences is exact");
}

#[test]
fn server_filters_match_as_recorded() {
    let facts = facts::load([testdata("server/facts.yaml")]);
    assert!(facts.problems.is_empty());
    let classes = classes::load(&testdata("server/classes.txt")).unwrap();
    let agents = ["choria_util", "discovery", "parrot", "rpcutil", "scout"].map(str::to_owned).to_vec();
    let node = NodeView::new("n1.lab.test", &agents, &classes, &facts.facts);
    let rows = lines("server/filter-matches.jsonl");
    assert_eq!(rows.len(), 26);
    for row in rows {
        let mut filter = Filter::default();
        let of = &row["filter"];
        let list = |key: &str| of.get(key).map(strings).unwrap_or_default();
        filter.cf_class = list("cf_class");
        filter.agent = list("agent");
        filter.identity = list("identity");
        for fact in of.get("fact").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| fact[key].as_str().unwrap().to_owned();
            let operator = FactOperator::from_wire(&text("operator")).unwrap();
            filter.add_fact(FactFilter { fact: text("fact"), operator, value: text("value") });
        }
        for entries in of.get("compound").and_then(Value::as_array).into_iter().flatten() {
            let entries = entries.as_array().unwrap().iter();
            filter.compound.push(entries.map(|e| CompoundEntry::expression(e["expr"].as_str().unwrap())).collect());
        }
        // Class names with capitals can be found, and the empty line of the file is no class.
        let expected = match of.to_string().as_str() {
            r#"{"cf_class":["Alpha::Beta"]}"# | r#"{"cf_class":["alpha::beta"]}"# => true,
            r#"{"cf_class":[""]}"# => false,
            _ => row["matched"].as_bool().unwrap(),
        };
        assert_eq!(matches(&filter, &node).unwrap_or(false), expected, "{of}");
    }
}

#[test]
fn what_cannot_compile_is_found_before_it_is_sent() {
    for row in lines("cli/filters.jsonl") {
        let Ok((filter, _)) = parse(&strings(&row["args"])) else { continue };
        let bad_regex = ["-C /(/", "-A /(/", "-I /(/", "-F country=/(/", "-F country=~["];
        let name = strings(&row["args"]).join(" ");
        let expected = row.pointer("/node_error/compile").is_none() && !bad_regex.contains(&name.as_str());
        assert_eq!(FilterMatcher::check(&filter).is_ok(), expected, "{name}: {:?}", FilterMatcher::check(&filter));
    }
}

#[test]
fn sharp_edge_16_compound_filters_must_all_hold() {
    let facts = json!({});
    let node = NodeView::new("n1", &[], &[], &facts);
    let mut filter = Filter::default();
    filter.add_compound("true");
    filter.add_compound("true");
    assert!(matches(&filter, &node).unwrap());
    filter.add_compound("false");
    assert!(!matches(&filter, &node).unwrap(), "two true and one false do not match");
}

#[test]
fn compound_entries_that_are_no_expressions_never_match() {
    let facts = json!({});
    let node = NodeView::new("n1", &[], &[], &facts);
    for entries in [vec![], vec![CompoundEntry::expression("true"), CompoundEntry::expression("true")]] {
        let filter = Filter { compound: vec![entries], ..Filter::default() };
        assert_eq!(matches(&filter, &node), Err(MatchError::NotAnExpression));
    }
}

#[test]
fn provisioning_servers_have_no_data_plugins() {
    let facts = json!({});
    let node = NodeView::new("n1", &[], &[], &facts);
    let mut filter = Filter::default();
    filter.add_compound("choria().uptime > 0");
    assert_eq!(matches(&filter, &node).unwrap_err().reason(), "run");
}
