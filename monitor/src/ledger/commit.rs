//! Writing the file: one transaction takes all that waits, entries, cursors and notes, and lets go of what the bounds have no room for any more.

use jiff::Timestamp;
use redb::{Durability, ReadableTable as _, ReadableTableMetadata as _, Table};

use super::cursors::Place;
use super::record::{Head, encode, json_len};
use super::store::{
    BY_PID, CURSORS, META, NOTES, RECORDS, ROW_BYTES, ROW_LAST, Shelf, Store, StoreError, Work,
    guarded,
};
use super::{Bounds, Entry};

/// Records that one transaction lets go of at most, beyond as many as it adds.
const PRUNED_AT_ONCE: u64 = 4096;

impl Store {
    /// Writes all of it, and lets go of what the bounds have no room for; after a return, it is on the disk.
    pub(super) fn commit(
        &self,
        work: &Work,
        bounds: &Bounds,
        now: Timestamp,
    ) -> Result<Shelf, StoreError> {
        guarded(|| {
            let mut txn = self.db()?.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            let shelf = {
                let mut meta = txn.open_table(META)?;
                let mut records = Records {
                    records: txn.open_table(RECORDS)?,
                    by_pid: txn.open_table(BY_PID)?,
                    bytes: meta.get(ROW_BYTES)?.map_or(0, |bytes| bytes.value()),
                };
                for entry in &work.entries {
                    records.insert(self.key(entry.seq), entry)?;
                }
                let (evicted, more) = records.prune(bounds, now, work.entries.len() as u64)?;
                if let Some(cursors) = &work.cursors {
                    self.put_cursors(&mut txn.open_table(CURSORS)?, cursors)?;
                }
                let mut notes = txn.open_table(NOTES)?;
                for (key, note) in &work.notes {
                    notes.insert(key.as_str(), &**note)?;
                }
                meta.insert(ROW_BYTES, records.bytes)?;
                let last = meta.get(ROW_LAST)?.map_or(0, |last| last.value());
                meta.insert(ROW_LAST, last.max(self.key(work.last)))?;
                Shelf { evicted, more, ..self.shelf(&records.records, records.bytes)? }
            };
            txn.commit()?;
            Ok(shelf)
        })
    }

    fn put_cursors(
        &self,
        table: &mut Table<'_, &'static str, (u64, i64)>,
        cursors: &[(String, Place)],
    ) -> Result<(), StoreError> {
        table.retain(|name, _| cursors.iter().any(|(kept, _)| kept == name))?;
        for (name, place) in cursors {
            let row = (self.key(place.seq), place.used.as_microsecond());
            table.insert(name.as_str(), row)?;
        }
        Ok(())
    }
}

/// The records and what hangs on them, within a transaction.
struct Records<'t> {
    records: Table<'t, u64, &'static [u8]>,
    by_pid: Table<'t, (u32, u64), ()>,
    bytes: u64,
}

impl Records<'_> {
    fn insert(&mut self, key: u64, entry: &Entry) -> Result<(), StoreError> {
        let (head, record) = encode(key, entry);
        // Written before, if the disk failed after it had the last transaction.
        let before = self.records.insert(key, &*record)?.map(|old| json_len(old.value()));
        self.bytes = self.bytes.saturating_sub(before.unwrap_or(0)) + entry.json.len() as u64;
        for pid in head.pids() {
            self.by_pid.insert((pid, key), ())?;
        }
        Ok(())
    }

    /// Lets the oldest go while they are too many, too large or too old. How many went, and whether more should.
    fn prune(
        &mut self,
        bounds: &Bounds,
        now: Timestamp,
        added: u64,
    ) -> Result<(u64, bool), StoreError> {
        let oldest = bounds.oldest(now);
        let mut pruned = 0;
        loop {
            let len = self.records.len()?;
            let (key, size, head) = {
                let Some((key, record)) = self.records.first()? else { return Ok((pruned, false)) };
                let record = record.value();
                (key.value(), json_len(record), Head::parse(record).map(|(head, _)| head))
            };
            let over = len > bounds.max_deaths
                || (self.bytes > bounds.max_bytes && len > 1)
                || head.is_some_and(|head| head.time() < oldest);
            if !over || pruned >= added.saturating_add(PRUNED_AT_ONCE) {
                return Ok((pruned, over));
            }
            self.records.remove(key)?;
            for pid in head.iter().flat_map(Head::pids) {
                self.by_pid.remove((pid, key))?;
            }
            self.bytes = self.bytes.saturating_sub(size);
            pruned += 1;
        }
    }
}
