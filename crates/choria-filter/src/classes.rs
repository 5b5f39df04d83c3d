//! Classes files: one class per line (spec 03 §2.6).

use std::io;
use std::path::Path;

/// The classes in a file, sorted. Blank lines are dropped: in the original they become a class without name, which a
/// filter for the empty class matches (spec 03 §17 row 50). Other lines are taken as they are, inner and outer blanks included.
///
/// # Errors
/// The file's, with its path. A server goes on with no classes then.
pub fn load(path: &Path) -> io::Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|error| {
        io::Error::new(error.kind(), format!("could not read classes file {}: {error}", path.display()))
    })?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

/// The classes in a text, sorted by bytes.
pub fn parse(text: &str) -> Vec<String> {
    let mut classes: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    classes.sort_unstable();
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_sorted_and_blank_ones_dropped() {
        let text = "role::web\nzeta\n\nAlpha::Beta\r\n  spaced  \n \t \nrole::web\n";
        assert_eq!(parse(text), ["  spaced  ", "Alpha::Beta", "role::web", "role::web", "zeta"]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nonexistent/classes.txt")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/classes.txt"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.txt");
        std::fs::write(&path, b"web\n\xff\xfe\ndb\n").unwrap();
        let classes = load(&path).unwrap();
        assert!(classes.contains(&"web".to_owned()) && classes.contains(&"db".to_owned()), "{classes:?}");
    }
}
