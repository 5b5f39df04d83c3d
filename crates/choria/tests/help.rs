//! Help texts, word for word. `cargo insta review` shows what changed.
#![allow(clippy::unwrap_used)]

mod common;

use common::{run, stdout};

fn help(arguments: &[&str]) -> String {
    let output = run(&[arguments, &["--help"]].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    // Trailing blanks are clap's and of no interest.
    stdout(&output).lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn help_texts() {
    let commands: &[&[&str]] = &[
        &[],
        &["ping"],
        &["req"],
        &["discover"],
        &["broker", "run"],
        &["broker", "sub"],
        &["broker", "pub"],
        &["server"],
        &["server", "run"],
        &["provisioner", "run"],
        &["provisioner", "rules"],
        &["jwt"],
        &["jwt", "provisioning"],
        &["jwt", "view"],
        &["jwt", "keys"],
        &["ca", "init"],
        &["ca", "issue"],
        &["ca", "sign"],
        &["ca", "show"],
        &["demo"],
        &["emulate"],
        &["bench"],
        &["bench", "provisioning"],
        &["bench", "idle"],
        &["bench", "ping"],
        &["tool"],
        &["tool", "event"],
        &["tool", "provision"],
        &["tool", "sub"],
        &["tool", "pub"],
        &["tool", "status"],
        &["tool", "jwt"],
        &["doctor"],
        &["config", "validate"],
        &["config", "explain"],
        &["man"],
        &["buildinfo"],
    ];
    for arguments in commands {
        let name = if arguments.is_empty() { "choria".to_owned() } else { arguments.join("_") };
        insta::assert_snapshot!(format!("help_{name}"), help(arguments));
    }
}

#[test]
fn exit_statuses_are_documented() {
    insta::assert_snapshot!(stdout(&run(&["help", "exit-codes"])));
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&run(&["completion", shell]));
        assert!(script.contains("provisioner") && script.contains("choria"), "{shell}");
    }
    assert_eq!(stdout(&run(&["completion", "--zsh"])), stdout(&run(&["completion", "zsh"])));
    assert_eq!(stdout(&run(&["completion"])), stdout(&run(&["completion", "bash"])));
}
