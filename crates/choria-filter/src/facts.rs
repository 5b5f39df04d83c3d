//! Facts: files of YAML or JSON, and looking them up (spec 03 §2.6).

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};

use crate::gjson;

/// Largest facts file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Why a facts file was skipped.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// Not readable.
    #[error("could not read facts file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("facts file {path} has {size} bytes, the limit is {MAX_FILE_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Not YAML, or not JSON.
    #[error("could not parse facts file {path}: {detail}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        detail: String,
    },
    /// Holds something else than a mapping.
    #[error("facts file {path} does not hold a mapping of names to values")]
    NotAMapping {
        /// The file.
        path: PathBuf,
    },
}

/// Facts of a node, and what was wrong with the files they came from.
#[derive(Debug)]
pub struct Loaded {
    /// An object, keys sorted at every level.
    pub facts: Value,
    /// One entry per skipped file, for the log.
    pub problems: Vec<FactsError>,
}

/// Reads and merges facts files: the top level of a later file wins over earlier ones. Files that end in `yaml` or `yml`
/// are YAML, all others JSON. A bad file is skipped and reported; no facts at all give `{}`.
pub fn load<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Loaded {
    let (mut merged, mut problems) = (Map::new(), Vec::new());
    for path in paths {
        match load_file(path.as_ref()) {
            Ok(map) => merged.extend(map),
            Err(problem) => problems.push(problem),
        }
    }
    Loaded { facts: normalized(Value::Object(merged)), problems }
}

/// The paths in a setting such as `plugin.yaml`, joined by the platform's list separator.
pub fn split_paths(setting: &str) -> Vec<PathBuf> {
    std::env::split_paths(setting).filter(|path| !path.as_os_str().is_empty()).collect()
}

fn load_file(path: &Path) -> Result<Map<String, Value>, FactsError> {
    let read = |source| FactsError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > MAX_FILE_BYTES {
        return Err(FactsError::TooLarge { path: path.to_owned(), size });
    }
    let bytes = std::fs::read(path).map_err(read)?;
    let text = String::from_utf8_lossy(&bytes);
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let parsed = if is_yaml { parse_yaml(&text) } else { serde_json::from_str(&text).map_err(|e| e.to_string()) };
    match parsed {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) if is_yaml => Ok(Map::new()),
        Ok(_) => Err(FactsError::NotAMapping { path: path.to_owned() }),
        Err(detail) => Err(FactsError::Parse { path: path.to_owned(), detail }),
    }
}

/// Parses YAML the way the original does: only `true` and `false` are booleans (`yes` stays text), `0777` is octal,
/// `0x10` is 16, numbers as keys become text, dates stay text, duplicate keys are an error (spec 10 §7).
///
/// # Errors
/// The parser's words, with line and column.
pub fn parse_yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        legacy_octal_numbers: true,
        no_schema: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// Facts in the form everything here expects: keys sorted at every level (wildcards find the first), and integers that do
/// not fit 64 bits with sign as floats (spec 03 §2.6).
pub fn normalized(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, normalized(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(normalized).collect()),
        Value::Number(number) if number.is_u64() && !number.is_i64() => {
            number.as_f64().and_then(Number::from_f64).map_or(Value::Null, Value::Number)
        }
        other => other,
    }
}

/// Looks a fact up by its path (`os.release.major`, `net.#.ip`, spec 01 §7.1). `None` when nothing is there, or when the path
/// is unreasonable.
pub fn lookup<'f>(facts: &'f Value, path: &str) -> Option<Cow<'f, Value>> {
    gjson::get(facts, path).ok().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn yaml_is_read_as_the_original_reads_it() {
        let text = "yes_val: yes\nno: off\nt: true\nF: False\nhexa: 0x10\noct: 0777\nunder: 1_000\ndate: 2020-01-02\n1: numkey\n\
                    none:\ntilde: ~\nbig: 12345678901234567890\nneg: -0.5\nfloat: 1.0\nbase: &b {a: 1}\nmerged:\n  <<: *b\n  c: 2\n";
        assert_eq!(
            normalized(parse_yaml(text).unwrap()),
            normalized(json!({
                "yes_val": "yes", "no": "off", "t": true, "F": false, "hexa": 16, "oct": 511, "under": 1000,
                "date": "2020-01-02", "1": "numkey", "none": null, "tilde": null, "big": 12_345_678_901_234_567_890_f64,
                "neg": -0.5, "float": 1.0, "base": {"a": 1}, "merged": {"a": 1, "c": 2}
            }))
        );
        assert!(parse_yaml("a: 1\na: 2\n").is_err(), "duplicate keys");
    }

    #[test]
    fn later_files_win_and_bad_ones_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [
            write(dir.path(), "a.yaml", "a: 1\nshared: {x: 1}\n"),
            dir.path().join("missing.json"),
            write(dir.path(), "bad.json", "{"),
            write(dir.path(), "list.yml", "[1]"),
            write(dir.path(), "empty.yaml", ""),
            write(dir.path(), "b.json", r#"{"shared":{"y":2},"0":"z"}"#),
        ];
        let loaded = load(&paths);
        assert_eq!(loaded.facts.to_string(), r#"{"0":"z","a":1,"shared":{"y":2}}"#);
        let texts: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        for (text, name) in texts.iter().zip(["missing.json", "bad.json", "list.yml"]) {
            assert!(text.contains(name), "{text}");
        }
        assert_eq!(load(Vec::<PathBuf>::new()).facts, json!({}));
    }

    #[test]
    fn path_lists_are_split() {
        let joined = std::env::join_paths(["/a/x.yaml", "/b/y.json"]).unwrap().into_string().unwrap();
        assert_eq!(split_paths(&joined), [PathBuf::from("/a/x.yaml"), PathBuf::from("/b/y.json")]);
        assert!(split_paths("").is_empty());
    }

    #[test]
    fn lookups() {
        let facts = json!({"os": {"family": "RedHat"}, "list": ["a", 2]});
        assert_eq!(lookup(&facts, "os.family").as_deref(), Some(&json!("RedHat")));
        assert_eq!(lookup(&facts, "list.#").as_deref(), Some(&json!(2)));
        assert_eq!(lookup(&facts, "OS.family"), None);
        assert_eq!(lookup(&facts, ""), None);
        assert_eq!(lookup(&facts, "@this").as_deref(), Some(&facts));
    }
}
