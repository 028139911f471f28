//! The thread that writes, and the one that sees to it that nobody waits long for a disk that does not answer.
//!
//! The writer takes all that waits and commits it as one transaction; what comes meanwhile waits for the next. If the disk fails, the file is opened anew
//! at once, so that it can be read, and written again after a pause. If the file is damaged, it is set aside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::cursors::Place;
use super::medium::Medium;
use super::recent::new_series;
use super::shared::{Shared, Stop};
use super::store::{Loaded, Store, StoreError, Work};

/// An entry is shown to readers after this time, wherever it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Cursors and notes wait so long for company.
const BESIDE: Duration = Duration::from_secs(1);
/// How often it is looked whether something has become too old.
const AGE: Duration = Duration::from_secs(60);
/// Pauses between attempts.
const FIRST: Duration = Duration::from_millis(100);
const SLOWEST: Duration = Duration::from_secs(30);
/// So much damage that only showed in use, within so long, is taken for a file that is beyond help.
const STRIKES: usize = 3;
const STRIKES_WITHIN: Duration = Duration::from_secs(600);

/// The writer.
pub(super) struct Writer {
    shared: Arc<Shared>,
    medium: Box<dyn Medium>,
    /// Whether the numbers of this run have begun.
    begun: bool,
    /// What is added to a number for its key in the file.
    shift: u64,
    /// When damage was met lately.
    strikes: VecDeque<Instant>,
    pause: Duration,
    next_age: Instant,
}

