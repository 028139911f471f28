//! The one place that sources write to and the pipeline reads from.
//!
//! The lock is a plain mutex, held for moves of memory only and never across an await.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use super::book::{Book, Bounds, Lookup, SourceBit};
use super::{ContainersConfig, Info};

/// Containers that are known or asked for, those that are gone included.
const MAX_CONTAINERS: usize = 16_384;
/// Bytes of what is known of them.
pub(crate) const MAX_BYTES: usize = 16 << 20;
/// After how long an id that nobody knew is asked for again.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Ids that may wait for one source.
const QUEUE: usize = 1024;

/// How a source fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// There is no socket, or nobody behind it who speaks its language.
    Absent,
    /// It answers.
    Up,
    /// It has not answered in time and is not waited for; what it was asked may still come.
    Slow,
    /// It cannot be reached, or answers nonsense. It is tried again.
    Down,
}

/// A source as the status shows it.
#[derive(Debug, Clone, Serialize)]
pub struct SourceReport {
    /// `cri`, `docker`, `podman`, `kubernetes`.
    pub name: &'static str,
    /// Where it is asked.
    pub at: String,
    /// How it fares.
    pub state: SourceState,
    /// Why it is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The runtime by its own name and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it tells of new containers itself, beside being asked.
    pub events: bool,
    /// Requests that it answered.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Parts of its answers that were not taken: too large, too many, or not to be read.
    pub refused: u64,
}

/// How much a registry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Containers that are known or asked for, those that are gone included.
    pub entries: usize,
    /// Bytes of what is known, roughly.
    pub bytes: usize,
    /// How often there was no room for one.
    pub refused: u64,
}

#[derive(Debug)]
struct Source {
    report: SourceReport,
    /// Whether it may know the containers of a runtime, if the path tells one.
    serves: fn(Option<&str>) -> bool,
    queue: mpsc::Sender<String>,
    /// Not yet at the start, when what happened before the daemon ran is told: whether there is anybody is not known then.
    tried: bool,
}

#[derive(Debug)]
struct State {
    book: Book<Info>,
    sources: Vec<Source>,
}

impl State {
    /// Takes what a source says. Docker and the CRI before it tell of the same containers, and who knows the pod knows more.
    fn learn(&mut self, source: SourceBit, info: Info) {
        let id = info.id.clone();
        match self.book.lookup(&id) {
            Lookup::Known(old)
                if old.source != info.source && old.pod.is_some() && info.pod.is_none() =>
            {
                self.book.nothing(&id, source);
            }
            _ => self.book.put(&id, source, info),
        }
    }
}

/// What is known of the containers of this host.
#[derive(Debug)]
pub struct Registry {
    state: Mutex<State>,
    changed: Notify,
}

/// A source's own end.
#[derive(Debug)]
pub struct Handle {
    registry: Arc<Registry>,
    place: usize,
}

