//! The largest processes of a cgroup. Bounded in number and in time: a kill waits for it.

use std::time::{Duration, Instant};

use crate::death::ProcessMemory;
use crate::procfs::{Proc, Process};
use crate::tags::Tags;

/// Processes that are counted: all of a host that is not out of the ordinary.
pub(super) const MAX_COUNTED: usize = 16_384;
/// How long the look may take; a process costs about 10 µs.
const MAX_TIME: Duration = Duration::from_millis(50);

/// The largest of `pids`, at most `most`, the largest first, and how many of `pids` were looked at.
pub(super) fn largest(
    proc: &Proc,
    tags: &Tags,
    pids: &[u32],
    most: usize,
    page_size: u64,
) -> (Vec<ProcessMemory>, usize) {
    let until = Instant::now() + MAX_TIME;
    let mut sizes: Vec<(u64, u32)> = Vec::with_capacity(pids.len());
    let mut looked_at = 0;
    for pid in pids {
        if Instant::now() >= until {
            break;
        }
        looked_at += 1;
        sizes.extend(proc.resident_pages(*pid).map(|pages| (pages, *pid)));
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let told = sizes.iter().take(most).filter_map(|(pages, pid)| {
        let memory = proc.memory(*pid)?;
        Some(ProcessMemory {
            pid: *pid,
            comm: memory.comm,
            rss_bytes: memory.rss.unwrap_or(pages * page_size),
            anon_bytes: memory.anon,
            shmem_bytes: memory.shmem,
            swap_bytes: memory.swap,
            oom_score_adj: proc.oom_score_adj(*pid),
            tags: tagged(proc, tags, *pid),
            victim: false,
        })
    });
    (told.collect(), looked_at)
}

fn tagged(proc: &Proc, tags: &Tags, pid: u32) -> std::collections::BTreeMap<String, String> {
    if tags.is_empty() {
        return Default::default();
    }
    let process: Option<Process> = proc.process(pid);
    process.map(|process| tags.of_living(process)).unwrap_or_default()
}
