//! Crashes after every file operation, inside writes, and again during recovery.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::files::{Disk as RealDisk, Metadata};

/// The disk without waiting for it: a killed process loses nothing that the kernel has, and thousands of kills are tried.
const DISK: Quick = Quick;

struct Quick;

/// Reading is never what fails.
macro_rules! reads {
    () => {
        fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
            RealDisk.read(path, limit)
        }
        fn metadata(&self, path: &Path) -> io::Result<Metadata> {
            RealDisk.metadata(path)
        }
        fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
            RealDisk.symlink_metadata(path)
        }
        fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
            RealDisk.list(path)
        }
        fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
            RealDisk.canonicalize(path)
        }
    };
}

impl Files for Quick {
    reads!();
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        RealDisk.create_dir(path, mode)
    }
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let _ = std::fs::remove_file(path);
        std::fs::write(path, bytes)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // What is synchronised must exist.
        path.metadata().map(drop)
    }
}

/// Lets `budget` operations happen, then the process is dead: nothing works any more.
struct Dying {
    budget: Cell<usize>,
    /// The write that dies leaves half of its bytes.
    torn: bool,
}

impl Dying {
    fn after(budget: usize, torn: bool) -> Self {
        Self { budget: Cell::new(budget), torn }
    }

    fn step(&self) -> io::Result<()> {
        match self.budget.get().checked_sub(1) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => Err(io::Error::other("killed")),
        }
    }
}

impl Files for Dying {
    reads!();
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.step()?;
        DISK.create_dir(path, mode)
    }
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let dies_now = self.budget.get() == 0;
        if dies_now && self.torn {
            DISK.write(path, &bytes[..bytes.len() / 2], mode)?;
        }
        self.step()?;
        DISK.write(path, bytes, mode)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        DISK.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        DISK.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        DISK.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        DISK.sync_dir(path)
    }
}

/// Fails one operation and works again after it.
struct Hiccup {
    at: Cell<usize>,
}

macro_rules! hiccup {
    ($self:ident, $call:expr) => {{
        let at = $self.at.get();
        $self.at.set(at.wrapping_sub(1));
        if at == 0 { Err(io::Error::other("no space left")) } else { $call }
    }};
}

impl Files for Hiccup {
    reads!();
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        hiccup!(self, DISK.create_dir(path, mode))
    }
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        hiccup!(self, DISK.write(path, bytes, mode))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        hiccup!(self, DISK.rename(from, to))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        hiccup!(self, DISK.remove_file(path))
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        hiccup!(self, DISK.remove_dir(path))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        hiccup!(self, DISK.sync_dir(path))
    }
}

/// Knows which directories hold names that a power cut could still take.
#[derive(Default)]
struct Watched {
    dirty: RefCell<BTreeSet<PathBuf>>,
    /// Operations until one fails; none does at first.
    fails: Cell<Option<usize>>,
}

impl Watched {
    fn step(&self) -> io::Result<()> {
        let left = self.fails.get();
        self.fails.set(left.and_then(|left| left.checked_sub(1)));
        if left == Some(0) { Err(io::Error::other("no space left")) } else { Ok(()) }
    }

    fn touch(&self, path: &Path) {
        self.dirty.borrow_mut().insert(path.parent().unwrap().to_owned());
    }

    /// The journal commits or is forgotten now, so all that came before must be safe. Its own directory may hold another
    /// draft of it.
    fn settled(&self, journal: &Path) {
        let mut dirty = self.dirty.borrow().clone();
        dirty.remove(journal.parent().unwrap());
        assert!(dirty.is_empty(), "not on the disk: {dirty:?}");
    }
}

impl Files for Watched {
    reads!();
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.step()?;
        self.touch(path);
        DISK.create_dir(path, mode)
    }
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        self.step()?;
        self.touch(path);
        DISK.write(path, bytes, mode)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        // Going back works whatever a power cut takes; only a commit relies on what was prepared.
        if to.ends_with(JOURNAL) && std::fs::read_to_string(from)?.contains("commit") {
            self.settled(to);
        }
        self.touch(to);
        DISK.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        if path.ends_with(JOURNAL) {
            self.settled(path);
        }
        self.touch(path);
        DISK.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.touch(path);
        self.dirty.borrow_mut().remove(path);
        DISK.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.dirty.borrow_mut().remove(path);
        DISK.sync_dir(path)
    }
}

