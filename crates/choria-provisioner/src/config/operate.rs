//! Settings for operating a provisioner: the control socket, and limits on how fast nodes reach helper and authority.

use std::path::PathBuf;

use super::reader::{Located, Section};
use super::{ConfigError, invalid};

/// Most calls per second that may be asked for; beyond it there is no limit to speak of.
const MOST_PER_SECOND: f64 = 1_000_000.0;
/// Fewest: one in about 17 minutes.
const LEAST_PER_SECOND: f64 = 0.001;

/// Where the control socket is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ControlSocket {
    /// The default place, see [`crate::control::place`]. When it cannot be used that is a warning.
    #[default]
    Default,
    /// This path. When it cannot be used that is a start error.
    At(PathBuf),
    /// None; an explicitly empty text.
    Off,
}

pub(super) fn control_socket(top: &Section<'_>) -> Result<ControlSocket, ConfigError> {
    let Some(text) = top.text("control_socket")? else { return Ok(ControlSocket::Default) };
    let path = PathBuf::from(&text.value);
    if text.value.is_empty() {
        Ok(ControlSocket::Off)
    } else if path.is_absolute() {
        Ok(ControlSocket::At(path))
    } else {
        invalid(text.at, format!("control_socket must be an absolute path or empty, found {:?}", text.value))
    }
}

/// A rate per second; `None` = no limit.
pub(super) fn rate(top: &Section<'_>, key: &str) -> Result<Option<f64>, ConfigError> {
    match top.number(key)? {
        None | Some(Located { value: 0.0, .. }) => Ok(None),
        Some(Located { value, .. }) if (LEAST_PER_SECOND..=MOST_PER_SECOND).contains(&value) => Ok(Some(value)),
        Some(Located { value, at }) => invalid(
            at,
            format!("{key} must be 0 (no limit) or {LEAST_PER_SECOND} to {MOST_PER_SECOND} per second, found {value}"),
        ),
    }
}
