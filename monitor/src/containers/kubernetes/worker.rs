//! The task: finds the API, asks it what it is asked, and starts anew when something fails. It never ends by itself and never holds up anybody else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::super::Wanted;
use super::super::pods::{Ask, Handle};
use super::super::registry::SourceState;
use super::super::worker::Error;
use super::KubernetesConfig;
use super::access::Access;
use super::api::{Answer, Api};
use super::chain::{Chain, Told};
use super::decode;

/// Pods that are asked for at once.
const AT_ONCE: usize = 8;
/// How often the API may fail at a pod before it is let go of: one that it cannot tell of must not keep the others away.
const TRIES: u8 = 3;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Longest wait for one answer. A death waits for `containers.deadline` only; a late answer serves the next one.
    pub(super) request: Duration,
    /// How often credentials that are not there are looked for.
    pub(super) look: Duration,
    /// How often credentials are read anew, and it is seen whether the API still answers and knows them.
    pub(super) poll: Duration,
    /// Wait before an API that failed is tried again: from the first to the second, doubled each time, and half as much or as much again by chance.
    pub(super) retry: (Duration, Duration),
}

impl Default for Times {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(2),
            look: Duration::from_secs(30),
            poll: Duration::from_secs(60),
            retry: (Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}

/// The source and its task.
pub(super) struct Worker {
    pub(super) config: KubernetesConfig,
    pub(super) wanted: Wanted,
    pub(super) handle: Handle,
    pub(super) asks: mpsc::Receiver<Ask>,
}

/// A pod that is asked for, and how often the API failed at it.
#[derive(Debug, Clone)]
struct Turn {
    ask: Ask,
    failures: u8,
}

/// What outlives a session.
struct State {
    handle: Handle,
    asks: mpsc::Receiver<Ask>,
    /// Those that the API failed at.
    again: VecDeque<Turn>,
    /// Those that are being asked for: at most [`AT_ONCE`].
    flying: Vec<Turn>,
    /// What may not be read, as seen since the API was last looked at.
    lacks: Option<String>,
    times: Times,
}

impl Worker {
    /// Runs until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        self.run_with(Times::default(), stop).await;
    }

    pub(super) async fn run_with(self, times: Times, stop: CancellationToken) {
        let Self { config, wanted, handle, asks } = self;
        let chain = Chain::new(wanted);
        let (again, flying) = (VecDeque::new(), Vec::new());
        let mut state = State { handle, asks, again, flying, lacks: None, times };
        let _ = stop.run_until_cancelled(state.forever(&config, &chain)).await;
    }
}

impl State {
    async fn forever(&mut self, config: &KubernetesConfig, chain: &Chain) {
        let chance = RandomState::new();
        let (first, last) = self.times.retry;
        let (mut retry, mut failures) = (first, 0_u64);
        loop {
            let Some(access) = Access::find(config) else {
                let why = "there is neither a service account's token nor a kubeconfig";
                self.handle.down(SourceState::Absent, why);
                sleep(self.times.look).await;
                continue;
            };
            let since = Instant::now();
            let error = match self.session(&access, chain).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::debug!(%error, "the Kubernetes API is not asked any more");
            self.handle.down(SourceState::Down, &error.to_string());
            self.keep_flying();
            // One that worked for a while is worth a quick look.
            if since.elapsed() > last {
                retry = first;
            }
            failures += 1;
            sleep(spread(retry, chance.hash_one(failures))).await;
            retry = (retry * 2).min(last);
        }
    }

    /// Up to the first failure.
    async fn session(&mut self, access: &Access, chain: &Chain) -> Result<Infallible, Error> {
        let mut api = self.connect(access).await?;
        let poll = self.times.poll;
        let mut poll = interval_at(Instant::now() + poll, poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Ends those that fly when the session does.
        let mut tasks: JoinSet<(Ask, Result<Told, Error>)> = JoinSet::new();
        loop {
            let free = self.flying.len() < AT_ONCE;
            if free && let Some(turn) = self.again.pop_front() {
                self.start(turn, &api, chain, &mut tasks);
                continue;
            }
            tokio::select! {
                Some(ask) = self.asks.recv(), if free => {
                    self.start(Turn { ask, failures: 0 }, &api, chain, &mut tasks);
                }
                Some(done) = tasks.join_next() => {
                    let (ask, told) = done.map_err(|error| Error::Failed(error.to_string()))?;
                    let told = told.inspect_err(|_| {
                        let failed = self.flying.iter_mut().find(|turn| turn.ask == ask);
                        failed.into_iter().for_each(|turn| turn.failures += 1);
                    })?;
                    self.flying.retain(|turn| turn.ask != ask);
                    match told.pod {
                        Some(pod) => self.handle.put(pod),
                        None => self.handle.nothing(ask.uid()),
                    }
                    self.lacks = told.lacks.or(self.lacks.take());
                    self.handle.up(self.lacks.as_deref());
                }
                _ = poll.tick() => api = self.connect(access).await?,
            }
        }
    }

    /// The API by the credentials that are there now, if it answers and knows them.
    async fn connect(&mut self, access: &Access) -> Result<Api, Error> {
        let config = access.load().await.map_err(Error::Failed)?;
        self.handle.at(config.cluster_url.to_string());
        let api = Api::new(&config, self.times.request)?;
        match api.version().await? {
            Answer::Object(bytes) => {
                let version = decode::version(&bytes);
                self.handle.version(version.map_err(|why| Error::Malformed(why.to_string()))?);
            }
            // Its cluster's rules; what matters is whether pods may be read.
            Answer::Forbidden => {}
            Answer::Missing => return Err(Error::Failed("it has no /version".to_owned())),
        }
        self.lacks = None;
        self.handle.up(None);
        Ok(api)
    }

    fn start(
        &mut self,
        turn: Turn,
        api: &Api,
        chain: &Chain,
        tasks: &mut JoinSet<(Ask, Result<Told, Error>)>,
    ) {
        // It was asked for once more while the API was down.
        if self.handle.knows(turn.ask.uid()) || self.flying.iter().any(|f| f.ask == turn.ask) {
            return;
        }
        let (ask, api, chain) = (turn.ask.clone(), api.clone(), chain.clone());
        self.flying.push(turn);
        tasks.spawn(async move {
            let told = chain.pod(&api, &ask).await;
            (ask, told)
        });
    }

    /// What was being asked for as the API failed is asked for again when it is back.
    fn keep_flying(&mut self) {
        let flying = self.flying.drain(..).filter(|turn| turn.failures < TRIES);
        self.again.extend(flying);
    }
}

/// From half of a time to one and a half times as much.
fn spread(time: Duration, chance: u64) -> Duration {
    let percent = u32::try_from(chance % 101).unwrap_or_default();
    time / 2 + time * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_spread_around_its_middle() {
        let second = Duration::from_secs(1);
        let waits = (0..101).map(|chance| spread(second, chance));
        let (least, most) = (waits.clone().min().unwrap(), waits.max().unwrap());
        assert_eq!((least, most), (second / 2, second * 3 / 2));
        assert!(spread(Duration::from_secs(60), u64::MAX) <= Duration::from_secs(90));
    }
}
