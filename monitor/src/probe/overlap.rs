//! While new programs take the place of old ones both are at work, and write the same to two rings. What was read from the old ring is skipped on
//! the new one. Pure.

use std::collections::HashMap;

use super::decode::Raw;

/// Records that are remembered. Beyond that a record may be told twice to `join`, which drops a second end.
const MAX: usize = 65_536;
/// This long after the last record of the old ring nothing on the new one can be a repetition, ns.
const OVER_NS: u64 = 5_000_000_000;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Mark(u32, u64),
    CountedAgain(u32, u64),
    Exit(u32, u64),
    CgroupMade(u32, u64),
    CgroupGone(u32, u64),
}

/// What was read from the old ring, and how often.
#[derive(Debug, Default)]
pub struct Overlap {
    seen: HashMap<Key, u32>,
    newest_ns: u64,
}

impl Overlap {
    /// A record was read from the old ring.
    pub fn old(&mut self, raw: &Raw<'_>) {
        let Some((key, ktime_ns)) = key(raw) else { return };
        self.newest_ns = self.newest_ns.max(ktime_ns);
        if self.seen.len() < MAX || self.seen.contains_key(&key) {
            *self.seen.entry(key).or_default() += 1;
        }
    }

    /// Whether a record of the new ring repeats one of the old.
    pub fn repeats(&mut self, raw: &Raw<'_>) -> bool {
        if self.seen.is_empty() {
            return false;
        }
        let Some((key, ktime_ns)) = key(raw) else { return false };
        if ktime_ns > self.newest_ns.saturating_add(OVER_NS) {
            self.seen = HashMap::new();
            return false;
        }
        let Some(times) = self.seen.get_mut(&key) else { return false };
        *times -= 1;
        if *times == 0 {
            self.seen.remove(&key);
        }
        true
    }
}

/// `None` for texts, which belong to a process whose end is what counts, and for paths, the last of which is right.
fn key(raw: &Raw<'_>) -> Option<(Key, u64)> {
    Some(match raw {
        Raw::Mark(mark) => {
            (Key::Mark(mark.victim.tgid, mark.victim.start_ns), mark.header.ktime_ns)
        }
        Raw::CountedAgain(again) => {
            (Key::CountedAgain(again.victim.tgid, again.victim.start_ns), again.header.ktime_ns)
        }
        Raw::Exit(exit) => {
            (Key::Exit(exit.victim.tgid, exit.victim.start_ns), exit.header.ktime_ns)
        }
        Raw::CgroupMade(made) => (Key::CgroupMade(made.id.hierarchy, made.id.id), 0),
        Raw::CgroupGone(id, ktime_ns) => (Key::CgroupGone(id.hierarchy, id.id), *ktime_ns),
        Raw::LastWords(_) | Raw::Chunk(_) | Raw::CgroupRenamed(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use killwatch_ebpf::wire::{Exit, Mark};
    use zerocopy::FromZeros as _;

    use super::*;

    fn exit(tgid: u32, ktime_ns: u64) -> Raw<'static> {
        let mut exit = Box::new(Exit::new_zeroed());
        (exit.victim.tgid, exit.header.ktime_ns) = (tgid, ktime_ns);
        Raw::Exit(exit)
    }

    fn mark(tgid: u32, ktime_ns: u64) -> Raw<'static> {
        let mut mark = Box::new(Mark::new_zeroed());
        (mark.victim.tgid, mark.header.ktime_ns) = (tgid, ktime_ns);
        Raw::Mark(mark)
    }

    #[test]
    fn each_record_of_the_old_ring_is_skipped_once() {
        let mut overlap = Overlap::default();
        assert!(!overlap.repeats(&exit(1, 10)));
        for raw in [exit(1, 10), mark(1, 9), exit(2, 12)] {
            overlap.old(&raw);
        }
        assert!(overlap.repeats(&mark(1, 11)));
        assert!(!overlap.repeats(&mark(1, 11)));
        assert!(overlap.repeats(&exit(1, 11)));
        assert!(!overlap.repeats(&exit(3, 11)));
        assert!(overlap.repeats(&exit(2, 11)));
    }

    #[test]
    fn it_ends_in_time() {
        let mut overlap = Overlap::default();
        overlap.old(&exit(1, 10));
        overlap.old(&exit(2, 10));
        assert!(overlap.repeats(&exit(2, 10 + OVER_NS)));
        // The same pid and start, but no process starts twice: what is remembered is let go.
        assert!(!overlap.repeats(&exit(3, 11 + OVER_NS)));
        assert!(overlap.seen.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut overlap = Overlap::default();
        for tgid in 0..70_000 {
            overlap.old(&exit(tgid, 1));
        }
        assert_eq!(overlap.seen.len(), MAX);
    }
}
