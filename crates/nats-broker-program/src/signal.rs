//! `--signal name=pid`: telling a running broker something (spec 07 §23).

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignalError {
    /// No such word.
    #[error("unknown signal {0:?}; known are ldm, stop, quit, term, reopen, reload")]
    Unknown(String),
    /// Nobody was named.
    #[error("signal {0:?} needs a process: --signal {0}=PID or --signal {0}=PIDFILE")]
    NoProcess(String),
    /// Neither a number nor a file with one.
    #[error("invalid pid: {0}")]
    BadPid(String),
    /// The system refused.
    #[error("\nsignal {name:?} {pid}: {reason}")]
    Failed {
        /// The word.
        name: String,
        /// The process.
        pid: i32,
        /// What the system said.
        reason: String,
    },
}

/// Sends what `name`, `name=pid` or `name=pidfile` says.
///
/// # Errors
/// See [`SignalError`].
pub(crate) fn send(text: &str) -> Result<(), SignalError> {
    let (name, target) = text.split_once('=').map_or((text, None), |(name, target)| (name, Some(target)));
    let signal = match name {
        "ldm" => Signal::SIGUSR2,
        "stop" => Signal::SIGKILL,
        "quit" => Signal::SIGINT,
        "term" => Signal::SIGTERM,
        "reopen" => Signal::SIGUSR1,
        "reload" => Signal::SIGHUP,
        _ => return Err(SignalError::Unknown(name.to_owned())),
    };
    let target = target.filter(|target| !target.is_empty()).ok_or_else(|| SignalError::NoProcess(name.to_owned()))?;
    let pid = pid(target)?;
    kill(Pid::from_raw(pid), signal).map_err(|error| {
        let reason = if error == Errno::ESRCH { "no such process".to_owned() } else { error.desc().to_lowercase() };
        SignalError::Failed { name: name.to_owned(), pid, reason }
    })
}

/// Only a single process: 0 and negative numbers would mean whole groups.
fn pid(target: &str) -> Result<i32, SignalError> {
    let bad = || SignalError::BadPid(target.to_owned());
    let number = |text: &str| text.trim().parse::<i32>().ok();
    let pid = match number(target) {
        Some(pid) => pid,
        None => std::fs::read_to_string(target).ok().as_deref().and_then(number).ok_or_else(bad)?,
    };
    if pid > 0 { Ok(pid) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_named() {
        assert_eq!(send("zzz"), Err(SignalError::Unknown("zzz".to_owned())));
        assert_eq!(send("reload"), Err(SignalError::NoProcess("reload".to_owned())));
        assert_eq!(send("reload=-1"), Err(SignalError::BadPid("-1".to_owned())));
        assert_eq!(send("reload=0"), Err(SignalError::BadPid("0".to_owned())));
        assert_eq!(send("reload=/nowhere"), Err(SignalError::BadPid("/nowhere".to_owned())));
        let gone = send("reload=999999999").unwrap_err().to_string();
        assert_eq!(gone, "\nsignal \"reload\" 999999999: no such process");
    }
}
