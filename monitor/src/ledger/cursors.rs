//! How far each reader has come, and what others want kept beside the deaths. In memory, with what is still to be written.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::recent::Recent;
use super::{Ledger, LedgerError, now};

/// Cursors that are kept; with one more, the one that was used longest ago goes.
pub(super) const MAX_CURSORS: usize = 64;
/// Notes that are kept, and bytes of each.
pub(super) const MAX_NOTES: usize = 32;
pub(super) const MAX_NOTE: usize = 64 << 10;

impl Ledger {
    /// Keeps something for the next run, in place of what the key had before. On the disk within a second, or with the next entry.
    ///
    /// # Errors
    /// If it is longer than 64 KiB, or there are 32 already.
    pub fn note(&self, key: &str, note: impl Into<Bytes>) -> Result<(), LedgerError> {
        let note = note.into();
        let mut recent = self.shared.recent();
        if !recent.notes.has_room(key, &note) {
            return Err(LedgerError::Note(key.to_owned()));
        }
        recent.notes.put(key, note);
        recent.waiting_beside.get_or_insert_with(Instant::now);
        self.shared.work.notify_one();
        Ok(())
    }

    /// What was noted last.
    #[must_use]
    pub fn noted(&self, key: &str) -> Option<Bytes> {
        self.shared.recent().notes.get(key)
    }

    /// How far the reader of this name has come, if it was ever there.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Option<u64> {
        self.shared.recent().cursors.get(name)
    }

    /// The cursor of the reader of this name. One that was never there begins after what earlier runs left: a new receiver is not flooded with
    /// what happened before it was set up.
    pub fn open_cursor(&self, name: &str) -> u64 {
        let mut recent = self.shared.recent();
        let began = recent.began;
        let seq = recent.cursors.open(name, began, now());
        self.write_beside(&mut recent);
        seq
    }

    /// The reader of this name has dealt with all up to `seq`; never moves back. On the disk within a second, or with the next entry.
    pub fn acknowledge(&self, name: &str, seq: u64) {
        let mut recent = self.shared.recent();
        let seq = seq.min(recent.last());
        recent.cursors.advance(name, seq, now());
        self.write_beside(&mut recent);
    }

    fn write_beside(&self, recent: &mut Recent) {
        recent.waiting_beside.get_or_insert_with(Instant::now);
        self.shared.work.notify_one();
    }
}

/// A reader's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The last number that it has dealt with.
    pub(super) seq: u64,
    /// When it was last heard of.
    pub(super) used: Timestamp,
}

/// The cursors.
#[derive(Debug, Default)]
pub(super) struct Cursors(BTreeMap<String, Kept>);

#[derive(Debug)]
struct Kept {
    place: Place,
    /// Whether its reader was heard of in this run.
    live: bool,
    unwritten: bool,
}

impl Cursors {
    /// Takes over what the file has, except where a reader went on already.
    pub(super) fn load(&mut self, places: Vec<(String, Place)>) {
        for (name, place) in places.into_iter().take(MAX_CURSORS) {
            self.0.entry(name).or_insert(Kept { place, live: false, unwritten: false });
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|kept| kept.place.seq)
    }

    /// The cursor of a reader that is there; a new one begins after `begin`.
    pub(super) fn open(&mut self, name: &str, begin: u64, now: Timestamp) -> u64 {
        let seq = self.get(name).unwrap_or(begin);
        self.put(name, Place { seq, used: now });
        seq
    }

    /// Moves a cursor, never back.
    pub(super) fn advance(&mut self, name: &str, seq: u64, now: Timestamp) {
        let seq = self.get(name).map_or(seq, |before| before.max(seq));
        self.put(name, Place { seq, used: now });
    }

    fn put(&mut self, name: &str, place: Place) {
        self.0.insert(name.to_owned(), Kept { place, live: true, unwritten: true });
        if self.0.len() > MAX_CURSORS {
            let others = self.0.iter().filter(|(other, _)| *other != name);
            let oldest = others.min_by_key(|(_, kept)| (kept.live, kept.place.used));
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.0.remove(&oldest);
            }
        }
    }

    /// Drops those that no reader of this run has, and none had for `max_age`.
    pub(super) fn expire(&mut self, max_age: SignedDuration, now: Timestamp) {
        self.0.retain(|_, kept| kept.live || now.duration_since(kept.place.used) <= max_age);
    }

    pub(super) fn any_unwritten(&self) -> bool {
        self.0.values().any(|kept| kept.unwritten)
    }

    /// All of them; they count as written then.
    pub(super) fn take(&mut self) -> Vec<(String, Place)> {
        let kept = self.0.iter_mut();
        kept.map(|(name, kept)| {
            kept.unwritten = false;
            (name.clone(), kept.place)
        })
        .collect()
    }

    /// Has all of them written once more.
    pub(super) fn rewrite(&mut self) {
        self.0.values_mut().for_each(|kept| kept.unwritten = true);
    }

    /// The furthest.
    pub(super) fn last(&self) -> u64 {
        self.0.values().map(|kept| kept.place.seq).max().unwrap_or(0)
    }
}

/// The notes.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<String, (Bytes, bool)>);

impl Notes {
    /// Takes over what the file has, except what was noted anew.
    pub(super) fn load(&mut self, notes: Vec<(String, Bytes)>) {
        for (key, bytes) in notes.into_iter().take(MAX_NOTES) {
            self.0.entry(key).or_insert((bytes, false));
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Bytes> {
        self.0.get(key).map(|(bytes, _)| bytes.clone())
    }

    /// Whether there is room for it.
    pub(super) fn has_room(&self, key: &str, bytes: &Bytes) -> bool {
        let room = self.0.len() < MAX_NOTES || self.0.contains_key(key);
        room && bytes.len() <= MAX_NOTE && key.len() <= MAX_NOTE
    }

    pub(super) fn put(&mut self, key: &str, bytes: Bytes) {
        self.0.insert(key.to_owned(), (bytes, true));
    }

    /// Those that are not written; they count as written then.
    pub(super) fn take(&mut self) -> Vec<(String, Bytes)> {
        let unwritten = self.0.iter_mut().filter(|(_, (_, unwritten))| *unwritten);
        unwritten
            .map(|(key, (bytes, unwritten))| {
                *unwritten = false;
                (key.clone(), bytes.clone())
            })
            .collect()
    }

    /// Has all of them written once more.
    pub(super) fn rewrite(&mut self) {
        self.0.values_mut().for_each(|(_, unwritten)| *unwritten = true);
    }
}
