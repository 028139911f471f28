//! The deaths that are kept, in order, for the API and for each sink's cursor.
//!
//! * A death has a sequence number, from 1 on without gaps. Whoever reads keeps a cursor: the last number it has dealt with.
//! * The JSON form is made once, here; API and sinks send the same bytes.
//! * Both the number of deaths and the bytes of their JSON are bounded. The oldest goes first, and is counted. A reader that
//!   was overtaken is told how many it missed.
//! * Deaths are in memory only: a restart begins with an empty ledger.
//!
//! The lock is a plain mutex, held for moves of memory only and never across an await.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::alert::Alert;
use crate::config::Count;
use crate::config::values::Size;
use crate::death::Death;

mod filter;
#[cfg(test)]
mod tests;

pub use filter::{Filter, NsPid, Viewer};

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// Deaths.
    pub max_deaths: Count<1, 10_000, 1_000_000>,
    /// Bytes of their JSON. The ledger's memory is about three times that, since each death is held as a value too.
    pub max_bytes: Size<{ 1 << 20 }, { 4 << 20 }, { 16 << 30 }>,
}

/// What is kept.
#[derive(Debug, Clone)]
pub enum Item {
    /// A death.
    Death(Arc<Death>),
    /// What follows from several deaths.
    Alert(Arc<Alert>),
}

/// A place in the ledger.
#[derive(Debug)]
pub struct Entry {
    /// Place in the order of arrival, from 1 on without gaps.
    pub seq: u64,
    /// What stands there.
    pub item: Item,
    /// Its JSON, one line without the newline.
    pub json: Bytes,
}

impl Entry {
    /// The death, if it is one.
    #[must_use]
    pub fn death(&self) -> Option<&Arc<Death>> {
        match &self.item {
            Item::Death(death) => Some(death),
            Item::Alert(_) => None,
        }
    }

    /// The numbers by which its victim is looked for, each once.
    fn pids(&self) -> impl Iterator<Item = u32> + use<> {
        let pids = self.death().map(|death| (death.victim.pid, death.victim.ns_pid));
        let (pid, inside) = pids.unzip();
        [pid, inside.flatten().filter(|inside| Some(*inside) != pid)].into_iter().flatten()
    }
}

impl From<Death> for Item {
    fn from(death: Death) -> Self {
        Self::Death(Arc::new(death))
    }
}

impl Item {
    fn json(&self) -> Result<Bytes, LedgerError> {
        let json = match self {
            Self::Death(death) => serde_json::to_vec(&**death),
            Self::Alert(alert) => serde_json::to_vec(&**alert),
        };
        Ok(Bytes::from(json?))
    }
}

/// What a reader has not seen yet.
#[derive(Debug, Default)]
pub struct Batch {
    /// Deaths, oldest first, without gaps between them.
    pub entries: Vec<Arc<Entry>>,
    /// Deaths between the reader's cursor and the first of `entries` that are gone.
    pub skipped: u64,
}

/// A death that could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It has no JSON form.
    #[error("the death cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
}

/// The deaths that are kept.
#[derive(Debug)]
pub struct Ledger {
    config: LedgerConfig,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Arc<Entry>>,
    /// Numbers of deaths by the victim's process id, on the node and in its own pid namespace.
    by_pid: HashMap<u32, VecDeque<u64>>,
    bytes: u64,
    last: u64,
    evicted: u64,
}

impl Ring {
    fn first(&self) -> u64 {
        self.entries.front().map_or(self.last + 1, |entry| entry.seq)
    }

    fn evict_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            for pid in entry.pids() {
                if let Some(seqs) = self.by_pid.get_mut(&pid) {
                    seqs.pop_front();
                    if seqs.is_empty() {
                        self.by_pid.remove(&pid);
                    }
                }
            }
            self.bytes -= entry.json.len() as u64;
            self.evicted += 1;
        }
    }
}

impl Ring {
    /// The deaths of a process id, on the node or in some pid namespace, oldest first.
    fn of_pid(&self, pid: u32) -> Vec<Arc<Entry>> {
        let first = self.first();
        let index = |seq: &u64| usize::try_from(seq - first).ok();
        let seqs = self.by_pid.get(&pid).into_iter().flatten();
        seqs.filter_map(|seq| self.entries.get(index(seq)?).cloned()).collect()
    }
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(config: LedgerConfig) -> Self {
        Self { config, ring: Mutex::default(), last: watch::Sender::new(0) }
    }

    /// Records a death or an alert; the oldest give way to it. A record that is larger than `max_bytes` alone is kept until the next comes.
    ///
    /// # Errors
    /// If it could not be recorded. Then no sink will be told of it.
    pub fn append(&self, item: impl Into<Item>) -> Result<Arc<Entry>, LedgerError> {
        let item = item.into();
        let json = item.json()?;
        let mut ring = self.ring();
        let size = json.len() as u64;
        while ring.entries.len() >= self.config.max_deaths.get()
            || (ring.bytes + size > self.config.max_bytes.get() && !ring.entries.is_empty())
        {
            ring.evict_oldest();
        }
        ring.last += 1;
        ring.bytes += size;
        let entry = Arc::new(Entry { seq: ring.last, item, json });
        for pid in entry.pids() {
            ring.by_pid.entry(pid).or_default().push_back(entry.seq);
        }
        ring.entries.push_back(Arc::clone(&entry));
        // Under the lock, so that the number only ever rises.
        self.last.send_replace(entry.seq);
        drop(ring);
        Ok(entry)
    }

    /// At most `max` deaths after the cursor `seq`, oldest first. A new reader's cursor is 0.
    #[must_use]
    pub fn read_after(&self, seq: u64, max: usize) -> Batch {
        let ring = self.ring();
        let first = ring.first();
        let from = seq.saturating_add(1).max(first);
        let index = usize::try_from(from - first).unwrap_or(usize::MAX);
        let entries: Vec<_> = ring.entries.iter().skip(index).take(max).cloned().collect();
        Batch { entries, skipped: from - seq.saturating_add(1) }
    }

    /// At most `limit` deaths that `filter` lets through, newest first.
    #[must_use]
    pub fn newest(&self, filter: &Filter, limit: usize) -> Vec<Arc<Entry>> {
        // The values are looked at outside the lock: a search never makes an append wait for more than the copy of the pointers.
        let entries: Vec<_> = match filter.any_pid() {
            Some(pid) => self.ring().of_pid(pid),
            None => self.ring().entries.iter().cloned().collect(),
        };
        entries.into_iter().rev().filter(|entry| filter.lets(entry)).take(limit).collect()
    }

    /// The number of the newest death, and a wait for it to rise.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// How many wait for it to rise.
    #[cfg(test)]
    pub(crate) fn watched(&self) -> usize {
        self.last.receiver_count()
    }

    /// Deaths that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring().entries.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Deaths that gave way to newer ones.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.ring().evicted
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
