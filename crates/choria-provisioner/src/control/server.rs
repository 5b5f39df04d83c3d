//! The provisioner's side of the control socket.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::place::{self, Surroundings};
use super::types::{Answer, AnswerEnvelope, Envelope, Fault, VERSION};
use super::{MAX_REQUEST, Request};
use crate::config::ControlSocket;

/// Connections served at a time. People and their scripts ask; more wait in the backlog.
const AT_A_TIME: usize = 8;
/// Connections that may wait to be served.
const BACKLOG: i32 = 16;
/// How long a peer may take to ask, and to take its answer.
const PEER: Duration = Duration::from_secs(2);
/// How long the run loop may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another provisioner answers there.
    #[error("{path}: another process answers there; give each provisioner a control_socket of its own")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The default directory is somebody else's.
    #[error("{path} belongs to another user or can be written by others")]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The socket or its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A bound control socket. Its file goes with it.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    /// Device and number of the file, so that only our own is removed.
    file: (u64, u64),
    inner: UnixListener,
}

impl Listener {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if identity_of(&self.path).is_ok_and(|file| file == self.file) {
            // Left behind it would only be replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the socket of a configuration. `None`: it is switched off, or the default place cannot be used, which is warned
/// about and stops nobody. Must run inside a tokio runtime.
///
/// # Errors
/// See [`BindError`]; only for a place that was configured.
pub fn bind(setting: &ControlSocket, config: &Path, around: &Surroundings) -> Result<Option<Listener>, BindError> {
    match setting {
        ControlSocket::Off => Ok(None),
        ControlSocket::At(path) => bind_at(path).map(Some),
        ControlSocket::Default => match bind_default(config, around) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                tracing::warn!(
                    "no control socket, so `choria provisioner status` and `explain` cannot ask this provisioner: {error}; set control_socket to a path that it can use, or to an empty text"
                );
                Ok(None)
            }
        },
    }
}

fn bind_default(config: &Path, around: &Surroundings) -> Result<Listener, BindError> {
    let mut last = None;
    for directory in around.directories() {
        if let Err(error) = own(&directory) {
            last = Some(error);
            continue;
        }
        for name in place::names(config) {
            match bind_at(&directory.join(name)) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
    }
    let nowhere = || BindError::Io { path: around.run.clone(), source: io::ErrorKind::NotFound.into() };
    Err(last.unwrap_or_else(nowhere))
}

/// Makes a directory for us alone, or checks that the one which is there is.
fn own(directory: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: directory.to_owned(), source };
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let found = fs::symlink_metadata(directory).map_err(failed)?;
    let is_ours = found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0;
    if is_ours { Ok(()) } else { Err(BindError::Directory { path: directory.to_owned() }) }
}

fn bind_at(path: &Path) -> Result<Listener, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    // Two provisioners that start at once must not both find the other's socket dead. Whoever else can open the directory
    // could hold the lock, so it is not waited for.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let _lock = File::open(directory).ok().and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
    remove_dead(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
    let file = identity_of(path).map_err(failed)?;
    // Nobody can connect before `listen`, so nobody comes in with the rights that the file was made with.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    let inner = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(Listener { path: path.to_owned(), file, inner })
}

/// Removes the socket of a process that is gone.
fn remove_dead(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(&SockAddr::unix(path).map_err(failed)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        // A full backlog is somebody's, too.
        Ok(()) => Err(BindError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error)),
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Serves until `stop`. `answer` is called once per question.
pub async fn serve<F>(
    listener: Listener,
    answer: impl Fn(Request) -> F + Send + Sync + 'static,
    stop: CancellationToken,
) where
    F: Future<Output = Answer> + Send,
{
    let (answer, places) = (Arc::new(answer), Arc::new(Semaphore::new(AT_A_TIME)));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.inner.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: they come back.
                tracing::warn!("the control socket cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = converse(stream, &*answer).await {
                tracing::debug!("a conversation on the control socket ended: {error}");
            }
        });
    }
}

async fn converse<F>(mut stream: UnixStream, answer: &(impl Fn(Request) -> F + Sync)) -> io::Result<()>
where
    F: Future<Output = Answer> + Send,
{
    // The file's mode says the same; a place that somebody configured may be less strict.
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let answer = match timeout(PEER, question(&mut stream)).await?? {
        Err(fault) => Answer::Error(fault),
        Ok(request) => timeout(ANSWER, answer(request)).await.unwrap_or_else(|_| {
            Answer::Error(fault("stopping", "the provisioner did not answer in time, it is stopping or very busy"))
        }),
    };
    let mut line = serde_json::to_vec(&AnswerEnvelope { version: VERSION, answer })?;
    line.push(b'\n');
    timeout(PEER, stream.write_all(&line)).await??;
    stream.shutdown().await
}

/// Reads one line and what it asks.
async fn question(stream: &mut UnixStream) -> io::Result<Result<Request, Fault>> {
    let mut line = Vec::new();
    let mut chunk = [0; 512];
    let end = loop {
        let got = stream.read(&mut chunk).await?;
        let from = line.len();
        line.extend_from_slice(&chunk[..got]);
        if let Some(at) = line[from..].iter().position(|byte| *byte == b'\n') {
            break from + at;
        }
        if got == 0 {
            break line.len();
        }
        if line.len() > MAX_REQUEST {
            let words = format!("a question has at most {MAX_REQUEST} bytes");
            return Ok(Err(fault("too_long", &words)));
        }
    };
    Ok(parse(&line[..end]))
}

fn parse(line: &[u8]) -> Result<Request, Fault> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let unreadable = |error: serde_json::Error| fault("request", &format!("the question cannot be read: {error}"));
    let Versioned { version } = serde_json::from_slice(line).map_err(unreadable)?;
    if version != VERSION {
        return Err(fault("version", &format!("this provisioner speaks version {VERSION}, not {version}")));
    }
    let Envelope { request, .. } = serde_json::from_slice(line).map_err(unreadable)?;
    Ok(request)
}

fn fault(code: &str, message: &str) -> Fault {
    Fault { code: code.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests;
