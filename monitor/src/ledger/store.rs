//! The tables in the file, and reading them. `commit.rs` writes them.
//!
//! A key is an entry's number plus `shift`, which is other than 0 only where this run had begun to number before the file could be opened. Whatever the
//! crate that reads the file does with a damaged one, a panic included, comes out as an error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::cursors::{MAX_CURSORS, MAX_NOTES, Place};
use super::record::{Head, decode};
use super::{Entry, Filter};

/// Version of the tables. One that is newer than this program's is not touched.
const FORMAT: u64 = 1;
/// Bytes of JSON after which a read ends.
const READ_BYTES: usize = 1 << 20;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("killwatch");
pub(super) const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// Victim's process id and key.
pub(super) const BY_PID: TableDefinition<'_, (u32, u64), ()> = TableDefinition::new("by_pid");
/// Key and µs since 1970.
pub(super) const CURSORS: TableDefinition<'_, &str, (u64, i64)> = TableDefinition::new("cursors");
pub(super) const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("notes");

/// Rows of [`META`]: the version, the series of the keys, the furthest that was ever given, bytes of JSON in [`RECORDS`].
const ROW_FORMAT: &str = "format";
const ROW_SERIES: &str = "series";
pub(super) const ROW_LAST: &str = "last";
pub(super) const ROW_BYTES: &str = "bytes";

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Now: it may work later.
    #[error("{0}")]
    Disk(String),
    /// Another daemon has it.
    #[error("another killwatch uses it")]
    Busy,
    /// Ever: it is damaged, or not of ours.
    #[error("{0}")]
    Unusable(String),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::Busy,
            redb::Error::Io(error) if is_damage(&error) => Self::Unusable(error.to_string()),
            redb::Error::Io(error) => Self::Disk(error.to_string()),
            redb::Error::PreviousIo => Self::Disk("a write had failed before".to_owned()),
            error => Self::Unusable(error.to_string()),
        }
    }
}

fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof)
}

/// Runs what uses the file; a panic is damage.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Unusable("it is damaged so that its reader panicked".to_owned()))
    })
}

/// What is in the file, in this run's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shelf {
    /// The last.
    pub(super) last: u64,
    /// How many.
    pub(super) len: u64,
    /// Bytes of their JSON.
    pub(super) bytes: u64,
    /// Time of the oldest.
    pub(super) oldest: Option<Timestamp>,
    /// How many gave way just now.
    pub(super) evicted: u64,
    /// Whether more are to give way than one transaction lets go of.
    pub(super) more: bool,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) entries: Vec<Arc<Entry>>,
    /// All cursors, if any is to be written.
    pub(super) cursors: Option<Vec<(String, Place)>>,
    pub(super) notes: Vec<(String, Bytes)>,
    /// The furthest number that was ever given.
    pub(super) last: u64,
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) shelf: Shelf,
    pub(super) cursors: Vec<(String, Place)>,
    pub(super) notes: Vec<(String, Bytes)>,
    /// The furthest number that was ever given.
    pub(super) last: u64,
    /// The series of the keys.
    pub(super) series: u64,
}

/// Some entries without gaps between them.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    pub(super) entries: Vec<Arc<Entry>>,
    /// Numbers before the first of them for which there is nothing that can be read.
    pub(super) skipped: u64,
    /// Records that are there and cannot be read, by number.
    pub(super) unreadable: Vec<u64>,
}

/// An open file.
pub(super) struct Store {
    /// `None` only while it is dropped.
    db: Option<Database>,
    shift: u64,
}

impl Drop for Store {
    fn drop(&mut self) {
        let db = self.db.take();
        let _ = guarded(|| {
            drop(db);
            Ok(())
        });
    }
}

