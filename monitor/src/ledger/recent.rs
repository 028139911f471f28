//! What is in memory: entries that are not in the file yet, a tail of those that are, and how far all of it has come. Pure: no disk, no
//! thread, no clock.
//!
//! `saved <= last` and `settled <= last` always; `saved <= settled` as well. The entries in memory have consecutive numbers and end with
//! `last`; all that are not saved are among them, unless there was no room for them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::cursors::{Cursors, Notes};
use super::store::{Loaded, Shelf, Work};
use super::{Batch, Bounds, Entry, Item};
use crate::death::Death;

/// Whoever is told of each death as readers are about to see it.
pub(super) struct OnDeath(pub(super) Box<dyn Fn(&Death) + Send + Sync>);

impl fmt::Debug for OnDeath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDeath")
    }
}

/// The state in memory.
#[derive(Debug)]
pub(super) struct Recent {
    bounds: Bounds,
    /// Whether there is to be a file.
    filed: bool,
    /// Bytes of JSON that stay in memory although they are in the file.
    tail: u64,
    entries: VecDeque<Arc<Entry>>,
    bytes: u64,
    unsaved_bytes: u64,
    /// The newest.
    last: u64,
    /// The last that is in the file.
    saved: u64,
    /// The last that readers see.
    settled: u64,
    /// The last of what is being written.
    writing: u64,
    /// Since when the oldest waits that readers do not see.
    waiting: Option<Instant>,
    /// The last of what earlier runs left.
    pub(super) began: u64,
    /// Names the numbers.
    pub(super) series: u64,
    pub(super) shelf: Shelf,
    pub(super) cursors: Cursors,
    pub(super) notes: Notes,
    /// Since when a cursor or note waits to be written.
    pub(super) waiting_beside: Option<Instant>,
    /// Why entries are told that are not in the file.
    pub(super) degraded: Option<String>,
    pub(super) evicted: u64,
    /// Of these, those that never were in the file.
    pub(super) unsaved: u64,
    /// Entries that are being written and are in memory no more.
    in_flight: u64,
    pub(super) failures: u64,
    /// Since when the file cannot be read.
    pub(super) away: Option<Instant>,
    /// Whether the writer has tried to open the file.
    pub(super) tried: bool,
    /// Whether numbers were given before the file was open.
    pub(super) ahead: bool,
    /// Whether the writer has ended.
    pub(super) ended: bool,
    pub(super) on_death: Option<OnDeath>,
}

impl Recent {
    pub(super) fn new(bounds: Bounds, filed: bool, tail: u64) -> Self {
        Self {
            bounds,
            filed,
            tail,
            entries: VecDeque::new(),
            bytes: 0,
            unsaved_bytes: 0,
            last: 0,
            saved: 0,
            settled: 0,
            writing: 0,
            waiting: None,
            began: 0,
            series: new_series(),
            shelf: Shelf::default(),
            cursors: Cursors::default(),
            notes: Notes::default(),
            waiting_beside: None,
            degraded: None,
            evicted: 0,
            unsaved: 0,
            in_flight: 0,
            failures: 0,
            away: None,
            tried: false,
            ahead: false,
            ended: false,
            on_death: None,
        }
    }

    /// The last that readers see.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// The last that is in the file.
    pub(super) fn saved(&self) -> u64 {
        self.saved
    }

    /// The newest.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The first in memory, or the one to come.
    pub(super) fn first(&self) -> u64 {
        self.entries.front().map_or(self.last + 1, |entry| entry.seq)
    }

    /// Entries that are kept, in the file or not.
    pub(super) fn len(&self) -> u64 {
        self.shelf.len + (self.last - self.saved).min(self.entries.len() as u64) + self.in_flight
    }

    /// Bytes of their JSON.
    pub(super) fn bytes(&self) -> u64 {
        self.shelf.bytes + self.unsaved_bytes
    }

