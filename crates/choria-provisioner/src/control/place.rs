//! Where the control socket is when the configuration does not say.
//!
//! The first of these directories that belongs to the user: `/run/choria-provisioner`, which is root's or which the service
//! manager made, then `$XDG_RUNTIME_DIR/choria-provisioner`. There the socket is `control.sock`; when another provisioner
//! answers on that, `control-<digest of the configuration file's path>.sock`, so that several can run on one host and
//! each is found by its `--config`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Name of the directory.
const DIRECTORY: &str = "choria-provisioner";
/// Name of the socket.
const NAME: &str = "control.sock";

/// What decides about the default place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Where daemons keep what lives as long as they run, `/run`.
    pub run: PathBuf,
    /// The same for programs of one user, `$XDG_RUNTIME_DIR`; not looked at for root.
    pub user_run: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let user_run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        Self { run: PathBuf::from("/run"), user_run: user_run.filter(|_| !geteuid().is_root()) }
    }

    /// The directories, in the order in which they are tried.
    pub fn directories(&self) -> Vec<PathBuf> {
        std::iter::once(&self.run).chain(&self.user_run).map(|base| base.join(DIRECTORY)).collect()
    }

    /// Where a provisioner with this configuration file may be listening, the likeliest first. Without a file: where a host's
    /// only provisioner listens.
    pub fn candidates(&self, config: Option<&Path>) -> Vec<PathBuf> {
        let names: Vec<String> = config.map(own_name).into_iter().chain([NAME.to_owned()]).collect();
        self.directories().iter().flat_map(|directory| names.iter().map(|name| directory.join(name))).collect()
    }

    /// Every control socket in the default places, for telling people what they may have meant.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self
            .directories()
            .iter()
            .filter_map(|directory| std::fs::read_dir(directory).ok())
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension() == Some(OsStr::new("sock")))
            .collect();
        found.sort();
        found
    }
}

/// The names to try in a directory: the plain one, then the configuration's own.
pub(crate) fn names(config: &Path) -> [String; 2] {
    [NAME.to_owned(), own_name(config)]
}

/// A name that no other configuration file has. The digest (FNV-1a) only tells files of one host apart.
fn own_name(config: &Path) -> String {
    let full = std::fs::canonicalize(config).unwrap_or_else(|_| config.to_owned());
    let digest =
        full.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("control-{digest:016x}.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_found_before_the_hosts_only_provisioner() {
        let places = Surroundings { run: "/run".into(), user_run: Some("/run/user/7".into()) };
        let plain = ["/run/choria-provisioner/control.sock", "/run/user/7/choria-provisioner/control.sock"];
        assert_eq!(places.candidates(None), plain.map(PathBuf::from));
        let own = places.candidates(Some(Path::new("/nonexistent/a.yaml")));
        assert_eq!(own.len(), 4);
        assert_eq!(own[1], PathBuf::from(plain[0]));
        assert_ne!(own[0], places.candidates(Some(Path::new("/nonexistent/b.yaml")))[0]);
        assert_eq!(own[0].file_name().unwrap().to_str().unwrap(), names(Path::new("/nonexistent/a.yaml"))[1]);
    }
}
