use choria_testkit::golden;

use super::*;

fn parse(text: &str) -> Result<ProvisionerConfig, ConfigError> {
    ProvisionerConfig::from_text(Path::new("p.yaml"), text)
}

fn error(text: &str) -> String {
    parse(text).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn an_inspection_tells_all_faults_and_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.yaml");
    let inspect = |text: &str| {
        std::fs::write(&path, text).unwrap();
        ProvisionerConfig::inspect(&path).unwrap()
    };
    let inspection =
        inspect("interval: soon\nworkers: many\nworkrs: 3\nsite: 7\nfeatures:\n  jwt: perhaps\nloglevel: loud\n");
    assert!(inspection.config.is_none());
    let lines: Vec<String> = inspection.faults.iter().map(ToString::to_string).collect();
    for (index, wanted) in [(0, ":6:"), (1, ":1:"), (2, ":2:"), (3, ":7:"), (4, ":4:")] {
        assert!(lines[index].contains(&format!("p.yaml{wanted}")), "{lines:#?}");
    }
    assert_eq!((lines.len(), inspection.warnings.len()), (5, 1), "{inspection:#?}");
    let first = ProvisionerConfig::load(&path).map(|_| ()).unwrap_err();
    assert_eq!(first.to_string(), lines[0], "a start tells the first");

    let inspection = inspect("interval: 1m\nworkrs: 3\n");
    let config = inspection.config.unwrap();
    assert_eq!(config.warnings, inspection.warnings);
    assert!(inspection.faults.is_empty() && inspection.warnings.len() > 1, "{:#?}", inspection.warnings);
    assert_eq!(inspect("a: [\n").faults.len(), 1);
    assert!(ProvisionerConfig::inspect(&directory.path().join("none")).is_err());
}

/// Rows of the golden file whose outcome differs on purpose, with the reason (docs/differences).
const STRICTER: [(&str, &str); 9] = [
    ("comp_space", "invalid lifecycle component"),
    ("comp_empty", "invalid lifecycle component"),
    ("workers_neg", "workers must be 0"),
    ("bool_yes", "leader_election is not available"),
    ("deny_bad", "invalid pattern \"(\""),
    ("helper_bad", "cannot parse helper command"),
    ("loglevel_bad", "loglevel must be"),
    ("ed_nokey", "features.ed25519 is not available"),
    // Reported by the loader instead of by the socket.
    ("monport_big", "monitor_port must be at most 65535"),
];

#[test]
fn golden_config_cases() {
    let rows = golden::lines("provisioner/config-cases.jsonl");
    assert_eq!(rows.len(), 62);
    for (case, _) in STRICTER {
        assert!(rows.iter().any(|row| row["case"] == case), "there is no row {case}");
    }
    for row in rows {
        let case = golden::member(&row, "case");
        let result = parse(golden::member(&row, "yaml"));
        if let Some((_, expected)) = STRICTER.iter().find(|(name, _)| *name == case) {
            let text = result.map(|_| ()).unwrap_err().to_string();
            assert!(text.contains(expected) && text.starts_with("p.yaml:"), "{case}: {text}");
            continue;
        }
        match golden::member(&row, "outcome") {
            // Whether the file can be opened is the program's business, not the loader's.
            "exit 1" if case == "logfile_baddir" => assert!(result.is_ok(), "{case}: {result:?}"),
            "runs" => assert!(result.is_ok(), "{case}: {:?}", result.map(|_| ())),
            // An empty file crashes the original.
            "panic" => assert!(matches!(result, Err(ConfigError::Empty(_))), "{case}"),
            // Our YAML reader takes a tab before the first key.
            _ if case == "tab" => assert!(result.is_ok(), "{case}"),
            _ => match result {
                Err(ours) => assert_same_error(case, &ours, golden::member(&row, "error")),
                Ok(_) => panic!("{case} was accepted"),
            },
        }
    }
}

/// What the original swallows and runs with, here read as it says, with a warning where it has no effect.
#[test]
fn golden_files_that_run_mean_what_they_say() {
    let rows = golden::lines("provisioner/config-cases.jsonl");
    let read = |case: &str| {
        let row = rows.iter().find(|row| row["case"] == case).unwrap_or_else(|| panic!("there is no row {case}"));
        parse(golden::member(row, "yaml")).unwrap()
    };
    // Warnings about a place in the file, not about what the whole lacks.
    let told = |case: &str| read(case).warnings.iter().filter(|text| !text.starts_with("p.yaml: ")).count();
    for (case, count) in
        [("unknown", 2), ("rego", 1), ("brokerport", 1), ("management", 1), ("dupcase", 1), ("anchors", 1)]
    {
        assert_eq!(told(case), count, "{case}: {:?}", read(case).warnings);
    }
    for case in ["interval1m", "json", "loglevel_upper"] {
        assert_eq!(told(case), 0, "{case}: {:?}", read(case).warnings);
    }
    assert_eq!(read("logfile_unset").logfile, LogTarget::Stderr);
    assert_eq!(read("logfile_stderr").logfile, LogTarget::Stderr);
    assert_eq!(read("logfile_discard").logfile, LogTarget::Discard);
    for (case, seconds) in
        [("interval1m", 60), ("interval_1h", 3600), ("interval_1d", 86_400), ("interval_2w", 14 * 86_400)]
    {
        assert_eq!(read(case).interval.as_secs(), seconds, "{case}");
    }
}

/// Texts that do not come from a Go library are the original's.
fn assert_same_error(case: &str, ours: &ConfigError, original: &str) {
    let original = original.trim_start_matches("Provisioning could not be configured: ");
    let ours = ours.to_string();
    let expected = match original {
        text if text.contains("as YAML: json") => " must ",
        text if text.contains("could not be parsed: yaml") => "file p.yaml could not be parsed: yaml: line",
        text if text.starts_with("invalid duration") => "invalid duration: ",
        text if text.starts_with("invalid server jwt") => "invalid server jwt validity duration: ",
        text => text,
    };
    assert!(ours.contains(expected), "{case}: {ours}");
}

