//! Ed25519 seed and public key files, and token files (spec 01 §13.3).
//!
//! Reading tolerates white space around the hex text; writing is exact: 64 lower case hex characters, no line end,
//! seeds and tokens mode 0600. Files are written beside their target and renamed, so a crash leaves the old or the new one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::keys::decode_hex32;

/// Largest key or token file that is read.
const MAX_FILE_BYTES: u64 = 128 * 1024;

/// Why a key or token file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Reading failed.
    #[error("could not read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed.
    #[error("could not write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there and may not be replaced.
    #[error("{path} already exists, use --force to replace it")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The content is not what the file should hold.
    #[error("{path} does not hold {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
    },
}

/// An Ed25519 seed, the private half of a Choria identity. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    /// A new random seed.
    ///
    /// # Panics
    /// Never in practice: the system's random source does not fail once the process runs.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(bytes.as_mut_slice()).expect("the system random source is available");
        Self(bytes)
    }

    /// A seed from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A seed from 64 hex characters, white space around them tolerated.
    pub fn from_hex(text: &str) -> Option<Self> {
        decode_hex32(text.trim()).map(Self::from_bytes)
    }

    /// The 64 lower case hex characters that a seed file holds.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }

    /// The public key that belongs to this seed.
    pub fn public(&self) -> [u8; 32] {
        let pair = self.pair();
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        public
    }

    /// The public key as 64 lower case hex characters.
    pub fn public_hex(&self) -> String {
        hex::encode(self.public())
    }

    /// Plain Ed25519 signature of `message`, 64 bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair().sign(message).as_ref());
        signature
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(self.0.as_slice()).expect("every 32 bytes are an Ed25519 seed")
    }

    pub(crate) fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let document = self.pair().to_pkcs8v1().expect("an Ed25519 key has a PKCS#8 form");
        Zeroizing::new(document.as_ref().to_vec())
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(*****)")
    }
}

/// Verifies a plain Ed25519 signature; wrong sizes are simply not valid.
pub fn verify_ed25519(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    public.len() == 32 && UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

/// Reads a seed file.
///
/// # Errors
/// When the file cannot be read or does not hold 64 hex characters.
pub fn read_seed(path: impl AsRef<Path>) -> Result<Seed, KeyFileError> {
    let path = path.as_ref();
    let text = Zeroizing::new(read_bounded(path)?);
    Seed::from_hex(&text).ok_or_else(|| KeyFileError::Content {
        path: path.to_owned(),
        expected: "the 64 hex characters of an Ed25519 seed",
    })
}

/// Reads a public key file.
///
/// # Errors
/// As [`read_seed`].
pub fn read_public(path: impl AsRef<Path>) -> Result<[u8; 32], KeyFileError> {
    let path = path.as_ref();
    decode_hex32(read_bounded(path)?.trim()).ok_or_else(|| KeyFileError::Content {
        path: path.to_owned(),
        expected: "the 64 hex characters of an Ed25519 public key",
    })
}

/// Writes a seed file, mode 0600, replacing an existing one only when `replace` is set.
///
/// # Errors
/// When it exists and may not be replaced, or cannot be written.
pub fn write_seed(path: impl AsRef<Path>, seed: &Seed, replace: bool) -> Result<(), KeyFileError> {
    write(path.as_ref(), seed.to_hex().as_bytes(), 0o600, replace)
}

/// Writes a public key file, mode 0644.
///
/// # Errors
/// As [`write_seed`].
pub fn write_public(path: impl AsRef<Path>, public: &[u8; 32], replace: bool) -> Result<(), KeyFileError> {
    write(path.as_ref(), hex::encode(public).as_bytes(), 0o644, replace)
}

/// Writes a token file, mode 0600, no line end added.
///
/// # Errors
/// As [`write_seed`].
pub fn write_token(path: impl AsRef<Path>, token: &str, replace: bool) -> Result<(), KeyFileError> {
    write(path.as_ref(), token.as_bytes(), 0o600, replace)
}

/// Reads a token file; white space around the token is removed.
///
/// # Errors
/// When the file cannot be read or is larger than any token.
pub fn read_token(path: impl AsRef<Path>) -> Result<String, KeyFileError> {
    Ok(read_bounded(path.as_ref())?.trim().to_owned())
}

/// Reads a small text file.
pub(crate) fn read_bounded(path: &Path) -> Result<String, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let mut file = File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1);
    file.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(KeyFileError::Content { path: path.to_owned(), expected: "a key or token (it is too large)" });
    }
    Ok(text)
}

fn write(path: &Path, bytes: &[u8], mode: u32, replace: bool) -> Result<(), KeyFileError> {
    if !replace && fs::symlink_metadata(path).is_ok() {
        return Err(KeyFileError::Exists { path: path.to_owned() });
    }
    let failed = |source| KeyFileError::Write { path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".choria-").tempfile_in(directory).map_err(failed)?;
    set_mode(file.as_file(), mode).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let persisted = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    persisted.map_err(|error| failed(error.error))?;
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(failed)
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_files_are_exact_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.seed");
        let seed = Seed::from_bytes([0x33; 32]);
        write_seed(&path, &seed, false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "33".repeat(32));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(matches!(write_seed(&path, &seed, false), Err(KeyFileError::Exists { .. })));
        write_seed(&path, &Seed::from_bytes([0x44; 32]), true).unwrap();
        assert_eq!(read_seed(&path).unwrap().public_hex(), Seed::from_bytes([0x44; 32]).public_hex());
    }

    #[test]
    fn trailing_line_ends_are_tolerated_on_reading() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.public");
        let public = Seed::from_bytes([0x33; 32]).public();
        fs::write(&path, format!("{}\r\n", hex::encode_upper(public))).unwrap();
        assert_eq!(read_public(&path).unwrap(), public);
    }

    #[test]
    fn wrong_content_names_the_file_and_not_the_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.seed");
        fs::write(&path, "33".repeat(31)).unwrap();
        let error = read_seed(&path).unwrap_err().to_string();
        assert!(error.contains("x.seed") && !error.contains("3333"), "{error}");
    }

    #[test]
    fn nonce_signature_matches_the_known_vector() {
        let seed = Seed::from_bytes([0x33; 32]);
        assert_eq!(seed.public_hex(), "17cb79fb2b4120f2b1ec65e4198d6e08b28e813feb01e4a400839b85e18080ce");
        let signature = seed.sign(b"nonce-0001");
        assert_eq!(
            hex::encode(signature),
            "7af6d1f2c447baaae33a92d5f749c34a64389fb7b87f46af76fe58a58d1a90bc2d46fdbe889472fea58cad97d716b15baf66d451af57c7b1807f9d5e37bff90f"
        );
        assert!(verify_ed25519(&seed.public(), b"nonce-0001", &signature));
        assert!(!verify_ed25519(&seed.public(), b"nonce-0002", &signature));
        assert!(!verify_ed25519(&seed.public()[..31], b"nonce-0001", &signature));
        assert!(!verify_ed25519(&seed.public(), b"nonce-0001", &signature[..63]));
    }
}
