//! Policy files. A new set of action policies replaces the old action policies and nothing else: `groups` and the Rego
//! policies stay unless they come anew (spec 03 §17 row 24).

use std::io;
use std::path::Path;

use super::journal::{Content, Replacement};
use crate::files::{Files, Kind, is_dir};

/// Mode of policy files: nobody edits them by hand.
const FILE_MODE: u32 = 0o400;
/// Mode of their directories.
const DIRECTORY_MODE: u32 = 0o700;
/// Largest policy that is kept.
const MAX_POLICY: u64 = 64 * 1024 * 1024;

/// Checks a name: a base name with this extension, of letters, digits, dots, hyphens and underscores.
fn check_name(name: &str, extension: &str) -> Result<(), String> {
    let Some(stem) = name.strip_suffix(extension) else {
        return Err(format!("expected {name:?} to have {extension} extension"));
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if stem.is_empty() || stem.starts_with('.') || !stem.bytes().all(plain) {
        return Err(format!("{name:?} is not a plain file name of letters, digits, dots, hyphens and underscores"));
    }
    Ok(())
}

/// Checks all names of one kind.
pub(super) fn check_names(policies: &[(String, String)], extension: &str) -> Result<(), String> {
    policies.iter().try_for_each(|(name, _)| check_name(name, extension))
}

fn files(policies: &[(String, String)]) -> Vec<(String, Content)> {
    // An empty body stands for no file, as in the original.
    let with_body = policies.iter().filter(|(_, body)| !body.is_empty());
    with_body.map(|(name, body)| (name.clone(), Content::file(body.as_bytes(), FILE_MODE))).collect()
}

/// What takes the place of the policies directory below `directory`. Names are checked already.
///
/// # Errors
/// What stays of the old policies cannot be read.
pub(super) fn replacement(
    disk: &dyn Files,
    directory: &Path,
    action: &[(String, String)],
    rego: &[(String, String)],
) -> Result<Option<Replacement>, String> {
    let target = directory.join("policies");
    let rego_content = || Content::Directory { mode: DIRECTORY_MODE, entries: files(rego) };
    match (action.is_empty(), rego.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Ok(Some(Replacement { target: target.join("rego"), content: rego_content() })),
        (false, _) => {
            let mut entries = files(action);
            let kept = |error: io::Error| format!("could not keep the policies that are there: {error}");
            entries.extend(keep_file(disk, &target, "groups").map_err(kept)?);
            if !rego.is_empty() {
                entries.push(("rego".to_owned(), rego_content()));
            } else if is_dir(disk, &target.join("rego")) {
                entries.push(("rego".to_owned(), keep_directory(disk, &target.join("rego")).map_err(kept)?));
            }
            Ok(Some(Replacement { target, content: Content::Directory { mode: DIRECTORY_MODE, entries } }))
        }
    }
}

fn keep_file(disk: &dyn Files, directory: &Path, name: &str) -> io::Result<Option<(String, Content)>> {
    let path = directory.join(name);
    match disk.metadata(&path) {
        Ok(metadata) if metadata.kind == Kind::File => {
            Ok(Some((name.to_owned(), Content::file(disk.read(&path, MAX_POLICY)?, metadata.mode))))
        }
        _ => Ok(None),
    }
}

fn keep_directory(disk: &dyn Files, path: &Path) -> io::Result<Content> {
    let mode = disk.metadata(path)?.mode;
    let mut entries = Vec::new();
    for name in disk.list(path)? {
        if let Ok(name) = name.into_string() {
            entries.extend(keep_file(disk, path, &name)?);
        }
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Content::Directory { mode, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn design6_policy_names_cannot_escape() {
        for good in ["rpcutil.policy", "a-b_c.d.policy", "0.policy"] {
            assert_eq!(check_name(good, ".policy"), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".policy",
            "x.txt",
            "../x.policy",
            "sub/x.policy",
            "/x.policy",
            "..policy",
            "a b.policy",
            "a\n.policy",
            "a\0.policy",
        ] {
            assert!(check_name(bad, ".policy").is_err(), "{bad:?}");
        }
    }
}
