//! Every operation on the disk by which `configure` and the start of a server work, one by one, so that a test can stop
//! between any two and a simulation can bring a disk of its own.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use choria_config::{Config, ConfigError, Environment, Mode};
use choria_security::atomic::TEMPORARY_PREFIX;

/// Largest configuration file that is read.
pub(crate) const MAX_CONFIG: u64 = 16 * 1024 * 1024;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; only where links are not followed.
    Link,
    /// A device, pipe or socket.
    Other,
}

/// What is known of a name without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Its permission bits.
    pub mode: u32,
}

/// What can be done to the disk. Each call is atomic against a killed process but for [`Files::write`], whose file may be
/// there in part: nothing may be named by its final name until it is whole. Names are safe from a power cut only after
/// [`Files::sync_dir`].
pub trait Files {
    /// Makes one directory with exactly this mode.
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Writes a new file with exactly this mode and brings it to the disk. An existing one is replaced.
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;
    /// Gives a file or directory another name, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Brings a directory's names to the disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The content of a file of at most `limit` bytes; a larger one is [`io::ErrorKind::FileTooLarge`].
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// What is there; links are followed.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// What is there; a link stands for itself.
    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// The path without links.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// The guard that is taken away from whoever works on this disk.
    #[cfg(feature = "planted-bug")]
    fn planted(&self) -> Option<crate::PlantedBug> {
        None
    }
}

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        // The process's umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(path).map(|metadata| Metadata::of(&metadata))
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::symlink_metadata(path).map(|metadata| Metadata::of(&metadata))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }
}

impl Metadata {
    fn of(metadata: &fs::Metadata) -> Self {
        let kind = match metadata.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Link,
            _ => Kind::Other,
        };
        Self { kind, mode: metadata.permissions().mode() & 0o7777 }
    }
}

/// A disk that several parts of a server share.
#[derive(Clone)]
pub struct SharedFiles(Arc<dyn Files + Send + Sync>);

impl SharedFiles {
    /// Shares this disk.
    pub fn new(files: impl Files + Send + Sync + 'static) -> Self {
        Self(Arc::new(files))
    }
}

impl Default for SharedFiles {
    /// The real disk.
    fn default() -> Self {
        Self::new(Disk)
    }
}

impl Deref for SharedFiles {
    type Target = dyn Files + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for SharedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedFiles")
    }
}

/// Whether something has that name, a dangling link included.
pub(crate) fn is_there(files: &dyn Files, path: &Path) -> bool {
    files.symlink_metadata(path).is_ok()
}

/// Whether there is something behind that name; links are followed.
pub(crate) fn exists(files: &dyn Files, path: &Path) -> bool {
    files.metadata(path).is_ok()
}

/// Whether it is a directory; links are followed.
pub(crate) fn is_dir(files: &dyn Files, path: &Path) -> bool {
    files.metadata(path).is_ok_and(|metadata| metadata.kind == Kind::Directory)
}

/// Reads a text file of at most `limit` bytes.
pub(crate) fn read_text(files: &dyn Files, path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(files.read(path, limit)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is not valid UTF-8"))
}

/// Removes a file, or a directory with all it holds. Nothing there is fine.
pub(crate) fn remove_tree(files: &dyn Files, path: &Path) -> io::Result<()> {
    let metadata = match files.symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if metadata.kind != Kind::Directory {
        return files.remove_file(path);
    }
    for name in files.list(path)? {
        remove_tree(files, &path.join(name))?;
    }
    files.remove_dir(path)
}

/// Makes a directory and those above it that are missing.
pub(crate) fn create_dir_all(files: &dyn Files, path: &Path, mode: u32) -> io::Result<()> {
    if is_dir(files, path) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dir_all(files, parent, mode)?;
    }
    files.create_dir(path, mode)
}

/// Replaces one file: after a crash at any moment it holds the old content or the new. A link keeps pointing to it.
pub(crate) fn replace_file(files: &dyn Files, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let is_link = files.symlink_metadata(path).is_ok_and(|metadata| metadata.kind == Kind::Link);
    let target = match is_link.then(|| files.canonicalize(path)) {
        Some(Ok(target)) => target,
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Some(Err(_)) | None => path.to_owned(),
    };
    if is_dir(files, &target) {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let staged = target.with_file_name(format!("{TEMPORARY_PREFIX}{name}"));
    let written = files.write(&staged, bytes, mode).and_then(|()| files.rename(&staged, &target));
    if let Err(error) = written {
        // A full disk should not stay full because of what could not be finished.
        let _ = files.remove_file(&staged);
        return Err(error);
    }
    files.sync_dir(target.parent().unwrap_or_else(|| Path::new("/")))
}

/// Loads a server's configuration as a start does.
pub(crate) fn load_config(files: &dyn Files, path: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let content = files.read(path, MAX_CONFIG).map_err(failed)?;
    Config::from_text_at(path, content, Mode::Server, environment)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn one_file_is_replaced_through_links_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        create_dir_all(&Disk, &root.join("a/real"), 0o751).unwrap();
        assert_eq!(Disk.metadata(&root.join("a")).unwrap(), Metadata { kind: Kind::Directory, mode: 0o751 });
        let link = root.join("server.conf");
        symlink("a/real/server.conf", &link).unwrap();
        assert!(is_there(&Disk, &link) && !exists(&Disk, &link));
        // A dangling link is replaced by the file.
        replace_file(&Disk, &link, b"first", 0o600).unwrap();
        assert_eq!(Disk.symlink_metadata(&link).unwrap(), Metadata { kind: Kind::File, mode: 0o600 });
        fs::remove_file(&link).unwrap();

        fs::write(root.join("a/real/server.conf"), "old").unwrap();
        symlink("a/real/server.conf", &link).unwrap();
        replace_file(&Disk, &link, b"second", 0o644).unwrap();
        assert_eq!(Disk.symlink_metadata(&link).unwrap().kind, Kind::Link);
        assert_eq!(read_text(&Disk, &root.join("a/real/server.conf"), 6).unwrap(), "second");
        assert_eq!(Disk.list(&root.join("a/real")).unwrap(), ["server.conf"]);

        assert!(replace_file(&Disk, &root.join("a"), b"x", 0o600).is_err(), "a directory");
        assert_eq!(Disk.list(root).unwrap().len(), 2);
    }

    #[test]
    fn reading_is_bounded_and_text_is_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, b"ab\xff").unwrap();
        assert_eq!(Disk.read(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(Disk.read(&path, 3).unwrap(), b"ab\xff");
        assert_eq!(read_text(&Disk, &path, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(Disk.read(directory.path(), 3).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
