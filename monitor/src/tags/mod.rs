//! The job tags: what a worker says of itself, or its supervisor of it, before it dies.
//!
//! * A tag belongs to one process: its number and its start. Whoever gets the number later inherits nothing.
//! * A death carries the victim's own tags, else those of its nearest tagged ancestor ([`Tags::of`]).
//! * Tags outlive their process by [`KEEP_GONE`], for its death and those of its children are on their way; then a [`Tags::sweep`] takes
//!   them.
//! * Bounded: [`MAX_PROCESSES`] in all, [`MAX_PER_OWNER`] for each who sets them. When full, those of processes that are gone give way; then
//!   new ones are refused.
//!
//! The lock is a plain mutex, held for moves of memory only.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::join::ProcessId;
use crate::procfs::{Proc, Process};

pub mod set;
#[cfg(test)]
mod tests;

pub use set::{BadTags, TagSet};

/// Processes that have tags, in all.
pub const MAX_PROCESSES: usize = 4096;
/// Processes whose tags one owner has set.
pub const MAX_PER_OWNER: usize = 1024;
/// How long tags outlive their process.
pub const KEEP_GONE: Duration = Duration::from_secs(10);
/// Between two sweeps.
pub const SWEEP: Duration = Duration::from_secs(5);
/// Ancestors of a victim that are asked for tags, its parent first.
const MAX_ANCESTORS: usize = 8;

/// Who sets tags: a user, or a user in a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Bare id of the container.
    pub container: Option<String>,
}

/// Why tags were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The owner has set as many as it may.
    #[error(
        "this user has set the tags of {MAX_PER_OWNER} processes, and may not of more; clear some (DELETE), or let those processes end"
    )]
    Owner,
    /// There are as many as may be.
    #[error("{MAX_PROCESSES} processes of this node have tags, and no more may")]
    All,
}

/// The tags of all processes.
#[derive(Debug, Default)]
pub struct Tags {
    proc: Proc,
    store: Mutex<Store>,
}

#[derive(Debug, Default)]
struct Store {
    entries: HashMap<Process, Entry>,
    owners: HashMap<Owner, usize>,
}

#[derive(Debug)]
struct Entry {
    tags: TagSet,
    owner: Owner,
    /// When it was seen to be gone.
    gone: Option<Instant>,
}

impl Tags {
    /// None yet. Ancestors are looked up in `proc`.
    #[must_use]
    pub fn new(proc: Proc) -> Self {
        Self { proc, store: Mutex::default() }
    }

    /// Sets the tags of a process, in place of those that it has.
    ///
    /// # Errors
    /// If there is no room.
    pub fn set(&self, process: Process, tags: TagSet, owner: Owner) -> Result<(), Full> {
        let mut store = self.store();
        let replaced = store.remove(process);
        let room = store.make_room(&owner);
        // What was there stays if the new is refused.
        let (tags, owner) = match (room, replaced) {
            (Err(full), Some(old)) => {
                store.insert(process, old.tags, old.owner);
                return Err(full);
            }
            (Err(full), None) => return Err(full),
            (Ok(()), _) => (tags, owner),
        };
        store.insert(process, tags, owner);
        Ok(())
    }

    /// Takes the tags of a process away. Whether it had any.
    pub fn clear(&self, process: Process) -> bool {
        self.store().remove(process).is_some()
    }

    /// The tags that were set for a process itself.
    #[must_use]
    pub fn get(&self, process: Process) -> Option<TagSet> {
        self.store().entries.get(&process).map(|entry| entry.tags.clone())
    }

    /// Processes with tags that meet a condition, in no order.
    #[must_use]
    pub fn find(&self, meets: impl Fn(&TagSet) -> bool) -> Vec<Process> {
        let store = self.store();
        store.entries.iter().filter(|(_, entry)| meets(&entry.tags)).map(|(p, _)| *p).collect()
    }

    /// The tags for a death: the victim's own, else those of its nearest ancestor that has some; empty if none has. `parent` is the victim's
    /// parent as the kernel told it. `parent_of` knows the parents of processes that died; those that live are in `/proc`.
    #[must_use]
    pub fn of(
        &self,
        victim: ProcessId,
        parent: ProcessId,
        parent_of: impl Fn(ProcessId) -> Option<ProcessId>,
    ) -> BTreeMap<String, String> {
        // What costs reads of /proc is for who uses tags.
        if self.is_empty() {
            return BTreeMap::new();
        }
        let key = |id: ProcessId| Process::of_ns(id.tgid, id.start_ns);
        if let Some(own) = self.get(key(victim)) {
            return own.to_map();
        }
        let (mut told, mut next) = (Some(parent), Some(key(parent)));
        for _ in 0..MAX_ANCESTORS {
            let Some(ancestor) = next.filter(|ancestor| ancestor.pid != 0) else { break };
            if let Some(tags) = self.get(ancestor) {
                return tags.to_map();
            }
            told = told.and_then(&parent_of);
            next = told.map(key).or_else(|| self.proc.parent(ancestor));
        }
        BTreeMap::new()
    }

    /// The tags of a process that lives: its own, else those of its nearest ancestor that has some.
    #[must_use]
    pub fn of_living(&self, process: Process) -> BTreeMap<String, String> {
        let mut next = Some(process);
        for _ in 0..=MAX_ANCESTORS {
            let Some(process) = next else { break };
            if let Some(tags) = self.get(process) {
                return tags.to_map();
            }
            next = self.proc.parent(process);
        }
        BTreeMap::new()
    }

    /// Looks which processes are gone, and drops the tags of those that went [`KEEP_GONE`] ago. Reads `/proc` for each process that has
    /// tags, so not for a task that others wait for.
    pub fn sweep(&self, now: Instant) {
        let known: Vec<Process> = self.store().entries.keys().copied().collect();
        // Outside the lock: a death must not wait for these reads.
        let gone: Vec<Process> = known.into_iter().filter(|p| !self.proc.runs(*p)).collect();
        let mut store = self.store();
        for process in gone {
            let Some(entry) = store.entries.get_mut(&process) else { continue };
            let since = *entry.gone.get_or_insert(now);
            if now.saturating_duration_since(since) >= KEEP_GONE {
                store.remove(process);
            }
        }
    }

    /// Processes that have tags.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store().entries.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn insert(&mut self, process: Process, tags: TagSet, owner: Owner) {
        *self.owners.entry(owner.clone()).or_default() += 1;
        self.entries.insert(process, Entry { tags, owner, gone: None });
    }

    fn remove(&mut self, process: Process) -> Option<Entry> {
        let entry = self.entries.remove(&process)?;
        if let Some(count) = self.owners.get_mut(&entry.owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&entry.owner);
            }
        }
        Some(entry)
    }

    /// Makes room for one more of this owner.
    fn make_room(&mut self, owner: &Owner) -> Result<(), Full> {
        if self.owners.get(owner).is_some_and(|count| *count >= MAX_PER_OWNER)
            && !self.drop_gone(|entry| entry.owner == *owner)
        {
            return Err(Full::Owner);
        }
        if self.entries.len() >= MAX_PROCESSES && !self.drop_gone(|_| true) {
            return Err(Full::All);
        }
        Ok(())
    }

    /// Drops the one that has been gone for longest; false if none is gone.
    fn drop_gone(&mut self, is_meant: impl Fn(&Entry) -> bool) -> bool {
        let gone = self.entries.iter().filter(|(_, entry)| is_meant(entry));
        let gone = gone.filter_map(|(process, entry)| Some((entry.gone?, *process)));
        match gone.min() {
            Some((_, oldest)) => self.remove(oldest).is_some(),
            None => false,
        }
    }
}
