//! Replaces several files and directories at once: after a crash at any step, [`recover`] leaves all old or all new.
//!
//! ```text
//! prepare   the new content lies beside each target as .NAME.choria-new      crash: removed, all old
//! commit    targets become .NAME.choria-old, the new content takes the names crash: finished, all new
//! cleanup   the old content is removed; the journal still says commit         crash: finished, all new
//! rollback  the commit failed while running: the old content gets its names  crash: finished, all old
//! ```
//!
//! The journal is one small file beside the configuration file. It is written anew for each state by rename, so its
//! state is never in doubt, and every step can be done again. It holds names only.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files::{Files, is_there, remove_tree};

/// Name of the journal in the configuration directory.
pub const JOURNAL: &str = ".choria-configure.json";

/// Format of the journal. Another one is refused, never guessed at.
const VERSION: u32 = 1;

/// Largest journal that is read: names of all files of a thousand policies fit many times.
const MAX_JOURNAL: u64 = 16 * 1024 * 1024;

/// New content for one name.
#[derive(Debug)]
pub enum Content {
    /// A file.
    File {
        /// What it holds.
        bytes: Zeroizing<Vec<u8>>,
        /// Its mode.
        mode: u32,
    },
    /// A directory with exactly these entries.
    Directory {
        /// Its mode.
        mode: u32,
        /// Names and what they stand for.
        entries: Vec<(String, Self)>,
    },
    /// Nothing: what is there goes away.
    Absent,
}

impl Content {
    /// A file with this text.
    pub fn file(text: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self::File { bytes: Zeroizing::new(text.into()), mode }
    }
}

/// One name and what it shall stand for.
#[derive(Debug)]
pub struct Replacement {
    /// Absolute path.
    pub target: PathBuf,
    /// What it becomes.
    pub content: Content,
}

/// Why a set of files was not replaced, or not recovered.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A step failed; everything is as it was before.
    #[error("{step} {path}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A step failed and going back failed too. The next start tries again.
    #[error("{first}; going back failed as well and is tried again at the next start: {second}")]
    Unfinished {
        /// The failure that started it.
        first: Box<Self>,
        /// The failure while going back.
        second: Box<Self>,
    },
    /// The journal cannot be understood.
    #[error(
        "{path} cannot be understood: {reason}; look at the files named .*.choria-new and .*.choria-old, then remove it"
    )]
    Unreadable {
        /// The journal.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What [`recover`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// No configuration was under way.
    Nothing,
    /// One was interrupted before its commit: everything is as before it.
    Old,
    /// One was interrupted after its commit: everything is as it asked for.
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Prepare,
    Commit,
    Cleanup,
    Rollback,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    target: PathBuf,
    /// There was something before.
    existed: bool,
    /// There is something after.
    remains: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    version: u32,
    state: State,
    entries: Vec<Entry>,
    /// Parent directories that did not exist, outermost first.
    made: Vec<PathBuf>,
}

impl Entry {
    fn beside(&self, end: &str) -> PathBuf {
        let name = self.target.file_name().unwrap_or_default().to_string_lossy();
        self.target.with_file_name(format!(".{name}.choria-{end}"))
    }

    fn staged(&self) -> PathBuf {
        self.beside("new")
    }

    fn aside(&self) -> PathBuf {
        self.beside("old")
    }

    fn parent(&self) -> &Path {
        self.target.parent().unwrap_or_else(|| Path::new("/"))
    }
}

/// Replaces all of `replacements`, or nothing. `directory` holds the journal.
///
/// # Errors
/// The step that failed; everything is then as before, or will be at the next [`recover`].
pub fn replace(files: &dyn Files, directory: &Path, replacements: &[Replacement]) -> Result<(), JournalError> {
    let entries = replacements.iter().map(|replacement| Entry {
        target: replacement.target.clone(),
        existed: is_there(files, &replacement.target),
        remains: !matches!(replacement.content, Content::Absent),
    });
    let mut journal = Journal {
        version: VERSION,
        state: State::Prepare,
        entries: entries.collect(),
        made: missing(files, replacements),
    };
    let run = Run { files, directory };
    if let Err(first) = run.prepare(&journal, replacements) {
        return Err(back(first, run.undo(&journal)));
    }
    journal.state = State::Commit;
    if let Err(first) = run.write_record(&journal) {
        // Nothing was exchanged, and the journal in force says so. A full disk comes here: going back needs no room.
        return Err(back(first, run.undo(&journal)));
    }
    let committed = run.enforce_record().and_then(|()| run.finish(&mut journal));
    if let Err(first) = committed {
        if journal.state == State::Cleanup {
            // Everything is new already; what is left over is removed at the next start.
            tracing::warn!("the old files of a finished configuration could not be removed: {first}");
            return Ok(());
        }
        journal.state = State::Rollback;
        let undone = run.record(&journal).and_then(|()| run.undo(&journal));
        return Err(back(first, undone));
    }
    Ok(())
}

