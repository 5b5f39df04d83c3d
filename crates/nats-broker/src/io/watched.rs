//! A socket on a readiness queue.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use nix::sys::epoll::EpollFlags;

/// A socket whose readiness a pool watches. It is registered once, for both directions and for edges only, so the flags
/// say what the last edge said and what has been used up since.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(super) stream: TcpStream,
    readable: AtomicBool,
    writable: AtomicBool,
    /// The peer has ended or broken the connection: reading goes on until it says so.
    ended: AtomicBool,
}

impl Watched {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            readable: AtomicBool::new(false),
            writable: AtomicBool::new(true),
            ended: AtomicBool::new(false),
        }
    }

    pub(super) fn note(&self, events: EpollFlags) {
        if events.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.ended.store(true, Ordering::Release);
            self.readable.store(true, Ordering::Release);
            self.writable.store(true, Ordering::Release);
        }
        if events.contains(EpollFlags::EPOLLIN) {
            self.readable.store(true, Ordering::Release);
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.writable.store(true, Ordering::Release);
        }
    }

    pub(super) fn poll_read(&self, to: &mut [u8]) -> Poll<io::Result<usize>> {
        // Taken back before the read: an edge that comes meanwhile must not be lost.
        if !self.readable.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        loop {
            match (&self.stream).read(to) {
                Ok(read) => {
                    // Less than was asked for: the socket is empty, and the next byte is an edge.
                    if read == to.len() || self.ended.load(Ordering::Acquire) {
                        self.readable.store(true, Ordering::Release);
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    pub(super) fn poll_peek(&self, to: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.readable.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        match self.stream.peek(to) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            peeked => {
                self.readable.store(true, Ordering::Release);
                Poll::Ready(peeked)
            }
        }
    }

    pub(super) fn poll_write_ready(&self) -> Poll<io::Result<()>> {
        if self.writable.load(Ordering::Acquire) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        // As with reading; whoever writes holds the outbox's turn, so nobody else sets this to `true` but an edge.
        self.writable.store(false, Ordering::Release);
        loop {
            match (&self.stream).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                written => {
                    self.writable.store(true, Ordering::Release);
                    return written;
                }
            }
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }
}