type Tree = BTreeMap<String, (u32, Option<String>)>;

fn tree(root: &Path) -> Tree {
    fn walk(root: &Path, at: &Path, tree: &mut Tree) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if metadata.is_dir() {
                tree.insert(name, (mode, None));
                walk(root, &path, tree);
            } else {
                tree.insert(name, (mode, Some(std::fs::read_to_string(&path).unwrap())));
            }
        }
    }
    let mut found = Tree::new();
    walk(root, root, &mut found);
    found
}

fn old_world() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    DISK.write(&root.join("server.conf"), b"old = 1\n", 0o644).unwrap();
    DISK.write(&root.join("csr.pem"), b"old csr", 0o644).unwrap();
    DISK.create_dir(&root.join("policies"), 0o755).unwrap();
    DISK.write(&root.join("policies/old.policy"), b"old", 0o644).unwrap();
    DISK.create_dir(&root.join("policies/rego"), 0o755).unwrap();
    DISK.write(&root.join("policies/rego/old.rego"), b"old", 0o644).unwrap();
    directory
}

fn wanted(root: &Path) -> Vec<Replacement> {
    let put = |name: &str, content| Replacement { target: root.join(name), content };
    vec![
        put("deep/er/ssl/certificate.pem", Content::file("new certificate", 0o644)),
        put("deep/er/ssl/private.pem", Content::file("new key", 0o600)),
        put("csr.pem", Content::Absent),
        put("absent-before.pem", Content::Absent),
        put("server.conf", Content::file("new = 1\n", 0o600)),
        put(
            "policies",
            Content::Directory {
                mode: 0o700,
                entries: vec![
                    ("a.policy".into(), Content::file("new a", 0o400)),
                    ("rego".into(), Content::Directory { mode: 0o700, entries: vec![] }),
                ],
            },
        ),
    ]
}

/// The two states that may ever be seen after a start.
fn both_worlds() -> (Tree, Tree) {
    let old = old_world();
    let before = tree(old.path());
    replace(&RealDisk, old.path(), &wanted(old.path())).unwrap();
    let after = tree(old.path());
    assert_eq!(after["server.conf"], (0o600, Some("new = 1\n".into())));
    assert_eq!(after["policies/a.policy"], (0o400, Some("new a".into())));
    assert!(!after.contains_key("csr.pem") && !after.contains_key("policies/old.policy"));
    assert!(after.keys().all(|name| !name.contains("choria-")), "{after:?}");
    (before, after)
}

/// Number of operations that a whole replacement takes.
fn operations() -> usize {
    let world = old_world();
    let files = Dying::after(usize::MAX, false);
    replace(&files, world.path(), &wanted(world.path())).unwrap();
    usize::MAX - files.budget.get()
}

#[test]
fn design6_configure_killed_at_any_step_leaves_files_wholly_old_or_wholly_new() {
    let (before, after) = both_worlds();
    let total = operations();
    assert!(total > 30, "only {total} operations");
    let (mut olds, mut news) = (0, 0);
    for torn in [false, true] {
        for budget in 0..total {
            let world = old_world();
            let _ = replace(&Dying::after(budget, torn), world.path(), &wanted(world.path()));
            let outcome = recover(&DISK, world.path()).unwrap();
            let found = tree(world.path());
            if found == after {
                news += 1;
                assert_ne!(outcome, Recovered::Old, "step {budget}");
            } else {
                olds += 1;
                assert_eq!(found, before, "killed after {budget} operations, torn {torn}");
                assert_ne!(outcome, Recovered::New, "step {budget}");
            }
            assert_eq!(recover(&DISK, world.path()).unwrap(), Recovered::Nothing);
        }
    }
    assert!(olds > 20 && news > 10, "{olds} old, {news} new");
}

#[test]
fn a_recovery_that_is_killed_too_is_taken_up_again() {
    let (before, after) = both_worlds();
    let total = operations();
    for budget in (0..total).step_by(3) {
        for second in 0..12 {
            let world = old_world();
            let _ = replace(&Dying::after(budget, true), world.path(), &wanted(world.path()));
            let _ = recover(&Dying::after(second, true), world.path());
            recover(&DISK, world.path()).unwrap();
            let found = tree(world.path());
            assert!(found == before || found == after, "killed after {budget}, recovery after {second}: {found:?}");
        }
    }
}

