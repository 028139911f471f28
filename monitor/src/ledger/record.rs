//! How an entry stands in the file: a head of fixed length, then the JSON as it is told.
//!
//! The head has what is searched by, so that a search reads JSON only where it may find something, and a checksum over all the rest: a
//! record that was damaged is known to be, whatever it still looks like.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Entry, Filter, Item};

/// Kinds, as written.
const DEATH: u8 = 0;
const ALERT: u8 = 1;

/// Bytes of the head: kind, id, time, two pids, checksum.
const HEAD: usize = 1 + 16 + 8 + 4 + 4 + 4;

/// What is searched by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    kind: u8,
    id: Uuid,
    /// µs since 1970.
    time: i64,
    /// The victim's process ids, on the node and in its own pid namespace; 0 where there is none.
    pids: [u32; 2],
    checksum: u32,
}

impl Head {
    /// The head of a record, which may be damaged; `None` if it is not even that long.
    pub(super) fn parse(record: &[u8]) -> Option<(Self, &[u8])> {
        let (kind, rest) = record.split_first()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (pid, rest) = rest.split_first_chunk::<4>()?;
        let (inside, rest) = rest.split_first_chunk::<4>()?;
        let (checksum, json) = rest.split_first_chunk::<4>()?;
        let head = Self {
            kind: *kind,
            id: Uuid::from_bytes(*id),
            time: i64::from_le_bytes(*time),
            pids: [u32::from_le_bytes(*pid), u32::from_le_bytes(*inside)],
            checksum: u32::from_le_bytes(*checksum),
        };
        Some((head, json))
    }

    /// The death's or alert's time.
    pub(super) fn time(&self) -> Timestamp {
        Timestamp::from_microsecond(self.time).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The numbers by which its victim is looked for, each once.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> + use<> {
        let [pid, inside] = self.pids;
        [Some(pid), Some(inside).filter(|inside| *inside != pid)]
            .into_iter()
            .flatten()
            .filter(|pid| *pid != 0)
    }

    /// Whether the whole record may be let through.
    pub(super) fn may_pass(&self, filter: &Filter) -> bool {
        self.kind == DEATH
            && filter.id.is_none_or(|id| self.id == id)
            && filter.since.is_none_or(|since| self.time >= since.as_microsecond())
            // A time's fraction of a microsecond is cut off here.
            && filter.until.is_none_or(|until| self.time <= until.as_microsecond())
    }
}

/// The record of an entry under a key, and its head.
pub(super) fn encode(key: u64, entry: &Entry) -> (Head, Vec<u8>) {
    let (kind, id, time, pids) = match &entry.item {
        Item::Death(death) => {
            let victim = &death.victim;
            (DEATH, death.id, death.time, [victim.pid, victim.ns_pid.unwrap_or(0)])
        }
        Item::Alert(alert) => (ALERT, alert.id, alert.time, [0, 0]),
    };
    let mut head = Head { kind, id, time: time.as_microsecond(), pids, checksum: 0 };
    head.checksum = checksum(key, &head, &entry.json);
    let mut record = Vec::with_capacity(HEAD + entry.json.len());
    record.push(head.kind);
    record.extend_from_slice(head.id.as_bytes());
    record.extend_from_slice(&head.time.to_le_bytes());
    head.pids.iter().for_each(|pid| record.extend_from_slice(&pid.to_le_bytes()));
    record.extend_from_slice(&head.checksum.to_le_bytes());
    record.extend_from_slice(&entry.json);
    (head, record)
}

/// The entry `seq` of the record under a key; `None` if it is damaged, or nothing that this program knows.
pub(super) fn decode(key: u64, seq: u64, record: &[u8]) -> Option<Arc<Entry>> {
    let (head, json) = Head::parse(record)?;
    if head.checksum != checksum(key, &head, json) {
        return None;
    }
    let item = match head.kind {
        DEATH => Item::Death(Arc::new(serde_json::from_slice(json).ok()?)),
        ALERT => Item::Alert(Arc::new(serde_json::from_slice(json).ok()?)),
        _ => return None,
    };
    Some(Arc::new(Entry { seq, item, json: Bytes::copy_from_slice(json) }))
}

fn checksum(key: u64, head: &Head, json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key.to_le_bytes());
    hasher.update(&[head.kind]);
    hasher.update(head.id.as_bytes());
    hasher.update(&head.time.to_le_bytes());
    head.pids.iter().for_each(|pid| hasher.update(&pid.to_le_bytes()));
    hasher.update(json);
    hasher.finalize()
}

/// Bytes of JSON in a record.
pub(super) fn json_len(record: &[u8]) -> u64 {
    record.len().saturating_sub(HEAD) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::death::sample;

    fn entry(seq: u64) -> Entry {
        let item = Item::from(sample::oom_memcg());
        let json = item.json().unwrap();
        Entry { seq, item, json }
    }

    #[test]
    fn what_is_written_is_read() {
        let entry = entry(7);
        let (head, record) = encode(9, &entry);
        assert_eq!(Head::parse(&record).unwrap().0, head);
        assert_eq!(json_len(&record), entry.json.len() as u64);
        let read = decode(9, 7, &record).unwrap();
        assert_eq!((read.seq, &read.json, read.death()), (7, &entry.json, entry.death()));
        assert!(decode(8, 7, &record).is_none(), "a record under another key is another's");
    }

    proptest! {
        #[test]
        fn damage_is_seen(at: prop::sample::Index, flip in 1u8..) {
            let (_, mut record) = encode(1, &entry(1));
            let at = at.index(record.len());
            record[at] ^= flip;
            prop_assert!(decode(1, 1, &record).is_none());
        }

        #[test]
        fn any_bytes_are_survived(record: Vec<u8>) {
            let _ = decode(1, 1, &record);
            let _ = json_len(&record);
        }
    }
}
