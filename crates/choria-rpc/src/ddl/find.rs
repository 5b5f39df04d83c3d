//! Where DDLs come from: built in, or files below the library directories (spec 05 §5.2).

use std::path::{Path, PathBuf};

use crate::ddl::{Ddl, DdlError, MAX_BYTES};

/// DDLs that are part of the program.
const EMBEDDED: [(&str, &str); 3] = [
    ("choria_provision", include_str!("../../../../agents/choria_provision.json")),
    ("choria_util", include_str!("../../../../agents/choria_util.json")),
    ("rpcutil", include_str!("../../../../agents/rpcutil.json")),
];

/// Directories below a library directory, and how deep files may lie in them.
const KINDS: [&str; 2] = ["choria", "mcollective"];
const MAX_DEPTH: usize = 8;

/// Names of the agents whose DDL is built in.
pub fn embedded_names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// The built-in DDL of an agent.
pub fn embedded(agent: &str) -> Option<Ddl> {
    let (_, text) = EMBEDDED.iter().find(|(name, _)| *name == agent)?;
    Some(Ddl::parse(text.as_bytes()).expect("built-in DDLs are read by a test"))
}

/// A DDL, and the files that say the same agent's name but were not used.
#[derive(Debug)]
pub struct Found {
    /// The DDL.
    pub ddl: Ddl,
    /// Files that a library directory searched earlier hides.
    pub shadowed: Vec<PathBuf>,
}

/// Finds the DDL of an agent: the built-in one, else `DIR/choria/agent/**/NAME.json`, then `DIR/mcollective/agent/**/NAME.json`
/// of the first directory that has one. The original takes the last file it comes across (spec 05 §12 row 19).
///
/// # Errors
/// [`DdlError::NotFound`] with where was looked, or what is wrong with the file.
pub fn find(agent: &str, libdirs: &[PathBuf]) -> Result<Found, DdlError> {
    if let Some(ddl) = embedded(agent) {
        return Ok(Found { ddl, shadowed: Vec::new() });
    }
    let plain = !agent.is_empty() && agent.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let mut files = Vec::new();
    if plain {
        let name = format!("{agent}.json");
        for dir in libdirs {
            for kind in KINDS {
                search(&dir.join(kind).join("agent"), &name, 0, &mut files);
            }
        }
    }
    let Some((path, shadowed)) = files.split_first() else {
        let mut looked = vec!["built-in agents".to_owned()];
        looked.extend(libdirs.iter().map(|dir| dir.display().to_string()));
        return Err(DdlError::NotFound { agent: agent.to_owned(), looked: looked.join(", ") });
    };
    let ddl = load(path)?;
    if ddl.metadata.name != agent {
        return Err(DdlError::OtherAgent(agent.to_owned()));
    }
    Ok(Found { ddl, shadowed: shadowed.to_vec() })
}

/// Reads one DDL file.
///
/// # Errors
/// [`DdlError::File`].
pub fn load(path: &Path) -> Result<Ddl, DdlError> {
    let fail = |detail: String| DdlError::File { path: path.to_owned(), detail };
    let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if size > MAX_BYTES as u64 {
        return Err(fail(DdlError::TooLarge(usize::try_from(size).unwrap_or(usize::MAX)).to_string()));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    Ddl::parse(&bytes).map_err(|error| fail(error.to_string()))
}

/// Files of that name below `dir`, in a stable order.
fn search(dir: &Path, name: &str, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if depth < MAX_DEPTH {
                search(&path, name, depth + 1, files);
            }
        } else if path.file_name().is_some_and(|file| file == name) {
            files.push(path);
        }
    }
}
