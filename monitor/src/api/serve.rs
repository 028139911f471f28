//! Connections: bounded in number and in time, ended in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ListenAddress;

/// Connections at a time, over all addresses. Further ones wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// Longest wait for the head of a request, also between two requests of a connection.
const HEAD: Duration = Duration::from_secs(10);
/// Longest life of a connection: whoever reads slowly does not keep its place for ever.
const LIFE: Duration = Duration::from_secs(60);
/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;
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
}

/// Opens all addresses. To be called before the daemon says that it is ready; nothing is answered before [`Server::run`].
///
/// # Errors
/// If one of them cannot be listened on.
pub async fn bind(addresses: &[ListenAddress]) -> Result<Server, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let address = address.get();
        let listener =
            TcpListener::bind(address).await.map_err(|cause| BindError { address, cause })?;
        listeners.push(listener);
    }
    Ok(Server { listeners })
}

impl Server {
    /// The addresses as the kernel has them: a port 0 is a real one here.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Answers until `stop` is cancelled; then accepts no more, lets the requests in flight end, and returns. The caller sets
    /// the deadline: what is dropped with this future is closed.
    pub async fn run(self, router: Router, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let tracker = TaskTracker::new();
        // Cancelled when this future is dropped, so that no connection outlives it.
        let abandon = CancellationToken::new();
        let _guard = abandon.clone().drop_guard();
        for listener in self.listeners {
            let (router, places, stop) = (router.clone(), Arc::clone(&places), stop.clone());
            let (connections, abandon) = (tracker.clone(), abandon.clone());
            tracker.spawn(async move {
                loop {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                        return;
                    };
                    let stream = tokio::select! {
                        stream = accept(&listener) => stream,
                        () = stop.cancelled() => return,
                        () = abandon.cancelled() => return,
                    };
                    let connection = connection(stream, router.clone(), stop.clone());
                    let abandon = abandon.clone();
                    connections.spawn(async move {
                        let _place = place;
                        tokio::select! {
                            _ = tokio::time::timeout(LIFE, connection) => {}
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

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
