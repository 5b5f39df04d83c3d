//! Asking a running provisioner. Blocking: a command asks once and ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MAX_ANSWER;
use super::types::{Answer, AnswerEnvelope, Envelope, Fault, Request, VERSION};

/// How long a provisioner may take. It answers between two messages, so a second is long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no provisioner answers on {path}")]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("{path} is for the user that runs the provisioner only")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The conversation broke off.
    #[error("{path}: {reason}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// It answered in another version.
    #[error(
        "the provisioner on {path} speaks version {theirs} of the control protocol, this program version {VERSION}"
    )]
    Version {
        /// The socket.
        path: PathBuf,
        /// Its version.
        theirs: u32,
    },
    /// It refused the question.
    #[error("the provisioner on {path} says: {} ({})", .fault.message, .fault.code)]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Its words.
        fault: Fault,
    },
}

/// Asks the provisioner that listens on `path`, waiting at most ten seconds for it.
///
/// # Errors
/// See [`AskError`].
pub fn ask(path: &Path, request: Request) -> Result<Answer, AskError> {
    let failed = |error: io::Error| failure(path, &error);
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_string(&Envelope { version: VERSION, request })
        .expect("names and numbers can be written as JSON");
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    let most = u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX);
    BufReader::new(stream.take(most)).read_line(&mut answer).map_err(failed)?;
    read(path, &answer)
}

fn read(path: &Path, text: &str) -> Result<Answer, AskError> {
    let broken = |reason: String| AskError::Broken { path: path.to_owned(), reason };
    if !text.ends_with('\n') {
        return Err(broken(format!("the connection ended after {} bytes of an answer", text.len())));
    }
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let unreadable = |error: serde_json::Error| broken(format!("the answer cannot be read: {error}"));
    let Versioned { version } = serde_json::from_str(text).map_err(unreadable)?;
    if version != VERSION {
        return Err(AskError::Version { path: path.to_owned(), theirs: version });
    }
    let AnswerEnvelope { answer, .. } = serde_json::from_str(text).map_err(unreadable)?;
    match answer {
        Answer::Error(fault) => Err(AskError::Refused { path: path.to_owned(), fault }),
        answer => Ok(answer),
    }
}

fn failure(path: &Path, error: &io::Error) -> AskError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning { path },
        io::ErrorKind::PermissionDenied => AskError::Denied { path },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::Broken { path, reason: format!("no answer within {}s", PATIENCE.as_secs()) }
        }
        _ => AskError::Broken { path, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_none_are_told_apart() {
        let read = |text: &str| read(Path::new("s"), text).unwrap_err();
        assert!(matches!(read(""), AskError::Broken { .. }));
        assert!(matches!(read("{\"version\":1"), AskError::Broken { .. }));
        assert!(matches!(read("hello\n"), AskError::Broken { .. }));
        assert!(matches!(read("{\"version\":1,\"surprise\":{}}\n"), AskError::Broken { .. }));
        assert!(matches!(read("{\"version\":7,\"surprise\":{}}\n"), AskError::Version { theirs: 7, .. }));
        let refused = read("{\"version\":1,\"error\":{\"code\":\"c\",\"message\":\"m\"}}\n");
        assert_eq!(refused.to_string(), "the provisioner on s says: m (c)");
    }

    #[test]
    fn nobody_there_is_said_so() {
        assert!(matches!(ask(Path::new("/nonexistent/s"), Request::Status), Err(AskError::NotRunning { .. })));
    }
}
