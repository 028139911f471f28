//! What is kept, and how it is handed out.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::cursors::{MAX_NOTE, MAX_NOTES};
use crate::alert::Alert;
use crate::death::Death;

/// Bytes of JSON that most items take less than.
const ROOM: usize = 8 << 10;

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
    /// Place in the order of arrival, from 1 on without gaps. 0 for what an earlier run left, if the file could be opened only after this run's first.
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
}

impl From<Death> for Item {
    fn from(death: Death) -> Self {
        Self::Death(Arc::new(death))
    }
}

impl Item {
    pub(super) fn json(&self) -> Result<Bytes, LedgerError> {
        // Written where there is room for nearly all, and then kept in no more than it takes.
        let mut json = Vec::with_capacity(ROOM);
        match self {
            Self::Death(death) => serde_json::to_writer(&mut json, &**death),
            Self::Alert(alert) => serde_json::to_writer(&mut json, &**alert),
        }?;
        Ok(Bytes::copy_from_slice(&json))
    }

    /// When it happened.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Death(death) => death.time,
            Self::Alert(alert) => alert.time,
        }
    }
}

/// What a reader has not seen yet.
#[derive(Debug, Default)]
pub struct Batch {
    /// Entries, oldest first, without gaps between them.
    pub entries: Vec<Arc<Entry>>,
    /// Entries between the reader's cursor and the first of `entries` that are gone. If there are no `entries`, the cursor is to move by this.
    pub skipped: u64,
}

/// Something that could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It has no JSON form.
    #[error("the death cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// A note is too long, or there are too many.
    #[error("the ledger has no room for the note {0:?}: at most {max} bytes each, {many} of them", max = MAX_NOTE, many = MAX_NOTES)]
    Note(String),
}
