//! Identities: names of nodes and senders.

/// Longest identity in bytes: a host name in DNS has at most 253.
pub const MAX_LENGTH: usize = 253;

/// Whether `name` may be an identity: 1 to [`MAX_LENGTH`] characters of `[A-Za-z0-9._-]` that also form valid
/// NATS subject tokens (no leading, trailing or doubled dot).
///
/// The original accepts any text, so that an identity `a.>` subscribes to the subjects of other nodes (spec 03 §17 row 46).
pub fn is_valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_LENGTH
        && name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        })
}

/// The name in a caller id of the exact form `kind=name`: kind `[a-z]+`, name `[A-Za-z0-9_.-]+` (spec 01 §2.2 and §10.3).
///
/// Unlike the original the whole text must match, so `choria=bob admin` has no name (spec 01 sharp edge 3).
pub fn caller_name(caller_id: &str) -> Option<&str> {
    let (kind, name) = caller_id.split_once('=')?;
    let kind_fits = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
    let name_fits =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    (kind_fits && name_fits).then_some(name)
}

/// The caller id of the holder of a certificate, `choria=<certname>`.
pub fn caller_id(certname: &str) -> String {
    format!("choria={certname}")
}

/// Whether `caller_id` is exactly `choria=<certname>`, the only caller id that an ordinary v1 certificate may use
/// (DESIGN §6; privileged certificates may name anybody).
pub fn is_own_caller_id(caller_id: &str, certname: &str) -> bool {
    caller_id.strip_prefix("choria=") == Some(certname)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        for good in ["n1", "n1.example.net", "N_1-x.example", "10.0.0.1", &"a".repeat(253)] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.>", "a.*.b", "a b", "a\n", "ä", "a/b", "a$b", &"a".repeat(254)] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn design6_caller_must_be_exactly_the_certificate_name() {
        assert!(is_own_caller_id("choria=bob.mcollective", "bob.mcollective"));
        for forged in [
            "choria=bob.mcollective admin",
            "choria=bob.mcollective@evil",
            "up=bob.mcollective",
            "choria=Bob.mcollective",
            "choria=bob.mcollective\n",
            "bob.mcollective",
            "",
        ] {
            assert!(!is_own_caller_id(forged, "bob.mcollective"), "{forged:?}");
        }
    }

    #[test]
    fn caller_names() {
        assert_eq!(caller_name("up=bob"), Some("bob"));
        assert_eq!(caller_name("choria=a.b-c_d"), Some("a.b-c_d"));
        for bad in ["bob", "UP=bob", "up=", "=bob", "up=bob admin", "up=b=c", "up=bob\n"] {
            assert_eq!(caller_name(bad), None, "{bad:?}");
        }
        assert_eq!(caller_id("bob"), "choria=bob");
    }
}
