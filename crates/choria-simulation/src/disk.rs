//! A disk in memory that loses what was not synced, dies between two operations, and fills up.
//!
//! Two worlds are kept of every directory: the names that running programs see, and those that a power cut leaves. A
//! killed program loses nothing but the rest of its work. A power cut keeps of the names that were not synced a prefix of
//! the changes or any part of them, and of content that was not synced any beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use choria_server::files::{Files, Kind, Metadata};
use rand::Rng;
use rand::rngs::SmallRng;

/// What goes wrong with the disk next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// After so many operations the program is dead: no other one happens. A write that is cut leaves half of its file
    /// when `torn`.
    Dies {
        /// Operations that still happen.
        after: u64,
        /// Whether the one that does not leaves half of a file.
        torn: bool,
    },
    /// One operation fails, those after it work again.
    Hiccup {
        /// Operations before it.
        after: u64,
    },
    /// From then on every operation fails, until the trouble is over.
    Refuses {
        /// Operations before that.
        after: u64,
    },
    /// From then on every operation that needs room fails.
    Full {
        /// Operations before that.
        after: u64,
    },
}

#[derive(Debug, Clone)]
enum Inode {
    File { bytes: Arc<[u8]>, mode: u32, synced: bool },
    Directory { mode: u32, names: Names, durable: Names, changes: Vec<Change> },
}

type Names = BTreeMap<String, usize>;

/// One change of a directory that is not synced yet.
#[derive(Debug, Clone)]
enum Change {
    Add(String, usize),
    Remove(String),
    Rename { from: String, to: String, inode: usize },
}

impl Change {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Inner {
    inodes: Vec<Inode>,
    trouble: Trouble,
    dead: bool,
    operations: u64,
    #[cfg(feature = "planted-bug")]
    planted: Option<choria_server::PlantedBug>,
}

/// The disk of one machine. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryDisk(Arc<Mutex<Inner>>);

const ROOT: usize = 0;

impl MemoryDisk {
    /// An empty disk with these directories, all of them synced.
    pub fn new(directories: &[&str]) -> Self {
        let root = Inode::directory(0o755);
        let inner = Inner {
            inodes: vec![root],
            trouble: Trouble::None,
            dead: false,
            operations: 0,
            #[cfg(feature = "planted-bug")]
            planted: None,
        };
        let disk = Self(Arc::new(Mutex::new(inner)));
        for directory in directories {
            let mut path = PathBuf::from("/");
            for part in Path::new(directory).components().skip(1) {
                path.push(part);
                // Made already for an earlier one.
                let _ = disk.create_dir(&path, 0o755);
            }
        }
        disk.sync_all();
        disk
    }

    /// The same content on a disk of its own, for asking what would happen.
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Brings everything to the disk.
    pub fn sync_all(&self) {
        for inode in &mut self.lock().inodes {
            match inode {
                Inode::File { synced, .. } => *synced = true,
                Inode::Directory { names, durable, changes, .. } => {
                    durable.clone_from(names);
                    changes.clear();
                }
            }
        }
    }

    /// What goes wrong next. Also brings a dead program's disk back.
    pub fn set_trouble(&self, trouble: Trouble) {
        let mut inner = self.lock();
        inner.trouble = trouble;
        inner.dead = false;
    }

    /// Whether the program died in an operation.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Operations that changed something.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Takes a guard away from whoever works on this disk.
    #[cfg(feature = "planted-bug")]
    pub fn plant_bug(&self, bug: choria_server::PlantedBug) {
        self.lock().planted = Some(bug);
    }

    /// The power goes: what was not synced is lost, in part or as a whole. Returns whether anything was.
    pub fn cut_power(&self, random: &mut SmallRng) -> bool {
        let mut inner = self.lock();
        inner.dead = false;
        inner.trouble = Trouble::None;
        let mut lost = false;
        for inode in &mut inner.inodes {
            match inode {
                Inode::File { bytes, synced, .. } if !*synced => {
                    let kept = random.random_range(0..=bytes.len());
                    lost |= kept < bytes.len();
                    *bytes = Arc::from(&bytes[..kept]);
                    *synced = true;
                }
                Inode::File { .. } => {}
                Inode::Directory { names, durable, changes, .. } => {
                    if changes.is_empty() {
                        continue;
                    }
                    // File systems with a journal keep a prefix; others promise nothing.
                    let prefix = random.random_bool(0.6).then(|| random.random_range(0..=changes.len()));
                    for (index, change) in changes.iter().enumerate() {
                        if prefix.map_or_else(|| random.random_bool(0.5), |prefix| index < prefix) {
                            change.apply(durable);
                        }
                    }
                    lost |= durable != names;
                    names.clone_from(durable);
                    changes.clear();
                }
            }
        }
        lost
    }

    /// Every file below `root`, by path relative to it.
    pub fn tree(&self, root: &Path) -> BTreeMap<String, Arc<[u8]>> {
        let inner = self.lock();
        let mut found = BTreeMap::new();
        if let Ok(start) = inner.find(root) {
            inner.walk(start, "", &mut BTreeSet::new(), &mut found);
        }
        found
    }

