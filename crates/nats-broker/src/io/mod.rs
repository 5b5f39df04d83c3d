//! Sockets of connections, and who runs the tasks that serve them.
//!
//! On Linux a few threads of our own wait on one readiness queue, and whichever sees that a connection is ready serves
//! it (shape D of spec 07 §22): nothing is handed from thread to thread, which is what costs time when one request
//! follows another. Elsewhere, and where [`crate::IoEngine::Runtime`] asks for it, tokio does both. The rest of the
//! broker sees one face.

#[cfg(target_os = "linux")]
mod pool;
#[cfg(target_os = "linux")]
mod task;
#[cfg(target_os = "linux")]
mod watched;

use std::io;
use std::net::{Shutdown, TcpStream as StdStream};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::config::IoEngine;
#[cfg(target_os = "linux")]
use pool::Pool;
#[cfg(target_os = "linux")]
use watched::Watched;

/// The socket of a connection. Reading is its task's alone; writing is whoever holds the outbox's turn.
#[derive(Debug)]
pub(crate) enum Socket {
    Runtime(TcpStream),
    #[cfg(target_os = "linux")]
    Threads(Arc<Watched>),
}

impl Socket {
    /// Reads once; 0 = the peer will send no more. Only the connection's own task may call it.
    pub(crate) fn poll_read(&self, to: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Runtime(stream) => loop {
                ready!(stream.poll_read_ready(cx))?;
                match stream.try_read(to) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read),
                }
            },
            #[cfg(target_os = "linux")]
            Self::Threads(watched) => watched.poll_read(to),
        }
    }

    /// Looks at what has come without taking it. Only the connection's own task may call it.
    pub(crate) fn poll_peek(&self, to: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Self::Runtime(stream) => stream.poll_peek(cx, &mut tokio::io::ReadBuf::new(to)),
            #[cfg(target_os = "linux")]
            Self::Threads(watched) => watched.poll_peek(to),
        }
    }

    /// Waits for room. Only the connection's own task may call it.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Runtime(stream) => stream.poll_write_ready(cx),
            #[cfg(target_os = "linux")]
            Self::Threads(watched) => watched.poll_write_ready(),
        }
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; anything else ends the connection.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Runtime(stream) => stream.try_write(bytes),
            #[cfg(target_os = "linux")]
            Self::Threads(watched) => watched.try_write(bytes),
        }
    }

    /// Ends one direction or both. An error here means that the peer was faster.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Runtime(stream) => socket2::SockRef::from(stream).shutdown(how),
            #[cfg(target_os = "linux")]
            Self::Threads(watched) => watched.shutdown(how),
        };
    }
}

/// What runs the tasks of connections.
#[derive(Debug)]
pub(crate) enum Engine {
    Runtime,
    #[cfg(target_os = "linux")]
    Threads(Pool),
}

impl Engine {
    /// Starts what the platform has. Must be called inside a tokio runtime, whose timers tasks use in any case.
    ///
    /// # Errors
    /// The system gives no readiness queue or no thread.
    pub(crate) fn start(wanted: IoEngine) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if wanted == IoEngine::Threads {
            return Pool::start().map(Self::Threads);
        }
        let _ = wanted;
        Ok(Self::Runtime)
    }

    /// Takes an accepted socket over.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub(crate) fn adopt(&self, stream: StdStream) -> io::Result<Arc<Socket>> {
        Ok(Arc::new(match self {
            Self::Runtime => Socket::Runtime(TcpStream::from_std(stream)?),
            #[cfg(target_os = "linux")]
            Self::Threads(_) => Socket::Threads(Arc::new(Watched::new(stream))),
        }))
    }

    /// Runs the task of a connection. It is polled whenever its socket becomes ready.
    ///
    /// # Errors
    /// The socket cannot be watched; the task is dropped.
    pub(crate) fn spawn(
        &self,
        tracker: &TaskTracker,
        socket: &Arc<Socket>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        match (self, &**socket) {
            #[cfg(target_os = "linux")]
            (Self::Threads(pool), Socket::Threads(watched)) => {
                pool.spawn(Arc::clone(watched), Box::pin(tracker.track_future(task)))
            }
            _ => {
                tracker.spawn(task);
                Ok(())
            }
        }
    }

    /// Ends the threads; tasks that are left are dropped.
    pub(crate) fn stop(&self) {
        match self {
            Self::Runtime => {}
            #[cfg(target_os = "linux")]
            Self::Threads(pool) => pool.stop(),
        }
    }
}
