//! Connections over the socket: who is at the other end, whether there is a place, and an orderly end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::Bound;
use super::limits::{CONNECTIONS, CONNECTIONS_OF_OWNER, Place, Places};
use super::paced::Paced;
use super::peer::Peer;
use super::refusal::Refusal;
use super::{State, blocking, router};
use crate::metrics::Rejected;
use crate::tags::SWEEP;

/// Longest wait for the head of a request, also between two requests of a connection.
const HEAD: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// Longest that the other end may take nothing of an answer.
const TAKES_WITHIN: Duration = Duration::from_secs(30);
/// Connections that are told at a time that there is no place for them; further ones are closed without a word.
const TURNED_AWAY: usize = 32;
/// Longest time for telling them.
const TELL: Duration = Duration::from_secs(1);
/// Wait after an accept that failed, for want of file descriptors most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Answers until the state's `stop` is cancelled; then accepts no more, lets the requests in flight end, and returns. The caller sets the
/// deadline: what is dropped with this future is closed. The socket's file goes with it.
pub async fn run(bound: Bound, state: Arc<State>) {
    let tracker = TaskTracker::new();
    // Cancelled when this future is dropped, so that nothing outlives it.
    let abandon = CancellationToken::new();
    let _guard = abandon.clone().drop_guard();
    let served = Served {
        router: router(Arc::clone(&state)),
        lack: state.host.lack(),
        seats: Arc::new(Semaphore::new(CONNECTIONS)),
        turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
        places: Places::default(),
        state,
    };
    if let Some(lack) = served.lack {
        tracing::warn!(path = %bound.path().display(), "the socket answers nobody: {lack}");
    }
    let served = Arc::new(served);
    let stop = served.state.stop.clone();
    tracker.spawn(until(abandon.clone(), sweeps(Arc::clone(&served.state))));
    loop {
        let accepted = tokio::select! {
            accepted = bound.listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            // At once, and never left to wait: so a process has hardly time to end, and its number to be given to another, before
            // it is looked at.
            Ok((stream, _)) => {
                tracker.spawn(until(abandon.clone(), Arc::clone(&served).take(stream)));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(bound);
    tracker.close();
    tracker.wait().await;
}

async fn until(abandon: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = abandon.cancelled() => {}
    }
}

/// Lets go of the tags of processes that are gone.
async fn sweeps(state: Arc<State>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = state.stop.cancelled() => return,
        }
        let tags = Arc::clone(&state.tags);
        let swept =
            tokio::task::spawn_blocking(move || tags.sweep(std::time::Instant::now())).await;
        if let Err(error) = swept {
            tracing::error!(%error, "a sweep over the tags ended early");
        }
        state.metrics.set_tagged(state.tags.len());
    }
}

/// What connections share.
struct Served {
    state: Arc<State>,
    router: Router,
    lack: Option<&'static str>,
    seats: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    places: Places,
}

impl Served {
    async fn take(self: Arc<Self>, stream: UnixStream) {
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let admitted = match seat {
            Ok(_) if self.lack.is_none() => self.admit(&stream).await,
            Ok(_) => Err(Refusal::new(Rejected::Unavailable, self.lack.unwrap_or_default())),
            Err(_) => {
                Err(no_place(&format!("{CONNECTIONS} connections are open, and no more may be")))
            }
        };
        match admitted {
            Ok((peer, _place)) => self.serve(stream, peer).await,
            Err(refusal) => self.turn_away(stream, refusal).await,
        }
    }

    async fn admit(&self, stream: &UnixStream) -> Result<(Arc<Peer>, Place), Refusal> {
        use std::os::fd::AsFd as _;
        let unknown = |_| Refusal::from(super::peer::Unknown::Gone);
        let credentials = stream.peer_cred().map_err(unknown)?;
        let socket = stream.as_fd().try_clone_to_owned().map_err(unknown)?;
        let host = self.state.host.clone();
        let (pid, uid) = (credentials.pid(), credentials.uid());
        let peer = blocking(move || host.peer(socket, pid, uid)).await??;
        let place = self.places.take(peer.owner(), peer.privileged).ok_or_else(|| {
            no_place(&format!(
                "you have {CONNECTIONS_OF_OWNER} connections open, or others have all: no more may be"
            ))
        })?;
        Ok((Arc::new(peer), place))
    }

    async fn serve(&self, stream: UnixStream, peer: Arc<Peer>) {
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(peer)));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
        let io = TokioIo::new(Paced::new(stream, TAKES_WITHIN));
        let mut connection = std::pin::pin!(http.serve_connection(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.state.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection over the socket ended early");
        }
    }

    /// Says why, whatever was asked, and hangs up.
    async fn turn_away(&self, mut stream: UnixStream, refusal: Refusal) {
        self.state.metrics.rejected(refusal.reason);
        let Ok(_seat) = self.turned_away.try_acquire() else { return };
        let tell = async {
            let status = refusal.status();
            let body = refusal.into_response().into_body().collect().await.ok()?.to_bytes();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
            stream.shutdown().await.ok()?;
            // Until it has heard: closed with a request unread, it would see an error and not the answer.
            let mut unread = [0; 1024];
            let mut read = 0;
            while read < HEAD_BYTES {
                match stream.read(&mut unread).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => read += count,
                }
            }
            Some(())
        };
        let _ = tokio::time::timeout(TELL, tell).await;
    }
}

fn no_place(text: &str) -> Refusal {
    Refusal {
        retry_after: Some(Duration::from_secs(1)),
        ..Refusal::new(Rejected::Connections, text)
    }
}
