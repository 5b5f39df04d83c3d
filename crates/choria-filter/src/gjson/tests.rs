use proptest::prelude::*;
use serde_json::json;

use super::*;

fn document() -> Value {
    json!({
        "country": "mt", "cores": 4, "load": 0.25, "prod": true, "nothing": null, "empty": {},
        "os": {"family": "Debian", "name": "debian", "release": {"major": "11"}},
        "tags": ["a", "b"], "ports": [80, 443], "none": [],
        "net": [{"if": "eth0", "ip": "10.0.0.1", "mtu": 1500}, {"if": "lo", "ip": "127.0.0.1", "mtu": 65536}],
        "dotted.key": "yes", "star*": "s", "deep": [[1, [2]], 3], "text": "{\"a\":[1]}",
        "table": {"id": [1, 2], "name": ["x", "y"]}
    })
}

fn look(path: &str) -> Option<Value> {
    get(&document(), path).unwrap().map(Cow::into_owned)
}

#[test]
fn paths_give_what_the_language_defines() {
    for (path, expected) in [
        ("country", json!("mt")),
        ("os.release.major", json!("11")),
        ("os|name", json!("debian")),
        ("os.*", json!("Debian")),
        ("os.n?me", json!("debian")),
        ("os.*.major", json!("11")),
        ("dotted\\.key", json!("yes")),
        ("star\\*", json!("s")),
        ("tags.1", json!("b")),
        ("tags.#", json!(2)),
        ("tags|#", json!(2)),
        ("none.#", json!(0)),
        ("net.#.ip", json!(["10.0.0.1", "127.0.0.1"])),
        ("net.#.ip|0", json!("10.0.0.1")),
        ("net.#.nope", json!([])),
        ("tags.#.x", json!([])),
        ("net.#(if==\"eth0\").ip", json!("10.0.0.1")),
        ("net.#(if=eth0).mtu", json!(1500)),
        ("net.#(mtu>=9000).if", json!("lo")),
        ("net.#(mtu>1)#.if", json!(["eth0", "lo"])),
        ("net.#(mtu>1)#.if|#", json!(2)),
        ("net.#(mtu>99999)#", json!([])),
        ("net.#(ip%\"10.*\").if", json!("eth0")),
        ("net.#(ip!%\"10.*\").if", json!("lo")),
        ("net.#(if).if", json!("eth0")),
        ("tags.#(==\"a\")", json!("a")),
        ("ports.#(>400)", json!(443)),
        ("deep.#(#>1).0", json!(1)),
        ("country|@this", json!("mt")),
        ("@this.country", json!("mt")),
        ("ports.@reverse.0", json!(443)),
        ("os.@keys.0", json!("family")),
        ("os.@values.1", json!("debian")),
        ("tags.@tostr", json!("[\"a\",\"b\"]")),
        ("text.@fromstr.a.0", json!(1)),
        ("deep.@flatten", json!([1, [2], 3])),
        ("deep.@flatten:{\"deep\":true}", json!([1, 2, 3])),
        ("deep.@flatten:{\"deep\":true}.2", json!(3)),
        ("net.@join.if", json!("lo")),
        ("table.@group.1.name", json!("y")),
        ("@dig:mtu", json!([1500, 65536])),
        ("[country,cores]", json!(["mt", 4])),
        ("{country,\"c\":cores,nope}", json!({"country": "mt", "c": 4})),
        ("os.{family,x:name}.x", json!("debian")),
        ("nothing", json!(null)),
        ("!\"x\"", json!("x")),
        ("..#", json!(1)),
        ("..0.country", json!("mt")),
    ] {
        assert_eq!(look(path), Some(expected), "{path}");
    }
}

#[test]
fn paths_that_lead_nowhere() {
    for path in [
        "",
        "nope",
        "COUNTRY",
        "country.x",
        "tags.9",
        "tags.x",
        "tags.-1",
        "dotted.key",
        "os.",
        ".os",
        "net.#(if==\"x\").ip",
        "net.#(",
        "net.#(if==\"eth0\"",
        "net.#()x",
        "[",
        "{",
        "[country",
        "@nope",
        "@",
        "!",
        "!x",
        "\\",
        "os.\\",
        "none.0",
        "#",
        "*x",
    ] {
        assert_eq!(look(path), None, "{path}");
    }
}

#[test]
fn design6_paths_that_ask_for_too_much_are_given_up() {
    let facts = document();
    let doubling = "[@this,@this]|".repeat(100);
    assert_eq!(get(&facts, &doubling), Err(PathError::Costly));
    assert_eq!(get(&facts, &"@this|".repeat(100)), Err(PathError::Deep));
    let wide = format!("[{}]", vec!["@this"; 300].join(","));
    assert_eq!(get(&facts, &format!("{wide}|{wide}|#")), Err(PathError::Costly));
    let escaping = "@tostr|".repeat(30);
    assert_eq!(get(&facts, &escaping), Err(PathError::Costly));
    let nested = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    assert_eq!(get(&facts, &nested), Err(PathError::Deep));
    assert_eq!(get(&facts, &"a".repeat(MAX_PATH + 1)), Err(PathError::Long));
    let long = Value::String("a".repeat(60_000));
    assert_eq!(get(&json!([long]), &format!("#(%\"{}b\")", "*a".repeat(1000))), Err(PathError::Costly));
}

proptest! {
    #[test]
    fn no_path_panics(path in r#"[a-z.|#@()\[\]{}:,"!=<>%~*?\\0-9é]{0,40}"#) {
        let _ = get(&document(), &path);
    }

    #[test]
    fn no_composition_of_parts_panics(parts in proptest::collection::vec(prop_oneof![
        Just("os"), Just("net"), Just("#"), Just("#(if==\"lo\")"), Just("#(mtu>1)#"), Just("@this"), Just("@reverse"),
        Just("@keys"), Just("@tostr"), Just("@fromstr"), Just("@dig:mtu"), Just("@group"), Just("@join"), Just("[os,net]"),
        Just("{a:os}"), Just("*"), Just("0"), Just("!1"), Just("@flatten:{\"deep\":true}")
    ], 0..12), separators in proptest::collection::vec(prop_oneof![Just("."), Just("|")], 12)) {
        let mut path = String::new();
        for (part, separator) in parts.iter().zip(&separators) {
            path.push_str(part);
            path.push_str(separator);
        }
        let _ = get(&document(), &path);
        let _ = get(&document(), path.trim_end_matches(['.', '|']));
    }
}