#[test]
fn a_failing_disk_leaves_everything_old_at_once() {
    let (before, after) = both_worlds();
    for at in 0..operations() {
        let world = old_world();
        let result = replace(&Hiccup { at: Cell::new(at) }, world.path(), &wanted(world.path()));
        let found = tree(world.path());
        match result {
            Err(error) => assert_eq!(found, before, "operation {at} failed: {error}"),
            // Only the removal of old files may fail without harm; the next start removes them.
            Ok(()) => {
                recover(&DISK, world.path()).unwrap();
                assert_eq!(tree(world.path()), after, "operation {at}");
            }
        }
    }
}

#[test]
fn design6_configure_relies_on_nothing_that_a_power_cut_could_still_take() {
    let total = operations();
    for fails in [None].into_iter().chain((0..total).map(Some)) {
        let world = old_world();
        let files = Watched { fails: Cell::new(fails), ..Watched::default() };
        let done = replace(&files, world.path(), &wanted(world.path()));
        assert!(done.is_ok() || fails.is_some(), "{done:?}");
        files.fails.set(None);
        recover(&files, world.path()).unwrap();
        // That the journal is gone may be forgotten when bringing it to the disk failed: done again, it changes nothing.
        if fails.is_some() {
            files.dirty.borrow_mut().remove(world.path());
        }
        assert_eq!(files.dirty.borrow().len(), 0, "after operation {fails:?} failed");
    }
}

#[test]
fn a_journal_of_another_format_is_refused_and_named() {
    let world = old_world();
    let path = world.path().join(JOURNAL);
    for text in ["", "{}", r#"{"version":2,"state":"commit","entries":[],"made":[]}"#] {
        std::fs::write(&path, text).unwrap();
        let error = recover(&DISK, world.path()).unwrap_err().to_string();
        assert!(error.contains(JOURNAL) && error.contains("cannot be understood"), "{error}");
    }
}

#[test]
fn a_directory_that_somebody_else_uses_meanwhile_stays_and_stops_nobody() {
    let world = old_world();
    // Dies while it stages: the directories are made.
    let _ = replace(&Dying::after(12, false), world.path(), &wanted(world.path()));
    let other = world.path().join("deep/er/other");
    std::fs::write(&other, "mine").unwrap();
    assert_eq!(recover(&DISK, world.path()).unwrap(), Recovered::Old);
    assert!(other.exists() && !world.path().join("deep/er/ssl").exists() && !world.path().join(JOURNAL).exists());
}

#[test]
fn nothing_to_recover_is_quick_and_quiet() {
    let world = old_world();
    let before = tree(world.path());
    assert_eq!(recover(&DISK, world.path()).unwrap(), Recovered::Nothing);
    assert_eq!(recover(&DISK, &world.path().join("absent")).unwrap(), Recovered::Nothing);
    assert_eq!(tree(world.path()), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any set of policies, killed anywhere, twice.
    #[test]
    fn any_set_of_files_any_kill(
        names in proptest::collection::btree_map("[a-z]{1,8}", "[a-z]{0,40}", 0..8),
        kill in 0usize..60,
        again in 0usize..20,
        torn: bool,
    ) {
        let make = |root: &Path| {
            let entries = names
                .iter()
                .map(|(name, text)| (format!("{name}.policy"), Content::file(text.clone(), 0o400)))
                .collect();
            vec![
                Replacement { target: root.join("server.conf"), content: Content::file("new", 0o600) },
                Replacement { target: root.join("policies"), content: Content::Directory { mode: 0o700, entries } },
            ]
        };
        let reference = old_world();
        let before = tree(reference.path());
        replace(&DISK, reference.path(), &make(reference.path())).unwrap();
        let after = tree(reference.path());

        let world = old_world();
        let _ = replace(&Dying::after(kill, torn), world.path(), &make(world.path()));
        let _ = recover(&Dying::after(again, torn), world.path());
        recover(&DISK, world.path()).unwrap();
        let found = tree(world.path());
        prop_assert!(found == before || found == after);
    }
}
