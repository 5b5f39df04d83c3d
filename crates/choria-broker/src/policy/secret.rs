//! Passwords as the broker keeps them: never in clear text, compared in constant time.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A configured secret. Only its SHA-256 digest is kept, so neither a core dump nor a log line shows it,
/// and a comparison takes the same time whatever the length or the first wrong character.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes the secret in; an empty one is refused because nobody can mean it.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }

    /// Whether `candidate` is the secret, in constant time.
    pub fn matches(&self, candidate: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(candidate.as_bytes()).into();
        self.0.ct_eq(&digest).into()
    }
}

/// Keys of this process for [`Secret::mark`].
static MARKS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Secret {
    /// A mark by which this process, and nobody else, tells this secret from another one.
    pub fn mark(&self) -> u64 {
        MARKS.hash_one(self.0)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_text_matches_and_debug_shows_nothing() {
        let secret = Secret::new("s3cret").unwrap();
        assert!(secret.matches("s3cret"));
        for other in ["", "s3cre", "s3cret ", "S3cret"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert_eq!(format!("{secret:?}"), "Secret");
        assert!(Secret::new("").is_none());
        assert_eq!(secret.mark(), Secret::new("s3cret").unwrap().mark());
        assert_ne!(secret.mark(), Secret::new("s3cre").unwrap().mark());
    }
}
