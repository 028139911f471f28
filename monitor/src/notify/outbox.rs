//! What one sink still has to be told, and how far it is with the ledger. Pure: no I/O, no clock.
//!
//! * Every entry that the filter lets through is told by itself or counted in one summary.
//! * The cursor never passes an entry that is not told yet, be it waiting or held for a summary. Whoever begins anew behind it loses nothing.
//! * What lies before the cursor is recalled at the start, so that the windows that were open go on as they were.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::deliver::Message;
use super::filter::Filter;
use super::group::{Closed, Groups};
use crate::ledger::{Entry, Item};

/// What a sink still has to be told.
#[derive(Debug)]
pub(super) struct Outbox {
    filter: Filter,
    groups: Option<Groups>,
    waiting: VecDeque<Waiting>,
    /// Number of the last entry that was looked at.
    read: u64,
    /// Time of the newest death that was looked at.
    newest: Option<Timestamp>,
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    /// The first entry that it tells of.
    from: u64,
}

impl Outbox {
    /// Nothing to tell; everything up to `cursor` was told. `group` is not zero.
    pub(super) fn new(filter: Filter, group: Option<Duration>, cursor: u64) -> Self {
        let groups = group.map(Groups::new);
        Self { filter, groups, waiting: VecDeque::new(), read: cursor, newest: None }
    }

    /// Takes in the next entry of the ledger.
    pub(super) fn take(&mut self, entry: &Arc<Entry>, now: Instant) {
        self.read = entry.seq;
        if let Item::Death(death) = &entry.item {
            self.newest = self.newest.max(Some(death.time));
        }
        if !self.filter.lets(entry) {
            return;
        }
        if let (Item::Death(death), Some(groups)) = (&entry.item, &mut self.groups)
            && groups.take(entry.seq, death, now)
        {
            return;
        }
        self.waiting
            .push_back(Waiting { message: Message::Entry(Arc::clone(entry)), from: entry.seq });
    }

    /// Takes in an entry before the cursor.
    pub(super) fn recall(&mut self, entry: &Entry, now: Instant) {
        if let (Item::Death(death), Some(groups)) = (&entry.item, &mut self.groups)
            && self.filter.lets(entry)
        {
            groups.recall(death, now);
        }
    }

    /// Passes over entries that are gone.
    pub(super) fn skip(&mut self, entries: u64) {
        self.read = self.read.saturating_add(entries);
    }

    /// Ends windows. `wall`: what time it is, if all that there is was taken in; else the newest death says how late it was then.
    pub(super) fn close(&mut self, wall: Option<Timestamp>, now: Instant) {
        let Some(groups) = &mut self.groups else { return };
        let Some(wall) = wall.or(self.newest) else { return };
        for Closed { summary, from } in groups.close(wall, now) {
            self.waiting.push_back(Waiting { message: Message::Summary(Arc::new(summary)), from });
        }
    }

    /// How long until a window ends.
    pub(super) fn next_close(&self, wall: Timestamp) -> Option<Duration> {
        self.groups.as_ref()?.next(wall)
    }

    /// What is to be told next, oldest first.
    pub(super) fn head(&self, max: usize) -> Vec<Message> {
        self.waiting.iter().take(max).map(|waiting| waiting.message.clone()).collect()
    }

    /// The first `messages` were told, or will never be.
    pub(super) fn done(&mut self, messages: usize) {
        self.waiting.drain(..messages.min(self.waiting.len()));
    }

    /// Messages that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Deaths that are held for a summary.
    pub(super) fn held(&self) -> u64 {
        self.groups.as_ref().map_or(0, Groups::held)
    }

    /// Number of the last entry that was taken in.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// The cursor: this entry and all before it are dealt with.
    pub(super) fn cursor(&self) -> u64 {
        let waiting = self.waiting.iter().map(|waiting| waiting.from).min();
        let held = self.groups.as_ref().and_then(Groups::first_held);
        waiting.into_iter().chain(held).min().map_or(self.read, |first| first.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests;
