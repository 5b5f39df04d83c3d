//! Where a client's configuration lies when the command line names none (spec 05 §1.5).

use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::error::ConfigError;

/// The places, in order; the first file that exists is used.
#[must_use]
pub fn client_files(environment: &Environment) -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(home) = environment.home() {
        places.push(Path::new(home).join(".choriarc"));
        places.push(Path::new(home).join(".mcollective"));
    }
    if cfg!(windows) {
        places.push(PathBuf::from(r"C:\ProgramData\choria\etc\client.conf"));
    } else {
        for place in
            ["/etc/choria/client.conf", "/usr/local/etc/choria/client.conf", "/etc/puppetlabs/mcollective/client.cfg"]
        {
            places.push(PathBuf::from(place));
        }
    }
    places
}

/// The client configuration file to use.
///
/// # Errors
/// [`ConfigError::NotFound`] with every place that was looked at.
pub fn client_file(environment: &Environment) -> Result<PathBuf, ConfigError> {
    let searched = client_files(environment);
    match searched.iter().find(|path| path.is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(ConfigError::NotFound { searched }),
    }
}

/// Project files for a client: `choria.conf` in the root directory, then in every directory down to the working one.
#[must_use]
pub fn project_files(working_directory: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<&Path> = working_directory.ancestors().collect();
    directories.reverse();
    directories.into_iter().map(|directory| directory.join("choria.conf")).filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn the_home_directory_comes_first() -> std::io::Result<()> {
        let home = tempfile::tempdir()?;
        let environment = Environment::fixed("n1").with_variable("HOME", home.path().to_string_lossy());
        let places = client_files(&environment);
        assert_eq!(places.len(), 5);
        assert_eq!(places[0], home.path().join(".choriarc"));
        assert_eq!(places[4], Path::new("/etc/puppetlabs/mcollective/client.cfg"));
        std::fs::write(home.path().join(".mcollective"), "")?;
        assert_eq!(client_file(&environment).ok(), Some(home.path().join(".mcollective")));
        std::fs::write(home.path().join(".choriarc"), "")?;
        assert_eq!(client_file(&environment).ok(), Some(home.path().join(".choriarc")));
        Ok(())
    }

    #[test]
    fn project_files_go_from_the_root_down() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner)?;
        std::fs::write(root.path().join("choria.conf"), "")?;
        std::fs::write(inner.join("choria.conf"), "")?;
        let found = project_files(&inner);
        assert!(found.ends_with(&[root.path().join("choria.conf"), inner.join("choria.conf")]));
        Ok(())
    }
}
