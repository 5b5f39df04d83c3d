//! `choria man`: manual pages, made from the definitions of the commands.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::{Cli, ManArgs};
use crate::exit::{Exit, Failure, Outcome};

/// Section of the manual: user commands.
const SECTION: &str = "1";

/// Runs the command.
pub(crate) fn run(args: &ManArgs) -> Outcome {
    let root = tree();
    if let Some(command) = find(&root, &args.what) {
        if io::stdout().is_terminal() {
            writeln!(io::stderr(), "This is the source of the page: `choria man ... | man -l -` shows it.")?;
        }
        page(command).render(&mut io::stdout().lock())?;
        return Ok(Exit::Ok);
    }
    match args.what.as_slice() {
        [directory] if directory.contains('/') || Path::new(directory).is_dir() => {
            let directory = Path::new(directory);
            let count = write_all(&root, directory)
                .map_err(|error| Failure::new(format!("could not write pages to {}: {error}", directory.display())))?;
            writeln!(io::stdout(), "Wrote {count} pages to {}", directory.display())?;
            Ok(Exit::Ok)
        }
        words => Err(Failure::new(format!("there is no command {:?}", words.join(" ")))
            .hint("`choria man ping` prints one page, `choria man ./man` writes all of them to a directory")),
    }
}

/// All commands, finished: names of pages and flags that are handed down are known from then on.
fn tree() -> Command {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    root
}

/// The command at a path of names or aliases; no names is the program itself.
fn find<'c>(root: &'c Command, path: &[String]) -> Option<&'c Command> {
    path.iter().try_fold(root, |command, name| command.find_subcommand(name))
}

fn page(command: &Command) -> Man {
    let version = env!("CARGO_PKG_VERSION");
    Man::new(command.clone()).section(SECTION).source(format!("choria {version}")).manual("Choria")
}

/// Writes the page of every command that help shows, and tells how many these are.
fn write_all(root: &Command, directory: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(directory)?;
    let mut count = 0;
    let mut waiting = vec![root];
    while let Some(command) = waiting.pop() {
        page(command).generate_to(directory)?;
        count += 1;
        waiting.extend(command.get_subcommands().filter(|command| !command.is_hide_set()));
    }
    Ok(count)
}
