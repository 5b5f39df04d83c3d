//! Writing files so that a crash at any moment leaves the old content or the new one, never something between.
//!
//! The content goes to a temporary file in the directory of the target, is flushed to disk, gets its mode, and is renamed
//! over the target; then the directory is flushed. A target that is a symbolic link keeps the link and replaces the file
//! it points to. [`stage`] separates the two halves, for callers that prepare several files before committing them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Prefix of the temporary files, so that left-overs of a crash can be recognised.
pub const TEMPORARY_PREFIX: &str = ".choria-new-";

/// Writing or reading of one file failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {path}: {source}")]
pub struct FileError {
    /// What was tried: `read`, `write`, `create` or `replace`.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { action, path: path.into(), source }
    }
}

/// Replaces `path` with `bytes`, atomically and durably, with the given Unix mode whatever the umask says.
///
/// # Errors
/// When the directory does not exist, is not writable, or `path` is a directory; nothing is changed then.
pub fn write_file(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let staged = stage(path, bytes, mode)?;
    let directory = staged.directory.clone();
    let target = staged.target.clone();
    staged.commit()?;
    sync_directory(&directory).map_err(|source| FileError::new("write", target, source))
}

/// Creates `path` with `bytes`; an existing file is not replaced.
///
/// # Errors
/// As [`write_file`]; `AlreadyExists` when there is something at `path`.
pub fn create_file(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let path = path.as_ref();
    let mut staged = stage(path, bytes, mode)?;
    let directory = staged.directory.clone();
    let failed = |source| FileError::new("create", path, source);
    let file = staged.file.take().expect("a staged file is present until it is committed");
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    sync_directory(&directory).map_err(failed)
}

/// A file that is written and on disk beside its target, but not yet in its place. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    file: Option<NamedTempFile>,
    target: PathBuf,
    directory: PathBuf,
}

impl Staged {
    /// Where the file will go, links resolved.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Renames the file over its target. The directory still has to be flushed with [`sync_directory`], once for all
    /// files staged in it.
    ///
    /// # Errors
    /// When the rename fails; the target is then unchanged.
    pub fn commit(mut self) -> Result<(), FileError> {
        let file = self.file.take().expect("a staged file is present until it is committed");
        file.persist(&self.target).map_err(|error| FileError::new("replace", &self.target, error.error))?;
        Ok(())
    }
}

/// Writes `bytes` beside `path`, flushed and with its mode, ready to be committed.
///
/// # Errors
/// When the temporary file cannot be made in the target's directory, or the target is a directory.
pub fn stage(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<Staged, FileError> {
    let path = path.as_ref();
    let failed = |source| FileError::new("write", path, source);
    let target = resolve(path).map_err(failed)?;
    if target.is_dir() {
        return Err(failed(io::Error::new(io::ErrorKind::IsADirectory, "is a directory")));
    }
    let directory = directory_of(&target);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(&directory).map_err(failed)?;
    set_mode(file.as_file(), mode).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    Ok(Staged { file: Some(file), target, directory })
}

/// Flushes the entries of a directory, so that renames in it survive a power cut.
///
/// # Errors
/// When the directory cannot be opened or flushed.
pub fn sync_directory(directory: impl AsRef<Path>) -> io::Result<()> {
    #[cfg(unix)]
    return File::open(directory)?.sync_all();
    #[cfg(not(unix))]
    {
        // Directories cannot be flushed there; renames are durable by the file system's own rules.
        let _ = directory;
        Ok(())
    }
}

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, is not UTF-8 or is larger.
pub fn read_text(path: impl AsRef<Path>, limit: u64) -> Result<String, FileError> {
    let path = path.as_ref();
    let failed = |source| FileError::new("read", path, source);
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes"))));
    }
    Ok(text)
}

/// The file behind `path`: links are followed, a dangling link stands for itself.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => match fs::canonicalize(path) {
            Ok(target) => Ok(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
            Err(error) => Err(error),
        },
        _ => Ok(path.to_owned()),
    }
}

/// The directory that holds `path`.
fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(unix)]
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(crate) fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn content_and_mode_are_replaced_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("private.pem");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        write_file(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(directory.path()), ["private.pem"]);
    }

    #[test]
    fn a_link_stays_a_link_and_its_target_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("real")).unwrap();
        let target = directory.path().join("real/server.conf");
        fs::write(&target, "old").unwrap();
        let link = directory.path().join("server.conf");
        symlink("real/server.conf", &link).unwrap();
        write_file(&link, b"new", 0o644).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
    }

    #[test]
    fn a_dangling_link_is_replaced_by_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("server.conf");
        symlink("nowhere", &link).unwrap();
        write_file(&link, b"new", 0o644).unwrap();
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&link).unwrap(), "new");
    }

    #[test]
    fn a_directory_in_the_place_is_an_error_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.conf");
        fs::create_dir(&path).unwrap();
        write_file(&path, b"new", 0o644).unwrap_err();
        assert_eq!(names(directory.path()), ["server.conf"]);
    }

    #[test]
    fn a_staged_file_that_is_dropped_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        fs::write(&path, "old").unwrap();
        drop(stage(&path, b"new", 0o644).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(directory.path()), ["ca.pem"]);
    }

    #[test]
    fn creating_does_not_replace() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca-key.pem");
        create_file(&path, b"one", 0o600).unwrap();
        let error = create_file(&path, b"two", 0o600).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }

    #[test]
    fn large_files_are_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big");
        fs::write(&path, vec![b'x'; 101]).unwrap();
        assert!(read_text(&path, 100).is_err());
        assert_eq!(read_text(&path, 101).unwrap().len(), 101);
    }
}
