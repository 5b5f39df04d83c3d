//! Reading `testdata/`: what the original really sent, accepted and refused.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// The path of a golden file; `sub` is relative to `testdata/`.
pub fn path(sub: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata")).join(sub)
}

/// The text of a golden file.
pub fn text(sub: &str) -> String {
    let path = path(sub);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("golden file {}: {error}", path.display()))
}

/// The bytes of a golden file.
pub fn bytes(sub: &str) -> Vec<u8> {
    let path = path(sub);
    fs::read(&path).unwrap_or_else(|error| panic!("golden file {}: {error}", path.display()))
}

/// One JSON document.
pub fn json(sub: &str) -> Value {
    serde_json::from_str(&text(sub)).unwrap_or_else(|error| panic!("golden file {sub}: {error}"))
}

/// One JSON document per line; an empty file is a mistake and panics.
pub fn lines(sub: &str) -> Vec<Value> {
    let lines: Vec<Value> = text(sub)
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("golden file {sub} line {}: {error}", number + 1))
        })
        .collect();
    assert!(!lines.is_empty(), "golden file {sub} has no rows");
    lines
}

/// Every JSON file of a directory with its name, sorted by name; an empty directory is a mistake and panics.
pub fn directory(sub: &str) -> Vec<(String, Value)> {
    let path = path(sub);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("golden directory {}: {error}", path.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap_or_else(|error| panic!("golden directory {sub}: {error}")))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "golden directory {sub} has no JSON files");
    names.into_iter().map(|name| (name.clone(), json(&format!("{sub}/{name}")))).collect()
}

/// A text member of a golden row.
pub fn member<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("golden row without text member {name}: {row}"))
}
