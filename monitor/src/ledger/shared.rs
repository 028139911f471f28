//! What the ledger, its writer and its clock have in common: the state in memory, the open file, and who waits for what.
//!
//! The lock on the state is held for moves of memory only, and while who listens is told of deaths ([`super::Ledger::on_death`]). The file is locked for
//! reading by whoever reads or writes it, and for writing only to open or close it; whoever asks while that goes on is told that it is away, and does not wait.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Bounds;
use super::recent::Recent;
use super::store::{Store, StoreError, Stretch};

/// Unreadable records that are remembered, so that each is counted once.
const MAX_UNREADABLE: usize = 1024;
/// How long a reader waits for a file that cannot be read, before what is in it counts as skipped.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the ledger is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Not yet.
    No,
    /// With all written that waits.
    Write,
    /// At once.
    Drop,
}

/// The state and its waiters.
pub(super) struct Shared {
    pub(super) bounds: Bounds,
    /// Where the file is, for people; `None` if there is to be none.
    pub(super) place: Option<String>,
    recent: Mutex<Recent>,
    pub(super) store: RwLock<Option<Store>>,
    /// Whether a read met damage.
    pub(super) suspect: AtomicBool,
    unreadable: Mutex<BTreeSet<u64>>,
    stop: Mutex<Stop>,
    /// Something is to be written, or the end has come.
    pub(super) work: Condvar,
    /// Something waits to be settled, or the end has come.
    pub(super) waiting: Condvar,
    /// The writer has opened the file or failed to, or has ended.
    pub(super) turn: Condvar,
    /// The last that readers see.
    pub(super) last: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn new(bounds: Bounds, place: Option<String>, tail: u64) -> Self {
        let recent = Recent::new(bounds, place.is_some(), tail);
        Self {
            bounds,
            place,
            recent: Mutex::new(recent),
            store: RwLock::new(None),
            suspect: AtomicBool::new(false),
            unreadable: Mutex::default(),
            stop: Mutex::new(Stop::No),
            work: Condvar::new(),
            waiting: Condvar::new(),
            turn: Condvar::new(),
            last: watch::Sender::new(0),
        }
    }

    /// The state. A panic elsewhere leaves nothing half-made here: nothing between lock and unlock can panic.
    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a signal, at most until `deadline`.
    pub(super) fn wait<'a>(
        &self,
        signal: &Condvar,
        recent: MutexGuard<'a, Recent>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, Recent> {
        match deadline {
            None => signal.wait(recent).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                signal.wait_timeout(recent, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Tells readers how far they may read. To be called with the state locked, so that the number only ever rises; also when it stands,
    /// if what could not be read can be again.
    pub(super) fn tell(&self, recent: &Recent) {
        self.last.send_replace(recent.settled());
    }

    /// How it is to end.
    pub(super) fn stop(&self) -> Stop {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it.
    pub(super) fn end(&self, how: Stop) {
        // Under the lock that the others wait with, or one that is about to wait would miss it.
        let _recent = self.recent();
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if *stop == Stop::No {
            *stop = how;
        }
        self.work.notify_all();
        self.waiting.notify_all();
    }

    /// Reads from the file. `None` if it cannot be read now.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Store) -> Result<T, StoreError>) -> Option<T> {
        let store = self.store.try_read().ok()?;
        match read(store.as_ref()?) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be read");
                self.suspect.store(true, Ordering::Relaxed);
                self.work.notify_all();
                None
            }
        }
    }

    /// Counts what a read met.
    pub(super) fn count_unreadable(&self, stretch: &Stretch) {
        if stretch.unreadable.is_empty() {
            return;
        }
        let mut known = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        for seq in &stretch.unreadable {
            if known.len() < MAX_UNREADABLE && known.insert(*seq) {
                tracing::error!(seq, "a record of the ledger is damaged, and is skipped");
            }
        }
    }

    /// Records that were there and could not be read.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Whether a reader should wait for a file that cannot be read.
    pub(super) fn may_come_back(&self, recent: &Recent) -> bool {
        recent.away.is_none_or(|since| since.elapsed() < PATIENCE)
    }
}
