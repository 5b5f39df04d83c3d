//! The language beyond the recorded rows, what errors say, and that any text comes to an end.
#![allow(clippy::unwrap_used, reason = "tests may stop at the first surprise")]

mod common;

use common::Stage;
use nats_config::settings::{HandshakeFirst, ImportKind, JetStream, Limit, Port, Settings, SyncInterval};
use nats_config::{ConfigError, Loaded};
use proptest::prelude::*;

/// What an error says.
fn refusal(text: &str) -> String {
    Stage::new(text).load().expect_err(text).to_string()
}

fn load(text: &str) -> Loaded {
    Stage::new(text).load().unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn settings(text: &str) -> Settings {
    load(text).settings
}

fn warnings(text: &str) -> Vec<String> {
    load(text).warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn an_error_shows_the_line_and_the_place() {
    assert_eq!(
        refusal("port: 4222\nmax_payload: \"1KB\"\n"),
        "/etc/nats/main.conf:2:14: max_payload is a text, expected a whole number\n\
         \x20 2 | max_payload: \"1KB\"\n\
         \x20   |              ^\n\
         \x20 hint: numbers and sizes are written without quotes: 1024, 64KB, 8MB"
    );
    assert_eq!(
        refusal("\tmax_paylod: 1"),
        "/etc/nats/main.conf:1:2: the configuration has no setting max_paylod\n\
         \x20 1 |  max_paylod: 1\n\
         \x20   |  ^\n\
         \x20 hint: did you mean `max_payload`?"
    );
    assert_eq!(
        refusal("ping_interval: 5m"),
        "/etc/nats/main.conf:1:16: ping_interval: without quotes this is a size, not a number of minutes\n\
         \x20 1 | ping_interval: 5m\n\
         \x20   |                ^\n\
         \x20 hint: write minutes in quotes: \"5m\""
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let Err(ConfigError::Invalid(problems)) =
        Stage::new("port: x\nzzz: 1\nauthorization { users: [{user: a}, 5] }").load()
    else {
        panic!("accepted");
    };
    let places: Vec<_> = problems.iter().map(|problem| (problem.at.line, problem.at.column)).collect();
    assert_eq!(places, [(1, 7), (2, 1), (3, 36)]);
}

#[test]
fn no_secret_is_shown() {
    for text in [
        "authorization { user: a, password: hunter2, zzz: 1 }",
        "authorization { users: [{user: a, pass: \"hunter2\", zzz: 1}] }",
        "authorization { token: hunter2, token: 5 zzz }",
        "authorization { password: \"hunter2\\q\" }",
        "authorization { \"password\": [\"hunter2\"] zzz }",
        "authorization { password: hunter2 zzz }",
        "authorization { password: \"first\nhunter2\\q\" }",
    ] {
        let error = refusal(text);
        assert!(!error.contains("hunter2"), "{error}");
    }
    let loaded = load("authorization { user: a, password: hunter2 }");
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn a_long_line_is_cut() {
    let text = format!("server_tags: [{}]\nmax_payload: x", "a, ".repeat(100));
    assert!(refusal(&text.replace('\n', " ")).lines().all(|line| line.chars().count() < 120));
    assert!(refusal(&format!("{{{}: 1}}", "x".repeat(10_000))).len() < 400);
}

#[test]
fn what_separates() {
    for text in [
        "port: 1;",
        "port 1",
        "port=1",
        "{port:1}",
        "{\n\"port\": 1\n}\n",
        "'PORT': 1 // c",
        "port: 1,\n# c\n",
        "port: 1\r\n",
        "\u{feff}port: 1",
        "{port: 1,}",
    ] {
        assert_eq!(settings(text).port.as_deref(), Some(&Port::Number(1)), "{text:?}");
    }
    for text in [
        "port: 1,,",
        ", port: 1",
        "port: 1 debug: true",
        "port:",
        "port: # c",
        "port:\n1",
        "port\n1",
        "port: : 1",
        ": 1",
        "jetstream{}",
        "jetstream { enabled: true",
        "server_tags: [a b]",
        "server_tags: [a;b]",
        "server_tags: [a,,b]",
        "server_tags: [,a]",
        "server_tags: [a\n,b]",
        "server_tags: [a",
        "server_name: 'a",
        "server_name: \"a\\q\"",
        "server_name: \"\\x4\"",
        "server_name: \"\\xff\"",
        "server_name: (a)",
        "server_name: a'b",
        "server_name: a\0b",
        "{port: 1} debug: true",
        "}",
        "include",
        "include \"\"",
        "server_name: $",
    ] {
        assert!(Stage::new(text).load().is_err(), "{text:?}");
    }
}

#[test]
fn a_value_may_stand_on_the_next_line_within_blocks() {
    for text in [
        "websocket { port:\n\n 1, no_tls: true }",
        "websocket\n{ port =\n 1; no_tls: true }",
        "websocket {\n no_tls: true\n port\n : 1 }",
    ] {
        assert_eq!(settings(text).websocket.unwrap().port.as_deref(), Some(&Port::Number(1)), "{text:?}");
    }
    assert_eq!(settings("accounts\n{ A\n {}\n B:\n {} }").accounts.len(), 2);
    for text in
        ["{\"port\":\n 1}", "accounts:\n {}", "websocket { port:\n }", "websocket { port\n 1 }", "websocket { port }"]
    {
        assert!(refusal(text).contains("has no value"), "{text:?}");
    }
}

#[test]
fn texts() {
    for (text, name) in [
        ("a\\tb", "a\tb"),
        ("\"a\\x41\\n\\\"\"", "aA\n\""),
        ("'a\\tb'", "a\\tb"),
        ("\"a\nb\"", "a\nb"),
        ("(\n)x\na)\n)\n", "\n)x\na)\n"),
        ("http://x:1/y?z=1", "http://x:1/y?z=1"),
        ("$2a$04$abc", "$2a$04$abc"),
        ("\"\\xc3\\xa9\"", "é"),
        ("1abc", "1abc"),
    ] {
        assert_eq!(settings(&format!("server_name: {text}")).server_name.unwrap().value, name);
    }
}

#[test]
fn variables_see_what_is_above_and_around_them() {
    let loaded = settings("P: secret\nauthorization { users: [{user: a, password: $P}, {user: b, password: $P}] }");
    assert!(
        loaded.authorization.unwrap().users.iter().all(|user| user.password.as_ref().unwrap().expose() == "secret")
    );
    assert!(refusal("XX: 1\nserver_tags: [$XY]").contains("variable XY is not defined"));
    let stage = |value| Stage::new("server_tags: $TAGS").variable("TAGS", value);
    assert_eq!(stage("[a, b]").load().unwrap().settings.server_tags, ["a", "b"]);
    assert_eq!(stage("a # comment").load().unwrap().settings.server_tags, ["a"]);
    for value in ["a b", "a\nb", "[a", "$TAGS", "{a: $TAGS}", "a,b"] {
        assert!(stage(value).load().is_err(), "{value}");
    }
}

#[test]
fn included_files_are_named_in_errors_and_see_nothing_outside() {
    let stage = Stage::new("debug: true\ninclude 'sub/a.conf'").file("sub/a.conf", "\n include ../b.conf\n");
    assert!(
        stage.load().unwrap_err().to_string().starts_with("/etc/nats/sub/a.conf:2:10: the file cannot be included")
    );
    let error = refusal("include \"a\nb\"");
    assert_eq!(error.lines().count(), 3, "{error}");
    let stage = Stage::new("include 'a.conf'").file("a.conf", "\nzzz: 1");
    assert!(
        stage.load().unwrap_err().to_string().starts_with("/etc/nats/a.conf:2:1: the configuration has no setting zzz")
    );
    let stage = Stage::new("include a.conf").file("a.conf", "include b.conf").file("b.conf", "include ./a.conf");
    assert!(stage.load().unwrap_err().to_string().contains("a.conf includes itself"));
    let stage = Stage::new("accounts { include a.conf, B {} }").file("a.conf", "A { users: [{user: a, password: b}] }");
    let accounts = stage.load().unwrap().settings.accounts;
    assert_eq!(accounts.iter().map(|account| account.name.as_str()).collect::<Vec<_>>(), ["A", "B"]);
}

/// Small texts that ask for much.
#[test]
fn what_a_text_can_ask_for_is_bounded() {
    assert!(refusal(&"[".repeat(100_000).replacen('[', "a: [", 1)).contains("more than 64"));
    assert!(refusal(&"a {".repeat(100_000)).contains("more than 64"));
    // Each variable is ten times the one before.
    let mut bomb = "A0: [x]\n".to_owned();
    for level in 1..20 {
        let before = format!("$A{},", level - 1).repeat(10);
        bomb.push_str(&format!("A{level}: [{before}]\n"));
    }
    assert!(refusal(&bomb).contains("too large"));
    // Each is one deeper.
    let mut tower = "A0: [x]\n".to_owned();
    for level in 1..1000 {
        tower.push_str(&format!("A{level}: [$A{}]\n", level - 1));
    }
    assert!(refusal(&tower).contains("more than 64"));
    // What a lookup in what came before would take hours for.
    let many: String = (0..20_000).map(|number| format!("s{number}: d\n")).collect();
    assert_eq!(settings(&format!("mappings {{ {many} }}")).mappings.len(), 20_000);
    let many: String =
        (0..20_000).map(|number| format!("{{destination: d, weight: 1, cluster: c{number}}}\n")).collect();
    assert_eq!(settings(&format!("mappings {{ s: [{many}] }}")).mappings[0].destinations.len(), 20_000);
    let many: String =
        (0..20_000).map(|number| format!("A{number} {{ users: [{{user: u{number}, password: p}}] }}\n")).collect();
    assert_eq!(settings(&format!("accounts {{ {many} }}")).accounts.len(), 20_000);
    // Variables that name themselves.
    let stage = Stage::new("server_tags: $E").variable("E", "[$F, $F]").variable("F", "[$E, $E]");
    assert!(stage.load().is_err());
    // Each file includes the next one twice.
    let mut stage = Stage::new("include 0.conf");
    for level in 0..31 {
        stage = stage.file(&format!("{level}.conf"), &format!("include {0}.conf; include {0}.conf", level + 1));
    }
    assert!(stage.file("31.conf", "").load().unwrap_err().to_string().contains("files are included"));
}

#[test]
fn a_repeated_setting_is_told() {
    let told = warnings("port: 1\nPORT: 2");
    assert!(told[0].contains("main.conf:1:1: port is set again in line 2, and only that counts"), "{told:?}");
    assert_eq!(settings("host: a\nnet: b").host.unwrap().value, "b");
    assert_eq!(settings("accounts { A {nkey: x}\n A {} }").accounts.len(), 1);
}

#[test]
fn listen_is_host_and_port() {
    for (text, host, port) in [
        ("listen: 4223", None, Port::Number(4223)),
        ("listen: \"127.0.0.1:4223\"", Some("127.0.0.1"), Port::Number(4223)),
        ("listen: localhost:-1", Some("localhost"), Port::Free),
        ("listen: \"[::1]:0\"", Some("::1"), Port::Default),
        ("listen: \":1\"", None, Port::Number(1)),
        ("port: -1", None, Port::Free),
    ] {
        let settings = settings(text);
        assert_eq!(settings.host.as_ref().map(|host| host.as_str()), host, "{text}");
        assert_eq!(settings.port.as_deref(), Some(&port), "{text}");
    }
    for text in
        ["listen: abc", "listen: \"4222\"", "listen: \"a:b\"", "port: 70000", "port: -5", "listen: \"::1:4222\""]
    {
        assert!(Stage::new(text).load().is_err(), "{text}");
    }
}

#[test]
fn permissions_keep_the_difference_between_none_and_nothing() {
    let text = "authorization { users: [{user: a, password: b, permissions: {
        pub: [], subscribe: {deny: [\"a  q.*\", b]}, allow_responses: {max: -1, expires: \"-1s\"}}}] }";
    let user = settings(text).authorization.unwrap().value.users.remove(0);
    let permissions = user.permissions.unwrap();
    assert_eq!(permissions.publish.allow.as_deref(), Some(&[][..]));
    assert_eq!(permissions.subscribe.allow, None);
    let denied: Vec<_> = permissions.subscribe.deny.iter().map(|entry| entry.as_str()).collect();
    assert_eq!(denied, ["a q.*", "b"]);
    let responses = permissions.responses.unwrap();
    assert_eq!((*responses.max.unwrap(), responses.expires.unwrap().nanos), (-1, -1_000_000_000));
}

#[test]
fn imports_and_mappings() {
    let text = "accounts {
        A { exports: [{stream: \"a.>\"}, {service: s, latency: {sampling: headers, subject: l}}, {service: \"t.*\", account_token_position: 2}] }
        B { imports: [{stream: {account: A, subject: \"a.*\"}, prefix: p}, {service: {account: A, subject: s}, to: t, share: true}]
            mappings { x: y, z: [{destination: z1, weight: 20%}, {dest: z2, weight: 30, cluster: c}] }
            limits { max_conn: -1, max_subs: 5 } } }";
    let mut accounts = settings(text).accounts;
    let b = accounts.pop().unwrap();
    assert_eq!(b.imports[0].to.as_ref().unwrap().value, "p.a.*");
    assert_eq!(b.imports[1].kind, ImportKind::Service { share: true });
    assert_eq!(b.imports[1].at.line, 3);
    assert_eq!(b.mappings[1].destinations.iter().map(|d| d.weight).collect::<Vec<_>>(), [20, 30]);
    assert_eq!(b.limits.max_connections.as_deref(), Some(&Limit::None));
    for (text, reason) in [
        ("exports: [{service: a, stream: b}]", "a stream and a service at once"),
        ("exports: [{}]", "neither"),
        ("exports: [{service: a, accounts: [Z]}]", "there is no account Z"),
        ("exports: [{service: \"a.b\", account_token_position: 2}]", "no `*`"),
        ("imports: [{stream: {account: A}}]", "needs `account` and `subject`"),
        ("imports: [{stream: {account: A, subject: \"a.$1\"}}]", "`$1` has no meaning"),
        ("imports: [{service: {account: Z, subject: a}}]", "there is no account Z"),
        ("mappings { a: [{destination: b}] }", "needs its `weight`"),
        ("mappings { a: 5 }", "expected a subject"),
        ("msg_trace: {dest: \"a.*\"}", "without wildcards"),
        ("nkey: UA", "public key of an account"),
        ("limits: {zzz: 1}", "limits has no setting zzz"),
    ] {
        let error = refusal(&format!("accounts {{ A {{}}\n B {{ {text} }} }}"));
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn tls_and_websocket() {
    let text = "tls { cert_file: c, key_file: k, handshake_first: 300ms, min_version: \"1.3\", timeout: 2.5,
        cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA] }
        websocket { listen: \"0.0.0.0:8080\", no_tls: true, allowed_origins: \"http://x\", handshake_timeout: 2 }";
    let loaded = load(text);
    let tls = loaded.settings.tls.as_ref().unwrap();
    assert_eq!(**tls.handshake_first.as_ref().unwrap(), HandshakeFirst::Within(std::time::Duration::from_millis(300)));
    assert_eq!(tls.timeout.as_ref().unwrap().nanos, 2_500_000_000);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(!loaded.warnings[0].fails_check);
    for text in [
        "tls { cert_file: c }",
        "tls { min_version: \"1.1\" }",
        "websocket { port: 8080 }",
        "tls { pinned_certs: [abc] }",
        "tls { cipher_suites: [X] }",
    ] {
        assert!(Stage::new(text).load().is_err(), "{text}");
    }
}

#[test]
fn what_this_broker_has_not_is_listed() {
    let text = "cluster { name: c, listen: \"x:1\" }\nleafnodes {}\nmqtt { port: 1 }\nresolver: URL(http://x)
        authorization { auth_callout {} }\nsyslog: false\nprof_port: 5";
    let loaded = load(text);
    let names: Vec<_> = loaded.settings.unsupported.iter().map(|unsupported| unsupported.name.as_str()).collect();
    assert_eq!(names, ["cluster", "mqtt", "resolver", "authorization.auth_callout"]);
    assert_eq!(loaded.settings.cluster_name.unwrap().value, "c");
    assert_eq!(settings("cluster { name: c }").unsupported, []);
    assert!(loaded.warnings[0].to_string().contains("prof_port has no effect"));
}

#[test]
fn jetstream_is_kept() {
    let text = "store_dir: /a\njetstream { max_mem: \"1G\", max_file: 2GB, sync: always, domain: hub }";
    let jetstream = settings(text).jetstream.unwrap().value;
    assert_eq!(jetstream.store_dir.unwrap().value, "/a");
    assert_eq!(jetstream.max_memory_store.as_deref(), Some(&Limit::Of(1_000_000_000)));
    assert_eq!(jetstream.sync_interval.as_deref(), Some(&SyncInterval::Always));
    for (text, enabled) in
        [("enabled", true), ("true", true), ("{}", true), ("disabled", false), ("{enabled: no}", false)]
    {
        assert_eq!(settings(&format!("jetstream: {text}")).jetstream.unwrap().enabled, enabled, "{text}");
    }
    assert_eq!(
        settings("store_dir: /a").jetstream.unwrap().value,
        JetStream { store_dir: settings("log_file: /a").log_file, ..JetStream::default() }
    );
}

#[test]
fn what_a_check_lets_pass_and_a_start_does_not() {
    for (text, reason) in [
        ("system_account: Z", "the system account Z"),
        ("no_auth_user: nope", "no user nope"),
        ("no_auth_user: q\nauthorization { user: q, password: x }", "no user q in a list"),
    ] {
        let problems = load(text).start_problems();
        assert!(problems[0].to_string().contains(reason), "{problems:?}");
    }
    assert!(
        load("system_account: \"$SYS\"\nno_auth_user: q\nauthorization { users: [{user: q, password: x}] }")
            .start_problems()
            .is_empty()
    );
    let problem =
        load("log_file: /x").problem(&load("log_file: /x").settings.log_file.unwrap().at, "no such directory", None);
    assert!(problem.to_string().contains("1:11: no such directory\n  1 | log_file: /x\n"), "{problem}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        outcome(&text);
    }

    #[test]
    fn any_text_that_looks_like_a_configuration_is_read_or_refused(words in proptest::collection::vec(word(), 0..40)) {
        outcome(&words.concat());
    }
}

/// The same text twice has the same outcome, and its errors can be printed.
fn outcome(text: &str) {
    let stage = Stage::new(text).file("a", "A: 1").variable("E", "[1, {a: b}]");
    match (stage.load(), stage.load()) {
        (Ok(first), Ok(second)) => assert_eq!(first.settings, second.settings),
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
        other => panic!("{other:?}"),
    }
}

fn word() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        "(\n",
        "\n)",
        "\"",
        "'",
        ",",
        ";",
        ":",
        "=",
        " ",
        "\n",
        "#",
        "//",
        "$",
        "\\",
        "\\x",
        "include ",
        "port",
        "listen",
        "authorization",
        "accounts",
        "users",
        "user",
        "password",
        "permissions",
        "publish",
        "allow",
        "exports",
        "imports",
        "service",
        "stream",
        "account",
        "subject",
        "mappings",
        "destination",
        "weight",
        "tls",
        "websocket",
        "jetstream",
        "timeout",
        "1",
        "-",
        "5m",
        "1k",
        "0.5",
        "true",
        "a.b",
        "*",
        "\"a\"",
        "A",
        "$E",
        "é",
    ];
    prop_oneof![4 => proptest::sample::select(WORDS).prop_map(str::to_owned), 1 => any::<String>()]
}
