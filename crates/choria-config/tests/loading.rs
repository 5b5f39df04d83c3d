//! How files, directories and variables come together, and what the loader says about what it finds odd.
#![allow(clippy::unwrap_used, reason = "tests may stop at the first surprise")]

use std::path::Path;
use std::time::Duration;

use choria_config::{BuildSettings, Config, ConfigError, Environment, LogTarget, Mode, keys};
use proptest::prelude::*;

fn environment() -> Environment {
    Environment::fixed("n1.example.net")
}

fn text(text: &str) -> Config {
    Config::from_text(text, Mode::Server, &environment()).unwrap()
}

fn warnings(config: &Config) -> Vec<String> {
    config.warnings().iter().map(ToString::to_string).collect()
}

fn write(path: impl AsRef<Path>, text: &str) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Sharp edge 7 of spec 03: `rpcauthorization = on` must not turn authorization off.
#[test]
fn design6_on_is_no_longer_false() {
    let error = Config::from_text("rpcauthorization = on\n", Mode::Server, &environment()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration:1: rpcauthorization = on is not valid, expected yes or no (also 1, true, y, t, 0, false, n, f) (write yes)"
    );
}

#[test]
fn design6_all_problems_are_told_at_once_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("server.conf");
    write(&main, "ttl = soon\n# fine\nidentity = a b\n");
    write(directory.path().join("plugin.d/choria.cfg"), "stats_port = 99999\n");
    let environment = environment().with_variable("CHORIA_FED_COLLECTIVE", "x");
    let error = Config::load(&main, Mode::Server, &environment).unwrap_err();
    let problems: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("server.conf:1: ttl = soon is not valid, expected a whole number of seconds"));
    assert!(problems[1].contains("server.conf:3: identity = a b is not valid, expected a node name"));
    assert!(problems[2].contains("choria.cfg:1: plugin.choria.stats_port = 99999 is not valid"));
    assert!(error.to_string().starts_with("3 problems in the configuration:\n"));
}

#[test]
fn an_inspection_tells_problems_and_warnings_together() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("server.conf");
    write(&main, "ttl = soon\nregisterinterva = 3\n");
    write(directory.path().join("plugin.d/choria.cfg"), "stats_port = 99999\n");
    let inspection = Config::inspect(&main, Mode::Server, &environment()).unwrap();
    assert!(inspection.config.is_none());
    assert_eq!((inspection.problems.len(), inspection.warnings.len(), inspection.files.len()), (2, 1, 2));
    assert!(inspection.warnings[0].to_string().contains("server.conf:2"), "{inspection:?}");
    let errors = Config::load(&main, Mode::Server, &environment()).unwrap_err();
    assert_eq!(errors.problems(), inspection.problems);

    write(&main, "ttl = 9\n");
    std::fs::remove_dir_all(directory.path().join("plugin.d")).unwrap();
    let inspection = Config::inspect(&main, Mode::Server, &environment()).unwrap();
    assert_eq!(inspection.config.unwrap().get(&keys::TTL), Duration::from_secs(9));
    assert!(
        Config::inspect(directory.path().join("none"), Mode::Server, &environment()).unwrap_err().is_missing_file()
    );
}

