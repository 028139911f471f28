//! The deaths and alerts that are kept, in order, for the API and for each sink's cursor: in a file that outlives the daemon.
//!
//! # What holds
//!
//! * An entry has a number, from 1 on without gaps, also across restarts. Whoever reads keeps a cursor: the last number it has dealt with.
//! * The JSON form is made once, here; API and sinks send the same bytes, also after a restart.
//! * Number, bytes of JSON and age of the entries are bounded. The oldest goes first, and is counted. A reader that was overtaken is told how
//!   many it missed: between two entries that it is given, each number is accounted for.
//! * An entry is *settled* when it is on the disk (`fdatasync` has returned), or as safe as it gets: [`Ledger::read_after`], [`Ledger::newest`] and
//!   [`Ledger::changed`] show settled entries only. So nobody is told of a death that a crash could still take back, unless the disk is slow or broken.
//! * [`Ledger::append`] waits for no disk, [`Ledger::close`] for none longer than it was told to.
//! * A note that is given with an entry is on the disk if and only if the entry is, whatever fails, unless there was no room for the entry.
//! * Memory holds what is not in the file yet, at most `max_memory` of JSON and as much again while it is written, and a tail of [`TAIL`].
//!
//! # How it is done
//!
//! `append` puts an entry into memory (`recent.rs`) and wakes the writer (`writer.rs`), a thread of its own. It takes all that waits, with the cursors
//! and notes, and commits it as one transaction (`store.rs`) that also lets the oldest go: a storm costs few syncs. What comes meanwhile waits for the next.
//!
//! If a write fails, the ledger is *degraded*: entries are settled as they come and stay in memory, the oldest giving way beyond `max_memory`. The
//! file is opened anew and written again, after 100 ms, then later each time up to 30 s; then all that is in memory goes into it, and the numbers
//! are what they were. A disk that does not answer for 2 s is the same, but for the attempts: the one that hangs is waited for.
//!
//! If the file cannot be opened at the start (another daemon has it, the disk is read-only or does not answer), the numbers of this run begin at 1. Once the file can
//! be opened, they follow those in it: in the file each number is `shift` higher, and at the next start all are what the file says.
//!
//! A file that is damaged, of another program or of a newer version is renamed to `….set-aside-1`, `-2` or `-3`, and a new one begun, with what is in memory. If
//! all three are there, the last gives way: the first tell how it began, and a daemon that is restarted again and again must not fill the disk. Each record has a
//! checksum; one that is damaged alone is skipped, and counted, once.
//!
//! # What can be lost
//!
//! * A power cut or a crash of the kernel costs what was not settled: the deaths of the last milliseconds, or, on a slow disk, of the
//!   transaction that was being written. While degraded it costs all that is in memory only.
//! * `kill -9`, or a crash of the daemon, costs the same.
//! * A cursor or a note alone is on the disk within a second of its setting, or with the next entry: after a crash, a sink is told of at most a second's
//!   deliveries once more.
//! * A full disk costs nothing until `max_memory` is full; then the oldest that are not in the file, counted in [`Health::unsaved`]. A file that has grown to
//!   its bounds has free pages in it, and can be written on a full disk.
//! * A burst that is faster than the disk for so long that `max_memory` is full costs the oldest of it, counted likewise.
//! * A disk that loses what it said was synced costs what it lost; what is left is checked by its checksums when it is opened.
//! * Without a file, all of it with the daemon's end.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::audit::state::StatePath;
use crate::death::Death;

mod commit;
mod config;
mod cursors;
mod filter;
mod health;
mod item;
mod medium;
mod offline;
mod overlay;
mod recent;
mod record;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use config::{LedgerConfig, LedgerPath};
pub use filter::{Filter, NsPid, Viewer};
pub use health::Health;
use health::{Bounds, now};
pub use item::{Batch, Entry, Item, LedgerError};
use medium::{AtPath, Medium};
pub use offline::{Found, Offline, ReadError};
use recent::OnDeath;
use shared::{Shared, Stop};
use writer::Writer;

/// Bytes of JSON that stay in memory although they are in the file, for readers that are up to date.
pub const TAIL: u64 = 512 << 10;
/// How long the start waits for the file. A disk that does not answer must not keep the daemon from watching.
const OPEN: Duration = Duration::from_secs(10);
/// Entries that one read of a replay takes.
const REPLAY: usize = 256;

/// The deaths that are kept.
pub struct Ledger {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("health", &self.health()).finish()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.end(Stop::Drop);
    }
}

impl Ledger {
    /// An empty ledger in memory.
    #[must_use]
    pub fn new(config: LedgerConfig) -> Self {
        let mut bounds = Bounds::from(&config);
        bounds.max_memory = bounds.max_memory.min(bounds.max_bytes);
        Self { shared: Arc::new(Shared::new(bounds, None, TAIL)) }
    }

