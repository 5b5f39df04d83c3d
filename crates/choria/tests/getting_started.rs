//! `docs/getting-started.md` does what it says: its fenced blocks are executed, in order, in an empty directory.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use choria_testkit::wait_until;
use common::{Daemon, PATIENCE, free_port, program, stderr, stdout};

/// One fenced block.
#[derive(Debug)]
struct Block {
    /// The words after the fence.
    info: Vec<String>,
    text: String,
    line: usize,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in page.lines().enumerate() {
        match (open, line.strip_prefix("```")) {
            (false, Some(info)) => {
                let info = info.split_whitespace().map(str::to_owned).collect();
                blocks.push(Block { info, text: String::new(), line: index + 1 });
                open = true;
            }
            (true, Some(_)) => open = false,
            (true, None) => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (false, None) => {}
        }
    }
    assert!(!open, "a fence is not closed");
    blocks
}

/// A shell that finds the program as `choria` and nothing of this machine's configuration.
fn shell(directory: &Path, script: &str) -> Command {
    let path = format!("{}:{}", directory.join(".bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(directory).env_clear();
    command.env("PATH", path).env("HOME", directory).env("USER", "newcomer");
    command
}

fn assert_ok(output: &Output, block: &Block) -> String {
    assert!(output.status.success(), "line {}: {}\n{}{}", block.line, block.text, stdout(output), stderr(output));
    stdout(output)
}

#[test]
fn the_page_does_what_it_says() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/getting-started.md")).unwrap();
    let (broker, statistics) = (free_port().to_string(), free_port().to_string());
    let page = page.replace("4222", &broker).replace("8222", &statistics);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    fs::create_dir(directory.join(".bin")).unwrap();
    std::os::unix::fs::symlink(program(), directory.join(".bin/choria")).unwrap();

    let mut daemons = Vec::new();
    let mut shown = String::new();
    for block in blocks(&page) {
        let info: Vec<&str> = block.info.iter().map(String::as_str).collect();
        match info.as_slice() {
            ["text"] => {}
            ["sh"] => shown.push_str(&assert_ok(&shell(directory, &block.text).output().unwrap(), &block)),
            ["sh", "daemon"] => {
                // The shell becomes the daemon, so that ending it ends the daemon.
                let script = format!("exec env {}", block.text.trim());
                daemons.push(Daemon::start(&format!("line{}", block.line), shell(directory, &script), directory));
            }
            ["sh", "retry"] => {
                let mut last = None;
                wait_until(PATIENCE, &format!("line {} succeeds", block.line), || {
                    daemons.iter_mut().for_each(Daemon::assert_alive);
                    let output = shell(directory, &block.text).output().unwrap();
                    let good = output.status.success();
                    last = Some(output);
                    good
                });
                shown.push_str(&assert_ok(&last.unwrap(), &block));
            }
            [_, file] => {
                let path = directory.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &block.text).unwrap();
                if block.text.starts_with("#!") {
                    // The page makes it executable itself; a block that forgets to shows up as a failure.
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
                }
            }
            other => panic!("line {}: a block marked {other:?}", block.line),
        }
    }
    assert_eq!(daemons.len(), 3, "three processes");
    assert!(shown.contains("node1.example.net"), "the machine answers: {shown}");
    daemons.iter_mut().for_each(Daemon::assert_alive);
}
