//! Every flag of the reference is here, or there is a reason why not (`golden/cli/commands.jsonl`).

use clap::{Arg, ArgAction, Command, CommandFactory};
use serde_json::Value;

use super::Cli;

/// Commands of the reference that exist here, with all their flags.
const COMMANDS: [&str; 16] = [
    "ping",
    "req",
    "discover",
    "broker run",
    "server",
    "server run",
    "jwt",
    "jwt keys",
    "jwt provisioning",
    "jwt view",
    "tool",
    "tool event",
    "tool provisioner",
    "tool status",
    "buildinfo",
    "completion",
];

/// Flags that are left out; the reasons are in `docs/differences/cli.md`.
const LEFT_OUT: [(&str, &str); 9] = [
    ("ping", "federations"),
    ("req", "federations"),
    ("discover", "federations"),
    ("server run", "service-host"),
    ("jwt provisioning", "vault"),
    ("completion", "config"),
    ("completion", "list"),
    ("completion", "agent"),
    ("completion", "action"),
];

/// Default values that differ; the reasons are in `docs/differences/cli.md`.
const OTHER_DEFAULT: [(&str, &str); 6] = [
    ("jwt provisioning", "insecure"),
    ("ping", "workers"),
    ("req", "workers"),
    ("completion", "bash"),
    ("discover", "verbose"),
    ("tool status", "disconnected"),
];

fn find<'c>(command: &'c Command, path: &str) -> &'c Command {
    path.split(' ').fold(command, |command, name| {
        command.find_subcommand(name).unwrap_or_else(|| panic!("there is no command {path}"))
    })
}

/// A flag of a command, or one of its parents that is handed down.
fn flag<'c>(root: &'c Command, path: &str, name: &str) -> Option<&'c Arg> {
    let named = |argument: &&Arg| {
        argument.get_long() == Some(name) || argument.get_all_aliases().is_some_and(|all| all.contains(&name))
    };
    let own = find(root, path).get_arguments().find(named);
    own.or_else(|| {
        let parent = path.rsplit_once(' ')?.0;
        find(root, parent).get_arguments().filter(|argument| argument.is_global_set()).find(named)
    })
}

#[test]
fn golden_commands() {
    let root = Cli::command();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/cli/commands.jsonl");
    let mut seen = 0;
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let path = row["path"].as_str().unwrap();
        if !COMMANDS.contains(&path) {
            continue;
        }
        seen += 1;
        let command = find(&root, path);
        for alias in row["aliases"].as_array().into_iter().flatten() {
            let alias = alias.as_str().unwrap();
            // `jwt s` is ambiguous in the reference: `server` and `view` both claim it.
            let known = command.get_all_aliases().any(|known| known == alias) || (path, alias) == ("jwt view", "s");
            assert!(known, "{path}: alias {alias}");
        }
        for wanted in row["flags"].as_array().into_iter().flatten() {
            check_flag(&root, path, wanted);
        }
        let arguments: Vec<&Arg> = command.get_positionals().collect();
        for (index, wanted) in row["args"].as_array().into_iter().flatten().enumerate() {
            let argument = arguments.get(index).unwrap_or_else(|| panic!("{path}: argument {wanted}"));
            assert_eq!(argument.is_required_set(), wanted["required"] == true, "{path}: {wanted}");
        }
    }
    assert_eq!(seen, COMMANDS.len());
}

fn check_flag(root: &Command, path: &str, wanted: &Value) {
    let name = wanted["name"].as_str().unwrap();
    if LEFT_OUT.contains(&(path, name)) {
        assert!(flag(root, path, name).is_none(), "{path} --{name} exists after all");
        return;
    }
    let found = flag(root, path, name).unwrap_or_else(|| panic!("{path} --{name}"));
    if let Some(short) = wanted["short"].as_str() {
        assert_eq!(found.get_short().map(String::from).as_deref(), Some(short), "{path} --{name}");
    }
    assert_eq!(found.get_action().takes_values(), wanted["kind"] == "value", "{path} --{name}");
    let repeatable = matches!(found.get_action(), ArgAction::Append);
    assert_eq!(repeatable, wanted["repeatable"] == true, "{path} --{name}");
    if wanted["negatable"] == true && !LEFT_OUT.contains(&(path, name)) && path != "completion" {
        assert!(flag(root, path, &format!("no-{name}")).is_some(), "{path} --no-{name}");
    }
    if let Some(default) = wanted["default"].as_str().filter(|default| *default != "false") {
        let own = found.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let same = own.as_deref() == Some(default);
        assert_eq!(same, !OTHER_DEFAULT.contains(&(path, name)), "{path} --{name}: {own:?}, not {default}");
    }
    if let Some(values) = wanted["values"].as_array().filter(|_| name != "dm") {
        let own = found.get_possible_values();
        for value in values {
            let value = value.as_str().unwrap();
            assert!(own.iter().any(|known| known.matches(value, false)), "{path} --{name} {value}");
        }
    }
}