    /// The ledger in its file. A file that cannot be used is no error: see the module. Waits up to 10 s for the disk.
    #[must_use]
    pub fn open(config: &LedgerConfig, state: &StatePath) -> Self {
        match config.file(state) {
            Some(path) => {
                let place = path.display().to_string();
                Self::on(Bounds::from(config), place, Box::new(AtPath(path)), TAIL)
            }
            None => {
                tracing::warn!(
                    "the ledger is in memory only: deaths, and what sinks have not taken yet, do not outlive the daemon (ledger.path, state.path)"
                );
                Self::new(config.clone())
            }
        }
    }

    /// The ledger on some medium.
    fn on(bounds: Bounds, place: String, medium: Box<dyn Medium>, tail: u64) -> Self {
        let shared = Arc::new(Shared::new(bounds, Some(place), tail));
        let started = {
            let (writer, clock) = (Arc::clone(&shared), Arc::clone(&shared));
            let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
            spawn("kw-ledger")
                .spawn(move || Writer::new(writer, medium).run())
                .and_then(|_| spawn("kw-ledger-clock").spawn(move || writer::keep_time(&clock)))
        };
        let mut recent = shared.recent();
        if let Err(error) = started {
            tracing::error!(%error, "the ledger's threads cannot start: deaths are kept in memory");
            recent.degrade(error.to_string());
            recent.tried = true;
        }
        let until = Instant::now() + OPEN;
        while !recent.tried && Instant::now() < until {
            recent = shared.wait(&shared.turn, recent, Some(until));
        }
        if !recent.tried {
            let why = "the disk did not answer at the start";
            tracing::error!(why, "the ledger is degraded: deaths are kept in memory");
            recent.ahead = true;
            recent.degrade(why.to_owned());
        }
        drop(recent);
        Self { shared }
    }

    /// Records a death or an alert; the oldest give way to it. A record that is larger than `max_bytes` alone is kept until the next comes.
    ///
    /// # Errors
    /// If it could not be recorded. Then no sink will be told of it.
    pub fn append(&self, item: impl Into<Item>) -> Result<Arc<Entry>, LedgerError> {
        self.add(item.into(), None)
    }

    /// Records it together with a note: the file has both or none.
    ///
    /// # Errors
    /// As [`Self::append`] and [`Self::note`]; neither is recorded then.
    pub fn append_noting(
        &self,
        item: impl Into<Item>,
        key: &str,
        note: impl Into<Bytes>,
    ) -> Result<Arc<Entry>, LedgerError> {
        self.add(item.into(), Some((key, note.into())))
    }

    fn add(&self, item: Item, note: Option<(&str, Bytes)>) -> Result<Arc<Entry>, LedgerError> {
        let json = item.json()?;
        let mut recent = self.shared.recent();
        if let Some((key, note)) = note {
            if !recent.notes.has_room(key, &note) {
                return Err(LedgerError::Note(key.to_owned()));
            }
            recent.notes.put(key, note);
        }
        let waited = recent.waiting().is_some();
        let entry = recent.append(item, json, Instant::now());
        if recent.settled() == entry.seq {
            self.shared.tell(&recent);
        } else if !waited {
            self.shared.waiting.notify_one();
        }
        if self.shared.place.is_some() {
            self.shared.work.notify_one();
        } else {
            recent.expire(self.shared.bounds.oldest(now()));
        }
        drop(recent);
        Ok(entry)
    }

    /// At most `max` entries after the cursor `seq`, oldest first, fewer if they are large. A new reader's cursor is 0, or [`Self::open_cursor`]'s.
    ///
    /// May read the disk. If the file cannot be read for the moment, there is nothing; [`Self::changed`] tells when to ask again.
    #[must_use]
    pub fn read_after(&self, seq: u64, max: usize) -> Batch {
        let to = {
            let recent = self.shared.recent();
            if let Some(batch) = recent.read_after(seq, max) {
                return batch;
            }
            recent.settled().min(recent.first() - 1)
        };
        let from = seq.saturating_add(1);
        let found = match &self.shared.place {
            None => None,
            Some(_) => {
                let found = self.shared.read(|store| store.read(from, to, max));
                if found.is_none() && self.shared.may_come_back(&self.shared.recent()) {
                    return Batch::default();
                }
                found
            }
        };
        let all = (to + 1).saturating_sub(from);
        let stretch =
            found.unwrap_or_else(|| store::Stretch { skipped: all, ..Default::default() });
        self.shared.count_unreadable(&stretch);
        if !stretch.entries.is_empty() {
            return Batch { entries: stretch.entries, skipped: stretch.skipped };
        }
        let rest = self.shared.recent().read_after(to, max).unwrap_or_default();
        Batch { entries: rest.entries, skipped: stretch.skipped }
    }

