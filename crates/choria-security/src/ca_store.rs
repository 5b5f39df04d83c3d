//! A certificate authority whose files may be replaced while it signs.
//!
//! Certificate and key are two files, so there is a moment in which they do not belong together. [`AuthorityStore`] takes
//! over a new authority only when all of it is there: the key belongs to the certificate, every certificate of the file can
//! be read, and the files did not change while they were read. Until then the last good one stays in force. Whoever signs
//! takes one [`AuthorityStore::current`] and uses its certificate text beside what it signed, so that the two always
//! belong together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::ca::{CA_FILE, CA_KEY_FILE, CaError, CertificateAuthority};
use crate::trust::{Authorities, Stamp, stamp};

/// An authority in a directory, see `choria ca init`.
#[derive(Debug)]
pub struct AuthorityStore {
    directory: PathBuf,
    current: ArcSwap<CertificateAuthority>,
    // Guards the decision to read again, never held while something is signed.
    watch: Mutex<Watch>,
}

/// What is known about the files.
#[derive(Debug)]
struct Watch {
    stamps: [Stamp; 2],
    /// Whether the files were read again after they had been taken over. Two writes within the same tick of the file
    /// system's clock have the same stamp.
    settled: bool,
    /// The fault that was told last.
    told: Option<String>,
}

impl AuthorityStore {
    /// Loads the authority of `directory`.
    ///
    /// # Errors
    /// As [`CertificateAuthority::load`], and when another certificate of the file is damaged.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, CaError> {
        let directory = directory.as_ref().to_owned();
        let stamps = stamps(&directory);
        let current = load(&directory)?;
        let watch = Mutex::new(Watch { stamps, settled: false, told: None });
        Ok(Self { directory, current: ArcSwap::from_pointee(current), watch })
    }

    /// The authority in force.
    pub fn current(&self) -> Arc<CertificateAuthority> {
        self.current.load_full()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Looks whether the files changed (two `stat`) and takes them over when they are a whole, good authority. Returns
    /// whether the authority was replaced. When another thread is looking, there is nothing to do.
    ///
    /// # Errors
    /// When the changed files cannot be used. The last good authority stays in force, the files are tried again at every
    /// call, and the same fault is told once.
    pub fn refresh(&self) -> Result<bool, CaError> {
        let Some(mut watch) = self.watch.try_lock() else { return Ok(false) };
        let before = stamps(&self.directory);
        if watch.settled && before == watch.stamps {
            return Ok(false);
        }
        watch.settled = false;
        let loaded = match load(&self.directory) {
            Ok(loaded) => loaded,
            Err(error) => {
                let text = error.to_string();
                let news = watch.told.as_ref() != Some(&text);
                watch.told = Some(text);
                return if news { Err(error) } else { Ok(false) };
            }
        };
        if stamps(&self.directory) != before {
            // Somebody is writing; what was read may be a part of it.
            return Ok(false);
        }
        watch.told = None;
        watch.stamps = before;
        if loaded.certificate_pem() == self.current.load().certificate_pem() {
            watch.settled = true;
            return Ok(false);
        }
        self.current.store(Arc::new(loaded));
        Ok(true)
    }
}

fn load(directory: &Path) -> Result<CertificateAuthority, CaError> {
    let authority = CertificateAuthority::load(directory)?;
    // Nodes get the whole text, and refuse it when any certificate in it is damaged.
    Authorities::from_pem(authority.certificate_pem()).map_err(|error| CaError::Bundle {
        origin: directory.join(CA_FILE).display().to_string(),
        problem: error.to_string(),
    })?;
    Ok(authority)
}

fn stamps(directory: &Path) -> [Stamp; 2] {
    [stamp(&directory.join(CA_FILE)), stamp(&directory.join(CA_KEY_FILE))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::{self, Subject};
    use crate::keys::{KeyKind, PrivateKey};

    const NOW: i64 = 1_800_000_000;

    fn make(directory: &Path, name: &str) {
        CertificateAuthority::create(directory, name, KeyKind::P256, NOW).unwrap();
    }

    fn subject(store: &AuthorityStore) -> String {
        store.current().facts().subject.clone()
    }

    #[test]
    fn a_new_authority_is_taken_over_once_it_is_whole() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(old.path(), "old");
        make(new.path(), "new");
        let store = AuthorityStore::open(old.path()).unwrap();
        assert!(!store.refresh().unwrap());
        let before = store.current();

        // The certificate comes first, as a careless copy does it.
        std::fs::copy(new.path().join(CA_FILE), old.path().join(CA_FILE)).unwrap();
        let error = store.refresh().unwrap_err().to_string();
        assert!(error.contains("the key does not belong to the certificate"), "{error}");
        assert!(!store.refresh().unwrap(), "told once");
        assert!(subject(&store).contains("old"));

        std::fs::copy(new.path().join(CA_KEY_FILE), old.path().join(CA_KEY_FILE)).unwrap();
        assert!(store.refresh().unwrap());
        assert!(subject(&store).contains("new"));
        assert!(!store.refresh().unwrap());
        assert!(!store.refresh().unwrap());
        assert!(before.facts().subject.contains("old"), "who is signing keeps what it has");
    }

    #[test]
    fn files_that_vanish_or_are_emptied_leave_the_old_authority() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), "old");
        let store = AuthorityStore::open(directory.path()).unwrap();
        for name in [CA_FILE, CA_KEY_FILE] {
            let file = directory.path().join(name);
            let text = std::fs::read(&file).unwrap();
            std::fs::write(&file, "").unwrap();
            assert!(store.refresh().is_err(), "{name}");
            std::fs::remove_file(&file).unwrap();
            assert!(store.refresh().is_err(), "{name}: another fault is told again");
            assert!(subject(&store).contains("old"));
            std::fs::write(&file, text).unwrap();
            assert!(!store.refresh().unwrap(), "it is the old one again");
        }
    }

    #[test]
    fn a_bundle_is_judged_as_a_whole() {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(directory.path(), "first");
        make(other.path(), "second");
        let store = AuthorityStore::open(directory.path()).unwrap();
        let both = [CA_FILE, CA_FILE].iter().zip([&directory, &other]);
        let texts: Vec<String> = both.map(|(n, d)| std::fs::read_to_string(d.path().join(n)).unwrap()).collect();
        let bundle = texts.concat();
        std::fs::write(directory.path().join(CA_FILE), &bundle[..bundle.len() - 60]).unwrap();
        assert!(store.refresh().is_err(), "half of the second certificate");
        std::fs::write(directory.path().join(CA_FILE), &bundle).unwrap();
        assert!(store.refresh().unwrap());
        assert_eq!(store.current().certificate_pem(), bundle);
    }

    #[test]
    fn an_inspected_request_is_signed_and_a_bad_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), "ca");
        let store = AuthorityStore::open(directory.path()).unwrap();
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let request = csr::create(&key, &Subject::common_name("n1.example.net")).unwrap();
        let facts = csr::inspect(&request).unwrap();
        let policy = |name: &str| crate::ca::SigningPolicy::new(name);
        let authority = store.current();
        assert!(authority.sign_request(&facts, &policy("n1.example.net"), NOW).is_ok());
        assert!(authority.sign_request(&facts, &policy("n2.example.net"), NOW).is_err());
    }
}
