//! The task of one source: connects, asks, listens, and starts anew when something fails. It never ends by itself and never holds up anybody else.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
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
const LOOK: Duration = Duration::from_secs(1);
/// Wait before a source that worked is tried again; doubled each time that it fails, up to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// From more ids than these on, all are listed first: many are new, and most are in the list.
const MANY: usize = 8;
/// Ids that wait to be asked for: of those that a source may have told of by itself, and taken at a time of those that the pipeline asks for.
const TOLD: usize = 256;

/// Why a source did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime does not have this request, or what listens there is no such runtime.
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

    /// One container, by its bare id, also if it has just ended; `None` if there is none.
    fn find(&self, id: &str) -> impl Future<Output = Result<Option<Info>, Error>> + Send;

    /// Sends the id of each container that is made or changed, until it cannot any more. `listening` is called when it has begun. Ids for which
    /// there is no room are dropped and counted as refused.
    fn watch(
        &self,
        ids: mpsc::Sender<String>,
        listening: impl FnOnce() + Send,
    ) -> impl Future<Output = Error> + Send;

    /// Parts of answers and events that were not taken since this was last asked: too large, too many, or not to be read.
    fn refused(&self) -> u64 {
        0
    }
}

/// A source and its task.
#[derive(Debug)]
pub struct Worker {
    /// Its end of the registry.
    pub handle: Handle,
    /// The ids that it is asked for.
    pub asks: mpsc::Receiver<String>,
    /// Where it may be reached: the first that answers.
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
        let mut retry = RETRY_MIN;
        loop {
            let began = Instant::now();
            let wait = match self.round::<C>().await {
                Round::Nobody => self.clock.until_next(LOOK),
                Round::Worked => {
                    retry = RETRY_MIN;
                    // A runtime that was started anew is noticed by the first question that fails, and that container may die any moment.
                    if began.elapsed() >= LOOK { Duration::ZERO } else { RETRY_MIN }
                }
                Round::Failed => {
                    retry = (retry * 2).min(RETRY_MAX);
                    retry
                }
            };
            self.idle(wait).await;
        }
    }

    /// Tries each socket that is there, up to the first that works, and stays with that one until it fails.
    async fn round<C: Client>(&mut self) -> Round {
        let mut whys = Vec::new();
        let mut round = Round::Nobody;
        for socket in self.sockets.clone() {
            if !socket.exists() {
                continue;
            }
            let mut worked = false;
            let Err(error) = self.converse::<C>(&socket, &mut worked).await;
            tracing::debug!(socket = %socket.display(), %error, "a runtime is not asked any more");
            self.handle.events(false);
            let socket = socket.display();
            match error {
                // A containerd that serves Docker alone listens where one that serves Kubernetes does.
                Error::Unsupported if !worked => whys.push(format!(
                    "{socket}: who listens there does not speak {}, or has it switched off",
                    self.handle.name()
                )),
                error => {
                    whys.push(format!("{socket}: {error}"));
                    round = Round::Failed;
                }
            }
            if worked {
                round = Round::Worked;
                break;
            }
        }
        match round {
            Round::Nobody if whys.is_empty() => {
                self.handle.down(SourceState::Absent, "there is no socket".to_owned());
            }
            Round::Nobody => self.handle.down(SourceState::Absent, whys.join("; ")),
            Round::Worked | Round::Failed => self.handle.down(SourceState::Down, whys.join("; ")),
        }
        round
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
    async fn converse<C: Client>(
        &mut self,
        socket: &Path,
        worked: &mut bool,
    ) -> Result<Infallible, Error> {
        let client: C = within(REQUEST, C::connect(socket, &self.wanted)).await?;
        self.handle.version(within(REQUEST, client.version()).await?);
        let asked = Asked { client: &client, handle: &self.handle, clock: self.clock };
        asked.all().await?;
        *worked = true;
        let (told, mut news) = mpsc::channel(TOLD);
        let begun = Notify::new();
        let listen = || {
            client.watch(told.clone(), || {
                asked.handle.events(true);
                begun.notify_one();
            })
        };
        let mut watch = pin!(listen());
        let (mut watching, mut again) = (true, false);
        let mut poll = interval_at(Instant::now() + self.poll, self.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ids = Vec::new();
        loop {
            ids.clear();
            tokio::select! {
                _ = self.asks.recv_many(&mut ids, TOLD) => asked.these(&ids).await?,
                Some(id) = news.recv() => {
                    if C::TELLS_OF_CHANGES || asked.handle.wants(&id, self.clock.boot_ns()) {
                        asked.one(&id).await?;
                    }
                }
                // What was made before it listened and after the last list.
                () = begun.notified() => asked.all().await?,
                _ = poll.tick() => {
                    asked.all().await?;
                    if again {
                        watch.set(listen());
                        (watching, again) = (true, false);
                    }
                }
                error = &mut watch, if watching => {
                    watching = false;
                    // Whatever ended the stream will end the requests too, if it is not the stream alone.
                    again = !matches!(error, Error::Unsupported);
                    asked.handle.events(false);
                    tracing::debug!(%error, "a runtime does not tell of new containers by itself");
                    if again {
                        // One that is gone is found out now, and not by the next death.
                        asked.all().await?;
                    }
                }
            }
        }
    }
}

/// How a look at all the sockets ended.
enum Round {
    /// There is none, or nobody there who speaks its language.
    Nobody,
    /// One worked, and then failed.
    Worked,
    /// None worked.
    Failed,
}

/// A client that is being asked, and where its answers go.
struct Asked<'a, C> {
    client: &'a C,
    handle: &'a Handle,
    clock: Clock,
}

impl<C: Client> Asked<'_, C> {
    async fn all(&self) -> Result<(), Error> {
        let infos = within(LIST, self.client.list()).await;
        self.handle.refused(self.client.refused());
        let infos = infos?;
        self.handle.up();
        self.handle.all(infos, self.clock.boot_ns());
        Ok(())
    }

    async fn these(&self, ids: &[String]) -> Result<(), Error> {
        if ids.len() > MANY {
            self.all().await?;
        }
        for id in ids {
            if self.handle.knows(id) {
                self.handle.nothing(id);
                continue;
            }
            // A list has only what is live: one that died at once, or a pod's own sandbox, is found alone.
            self.one(id).await?;
        }
        Ok(())
    }

    async fn one(&self, id: &str) -> Result<(), Error> {
        let found = within(REQUEST, self.client.find(id)).await;
        self.handle.refused(self.client.refused());
        let found = found?;
        self.handle.up();
        match found {
            Some(info) if info.id == id => self.handle.put(info),
            _ => self.handle.nothing(id),
        }
        Ok(())
    }
}

async fn within<T>(
    time: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(time, answer).await.unwrap_or(Err(Error::TimedOut(time)))
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