/// Finishes or takes back what a crash interrupted. Must run before anything reads the files.
///
/// # Errors
/// The disk refuses, or the journal cannot be understood.
pub fn recover(files: &dyn Files, directory: &Path) -> Result<Recovered, JournalError> {
    let run = Run { files, directory };
    let path = directory.join(JOURNAL);
    let unreadable = |reason: String| JournalError::Unreadable { path: path.clone(), reason };
    let text = match files.read(&path, MAX_JOURNAL) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            run.remove(&run.temporary())?;
            return Ok(Recovered::Nothing);
        }
        Err(source) => return Err(JournalError::Step { step: "read", path, source }),
    };
    let mut journal: Journal = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    if journal.version != VERSION {
        return Err(unreadable(format!("it has format {}, this program knows {VERSION}", journal.version)));
    }
    match journal.state {
        State::Prepare | State::Rollback => run.undo(&journal).map(|()| Recovered::Old),
        State::Commit | State::Cleanup => run.finish(&mut journal).map(|()| Recovered::New),
    }
}

/// Brings the names of a directory to the disk. Whoever was killed between giving a file its name and this leaves a name that is
/// read, and that a power cut takes back: nothing may be built on it before.
///
/// # Errors
/// The disk refuses. Where nothing can be written, or there is no such directory, nothing can be taken back either.
pub fn make_names_last(files: &dyn Files, directory: &Path) -> Result<(), JournalError> {
    use io::ErrorKind::{NotADirectory, NotFound, ReadOnlyFilesystem};
    match files.sync_dir(directory) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | ReadOnlyFilesystem) => Ok(()),
        result => step("bring to disk", directory, result),
    }
}

fn back(first: JournalError, undone: Result<(), JournalError>) -> JournalError {
    match undone {
        Ok(()) => first,
        Err(second) => JournalError::Unfinished { first: Box::new(first), second: Box::new(second) },
    }
}

/// Parent directories that must be made, outermost first.
fn missing(files: &dyn Files, replacements: &[Replacement]) -> Vec<PathBuf> {
    let mut made: Vec<PathBuf> = Vec::new();
    for replacement in replacements {
        let ancestors: Vec<&Path> =
            replacement.target.ancestors().skip(1).take_while(|path| !is_there(files, path)).collect();
        for path in ancestors.into_iter().rev() {
            if !made.iter().any(|known| known == path) {
                made.push(path.to_owned());
            }
        }
    }
    made
}

/// Mode of directories on the way to a target.
const PARENT_MODE: u32 = 0o700;

struct Run<'a> {
    files: &'a dyn Files,
    directory: &'a Path,
}

