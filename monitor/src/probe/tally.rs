//! How many ends of processes were dealt with, so that the next daemon can tell how many were read from the ring and then lost with a daemon that
//! was killed. Pure.
//!
//! The kernel side counts the ends that it submits ([`super::traffic`]). All that were submitted are on the ring, or were read by this daemon,
//! or were dealt with by one before, or are lost. An end is dealt with once its death is in the ledger, or it was let go of on purpose and counted.
//! Ends pass the daemon in the order in which they were read, so a number says which.

use uuid::Uuid;

/// The key under which the ledger keeps the note.
pub const KEY: &str = "ring";

/// What a note says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Of which set, so that a number is never taken for that of another ring or boot.
    pub set: Uuid,
    /// Ends that were on its ring and are dealt with. Negative while ends of the ring before it are still on their way.
    pub ends: i64,
}

/// Form of a note.
const FORMAT: u8 = 1;
/// Bytes of a note.
pub const NOTE_BYTES: usize = 1 + 16 + 8;

impl Note {
    /// As it is kept.
    #[must_use]
    pub fn to_bytes(self) -> [u8; NOTE_BYTES] {
        let mut bytes = [FORMAT; NOTE_BYTES];
        let (_, rest) = bytes.split_at_mut(1);
        let (set, ends) = rest.split_at_mut(16);
        set.copy_from_slice(self.set.as_bytes());
        ends.copy_from_slice(&self.ends.to_le_bytes());
        bytes
    }

    /// Reads a note; `None` if it is none of ours.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first()?;
        let (set, ends) = rest.split_first_chunk::<16>()?;
        let ends = i64::from_le_bytes(*ends.as_array::<8>()?);
        (*format == FORMAT).then_some(Self { set: Uuid::from_bytes(*set), ends })
    }
}

/// Ends that an earlier daemon read and did not deal with. `submitted`: all that ever were on the ring; `read`: of these, by this daemon, of which
/// the ring is empty now; `noted`: dealt with before it. `None`: nobody noted it, so nobody knows.
#[must_use]
pub fn lost(submitted: u64, read: u64, noted: Option<i64>) -> Option<u64> {
    let balance = i128::from(submitted) - i128::from(read) - i128::from(noted?);
    Some(u64::try_from(balance.max(0)).unwrap_or(u64::MAX))
}

/// The count of this daemon.
#[derive(Debug, Default)]
pub struct Tally {
    /// The set that is read, and what its count was when this daemon had dealt with none.
    set: Option<(Uuid, i64)>,
    /// Ends that were read.
    read: u64,
}

impl Tally {
    /// What comes now was read from the ring of this set. `base`: its ends that others dealt with, less the ends of other rings that this daemon
    /// has read.
    pub const fn begin(&mut self, set: Uuid, base: Option<i64>) {
        self.set = match base {
            Some(base) => Some((set, base)),
            None => None,
        };
    }

    /// An end was read.
    pub const fn read(&mut self) {
        self.read += 1;
    }

    /// Ends were lost with a daemon before, and that was told.
    pub const fn told(&mut self, lost: u64) {
        if let Some((_, base)) = &mut self.set {
            *base = base.saturating_add_unsigned(lost);
        }
    }

    /// What to note while so many ends that were read are still on their way.
    #[must_use]
    pub fn note(&self, on_their_way: u64) -> Option<Note> {
        let (set, base) = self.set?;
        let done = self.read.saturating_sub(on_their_way);
        Some(Note { set, ends: base.saturating_add_unsigned(done) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SET: Uuid = Uuid::from_u128(7);

    #[test]
    fn what_was_dealt_with_is_noted() {
        let mut tally = Tally::default();
        tally.read();
        assert_eq!(tally.note(0), None);
        tally.begin(SET, Some(10));
        tally.read();
        tally.read();
        assert_eq!(tally.note(1), Some(Note { set: SET, ends: 12 }));
        tally.told(4);
        assert_eq!(tally.note(0), Some(Note { set: SET, ends: 17 }));
        tally.begin(SET, None);
        assert_eq!(tally.note(0), None);
    }

    #[test]
    fn what_a_killed_daemon_had_read_is_lost() {
        assert_eq!(lost(10, 3, Some(5)), Some(2));
        assert_eq!(lost(10, 3, Some(7)), Some(0));
        assert_eq!(lost(10, 3, Some(9)), Some(0));
        assert_eq!(lost(10, 3, None), None);
        // Of the ring before, two were on their way as the daemon was killed.
        assert_eq!(lost(10, 10, Some(-2)), Some(2));
        assert_eq!(lost(u64::MAX, 0, Some(i64::MIN)), Some(u64::MAX));
    }

    #[test]
    fn a_note_of_another_form_is_none() {
        let note = Note { set: SET, ends: -3 };
        let bytes = note.to_bytes();
        assert_eq!(Note::parse(&bytes), Some(note));
        assert_eq!(Note::parse(&bytes[..24]), None);
        assert_eq!(Note::parse(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Note::parse(&[&[2], &bytes[1..]].concat()), None);
        assert_eq!(Note::parse(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            if let Some(note) = Note::parse(&bytes) {
                prop_assert_eq!(&note.to_bytes()[..], bytes);
            }
        }

        /// Whatever is killed when: what is told and what is lost are together what was submitted.
        #[test]
        fn nothing_is_lost_uncounted(lives in proptest::collection::vec((0_u64..50, 0_u64..50, 0_u64..50), 1..20)) {
            let (mut submitted, mut on_ring, mut told, mut counted) = (0_u64, 0_u64, 0_u64, 0_u64);
            let mut noted = Some(Note { set: SET, ends: 0 });
            for (new, reads, deals) in lives {
                submitted += new;
                on_ring += new;
                let mut tally = Tally::default();
                tally.begin(SET, noted.map(|note| note.ends));
                let (before, waiting) = (noted.map(|note| note.ends), on_ring);
                // The first look is at all that waits; then it may be killed at any time.
                if reads > 0 {
                    (0..waiting).for_each(|_| tally.read());
                    let lost = lost(submitted, waiting, before).unwrap();
                    counted += lost;
                    tally.told(lost);
                    on_ring = 0;
                    let done = deals.min(waiting);
                    told += done;
                    noted = tally.note(waiting - done);
                }
            }
            let rest = lost(submitted, on_ring, noted.map(|note| note.ends)).unwrap();
            prop_assert_eq!(told + counted + rest + on_ring, submitted);
        }
    }
}
