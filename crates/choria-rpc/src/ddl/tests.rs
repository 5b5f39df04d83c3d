use proptest::prelude::*;
use serde_json::json;

use super::*;

fn testdata(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn labtypes() -> Ddl {
    Ddl::parse(&std::fs::read(testdata("cli/labtypes-ddl.json")).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// Rows that end otherwise here, with what we do instead: the value that is sent, or the error.
fn different(args: &[String]) -> Option<Result<Value, &'static str>> {
    let [arg] = args else { return None };
    Some(match arg.as_str() {
        // Text is checked even without a length limit, and even by expressions that begin with a letter (spec 05 §12 row 18).
        "s0=" => Err("invalid value for 's0': input does not match '^[a-z]+$'"),
        "sre=" => Err("invalid value for 'sre': input does not match 'ab+c$'"),
        "sre=abcx" => Err("invalid value for 'sre': input does not match 'ab+c$'"),
        // Declared capitals can be reached (row 30).
        "Upper=x" | "upper=x" | "UPPER=x" => Ok(json!({"Upper": "x"})),
        // Refused here, not on the nodes.
        "h=null" => Err("invalid value for 'h': 'null' is not a valid JSON string with a hash inside"),
        "a=null" => Err("invalid value for 'a': 'null' is not a valid JSON string with an array inside"),
        // What JSON cannot hold is no number.
        "f=inf" => Err("invalid value for 'f': 'inf' is not a valid float"),
        "n=inf" => Err("invalid value for 'n': 'inf' is not a valid float"),
        "f=NaN" => Err("invalid value for 'f': 'NaN' is not a valid float"),
        "n=NaN" => Err("invalid value for 'n': 'NaN' is not a valid float"),
        _ => return None,
    })
}

#[test]
fn command_line_inputs_become_what_they_became() {
    let ddl = labtypes();
    let text = std::fs::read_to_string(testdata("cli/ddl-input.jsonl")).unwrap();
    let mut seen_different = 0;
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let args = strings(&row["args"]);
        let name = format!("{} {args:?}", row["action"]);
        let action = ddl.action(row["action"].as_str().unwrap()).unwrap();
        let pairs: Result<Vec<_>, _> = args.iter().map(|arg| parse_pair(arg)).collect();
        let pairs = match pairs {
            Ok(pairs) => pairs,
            Err(error) => {
                assert_eq!(format!("choria: error: {error}"), row["usage_error"].as_str().unwrap(), "{name}");
                continue;
            }
        };
        let converted = action.convert_cli_inputs(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let found = converted.map(|data| json!(data)).map_err(|error| error.to_string());
        if let Some(expected) = different(&args) {
            assert_eq!(found, expected.map_err(str::to_owned), "{name}");
            seen_different += 1;
            continue;
        }
        if row["accepted"] == json!(false) {
            let error = row["error"].as_str().unwrap().strip_prefix("invalid input: ").unwrap();
            assert_eq!(found, Err(error.to_owned()), "{name}");
            continue;
        }
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        // Numbers go out without a fraction when they have none; the echo shows what the node then saw.
        let sent: Value = serde_json::from_str(&choria_protocol::json::value_text(&found)).unwrap();
        if let Some(echo) = row.pointer("/data/echo") {
            assert_eq!(&sent, echo, "{name}");
        }
    }
    assert_eq!(seen_different, 12, "every listed difference is in the file");
}

#[test]
fn built_in_ddls_are_complete() {
    let names: Vec<_> = embedded_names().collect();
    assert_eq!(names, ["choria_provision", "choria_util", "rpcutil"]);
    for name in names {
        let ddl = embedded(name).unwrap();
        assert_eq!(ddl.metadata.name, name);
        assert_eq!(ddl.schema, "https://choria.io/schemas/mcorpc/ddl/v1/agent.json");
        for action in &ddl.actions {
            for (input, spec) in &action.input {
                assert!(!matches!(spec.kind, InputKind::Other(_)), "{name}#{} {input}", action.name);
                assert!(!spec.prompt.is_empty() && !spec.description.is_empty(), "{name}#{} {input}", action.name);
            }
            for aggregate in &action.aggregate {
                let output = aggregate.args[0].as_str().unwrap();
                assert!(action.output.contains_key(output), "{name}#{} {output}", action.name);
            }
        }
    }
    assert_eq!(
        embedded("rpcutil").unwrap().action_names(),
        [
            "agent_inventory",
            "collective_info",
            "daemon_stats",
            "get_config_item",
            "get_data",
            "get_fact",
            "get_facts",
            "inventory",
            "ping"
        ]
    );
    assert_eq!(
        embedded("choria_provision").unwrap().action_names(),
        ["configure", "gen25519", "gencsr", "jwt", "release_update", "reprovision", "restart", "shutdown"]
    );
    assert!(embedded("discovery").is_none());
}

#[test]
fn built_in_ddls_name_all_outputs_of_recorded_replies() {
    let text = std::fs::read_to_string(testdata("server/rpc-replies.jsonl")).unwrap();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (agent, action) = (row["agent"].as_str().unwrap(), row["action"].as_str().unwrap());
        let Some(ddl) = embedded(agent) else { continue };
        let Ok(action) = ddl.action(action) else {
            assert!(["nosuch", "PING", "", "list"].contains(&action), "{agent}#{action}");
            continue;
        };
        // What a data plugin gives has no fixed names.
        if action.name == "get_data" {
            continue;
        }
        for output in row["reply"]["data"].as_object().into_iter().flat_map(Map::keys) {
            assert!(action.output.contains_key(output), "{agent}#{} {output}", action.name);
        }
    }
}

#[test]
fn requests_are_checked_with_the_recorded_words() {
    let ddl = labtypes();
    let action = ddl.action("types").unwrap();
    let check =
        |data: Value, rules| action.validate_inputs(data.as_object().unwrap(), rules).map_err(|e| e.to_string());
    for (data, error) in [
        (json!({"s": 5}), "validation failed for input 's': is not a string"),
        (json!({"i": 10.5}), "validation failed for input 'i': is not an integer"),
        (json!({"i": "5"}), "validation failed for input 'i': is not an integer"),
        (json!({"f": "x"}), "validation failed for input 'f': is not a float"),
        (json!({"n": true}), "validation failed for input 'n': is not a number"),
        (json!({"b": 1}), "validation failed for input 'b': is not a boolean"),
        (json!({"h": []}), "validation failed for input 'h': is not a hash map"),
        (json!({"h": null}), "validation failed for input 'h': is not a hash map"),
        (json!({"a": {}}), "validation failed for input 'a': is not an array"),
        (json!({"l": "three"}), "validation failed for input 'l': should be one of one, two"),
        (json!({"s3": "abcd"}), "validation failed for input 's3': is longer than 3 characters"),
    ] {
        assert_eq!(check(data.clone(), InputRules::Strict), Err(error.to_owned()), "{data}");
    }
    for data in [json!({}), json!({"i": 10.0}), json!({"f": 10}), json!({"process_results": true, "l": "one"})] {
        assert_eq!(check(data.clone(), InputRules::Strict), Ok(()), "{data}");
    }
    let error = check(json!({"nosuch": 1}), InputRules::Strict).unwrap_err();
    assert!(
        error.starts_with(
            "request contains an input 'nosuch' that is not declared in the DDL. Valid inputs are: Upper, a, b"
        ),
        "{error}"
    );

    assert_eq!(check(json!({"nosuch": 1, "S": "x", "i": null}), InputRules::Lenient), Ok(()));
    assert!(check(json!({"S": 5}), InputRules::Lenient).is_err());
    let required = ddl.action("req").unwrap();
    for data in [json!({}), json!({"need": null})] {
        let error = required.validate_inputs(data.as_object().unwrap(), InputRules::Lenient).unwrap_err();
        assert_eq!(error, ValidationError::Required("dreq".to_owned()), "{data}");
    }
    let none = Action { input: BTreeMap::new(), ..required.clone() };
    let error = none.validate_inputs(json!({"a": 1}).as_object().unwrap(), InputRules::Strict).unwrap_err();
    assert_eq!(error.to_string(), "request contains inputs while none are declared in the DDL");
}

#[test]
fn validators_that_do_not_exist_are_warned_about_only() {
    let input = |validation: &str, maxlength: usize| Input {
        prompt: String::new(),
        description: String::new(),
        kind: InputKind::String,
        optional: true,
        default: None,
        validation: Validation::new(validation),
        maxlength,
        list: Vec::new(),
    };
    assert_eq!(input("bob", 0).validate(&json!("x")), Ok(()));
    assert_eq!(input("^bob", 0).validate(&json!("x")), Err("input does not match '^bob'".to_owned()));
    assert_eq!(input("bob|x.*", 0).validate(&json!("y")), Err("input does not match 'bob|x.*'".to_owned()));
    assert!(input("(?=x)", 0).validate(&json!("x")).is_err(), "no value passes what does not compile");
    assert_eq!(input("", 0).validate(&json!("x".repeat(100_000))), Ok(()));
}

#[test]
fn kinds_are_read_in_any_letter_case_and_unknown_ones_refuse_values() {
    for (text, kind) in
        [("STRING", InputKind::String), ("Hash", InputKind::Hash), ("blob", InputKind::Other("blob".into()))]
    {
        let input: Input = serde_json::from_value(json!({"type": text})).unwrap();
        assert_eq!(input.kind, kind);
    }
    let input: Input = serde_json::from_value(json!({"type": "blob"})).unwrap();
    assert_eq!(input.validate(&json!(1)), Err("unsupported type 'blob'".to_owned()));
    let list: Input = serde_json::from_value(json!({"type": "list"})).unwrap();
    assert_eq!(list.validate(&json!("a")), Err("input type of list without a valid list of items in DDL".to_owned()));
}

#[test]
fn ddls_survive_being_written() {
    let ddl = labtypes();
    let text = serde_json::to_string(&ddl).unwrap();
    assert_eq!(Ddl::parse(text.as_bytes()).unwrap(), ddl);
    assert_eq!(ddl.action("dnone").unwrap().display, Display::Failed, "a missing display means failed");
    assert_eq!(ddl.action("dok").unwrap().display, Display::Ok);
    assert_eq!(ddl.action("nosuch").unwrap_err().to_string(), "unknown action labtypes#nosuch");
}

#[test]
fn outputs_get_their_defaults_and_labels() {
    let ddl = labtypes();
    let action = ddl.action("status").unwrap();
    let mut data = Map::new();
    action.fill_output_defaults(&mut data);
    assert_eq!(json!(data), json!({"deflt": "dv"}));
    assert_eq!(action.label("deflt"), "Defaulted");
    assert_eq!(action.label("other"), "other");
}

fn aggregate(args: Value, function: &str, values: &[Value]) -> AggregateResult {
    let mut action = labtypes().action("mixed").unwrap().clone();
    action.aggregate = vec![Aggregate { function: function.to_owned(), args: args.as_array().unwrap().clone() }];
    let mut aggregates = Aggregates::new(&action);
    for value in values {
        aggregates.add(&Map::from_iter([("s".to_owned(), value.clone())]));
    }
    aggregates.results().remove(0).1
}

#[test]
fn aggregates_as_documented() {
    let booleans = [json!(true), json!(true), json!(false)];
    let names = json!(["s", {"true": "Enabled", "false": "Disabled"}]);
    let summary = aggregate(names, "summary", &booleans);
    assert_eq!(summary.to_json().to_string(), r#"{"Disabled":1,"Enabled":2}"#);
    assert_eq!(summary.to_lines(), [" Enabled: 2", "Disabled: 1"]);
    let formatted = aggregate(json!(["s", {"true": "Enabled", "format": "%s on %d node(s)"}]), "summary", &booleans);
    assert_eq!(formatted.to_lines(), ["Enabled on 2 node(s)", "false on 1 node(s)"]);
    let average =
        aggregate(json!(["s"]), "average", &[json!(1), json!(1.1), json!(100), json!("1"), json!("x"), json!(null)]);
    assert_eq!(average.to_lines(), ["Average: 25.775"]);
    assert_eq!(average.to_json(), json!({"average": 25.775}));
    let ties = aggregate(json!(["s"]), "boolean_summary", &[json!("b"), json!("a"), json!([1, "x"])]);
    assert_eq!(ties.to_lines(), ["[1,\"x\"]: 1", "      a: 1", "      b: 1"]);
    let chart = aggregate(json!(["s"]), "chart", &[json!(1), json!(2)]);
    assert_eq!(chart.to_lines().len(), 15);
    assert!(chart.to_json()["chart"].is_string());
}

#[test]
fn bad_aggregates_are_left_out_and_the_last_of_an_output_counts() {
    let mut action = labtypes().action("mixed").unwrap().clone();
    action.aggregate = serde_json::from_value(json!([
        {"function": "nosuch", "args": ["a"]}, {"function": "summary", "args": []}, {"function": "summary", "args": [5]},
        {"function": "summary", "args": ["s"]}, {"function": "average", "args": ["s"]},
    ]))
    .unwrap();
    let aggregates = Aggregates::new(&action);
    assert_eq!(aggregates.results(), [("s".to_owned(), AggregateResult::Average { average: 0.0, format: None })]);
}

#[test]
fn files_are_found_first_come_first_served() {
    let dir = tempfile::tempdir().unwrap();
    let write = |sub: &str, name: &str| {
        let path = dir.path().join(sub).join("agent/deeper/labtypes.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut ddl = labtypes();
        ddl.metadata.version = sub.to_owned();
        ddl.metadata.name = name.to_owned();
        std::fs::write(path, serde_json::to_string(&ddl).unwrap()).unwrap();
    };
    write("one/mcollective", "labtypes");
    write("two/choria", "labtypes");
    let dirs = [dir.path().join("missing"), dir.path().join("one"), dir.path().join("two")];
    let found = find("labtypes", &dirs).unwrap();
    assert_eq!(found.ddl.metadata.version, "one/mcollective");
    assert_eq!(found.shadowed.len(), 1);

    write("one/mcollective", "another");
    assert_eq!(find("labtypes", &dirs).unwrap_err().to_string(), "the DDL does not describe the labtypes agent");
    let error = find("nosuch", &dirs).unwrap_err().to_string();
    assert!(error.starts_with("could not resolve nosuch DDL in any resolver: looked in built-in agents, "), "{error}");
    assert!(find("../../one/mcollective/agent/deeper/labtypes", &dirs).is_err());
    assert_eq!(find("rpcutil", &dirs).unwrap().ddl, embedded("rpcutil").unwrap());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Ddl::parse(&bytes);
    }

    #[test]
    fn no_input_panics(name in "[a-zA-Z0-9]{0,6}", text in ".{0,20}") {
        let ddl = labtypes();
        for action in &ddl.actions {
            let _ = action.convert_cli_inputs([(name.as_str(), text.as_str())]);
            for input in action.input.keys() {
                let _ = action.convert_cli_inputs([(input.as_str(), text.as_str())]);
            }
        }
        let _ = parse_pair(&text);
    }

    #[test]
    fn numbers_survive_the_way(number in any::<i64>(), float in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
        let ddl = labtypes();
        let action = ddl.action("types").unwrap();
        let (whole, decimal) = (number.to_string(), float.to_string());
        let data = action.convert_cli_inputs([("i", whole.as_str()), ("f", decimal.as_str())]).unwrap();
        prop_assert_eq!(data["i"].as_i64(), Some(number));
        prop_assert_eq!(data["f"].as_f64(), Some(float));
    }
}