impl Registry {
    /// An empty one, without sources.
    #[must_use]
    pub fn new(config: &ContainersConfig) -> Self {
        let bounds = Bounds {
            entries: MAX_CONTAINERS,
            bytes: MAX_BYTES,
            keep_gone_ns: config.keep_gone_ns(),
            ask_again_ns: ASK_AGAIN_NS,
        };
        let state = State { book: Book::new(bounds), sources: Vec::new() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Adds a source, asked at `at`. `serves` says for which runtimes it is asked. There may be 8; `None` for one more.
    pub fn source(
        self: &Arc<Self>,
        name: &'static str,
        at: String,
        serves: fn(Option<&str>) -> bool,
    ) -> Option<(Handle, mpsc::Receiver<String>)> {
        let (queue, asks) = mpsc::channel(QUEUE);
        let mut state = self.state();
        let place = state.sources.len();
        if place >= SourceBit::BITS as usize {
            return None;
        }
        let report = SourceReport {
            name,
            at,
            state: SourceState::Absent,
            why: None,
            version: None,
            events: false,
            answered: 0,
            failed: 0,
            refused: 0,
        };
        state.sources.push(Source { report, serves, queue, tried: false });
        Some((Handle { registry: Arc::clone(self), place }, asks))
    }

    /// What is known of a container, by its bare id.
    #[must_use]
    pub fn lookup(&self, id: &str) -> Lookup<Info> {
        self.state().book.lookup(id)
    }

    /// Has the sources that may know it and answer at the moment asked for a container, unless it is known or being asked for.
    pub fn ask(&self, id: &str, runtime: Option<&str>, now_ns: u64) {
        let state = &mut *self.state();
        if !state.book.wants(id, now_ns) {
            return;
        }
        let mut asked = 0;
        for (place, source) in state.sources.iter_mut().enumerate() {
            // One that is slow is asked too, and not waited for.
            let up = match source.report.state {
                SourceState::Up => true,
                SourceState::Absent if !source.tried => true,
                SourceState::Slow => false,
                SourceState::Absent | SourceState::Down => continue,
            };
            if !(source.serves)(runtime) {
                continue;
            }
            match source.queue.try_send(id.to_owned()) {
                Ok(()) if up => asked |= 1 << place,
                Ok(()) => {}
                Err(_) => source.report.refused += 1,
            }
        }
        state.book.asked(id, asked, now_ns);
    }

    /// A container's cgroup is gone.
    pub fn gone(&self, id: &str, now_ns: u64) {
        self.state().book.gone(id, now_ns);
    }

    /// A death could not wait any longer for the names of a container: whoever owes them is slow, and is not waited for until it has answered.
    pub fn too_late(&self, id: &str) {
        let state = &mut *self.state();
        let owing = state.book.owing(id);
        for (place, source) in state.sources.iter_mut().enumerate() {
            let bit = 1 << place;
            if owing & bit != 0 && (source.report.state == SourceState::Up || !source.tried) {
                source.tried = true;
                source.report.state = SourceState::Slow;
                source.report.why = Some("it did not answer in time".to_owned());
                state.book.give_up(bit);
            }
        }
    }

    /// Which source that may know the containers of a runtime does not answer, and why. `None`: all that are there answer.
    #[must_use]
    pub fn why_not(&self, runtime: Option<&str>) -> Option<String> {
        let state = self.state();
        let mut silent = state.sources.iter().filter(|source| {
            let silent = matches!(source.report.state, SourceState::Slow | SourceState::Down);
            silent && (source.serves)(runtime)
        });
        let SourceReport { name, why, .. } = &silent.next()?.report;
        Some(format!("{name}: {}", why.as_deref().unwrap_or("it does not answer")))
    }

    /// Lets what has been gone for long enough go.
    pub fn forget_gone(&self, now_ns: u64) {
        self.state().book.forget_gone(now_ns);
    }

    /// Waits until a source has told something since this was last awaited. For one task.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The sources, in the order in which they were added.
    #[must_use]
    pub fn reports(&self) -> Vec<SourceReport> {
        self.state().sources.iter().map(|source| source.report.clone()).collect()
    }

    /// How much is held.
    #[must_use]
    pub fn size(&self) -> Size {
        let book = &self.state().book;
        Size { entries: book.len(), bytes: book.bytes(), refused: book.refused() }
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// The source's name.
    pub fn name(&self) -> &'static str {
        self.registry.state().sources.get(self.place).map_or("this", |source| source.report.name)
    }

    /// The source answered: a container.
    pub fn put(&self, info: Info) {
        self.registry.state().learn(self.bit(), info);
        self.registry.changed.notify_one();
    }

    /// The source answered: it does not know this id.
    pub fn nothing(&self, id: &str) {
        self.registry.state().book.nothing(id, self.bit());
        self.registry.changed.notify_one();
    }

    /// All that the source has at `now_ns`: what it told of before and does not have any more is gone.
    pub fn all(&self, infos: Vec<Info>, now_ns: u64) {
        let ids: HashSet<String> = infos.iter().map(|info| info.id.clone()).collect();
        {
            let state = &mut *self.registry.state();
            let Some(name) = state.sources.get(self.place).map(|source| source.report.name) else {
                return;
            };
            let gone =
                state.book.live().filter(|(id, info)| info.source == name && !ids.contains(*id));
            let gone: Vec<String> = gone.map(|(id, _)| id.to_owned()).collect();
            for id in gone {
                state.book.unlisted(&id, now_ns);
            }
            for info in infos {
                state.learn(self.bit(), info);
            }
        }
        self.registry.changed.notify_one();
    }

    /// Whether a container of which the source told by itself is to be asked for.
    pub fn wants(&self, id: &str, now_ns: u64) -> bool {
        self.registry.state().book.wants(id, now_ns)
    }

    /// Whether a container is known, whoever told of it.
    pub fn knows(&self, id: &str) -> bool {
        matches!(self.registry.lookup(id), Lookup::Known(_))
    }

    /// So many more parts of the source's answers were not taken.
    pub fn refused(&self, more: u64) {
        self.report(|report| report.refused += more);
    }

    /// The source has just answered.
    pub fn up(&self) {
        self.tried();
        self.report(|report| {
            report.state = SourceState::Up;
            report.why = None;
            report.answered += 1;
        });
    }

    /// A request failed, or there is nobody to ask. What it was asked is not waited for.
    pub fn down(&self, state: SourceState, why: String) {
        self.tried();
        self.report(|report| {
            report.failed += u64::from(state == SourceState::Down);
            report.state = state;
            report.why = Some(crate::text::one_line(&why));
        });
        self.registry.state().book.give_up(self.bit());
        self.registry.changed.notify_one();
    }

    fn tried(&self) {
        if let Some(source) = self.registry.state().sources.get_mut(self.place) {
            source.tried = true;
        }
    }

    /// The runtime's own name and version.
    pub fn version(&self, version: String) {
        self.report(|report| report.version = Some(crate::text::one_line(&version)));
    }

    /// Whether the source tells of new containers itself.
    pub fn events(&self, events: bool) {
        self.report(|report| report.events = events);
    }

    fn report(&self, change: impl FnOnce(&mut SourceReport)) {
        if let Some(source) = self.registry.state().sources.get_mut(self.place) {
            change(&mut source.report);
        }
    }

    fn bit(&self) -> SourceBit {
        1 << self.place
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