#[test]
fn passwords_are_marked_and_do_not_show_in_debug_output() {
    for name in ["plugin.nats.pass", "plugin.choria.network.provisioning.client_password"] {
        assert!(keys::find(name).unwrap().secret);
    }
    let config = text("plugin.nats.pass = s3cret\n");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn design6_unknown_keys_are_warned_about_with_the_nearest_name() {
    let config = text(
        "registerintervall = 30\nplugin.choria.nonsense = 1\nnot a setting\nplugin.parrot.words = a\nttl =\nttl = 5\nttl = 6\n",
    );
    assert_eq!(
        warnings(&config),
        [
            "configuration:1: unknown key registerintervall; did you mean registerinterval?",
            "configuration:2: unknown key plugin.choria.nonsense",
            "configuration:3: the line is neither a setting (key = value) nor a comment; it is ignored",
            "configuration:5: ttl has no value; the line is ignored",
            "configuration:7: ttl is set a second time; line 6 has no effect",
        ]
    );
    // An agent's own options stay readable and are nobody's business.
    assert_eq!(config.raw("plugin.parrot.words"), Some("a"));
    assert_eq!(config.get(&keys::TTL), Duration::from_secs(6));
}

#[test]
fn settings_without_effect_are_named() {
    let config =
        text("logger_type = console\nplugin.machines.download = yes\nplugin.choria.broker_federation_cluster = east\n");
    let notes: Vec<String> = config.notes().iter().map(ToString::to_string).collect();
    assert!(notes[0].contains("configuration:1: logger_type has no effect: an MCollective setting"), "{notes:?}");
    let warnings = warnings(&config);
    assert!(
        warnings[0].contains("plugin.machines.download belongs to a part that this version does not have"),
        "{warnings:?}"
    );
    assert!(
        warnings.iter().any(|text| text.contains("is the old name of plugin.choria.federation.cluster")),
        "{warnings:?}"
    );
    assert_eq!(config.get(&keys::FEDERATION_CLUSTER), "east");
}

/// Spec 01 §10.1: keys of older releases are ignored silently. Stock files of existing fleets hold several of them, and a
/// warning each on every command would teach people to overlook warnings.
#[test]
fn keys_of_older_releases_do_not_warn() {
    let config = text(
        "plugin.security.file.cache = /tmp/x\nplugin.security.always_overwrite_cache = 1\nlogger_type = file\n\
         connector = nats\nsecurityprovider = choria\ndirect_addressing = yes\nfactsource = yaml\n",
    );
    assert_eq!(warnings(&config), Vec::<String>::new());
    assert_eq!(config.notes().len(), 7, "{:?}", config.notes());
}

#[test]
fn plugin_d_files_that_are_not_read_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("server.conf");
    write(&main, "");
    write(directory.path().join("plugin.d/choria.conf"), "ttl = 1\n");
    write(directory.path().join("plugin.d/choria.cfg"), "plugin.choria.use_srv = 0\nlogfile = x\n");
    std::fs::create_dir_all(directory.path().join("plugin.d/x.cfg")).unwrap();
    let config = Config::load(&main, Mode::Server, &environment()).unwrap();
    let warnings = warnings(&config);
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings[0].contains("keys in this file get the prefix plugin.choria. by themselves"), "{warnings:?}");
    assert!(warnings[1].contains("logfile belongs in the main file"), "{warnings:?}");
    assert!(warnings[2].contains("rename it to choria.cfg"), "{warnings:?}");
    assert!(warnings[3].contains("x.cfg is a directory"), "{warnings:?}");
    assert!(config.get(&keys::USE_SRV));
}

/// Sharp edge 38 of spec 03: a variable counts whether or not the key is in the file, and `plugin.d` whatever HOME is.
#[test]
fn variables_and_plugin_d_do_not_depend_on_accidents() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("server.conf");
    write(&main, "");
    write(directory.path().join("plugin.d/choria.cfg"), "stats_port = 9\n");
    let environment = environment()
        .with_variable("HOME", directory.path().to_string_lossy())
        .with_variable("MCOLLECTIVE_NATS_USERNAME", "lisa")
        .with_variable("CHORIA_REGISTRY", "~/cache");
    let config = Config::load(&main, Mode::Server, &environment).unwrap();
    assert_eq!(config.get(&keys::STATS_PORT), 9);
    assert_eq!(config.get(&keys::NATS_USER).as_deref(), Some("lisa"));
    assert!(config.is_set(&keys::NATS_USER));
    assert_eq!(config.get(&keys::SERVICES_REGISTRY_CACHE), Some(directory.path().join("cache")));
}

#[test]
fn a_missing_file_is_told_apart_from_a_bad_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.conf");
    let error = Config::load(&path, Mode::Server, &environment()).unwrap_err();
    assert!(error.is_missing_file());
    assert!(error.to_string().contains("server.conf could not be read"));
    // A directory is no empty file.
    std::fs::create_dir(&path).unwrap();
    let error = Config::load(&path, Mode::Server, &environment()).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }) && !error.is_missing_file());
}

#[test]
fn defaults_know_their_place_but_read_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.conf");
    write(&path, "ttl = 5\n");
    let environment = environment().with_variable("CHORIA_SRV_DOMAIN", "example.net");
    let mut config = Config::defaults(Some(&path), Mode::Server, &environment).unwrap();
    assert_eq!(config.path(), Some(path.as_path()));
    assert_eq!(config.get(&keys::TTL), Duration::from_secs(60));
    assert_eq!(config.get(&keys::SRV_DOMAIN).as_deref(), Some("example.net"));
    assert!(config.parsed_files().is_empty());
    config.set(&keys::TTL, Duration::from_secs(7));
    config.set(&keys::SRV_DOMAIN, None);
    assert_eq!(config.get(&keys::TTL), Duration::from_secs(7));
    assert_eq!(config.get(&keys::SRV_DOMAIN), None);
    assert!(config.is_set(&keys::TTL) && !config.is_set(&keys::SRV_DOMAIN));
}

#[test]
fn text_about_to_be_written_is_read_with_the_plugin_d_of_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.conf");
    write(&path, "identity = old\n");
    write(directory.path().join("plugin.d/choria.cfg"), "server.provision = 1\n");
    let config = Config::from_text_at(&path, "identity = new\n", Mode::Server, &environment()).unwrap();
    assert_eq!(config.get(&keys::IDENTITY), "new");
    assert_eq!(config.get(&keys::SERVER_PROVISION), Some(true));
}

