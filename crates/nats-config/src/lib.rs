//! nats-server's configuration language: text in, checked settings out (spec 07 §23).
//!
//! It must not contain: reading of files (a [`Files`] of the caller does that), sockets, the meaning of settings for
//! a running broker.

#![cfg_attr(test, allow(clippy::unwrap_used))]

/// Where included files and the environment come from, so that the language itself touches neither.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    fn read(&self, path: &std::path::Path) -> Result<String, String>;

    /// A variable of the environment.
    fn environment(&self, name: &str) -> Option<String>;
}
