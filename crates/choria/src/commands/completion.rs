//! `choria completion`: scripts for shells.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, CompletionArgs};
use crate::exit::{Exit, Outcome};

/// Runs the command.
pub(crate) fn run(args: &CompletionArgs) -> Outcome {
    let shell = args.shell.unwrap_or(if args.zsh { Shell::Zsh } else { Shell::Bash });
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "choria", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(Exit::Ok)
}
