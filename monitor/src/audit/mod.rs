//! Our count of the kernel's OOM kills against the kernel's own.
//!
//! * [`kernel`] reads the kernel's counters, [`book`] counts and compares (pure), [`state`] keeps the count for the next start.
//! * [`Auditor`] says when to look, on which thread, and what becomes of a difference. It belongs to the pipeline, which tells it of each
//!   kill; files are read and written on a thread that may block.
//!
//! At start, what the kernel is ahead by was missed: it is reported as such, and accounted for. Later, what it is ahead by for two looks is
//! unaccounted: a gauge, and a line of the log. It stays unaccounted, and so is missed at the next start of the daemon.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::cgroup::CgroupId;
use crate::cgroup::index::Index;

pub mod book;
pub mod kernel;
mod report;
pub mod state;

use book::{Book, Differences, Own, Place};
use kernel::{Counters, Reading, Wanted};
pub use report::{Account, MissedKills, Numbers, Reporter};
use state::{Loaded, Store};

/// Between looks, when nothing happens.
const LOOK: Duration = Duration::from_secs(10);
/// From a kill to a look, and between the two looks that must agree. A mark is read within milliseconds.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Between two writes of the state.
const SAVE: Duration = Duration::from_secs(5);
/// Cgroups with kills since the last look. With more, the next look is at every cgroup.
const MAX_TOUCHED: usize = 1024;
/// At the start, looks until there were two between which nothing was killed. Then the least that was seen is taken.
const MAX_FIRST_LOOKS: u32 = 15;

/// Compares the counts. To be told of each kill and of each cgroup that goes.
#[derive(Debug)]
pub struct Auditor {
    counters: Arc<Counters>,
    hierarchy: u32,
    reporter: Reporter,
    store: Option<Arc<Store>>,
    book: Book,
    phase: Phase,
    touched: HashSet<u64>,
    look_at_all: bool,
    looked_at_all: Option<Instant>,
    /// What the last look showed.
    previous: Differences,
    next: Instant,
    job: Option<JoinHandle<Done>>,
    saved: Saved,
}

#[derive(Debug)]
enum Phase {
    /// What the kernel is ahead by was missed.
    Starting {
        /// What all looks so far have in common.
        least: Option<Differences>,
        looks: u32,
        /// Kills in the book at the last look.
        kills: u64,
    },
    /// What it is ahead by is unaccounted for.
    Watching,
}

/// The book as it was written last: kills of the host, with which all of it changes, and when.
#[derive(Debug)]
struct Saved {
    host: u64,
    at: Option<Instant>,
}

/// What a thread that may block brings home.
#[derive(Debug)]
enum Done {
    /// The book as it was before the look, and the look.
    Looked {
        book: Book,
        reading: std::io::Result<Reading>,
        whole: bool,
    },
    Saved(std::io::Result<()>),
}

impl Auditor {
    /// Nothing is read yet but the state. `store` is where the count is kept; without one, what happened before the start is not told,
    /// since it might be told again with each.
    #[must_use]
    pub fn new(
        counters: Counters,
        hierarchy: u32,
        store: Option<Store>,
        mut reporter: Reporter,
    ) -> Self {
        let mut book = Book::default();
        let store = store.and_then(|store| match store.load() {
            Ok(loaded) => {
                match loaded {
                    Loaded::Book(kept) => book = kept,
                    Loaded::Nothing => {}
                    Loaded::Unusable(why) => reporter.set_aside(&why),
                }
                Some(store)
            }
            Err(error) => {
                reporter.no_state(&error);
                None
            }
        });
        Self {
            counters: Arc::new(counters),
            hierarchy,
            reporter,
            store: store.map(Arc::new),
            saved: Saved { host: book.host, at: None },
            phase: Phase::Starting { least: None, looks: 0, kills: book.host },
            book,
            touched: HashSet::new(),
            look_at_all: true,
            looked_at_all: None,
            previous: Differences::default(),
            next: Instant::now(),
            job: None,
        }
    }

    /// The kernel counted an OOM kill in this cgroup of the memory controller's hierarchy, and we tell of it. 0: not known which.
    pub fn killed(&mut self, cgroup: u64, index: &Index) {
        let id = CgroupId { hierarchy: self.hierarchy, id: cgroup };
        // Of a path that is cut nothing can be read.
        let path = index.path(id).filter(|_| cgroup != 0 && !index.is_cut(id));
        self.book.killed(path.map(|path| (cgroup, path)));
        if self.touched.len() < MAX_TOUCHED {
            self.touched.insert(cgroup);
        } else {
            self.look_at_all = true;
        }
        self.look_within(LOOK_AGAIN);
    }

    /// A cgroup was removed. To be called while the index has its path.
    pub fn gone(&mut self, cgroup: CgroupId, index: &Index) {
        if cgroup.hierarchy == self.hierarchy
            && let Some(path) = index.path(cgroup)
        {
            self.book.gone(cgroup.id, &path, self.counters.is_hierarchical());
        }
    }