impl Store {
    /// Makes the tables where there are none, for the numbers of this series.
    pub(super) fn new(db: Database, series: u64) -> Result<Self, StoreError> {
        // From here on it is dropped with care.
        let store = Self { db: Some(db), shift: 0 };
        guarded(|| {
            let txn = store.db()?.begin_write()?;
            let is_new = txn.list_tables()?.next().is_none();
            {
                let mut meta = txn.open_table(META)?;
                if is_new {
                    meta.insert(ROW_FORMAT, FORMAT)?;
                    meta.insert(ROW_SERIES, series)?;
                }
                check_format(meta.get(ROW_FORMAT)?.map(|format| format.value()))?;
                txn.open_table(RECORDS)?;
                txn.open_table(BY_PID)?;
                txn.open_table(CURSORS)?;
                txn.open_table(NOTES)?;
            }
            if is_new {
                txn.commit()?
            } else {
                txn.abort()?
            }
            Ok(())
        })?;
        Ok(store)
    }

    /// A file that is only read.
    pub(super) fn read_only(db: Database) -> Result<Self, StoreError> {
        let store = Self { db: Some(db), shift: 0 };
        guarded(|| {
            let meta = store.reading()?.open_table(META)?;
            check_format(meta.get(ROW_FORMAT)?.map(|format| format.value()))
        })?;
        Ok(store)
    }

    /// Numbers in this run begin after what is there.
    pub(super) fn begin_after(&mut self, shift: u64) {
        self.shift = shift;
    }

    pub(super) fn db(&self) -> Result<&Database, StoreError> {
        self.db.as_ref().ok_or_else(|| StoreError::Disk("it is closed".to_owned()))
    }

