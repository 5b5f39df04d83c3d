//! Passwords and tokens: plain ones and bcrypt hashes (spec 07 §7).

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// A password or token that a client must know.
#[derive(Clone)]
pub(crate) enum Secret {
    /// As it is.
    Plain(Arc<str>),
    /// A bcrypt hash, `$2a$`, `$2b$`, `$2x$` or `$2y$`. The hash itself is no password.
    Bcrypt(Arc<str>),
}

/// Something that begins as a bcrypt hash and is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this begins like a bcrypt hash, but is none: nobody could log in with it")]
pub(crate) struct BadHash;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// Hashes that are computed at the same time. Each costs a processor tens of milliseconds or more, and anybody can ask for
/// one: half of the processors are left to messages, and thousands of logins wait for each other.
fn hashers() -> &'static Arc<Semaphore> {
    static HASHERS: OnceLock<Arc<Semaphore>> = OnceLock::new();
    HASHERS.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Arc::new(Semaphore::new((processors / 2).max(1)))
    })
}

impl Secret {
    /// Reads a configured text.
    pub(crate) fn read(text: &str) -> Result<Self, BadHash> {
        let is_hash = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| text.starts_with(prefix));
        if !is_hash {
            return Ok(Self::Plain(text.into()));
        }
        let parts = bcrypt::HashParts::from_str(text).map_err(|_| BadHash)?;
        // The cost is a power of two: from 4 on it is bcrypt, above 31 it is not.
        if text.len() != 60 || !(4..=31).contains(&parts.get_cost()) {
            return Err(BadHash);
        }
        Ok(Self::Bcrypt(text.into()))
    }

    /// Whether this is the secret. Plain ones are compared in constant time; hashes are computed outside of the threads
    /// that move messages.
    pub(crate) async fn is(&self, given: &str) -> bool {
        match self {
            Self::Plain(wanted) => given.as_bytes().ct_eq(wanted.as_bytes()).into(),
            Self::Bcrypt(hash) => {
                let Ok(turn) = Arc::clone(hashers()).acquire_owned().await else { return false };
                let (given, hash) = (given.to_owned(), Arc::clone(hash));
                let check = move || {
                    let _turn = turn;
                    bcrypt::verify(given, &hash).unwrap_or(false)
                };
                tokio::task::spawn_blocking(check).await.unwrap_or(false)
            }
        }
    }

    /// Tells whether a secret has changed without telling the secret: other in every process, so that nobody who gets to
    /// see it can try passwords on it.
    pub(crate) fn digest(&self) -> String {
        static SALT: OnceLock<[u64; 2]> = OnceLock::new();
        let salt = SALT.get_or_init(|| [0, 1].map(|n: u64| RandomState::new().hash_one(n)));
        let (Self::Plain(text) | Self::Bcrypt(text)) = self;
        let mut hasher = Sha256::new();
        salt.iter().for_each(|part| hasher.update(part.to_le_bytes()));
        hasher.update(text.as_bytes());
        hex(&hasher.finalize())
    }

    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$04$PEoUKB.ab0U.ms4jKWuh2..sUqipBUjKOfM9pyOZ5gzMOD2U99yvm";

    #[tokio::test]
    async fn hashes_of_every_kind_fit_the_password_and_not_themselves() {
        for kind in ["$2a", "$2b", "$2y"] {
            let hash = format!("{kind}{HASH}");
            let secret = Secret::read(&hash).unwrap();
            assert!(secret.is("bcpass").await, "{kind}");
            assert!(!secret.is("x").await, "{kind}");
            assert!(!secret.is(&hash).await, "{kind}");
        }
    }

    #[tokio::test]
    async fn plain_secrets_are_compared_whole() {
        let secret = Secret::read("p1").unwrap();
        assert!(secret.is("p1").await);
        for wrong in ["", "p", "p1 ", "p11"] {
            assert!(!secret.is(wrong).await, "{wrong}");
        }
        assert!(!format!("{secret:?}").contains("p1"));
    }

    #[test]
    fn broken_hashes_are_found_before_somebody_waits_at_the_door() {
        for text in ["$2a$", "$2a$04$short", &format!("$2a{}x", HASH), &format!("$2a$99{}", &HASH[3..])] {
            assert!(Secret::read(text).is_err(), "{text}");
        }
    }
}
