//! What is known of each container, and who is being asked for it. No I/O and no clock.
//!
//! * An id that is not known is asked for, once, of each source that may know it and answers at the moment. Until they have answered it is
//!   [`Lookup::Pending`]; a source that is found to be slow or down is waited for no longer.
//! * A container that is gone keeps its names for [`Bounds::keep_gone_ns`], since its death may still be on its way.
//! * Memory is bounded, by entries and by bytes. What has been gone for longest goes first; then newcomers are refused, so that a flood does not
//!   push out what was there before. Both are counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A source, by its place in the registry: at most 8.
pub(super) type SourceBit = u8;

/// What a book may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Entries.
    pub(super) entries: usize,
    /// Bytes of what is known, roughly.
    pub(super) bytes: usize,
    /// How long what is gone is kept, in ns.
    pub(super) keep_gone_ns: u64,
    /// After how long an id that nobody knew may be asked for again, in ns.
    pub(super) ask_again_ns: u64,
}

/// What a book knows of an id.
#[derive(Debug)]
pub enum Lookup<T> {
    /// It is known.
    Known(Arc<T>),
    /// A source that answers at the moment has been asked and has not answered yet.
    Pending,
    /// Nobody who could be asked knows it.
    Unknown,
}

/// Things that know about how much memory they hold.
pub(super) trait Weigh {
    /// Bytes, roughly.
    fn bytes(&self) -> usize;
}

#[derive(Debug)]
struct Entry<T> {
    known: Option<Arc<T>>,
    /// The sources that have been asked and have not answered.
    asked: SourceBit,
    /// When it was last asked for.
    asked_ns: u64,
    /// Key in `Book::gone`.
    gone: Option<(u64, u64)>,
    /// Whether it was told to be gone, so that what is learnt of it late does not make it live.
    left: bool,
    bytes: usize,
}

/// Id → what is known.
#[derive(Debug)]
pub(super) struct Book<T> {
    bounds: Bounds,
    entries: HashMap<Box<str>, Entry<T>>,
    /// What is gone, the oldest first: since when, and a turn to tell equal times apart.
    gone: BTreeMap<(u64, u64), Box<str>>,
    turns: u64,
    bytes: usize,
    refused: u64,
}

impl<T: Weigh> Book<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: HashMap::new(),
            gone: BTreeMap::new(),
            turns: 0,
            bytes: 0,
            refused: 0,
        }
    }

    pub(super) fn lookup(&self, id: &str) -> Lookup<T> {
        match self.entries.get(id) {
            Some(Entry { known: Some(known), .. }) => Lookup::Known(Arc::clone(known)),
            Some(entry) if entry.asked != 0 => Lookup::Pending,
            _ => Lookup::Unknown,
        }
    }

    /// Whether an id is worth asking for: it is neither known nor being asked for, and was not asked for a moment ago.
    pub(super) fn wants(&self, id: &str, now_ns: u64) -> bool {
        self.entries.get(id).is_none_or(|entry| {
            entry.known.is_none()
                && entry.asked == 0
                && now_ns.saturating_sub(entry.asked_ns) >= self.bounds.ask_again_ns
        })
    }

    /// These sources have been asked for an id.
    pub(super) fn asked(&mut self, id: &str, sources: SourceBit, now_ns: u64) {
        if let Some(entry) = self.entry(id) {
            entry.asked |= sources;
            entry.asked_ns = now_ns;
        }
        // An entry with nothing in it goes in its time too.
        if self.entries.get(id).is_some_and(|entry| entry.known.is_none()) {
            self.let_age(id, now_ns);
        }
    }

    /// A source told of a container.
    pub(super) fn put(&mut self, id: &str, source: SourceBit, what: T) {
        let bytes = what.bytes();
        let old = self.entries.get(id).map_or(0, |entry| entry.bytes);
        if !self.room_for(id, bytes.saturating_sub(old)) {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.asked &= !source;
            }
            self.refused += 1;
            return;
        }
        let Some(entry) = self.entry(id) else { return };
        entry.asked &= !source;
        entry.known = Some(Arc::new(what));
        entry.bytes = bytes;
        let gone = if entry.left { None } else { entry.gone.take() };
        if let Some(turn) = gone {
            self.gone.remove(&turn);
        }
        self.bytes = self.bytes - old + bytes;
    }

    /// A source does not know an id, or could not say.
    pub(super) fn nothing(&mut self, id: &str, source: SourceBit) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.asked &= !source;
        }
    }

    /// A source is not waited for any longer, whatever it was asked.
    pub(super) fn give_up(&mut self, source: SourceBit) {
        for entry in self.entries.values_mut() {
            entry.asked &= !source;
        }
    }

    /// The sources that have been asked for an id and have not answered.
    pub(super) fn owing(&self, id: &str) -> SourceBit {
        self.entries.get(id).map_or(0, |entry| entry.asked)
    }

    /// A source has an id no more. It is kept for a while, and comes back to life if a source tells of it again: a runtime that has just been started may
    /// not have found all its containers yet.
    pub(super) fn unlisted(&mut self, id: &str, now_ns: u64) {
        self.let_age(id, now_ns);
    }

    /// A container is gone; it is kept for a while.
    pub(super) fn gone(&mut self, id: &str, now_ns: u64) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.left = true;
        }
        self.let_age(id, now_ns);
    }

    fn let_age(&mut self, id: &str, now_ns: u64) {
        let turn = (now_ns, self.turns);
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.gone.is_none()) else {
            return;
        };
        entry.gone = Some(turn);
        self.turns += 1;
        self.gone.insert(turn, id.into());
    }

    /// Forgets what has been gone for long enough.
    pub(super) fn forget_gone(&mut self, now_ns: u64) {
        while let Some((since, turn)) = self.gone.first_key_value().map(|(turn, _)| *turn) {
            if now_ns.saturating_sub(since) < self.bounds.keep_gone_ns {
                break;
            }
            self.drop_gone((since, turn));
        }
    }

    /// What is known and not gone.
    pub(super) fn live(&self) -> impl Iterator<Item = (&str, &T)> {
        let live = self.entries.iter().filter(|(_, entry)| entry.gone.is_none());
        live.filter_map(|(id, entry)| Some((&**id, &**entry.known.as_ref()?)))
    }

    /// Entries held, what is gone included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often there was no room.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// The entry of an id, new if there is room.
    fn entry(&mut self, id: &str) -> Option<&mut Entry<T>> {
        if !self.entries.contains_key(id) {
            if !self.room_for(id, 0) {
                self.refused += 1;
                return None;
            }
            let entry =
                Entry { known: None, asked: 0, asked_ns: 0, gone: None, left: false, bytes: 0 };
            self.entries.insert(id.into(), entry);
        }
        self.entries.get_mut(id)
    }

    /// Makes room for an entry and for more bytes; false if that cannot be had.
    fn room_for(&mut self, id: &str, bytes: usize) -> bool {
        let another = usize::from(!self.entries.contains_key(id));
        while self.entries.len() + another > self.bounds.entries
            || self.bytes + bytes > self.bounds.bytes
        {
            let other = self.gone.iter().find(|(_, gone)| &***gone != id).map(|(turn, _)| *turn);
            let Some(turn) = other else { return false };
            self.drop_gone(turn);
        }
        true
    }

    fn drop_gone(&mut self, turn: (u64, u64)) {
        let entry = self.gone.remove(&turn).and_then(|id| self.entries.remove(&id));
        self.bytes -= entry.map_or(0, |entry| entry.bytes);
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