#[test]
fn defaults_of_the_smallest_file() {
    let config = parse("interval: 1m\n").unwrap();
    assert_eq!(config.interval, Duration::from_secs(60));
    assert!(config.workers >= 1);
    assert_eq!(config.lifecycle_component, "provision_mode_server");
    assert_eq!(config.logfile, LogTarget::Stderr);
    assert_eq!(config.loglevel, LogLevel::Info);
    assert_eq!(config.verify_restart, VerifyRestart::Auto);
    assert_eq!(config.monitor_port, None);
    for denied in ["a.choria", "A.CHORIA", "a.privileged.mcollective", "bob.mcollective."] {
        assert!(config.cert_deny_list.is_match(denied), "{denied}");
    }
    for allowed in ["choria", "a.choria.net"] {
        assert!(!config.cert_deny_list.is_match(allowed), "{allowed}");
    }
}

#[test]
fn a_whole_file() {
    let text = "\
workers: 4
interval: 5m
logfile: /var/log/p.log
loglevel: debug
helper: /h x \"a b\"
helper_mode: persistent
helper_processes: 2
helper_pipeline: 5
helper_timeout: 3s
token: s3cret
choria_insecure: false
site: ams
monitor_port: 8080
monitor_address: 127.0.0.1
broker_provisioning_password: pw
cert_deny_list: [\"/^db/\"]
jwt_verify_cert: /etc/signer.pem
features: {pki: yes, jwt: true}
verify_restart: off
verify_timeout: 2m
drain_timeout: 10s
max_nodes: 50
node_budget: 90s
";
    let config = parse(text).unwrap();
    assert_eq!(config.helper_calls(), 10);
    let Some(Helper::Program(helper)) = config.helper else { panic!("a program") };
    assert_eq!(helper.argv, ["/h", "x", "a b"]);
    assert_eq!(helper.mode, ProgramMode::Persistent { processes: 2, pipeline: 5 });
    assert_eq!(helper.timeout, Duration::from_secs(3));
    assert!(config.features.pki && config.features.jwt);
    assert!(config.token.matches("s3cret"));
    assert_eq!(config.verify_restart, VerifyRestart::Off);
    assert_eq!((config.monitor_port, config.max_nodes), (Some(8080), 50));
    assert!(config.cert_deny_list.is_match("db1"));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn errors_name_file_line_and_column() {
    assert_eq!(
        error("site: x\ninterval: 60\n"),
        "p.yaml:2:11: interval must be text, found the number 60; write it in quotes"
    );
    assert_eq!(
        error("interval: 59s\n"),
        "p.yaml:1:11: interval is too small, minmum is 1 minute.  Valid example values are 10m or 10h"
    );
    assert!(error("features:\n  pki: true\n  ed25519: true\n").starts_with("p.yaml:3:12: can only enable one"));
    assert!(error("workers: '4'\n").contains("write it without quotes"));
}

#[test]
fn unknown_keys_are_told_with_the_nearest_name() {
    let warnings = parse("intervall: 5m\nfeatures:\n  pkii: true\n").unwrap().warnings;
    assert!(
        warnings
            .iter()
            .any(|w| w.starts_with("p.yaml:1:12: unknown key intervall") && w.contains("did you mean interval?")),
        "{warnings:?}"
    );
    assert!(
        warnings.iter().any(|w| w.contains("unknown key features.pkii") && w.contains("features.pki?")),
        "{warnings:?}"
    );
}

#[test]
fn a_key_that_does_not_count_is_told() {
    let warnings = parse("interval: 1m\nINTERVAL: 59s\n").unwrap().warnings;
    assert!(
        warnings.iter().any(|w| w.contains("INTERVAL is set more than once, this one does not count")),
        "{warnings:?}"
    );
}

#[test]
fn what_this_version_cannot_do_is_an_error_and_never_ignored() {
    for (text, key) in [
        ("features: {ed25519: true}", "features.ed25519"),
        ("features: {upgrades: true}", "features.upgrades"),
        ("leader_election: true", "leader_election"),
        ("jwt_signing_key: /k", "jwt_signing_key"),
        ("jwt_signing_token: /k", "jwt_signing_token"),
        ("upgrades_repository: https://x", "upgrades_repository"),
    ] {
        let text = error(text);
        assert!(text.contains(&format!("{key} is not available in this version")), "{text}");
    }
    assert!(parse("leader_election: false\nfeatures: {ed25519: false}\njwt_signing_key: ''\n").is_ok());
}

#[test]
fn design6_invalid_deny_pattern_is_a_start_error() {
    assert!(
        error("cert_deny_list: [ok, \"(\"]").starts_with("p.yaml:1:22: cert_deny_list holds the invalid pattern \"(\"")
    );
    assert!(error("cert_deny_list: [\"\"]").contains("empty pattern"));
    assert!(error("cert_deny_list: [\"//\"]").contains("empty pattern"));
}

#[test]
fn secrets_do_not_show() {
    let config = parse("token: s3cret\nbroker_provisioning_password: pa55\n").unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("pa55"), "{shown}");
}

#[test]
fn server_jwt_validity_is_checked_although_it_has_no_use_yet() {
    for good in ["2w", "1.5d", "1M", "1y", "90m", ""] {
        assert!(parse(&format!("server_jwt_validity: '{good}'\n")).is_ok(), "{good}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = ProvisionerConfig::load(Path::new("/nonexistent/p.yaml")).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "file /nonexistent/p.yaml not found");
}
