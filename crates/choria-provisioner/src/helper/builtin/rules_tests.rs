use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::helper::builtin::decide::Verdict;
use crate::helper::builtin::template::View;

const ALL: Features = Features { pki: true, jwt: true };

fn read(text: &str) -> Result<RuleSet, ConfigError> {
    RuleSet::from_text(Path::new("r.yaml"), text, ALL)
}

fn error(text: &str) -> String {
    read(text).map(|_| ()).unwrap_err().to_string()
}

/// What becomes of a node: `TENANT/DC` of the setting `x`, or the reason.
fn judge(rules: &RuleSet, identity: &str) -> String {
    let facts = json!({"dc": "ams", "os": {"family": "Debian"}, "mem": 2048, "list": [1], "virtual": true});
    let claims = json!({"extensions": {"tenant": "t9"}, "ou": "choria"});
    let view = View { identity, ssldir: Some("/ssl"), facts: &facts, claims: &claims };
    match rules.judge(&view) {
        Verdict::Provision(rule, given) => match given.configuration(&view) {
            Ok(settings) => settings.get("x").cloned().unwrap_or_else(|| "nothing".to_owned()),
            Err(missing) => crate::helper::builtin::decide::lacks(rule, &missing),
        },
        Verdict::Defer(reason) => format!("defer: {reason}"),
        Verdict::Shutdown(reason) => format!("shutdown: {reason}"),
        Verdict::Deny(reason) => format!("deny: {reason}"),
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = read(
        "\
rules:
  - {name: old, identity: '*.old.net', shutdown: retired}
  - {identity: [bad1, '/^evil[0-9]+$/'], deny: not ours}
  - {facts: os.family=redhat, configuration: {x: redhat}}
  - {identity: 'web?.*', facts: [os.family=debian, 'mem>1024'], jwt: extensions.tenant=t9, configuration: {x: 'web-{{facts.dc}}-{{jwt.extensions.tenant}}'}}
  - {identity: 'w*', jwt: ['extensions.tenant!=t9'], configuration: {x: other tenant}}
  - {identity: 'lack*', configuration: {x: '{{facts.rack}}'}}
  - {identity: 'db*', facts: virtual=true, defer: no hardware yet}
",
    )
    .unwrap();
    for (identity, expected) in [
        ("a.old.net", "shutdown: retired, says rule old (r.yaml:2)"),
        ("bad1", "deny: not ours, says the rule at r.yaml:3"),
        ("evil17", "deny: not ours, says the rule at r.yaml:3"),
        ("evil17.net", "defer: no rule of r.yaml matches"),
        ("web1.example.net", "web-ams-t9"),
        ("web10.example.net", "defer: no rule of r.yaml matches"),
        ("lack1", "the rule at r.yaml:7 needs {{facts.rack}}: the node has none"),
        ("db1", "defer: no hardware yet, says the rule at r.yaml:8"),
    ] {
        assert_eq!(judge(&rules, identity), expected, "{identity}");
    }
    assert!(rules.needs_facts && rules.needs_claims);
    assert!(rules.warnings().iter().all(|warning| warning.contains("unknown key x")), "{:?}", rules.warnings());
}

#[test]
fn a_comparison_that_makes_no_sense_puts_the_node_off_and_opens_no_later_rule() {
    let rules = read("rules: [{facts: 'list>5', deny: too many}, {configuration: {x: open}}]").unwrap();
    let reason = judge(&rules, "n");
    assert!(reason.starts_with("defer: the rule at r.yaml:1 cannot be judged: could not evaluate"), "{reason}");
}

#[test]
fn defaults_lie_below_every_rule() {
    let rules = read(
        "\
defaults:
  configuration: {x: default, y: 1, collectives: mcollective}
  action_policies: {rpcutil.policy: \"policy default deny\\n\"}
  certificate: {validity: 30d}
rules:
  - {identity: a, configuration: {X: own}}
  - {identity: b, configuration: {}, certificate: {dns_names: 'b.{{jwt.ou}}.net'}}
",
    )
    .unwrap();
    let given = |index: usize| match &rules.rules[index].outcome {
        Outcome::Provision(given) => given,
        other => panic!("{other:?}"),
    };
    let keys: Vec<&str> = given(0).configuration.keys().map(String::as_str).collect();
    assert_eq!(keys, ["X", "collectives", "y"], "letter case of a setting makes no difference");
    assert_eq!(judge(&rules, "b"), "default");
    assert_eq!(given(1).action_policies.len(), 1);
    assert_eq!(given(0).certificate.validity, Duration::from_secs(30 * 24 * 3600));
    assert_eq!((given(0).certificate.dns_names.len(), given(1).certificate.dns_names.len()), (0, 1));
}

#[test]
fn numbers_and_booleans_count_as_they_were_written() {
    let text = "rules:\n- configuration:\n    a: 10\n    b: yes\n    c: false\n    d: 1.10\n    e: 0644\n    f: -3\n    g: '07'\n    h: \"\"\n    i: {not: this}\n";
    let fault = error(text);
    assert!(fault.starts_with("r.yaml:11:8: i must be text, found a mapping"), "{fault}");
    let rules = read(&text.replace("    i: {not: this}\n", "")).unwrap();
    let Outcome::Provision(given) = &rules.rules[0].outcome else { panic!("settings") };
    let values: Vec<&str> = given.configuration.values().map(|value| value.literal().unwrap()).collect();
    assert_eq!(values, ["10", "yes", "false", "1.10", "0644", "-3", "07", ""]);
    // In a flow mapping, and behind a byte order mark.
    let rules = read("\u{feff}rules: [{configuration: {a: 10, b: true}}]").unwrap();
    let Outcome::Provision(given) = &rules.rules[0].outcome else { panic!("settings") };
    assert_eq!(given.configuration["a"].literal(), Some("10"));
    assert_eq!(given.configuration["b"].literal(), Some("true"));
}

#[test]
fn faults_have_a_place_and_a_hint() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("", "r.yaml:1:1: the file holds no rules"),
        ("# nothing\n", "r.yaml:1:1: the file holds no rules"),
        ("rules: []\n", "r.yaml:1:1: the file holds no rules"),
        ("- a\n", "r.yaml:1:1: the file must hold rules, found a list"),
        ("rules:\n  - identity: x\n---\nrules: []\n", "second document"),
        ("rule:\n  - identity: x\n", "r.yaml:2:3: unknown key rule in the file, did you mean rules?"),
        ("rules:\n  - identiy: x\n", "r.yaml:2:14: unknown key identiy in a rule, did you mean identity?"),
        ("rules:\n  - claims: x\n", "unknown key claims in a rule, known are name, identity, facts, jwt"),
        ("rules:\n  - identity: x\n    identity: y\n    defer: z\n", "r.yaml"),
        ("rules:\n  - identity: x\n    Identity: y\n    defer: z\n", "r.yaml:3:15: Identity is set more than once"),
        ("rules: [5]\n", "r.yaml:1:9: a rule must be a mapping, found the number 5"),
        ("rules: [{identity: x}]\n", "r.yaml:1:9: the rule does not say what becomes of a node"),
        ("rules: [{defer: a, deny: b}]\n", "decides one thing, this one has defer and deny"),
        ("rules: [{defer: a, configuration: {}}]\n", "decides one thing, this one has defer and configuration"),
        ("rules: [{defer: ' '}]\n", "defer needs a reason"),
        ("rules: [{defer: yes}]\n", "defer must be text, found the boolean true; write it in quotes"),
        ("rules: [{identity: [], defer: a}]\n", "identity is an empty list"),
        ("rules: [{identity: 'a b', defer: a}]\n", "r.yaml:1:20: identity \"a b\" matches no node"),
        ("rules: [{identity: '/(/', defer: a}]\n", "r.yaml:1:20: \"(\" is not a valid regular expression"),
        ("rules: [{facts: os, defer: a}]\n", "r.yaml:1:17: "),
        ("rules: [{facts: [a=1, 'b=~/(/'], defer: a}]\n", "r.yaml:1:23: "),
        ("rules: [{jwt: tenant=t9, defer: a}]\n", "tokens have no claim tenant"),
        ("rules: [{jwt: cht=x, defer: a}]\n", "is a secret"),
        ("rules:\n- configuration:\n    a: '{{fact.dc}}'\n", "r.yaml:3:8: unknown variable {{fact.dc}}"),
        ("rules: [{configuration: {a: '{{identity'}}]\n", "is not closed"),
        ("rules: [{configuration: {a: }}]\n", "a has no value"),
        ("rules: [{configuration: {'a=b': x}}]\n", "configuration key \"a=b\" cannot be written"),
        ("rules: [{configuration: {a: \"x\\ny: z\"}}]\n", "value of a holds a line end"),
        (
            "rules: [{configuration: {registerinterval: soon}}]\n",
            "r.yaml:1:44: registerinterval = soon is not a setting of a node",
        ),
        ("rules: [{action_policies: {../x.policy: z}}]\n", "is not a file name such as rpcutil.policy"),
        ("rules: [{opa_policies: {x.policy: z}}]\n", "is not a file name such as rpcutil.rego"),
        (
            "rules: [{opa_policies: {x.rego: 5}}]\n",
            "opa_policies: x.rego must be the text of a policy, found the number 5",
        ),
        ("rules: [{certificate: {validity: 0s}}]\n", "validity must be longer than nothing"),
        ("rules: [{certificate: {validity: 101y}}]\n", "validity must be longer than nothing and at most 100y"),
        ("rules: [{certificate: {validity: long}}]\n", "validity: "),
        ("rules: [{certificate: {valid: 1y}}]\n", "unknown key valid in certificate"),
        ("rules: [{certificate: {dns_names: '{{facts.fqdn}}'}}]\n", "facts are what the node says of itself"),
        ("rules: [{configuration: {identity: '{{facts.fqdn}}'}}]\n", "facts are what the node says of itself"),
        ("rules: {a: b}\n", "rules must be a list, found a mapping"),
        ("rules: [\n", "file r.yaml could not be parsed: yaml: line"),
    ] {
        let error = error(text);
        if !error.contains(expected) || !error.contains("r.yaml") {
            wrong.push(format!("{text:?}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_needs_a_feature_says_so() {
    let without = Features { pki: false, jwt: false };
    for (rule, expected) in [
        ("{jwt: ou=x, defer: a}", "needs features.jwt"),
        ("{configuration: {a: '{{jwt.ou}}'}}", "{{jwt.ou}} needs features.jwt"),
        ("{configuration: {a: '{{ssldir}}'}}", "{{ssldir}} needs features.pki"),
        ("{certificate: {validity: 1y}}", "certificate needs features.pki"),
    ] {
        let text = format!("rules: [{rule}]");
        let error = RuleSet::from_text(Path::new("r.yaml"), &text, without).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{rule}: {error}");
        assert!(read(&text).is_ok(), "{rule}");
    }
}

#[test]
fn what_is_odd_is_a_warning() {
    let rules = read(
        "rules:\n- {identity: ['x', '*'], configuration: {plugin.choria.middleware_host: b}}\n- {identity: z, defer: never}\n",
    )
    .unwrap();
    let [unknown, unreached] = rules.warnings() else { panic!("{:?}", rules.warnings()) };
    assert!(unknown.starts_with("r.yaml:2:") && unknown.contains("plugin.choria.middleware_hosts"), "{unknown}");
    assert!(unreached.starts_with("r.yaml:3:3: this rule is never reached, the rule at r.yaml:2"), "{unreached}");
}

#[test]
fn globs_match_the_whole_name() {
    for (pattern, name, expected) in [
        ("*", "anything.at.all", true),
        ("*.net", "a.b.net", true),
        ("*.net", "net", false),
        ("web?", "web1", true),
        ("web?", "web", false),
        ("web?", "web12", false),
        ("a*b*c", "a--b--c", true),
        ("a*b*c", "a--b--", false),
        ("**a", "aaa", true),
        ("WEB*", "web1", false),
    ] {
        assert_eq!(IdentityPattern::parse(pattern).unwrap().matches(name), expected, "{pattern} {name}");
    }
}

#[test]
fn a_hostile_glob_costs_no_time_that_matters() {
    let name = "a".repeat(255);
    assert!(!glob("*a".repeat(100).as_bytes(), format!("{name}b").as_bytes()));
}

proptest! {
    #[test]
    fn globs_agree_with_regular_expressions(pattern in "[ab*?.]{0,8}", name in "[ab.]{0,8}") {
        let regex: String = pattern
            .chars()
            .map(|c| match c { '*' => ".*".to_owned(), '?' => ".".to_owned(), '.' => "\\.".to_owned(), c => c.to_string() })
            .collect();
        let expected = Regex::new(&format!("^{regex}$")).unwrap().is_match(&name);
        prop_assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected);
    }

    #[test]
    fn any_text_is_read_or_refused(text in r#"[a-z{}\[\]:,"'*/=~.0-9 \n-]{0,60}"#) {
        let _ = read(&text);
        let _ = read(&format!("rules:\n- configuration:\n    a: {text}"));
        let _ = read(&format!("rules: [{{facts: {text}, defer: a}}]"));
        let _ = read(&format!("rules: [{{identity: {text}, defer: a}}]"));
    }

    #[test]
    fn what_is_written_is_what_the_node_gets(value in "[a-z0-9.]{1,12}", quoted in any::<bool>()) {
        let text = if quoted { format!("'{value}'") } else { value.clone() };
        // Plain words that YAML takes for something odd are refused, never changed.
        if let Ok(rules) = read(&format!("rules: [{{configuration: {{x: {text}}}}}]")) {
            prop_assert_eq!(judge(&rules, "n"), value);
        } else {
            prop_assert!(!quoted);
        }
    }
}
