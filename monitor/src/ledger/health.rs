//! How the ledger fares, and its bounds.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::LedgerConfig;

/// How the ledger fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Where the file is; `None` if there is to be none.
    pub file: Option<String>,
    /// Why deaths are told before they are on the disk, if so.
    pub degraded: Option<String>,
    /// Attempts to open or write the file that failed, since the start.
    pub write_failures: u64,
    /// Entries that are kept.
    pub entries: u64,
    /// Bytes of their JSON.
    pub bytes: u64,
    /// Time of the oldest.
    pub oldest: Option<Timestamp>,
    /// Entries that gave way, since the start.
    pub evicted: u64,
    /// Of these, those that never were in the file although they should have been.
    pub unsaved: u64,
    /// Records of the file that a reader met and could not read, since the start; at most 1024 are counted.
    pub unreadable: u64,
}

/// The bounds, in plain numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_deaths: u64,
    pub(super) max_bytes: u64,
    pub(super) max_age: Duration,
    pub(super) max_memory: u64,
}

impl Bounds {
    /// What is from before this time is too old.
    pub(super) fn oldest(&self, now: Timestamp) -> Timestamp {
        let age = SignedDuration::try_from(self.max_age).unwrap_or(SignedDuration::MAX);
        now.checked_sub(age).unwrap_or(Timestamp::MIN)
    }
}

impl From<&LedgerConfig> for Bounds {
    fn from(config: &LedgerConfig) -> Self {
        Self {
            max_deaths: config.max_deaths.get() as u64,
            max_bytes: config.max_bytes.get(),
            max_age: config.max_age.get(),
            max_memory: config.max_memory.get(),
        }
    }
}

/// What ages are counted from.
#[cfg(not(test))]
pub(super) fn now() -> Timestamp {
    crate::clock::Clock.now()
}

/// The deaths of tests have one fixed time: theirs is the day after, or each would be too old.
#[cfg(test)]
pub(super) fn now() -> Timestamp {
    let day_after = SignedDuration::from_hours(24);
    let sample = crate::death::sample::oom_memcg();
    sample.time.checked_add(day_after).unwrap_or_default()
}
