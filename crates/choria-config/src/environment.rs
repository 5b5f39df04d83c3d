//! Everything the loader takes from its surroundings, handed in so that tests and embedders decide it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::build_settings::BuildSettings;

/// Answers questions about this host's name (spec 03 §2.4).
pub trait HostNames: Send + Sync {
    /// The operating system's host name.
    fn host_name(&self) -> Option<String>;
    /// First IPv4 address of a name.
    fn first_ipv4(&self, name: &str) -> Option<Ipv4Addr>;
    /// Name of an address.
    fn reverse(&self, address: Ipv4Addr) -> Option<String>;
    /// A fact from `facter`, where that is installed.
    fn facter(&self, fact: &str) -> Option<String>;
}

/// Variables, directories and names the loader may look at.
#[derive(Clone)]
pub struct Environment {
    variables: HashMap<String, String>,
    working_directory: PathBuf,
    hosts: Arc<dyn HostNames>,
    build: Arc<BuildSettings>,
}

impl fmt::Debug for Environment {
    /// Variables are left out: they hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("working_directory", &self.working_directory).finish_non_exhaustive()
    }
}

impl Environment {
    /// The surroundings of this process, with the compiled build settings.
    #[must_use]
    pub fn from_process() -> Self {
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            working_directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            hosts: Arc::new(SystemHostNames),
            build: Arc::new(BuildSettings::compiled()),
        }
    }

    /// Surroundings that hold nothing but a host name: for tests and for embedders that decide everything.
    #[must_use]
    pub fn fixed(host_name: impl Into<String>) -> Self {
        Self {
            variables: HashMap::new(),
            working_directory: PathBuf::from("/"),
            hosts: Arc::new(FixedHostName(host_name.into())),
            build: Arc::new(BuildSettings::default()),
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory, which project files are searched from.
    #[must_use]
    pub fn with_working_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.working_directory = directory.into();
        self
    }

    /// Sets who answers for host names.
    #[must_use]
    pub fn with_host_names(mut self, hosts: Arc<dyn HostNames>) -> Self {
        self.hosts = hosts;
        self
    }

    /// Sets the build settings, which give the default collectives.
    #[must_use]
    pub fn with_build_settings(mut self, build: BuildSettings) -> Self {
        self.build = Arc::new(build);
        self
    }

    /// Value of a variable; an empty one counts as set.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The home directory, unless unset or empty.
    #[must_use]
    pub fn home(&self) -> Option<&str> {
        self.variable("HOME").filter(|home| !home.is_empty())
    }

    /// The working directory.
    #[must_use]
    pub fn working_directory(&self) -> &Path {
        &self.working_directory
    }

    /// Who answers for host names.
    #[must_use]
    pub fn host_names(&self) -> &dyn HostNames {
        self.hosts.as_ref()
    }

    /// The build settings.
    #[must_use]
    pub fn build_settings(&self) -> &BuildSettings {
        &self.build
    }
}

/// One given name and no look-ups.
struct FixedHostName(String);

impl HostNames for FixedHostName {
    fn host_name(&self) -> Option<String> {
        Some(self.0.clone())
    }
    fn first_ipv4(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }
    fn reverse(&self, _: Ipv4Addr) -> Option<String> {
        None
    }
    fn facter(&self, _: &str) -> Option<String> {
        None
    }
}

/// The system's resolver and the `facter` on the path.
struct SystemHostNames;

impl HostNames for SystemHostNames {
    fn host_name(&self) -> Option<String> {
        hostname::get().ok()?.into_string().ok()
    }

    fn first_ipv4(&self, name: &str) -> Option<Ipv4Addr> {
        dns_lookup::lookup_host(name).ok()?.find_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    fn reverse(&self, address: Ipv4Addr) -> Option<String> {
        dns_lookup::lookup_addr(&IpAddr::V4(address)).ok()
    }

    fn facter(&self, fact: &str) -> Option<String> {
        // Facter can take seconds, and can hang on a broken custom fact: a start must not hang with it.
        const PATIENCE: Duration = Duration::from_secs(10);
        let fact = fact.to_owned();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("facter".into())
            .spawn(move || {
                let output =
                    std::process::Command::new("facter").arg(&fact).stdin(std::process::Stdio::null()).output();
                // The receiver may have given up; then nobody wants the answer.
                let _ = sender.send(output);
            })
            .ok()?;
        let output = receiver.recv_timeout(PATIENCE).ok()?.ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let text = text.trim();
        (output.status.success() && !text.is_empty()).then(|| text.to_owned())
    }
}