    /// At most `limit` deaths that `filter` lets through, newest first. May read the disk.
    #[must_use]
    pub fn newest(&self, filter: &Filter, limit: usize) -> Vec<Arc<Entry>> {
        // The values are looked at outside the lock: a search never makes an append wait for more than the copy of the pointers.
        let (entries, first) = {
            let recent = self.shared.recent();
            (recent.visible().cloned().collect::<Vec<_>>(), recent.first())
        };
        let mut found: Vec<_> =
            entries.into_iter().rev().filter(|entry| filter.lets(entry)).take(limit).collect();
        if found.len() < limit && self.shared.place.is_some() {
            let left = limit - found.len();
            let before = filter.before.unwrap_or(u64::MAX).min(first);
            if let Some(older) = self.shared.read(|store| store.newest(filter, before, left)) {
                self.shared.count_unreadable(&older);
                found.extend(older.entries);
            }
        }
        found
    }

    /// [`Self::read_after`] for a task: what is not in memory is read on a thread that may block.
    pub async fn next(self: &Arc<Self>, seq: u64, max: usize) -> Batch {
        if let Some(batch) = self.shared.recent().read_after(seq, max) {
            return batch;
        }
        let ledger = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || ledger.read_after(seq, max));
        read.await.unwrap_or_default()
    }

    /// [`Self::newest`] for a task, on a thread that may block.
    pub async fn find(self: &Arc<Self>, filter: Filter, limit: usize) -> Vec<Arc<Entry>> {
        let ledger = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || ledger.newest(&filter, limit));
        read.await.unwrap_or_default()
    }

    /// Shows what is kept from a time on, oldest first. May read the disk.
    pub fn replay(&self, since: Timestamp, mut show: impl FnMut(&Entry)) {
        let mut seq = self.shared.read(|store| store.before(since, REPLAY)).unwrap_or(0);
        loop {
            let batch = self.read_after(seq, REPLAY);
            let Some(last) = batch.entries.last() else { return };
            seq = last.seq;
            batch.entries.iter().filter(|e| e.item.time() >= since).for_each(|entry| show(entry));
        }
    }

    /// The number of the newest entry that is settled, and a wait for it to rise. Wakes also when it stands: if the file can be read again.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.last.subscribe()
    }

    /// Waits until all that was appended so far is settled: two seconds, or four, if the disk does not answer.
    pub async fn settled(&self) {
        let last = self.shared.recent().last();
        let _ = self.changed().wait_for(|settled| *settled >= last).await;
    }

    /// Has `on_death` called with each death as readers are about to see it, in no order of those that become visible at once. It must neither wait nor panic: the
    /// ledger stands still meanwhile. A death that gave way before it was seen is not among them.
    pub fn on_death(&self, on_death: impl Fn(&Death) + Send + Sync + 'static) {
        self.shared.recent().on_death = Some(OnDeath(Box::new(on_death)));
    }

    /// How many wait for it to rise.
    #[cfg(test)]
    pub(crate) fn watched(&self) -> usize {
        self.shared.last.receiver_count()
    }

    /// Names the numbers, across restarts: where it is the same, a number stands for the same entry.
    #[must_use]
    pub fn series(&self) -> u64 {
        self.shared.recent().series
    }

    /// Entries that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.shared.recent().len()).unwrap_or(usize::MAX)
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that gave way to newer ones, or were too old.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.shared.recent().evicted
    }

    /// How it fares.
    #[must_use]
    pub fn health(&self) -> Health {
        let unreadable = self.shared.unreadable();
        let mut recent = self.shared.recent();
        recent.expire(self.shared.bounds.oldest(now()));
        Health {
            file: self.shared.place.clone(),
            degraded: recent.degraded.clone(),
            write_failures: recent.failures,
            entries: recent.len(),
            bytes: recent.bytes(),
            oldest: recent.oldest(),
            evicted: recent.evicted,
            unsaved: recent.unsaved,
            unreadable,
        }
    }

    /// Writes what waits and closes the file, within `deadline`. Returns how many entries are in no file then. What is appended later is in memory only. May
    /// block, at most until the deadline.
    pub fn close(&self, deadline: Duration) -> u64 {
        let until = Instant::now() + deadline;
        self.shared.end(Stop::Write);
        let mut recent = self.shared.recent();
        while self.shared.place.is_some() && !recent.ended && Instant::now() < until {
            recent = self.shared.wait(&self.shared.turn, recent, Some(until));
        }
        let left = recent.last() - recent.saved();
        if left > 0 && self.shared.place.is_some() {
            tracing::error!(
                left,
                "the ledger could not be written at the end: these deaths are lost"
            );
        }
        left
    }
}
