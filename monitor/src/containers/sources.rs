//! Which sources there are, and the start of their tasks.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::docker::{Docker, Engine, EngineClient, Podman};
use super::worker::{Client, Worker};
use super::{ContainersConfig, Registry, Sockets, Wanted, cri};
use crate::clock::Clock;

/// What every source is started with.
#[derive(Debug)]
pub struct Sources<'a> {
    /// What a user set.
    pub config: &'a ContainersConfig,
    /// Where they put what they learn.
    pub registry: &'a Arc<Registry>,
    /// The labels and annotations that are kept.
    pub wanted: Arc<Wanted>,
    /// The clock.
    pub clock: Clock,
    /// Their tasks.
    pub tasks: &'a TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

impl Sources<'_> {
    /// Starts a task for each source that is not off.
    pub fn start(&self) {
        self.source::<cri::Cri>(cri::NAME, &self.config.cri, &cri::SOCKETS, cri::serves);
        self.engine::<Docker>(&self.config.docker);
        self.engine::<Podman>(&self.config.podman);
    }

    fn engine<E: Engine>(&self, sockets: &Sockets) {
        self.source::<EngineClient<E>>(E::SOURCE, sockets, E::SOCKETS, E::serves);
    }

    fn source<C: Client + 'static>(
        &self,
        name: &'static str,
        sockets: &Sockets,
        known: &[&str],
        serves: fn(Option<&str>) -> bool,
    ) {
        let paths = sockets.paths(known);
        if paths.is_empty() {
            return;
        }
        let Some((handle, asks)) = self.registry.source(name, sockets.to_string(), serves) else {
            return;
        };
        let worker = Worker {
            handle,
            asks,
            sockets: paths,
            wanted: Arc::clone(&self.wanted),
            poll: self.config.poll.get(),
            clock: self.clock,
        };
        self.tasks.spawn(worker.run::<C>(self.stop.clone()));
    }
}