#[test]
fn provision_false_unset_and_true_are_three_states() {
    assert_eq!(text("").get(&keys::SERVER_PROVISION), None);
    assert_eq!(text("plugin.choria.server.provision =\n").get(&keys::SERVER_PROVISION), None);
    assert_eq!(text("plugin.choria.server.provision = 0\n").get(&keys::SERVER_PROVISION), Some(false));
    assert_eq!(text("plugin.choria.server.provision = yes\n").get(&keys::SERVER_PROVISION), Some(true));
}

#[test]
fn families_are_typed_and_checked() {
    let config = text("plugin.parrot.activate_agent = no\nplugin.security.issuer.acme.public = 00ff\n");
    assert!(!config.get_named(&keys::ACTIVATE_AGENT, "parrot"));
    assert!(config.get_named(&keys::ACTIVATE_AGENT, "package"));
    assert_eq!(config.get_named(&keys::SECURITY_ISSUER_PUBLIC, "acme").as_deref(), Some("00ff"));
    assert_eq!(config.names_in(&keys::SECURITY_ISSUER_PUBLIC), ["acme"]);
    let error = Config::from_text("plugin.parrot.activate_agent = off\n", Mode::Server, &environment()).unwrap_err();
    assert!(error.to_string().contains("plugin.parrot.activate_agent = off is not valid"));
}

#[test]
fn the_build_gives_the_default_collectives() {
    let build = BuildSettings { default_collectives: vec!["acme".into(), "all".into()], ..BuildSettings::default() };
    let environment = environment().with_build_settings(build);
    let config = Config::from_text("plugin.security.provider = choria\n", Mode::Server, &environment).unwrap();
    assert_eq!(config.get(&keys::COLLECTIVES), ["acme", "all"]);
    assert_eq!(config.get(&keys::MAIN_COLLECTIVE), "acme");
    assert_eq!(config.get(&keys::REGISTRATION_COLLECTIVE), "acme");
}

/// Sharp edge 46 of spec 03: an identity is a subject token, so it may hold nothing that means something in a subject.
#[test]
fn design6_identities_that_fit_no_subject_are_refused() {
    for identity in ["a.>", "a.*.b", "a b", "", "n\u{fc}rnberg"] {
        let text = format!("identity = {identity}x{identity}\n");
        let result = Config::from_text(&text, Mode::Server, &environment());
        assert_eq!(result.is_err(), !identity.is_empty(), "{identity:?}");
    }
    let error = Config::from_text("", Mode::Server, &Environment::fixed("my host")).unwrap_err();
    assert!(error.to_string().contains("the host name \"my host\" cannot be an identity; set identity = NAME"));
}

#[test]
fn log_targets() {
    for (text_value, target) in [
        ("stdout", LogTarget::Stdout),
        ("STDERR", LogTarget::Stderr),
        ("discard", LogTarget::Discard),
        ("/var/log/choria.log", LogTarget::File("/var/log/choria.log".into())),
    ] {
        assert_eq!(text(&format!("logfile = {text_value}\n")).get(&keys::LOGFILE), target);
    }
}

#[test]
fn the_main_file_of_a_client_is_not_read_twice_as_a_project_file() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("choria.conf");
    write(&main, "libdir = /a\n");
    let environment = environment().with_working_directory(directory.path());
    let config = Config::load(&main, Mode::Client, &environment).unwrap();
    assert_eq!(config.get(&keys::LIBDIR), [Path::new("/a")]);
}

proptest! {
    /// Whatever text a file holds, it loads or is refused, and what loaded can be read.
    #[test]
    fn any_text_loads_or_is_refused(lines in proptest::collection::vec(line(), 0..12)) {
        let loaded = Config::from_text(&lines.join("\n"), Mode::Server, &environment());
        match loaded {
            Err(error) => prop_assert!(!error.problems().is_empty()),
            Ok(config) => {
                for spec in keys::ALL.iter() {
                    let _ = config.value_of(spec.name);
                }
                prop_assert!(!config.get(&keys::TTL).is_zero());
                prop_assert!(!config.get(&keys::COLLECTIVES).is_empty());
            }
        }
    }
}

/// Lines around the truth: known keys with likely and unlikely values, and noise.
fn line() -> impl Strategy<Value = String> {
    let key = proptest::sample::select(keys::ALL.iter().map(|spec| spec.name).collect::<Vec<_>>());
    let value = prop_oneof![
        "[0-9]{1,4}[smhdMy]?",
        Just("yes".to_owned()),
        Just("file".to_owned()),
        Just("a:1, b:2".to_owned()),
        "[a-z.-]{1,12}",
        "\\PC{0,16}",
    ];
    prop_oneof![4 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")), 1 => "\\PC{0,30}"]
}