    fn reading(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.db()?.begin_read()?)
    }

    fn seq(&self, key: u64) -> u64 {
        key.saturating_sub(self.shift)
    }

    pub(super) fn key(&self, seq: u64) -> u64 {
        seq.saturating_add(self.shift)
    }

    /// What is there.
    pub(super) fn load(&self) -> Result<Loaded, StoreError> {
        guarded(|| {
            let txn = self.reading()?;
            let meta = txn.open_table(META)?;
            let row = |row| Ok::<_, StoreError>(meta.get(row)?.map_or(0, |value| value.value()));
            let shelf = self.shelf(&txn.open_table(RECORDS)?, row(ROW_BYTES)?)?;
            let mut loaded = Loaded {
                shelf,
                last: row(ROW_LAST)?,
                series: row(ROW_SERIES)?,
                ..Loaded::default()
            };
            for row in txn.open_table(CURSORS)?.iter()?.take(MAX_CURSORS) {
                let (name, place) = row?;
                let (key, used) = place.value();
                let used = Timestamp::from_microsecond(used).unwrap_or(Timestamp::UNIX_EPOCH);
                loaded.cursors.push((name.value().to_owned(), Place { seq: self.seq(key), used }));
                loaded.last = loaded.last.max(key);
            }
            for row in txn.open_table(NOTES)?.iter()?.take(MAX_NOTES) {
                let (key, note) = row?;
                loaded.notes.push((key.value().to_owned(), Bytes::copy_from_slice(note.value())));
            }
            loaded.last = self.seq(loaded.last).max(shelf.last);
            Ok(loaded)
        })
    }

    pub(super) fn shelf(
        &self,
        records: &impl redb::ReadableTable<u64, &'static [u8]>,
        bytes: u64,
    ) -> Result<Shelf, StoreError> {
        let last = records.last()?.map_or(0, |(key, _)| self.seq(key.value()));
        let oldest = records.first()?;
        let oldest = oldest.and_then(|(_, record)| Some(Head::parse(record.value())?.0.time()));
        Ok(Shelf { last, len: records.len()?, bytes, oldest, ..Shelf::default() })
    }

    /// The first entries of those from `from` to `to`, at most `max`.
    pub(super) fn read(&self, from: u64, to: u64, max: usize) -> Result<Stretch, StoreError> {
        guarded(|| {
            let mut stretch = Stretch::default();
            let (mut next, mut bytes) = (self.key(from), 0);
            let records = self.reading()?.open_table(RECORDS)?;
            for row in records.range(next..=self.key(to))? {
                let (key, record) = row?;
                let key = key.value();
                let begun = !stretch.entries.is_empty();
                if stretch.entries.len() >= max || bytes >= READ_BYTES || (begun && key != next) {
                    return Ok(stretch);
                }
                match decode(key, self.seq(key), record.value()) {
                    Some(entry) => {
                        if !begun {
                            stretch.skipped = key - self.key(from);
                        }
                        bytes += entry.json.len();
                        stretch.entries.push(entry);
                    }
                    None if begun => return Ok(stretch),
                    None => stretch.unreadable.push(self.seq(key)),
                }
                next = key.saturating_add(1);
            }
            if stretch.entries.is_empty() {
                stretch.skipped = (to + 1).saturating_sub(from);
            }
            Ok(stretch)
        })
    }

    /// At most `limit` deaths before `before` that `filter` lets through, newest first.
    pub(super) fn newest(
        &self,
        filter: &Filter,
        before: u64,
        limit: usize,
    ) -> Result<Stretch, StoreError> {
        guarded(|| {
            let mut stretch = Stretch::default();
            let before = self.key(before);
            let txn = self.reading()?;
            let records = txn.open_table(RECORDS)?;
            if let Some(pid) = filter.any_pid() {
                let by_pid = txn.open_table(BY_PID)?;
                for row in by_pid.range((pid, 0)..(pid, before))?.rev() {
                    if stretch.entries.len() >= limit {
                        break;
                    }
                    let (_, key) = row?.0.value();
                    if let Some(record) = records.get(key)? {
                        self.look(&mut stretch, filter, key, record.value());
                    }
                }
            } else {
                for row in records.range(..before)?.rev() {
                    if stretch.entries.len() >= limit {
                        break;
                    }
                    let (key, record) = row?;
                    self.look(&mut stretch, filter, key.value(), record.value());
                }
            }
            Ok(stretch)
        })
    }

    fn look(&self, stretch: &mut Stretch, filter: &Filter, key: u64, record: &[u8]) {
        let head = Head::parse(record);
        if head.is_some_and(|(head, _)| !head.may_pass(filter)) {
            return;
        }
        match decode(key, self.seq(key), record) {
            Some(entry) if filter.lets(&entry) => stretch.entries.push(entry),
            Some(_) => {}
            None => stretch.unreadable.push(self.seq(key)),
        }
    }

    /// The number before the first entry that may be of `since` or later. Entries are in the order of their coming, which is not quite that of their
    /// times: the search goes back until `slack` in a row are older.
    pub(super) fn before(&self, since: Timestamp, slack: usize) -> Result<u64, StoreError> {
        guarded(|| {
            let records = self.reading()?.open_table(RECORDS)?;
            let (mut first, mut older) = (None, 0);
            for row in records.range::<u64>(..)?.rev() {
                let (key, record) = row?;
                let time = Head::parse(record.value()).map(|(head, _)| head.time());
                // A head has its time in microseconds.
                if time.is_some_and(|time| time.as_microsecond() >= since.as_microsecond()) {
                    (first, older) = (Some(key.value()), 0);
                } else if older >= slack {
                    break;
                } else {
                    older += 1;
                }
            }
            let last = records.last()?.map_or(0, |(key, _)| key.value());
            Ok(self.seq(first.map_or(last, |first| first - 1)))
        })
    }
}

fn check_format(format: Option<u64>) -> Result<(), StoreError> {
    match format {
        Some(FORMAT) => Ok(()),
        Some(other) => Err(StoreError::Unusable(format!(
            "its version is {other}, and this killwatch knows {FORMAT}: a newer one wrote it"
        ))),
        None => Err(StoreError::Unusable("it is a database of another program".to_owned())),
    }
}

/// Makes the file one of another version; 0: of another program.
#[cfg(test)]
pub(super) fn set_format(db: Database, format: u64) {
    let txn = db.begin_write().unwrap();
    {
        let mut meta = txn.open_table(META).unwrap();
        match format {
            0 => drop(meta.remove(ROW_FORMAT).unwrap()),
            _ => drop(meta.insert(ROW_FORMAT, format).unwrap()),
        }
    }
    txn.commit().unwrap();
}