impl Run<'_> {
    fn temporary(&self) -> PathBuf {
        self.directory.join(format!("{JOURNAL}.choria-new"))
    }

    fn record(&self, journal: &Journal) -> Result<(), JournalError> {
        self.write_record(journal)?;
        self.enforce_record()
    }

    /// Writes a state beside the one in force.
    fn write_record(&self, journal: &Journal) -> Result<(), JournalError> {
        let text = serde_json::to_vec(journal).map_err(|error| JournalError::Unreadable {
            path: self.directory.join(JOURNAL),
            reason: error.to_string(),
        })?;
        #[cfg(feature = "planted-bug")]
        let text = match self.files.planted() {
            Some(crate::PlantedBug::CommitNotRecorded) => {
                String::from_utf8_lossy(&text).replace("\"commit\"", "\"prepare\"").into_bytes()
            }
            _ => text,
        };
        let temporary = self.temporary();
        step("write", &temporary, self.files.write(&temporary, &text, 0o600))
    }

    fn enforce_record(&self) -> Result<(), JournalError> {
        let temporary = self.temporary();
        step("rename", &temporary, self.files.rename(&temporary, &self.directory.join(JOURNAL)))?;
        self.sync(self.directory)
    }

    fn prepare(&self, journal: &Journal, replacements: &[Replacement]) -> Result<(), JournalError> {
        self.record(journal)?;
        for path in &journal.made {
            step("create directory", path, self.files.create_dir(path, PARENT_MODE))?;
        }
        for (entry, replacement) in journal.entries.iter().zip(replacements) {
            for stale in [entry.staged(), entry.aside()] {
                self.remove(&stale)?;
            }
            self.put(&entry.staged(), &replacement.content)?;
        }
        self.sync_parents(journal)
    }

    fn put(&self, path: &Path, content: &Content) -> Result<(), JournalError> {
        match content {
            Content::Absent => Ok(()),
            Content::File { bytes, mode } => step("write", path, self.files.write(path, bytes, *mode)),
            Content::Directory { mode, entries } => {
                step("create directory", path, self.files.create_dir(path, *mode))?;
                for (name, content) in entries {
                    self.put(&path.join(name), content)?;
                }
                self.sync(path)
            }
        }
    }

    /// From the commit to the end. Done again after a crash, it goes on where it stopped.
    fn finish(&self, journal: &mut Journal) -> Result<(), JournalError> {
        if journal.state == State::Commit {
            for entry in &journal.entries {
                let (new, old) = (entry.staged(), entry.aside());
                let pending = if entry.remains { self.is_there(&new) } else { self.is_there(&entry.target) };
                if !pending {
                    continue;
                }
                if self.is_there(&entry.target) {
                    self.rename(&entry.target, &old)?;
                }
                if entry.remains {
                    self.rename(&new, &entry.target)?;
                }
            }
            self.sync_parents(journal)?;
            // Not written down: a crash from here on is finished as one during the commit, and there may be no room.
            journal.state = State::Cleanup;
        }
        for entry in &journal.entries {
            self.remove(&entry.aside())?;
        }
        self.forget(journal)
    }

    /// Everything back as it was. Done again after a crash, it goes on where it stopped.
    fn undo(&self, journal: &Journal) -> Result<(), JournalError> {
        for entry in &journal.entries {
            if journal.state == State::Rollback {
                if !entry.existed {
                    self.remove(&entry.target)?;
                } else if self.is_there(&entry.aside()) {
                    self.remove(&entry.target)?;
                    self.rename(&entry.aside(), &entry.target)?;
                }
            }
            self.remove(&entry.staged())?;
        }
        for path in journal.made.iter().rev().filter(|path| self.is_there(path)) {
            match self.files.remove_dir(path) {
                // Somebody else uses it by now; that is no reason not to start.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                result => step("remove directory", path, result)?,
            }
        }
        self.forget(journal)
    }

    fn forget(&self, journal: &Journal) -> Result<(), JournalError> {
        self.sync_parents(journal)?;
        for path in [self.temporary(), self.directory.join(JOURNAL)] {
            self.remove(&path)?;
        }
        self.sync(self.directory)
    }

    /// Brings the names of all entries to the disk, and those of directories that were made for them: what a power cut
    /// could still take must not be relied on by the next state of the journal.
    fn sync_parents(&self, journal: &Journal) -> Result<(), JournalError> {
        let made = journal.made.iter().filter_map(|path| path.parent());
        let mut synced: Vec<&Path> = Vec::new();
        for parent in made.chain(journal.entries.iter().map(Entry::parent)) {
            if !synced.contains(&parent) && self.is_there(parent) {
                self.sync(parent)?;
                synced.push(parent);
            }
        }
        Ok(())
    }

    fn is_there(&self, path: &Path) -> bool {
        is_there(self.files, path)
    }

    fn sync(&self, path: &Path) -> Result<(), JournalError> {
        #[cfg(feature = "planted-bug")]
        if self.files.planted() == Some(crate::PlantedBug::NamesNotSynced) {
            return Ok(());
        }
        step("bring to disk", path, self.files.sync_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), JournalError> {
        step("rename", from, self.files.rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), JournalError> {
        step("remove", path, remove_tree(self.files, path))
    }
}

fn step(step: &'static str, path: &Path, result: io::Result<()>) -> Result<(), JournalError> {
    result.map_err(|source| JournalError::Step { step, path: path.to_owned(), source })
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
