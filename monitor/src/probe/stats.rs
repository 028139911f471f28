//! What the kernel side could not put on the ring, and what it never got to see.

use std::{fs, path::PathBuf};

use aya::maps::{MapData, PerCpuArray};
use killwatch_ebpf::wire::PROGRAMS;

/// Reads the per-CPU loss counters, and the kernel's own of each program.
pub struct Lost {
    counters: PerCpuArray<MapData, u64>,
    /// Of programs whose place these have taken.
    before: Vec<PerCpuArray<MapData, u64>>,
    skips: Vec<(&'static str, PathBuf)>,
}

impl Lost {
    /// Wraps the map `LOST`.
    #[must_use]
    pub const fn new(map: PerCpuArray<MapData, u64>) -> Self {
        Self { counters: map, before: Vec::new(), skips: Vec::new() }
    }

    /// Goes on from what the programs before have lost. They wrote the same records.
    pub fn follow(&mut self, before: Self) {
        self.before.push(before.counters);
    }

    /// Reads the skips of these programs too: each with its file below `/proc/self/fdinfo`.
    pub fn watch(&mut self, skips: Vec<(&'static str, PathBuf)>) {
        self.skips = skips;
    }

    /// Times that the kernel skipped a program since it was loaded, since it was running on that CPU already. From 5.15 on; earlier kernels do not tell.
    #[must_use]
    pub fn skipped(&self) -> Vec<(&'static str, u64)> {
        let read = |file: &PathBuf| skips(&fs::read_to_string(file).ok()?);
        self.skips.iter().filter_map(|(name, file)| Some((*name, read(file)?))).collect()
    }

    /// Records lost since the first of these programs were loaded, per program.
    #[must_use]
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        (0_u32..)
            .zip(PROGRAMS)
            .filter_map(|(slot, program)| {
                let lost = |map: &PerCpuArray<MapData, u64>| {
                    map.get(&slot, 0).map(|per_cpu| per_cpu.iter().sum::<u64>())
                };
                let before: u64 = self.before.iter().filter_map(|map| lost(map).ok()).sum();
                Some((*program, lost(&self.counters).ok()?.saturating_add(before)))
            })
            .collect()
    }
}

/// Where below `/proc/self/fdinfo` the kernel tells of a program that this process has a descriptor of.
#[must_use]
pub fn told_of(program: u32) -> Option<PathBuf> {
    let entries = fs::read_dir("/proc/self/fdinfo").ok()?;
    // Descriptors of other threads may be gone since.
    let mut files = entries.filter_map(Result::ok).map(|entry| entry.path());
    files.find(|file| fs::read_to_string(file).is_ok_and(|text| is_of(&text, program)))
}

/// A link's has the number of its program too.
fn is_of(text: &str, program: u32) -> bool {
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    value("prog_type:").is_some() && value("prog_id:") == Some(&program.to_string())
}

/// `recursion_misses` of a program's fdinfo (kernel/bpf/syscall.c).
fn skips(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{is_of, skips};

    #[test]
    fn a_program_is_told_from_its_link() {
        let program = "pos:\t0\nprog_type:\t26\nprog_jited:\t1\nprog_id:\t17\nrun_cnt:\t0\n";
        assert!(is_of(program, 17));
        assert!(!is_of(program, 1) && !is_of(program, 71));
        assert!(!is_of("pos:\t0\nlink_type:\ttracing\nlink_id:\t3\nprog_id:\t17\n", 17));
    }

    #[test]
    fn the_kernels_own_count_is_found() {
        assert_eq!(skips("pos:\t0\nrecursion_misses:\t112\nverified_insns:\t9\n"), Some(112));
        assert_eq!(skips("pos:\t0\n"), None);
    }
}
