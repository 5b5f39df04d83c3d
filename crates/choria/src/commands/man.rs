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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command and flag that help shows says what it is for.
    fn check(command: &Command) {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
        assert!(command.get_about().is_some(), "{name} says nothing of itself");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.trim().is_empty(), "{name}: {} says nothing of itself", argument.get_id());
        }
        command.get_subcommands().filter(|command| !command.is_hide_set()).for_each(check);
    }

    #[test]
    fn every_command_and_flag_is_explained() {
        let root = tree();
        check(&root);
        assert!(find(&root, &["t".to_owned(), "check".to_owned()]).is_some(), "aliases lead to pages, too");
        assert!(find(&root, &["nonsense".to_owned()]).is_none());
    }

    #[test]
    fn pages_are_named_after_the_whole_command() {
        let directory = tempfile::tempdir().unwrap();
        let count = write_all(&tree(), directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), count, "no two pages of one name");
        assert!(directory.path().join("choria-tool-event.1").exists());
    }
}
