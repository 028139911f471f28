//! The ledger's file, read while no daemon runs. Nothing is written to it, also where the last daemon was killed and left it to be repaired: what the repair
//! writes stays in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags, flock};

use super::overlay::Overlay;
use super::store::{Store, StoreError, guarded};
use super::{Batch, Entry, Filter, Ledger, medium};

/// Why the file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("{}: no such file; ledger.path says where killwatch keeps its deaths", .0.display())]
    Missing(PathBuf),
    /// A daemon has it open.
    #[error("{}: a running killwatch has it open: ask that one", .0.display())]
    Busy(PathBuf),
    /// It, or a part of it, cannot be read.
    #[error("{}: cannot be read: {why}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// It is damaged, or something else.
    #[error("{}: is no ledger that this killwatch can read: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// An open file.
pub struct Offline {
    path: PathBuf,
    store: Store,
    len: u64,
    last: u64,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// Newest first.
    pub entries: Vec<Arc<Entry>>,
    /// Damaged records that were met.
    pub unreadable: u64,
}

impl Ledger {
    /// Opens the file of a ledger that no daemon has open, to read it.
    ///
    /// # Errors
    /// If there is none, a daemon has it, or it cannot be read.
    pub fn read_file(path: &Path) -> Result<Offline, ReadError> {
        let disk = |why: io::Error| match why.kind() {
            io::ErrorKind::NotFound => ReadError::Missing(path.to_owned()),
            _ => ReadError::Disk { path: path.to_owned(), why: why.to_string() },
        };
        let of = |error| ReadError::of(path, error);
        // A pipe would wait for its other end.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(path).map_err(disk)?;
        let found = file.metadata().map_err(disk)?;
        if !found.is_file() || found.len() == 0 {
            return Err(of(StoreError::Unusable("it is empty, or no file".to_owned())));
        }
        // The daemon's is exclusive. It is given back with the file.
        flock(&file, FlockOperation::NonBlockingLockShared).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => ReadError::Busy(path.to_owned()),
            error => disk(error.into()),
        })?;
        let db = guarded(|| medium::open(Overlay::new(file, found.len()), false)).map_err(of)?;
        let store = Store::read_only(db).map_err(of)?;
        let loaded = store.load().map_err(of)?;
        Ok(Offline { path: path.to_owned(), store, len: loaded.shelf.len, last: loaded.shelf.last })
    }
}

impl ReadError {
    fn of(path: &Path, error: StoreError) -> Self {
        let path = path.to_owned();
        match error {
            StoreError::Busy => Self::Busy(path),
            StoreError::Disk(why) => Self::Disk { path, why },
            StoreError::Unusable(why) => Self::Unusable { path, why },
        }
    }
}

impl Offline {
    /// Entries in the file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// At most `limit` deaths that `filter` lets through, newest first.
    ///
    /// # Errors
    /// If the file cannot be read on.
    pub fn newest(&self, filter: &Filter, limit: usize) -> Result<Found, ReadError> {
        let found = self.store.newest(filter, u64::MAX, limit);
        let found = found.map_err(|error| ReadError::of(&self.path, error))?;
        Ok(Found { entries: found.entries, unreadable: found.unreadable.len() as u64 })
    }

    /// At most `max` entries after the cursor `seq`, oldest first, as [`Ledger::read_after`].
    ///
    /// # Errors
    /// If the file cannot be read on.
    pub fn read_after(&self, seq: u64, max: usize) -> Result<Batch, ReadError> {
        if seq >= self.last {
            return Ok(Batch::default());
        }
        let found = self.store.read(seq.saturating_add(1), self.last, max);
        let found = found.map_err(|error| ReadError::of(&self.path, error))?;
        Ok(Batch { entries: found.entries, skipped: found.skipped })
    }
}