    /// Starts what is due. To be called every second or so.
    pub fn tick(&mut self, index: &Index) {
        let now = Instant::now();
        if self.job.is_some() {
            return;
        }
        if now >= self.next {
            self.next = now + LOOK;
            self.look(index);
        } else if self.is_unsaved() && self.saved.at.is_none_or(|at| now - at >= SAVE) {
            self.save(now);
        }
    }

    fn look(&mut self, index: &Index) {
        let whole = std::mem::take(&mut self.look_at_all);
        let path_of = |id: u64| index.path(CgroupId { hierarchy: self.hierarchy, id });
        let (named, others) = if whole {
            self.looked_at_all = Some(Instant::now());
            self.touched.clear();
            // The newest path: one that was renamed is not gone.
            let path = |(id, own): (&u64, &Own)| path_of(*id).unwrap_or(Arc::clone(&own.path));
            let own = self.book.own.iter();
            let live = index.live().filter(|(id, _)| id.hierarchy == self.hierarchy);
            (
                own.map(|entry| Wanted { id: *entry.0, path: path(entry) }).collect(),
                live.map(|(id, path)| Wanted { id: id.id, path: Arc::clone(path) }).collect(),
            )
        } else {
            let differed = self.previous.places.keys().filter_map(Place::id);
            let ids: HashSet<u64> = differed.chain(self.touched.drain()).collect();
            let named = ids.into_iter().filter_map(|id| Some(Wanted { id, path: path_of(id)? }));
            (named.collect::<Vec<_>>(), Vec::new())
        };
        let (counters, book) = (Arc::clone(&self.counters), self.book.clone());
        self.job = Some(tokio::task::spawn_blocking(move || Done::Looked {
            reading: counters.read(&named, &others),
            book,
            whole,
        }));
    }

    /// Ends when something that was started is done; never, if nothing was. May be dropped at any time.
    pub async fn turn(&mut self) {
        let done = match &mut self.job {
            Some(job) => job.await,
            None => std::future::pending().await,
        };
        self.job = None;
        match done {
            Ok(Done::Looked { book, reading: Ok(reading), whole }) => {
                self.compare(&book, &reading, whole);
            }
            Ok(Done::Looked { reading: Err(error), whole, .. }) => {
                self.look_at_all |= whole;
                self.reporter.blind(&error);
            }
            Ok(Done::Saved(result)) => self.reporter.saved(result),
            Err(error) => self.reporter.blind(&error),
        }
    }

    fn compare(&mut self, before: &Book, reading: &Reading, whole: bool) {
        let differences = before.differences(reading, whole);
        let hierarchical = self.counters.is_hierarchical();
        if whole {
            self.book.fold(reading, hierarchical);
        } else {
            // A mark may be read after its cgroup went.
            self.book.vanished(&reading.vanished, hierarchical);
        }
        match &mut self.phase {
            Phase::Starting { least, looks, kills } => {
                let quiet = *looks > 0 && *kills == before.host;
                (*looks, *kills) = (*looks + 1, before.host);
                let all = match least.take() {
                    Some(least) => least.lasting(&differences),
                    None => differences,
                };
                if quiet || *looks >= MAX_FIRST_LOOKS {
                    let missed = self.book.settle(&all);
                    self.reporter.missed(&missed, reading.host, self.store.is_some());
                    self.phase = Phase::Watching;
                } else {
                    *least = Some(all);
                    self.look_at_all = true;
                    self.look_within(LOOK_AGAIN);
                }
            }
            Phase::Watching => self.watch(differences, whole, reading.host),
        }
    }

    fn watch(&mut self, look: Differences, whole: bool, kernel: u64) {
        let lasting = self.previous.lasting(&look);
        if self.reporter.lasting(lasting.host, &look, whole, kernel) {
            self.look_at_all |= self.looked_at_all.is_none_or(|at| at.elapsed() >= LOOK);
            self.look_within(LOOK_AGAIN);
        } else if look.host != lasting.host || look.places != lasting.places {
            self.look_within(LOOK_AGAIN);
        }
        // Where the host's number is right, these kills were told, if of another cgroup.
        if (self.previous.host, look.host) == (0, 0) {
            for (place, ahead) in &lasting.places {
                self.reporter.misplaced(place, *ahead);
                self.book.adjust(place, *ahead);
            }
        }
        self.previous = look;
    }

    fn look_within(&mut self, time: Duration) {
        self.next = self.next.min(Instant::now() + time);
    }

    const fn is_unsaved(&self) -> bool {
        self.saved.host != self.book.host
    }

    fn save(&mut self, now: Instant) {
        self.saved = Saved { host: self.book.host, at: Some(now) };
        if let Some(store) = &self.store {
            let (store, book) = (Arc::clone(store), self.book.clone());
            self.job = Some(tokio::task::spawn_blocking(move || Done::Saved(store.save(&book))));
        }
    }

    /// Writes down what is accounted for, at the end.
    pub async fn finish(&mut self) {
        if self.job.is_some() {
            self.turn().await;
        }
        if self.is_unsaved() {
            self.save(Instant::now());
        }
        if self.job.is_some() {
            self.turn().await;
        }
    }
}

#[cfg(test)]
#[path = "auditor_tests.rs"]
mod tests;
