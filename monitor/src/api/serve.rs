//! Connections: bounded in number and in time, of each peer and in all, ended in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ListenAddress;
use super::guard::Guard;
use super::guard::layer::Loopback;
use super::peers::Peers;

/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// Headers of a request, at most.
const HEADERS: usize = 64;
/// First byte of whoever begins with TLS: a handshake record (RFC 8446, 5.1).
pub(super) const HANDSHAKE: u8 = 22;
/// What whoever speaks no TLS is told where it is spoken.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 89\r\nconnection: close\r\n\r\n\
{\"error\":\"TLS is spoken here (tls_server_config of web.config_file): ask with https://\"}\n";

/// How much of the server anybody may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time, over all addresses. Further ones wait in the kernel's queue.
    pub(super) connections: usize,
    /// Connections of one peer. Further ones are closed.
    pub(super) of_peer: usize,
    /// Longest wait for a handshake, and for the head of a request, also between two requests of a connection.
    pub(super) head: Duration,
    /// Longest life of a connection: whoever reads slowly does not keep its place for ever.
    pub(super) life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            of_peer: 16,
            head: Duration::from_secs(10),
            life: Duration::from_secs(60),
        }
    }
}

/// Wait after an accept that failed, for want of file descriptors most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("web.listen_address: cannot listen on {address}: {cause}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub cause: std::io::Error,
}

/// Sockets that listen.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    pub(super) limits: Limits,
}

/// Opens all addresses. To be called within the runtime, before the daemon says that it is ready; nothing is answered before [`Server::run`].
///
/// # Errors
/// If one of them cannot be listened on.
pub fn bind(addresses: &[ListenAddress]) -> Result<Server, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let address = address.get();
        let listen = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        listeners.push(listen().map_err(|cause| BindError { address, cause })?);
    }
    Ok(Server { listeners, limits: Limits::default() })
}

impl Server {
    /// The addresses as the kernel has them: a port 0 is a real one here.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Answers until `stop` is cancelled; then accepts no more, lets the requests in flight end, and returns. The caller sets
    /// the deadline: what is dropped with this future is closed.
    pub async fn run(self, router: Router, guard: Arc<Guard>, stop: CancellationToken) {
        let limits = self.limits;
        let places = Arc::new(Semaphore::new(limits.connections));
        let peers = Arc::new(Peers::new(limits.of_peer));
        let tracker = TaskTracker::new();
        // Cancelled when this future is dropped, so that no connection outlives it.
        let abandon = CancellationToken::new();
        let _guard = abandon.clone().drop_guard();
        for listener in self.listeners {
            let (router, places, stop) = (router.clone(), Arc::clone(&places), stop.clone());
            let (connections, abandon) = (tracker.clone(), abandon.clone());
            let (guard, peers) = (Arc::clone(&guard), Arc::clone(&peers));
            tracker.spawn(async move {
                loop {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                        return;
                    };
                    let (stream, peer) = tokio::select! {
                        accepted = accept(&listener) => accepted,
                        () = stop.cancelled() => return,
                        () = abandon.cancelled() => return,
                    };
                    let Some(of_peer) = peers.take(peer.ip()) else {
                        tracing::debug!(%peer, "a peer has as many connections as it may");
                        continue;
                    };
                    let connection = Connection {
                        router: router.clone(),
                        guard: Arc::clone(&guard),
                        limits,
                        stop: stop.clone(),
                    };
                    let abandon = abandon.clone();
                    connections.spawn(async move {
                        let (_place, _of_peer) = (place, of_peer);
                        tokio::select! {
                            _ = tokio::time::timeout(limits.life, connection.take(stream)) => {}
                            () = abandon.cancelled() => {}
                        }
                    });
                }
            });
        }
        tracker.close();
        tracker.wait().await;
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// What a connection is served with.
struct Connection {
    router: Router,
    guard: Arc<Guard>,
    limits: Limits,
    stop: CancellationToken,
}

impl Connection {
    /// Speaks TLS if the rules that are in force now want it.
    async fn take(self, stream: TcpStream) {
        let is_local =
            stream.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let rules = self.guard.rules().await;
        match &rules.tls {
            None => self.serve(stream, is_local).await,
            Some(tls) => {
                let handshake = async {
                    let mut stream = stream;
                    let mut first = [0];
                    if stream.peek(&mut first).await? > 0 && first != [HANDSHAKE] {
                        stream.write_all(NO_TLS).await?;
                        stream.shutdown().await?;
                        return Err(std::io::Error::other("it speaks no TLS"));
                    }
                    TlsAcceptor::from(Arc::clone(tls)).accept(stream).await
                };
                match tokio::time::timeout(self.limits.head, handshake).await {
                    Ok(Ok(stream)) => self.serve(stream, is_local).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                    Err(_) => tracing::debug!("a handshake took too long"),
                }
            }
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin, is_local: bool) {
        let router = if is_local { self.router.layer(Extension(Loopback)) } else { self.router };
        let service = TowerToHyperService::new(router);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS);
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