/// What to do next.
enum Turn {
    Write(Work),
    Check,
    End(Work),
    Drop,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, medium: Box<dyn Medium>) -> Self {
        let next_age = Instant::now() + AGE;
        Self {
            shared,
            medium,
            begun: false,
            shift: 0,
            strikes: VecDeque::new(),
            pause: FIRST,
            next_age,
        }
    }

    /// Runs until the end.
    pub(super) fn run(mut self) {
        self.work();
        self.close();
        let mut recent = self.shared.recent();
        recent.ended = true;
        self.shared.turn.notify_all();
        self.shared.waiting.notify_all();
    }

    fn work(&mut self) {
        loop {
            if !self.is_open() && !self.open() {
                match self.shared.stop() {
                    Stop::No => self.rest(),
                    Stop::Write | Stop::Drop => return,
                }
                continue;
            }
            match self.turn() {
                Turn::Write(work) => {
                    if !self.commit(&work) && self.shared.stop() != Stop::Drop {
                        self.open();
                        self.rest();
                    }
                }
                Turn::Check => {
                    self.strike();
                    self.close();
                }
                Turn::End(work) => {
                    // Once more with the file opened anew: the disk may have failed while nothing was written.
                    if !self.commit(&work) && self.open() {
                        let again = self.shared.recent().take();
                        self.commit(&again);
                    }
                    return;
                }
                Turn::Drop => return,
            }
        }
    }

    /// Notes that the file, as it was opened, turned out to be damaged.
    fn strike(&mut self) {
        self.strikes.retain(|then| then.elapsed() < STRIKES_WITHIN);
        self.strikes.push_back(Instant::now());
    }

    fn is_open(&self) -> bool {
        self.shared.store.read().is_ok_and(|store| store.is_some())
    }

    fn close(&mut self) {
        let store = match self.shared.store.write() {
            Ok(mut store) => store.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        self.shared.recent().away.get_or_insert_with(Instant::now);
        drop(store);
    }

    /// Opens the file, or tells why not.
    fn open(&mut self) -> bool {
        self.close();
        match self.opened() {
            Ok((store, loaded)) => {
                self.adopt(store, loaded);
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    fn opened(&mut self) -> Result<(Store, Loaded), StoreError> {
        let why = match self.try_open() {
            // Damage that shows only when it is used.
            Ok(_) if self.strikes.len() >= STRIKES => "it is damaged".to_owned(),
            Err(StoreError::Unusable(why)) => why,
            other => return other,
        };
        let done = self.medium.set_aside()?;
        self.strikes.clear();
        let file = self.shared.place.as_deref();
        tracing::error!(
            file,
            why,
            done,
            "the ledger cannot be used and was set aside: it begins anew with what is in memory"
        );
        self.try_open()
    }

    fn try_open(&mut self) -> Result<(Store, Loaded), StoreError> {
        let series = match self.shift {
            0 => self.shared.recent().series,
            _ => new_series(),
        };
        let mut store = Store::new(self.medium.open()?, series)?;
        store.begin_after(self.shift);
        let loaded = store.load()?;
        let last = self.shared.recent().last();
        if self.begun && loaded.last > last {
            return Err(StoreError::Unusable("its numbers are ahead".to_owned()));
        }
        Ok((store, loaded))
    }

    /// The file is open: goes on with its numbers, or, if this run has numbers already, has them follow the file's.
    fn adopt(&mut self, mut store: Store, mut loaded: Loaded) {
        let shared = Arc::clone(&self.shared);
        let mut recent = shared.recent();
        if !self.begun && !recent.ahead {
            recent.begin(loaded);
        } else {
            if !self.begun {
                self.shift = loaded.last;
                store.begin_after(self.shift);
                let behind = |place: &Place| self.shift.saturating_sub(place.seq);
                let lost = loaded.cursors.iter().map(|(_, place)| behind(place)).max().unwrap_or(0);
                if lost > 0 {
                    tracing::error!(
                        lost,
                        "the ledger was opened late: sinks are not told of what they had not taken before the start"
                    );
                }
                (loaded.shelf.last, loaded.last) = (0, 0);
                loaded.cursors.iter_mut().for_each(|(_, place)| place.seq = 0);
            }
            recent.reopened(loaded, Instant::now());
        }
        self.begun = true;
        match shared.store.write() {
            Ok(mut slot) => *slot = Some(store),
            Err(poisoned) => *poisoned.into_inner() = Some(store),
        }
        recent.tried = true;
        shared.tell(&recent);
        shared.turn.notify_all();
    }

    /// Waits for something to do.
    fn turn(&mut self) -> Turn {
        let mut recent = self.shared.recent();
        loop {
            let now = Instant::now();
            match self.shared.stop() {
                Stop::No => {}
                Stop::Write => return Turn::End(recent.take()),
                Stop::Drop => return Turn::Drop,
            }
            if self.shared.suspect.swap(false, Ordering::Relaxed) {
                return Turn::Check;
            }
            if now >= self.next_age {
                self.next_age = now + AGE;
                let (bounds, time) = (self.shared.bounds, super::now());
                let max_age =
                    SignedDuration::try_from(bounds.max_age).unwrap_or(SignedDuration::MAX);
                recent.expire_cursors(max_age, time);
                if recent.shelf.oldest.is_some_and(|oldest| oldest < bounds.oldest(time)) {
                    return Turn::Write(recent.take());
                }
            }
            let beside = recent.waiting_beside.map(|since| since + BESIDE);
            if recent.any_unsaved() || recent.shelf.more || beside.is_some_and(|due| due <= now) {
                return Turn::Write(recent.take());
            }
            let until = beside.map_or(self.next_age, |due| due.min(self.next_age));
            recent = self.shared.wait(&self.shared.work, recent, Some(until));
        }
    }

    fn commit(&mut self, work: &Work) -> bool {
        let committed = match self.shared.store.read().as_deref() {
            Ok(Some(store)) => store.commit(work, &self.shared.bounds, super::now()),
            _ => Err(StoreError::Disk("it is closed".to_owned())),
        };
        match committed {
            Ok(shelf) => {
                self.pause = FIRST;
                let mut recent = self.shared.recent();
                if let Some(why) = &recent.degraded {
                    tracing::info!(why, "the ledger is written again");
                }
                recent.written(&work.entries, shelf, Instant::now());
                self.shared.tell(&recent);
                true
            }
            Err(error) => {
                if matches!(error, StoreError::Unusable(_)) {
                    self.strike();
                }
                self.failed(&error);
                false
            }
        }
    }

    fn failed(&self, error: &StoreError) {
        let why = error.to_string();
        let mut recent = self.shared.recent();
        if recent.degraded.as_ref() != Some(&why) {
            let file = self.shared.place.as_deref();
            tracing::error!(
                file,
                why,
                "the ledger cannot be written: deaths are told, and kept in memory, while there is room (ledger.max_memory)"
            );
        }
        recent.not_written(why);
        recent.tried = true;
        recent.ahead |= !self.begun;
        self.shared.tell(&recent);
        self.shared.turn.notify_all();
    }

    /// Lets some time pass after a failure.
    fn rest(&mut self) {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(SLOWEST);
        let mut recent = self.shared.recent();
        while self.shared.stop() == Stop::No && Instant::now() < until {
            recent = self.shared.wait(&self.shared.work, recent, Some(until));
        }
        // Whoever waits for what is in the file sees whether it still has to.
        self.shared.tell(&recent);
    }
}

/// Shows entries to readers that have waited too long for the disk.
pub(super) fn keep_time(shared: &Shared) {
    let mut recent = shared.recent();
    while !recent.ended {
        let now = Instant::now();
        let why = "the disk is slow: a write takes longer than 2 s";
        if now.checked_sub(PATIENCE).is_some_and(|before| recent.settle_overdue(before, why)) {
            tracing::error!(
                file = shared.place.as_deref(),
                "the disk under the ledger is slow: deaths are told before they are on it"
            );
            shared.tell(&recent);
        }
        let due = recent.waiting().map(|since| since + PATIENCE);
        recent = shared.wait(&shared.waiting, recent, due);
    }
}
