//! The monitoring pages over HTTP and HTTPS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::files;
use crate::program::ProgramError;

/// Handshakes for HTTPS at the same time: monitoring is asked by few, and whoever dawdles must not keep them all out.
const HANDSHAKES: usize = 32;
/// Time for one.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Sockets that are open, and what serves them.
pub(crate) struct Monitoring {
    http: Option<Socket>,
    https: Option<Socket>,
    /// TLS of connections that come, exchanged by a reload.
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    served: Vec<JoinHandle<()>>,
}

struct Socket {
    addr: SocketAddr,
    listener: Option<TcpListener>,
}

impl Monitoring {
    /// Opens the sockets. Nobody is answered yet, so that whoever waits for an answer finds a broker that runs.
    pub(crate) async fn bind(
        http: Option<SocketAddr>,
        https: Option<(SocketAddr, Arc<rustls::ServerConfig>)>,
    ) -> Result<Self, ProgramError> {
        let http = match http {
            Some(addr) => Some(Socket::bind(addr).await?),
            None => None,
        };
        let (https, tls) = match https {
            Some((addr, tls)) => (Some(Socket::bind(addr).await?), Some(Arc::new(ArcSwap::new(tls)))),
            None => (None, None),
        };
        Ok(Self { http, https, tls, served: Vec::new() })
    }

    /// Where pages are in clear text.
    pub(crate) fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|socket| socket.addr)
    }

    /// Where pages are, for the ports file.
    pub(crate) fn urls(&self) -> Vec<String> {
        let http = self.http.as_ref().map(|socket| files::url("http", socket.addr));
        let https = self.https.as_ref().map(|socket| files::url("https", socket.addr));
        http.into_iter().chain(https).collect()
    }

    /// Begins to answer below a path.
    pub(crate) fn serve(&mut self, pages: Router, base_path: &str) {
        let pages = if base_path.is_empty() { pages } else { Router::new().nest(base_path, pages) };
        if let Some((addr, listener)) = self.http.as_mut().and_then(Socket::take) {
            tracing::info!("Starting http monitor on {addr}");
            let pages = pages.clone();
            self.served.push(tokio::spawn(async move { ended(axum::serve(listener, pages).await) }));
        }
        if let Some((addr, listener)) = self.https.as_mut().and_then(Socket::take)
            && let Some(tls) = &self.tls
        {
            tracing::info!("Starting https monitor on {addr}");
            let listener = TlsListener::new(listener, addr, Arc::clone(tls));
            self.served.push(tokio::spawn(async move { ended(axum::serve(listener, pages).await) }));
        }
    }

    /// Other TLS settings for connections from now on.
    pub(crate) fn set_tls(&self, config: Arc<rustls::ServerConfig>) {
        if let Some(tls) = &self.tls {
            tls.store(config);
        }
    }

    /// Stops answering.
    pub(crate) async fn stop(self) {
        for task in self.served {
            task.abort();
            let _ = task.await;
        }
    }
}

fn ended(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "monitoring ended");
    }
}

impl Socket {
    async fn bind(addr: SocketAddr) -> Result<Self, ProgramError> {
        let failed = |source| ProgramError::Monitoring { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { addr, listener: Some(listener) })
    }

    fn take(&mut self) -> Option<(SocketAddr, TcpListener)> {
        Some((self.addr, self.listener.take()?))
    }
}

/// Connections whose TLS handshake is done.
struct TlsListener {
    addr: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    task: JoinHandle<()>,
}

impl TlsListener {
    fn new(listener: TcpListener, addr: SocketAddr, tls: Arc<ArcSwap<rustls::ServerConfig>>) -> Self {
        // As many as are in a handshake: each of them has a place when it is done.
        let (sender, ready) = mpsc::channel(HANDSHAKES);
        let task = tokio::spawn(shake_hands(listener, tls, sender));
        Self { addr, ready, task }
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn shake_hands(
    listener: TcpListener,
    tls: Arc<ArcSwap<rustls::ServerConfig>>,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let turns = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let (socket, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly out of file descriptors: others end and free some.
                tracing::warn!(%error, "cannot accept a connection for monitoring");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, sender) = (TlsAcceptor::from(tls.load_full()), sender.clone());
        tokio::spawn(async move {
            let _turn = turn;
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(socket)).await {
                let _ = sender.send((stream, remote)).await;
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The sending task lives as long as this does.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.addr)
    }
}