    /// Puts a file there as it would be after a long time, synced.
    pub fn plant(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.write(path, bytes, mode)?;
        self.sync_dir(path.parent().unwrap_or_else(|| Path::new("/")))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inode {
    fn directory(mode: u32) -> Self {
        Self::Directory { mode, names: Names::new(), durable: Names::new(), changes: Vec::new() }
    }
}

/// Path and last name of something.
fn split(path: &Path) -> io::Result<(&Path, String)> {
    match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Some(parent), Some(name)) => Ok((parent, name.to_owned())),
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

impl Inner {
    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = ROOT;
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let name = name.to_str().ok_or(ErrorKind::InvalidInput)?;
                    at = *self.names(at)?.get(name).ok_or(ErrorKind::NotFound)?;
                }
                Component::ParentDir | Component::Prefix(_) => return Err(ErrorKind::InvalidInput.into()),
            }
        }
        Ok(at)
    }

    fn names(&self, inode: usize) -> io::Result<&Names> {
        match &self.inodes[inode] {
            Inode::Directory { names, .. } => Ok(names),
            Inode::File { .. } => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn change(&mut self, directory: usize, change: Change) -> io::Result<()> {
        match &mut self.inodes[directory] {
            Inode::Directory { names, changes, .. } => {
                change.apply(names);
                changes.push(change);
                Ok(())
            }
            Inode::File { .. } => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn add(&mut self, directory: usize, name: String, inode: Inode) -> io::Result<()> {
        self.inodes.push(inode);
        let number = self.inodes.len() - 1;
        self.change(directory, Change::Add(name, number))
    }

    /// One operation passes, or does not. `room`: whether it needs space on the disk.
    fn step(&mut self, room: bool) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        match &mut self.trouble {
            Trouble::None => {}
            Trouble::Dies { after: 0, .. } => {
                self.dead = true;
                return Err(io::Error::other("the process is dead"));
            }
            Trouble::Hiccup { after: 0 } => {
                self.trouble = Trouble::None;
                return Err(io::Error::other("input/output error"));
            }
            Trouble::Refuses { after: 0 } => return Err(ErrorKind::ReadOnlyFilesystem.into()),
            Trouble::Full { after: 0 } if room => return Err(ErrorKind::StorageFull.into()),
            Trouble::Full { after: 0 } => {}
            Trouble::Dies { after, .. }
            | Trouble::Hiccup { after }
            | Trouble::Refuses { after }
            | Trouble::Full { after } => *after -= 1,
        }
        self.operations += 1;
        Ok(())
    }

    fn walk(&self, inode: usize, path: &str, above: &mut BTreeSet<usize>, found: &mut BTreeMap<String, Arc<[u8]>>) {
        match &self.inodes[inode] {
            Inode::File { bytes, .. } => {
                found.insert(path.to_owned(), Arc::clone(bytes));
            }
            Inode::Directory { names, .. } => {
                // A power cut may leave two names for one directory; none of them below itself.
                if !above.insert(inode) {
                    return;
                }
                for (name, inode) in names {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                    self.walk(*inode, &path, above, found);
                }
                above.remove(&inode);
            }
        }
    }
}

impl Files for MemoryDisk {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step(true)?;
        let (parent, name) = split(path)?;
        let parent = inner.find(parent)?;
        if inner.names(parent)?.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        inner.add(parent, name, Inode::directory(mode))
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut inner = self.lock();
        let (parent, name) = split(path)?;
        let parent = inner.find(parent)?;
        if let Some(there) = inner.names(parent)?.get(&name)
            && matches!(inner.inodes[*there], Inode::Directory { .. })
        {
            return Err(ErrorKind::IsADirectory.into());
        }
        let torn = matches!(inner.trouble, Trouble::Dies { after: 0, torn: true }) && !inner.dead;
        if torn {
            let half = Arc::from(&bytes[..bytes.len() / 2]);
            inner.add(parent, name.clone(), Inode::File { bytes: half, mode, synced: false })?;
        }
        inner.step(true)?;
        inner.add(parent, name, Inode::File { bytes: Arc::from(bytes), mode, synced: true })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step(false)?;
        let ((old, from), (new, to)) = (split(from)?, split(to)?);
        let (old, new) = (inner.find(old)?, inner.find(new)?);
        let inode = *inner.names(old)?.get(&from).ok_or(ErrorKind::NotFound)?;
        if let Some(there) = inner.names(new)?.get(&to)
            && let Inode::Directory { names, .. } = &inner.inodes[*there]
            && !names.is_empty()
        {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        if old == new {
            return inner.change(old, Change::Rename { from, to, inode });
        }
        inner.change(new, Change::Add(to, inode))?;
        inner.change(old, Change::Remove(from))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step(false)?;
        let (parent, name) = split(path)?;
        let parent = inner.find(parent)?;
        let there = *inner.names(parent)?.get(&name).ok_or(ErrorKind::NotFound)?;
        match inner.inodes[there] {
            Inode::File { .. } => inner.change(parent, Change::Remove(name)),
            Inode::Directory { .. } => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step(false)?;
        let (parent, name) = split(path)?;
        let parent = inner.find(parent)?;
        let there = *inner.names(parent)?.get(&name).ok_or(ErrorKind::NotFound)?;
        if !inner.names(there)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        inner.change(parent, Change::Remove(name))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step(false)?;
        let at = inner.find(path)?;
        match &mut inner.inodes[at] {
            Inode::Directory { names, durable, changes, .. } => {
                durable.clone_from(names);
                changes.clear();
                Ok(())
            }
            Inode::File { .. } => Ok(()),
        }
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        match &inner.inodes[inner.find(path)?] {
            Inode::File { bytes, .. } if bytes.len() as u64 > limit => Err(ErrorKind::FileTooLarge.into()),
            Inode::File { bytes, .. } => Ok(bytes.to_vec()),
            Inode::Directory { .. } => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let inner = self.lock();
        Ok(match inner.inodes[inner.find(path)?] {
            Inode::File { mode, .. } => Metadata { kind: Kind::File, mode },
            Inode::Directory { mode, .. } => Metadata { kind: Kind::Directory, mode },
        })
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.metadata(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let inner = self.lock();
        Ok(inner.names(inner.find(path)?)?.keys().map(OsString::from).collect())
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.lock().find(path).map(|_| path.to_owned())
    }

    #[cfg(feature = "planted-bug")]
    fn planted(&self) -> Option<choria_server::PlantedBug> {
        self.lock().planted
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn p(path: &str) -> &Path {
        Path::new(path)
    }

    fn names(disk: &MemoryDisk) -> Vec<String> {
        disk.tree(p("/d")).into_keys().collect()
    }

    #[test]
    fn a_power_cut_takes_names_that_were_not_synced_and_nothing_else() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..200 {
            let disk = MemoryDisk::new(&["/d"]);
            disk.write(p("/d/synced"), b"s", 0o600).unwrap();
            disk.sync_dir(p("/d")).unwrap();
            disk.write(p("/d/new"), b"n", 0o600).unwrap();
            disk.rename(p("/d/new"), p("/d/renamed")).unwrap();
            disk.cut_power(&mut SmallRng::seed_from_u64(seed));
            let found = names(&disk);
            assert!(found.contains(&"synced".to_owned()));
            if found.contains(&"renamed".to_owned()) {
                kept += 1;
            } else {
                lost += 1;
            }
            // Nothing is left to lose.
            disk.cut_power(&mut SmallRng::seed_from_u64(seed + 1));
            assert_eq!(names(&disk), found);
        }
        assert!(kept > 20 && lost > 20, "{kept} {lost}");
    }

    #[test]
    fn a_dead_program_changes_nothing_more_and_may_leave_half_a_file() {
        let disk = MemoryDisk::new(&["/d"]);
        disk.set_trouble(Trouble::Dies { after: 1, torn: true });
        disk.write(p("/d/a"), b"whole", 0o600).unwrap();
        assert!(disk.write(p("/d/b"), b"halfhalf", 0o600).is_err());
        assert!(disk.is_dead() && disk.remove_file(p("/d/a")).is_err());
        assert_eq!(disk.tree(p("/d"))["b"].as_ref(), b"half");
        disk.set_trouble(Trouble::None);
        disk.remove_file(p("/d/b")).unwrap();
        assert_eq!(names(&disk), ["a"]);
    }

    #[test]
    fn full_broken_and_hiccuping_disks() {
        let disk = MemoryDisk::new(&["/d"]);
        disk.write(p("/d/a"), b"a", 0o600).unwrap();
        disk.set_trouble(Trouble::Full { after: 0 });
        assert_eq!(disk.write(p("/d/b"), b"b", 0o600).unwrap_err().kind(), ErrorKind::StorageFull);
        disk.rename(p("/d/a"), p("/d/c")).unwrap();
        disk.set_trouble(Trouble::Hiccup { after: 1 });
        disk.rename(p("/d/c"), p("/d/a")).unwrap();
        assert!(disk.remove_file(p("/d/a")).is_err());
        disk.set_trouble(Trouble::Refuses { after: 0 });
        assert_eq!(disk.remove_file(p("/d/a")).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        disk.set_trouble(Trouble::None);
        disk.remove_file(p("/d/a")).unwrap();
    }

    #[test]
    fn directories_behave_as_such() {
        let disk = MemoryDisk::new(&["/d"]);
        disk.create_dir(p("/d/x"), 0o700).unwrap();
        disk.write(p("/d/x/f"), b"f", 0o640).unwrap();
        assert_eq!(disk.remove_dir(p("/d/x")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        assert_eq!(disk.read(p("/d/x"), 10).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(disk.read(p("/d/x/f/g"), 10).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert_eq!(disk.metadata(p("/d/x/f")).unwrap(), Metadata { kind: Kind::File, mode: 0o640 });
        let fork = disk.fork();
        disk.rename(p("/d/x"), p("/d/y")).unwrap();
        assert_eq!(names(&disk), ["y/f"]);
        assert_eq!(names(&fork), ["x/f"]);
    }
}
