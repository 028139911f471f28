//! The task of one source: connects, asks, listens, and starts anew when something fails. It never ends by itself and never holds up anybody else.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::registry::{Handle, SourceState};
use super::{Info, Wanted};
use crate::clock::Clock;

/// Longest wait for one answer. A death waits for `containers.deadline` only; a late answer serves the next one.
const REQUEST: Duration = Duration::from_secs(2);
/// Longest wait for the list of all containers.
const LIST: Duration = Duration::from_secs(10);
/// How often a socket that is not there is looked for.
const LOOK: Duration = Duration::from_secs(2);
/// Wait before a source that failed is tried again: doubled each time, up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// From this many ids on, one list of all is asked for instead.
const MANY: usize = 8;
/// Ids that a source may have told of by itself and that wait to be asked for.
const TOLD: usize = 256;

/// Why a source did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime does not have this request.
    #[error("it does not support this")]
    Unsupported,
    /// No answer within the time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// It cannot be reached, or said no.
    #[error("{0}")]
    Failed(String),
    /// What it answered cannot be read, or is larger than allowed.
    #[error("its answer is not what it must be: {0}")]
    Malformed(String),
}

/// How one runtime is asked. Every answer is bounded by the client; the time is bounded here.
pub trait Client: Sized + Send + Sync {
    /// Whether it tells of containers that are known already too, when something about them changed: one that is started anew, or has another name.
    const TELLS_OF_CHANGES: bool = false;

    /// Connects. Of labels and annotations, `wanted` are kept.
    fn connect(
        socket: &Path,
        wanted: &Arc<Wanted>,
    ) -> impl Future<Output = Result<Self, Error>> + Send;

    /// The runtime's name and version, for people.
    fn version(&self) -> impl Future<Output = Result<String, Error>> + Send;

    /// All containers that run or may be told to have died.
    fn list(&self) -> impl Future<Output = Result<Vec<Info>, Error>> + Send;

    /// One container, by its bare id; `None` if there is none.
    fn find(&self, id: &str) -> impl Future<Output = Result<Option<Info>, Error>> + Send;

    /// Sends the id of each container that is made (or changed), until it cannot any more. `listening` is called when it has begun.
    fn watch(
        &self,
        ids: mpsc::Sender<String>,
        listening: impl FnOnce() + Send,
    ) -> impl Future<Output = Error> + Send;
}

/// A source and its task.
#[derive(Debug)]
pub struct Worker {
    /// Its end of the registry.
    pub handle: Handle,
    /// The ids that it is asked for.
    pub asks: mpsc::Receiver<String>,
    /// Where it may be reached: the first that exists.
    pub sockets: Vec<PathBuf>,
    /// The labels and annotations that are kept.
    pub wanted: Arc<Wanted>,
    /// How often it is asked for all its containers.
    pub poll: Duration,
    /// The clock.
    pub clock: Clock,
}

impl Worker {
    /// Runs until `stop`.
    pub async fn run<C: Client>(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.forever::<C>()).await;
    }

    async fn forever<C: Client>(&mut self) {
        let mut retry = LOOK;
        loop {
            let Some(socket) = self.sockets.iter().find(|path| path.exists()).cloned() else {
                self.handle.down(SourceState::Absent, "there is no socket".to_owned());
                self.idle(LOOK).await;
                retry = LOOK;
                continue;
            };
            let since = Instant::now();
            let error = self.session::<C>(&socket).await;
            tracing::debug!(socket = %socket.display(), %error, "a runtime is not asked any more");
            self.handle.down(SourceState::Down, format!("{}: {error}", socket.display()));
            // One that worked for a while is worth a quick look.
            retry = if since.elapsed() > RETRY_MAX { LOOK } else { (retry * 2).min(RETRY_MAX) };
            self.idle(retry).await;
        }
    }

    /// Waits; what it was asked before it went down is answered with nothing already.
    async fn idle(&mut self, time: Duration) {
        let mut time = pin!(sleep(time));
        loop {
            tokio::select! {
                () = &mut time => return,
                Some(id) = self.asks.recv() => self.handle.nothing(&id),
            }
        }
    }

    /// One connection, up to its first failure.
    async fn session<C: Client>(&mut self, socket: &Path) -> Error {
        match self.converse::<C>(socket).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn converse<C: Client>(
        &mut self,
        socket: &Path,
    ) -> Result<std::convert::Infallible, Error> {
        let client: C = within(REQUEST, C::connect(socket, &self.wanted)).await?;
        self.handle.version(within(REQUEST, client.version()).await?);
        self.handle.all(within(LIST, client.list()).await?, self.clock.boot_ns());
        self.handle.up();
        let (told, mut news) = mpsc::channel(TOLD);
        let handle = &self.handle;
        let mut watching = true;
        let mut watch = pin!(client.watch(told, || handle.events(true)));
        let mut poll = interval_at(Instant::now() + self.poll, self.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ids = Vec::new();
        loop {
            ids.clear();
            tokio::select! {
                _ = self.asks.recv_many(&mut ids, TOLD) => {}
                Some(id) = news.recv() => if C::TELLS_OF_CHANGES || handle.wants(&id, self.clock.boot_ns()) {
                    ids.push(id);
                },
                _ = poll.tick() => {
                    handle.all(within(LIST, client.list()).await?, self.clock.boot_ns());
                    handle.up();
                    continue;
                }
                error = &mut watch, if watching => {
                    watching = false;
                    handle.events(false);
                    match error {
                        Error::Unsupported => {}
                        // Whatever ended the stream will end the requests too, if it is not the stream alone.
                        other => tracing::debug!(error = %other, "a runtime tells of new containers no more"),
                    }
                    continue;
                }
            }
            if ids.len() > MANY {
                handle.all(within(LIST, client.list()).await?, self.clock.boot_ns());
                ids.iter().for_each(|id| handle.nothing(id));
            } else {
                for id in &ids {
                    match within(REQUEST, client.find(id)).await? {
                        Some(info) => handle.put(info),
                        None => handle.nothing(id),
                    }
                }
            }
            handle.up();
        }
    }
}

async fn within<T>(
    time: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(time, answer).await.unwrap_or(Err(Error::TimedOut(time)))
}
