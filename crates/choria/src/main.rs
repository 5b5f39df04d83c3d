//! One binary: broker, server, provisioner, client and tools.
//!
//! This crate is the thinnest room of the house: it turns the command line into settings, calls the room that does the
//! work and prints what came back. Protocol, decisions and state live in the crates below it, never here.
//!
//! | Module | Owns |
//! |---|---|
//! | [`cli`] | every command and flag, as clap types |
//! | [`values`] | values on the command line |
//! | [`settings`] | configuration files and environment for client commands and daemons |
//! | [`commands`] | one module per command: settings, operation, printer |
//! | [`mod@print`] | what people and scripts read on stdout |
//! | [`demo`] | a fleet of real processes on this machine |
//! | [`lab`] | files, processes and helper of such a fleet, for the demo and for measurements |
//! | [`logging`], [`process`] | log lines; signals, pid files, runtimes, restart |
//! | [`exit`] | exit statuses and failures |
//! | [`text`] | tables, durations, colours |
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod commands;
mod demo;
mod exit;
mod lab;
mod logging;
mod print;
mod process;
mod settings;
mod text;
mod values;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    process::remember_executable();
    let arguments: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let program = arguments.first().map(|path| file_name(path)).unwrap_or_default();
    let invocation = match cli::parse(&program, arguments) {
        Ok(invocation) => invocation,
        Err(error) => return usage(&error).into(),
    };
    let Some(command) = invocation.command else {
        // The reference shows the usage and ends with 0 (spec 05 §1.1).
        say(&cli::Cli::command().render_help().to_string());
        return Exit::Ok.into();
    };
    match commands::run(command, invocation.debug) {
        Ok(exit) => exit.into(),
        Err(failure) => report(&failure).into(),
    }
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Shows what clap has to say: help and version on stdout, everything else on stderr with status 1.
fn usage(error: &clap::Error) -> Exit {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Nobody is left to tell when the terminal is gone.
    let _ = error.print();
    if asked_for { Exit::Ok } else { Exit::Failed }
}

fn report(failure: &Failure) -> Exit {
    // A reader that went away (`choria ... | head`) is no failure of ours.
    if !failure.is_broken_pipe() {
        say(&format!("choria: error: {failure}"));
    }
    failure.status()
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}