    /// The time of the oldest.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let in_memory = || self.entries.front().map(|entry| entry.item.time());
        self.shelf.oldest.or_else(in_memory)
    }

    /// Takes in an entry; the oldest give way to it.
    pub(super) fn append(&mut self, item: Item, json: Bytes, now: Instant) -> Arc<Entry> {
        let size = json.len() as u64;
        self.last += 1;
        let entry = Arc::new(Entry { seq: self.last, item, json });
        self.bytes += size;
        self.unsaved_bytes += size;
        self.entries.push_back(Arc::clone(&entry));
        if !self.filed || self.degraded.is_some() {
            self.settle(self.last);
        } else {
            self.waiting.get_or_insert(now);
        }
        self.trim();
        entry
    }

    /// Lets readers see what waits, if the oldest of it has waited since before `before`. Whether it did.
    pub(super) fn settle_overdue(&mut self, before: Instant, why: &str) -> bool {
        let overdue = self.waiting.is_some_and(|since| since <= before);
        if overdue {
            self.degraded.get_or_insert_with(|| why.to_owned());
            self.settle(self.last);
        }
        overdue
    }

    /// Since when the oldest waits that readers do not see.
    pub(super) fn waiting(&self) -> Option<Instant> {
        self.waiting
    }

    fn settle(&mut self, seq: u64) {
        let before = self.settled;
        self.settled = before.max(seq);
        self.announce(self.visible().rev().take_while(|entry| entry.seq > before));
        if self.settled == self.last {
            self.waiting = None;
        }
    }

    fn announce<'e>(&self, entries: impl Iterator<Item = &'e Arc<Entry>>) {
        if let Some(OnDeath(on_death)) = &self.on_death {
            entries.filter_map(|entry| entry.death()).for_each(|death| on_death(death));
        }
    }

    /// Lets go of what there is no room for in memory.
    fn trim(&mut self) {
        while let Some(front) = self.entries.front() {
            let is_saved = front.seq <= self.saved;
            let unsaved = self.last - self.saved.max(front.seq - 1);
            let many = unsaved > self.bounds.max_deaths;
            let alone = self.entries.len() == 1;
            let over = if is_saved {
                self.bytes > self.tail
            } else {
                many || (self.unsaved_bytes > self.bounds.max_memory && !alone)
            };
            if !over {
                return;
            }
            self.pop();
        }
    }

    /// Lets go of what is too old, where there is no file whose writer does.
    pub(super) fn expire(&mut self, before: Timestamp) {
        if self.filed {
            return;
        }
        while self.entries.front().is_some_and(|entry| entry.item.time() < before) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        let size = entry.json.len() as u64;
        self.bytes -= size;
        if entry.seq > self.saved {
            self.unsaved_bytes -= size;
            if entry.seq > self.writing {
                self.count_unsaved(1);
            } else {
                self.in_flight += 1;
            }
        }
    }

    /// Counts what is gone and is in no file.
    fn count_unsaved(&mut self, entries: u64) {
        self.evicted += entries;
        self.unsaved += if self.filed { entries } else { 0 };
    }

    /// What is to be written.
    pub(super) fn take(&mut self) -> Work {
        self.writing = self.last;
        self.waiting_beside = None;
        let unsaved = self.entries.iter().filter(|entry| entry.seq > self.saved);
        Work {
            entries: unsaved.cloned().collect(),
            cursors: self.cursors.any_unwritten().then(|| self.cursors.take()),
            notes: self.notes.take(),
            last: self.last.max(self.cursors.last()),
        }
    }

    /// Whether entries wait to be written.
    pub(super) fn any_unsaved(&self) -> bool {
        self.entries.back().is_some_and(|entry| entry.seq > self.saved)
    }

    /// What was taken, these entries, is in the file.
    pub(super) fn written(&mut self, taken: &[Arc<Entry>], shelf: Shelf, now: Instant) {
        // Some of it may have left memory in the meantime.
        let (seen, first) = (self.settled, self.first());
        self.announce(taken.iter().filter(|entry| entry.seq > seen && entry.seq < first));
        self.evicted += shelf.evicted;
        self.shelf = shelf;
        self.saved = self.saved.max(self.writing);
        self.in_flight = 0;
        self.degraded = None;
        self.waiting = Some(now).filter(|_| self.settled.max(self.saved) < self.last);
        self.settle(self.saved);
        self.recount();
        self.trim();
    }

    /// What was taken is not in the file, so far as is known.
    pub(super) fn not_written(&mut self, why: String) {
        self.failures += 1;
        self.cursors.rewrite();
        self.notes.rewrite();
        self.writing = self.saved;
        let gone = std::mem::take(&mut self.in_flight);
        self.count_unsaved(gone);
        self.degrade(why);
    }

    /// Tells without the file from now on.
    pub(super) fn degrade(&mut self, why: String) {
        self.degraded = Some(why);
        self.settle(self.last);
    }

    /// The file is there as the run begins: its numbers go on.
    pub(super) fn begin(&mut self, loaded: Loaded) {
        let last = loaded.last;
        (self.last, self.saved, self.settled, self.began) = (last, last, last, last);
        self.writing = last;
        self.series = loaded.series;
        self.adopt(loaded);
    }

    /// The file is there again, or at last.
    pub(super) fn reopened(&mut self, loaded: Loaded, now: Instant) {
        // Whatever the file lacks and memory has is written once more. Each transaction has all that was given until then.
        let in_file = loaded.last.min(self.last);
        self.saved = if in_file < self.saved { in_file.max(self.first() - 1) } else { in_file };
        self.writing = self.saved;
        self.settle(self.saved);
        self.adopt(loaded);
        self.cursors.rewrite();
        self.notes.rewrite();
        // Even if nothing else is to be written: only a write shows that all is well.
        self.waiting_beside = Some(now);
        self.recount();
    }

    fn adopt(&mut self, loaded: Loaded) {
        self.shelf = loaded.shelf;
        self.away = None;
        self.cursors.load(loaded.cursors);
        self.notes.load(loaded.notes);
    }

    fn recount(&mut self) {
        let unsaved = self.entries.iter().filter(|entry| entry.seq > self.saved);
        self.unsaved_bytes = unsaved.map(|entry| entry.json.len() as u64).sum();
    }

    /// At most `max` entries after `seq` that readers may see, if memory has all from there on.
    pub(super) fn read_after(&self, seq: u64, max: usize) -> Option<Batch> {
        let from = seq.saturating_add(1);
        if from > self.settled {
            return Some(Batch::default());
        }
        let index = usize::try_from(from.checked_sub(self.first())?).ok()?;
        Some(Batch { entries: self.visible().skip(index).take(max).cloned().collect(), skipped: 0 })
    }

    /// The entries that readers may see, oldest first.
    pub(super) fn visible(&self) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        let settled = usize::try_from((self.settled + 1).saturating_sub(self.first()));
        self.entries.iter().take(settled.unwrap_or(usize::MAX))
    }

    /// Drops the cursors of readers that are no more.
    pub(super) fn expire_cursors(&mut self, max_age: SignedDuration, now: Timestamp) {
        self.cursors.expire(max_age, now);
    }
}

/// A name for numbers that begin anew.
pub(super) fn new_series() -> u64 {
    Uuid::now_v7().as_u64_pair().1
}
