//! The kernel side's own count of what went over a ring, and a look at it that is exact.

use aya::maps::{MapData, PerCpuArray};
use killwatch_ebpf::wire::{Kind, Traffic};

/// Reads the map `TRAFFIC` of a set. Its form is the same in every version of the records.
pub struct Counter(PerCpuArray<MapData, [u64; 3]>);

impl Counter {
    /// Wraps the map.
    #[must_use]
    pub const fn new(map: PerCpuArray<MapData, [u64; 3]>) -> Self {
        Self(map)
    }

    /// The sum over all programs and CPUs; `None` if it cannot be read.
    #[must_use]
    pub fn read(&self) -> Option<Traffic> {
        let mut total = Traffic::default();
        // As many programs as that version has.
        for program in 0..self.0.len() {
            let per_cpu = self.0.get(&program, 0).ok()?;
            total = sum(total, per_cpu.iter());
        }
        Some(total)
    }
}

fn sum<'a>(total: Traffic, per_cpu: impl Iterator<Item = &'a [u64; 3]>) -> Traffic {
    per_cpu.fold(total, |sum, [begun, done, ends]| Traffic {
        begun: sum.begun.wrapping_add(*begun),
        done: sum.done.wrapping_add(*done),
        ends: sum.ends.wrapping_add(*ends),
    })
}

/// Ends that were ever submitted, if no record was in the making while the ring was found to be empty between these two looks.
#[must_use]
pub fn submitted(before: Traffic, after: Traffic) -> Option<u64> {
    (before.done == after.begun).then_some(after.ends)
}

/// Whether a record of any version is the end of a process: its first two bytes are its kind.
#[must_use]
pub fn is_end(record: &[u8]) -> bool {
    record.first_chunk::<2>().is_some_and(|kind| u16::from_ne_bytes(*kind) == Kind::Exit as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_counts_only_while_nothing_is_in_the_making() {
        let at = |begun, done, ends| Traffic { begun, done, ends };
        assert_eq!(submitted(at(5, 5, 2), at(5, 5, 2)), Some(2));
        // Begun before the first look and done before the second.
        assert_eq!(submitted(at(5, 4, 2), at(5, 5, 3)), None);
        assert_eq!(submitted(at(5, 5, 2), at(6, 5, 2)), None);
        assert_eq!(submitted(at(5, 5, 2), at(6, 6, 3)), None);
    }

    #[test]
    fn all_cpus_count() {
        let before = Traffic { begun: 100, done: 0, ends: 0 };
        let total = sum(before, [[1, 2, 3], [10, 20, 30], [0, 0, 0]].iter());
        assert_eq!(total, Traffic { begun: 111, done: 22, ends: 33 });
    }

    #[test]
    fn a_strange_record_is_counted_by_its_kind_alone() {
        let end = (Kind::Exit as u16).to_ne_bytes();
        assert!(is_end(&end) && is_end(&[&end[..], &[0xff; 3]].concat()));
        assert!(!is_end(&[]) && !is_end(&end[..1]) && !is_end(&[0xff; 4000]));
        assert!(!is_end(&(Kind::Mark as u16).to_ne_bytes()));
    }
}
